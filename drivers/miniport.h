/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * miniport: the kernel's view of a NIC port that a daemon owns. The daemon drives the port; all that is not
 * the SAN's (ARP, ICMP, TCP of programs that do not use the SAN...) goes to and from the kernel through an
 * ordinary network interface, so that addresses, routes, firewalls and tools work on it as on any other.
 *
 * The interface is a TAP one in the network namespace of the thread that opens it. It has the port's MAC
 * address, MTU and link state. Whether it is up, and its addresses, are the administrator's. The kernel is
 * offered checksum and segmentation offload (TSO, and USO where it has it), and this file does, in software,
 * what of that the port cannot. No port of drivers/port.h segments, or finishes any checksum but UDP's.
 *
 * Frames are those of drivers/port.h and stay their owners': what the port received is handed up where it
 * lies, and what the kernel sends is put straight into frames from the port's tx_get(). Only packets that
 * have to be cut are copied.
 *
 *   n = port->rx(frames);  miniport_to_kernel(frames, n);  port->rx_done(frames, n);
 *   n = port->tx_get(frames);  k = miniport_from_kernel(frames, n);  port->tx(frames, k);  ...tx_put(the
 * rest)
 *
 * No call blocks or allocates except open and close. One thread at a time uses a miniport; errors are 0 or
 * -errno. Needs CAP_NET_ADMIN to open and to set the MTU, or with `persist` an interface that belongs to the
 * user already.
 */
#ifndef SD_DRIVERS_MINIPORT_H
#define SD_DRIVERS_MINIPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "drivers/port.h"

struct miniport;

enum miniport_offload {
	MINIPORT_CSUM = 1 << 0, /* the kernel may leave checksums to us */
	MINIPORT_TSO = 1 << 1,	/* and large TCP packets; implies MINIPORT_CSUM */
	MINIPORT_USO = 1 << 2, /* and large UDP packets; implies MINIPORT_CSUM. Ignored by Linux before 6.2 */
	MINIPORT_OFFLOAD_ALL = MINIPORT_CSUM | MINIPORT_TSO | MINIPORT_USO,
};

struct miniport_config {
	size_t size;	    /* sizeof(struct miniport_config) */
	const char *name;   /* of the interface: exact, at most 15 bytes */
	uint8_t mac[6];	    /* the port's */
	uint16_t mtu;	    /* the port's IP MTU */
	uint32_t port_caps; /* enum port_caps. PORT_CAP_TX_CSUM: frames may be given out with PORT_TX_CSUM */
	uint32_t offloads;  /* enum miniport_offload: what the kernel is offered */
	bool link_up;	    /* at first */
	bool persist;	    /* the interface outlives this process, with its addresses and routes; its link is
			     * down until somebody opens it again. False: it goes with miniport_close() or the
			     * process, also one that was persistent until now */
};

struct miniport_stats {
	/* "up": to the kernel; "down": from the kernel. Frames and bytes as they are on the port. */
	uint64_t up_frames, up_bytes;
	uint64_t up_dropped; /* the interface is down or gone, the kernel has no memory, or the frame is none
			      */
	uint64_t down_frames, down_bytes;
	uint64_t down_dropped; /* packets too long for the port (an MTU above the port's was set), or
				  malformed */
	uint64_t cut;	       /* packets of the kernel that were cut into segments */
	uint64_t summed;       /* frames whose checksum was finished here, segments not counted */
};

/* Makes the interface, or attaches to the one of that name if it is a TAP interface nobody else has open. It
 * gets the MAC address, the MTU and the link state given, and keeps its addresses. Errors: -ENOENT or -ENODEV
 * (the kernel has no TAP interfaces), -EPERM, -EBUSY (another process has it), -EEXIST (the name is that of
 * an interface of another kind), -ENOTSUP (the kernel is too old), -EINVAL, -ENOMEM; err gets one line that
 * says what to do. */
int miniport_open(const struct miniport_config *cfg, struct miniport **out, char *err, size_t err_len);
/* Without persist, the interface is gone afterwards. */
void miniport_close(struct miniport *m);
/* Readable when the kernel has something to send, or the interface was deleted. */
int miniport_fd(const struct miniport *m);
/* Somebody deleted the interface: nothing will pass any more, and the descriptor stays readable. Close, and
 * open again. Known after a call of miniport_from_kernel or miniport_to_kernel has met with it. */
bool miniport_is_gone(const struct miniport *m);

/* Hands frames up that the port has received; they remain the caller's and are not changed. What the kernel
 * does not take at once is counted and lost, as by a NIC. The kernel is told that a checksum is right only
 * with PORT_RX_CSUM_OK, and looks for itself otherwise, also at frames with PORT_RX_CSUM_BAD. Returns how
 * many it took. */
unsigned miniport_to_kernel(struct miniport *m, const struct port_frame *frames, unsigned n);
/* Fills frames[0..k) with what the kernel sends and returns k. frames are empty ones, as from tx_get(): len
 * is their room, at least the MTU plus 22 bytes (two VLAN tags). Of the first k, len is the frame's and flags
 * are 0 or PORT_TX_CSUM; the rest may be scribbled on but is as empty as it was. Frames that are shorter than
 * Ethernet's least are filled up with zeros. When k is n there may be more that the descriptor does not tell
 * of (the rest of a large packet): call again before sleeping, until it returns fewer than asked for. */
unsigned miniport_from_kernel(struct miniport *m, struct port_frame *frames, unsigned n);

/* The port's MTU has changed. */
int miniport_set_mtu(struct miniport *m, uint16_t mtu);
/* The port's link state has changed: the kernel sees the carrier come and go. */
int miniport_set_link(struct miniport *m, bool up);
/* The port's capabilities may change when its peer does (drivers/port.h, link_poll). */
void miniport_set_caps(struct miniport *m, uint32_t port_caps);
/* The interface's index in its namespace; 0: it is gone. */
int miniport_index(const struct miniport *m);
void miniport_stats(const struct miniport *m, struct miniport_stats *out);

#endif
