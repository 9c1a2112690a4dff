/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ack: both sides of acknowledging. When ours is owed it rides on data if there is any in time; what the
 * peer's says is checked against what was sent before anything is believed.
 */
#include "transport/qp.h"

void tp_ack_later(struct tp_conn *c, uint64_t now)
{
	struct tp *t = c->tp;

	if (c->ack_at != NEVER)
		return;
	c->ack_at = now + t->cfg.ack_delay_ns;
	list_push_back(&t->ack_fifo, &c->ack_node);
}

static bool window_input(struct tp_conn *c, const struct wire_packet *p)
{
	if (p->window <= c->snd_limit)
		return true; /* limits never shrink: an old packet */
	if (p->window - c->snd_sent > TP_RING_LIMIT)
		return false; /* more than a whole ring beyond what the peer can have read */
	c->snd_limit = p->window;
	return true;
}

/* No bit may name a packet that was not sent. cum is what the packet acknowledges cumulatively. */
static bool sack_plausible(const struct tp_conn *c, uint64_t cum, const struct wire_packet *p)
{
	uint64_t room = c->snd_nxt > cum + 1 ? c->snd_nxt - cum - 1 : 0;

	for (unsigned k = 0; k < p->sack_words; k++) {
		uint64_t mask = tp_bits_mask(room > 64 * k ? room - 64 * k : 0);

		if (tp_wire_get_sack(p, k) & ~mask)
			return false;
	}
	return true;
}

static void delivered(struct tp_conn *c, uint64_t psn, const struct wire_packet *p)
{
	struct tp_sent *s = &c->sent[psn & c->sent_mask];
	/* the acknowledged transmission left before our latest one: that was not needed */
	bool early = s->sends > 1 && p->echo && (int32_t)(p->echo - tp_timestamp(s->time)) < 0;

	if (tp_bits_test(&c->flight->lost, psn)) {
		tp_bits_clear(&c->flight->lost, psn);
		c->lost--;
		early = true;
	} else {
		c->pipe--;
	}
	if (early || (s->sends == 1 && psn < c->highest))
		tp_recovery_reordered(c, early && s->flags & SENT_JUDGED);
	if (s->flags & SENT_JUDGED) {
		if (early)
			tp_recovery_spurious(c);
		else
			c->undo_possible = false;
	}
	if (psn >= c->highest)
		c->highest = psn + 1;
	if (!early && (s->time > c->rack_time || (s->time == c->rack_time && psn > c->rack_psn))) {
		c->rack_time = s->time;
		c->rack_psn = psn;
		c->rack_rtt = c->tp->now - s->time;
	}
}

static uint32_t sack_input(struct tp_conn *c, const struct wire_packet *p)
{
	uint32_t newly = 0;

	for (unsigned k = 0; k < p->sack_words; k++) {
		uint64_t base = c->snd_una + 1 + 64 * k;
		uint64_t fresh = tp_wire_get_sack(p, k) & ~tp_bits_get64(&c->flight->sacked, base);

		for (; fresh; fresh &= fresh - 1) {
			uint64_t psn = base + (uint64_t)__builtin_ctzll(fresh);

			tp_bits_set(&c->flight->sacked, psn);
			c->sacked++;
			newly++;
			delivered(c, psn, p);
		}
	}
	return newly;
}

/* Everything below cum has arrived. */
static uint32_t cumulative_input(struct tp_conn *c, uint64_t cum, const struct wire_packet *p)
{
	const struct tp_sent *last = &c->sent[(cum - 1) & c->sent_mask];
	uint32_t newly = 0;

	if (__builtin_expect(!c->sacked && !c->lost && !c->recovering && last->sends == 1, 1)) {
		newly = (uint32_t)(cum - c->snd_una);
		c->pipe = (uint16_t)(c->pipe - newly);
		c->rack_time = last->time;
		c->rack_psn = cum - 1;
		c->rack_rtt = c->tp->now - last->time;
		c->highest = cum;
	} else {
		for (uint64_t psn = c->snd_una; psn < cum; psn++) {
			if (tp_bits_test(&c->flight->sacked, psn)) {
				tp_bits_clear(&c->flight->sacked, psn);
				c->sacked--;
			} else {
				newly++;
				delivered(c, psn, p);
			}
		}
	}
	if (__builtin_expect(!c->messages, 1))
		c->snd_acked += (uint32_t)(last->off + last->len - (uint32_t)c->snd_acked);
	c->snd_una = cum;
	c->piece = 0;
	c->piece_due = false;
	if (cum >= c->recovery_end)
		c->recovering = false;
	if (cum == c->snd_nxt && c->fin_sent)
		c->fin_acked = true;
	return newly;
}

static void tell_congestion_control(
	struct tp_conn *c, uint64_t now, const struct wire_packet *p, uint32_t newly)
{
	struct tp_cc_ack a = {.now = now,
		.acked = newly,
		.lost = c->newly_lost,
		.backlog = p->has_window ? p->backlog : 0,
		.limited = c->cwnd_limited};
	int16_t marks = (int16_t)(p->ce_count - c->peer_ce);
	uint64_t rtt = tp_recovery_echo(c, p->echo);

	c->newly_lost = 0;
	/* The time that either end's process waited for a CPU is for the timers, not for the window. */
	a.rtt = c->tp->late || (p->flags & WIRE_F_LATE) ? 0 : rtt;
	a.min_rtt = c->min_rtt;
	if (marks > 0) { /* below zero: an older packet */
		c->peer_ce = p->ce_count;
		a.marked = (uint32_t)marks < newly ? (uint32_t)marks : newly;
	}
	c->round_acked = (uint16_t)(c->round_acked + newly);
	c->round_marked = (uint16_t)(c->round_marked + a.marked);
	if (c->snd_una > c->round_end) {
		c->round_end = c->snd_nxt;
		a.round = true;
		c->cwnd_limited = false;
		tp_repath_round(c, p->has_window);
		tp_pmtu_round(c);
	}
	tp_pace_window(c, c->tp->cc->acked(c->cc_state, &a));
}

static void tell_queue_pair(struct tp_conn *c, unsigned *events)
{
	if (!c->qp)
		return;
	tp_requester_progress(c->qp);
	tp_responder_progress(c->qp);
	if (c->fin_acked)
		*events |= TP_EV_DRAINED;
}

static void tell_application(struct tp_conn *c, unsigned *events)
{
	if (__builtin_expect(c->messages, 0)) {
		tell_queue_pair(c, events);
		return;
	}
	if (c->want_writable && tp_is_roomy(c->snd.size, c->snd_end - c->snd_acked)) {
		c->want_writable = false;
		*events |= TP_EV_WRITABLE;
	}
	if (c->snd_acked != c->snd_end)
		return;
	if (__builtin_expect(tp_crowded(c->tp), 0) && !c->lent && c->snd.size == c->tp->cfg.ring_min)
		tp_pool_ring_share(c->tp, &c->snd);
	if (!c->fin_wanted || c->fin_acked)
		*events |= TP_EV_DRAINED;
}

bool tp_ack_input(struct tp_conn *c, uint64_t now, const struct wire_packet *p, unsigned *events)
{
	int32_t ahead = (int32_t)(p->ack - (uint32_t)c->snd_una);
	uint64_t cum = c->snd_una + (uint32_t)ahead;
	uint32_t newly = 0;

	if (ahead < 0)
		return !p->has_window || window_input(c, p);
	if (cum > c->snd_nxt || !sack_plausible(c, cum, p) || (p->has_window && !window_input(c, p)))
		return false;
	if (__builtin_expect(c->messages && c->qp, 0))
		tp_requester_credit(c->qp, p); /* not of what is old: it would seem to be far ahead */
	if (ahead)
		newly = cumulative_input(c, cum, p);
	if (p->sack_words)
		newly += sack_input(c, p);
	if (__builtin_expect(p->type == WIRE_ACK && p->piece, 0))
		tp_pmtu_piece(c, p->piece_off);
	if (!newly) {
		tp_recovery_answered(c, now);
		if (__builtin_expect(c->probes > 1, 0))
			tp_pmtu_answered(c, p->echo);
		return true;
	}
	c->answered_probes = c->probes;
	c->probes = 0;
	c->probe_due = false;
	c->progress = now;
	tell_congestion_control(c, now, p, newly);
	if (c->sacked || c->recovering)
		tp_recovery_detect(c, now);
	else
		c->reorder_at = NEVER;
	tp_recovery_arm(c, now);
	if (ahead)
		tell_application(c, events);
	return true;
}
