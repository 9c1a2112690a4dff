/* SPDX-License-Identifier: BSD-3-Clause */
/* The providers there are. A switch opens those it wants and adds them to its domain in order of preference.
 */
#ifndef SD_PROVIDER_REGISTRY_H
#define SD_PROVIDER_REGISTRY_H

#include "base/pack.h"
#include "drivers/port.h"
#include "provider/provider.h"

/* What ether providers share that have the same ports and are, to other hosts, one: each has a thread and an
 * engine of its own, and of the connections those that it began or that came to it. They start one after the
 * other, member 0 first, and stop while none of the others runs: member 0 alone has the ports' devices. */
struct pv_ether_crew;
/* At most 16 members. -EINVAL, -ENOMEM, -EIO. Closed after all of them. */
int pv_ether_crew_open(unsigned n, struct pv_ether_crew **out);
void pv_ether_crew_close(struct pv_ether_crew *c);
/* How many frames have arrived with member 0 and were another one's. Any thread, while member 0 runs. */
uint64_t pv_ether_crew_handed(const struct pv_ether_crew *c);

/* One NIC port of the ether provider. */
struct pv_ether_port {
	struct port_config port;
	const char *netdev; /* the kernel interface whose addresses and routes it serves */
	bool miniport;	    /* that interface is made here: the kernel has no other way to the port's wire */
	const char
		*lock_dir; /* directory of the lock files that keep a port to one process; NULL: no locking */
};

struct pv_ether_config {
	size_t size; /* sizeof(struct pv_ether_config) */
	unsigned n_ports;
	const struct pv_ether_port *ports;
	struct pv_ether_crew *crew; /* NULL: alone */
	unsigned member;	    /* of the crew */
	uint64_t find_timeout_ns;   /* a silent peer is given up after this */
	uint64_t negative_ttl_ns;   /* how long a silent peer is remembered; 0: 10 s */
	uint64_t positive_ttl_ns;   /* how long an answer is trusted unrefreshed; 0: 60 s */
	/* transport; 0: its defaults */
	bool crc;
	const char *congestion; /* "swift", "dctcp", "fixed" */
	uint32_t window_packets, ring_min, ring_max;
	uint64_t dead_timeout_ns, keepalive_ns, connect_timeout_ns;
};

/* The transport over NIC ports. Opens nothing before start. Strings and ports are copied. ready is the
 * upcall. */
int pv_ether_open(const struct pv_ether_config *cfg, pv_ready_fn *ready, struct pv **out);
/* One line about the ports for people; "not started" before start. */
void pv_ether_describe(const struct pv *p, char *out, size_t len);
/* A port that it has open. Strings are the provider's, until it closes. */
struct pv_port_report {
	const char *name, *netdev, *device;
	struct port_info info;
	struct port_stats stats;
};
/* Up to max of them; returns how many. Drivers may take microseconds to count. */
unsigned pv_ether_ports(const struct pv *p, struct pv_port_report *out, unsigned max);

/*
 * Another process goes on with its ports and connections. The one that has them suspends, which closes the
 * ports, writes all connections, and then each endpoint that it has (connected or connecting; listeners are
 * made anew). It goes on itself if nobody else does. The one that takes over prepares while the first still
 * serves, makes its listeners, restores the connections, then the endpoints. When it is certain that the
 * first does not go on it says so: what no endpoint was restored for is reset, and packets are sent again.
 */
int pv_ether_suspend(struct pv *p, struct sd_pack *pack); /* -EAGAIN: it has not started */
void pv_ether_save_ep(const struct pv_ep *ep, struct sd_pack *pack);
enum sd_reason pv_ether_resume(struct pv *p);
enum sd_reason pv_ether_prepare(struct pv *p);
/* SD_REASON_START_FAILED: also if it was saved by another version, or with other ports. */
enum sd_reason pv_ether_restore(struct pv *p, struct sd_unpack *u);
int pv_ether_restore_ep(
	struct pv *p, struct sd_unpack *u, void *user, struct pv_ep **out); /* -EPROTO, -ENOMEM */
void pv_ether_restored(struct pv *p);
uint64_t pv_ether_save_format(void); /* tells versions apart whose records differ */

/* Two sockets of one process. Serves the addresses that san serves. */
int pv_loop_open(struct pv *san, pv_ready_fn *ready, struct pv **out);

/* Programs of this host that have the same daemon, through shared memory. path: the daemon's socket; "": for
 * pv_shm_attach() alone. */
int pv_shm_open(const char *path, pv_ready_fn *ready, struct pv **out);
/* An end that needs no asking: the daemon's own. */
struct pv_shm_end {
	struct sd_addr local, peer;
	uint32_t ring;	/* what its other side may buffer in each direction, in bytes; 0: what it likes */
	unsigned end;	/* 0: it has connected, 1: it accepts with this */
	int memory, fd; /* as in channel.h, fd: the end; the callee's, also when it fails */
};
void pv_shm_end_close(const struct pv_shm_end *end);
int pv_shm_attach(struct pv *p, const struct pv_shm_end *end, void *user, struct pv_ep **out);
/* The descriptor that stands for a connected endpoint of this provider; it stays the endpoint's. */
int pv_shm_fd(const struct pv_ep *ep);
/* Another process has had these endpoints, too, for a while: what they were to be rung for may be forgotten.
 */
void pv_shm_look_again(struct pv *p);
/* Is fd the descriptor of such a connection, as take_fd() gives it? Others can make one that looks so. */
bool pv_shm_is_end(int fd);

/* The kernel's TCP behind the same SPI: the yardstick of the contract suite, and a carrier for hosts without
 * ports. */
int pv_tcp_open(pv_ready_fn *ready, struct pv **out);

#endif
