/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Delay and ECN, after Swift (Kumar et al., SIGCOMM 2020) and DCTCP (RFC 8257), for hosts whose scheduler
 * adds milliseconds now and then. Two things differ from Swift because of that. The delay signal is the
 * smallest RTT of a round trip: a queue that stands delays every packet, a hiccup only those it hits. And
 * loss on a path whose delay is low is taken for corruption or a short burst: the cut is mild. The window
 * stays whole packets and at least MIN_WINDOW, so no pacing is needed.
 */
#include "transport/cc.h"

#include "base/clock.h"

#define MIN_WINDOW   2u
#define BASE_TARGET  (100 * SD_US) /* queueing we aim at, beyond the path's own round trip, */
#define FLOW_TARGET  (800 * SD_US) /* and so much more divided by the window: small ones catch up */
#define MAX_DECREASE 0.5f
#define BETA	     0.8f /* share of the excess delay that one round takes away */
#define LOSS_KEEP    0.7f /* of the window, after loss on a path with delay */
#define LIGHT_KEEP   0.9f /* after loss on a path without */
#define ECN_GAIN     0.125f

struct swift {
	float window, before_cut;
	float alpha; /* DCTCP's estimate of the marked fraction */
	uint32_t max;
	uint32_t acked, marked; /* in this round */
	uint64_t round_rtt;	/* smallest of this round, 0: none */
	uint64_t queue;		/* queueing delay of the last round */
	bool slow_start, before_slow_start;
	bool cut; /* the window has shrunk in this round already */
};

static uint32_t whole(struct swift *s)
{
	if (s->window < MIN_WINDOW)
		s->window = MIN_WINDOW;
	if (s->window > s->max)
		s->window = s->max;
	return (uint32_t)s->window;
}

static uint32_t swift_open(void *state, uint32_t max)
{
	struct swift *s = state;

	s->max = max;
	s->window = TP_CC_INITIAL;
	s->slow_start = true;
	return whole(s);
}

static void remember(struct swift *s)
{
	s->before_cut = s->window;
	s->before_slow_start = s->slow_start;
}

static void shrink(struct swift *s, float keep)
{
	s->window *= keep;
	s->slow_start = false;
	s->cut = true;
}

static uint64_t target_delay(const struct swift *s, uint64_t min_rtt)
{
	return min_rtt + BASE_TARGET + (uint64_t)((float)FLOW_TARGET / s->window);
}

/* Once per round trip: what its delay and its marks ask for. */
static void end_round(struct swift *s, const struct tp_cc_ack *a)
{
	uint64_t target = target_delay(s, a->min_rtt);

	if (s->acked)
		s->alpha += ECN_GAIN * ((float)s->marked / (float)s->acked - s->alpha);
	if (s->round_rtt)
		s->queue = s->round_rtt > a->min_rtt ? s->round_rtt - a->min_rtt : 0;
	if (!s->cut && s->marked) {
		shrink(s, 1 - s->alpha / 2);
	} else if (!s->cut && s->round_rtt > target) {
		float excess = BETA * (float)(s->round_rtt - target) / (float)s->round_rtt;

		shrink(s, 1 - (excess < MAX_DECREASE ? excess : MAX_DECREASE));
	} else if (a->limited && !s->slow_start) {
		s->window += 1;
	}
	s->cut = false;
	s->round_rtt = 0;
	s->acked = s->marked = 0;
}

static uint32_t swift_acked(void *state, const struct tp_cc_ack *a)
{
	struct swift *s = state;

	s->acked += a->acked;
	s->marked += a->marked;
	if (a->rtt && (!s->round_rtt || a->rtt < s->round_rtt))
		s->round_rtt = a->rtt;
	if (s->slow_start && a->limited)
		s->window += (float)a->acked;
	if (a->round)
		end_round(s, a);
	return whole(s);
}

static uint32_t swift_lost(void *state, uint64_t now, bool persistent)
{
	struct swift *s = state;

	remember(s);
	if (persistent)
		shrink(s, 0);
	else
		shrink(s, s->queue > BASE_TARGET / 2 ? LOSS_KEEP : LIGHT_KEEP);
	return whole(s);
}

static uint32_t swift_undo(void *state)
{
	struct swift *s = state;

	if (s->before_cut > s->window) {
		s->window = s->before_cut;
		s->slow_start = s->before_slow_start;
	}
	s->before_cut = 0;
	return whole(s);
}

static uint32_t swift_idle(void *state)
{
	struct swift *s = state;

	if (s->window > TP_CC_INITIAL)
		s->window = TP_CC_INITIAL;
	return whole(s);
}

const struct tp_cc_ops tp_cc_swift = {
	.size = sizeof(struct tp_cc_ops),
	.name = "swift",
	.state_size = sizeof(struct swift),
	.open = swift_open,
	.acked = swift_acked,
	.lost = swift_lost,
	.undo = swift_undo,
	.idle = swift_idle,
};

_Static_assert(sizeof(struct swift) <= TP_CC_STATE_MAX, "the state fits what a connection sets aside");
