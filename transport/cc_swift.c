/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Delay and ECN, after Swift (Kumar et al., SIGCOMM 2020) and DCTCP (RFC 8257), for hosts whose scheduler
 * adds milliseconds now and then. What differs from Swift, and why:
 *
 *   - The delay signal is the smallest RTT of a round trip: a queue that stands delays every packet, a hiccup
 *     only those it hits. So the window moves once in a round trip.
 *   - Marks shrink the window in proportion, as with DCTCP, before delay has to.
 *   - A loss takes away no more than what stands in the queue, as the delay shows it: on a path without delay
 *     it is corruption or somebody's burst. Only if many packets are lost round after round it counts for
 *     itself, for buffers too small to show as delay.
 *   - The receiver's backlog is a signal of its own (as Swift's endpoint window): it is not in the network.
 */
#include "transport/cc.h"

#include "base/clock.h"

#define MIN_WINDOW     0.01f
#define TARGET	       (float)(100 * SD_US) /* round trip that we aim at, */
#define LONG_PATH      (float)(150 * SD_US) /* and more, if the path's own is above this */
#define FLOW_RANGE     (float)(300 * SD_US) /* more for small windows, so that they catch up: all of it at */
#define FLOW_LEAST     0.1f		    /* this window, */
#define FLOW_MOST      100.f		    /* nothing at this one */
#define NOISE	       SD_US /* delay above the path's own, and a sixteenth of it, that is none: so much, */
#define JITTERS	       2     /* or so many times what round trips differ from the one before, */
#define NOISE_MOST     (float)(20 * SD_US)
#define INCREASE       0.5f  /* packets a round, */
#define INCREASE_FULL  4.f   /* from this window on; below it, less */
#define CALM	       6     /* rounds without a queue after which it grows faster, */
#define FASTER	       0.25f /* by such a part */
#define UNMARKED_LEAST 1.f   /* below it only marks go: a host's scheduler delays, too */
#define MAX_DECREASE   0.5f
#define DRAIN	       0.8f /* share of the queue that a loss takes away */
#define BETA	       0.8f /* share of the excess delay that one round takes away */
#define GAIN	       0.125f
#define LOSSY	       0.1f /* more than such a part lost, round after round, is congestion whatever the delay */
#define LOSSY_LEAST    8.f /* which makes windows no smaller: where nothing else is wrong, it is the link */
#define BACKLOG	       128 /* of 256 */
#define SAMPLE	       8   /* packets of a round that have to be late before slow start ends */

struct swift {
	float window, before_cut;
	float alpha;  /* DCTCP's estimate of the marked fraction */
	float loss;   /* the same of the lost one */
	float queue;  /* queueing delay of the last round, in parts of the round trip */
	uint8_t calm; /* rounds without any */
	float initial, max;
	uint32_t acked, marked, lost; /* in this round */
	uint32_t round_rtt, last_rtt; /* smallest of this round, and of the one before; ns; 0: none */
	float jitter;		      /* how much they differ */
	uint8_t backlog;	      /* largest of this round */
	bool slow_start, before_slow_start;
	bool cut; /* the window has shrunk in this round already */
};

static float bounded(struct swift *s)
{
	if (s->window < MIN_WINDOW)
		s->window = MIN_WINDOW;
	if (s->window > s->max)
		s->window = s->max;
	return s->window;
}

static float swift_open(void *state, uint32_t initial, uint32_t max)
{
	struct swift *s = state;

	s->max = (float)max;
	s->initial = s->window = (float)initial;
	s->alpha = 0.6f; /* the first marks are taken seriously */
	s->slow_start = true;
	return bounded(s);
}

static void remember(struct swift *s)
{
	s->before_cut = s->window;
	s->before_slow_start = s->slow_start;
}

static float at_most(float x, float most)
{
	return x < most ? x : most;
}

/* least: what it makes the window no smaller than. */
static void shrink(struct swift *s, float by, float least)
{
	float window = s->window * (1 - by);

	if (window >= least)
		s->window = window;
	else if (s->window > least)
		s->window = least;
	s->slow_start = false;
	s->cut = true;
}

/* The square root of what is neither huge nor tiny: Newton's method from a good guess. */
static float root(float x)
{
	float r = x < 1 ? (1 + x) / 2 : x < 16 ? (4 + x) / 4 : (32 + x) / 12;

	for (int i = 0; i < 4; i++)
		r = (r + x / r) / 2;
	return r;
}

/* Flow scaling as in Swift, section 3.5. Never below TARGET. */
static float target_rtt(const struct swift *s, uint64_t min_rtt)
{
	float own = (float)min_rtt, target = own > TARGET ? own : TARGET;
	float at_least = 1 / root(FLOW_LEAST), at_most = 1 / root(FLOW_MOST), here;

	if (own > LONG_PATH)
		target += (own - LONG_PATH) / 2;
	if (s->window >= FLOW_MOST)
		return target;
	here = s->window > FLOW_LEAST ? 1 / root(s->window) : at_least;
	return target + FLOW_RANGE * (here - at_most) / (at_least - at_most);
}

static void update_loss(struct swift *s)
{
	if (s->acked + s->lost)
		s->loss += GAIN * ((float)s->lost / (float)(s->acked + s->lost) - s->loss);
}

/* How much of the round's RTT was more than that of an empty path and this noise, in parts of it. */
static float queueing(const struct swift *s, uint64_t empty, float noise)
{
	float own = (float)(empty + empty / 16) + (noise > NOISE ? noise : NOISE);

	return (float)s->round_rtt > own ? 1 - own / (float)s->round_rtt : 0;
}

/* A queue grows slowly, from one round to the next; a host's own delays come and go. */
static void update_jitter(struct swift *s)
{
	float step = (float)s->round_rtt - (float)s->last_rtt;

	if (s->last_rtt)
		s->jitter += GAIN / 2 * (at_most(step < 0 ? -step : step, NOISE_MOST) - s->jitter);
	s->last_rtt = s->round_rtt;
}

static void grow(struct swift *s)
{
	float step = s->window < INCREASE_FULL ? INCREASE * root(s->window / INCREASE_FULL) : INCREASE;

	if (s->calm >= CALM && s->window * FASTER > step)
		step = s->window * FASTER;
	s->window += step;
}

/* Once per round trip: what its delay, marks and losses ask for. */
static void end_round(struct swift *s, const struct tp_cc_ack *a)
{
	float rtt = (float)s->round_rtt, target = rtt > TARGET ? target_rtt(s, a->min_rtt) : TARGET;
	uint64_t empty = a->min_rtt < (uint64_t)TARGET ? a->min_rtt : (uint64_t)TARGET;
	bool calm;

	if (s->acked)
		s->alpha += GAIN * ((float)s->marked / (float)s->acked - s->alpha);
	update_loss(s);
	if (s->round_rtt && !s->slow_start)
		update_jitter(s);
	if (s->round_rtt)
		s->queue = queueing(s, empty, at_most(JITTERS * s->jitter, NOISE_MOST));
	calm = s->round_rtt && queueing(s, empty, 0) == 0 && !s->marked && !s->cut;
	s->calm = calm ? s->calm + (s->calm < CALM) : 0;
	if (s->cut)
		;
	else if (s->marked)
		shrink(s, s->alpha / 2, MIN_WINDOW);
	else if (rtt > target)
		shrink(s, at_most(BETA * (rtt - target) / rtt, MAX_DECREASE), UNMARKED_LEAST);
	else if (s->backlog > BACKLOG)
		shrink(s, MAX_DECREASE * (float)(s->backlog - BACKLOG) / BACKLOG, UNMARKED_LEAST);
	else if (a->limited && !s->slow_start)
		grow(s);
	s->cut = false;
	s->round_rtt = 0;
	s->backlog = 0;
	s->acked = s->marked = s->lost = 0;
}

static float swift_acked(void *state, const struct tp_cc_ack *a)
{
	struct swift *s = state;

	s->acked += a->acked;
	s->marked += a->marked;
	s->lost += a->lost;
	if (a->rtt && (!s->round_rtt || a->rtt < s->round_rtt))
		s->round_rtt = (uint32_t)a->rtt;
	if (a->backlog > s->backlog)
		s->backlog = a->backlog;
	if (s->slow_start && s->acked >= SAMPLE && queueing(s, a->min_rtt, 0) > 0)
		s->slow_start = false;
	if (s->slow_start && a->limited && !s->marked)
		s->window += (float)a->acked;
	if (a->round)
		end_round(s, a);
	return bounded(s);
}

static float swift_lost(void *state, uint64_t now, bool persistent)
{
	struct swift *s = state;
	float queued = at_most(DRAIN * s->queue, MAX_DECREASE);

	remember(s);
	if (persistent) {
		s->window = 1;
		s->slow_start = true;
	} else if (s->slow_start) {
		shrink(s, MAX_DECREASE, UNMARKED_LEAST);
	} else if (s->loss > LOSSY && s->loss > queued && s->window > LOSSY_LEAST) {
		shrink(s, s->loss, LOSSY_LEAST);
	} else if (queued > 0) {
		shrink(s, queued, UNMARKED_LEAST);
	}
	return bounded(s);
}

static float swift_undo(void *state)
{
	struct swift *s = state;

	if (s->before_cut > s->window) {
		s->window = s->before_cut;
		s->slow_start = s->before_slow_start;
	}
	s->before_cut = 0;
	return bounded(s);
}

static float swift_idle(void *state)
{
	struct swift *s = state;

	if (s->window > s->initial)
		s->window = s->initial;
	return bounded(s);
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
