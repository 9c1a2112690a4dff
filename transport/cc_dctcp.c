/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * DCTCP (RFC 8257) on Reno (RFC 5681), without a word about delay: for fabrics whose switches mark, shared
 * with hosts that do the same. A round with marks takes alpha/2 of the window, one with a loss half of it.
 */
#include "transport/cc.h"

#define LEAST 2.f
#define GAIN  0.0625f /* RFC 8257, 4.2 */

struct dctcp {
	float window, before_cut, threshold; /* below the threshold: slow start */
	float alpha, initial, max;
	uint32_t acked, marked;
	bool cut;
};

static float bounded(struct dctcp *d)
{
	if (d->window < LEAST)
		d->window = LEAST;
	if (d->window > d->max)
		d->window = d->max;
	return d->window;
}

static float dctcp_open(void *state, uint32_t initial, uint32_t max)
{
	struct dctcp *d = state;

	d->max = d->threshold = (float)max;
	d->initial = d->window = (float)initial;
	d->alpha = 1;
	return bounded(d);
}

static void cut(struct dctcp *d, float keep)
{
	d->before_cut = d->window;
	d->window *= keep;
	d->threshold = d->window;
	d->cut = true;
}

static void end_round(struct dctcp *d)
{
	if (d->acked)
		d->alpha += GAIN * ((float)d->marked / (float)d->acked - d->alpha);
	if (d->marked && !d->cut)
		cut(d, 1 - d->alpha / 2);
	d->cut = false;
	d->acked = d->marked = 0;
}

static float dctcp_acked(void *state, const struct tp_cc_ack *a)
{
	struct dctcp *d = state;

	d->acked += a->acked;
	d->marked += a->marked;
	if (a->limited && !a->marked)
		d->window += (float)a->acked / (d->window < d->threshold ? 1 : d->window);
	if (a->round)
		end_round(d);
	return bounded(d);
}

static float dctcp_lost(void *state, uint64_t now, bool persistent)
{
	struct dctcp *d = state;

	cut(d, 0.5f);
	if (persistent)
		d->window = 0;
	return bounded(d);
}

static float dctcp_undo(void *state)
{
	struct dctcp *d = state;

	if (d->before_cut > d->window)
		d->window = d->threshold = d->before_cut;
	d->before_cut = 0;
	return bounded(d);
}

static float dctcp_idle(void *state)
{
	struct dctcp *d = state;

	if (d->window > d->initial)
		d->window = d->initial;
	return bounded(d);
}

const struct tp_cc_ops tp_cc_dctcp = {
	.size = sizeof(struct tp_cc_ops),
	.name = "dctcp",
	.state_size = sizeof(struct dctcp),
	.open = dctcp_open,
	.acked = dctcp_acked,
	.lost = dctcp_lost,
	.undo = dctcp_undo,
	.idle = dctcp_idle,
};

_Static_assert(sizeof(struct dctcp) <= TP_CC_STATE_MAX, "the state fits what a connection sets aside");
