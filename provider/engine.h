/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * engine: ports times transport. Moves frames between NIC ports and one transport instance, and finds out
 * where peers are (resolver.h). It does not know who calls it: application threads, a helper, later a
 * daemon's core. One thread at a time.
 */
#ifndef SD_PROVIDER_ENGINE_H
#define SD_PROVIDER_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/pace.h"
#include "drivers/encap.h"
#include "drivers/miniport.h"
#include "drivers/port.h"
#include "provider/arena.h"
#include "provider/resolver.h"
#include "transport/transport.h"

#define ENGINE_MAX_PORTS 8
#define ENGINE_BURST	 32
#define ENGINE_MAX_ADDRS 16

struct engine_port {
	struct port *port;
	struct port_info info;
	unsigned n_addrs;
	struct sd_addr addrs[ENGINE_MAX_ADDRS]; /* ours: what arrives for others is not */
	struct encap_known known;		/* of the last packet that was ours, */
	struct encap_view view;			/* and what it is */
	/* Frames ready to be filled, and frames that the NIC could not take yet, oldest first. */
	struct port_frame spare[ENGINE_BURST];
	unsigned n_spare;
	struct port_frame unsent[ENGINE_BURST];
	unsigned n_unsent;
	bool direct;		    /* it sends from mapped memory */
	uint32_t last_len;	    /* of what was built for it last */
	uint64_t blocked_at;	    /* since when it has taken nothing; 0: it takes what it gets */
	struct miniport *kernel;    /* gets what is not ours, and sends by the port; NULL: nobody does */
	struct sd_pace kernel_pace; /* when the kernel is asked whether it has something to send */
};

struct engine_stats {
	uint64_t rx_foreign;   /* frames that were not for us */
	uint64_t tx_link_down; /* packets dropped because the link was down */
	uint64_t tx_stuck;     /* or because the NIC took none for long */
	uint64_t tx_direct;    /* packets sent without a copy of their payload */
};

/* Upcalls to the owner. */
struct engine_ops {
	void (*event)(void *ctx, struct tp_conn *c, void *user, unsigned events);
	void (*acceptable)(void *ctx, void *user);
	/* The wait that resolver_ask() began has ended. */
	void (*resolved)(
		void *ctx, struct resolver_wait *w, enum resolver_result result, const struct tp_path *path);
	void *ctx;
	/* Of queue pairs; NULL: there are none. */
	void (*qp_event)(void *ctx, struct tp_qp *qp, void *user, unsigned events);
	void (*completion)(void *ctx, struct tp_cq *cq, void *user);
};

struct engine {
	struct tp *tp;
	unsigned n_ports;
	struct engine_port ports[ENGINE_MAX_PORTS];
	struct resolver resolver;
	struct arena arena;
	struct engine_ops ops;
	struct engine_stats stats;
	uint32_t
		direct_min; /* packets of this length and more are sent from where they are, if they can be */
	uint64_t now;
	uint64_t polled_at; /* when packets were looked for last */
	bool late;	    /* that was so long ago that what is found now may have waited for us */
	void *nowhere;	    /* room for a packet that is lost */
	bool verify_csum;   /* no CRC trailer: the UDP checksum is all there is */
};

/* The engine owns no port yet. */
int engine_open(struct engine *e, const struct tp_config *cfg, const struct resolver_config *rc,
	const struct engine_ops *ops, uint64_t now);
/* Takes over port. -ENOSPC, -ENOMEM. */
int engine_add_port(struct engine *e, struct port *port);
/* The kernel shares port index by m, which is the engine's from then on. */
void engine_set_miniport(struct engine *e, unsigned index, struct miniport *m);
/* The kernel has something to send: it is asked with the next progress. */
void engine_hurry_kernel(struct engine *e);
/* Tells port index what addresses it has; announces new ones. */
void engine_set_addrs(struct engine *e, unsigned index, const struct sd_addr *addrs, unsigned n);
/* Closes all ports. The connections stay, but nothing may be asked of the engine until they have been added
 * again. */
void engine_remove_ports(struct engine *e);
/* Closes ports and frees everything without a word to the peers. */
void engine_close(struct engine *e);

/* Receives, times out, sends. Returns how much was done. */
unsigned engine_progress(struct engine *e, uint64_t now);
/* Sends what the transport has ready. */
unsigned engine_flush(struct engine *e, uint64_t now);
uint64_t engine_deadline(const struct engine *e);
/* Refreshes link states, which may take a moment. */
void engine_poll_links(struct engine *e, uint64_t now);
/* "A listener has appeared here": clears negative answers that peers remember. */
void engine_announce(struct engine *e);

/* The way from local to peer through port index; dst_mac NULL: broadcast. Ports of the addresses are kept. */
void engine_path(const struct engine *e, unsigned index, const struct sd_addr *local,
	const struct sd_addr *peer, const uint8_t *dst_mac, struct tp_path *out);

#endif
