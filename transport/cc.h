/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cc: congestion control behind an operations table. The connection owns the state (state_size bytes,
 * zeroed); every operation returns the congestion window, in packets, that holds from then on. Pure functions
 * of their arguments: no clock, no memory, no packets.
 */
#ifndef SD_TRANSPORT_CC_H
#define SD_TRANSPORT_CC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TP_CC_STATE_MAX 96 /* bytes a connection sets aside */
#define TP_CC_INITIAL	64 /* packets: a low-latency LAN takes such a burst */

/* What one acknowledgement said. */
struct tp_cc_ack {
	uint64_t now;
	uint64_t rtt, min_rtt; /* ns; rtt 0: no sample */
	uint32_t acked;	       /* packets newly known to have arrived */
	uint32_t marked;       /* of those, congestion experienced */
	bool limited;	       /* the window, not the application, has been the limit */
	bool round;	       /* a round trip has passed since the last ack with round set */
};

struct tp_cc_ops {
	size_t size; /* sizeof(struct tp_cc_ops) */
	const char *name;
	size_t state_size;
	/* max: the window never exceeds it. */
	uint32_t (*open)(void *state, uint32_t max);
	uint32_t (*acked)(void *state, const struct tp_cc_ack *a);
	/* Packets sent in this round trip were lost; called once per round trip. persistent: nothing got
	 * through for several timeouts. */
	uint32_t (*lost)(void *state, uint64_t now, bool persistent);
	/* The last lost() was a mistake: the packets had only been late. */
	uint32_t (*undo)(void *state);
	/* Nothing has been sent for long; what the window stood for is stale. */
	uint32_t (*idle)(void *state);
};

extern const struct tp_cc_ops
	tp_cc_fixed; /* a constant window: for tests and for links that cannot congest */
extern const struct tp_cc_ops tp_cc_swift; /* delay and ECN */

#endif
