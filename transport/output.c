/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * output: what a connection may send now, and the building of its packets. Connections with something to send
 * stand in a list and take turns. A packet is built from the send ring each time it is sent; a retransmission
 * has the same PSN and the same bytes, and everything else is fresh. The congestion window counts packets, so
 * small writes go out one by one while there is room and pile up into full packets when there is none.
 */
#include "base/crc32c.h"
#include "transport/qp.h"

static bool psn_room(const struct tp_conn *c)
{
	uint64_t flying = c->snd_nxt - c->snd_una;

	return flying <= c->sent_mask && flying < c->snd_window;
}

static bool corked(const struct tp_conn *c)
{
	return (c->cork && !c->cork_pushed) || (c->nagle && c->snd_una != c->snd_nxt);
}

/* May a new packet leave now? */
bool tp_output_new_data(const struct tp_conn *c)
{
	uint64_t unsent = c->snd_end - c->snd_sent, room = c->snd_limit - c->snd_sent;

	if (c->pipe >= c->cwnd || !psn_room(c))
		return false;
	if (!unsent) {
		if (__builtin_expect(c->messages, 0))
			return c->qp && tp_requester_has(c->qp);
		return c->fin_wanted && !c->fin_sent;
	}
	if (unsent >= c->mss && room >= c->mss)
		return true;
	if (room < unsent) /* the window cuts it short: better wait for more, unless nothing would bring it */
		return room && c->snd_una == c->snd_nxt;
	return c->fin_wanted || !corked(c);
}

static bool fits(const struct tp_conn *c, const struct tp_sent *s)
{
	return tp_sent_size(c, s) <= c->mss;
}

/* Some are lost. May the first of them, *psn, leave? In pieces only the oldest packet does: the peer has no
 * place for others. */
static bool may_repeat(const struct tp_conn *c, uint64_t *psn)
{
	if (c->pipe >= c->cwnd)
		return false;
	*psn = tp_bits_next(&c->flight->lost, c->snd_una, c->snd_nxt);
	return *psn == c->snd_una || fits(c, &c->sent[*psn & c->sent_mask]);
}

static bool wanted(const struct tp_conn *c)
{
	uint64_t psn;

	if (c->ack_now || c->init_due || c->ping_due || c->probe_due)
		return true;
	if (c->state != CONN_OPEN && c->state != CONN_CLOSING)
		return false;
	return c->piece_due || (c->lost && may_repeat(c, &psn)) || tp_output_new_data(c);
}

void tp_output_check(struct tp_conn *c)
{
	if (!c->queued && wanted(c))
		tp_conn_mark(c);
}

static void put_base(const struct tp_conn *c, uint64_t now, uint8_t *buf, enum wire_type type, unsigned flags,
	enum wire_opcode op, uint64_t psn, size_t ext_len)
{
	struct wire_packet p = {
		.ce_count = c->ce_count,
		.psn = (uint32_t)psn,
		.ack = (uint32_t)c->rcv_nxt,
		.ts = tp_timestamp(now),
		.echo = c->ts_recent ? c->ts_recent + (uint32_t)((now - c->ts_recent_at) >> 7) : 0,
	};

	if (c->state == CONN_CLOSING)
		flags |= WIRE_F_BYE;
	if (c->ts_late)
		flags |= WIRE_F_LATE;
	if (__builtin_expect(c->messages && c->qp, 0)) {
		flags |= WIRE_F_READY;
		p.credit = (uint16_t)c->qp->rq.tail;
		c->qp->credit_told = c->qp->rq.tail;
	}
	tp_wire_put_base(buf, type, flags, op, ext_len, &p, c->peer_cid);
}

/* What the window limit could be; with what was told before it says how much is worth telling. */
static uint64_t window_limit(const struct tp_conn *c)
{
	uint64_t limit = c->rcv_read + c->rcv.size;

	return limit > c->rcv_limit ? limit : c->rcv_limit;
}

static bool window_due(const struct tp_conn *c)
{
	return c->rcv.size && c->rcv_read + c->rcv.size - c->rcv_limit >= c->rcv.size / 4;
}

/* What a pure ACK tells beyond the acknowledgement on data: which packets are missing, and more window. */
static void acked(struct tp_conn *c)
{
	c->ack_pending = 0;
	tp_ack_cancel(c);
	c->ack_now = c->ack_now && (c->reorder || c->rcv_piece || window_due(c));
}

/* The packet's head is in buf, its payload where it was. */
static size_t finish_parts(const struct tp_conn *c, const uint8_t *buf, size_t len)
{
	struct tp_parts *p = c->tp->parts;
	uint32_t crc;

	p->head = len;
	for (unsigned i = 0; i < p->n; i++)
		p->head -= p->piece[i].len;
	if (!c->crc)
		return len;
	crc = sd_crc32c(0, buf, p->head);
	for (unsigned i = 0; i < p->n; i++)
		crc = sd_crc32c(crc, p->piece[i].at, p->piece[i].len);
	be32_put(p->trailer, crc);
	p->trailer_len = WIRE_CRC_LEN;
	return len + WIRE_CRC_LEN;
}

static size_t finish(struct tp_conn *c, uint64_t now, uint8_t *buf, size_t len)
{
	c->packets_sent++;
	c->last_send = now;
	if (c->tp->parts && c->tp->parts->n)
		return finish_parts(c, buf, len);
	return c->crc ? tp_wire_seal(buf, len) : len;
}

static size_t build_ack(struct tp_conn *c, uint64_t now, uint8_t *buf)
{
	unsigned words = 0, flags = 0;
	size_t ext;

	if (c->reorder) {
		words = (unsigned)((c->rcv_high - c->rcv_nxt - 1 + 63) / 64);
		if (words > WIRE_SACK_WORDS)
			words = WIRE_SACK_WORDS;
	}
	c->rcv_limit = window_limit(c);
	ext = tp_wire_put_ack(buf + WIRE_BASE_LEN, c->rcv_limit, words);
	tp_wire_put_queue(buf + WIRE_BASE_LEN, c->tp->backlog, c->astray);
	for (unsigned k = 0; k < words; k++)
		tp_wire_put_sack(buf + WIRE_BASE_LEN, k,
			tp_bits_get64(&c->reorder->have, c->rcv_nxt + 1 + 64 * (uint64_t)k));
	if (c->rcv_piece) {
		tp_wire_put_piece(buf + WIRE_BASE_LEN + ext, c->rcv_piece, false);
		ext += WIRE_PIECE_LEN;
	}
	if (c->ping_due)
		flags = WIRE_F_ACKREQ;
	put_base(c, now, buf, WIRE_ACK, flags, WIRE_OP_NONE, c->snd_nxt, ext);
	acked(c);
	c->ack_now = c->ping_due = false;
	return finish(c, now, buf, WIRE_BASE_LEN + ext);
}

/* Bytes that may be anywhere in ring and loan. */
static void put_lent(const struct tp_conn *c, uint64_t off, uint8_t *to, size_t len, struct tp_parts *parts)
{
	while (len) {
		const uint8_t *at;
		size_t n = tp_loan_at(c, off, len, &at);

		if (parts) {
			tp_parts_add(parts, NULL, at, n);
		} else {
			memcpy(to, at, n);
			to += n;
		}
		off += n;
		len -= n;
	}
}

static void put_bytes(const struct tp_conn *c, uint64_t off, uint8_t *to, size_t len)
{
	struct tp_parts *p = tp_parts_for(c->tp, len);
	const uint8_t *at;
	size_t first;

	if (__builtin_expect(c->lent, 0)) {
		put_lent(c, off, to, len, p);
		return;
	}
	if (!p) {
		tp_ring_get(&c->snd, off, to, len);
		return;
	}
	first = tp_ring_at(&c->snd, off, len, &at);
	tp_parts_add(p, NULL, at, first);
	if (first < len)
		tp_parts_add(p, NULL, c->snd.data, len - first);
}

/* Writes the packet around the bytes [off, off + len); extra says whether it has room for a window extension.
 */
static size_t build_data(struct tp_conn *c, uint64_t now, uint8_t *buf, uint64_t psn, uint64_t off,
	size_t len, unsigned flags, bool extra)
{
	size_t ext = WIRE_STREAM_LEN;

	tp_wire_put_stream(buf + WIRE_BASE_LEN, off);
	if (extra) {
		c->rcv_limit = window_limit(c);
		ext += tp_wire_put_ack(buf + WIRE_BASE_LEN + WIRE_STREAM_LEN, c->rcv_limit, 0);
		tp_wire_put_queue(buf + WIRE_BASE_LEN + WIRE_STREAM_LEN, c->tp->backlog, c->astray);
	}
	put_base(c, now, buf, WIRE_DATA, flags, WIRE_OP_STREAM, psn, ext);
	if (len)
		put_bytes(c, off, buf + WIRE_BASE_LEN + ext, len);
	acked(c);
	return finish(c, now, buf, WIRE_BASE_LEN + ext + len);
}

static size_t build_message(
	struct tp_conn *c, uint64_t now, uint8_t *buf, uint64_t psn, size_t len, unsigned flags)
{
	enum wire_opcode op;
	size_t ext = tp_requester_put(c->qp, psn, 0, len, buf + WIRE_BASE_LEN, &op, &flags);

	put_base(c, now, buf, WIRE_DATA, flags, op, psn, ext);
	acked(c);
	return finish(c, now, buf, WIRE_BASE_LEN + ext + len);
}

/* Does the window matter? From three quarters on: asked for by the last packet alone, the acknowledgement of
 * all would bring forth the next window at once, round after round. */
static bool presses(const struct tp_conn *c)
{
	return c->cwnd < 8 ? c->pipe >= c->cwnd : 4 * c->pipe >= 3 * c->cwnd;
}

/* Flags of a new packet that ask for an ACK or for window: only when we could not go on without. limited: the
 * peer's window cuts the next one short. */
static inline unsigned asking(struct tp_conn *c, uint64_t psn, bool limited)
{
	bool full = c->pipe >= c->cwnd;
	unsigned flags = limited ? WIRE_F_LIMITED : 0;

	if (full)
		c->cwnd_limited = true;
	if (!limited && !presses(c) && (psn_room(c) || !c->sent_mask)) /* a lone packet is answered anyway */
		return flags;
	if (limited || psn - c->ackreq_psn >= c->ask_every || psn - c->ackreq_psn >= c->cwnd / 2) {
		c->ackreq_psn = psn;
		flags |= WIRE_F_ACKREQ;
	}
	return flags;
}

/* The connection's part of sending a packet for the first time. */
static void note_sent(struct tp_conn *c, uint64_t now, struct tp_sent *s)
{
	if (c->snd_una == c->snd_nxt) {
		tp_repath_idle(c);
		if (now - c->last_send > TP_IDLE_RESTART)
			tp_conn_idle(c);
		c->progress = now;
	}
	s->time = now;
	s->sends = 1;
	s->flags = 0;
	c->snd_nxt++;
	c->pipe++;
	if (__builtin_expect(c->pace_gap != 0, 0))
		tp_pace_sent(c, now);
}

/* What the next packet of messages is; perhaps a probe. */
static void take(struct tp_conn *c, uint64_t psn, struct tp_sent *s)
{
	uint16_t mss = c->mss;

	if (__builtin_expect(c->try_mss && tp_requester_exceeds(c->qp) && tp_pmtu_may_probe(c), 0))
		c->mss = c->try_mss;
	tp_requester_take(c->qp, psn, s);
	if (__builtin_expect(c->mss != mss, 0)) {
		c->mss = mss;
		if (!fits(c, s))
			tp_pmtu_sent(c, psn, s);
	}
}

static size_t send_new_message(struct tp_conn *c, uint64_t now, uint8_t *buf)
{
	uint64_t psn = c->snd_nxt;
	struct tp_sent *s = &c->sent[psn & c->sent_mask];
	unsigned flags = 0;

	note_sent(c, now, s);
	take(c, psn, s);
	if (s->flags & SENT_FIN) {
		flags = WIRE_F_FIN;
		c->fin_sent = true;
	}
	if (c->probe_at == NEVER)
		tp_recovery_arm(c, now);
	return build_message(c, now, buf, psn, s->len, flags | asking(c, psn, false));
}

static size_t send_new(struct tp_conn *c, uint64_t now, uint8_t *buf)
{
	uint64_t psn = c->snd_nxt, off = c->snd_sent, unsent = c->snd_end - off, room = c->snd_limit - off;
	struct tp_sent *s = &c->sent[psn & c->sent_mask];
	bool extra = window_due(c);
	size_t len = unsent < room ? unsent : room, most = c->mss - (extra ? WIRE_ACK_LEN : 0u);
	unsigned flags = 0;

	if (__builtin_expect(c->try_mss && len >= c->mss + c->mss / 4 && tp_pmtu_may_probe(c), 0)) {
		most = c->try_mss;
		extra = false;
	}
	if (len > most)
		len = most;
	note_sent(c, now, s);
	s->off = (uint32_t)off;
	s->len = (uint16_t)len;
	if (__builtin_expect(len > c->mss, 0))
		tp_pmtu_sent(c, psn, s);
	c->snd_sent += len;
	if (c->fin_wanted && c->snd_sent == c->snd_end) {
		s->flags |= SENT_FIN;
		flags = WIRE_F_FIN;
		c->fin_sent = true;
	}
	if (c->probe_at == NEVER)
		tp_recovery_arm(c, now);
	unsent -= len;
	room -= len;
	flags |= asking(c, psn, room < unsent && room < c->mss);
	if (c->snd_sent == c->snd_end) {
		c->cork_pushed = false;
		c->cork_until = NEVER;
	}
	return build_data(c, now, buf, psn, off, len, flags, extra);
}

/* The next piece of the oldest packet: like a packet of its own with the same PSN. One at a time, so that it
 * matters little what else the path is short of. */
static size_t send_piece(struct tp_conn *c, uint64_t now, uint8_t *buf)
{
	const struct tp_sent *s = &c->sent[c->snd_una & c->sent_mask];
	size_t from = c->piece, room = c->mss - WIRE_PIECE_LEN - (tp_sent_size(c, s) - s->len);
	bool more = s->len - from > room;
	size_t len = more ? room : s->len - from, ext = WIRE_PIECE_LEN;
	unsigned flags = WIRE_F_RETX | WIRE_F_ACKREQ | (!more && s->flags & SENT_FIN ? WIRE_F_FIN : 0);
	enum wire_opcode op = WIRE_OP_STREAM;

	tp_wire_put_piece(buf + WIRE_BASE_LEN, from, more);
	if (c->messages) {
		ext += tp_requester_put(
			c->qp, c->snd_una, (uint32_t)from, len, buf + WIRE_BASE_LEN + ext, &op, &flags);
	} else {
		tp_wire_put_stream(buf + WIRE_BASE_LEN + ext, c->snd_acked + from);
		ext += WIRE_STREAM_LEN;
		put_bytes(c, c->snd_acked + from, buf + WIRE_BASE_LEN + ext, len);
	}
	put_base(c, now, buf, WIRE_DATA, flags, op, c->snd_una, ext);
	acked(c);
	return finish(c, now, buf, WIRE_BASE_LEN + ext + len);
}

static size_t send_again(struct tp_conn *c, uint64_t now, uint8_t *buf, uint64_t psn, unsigned flags)
{
	struct tp_sent *s = &c->sent[psn & c->sent_mask];
	uint64_t off;

	if (__builtin_expect(s->flags & SENT_PROBE, 0))
		tp_pmtu_unanswered(c, s);
	else
		tp_pmtu_suspect(c, s);
	if (__builtin_expect(!fits(c, s), 0)) { /* perhaps not any more: the oldest goes first then */
		psn = c->snd_una;
		s = &c->sent[psn & c->sent_mask];
	}
	if (tp_bits_test(&c->flight->lost, psn)) {
		tp_bits_clear(&c->flight->lost, psn);
		c->lost--;
		c->pipe++;
	}
	if (c->pace_gap)
		tp_pace_sent(c, now);
	s->time = now;
	if (s->sends < UINT8_MAX)
		s->sends++;
	if (s->flags & SENT_FIN)
		flags |= WIRE_F_FIN;
	c->retransmits++;
	c->tp->stats.retransmits++;
	c->piece_due = false;
	if (__builtin_expect(!fits(c, s), 0))
		return send_piece(c, now, buf);
	if (__builtin_expect(c->messages, 0))
		return build_message(c, now, buf, psn, s->len, flags | WIRE_F_RETX);
	off = c->snd_acked + (uint32_t)(s->off - (uint32_t)c->snd_acked);
	return build_data(c, now, buf, psn, off, s->len, flags | WIRE_F_RETX,
		window_due(c) && s->len + WIRE_ACK_LEN <= c->mss);
}

/* The first timeout repeats the newest packet, which tells most; later ones the oldest, which frees most. */
static uint64_t probe_psn(const struct tp_conn *c)
{
	uint64_t psn = c->snd_nxt - 1;

	if (c->probes > 1)
		return c->snd_una;
	while (psn > c->snd_una && tp_bits_test(&c->flight->sacked, psn))
		psn--;
	return fits(c, &c->sent[psn & c->sent_mask]) ? psn : c->snd_una;
}

static size_t build(struct tp_conn *c, uint64_t now, uint8_t *buf)
{
	uint64_t psn;

	if (__builtin_expect(c->init_due, 0))
		return tp_setup_build(c, now, buf);
	if (__builtin_expect(c->probe_due, 0)) {
		c->probe_due = false;
		if (c->snd_una != c->snd_nxt)
			return send_again(c, now, buf, probe_psn(c), WIRE_F_ACKREQ);
	}
	if (__builtin_expect(c->ack_now && (c->reorder || c->rcv_piece), 0))
		return build_ack(c, now, buf);
	if (c->state == CONN_OPEN || c->state == CONN_CLOSING) {
		if (__builtin_expect(c->piece_due, 0))
			return send_again(c, now, buf, c->snd_una, 0);
		if (__builtin_expect(c->lost && may_repeat(c, &psn), 0))
			return send_again(c, now, buf, psn, 0);
		if (tp_output_new_data(c))
			return __builtin_expect(c->messages, 0) ? send_new_message(c, now, buf)
								: send_new(c, now, buf);
	}
	return c->ack_now || c->ping_due ? build_ack(c, now, buf) : 0;
}

static void leave_list(struct tp *t, struct tp_conn *c)
{
	list_remove(&c->out);
	c->queued = false;
	t->out_run = 0;
}

static size_t output_control(struct tp *t, uint8_t *buf, const struct tp_path **path)
{
	struct tp_control *e = &t->control[t->control_head];

	t->control_head = (t->control_head + 1) % TP_CONTROL_QUEUE;
	t->control_count--;
	memcpy(buf, e->data, e->len);
	*path = &e->path;
	return e->len;
}

static size_t counted(struct tp *t, size_t len)
{
	t->stats.tx_packets++;
	t->stats.tx_bytes += len;
	return len;
}

bool tp_output_pending(const struct tp *t)
{
	return t->control_count || !list_empty(&t->out);
}

const struct tp_path *tp_output_next(const struct tp *t)
{
	if (t->control_count)
		return &t->control[t->control_head].path;
	return list_empty(&t->out) ? NULL : &container_of(t->out.next, struct tp_conn, out)->path;
}

size_t tp_output(struct tp *t, uint64_t now, uint8_t *buf, size_t cap, const struct tp_path **path)
{
	t->now = now;
	if (t->control_count)
		return counted(t, output_control(t, buf, path));
	while (!list_empty(&t->out)) {
		struct tp_conn *c = container_of(t->out.next, struct tp_conn, out);
		size_t len;

		if (cap < c->path.max_payload)
			return 0;
		if (__builtin_expect(tp_crowded(t) && !t->out_run, 0))
			tp_warm_output(t, c);
		len = build(c, now, buf);
		if (!len || !wanted(c)) {
			leave_list(t, c);
			if (__builtin_expect(c->state == CONN_CLOSING, 0))
				tp_close_progress(c); /* frees it, but its path stays readable */
		} else if (++t->out_run >= TP_BURST) {
			t->out_run = 0;
			list_remove(&c->out);
			list_push_back(&t->out, &c->out);
		}
		if (len) {
			*path = &c->path;
			return counted(t, len);
		}
	}
	return 0;
}

size_t tp_output_parts(
	struct tp *t, uint64_t now, uint8_t *buf, struct tp_parts *parts, const struct tp_path **path)
{
	size_t len;

	parts->n = parts->trailer_len = 0;
	parts->request = NULL;
	t->parts = parts;
	len = tp_output(t, now, buf, SIZE_MAX, path);
	t->parts = NULL;
	if (!parts->n)
		parts->head = len;
	return len;
}
