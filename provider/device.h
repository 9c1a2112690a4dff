/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * device: verbs over a NIC port, for programs that want messages and remote memory instead of sockets. It
 * owns a port, a transport instance and what finds peers; the caller makes queue pairs, regions and
 * completion queues on its struct tp by transport/verbs.h, and drives everything by polling. docs/verbs.md
 * has an example.
 *
 * Threading: one thread at a time uses a device and all that hangs on it. Upcalls come from within
 * pv_device_poll(), _wait() and _find(), and may post requests, but end nothing. Errors are 0 or -errno.
 */
#ifndef SD_PROVIDER_DEVICE_H
#define SD_PROVIDER_DEVICE_H

#include "drivers/port.h"
#include "transport/verbs.h"

struct pv_device;

#define PV_DEVICE_NEVER UINT32_MAX

struct pv_device_config {
	size_t size; /* sizeof(struct pv_device_config) */
	struct port_config port;
	struct port *opened; /* instead of that: a port, which is the device's when it could be opened */
	const struct sd_addr *addrs; /* that it answers for; at most 16 */
	unsigned n_addrs;
	bool crc;		   /* CRC32C on every packet, if either end wants it */
	const char *congestion;	   /* "swift", "dctcp", "fixed"; NULL: swift */
	uint32_t window_packets;   /* of each connection; 0: 512. A power of two, 32 to 1024 */
	uint32_t max_conns;	   /* 0: 65536 */
	uint64_t max_ack_delay_ns; /* how long the caller may leave it alone; 0: 10 ms */
	uint64_t dead_timeout_ns;  /* 0: 5 s */
	uint32_t direct_min; /* frames of this length and more are sent without a copy of their payload, where
			      * the port can; 0: as has been measured; PV_DEVICE_NEVER: none */
	/* Upcalls. NULL: the caller does not want to know. */
	void (*qp_event)(void *ctx, struct tp_qp *qp, void *user, unsigned events);
	void (*completion)(void *ctx, struct tp_cq *cq, void *user); /* after tp_cq_notify() */
	void (*acceptable)(void *ctx, void *user);		     /* user: tp_qp_listen()'s */
	void *ctx;
};

/* Opens the port and the transport. Never waits for a peer: until the link is up nothing is sent. err gets
 * one line that says what to do. Errors are port_open()'s, -EINVAL and -ENOMEM. */
int pv_device_open(const struct pv_device_config *cfg, struct pv_device **out, char *err, size_t err_len);
/* Ends everything without a word to the peers; what hangs on its struct tp is gone. */
void pv_device_close(struct pv_device *d);

/* What verbs are called with; it stays the device's. */
struct tp *pv_device_tp(const struct pv_device *d);
/* The time of the last poll: what verbs want to know as now. */
uint64_t pv_device_now(const struct pv_device *d);
void pv_device_port_info(const struct pv_device *d, struct port_info *out);
/* How many packets were sent without a copy of their payload. */
uint64_t pv_device_sent_directly(const struct pv_device *d);

/* As tp_mr_register(). If the port can, large packets are sent from this memory without a copy. */
int pv_device_register(
	struct pv_device *d, struct tp_pd *pd, void *addr, size_t len, unsigned access, struct tp_mr **out);
/* As tp_mr_deregister(), for what was registered with the device: after -EBUSY poll, and call it again. */
int pv_device_deregister(struct pv_device *d, struct tp_mr *mr);

/* Receives, times out, sends what has been posted. How much was done; 0: nothing. */
unsigned pv_device_poll(struct pv_device *d);
/* Sends what has been posted since the last poll without waiting for the next one: the doorbell. */
void pv_device_flush(struct pv_device *d);
/* As pv_device_poll(), but sleeps until something arrives, a timer is due, or the time is over, if there is
 * nothing to do at once. A port without interrupts is looked at every 100 us. */
unsigned pv_device_wait(struct pv_device *d, uint64_t timeout_ns);

/* Asks the segment for peer, and polls until it is there and listens, or the time is over. *path leads from
 * local to peer then, ports included. -EHOSTUNREACH: nobody answers, -ENETDOWN: no link, -ECONNREFUSED:
 * nobody listens on that port. */
int pv_device_find(struct pv_device *d, const struct sd_addr *local, const struct sd_addr *peer,
	uint64_t timeout_ns, struct tp_path *path);

#endif
