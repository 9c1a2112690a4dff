/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * port: the driver SPI. A port sends and receives Ethernet frames in bursts.
 *
 * A frame that rx() returned belongs to the caller until rx_done(); its bytes are readable until then. A
 * frame from tx_get() belongs to the caller until tx() takes it or tx_put() gives it back. No call blocks or
 * allocates except open and close. One thread at a time uses a port (rx, tx, arm included); errors are 0 or
 * -errno.
 *
 * A port with several pairs of queues is as many struct ports, of which the one that open gave is the first
 * (queue). Threads may use them at the same time, but for link_poll and close, which are the first one's:
 * nobody else may use any of them meanwhile.
 *
 * Ports without a wire of their own format (UDP through the kernel) take and give the same Ethernet/IP/UDP
 * frames and translate.
 */
#ifndef SD_DRIVERS_PORT_H
#define SD_DRIVERS_PORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/log.h"

struct port;

/* Where all of the SAN's packets go (UDP). */
#define PORT_UDP_PORT 7747

enum port_frame_flags {
	PORT_RX_CSUM_BAD = 1 << 0, /* the NIC found a wrong IP or UDP checksum */
	PORT_RX_CSUM_OK = 1 << 1,  /* the NIC verified the UDP checksum */
	PORT_TX_CSUM = 1 << 2,	  /* UDP checksum field holds the pseudo header's sum: the NIC is to finish it
				   * (only with PORT_CAP_TX_CSUM; l3 and l4 offsets follow from the frame) */
	PORT_TX_CHAINED = 1 << 3, /* tx_chain's */
	PORT_RX_HANDED = 1 << 4,  /* it came to the queue of another user of the port (share.h) */
};

struct port_frame {
	uint8_t *data; /* first byte of the Ethernet header */
	uint32_t len;  /* bytes; for tx set by the caller, at most capacity */
	uint32_t flags;
	void *handle; /* the port's */
};

/* What a port can do. Those marked (tested) are tried at start, not believed. */
enum port_caps {
	PORT_CAP_TX_CSUM = 1 << 0,   /* UDP checksum on transmit */
	PORT_CAP_RX_CSUM = 1 << 1,   /* sets PORT_RX_CSUM_* */
	PORT_CAP_RX_INTR = 1 << 2,   /* arm() makes wait_fd() readable when a frame arrives (tested) */
	PORT_CAP_EXT_TX = 1 << 3,    /* transmits from the caller's memory: map, tx_chain */
	PORT_CAP_BROADCAST = 1 << 4, /* frames to ff:ff:ff:ff:ff:ff reach the segment */
	PORT_CAP_LINK = 1 << 5,	     /* link state is meaningful */
};

struct port_info {
	const char *name;
	const char *driver; /* "net_virtio_user", "sim", "udp"... */
	uint8_t mac[6];
	uint16_t mtu;	 /* IP MTU */
	uint16_t queues; /* pairs of a receive and a transmit queue that are in use; one until there is a
			    device */
	int numa_node;	 /* -1: unknown */
	uint32_t caps;
	bool link_up;
};

struct port_stats {
	uint64_t rx_frames, rx_bytes, tx_frames, tx_bytes;
	uint64_t rx_missed, rx_errors, tx_full; /* tx_full: tx() calls that could not take everything */
	uint64_t faults;			/* frames a fault injector touched */
	uint64_t rx_handed;			/* that were another user's (share.h) */
};

/* Bytes of the caller's. */
struct port_piece {
	const uint8_t *at;
	uint32_t len;
};

/* Nothing refers any more to the pieces that tx_chain was given with this token. Called from within tx,
 * tx_put, rx_done, reclaim, link_poll or close. */
typedef void port_released(void *ctx, uint64_t token);

struct port_ops {
	size_t size; /* sizeof(struct port_ops) */
	const char *name;
	/* Up to max frames that have arrived. */
	unsigned (*rx)(struct port *p, struct port_frame *frames, unsigned max);
	void (*rx_done)(struct port *p, struct port_frame *frames, unsigned n);
	/* Fills frames[0..n) with empty frames of at least the MTU plus 64 bytes; returns how many it had. */
	unsigned (*tx_get)(struct port *p, struct port_frame *frames, unsigned n);
	void (*tx_put)(struct port *p, struct port_frame *frames, unsigned n);
	/* Hands frames[0..n) to the NIC in order; returns how many it took. The rest stays the caller's. */
	unsigned (*tx)(struct port *p, struct port_frame *frames, unsigned n);
	/* A descriptor that polls readable once armed and a frame has arrived; -ENOTSUP: wait on a timer;
	 * -EAGAIN: nothing arrives before link_poll() has said that something changed. May change after
	 * link_poll(). */
	int (*wait_fd)(struct port *p);
	/* Asks for a wake-up on the next frame. Frames that came before may not count: poll once more after
	 * it. */
	int (*arm)(struct port *p);
	void (*disarm)(struct port *p); /* also consumes the wake-up */
	/* Refreshes the link state; slow work such as reconnecting belongs here. Call it every 100 ms or so.
	 * Returns true when anything changed. */
	bool (*link_poll)(struct port *p);
	void (*info)(struct port *p, struct port_info *out);
	void (*stats)(struct port *p, struct port_stats *out);
	/* The port of pair i of info's queues. NULL: there is but one. */
	struct port *(*queue)(struct port *p, unsigned i);
	/* How much of the receive queue is in use, in 256ths; 0 also if it cannot be told. NULL: it never
	 * can.
	 */
	unsigned (*backlog)(struct port *p);
	void (*close)(struct port *p);

	/* With PORT_CAP_EXT_TX, else NULL. Map: the NIC may send from this memory until unmap. -ENOTSUP: not
	 * from this one; -EEXIST: part of it is mapped already; -ENOMEM. */
	int (*map)(struct port *p, void *at, size_t len);
	void (*unmap)(struct port *p, void *at, size_t len);
	void (*set_released)(struct port *p, port_released *released, void *ctx);
	/* The frame, whose first len bytes have been written, goes on with n pieces of mapped memory and then
	 * with the tail, which is copied; len becomes that of all. -ENOBUFS: it is as it was. */
	int (*tx_chain)(struct port *p, struct port_frame *f, const struct port_piece *pieces, unsigned n,
		const void *tail, unsigned tail_len, uint64_t token);
	/* Looks what the NIC has sent, as far as the driver can: else only later frames bring it back. */
	void (*reclaim)(struct port *p);
};

/* Every port begins with this. */
struct port {
	const struct port_ops *ops;
};

/* Fault injection, applied by a wrapper port to what is sent. Probabilities in [0, 1]. */
struct port_faults {
	double loss, duplicate, reorder, corrupt;
	uint64_t delay_ns, jitter_ns; /* reordered frames are held for jitter_ns (0: 200 us) */
	uint64_t rate_bps;	      /* 0: unlimited */
	uint64_t seed;
};

/* How to open a port; plain data from the configuration. */
struct port_config {
	size_t size;	  /* sizeof(struct port_config) */
	const char *name; /* for messages */
	const char
		*device; /* "udp", or a DPDK device: "0000:03:00.1", "net_virtio_user0,path=...,server=1" */
	const char *standby;	     /* another one on the same network, or NULL (port_bond_open) */
	uint16_t mtu;		     /* IP MTU; 0: 1500 */
	uint8_t mac[6];		     /* all zero: the device's own */
	bool needs_mac;		     /* its address has to be known before its device is there */
	struct sd_addr udp_bind;     /* device "udp": the local address (port 0: TP's port) */
	struct sd_addr udp_bind_too; /* another one, of the other family; family 0: none */
	unsigned rx_descriptors, tx_descriptors; /* 0: the driver's choice */
	const char *hugepages;			 /* "auto", "on", "off" */
	unsigned queues;      /* pairs of a receive and a transmit queue that are wanted, or one; 0: one */
	const char *eal_args; /* further EAL arguments, separated by blanks, or NULL */
	struct port_faults faults;
	bool ext_tx; /* ask for PORT_CAP_EXT_TX, which may make a driver's other frames a little slower */
	bool own_process; /* a program of ours: devices that take a signal of the process (net_tap) may be
			     opened */
};

/* Opens what cfg->device names: "udp" here, all else through the DPDK backend when it was built in. With a
 * standby one of the two is enough, and cfg's strings stay the caller's until the port is closed. The error
 * is -ENODEV (no such device), -EBUSY (another process has it), -ENOTSUP (no DPDK in this build), -EPERM,
 * -ENOMEM, -EINVAL; err gets one line that says what to do. */
int port_open(const struct port_config *cfg, struct port **out, char *err, size_t err_len);
/* Does what port_open would do first and what takes longest (a DPDK device's EAL), without the device. Errors
 * as port_open's. */
int port_prepare(const struct port_config *cfg, char *err, size_t err_len);
/* The NUMA node of the device that this names, which need not be open; -1: unknown, or it has none. */
int port_numa_node(const char *device);
/* Who has to know which descriptors of the process are the ports' own: called with own = true for each that
 * appears, with false when it is gone, from port_open, link_poll and close. To be set before the first
 * port_open. */
typedef void port_fd_guard(void *ctx, int fd, bool own);
void port_set_fd_guard(port_fd_guard *guard, void *ctx);
/* Opens cfg, the index-th of its kind; as port_open. */
typedef int port_opener(void *ctx, unsigned index, const struct port_config *cfg, struct port **out,
	char *err, size_t err_len);
/* A port whose device cannot be opened now: open tries it every second, from link_poll, or less often, up
 * to 30 s, if trying takes long. It has one pair of queues until then, and no PORT_CAP_EXT_TX. cfg's strings
 * stay the caller's, until it is closed. -ENOMEM. */
int port_late_open(
	const struct port_config *cfg, port_opener *open, void *ctx, unsigned index, struct port **out);
/* Two ports of one network as one, with the first one's address: what goes by the one goes on by the other
 * when its link goes down or nothing is heard by it. They are its own then. One pair of queues, and no
 * PORT_CAP_EXT_TX. -ENOMEM, -EMFILE: they stay the caller's. */
int port_bond_open(struct port *first, struct port *second, struct port **out);
/* Such a port of cfg's device and its standby, which open opens, under index and index + 1: if one of them
 * cannot be opened it comes later (port_late_open). Errors as open's, of the first. */
int port_open_both(const struct port_config *cfg, port_opener *open, void *ctx, unsigned index,
	struct port **out, char *err, size_t err_len);
/* For the backends in this library. */
void port_guard_fd(int fd, bool own);
static inline void port_close(struct port *p)
{
	p->ops->close(p);
}

/* The backends. */
int port_udp_open(const struct port_config *cfg, struct port **out, char *err, size_t err_len);
/* In libsandirect-dpdk.so, which port_open loads on demand, so that nothing else links DPDK. */
int port_ethdev_open(const struct port_config *cfg, struct port **out, char *err, size_t err_len);
int port_ethdev_prepare(const struct port_config *cfg, char *err, size_t err_len);
void port_ethdev_set_fd_guard(port_fd_guard *guard, void *ctx);
/* The backend has a copy of base/log.h's state of its own: this opens it. */
void port_ethdev_set_log(enum sd_log_level level, sd_log_sink *sink, void *ctx);
/* Wraps inner (which it then owns) and applies faults to what is sent. */
int port_fault_open(struct port *inner, const struct port_faults *f, struct port **out);
/* Two ports joined by a simulated wire in memory. Time comes from *now_ns if that is not NULL (virtual time),
 * else from the clock. Each direction uses faults with its own stream of the seed. */
int port_sim_open_pair(
	const struct port_faults *f, uint16_t mtu, const uint64_t *now_ns, struct port **a, struct port **b);

#endif
