/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * repath: another way through the fabric, after PLB (Qureshi et al., SIGCOMM 2022). Switches choose among
 * equal paths by the UDP source port, so a connection that has met congestion for some round trips draws
 * another one: when nothing is in flight, as that reorders nothing, or after some more in any case. So does
 * one whose packets are not answered: the path may be broken.
 *
 * A receiver with several queues spreads packets by the same port. If it says that ours come to another queue
 * than the connection's, which costs it something, ports are tried until it does not say so any more, one in
 * each round trip; or for good, as it may have other reasons. A port that has done well for some round trips
 * shows that it can be helped: when that is given up for another reason, all tries are there again.
 */
#include "transport/conn.h"

/* Congested round trips in a row before it goes elsewhere: when nothing is in flight, and in any case. */
#define ROUNDS_IDLE  3
#define ROUNDS_FORCE 12

#define ASTRAY_TRIES 32
#define GOOD_ROUNDS  8 /* in a row, more than come about by chance */

static void go(struct tp_conn *c)
{
	c->bad_rounds = 0;
	if (!c->tp->ops.repath)
		return;
	c->tp->ops.repath(c->tp->ctx, &c->path, (uint16_t)tp_random_id(c->tp));
	c->min_rtt = c->min_rtt_new = c->min_rtt_old = 0; /* of another path */
	c->tp->stats.repaths++;
}

/* In most rounds the peer says nothing of it. */
static void seek_queue(struct tp_conn *c, bool said)
{
	if (!c->peer_astray) {
		c->good_rounds = (uint8_t)(c->good_rounds + said);
		if (c->good_rounds == GOOD_ROUNDS)
			c->astray_tries = c->good_rounds = 0;
		return;
	}
	c->good_rounds = 0;
	if (c->astray_tries == ASTRAY_TRIES)
		return;
	c->astray_tries++;
	c->peer_astray = false; /* of this port it has yet to say something */
	go(c);
}

void tp_repath_round(struct tp_conn *c, bool said)
{
	bool bad = 2 * c->round_marked > c->round_acked;

	c->round_marked = c->round_acked = 0;
	if (!bad)
		c->bad_rounds = 0;
	else if (++c->bad_rounds >= ROUNDS_FORCE)
		go(c);
	if (__builtin_expect(c->astray_tries, 0) || __builtin_expect(c->peer_astray, 0))
		seek_queue(c, said);
}

void tp_repath_idle(struct tp_conn *c)
{
	if (c->bad_rounds >= ROUNDS_IDLE)
		go(c);
}

void tp_repath_timeout(struct tp_conn *c)
{
	go(c);
}
