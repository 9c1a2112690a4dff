/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pace: the congestion window as the rest of a connection knows it, in whole packets. While it is below one a
 * timer spaces packets out: until the next may leave, cwnd is 0.
 */
#include "transport/conn.h"

#define GAP_MAX (10 * SD_MS)

static void wait_until(struct tp_conn *c, uint64_t at)
{
	c->cwnd = 0;
	c->pace_at = at;
	tp_conn_timer(c, at);
}

void tp_pace_window(struct tp_conn *c, float window)
{
	uint64_t now = c->tp->now, gap;
	bool paced = c->pace_gap;

	if (__builtin_expect(window >= 1, 1)) {
		c->cwnd = (uint32_t)window;
		c->pace_gap = 0;
		c->pace_at = NEVER;
		return;
	}
	gap = (uint64_t)((float)(c->rack_rtt < c->srtt ? c->rack_rtt : c->srtt) / window) + 1;
	c->pace_gap = gap < GAP_MAX ? gap : GAP_MAX;
	if (!paced || (c->pace_at != NEVER && c->pace_at > now + c->pace_gap))
		wait_until(c, now + c->pace_gap);
}

void tp_pace_sent(struct tp_conn *c, uint64_t now)
{
	wait_until(c, now + c->pace_gap);
}

void tp_pace_timeout(struct tp_conn *c)
{
	c->pace_at = NEVER;
	c->cwnd = 1;
	tp_output_check(c);
}
