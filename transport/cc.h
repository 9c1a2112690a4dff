/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cc: congestion control behind an operations table. The connection owns the state (state_size bytes,
 * zeroed); every operation returns the congestion window that holds from then on, in packets. Below one it
 * says how often a packet may leave: 0.25 is one in four round trips. Pure functions of their arguments: no
 * clock, no memory, no packets.
 */
#ifndef SD_TRANSPORT_CC_H
#define SD_TRANSPORT_CC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TP_CC_STATE_MAX 64 /* bytes a connection sets aside */

/* What one acknowledgement said. */
struct tp_cc_ack {
	uint64_t now;
	uint64_t rtt, min_rtt; /* ns; rtt 0: no sample */
	uint32_t acked;	       /* packets newly known to have arrived */
	uint32_t marked;       /* of those, congestion experienced */
	uint32_t lost;	       /* packets taken for lost since the last acknowledgement */
	uint8_t backlog;       /* of the receiver's queue, in 256ths of what it holds */
	bool limited;	       /* the window, not the application, has been the limit */
	bool round;	       /* a round trip has passed since the last ack with round set */
};

struct tp_cc_ops {
	size_t size; /* sizeof(struct tp_cc_ops) */
	const char *name;
	size_t state_size;
	/* initial: the window of a connection that knows nothing of its path; max: it never exceeds it. */
	float (*open)(void *state, uint32_t initial, uint32_t max);
	float (*acked)(void *state, const struct tp_cc_ack *a);
	/* Packets sent in this round trip were lost; called once per round trip. persistent: nothing got
	 * through for several timeouts. */
	float (*lost)(void *state, uint64_t now, bool persistent);
	/* The last lost() was a mistake: the packets had only been late. */
	float (*undo)(void *state);
	/* Nothing has been sent for long; what the window stood for is stale. */
	float (*idle)(void *state);
};

extern const struct tp_cc_ops
	tp_cc_fixed; /* a constant window: for tests and for links that cannot congest */
extern const struct tp_cc_ops tp_cc_swift; /* delay and ECN */
extern const struct tp_cc_ops tp_cc_dctcp; /* ECN and loss, RFC 8257 */

/* NULL: none is called so, or name is NULL. */
const struct tp_cc_ops *tp_cc_named(const char *name);

#endif
