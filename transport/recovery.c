/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * recovery: what is lost, and when to ask. A packet is lost when one sent later has arrived and a reordering
 * window has passed since (RACK, RFC 8985), or, until reordering has been seen, when three later ones have.
 * Timeouts only make us repeat a packet that must be answered: first the last one (tail loss probe), then the
 * oldest, ever more slowly. They conclude nothing, so a host that was merely asleep does no harm; loss is
 * what an acknowledgement shows. Timestamps tell which transmission was acknowledged (Eifel, RFC 3522), so
 * mistakes are undone.
 */
#include <errno.h>

#include "transport/qp.h"

#define GRANULARITY   SD_MS /* of the host's scheduler */
#define MIN_RTT_AGE   (10 * SD_S)
#define MAX_STEPS     64
#define DUP_THRESHOLD 3
#define DEAD_PROBES   3 /* at least so many unanswered before a peer is dead */
#define PERSISTENT    3 /* timeouts in a row that mean the network has collapsed */

static void update_min(struct tp_conn *c, uint64_t rtt, uint64_t now)
{
	if (now - c->min_rtt_since > MIN_RTT_AGE) {
		c->min_rtt_old = c->min_rtt_new;
		c->min_rtt_new = rtt;
		c->min_rtt_since = now;
	} else if (rtt < c->min_rtt_new || !c->min_rtt_new) {
		c->min_rtt_new = rtt;
	}
	c->min_rtt = c->min_rtt_old && c->min_rtt_old < c->min_rtt_new ? c->min_rtt_old : c->min_rtt_new;
}

/* Twice as long as answers took lately, which is more than round trips tell: the ACK may wait for the peer's
 * application to call us. An answer that came after a probe was lost, or took longer than was thought. */
static void update_probe(struct tp_conn *c)
{
	uint64_t last = c->probe_interval;
	uint64_t wait = c->answered_probes ? last + last / 2 : last - last / 8;

	if (wait < 2 * c->rack_rtt)
		wait = 2 * c->rack_rtt;
	if (wait < TP_MIN_PROBE)
		wait = TP_MIN_PROBE;
	if (wait > TP_MAX_PROBE)
		wait = TP_MAX_PROBE;
	c->probe_interval = wait > 2 * c->srtt ? wait : 2 * c->srtt;
}

/* RFC 6298, in ns. */
static void update_rtt(struct tp_conn *c, uint64_t rtt)
{
	if (rtt < c->min_rtt || !c->min_rtt || c->tp->now - c->min_rtt_since > MIN_RTT_AGE)
		update_min(c, rtt, c->tp->now);
	if (!c->srtt) {
		c->srtt = rtt;
		c->rttvar = rtt / 2;
	} else {
		uint64_t diff = rtt > c->srtt ? rtt - c->srtt : c->srtt - rtt;

		c->rttvar = (3 * c->rttvar + diff) / 4;
		c->srtt = (7 * c->srtt + rtt) / 8;
	}
	update_probe(c);
}

uint64_t tp_recovery_echo(struct tp_conn *c, uint32_t echo)
{
	uint32_t units = tp_timestamp(c->tp->now) - echo;
	uint64_t rtt = units ? (uint64_t)units << 7 : 1 << 7;

	if (!echo || rtt > TP_MAX_RTT)
		return 0;
	update_rtt(c, rtt);
	return rtt;
}

uint64_t tp_recovery_rto(const struct tp_conn *c, unsigned backoff)
{
	uint64_t rto =
		c->srtt + (4 * c->rttvar > GRANULARITY ? 4 * c->rttvar : GRANULARITY) + c->peer_ack_delay;

	if (backoff > 16)
		backoff = 16;
	rto <<= backoff;
	return rto < TP_MAX_RTO ? rto : TP_MAX_RTO;
}

static uint64_t reorder_window(const struct tp_conn *c)
{
	uint64_t most = c->srtt > SD_MS ? c->srtt : SD_MS, window;

	if (!c->reorder_steps)
		return c->sacked >= DUP_THRESHOLD || c->recovering ? 0 : c->min_rtt / 4;
	window = c->min_rtt / 4 * c->reorder_steps;
	return window < most ? window : most;
}

/* Late rather than lost: wait longer before the next such judgement. */
void tp_recovery_reordered(struct tp_conn *c, bool spurious)
{
	if (!c->reorder_steps)
		c->reorder_steps = 1;
	else if (spurious && c->reorder_steps < MAX_STEPS)
		c->reorder_steps *= 2;
}

void tp_recovery_spurious(struct tp_conn *c)
{
	c->tp->stats.spurious_retransmits++;
	if (!c->undo_left)
		return;
	if (--c->undo_left == 0 && c->undo_possible) {
		c->undo_possible = false;
		tp_pace_window(c, c->tp->cc->undo(c->cc_state));
	}
}

static void mark_lost(struct tp_conn *c, uint64_t psn, struct tp_sent *s)
{
	tp_bits_set(&c->flight->lost, psn);
	c->lost++;
	c->pipe--;
	if (s->flags & SENT_PROBE)
		return; /* for its size, not for congestion */
	s->flags |= SENT_JUDGED;
	c->newly_lost++;
	if (!c->recovering) {
		c->recovering = true;
		c->recovery_end = c->snd_nxt;
		c->undo_left = 0;
		c->undo_possible = true;
		tp_pace_window(c, c->tp->cc->lost(c->cc_state, c->tp->now, c->answered_probes >= PERSISTENT));
	}
	c->undo_left++;
}

void tp_recovery_detect(struct tp_conn *c, uint64_t now)
{
	uint64_t window = reorder_window(c), next = NEVER;

	for (uint64_t psn = c->snd_una; psn < c->snd_nxt; psn++) {
		struct tp_sent *s;
		uint64_t due, taken;

		taken = tp_bits_get64(&c->flight->sacked, psn) | tp_bits_get64(&c->flight->lost, psn);
		if (!~taken) {
			psn += 63;
			continue;
		}
		psn += (uint64_t)__builtin_ctzll(~taken);
		if (psn >= c->snd_nxt)
			break;
		s = &c->sent[psn & c->sent_mask];
		if (s->time > c->rack_time || (s->time == c->rack_time && psn > c->rack_psn)) {
			if (s->sends == 1)
				break; /* those behind it were sent later still */
			continue;
		}
		due = s->time + c->rack_rtt + window;
		if (due <= now)
			mark_lost(c, psn, s);
		else if (due < next)
			next = due;
	}
	c->reorder_at = next;
	if (next != NEVER)
		tp_conn_timer(c, next);
}

void tp_recovery_give_up(struct tp_conn *c)
{
	if (!c->sent_mask)
		return; /* a packet alone is not looked after */
	for (uint64_t psn = c->snd_una; psn < c->snd_nxt; psn++)
		if (!tp_bits_test(&c->flight->sacked, psn) && !tp_bits_test(&c->flight->lost, psn))
			mark_lost(c, psn, &c->sent[psn & c->sent_mask]);
}

static bool outstanding(const struct tp_conn *c)
{
	return c->snd_una != c->snd_nxt;
}

/* Written bytes wait for the peer's window, and nothing is on its way that would bring news of it. */
static bool shut_out(const struct tp_conn *c)
{
	if (c->snd_end != c->snd_sent)
		return c->snd_limit == c->snd_sent;
	return __builtin_expect(c->messages, 0) && c->qp && tp_requester_waits(c->qp);
}

void tp_recovery_arm(struct tp_conn *c, uint64_t now)
{
	if (outstanding(c))
		c->probe_at = now + (c->probes ? tp_recovery_rto(c, c->probes - 1u) : c->probe_interval);
	else if (shut_out(c) || c->unconfirmed)
		c->probe_at = now + tp_recovery_rto(c, c->probes);
	else
		c->probe_at = NEVER;
	tp_conn_timer(c, c->probe_at);
}

/* A shut window is asked about ever more slowly although the peer answers. */
void tp_recovery_answered(struct tp_conn *c, uint64_t now)
{
	if (!c->probes || outstanding(c) || shut_out(c))
		return;
	c->probes = 0;
	tp_recovery_arm(c, now);
}

static bool probe(struct tp_conn *c, uint64_t now)
{
	uint64_t dead = c->progress + c->user_timeout;

	if (!outstanding(c) && !shut_out(c) && !c->unconfirmed) {
		c->probe_at = NEVER;
		return true;
	}
	if (c->probes >= DEAD_PROBES && now >= dead) {
		tp_conn_abort(c, WIRE_RESET_TIMEOUT, -ETIMEDOUT);
		return false;
	}
	if (c->probes)
		c->tp->stats.timeouts++;
	else
		c->tp->stats.tail_probes++;
	if (c->probes < UINT16_MAX)
		c->probes++;
	if (c->probes > 1)
		tp_repath_timeout(c);
	c->probe_due = outstanding(c);
	c->ping_due = !c->probe_due || (c->probes > 1 && tp_pmtu_doubts(c));
	tp_conn_mark(c);
	tp_recovery_arm(c, now);
	if (c->probe_at > dead && now < dead)
		c->probe_at = dead;
	return true;
}

bool tp_recovery_timeout(struct tp_conn *c, uint64_t now)
{
	if (c->reorder_at <= now) {
		tp_recovery_detect(c, now);
		tp_output_check(c);
	}
	return c->probe_at > now || probe(c, now);
}
