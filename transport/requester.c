/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * requester: the packets that requests become, and what comes of them. A packet is one fragment that says by
 * itself where its bytes go. Requests leave in the order in which they were posted; answers to the peer's
 * take turns with them, as neither may wait for the other. What a packet carries is remembered by its number,
 * not its bytes: these are read from the program's memory whenever it is sent, or
 * handed out as they lie there.
 */
#include "transport/qp.h"

static uint32_t outstanding(const struct tp_qp *qp)
{
	return qp->rsn_begun - qp->rsn_done;
}

static bool may_begin(const struct tp_qp *qp, const struct tp_swqe *w)
{
	if (takes_receive((enum tp_opcode)w->opcode) && (int32_t)(w->number - qp->peer_credit) >= 0)
		return false;
	if (w->flags & TP_FENCE && outstanding(qp))
		return false;
	return !is_read(w) || outstanding(qp) < qp->max_reads;
}

static bool has_request(const struct tp_qp *qp)
{
	const struct tp_swqe *w;

	if (qp->sq_next == qp->sq.tail || !qp->peer_ready)
		return false;
	w = swqe_at(qp, qp->sq_next);
	return w->begun || may_begin(qp, w);
}

static bool has_answer(const struct tp_qp *qp)
{
	return qp->in_send != qp->in_next;
}

static bool has_fin(const struct tp_qp *qp)
{
	const struct tp_conn *c = qp->conn;

	return c->fin_wanted && !c->fin_sent && qp->sq_next == qp->sq.tail;
}

bool tp_requester_has(const struct tp_qp *qp)
{
	return has_answer(qp) || has_request(qp) || has_fin(qp);
}

bool tp_requester_waits(const struct tp_qp *qp)
{
	const struct tp_swqe *w;

	if (qp->sq_next == qp->sq.tail || has_request(qp))
		return false;
	w = swqe_at(qp, qp->sq_next);
	/* An answer that it waits for is the peer's to deliver, and is asked for by nobody. */
	return !qp->peer_ready || !outstanding(qp) || takes_receive((enum tp_opcode)w->opcode);
}

/* --- choosing ------------------------------------------------------------------------------------------ */

/* Bytes beside an extension of this length. */
static uint32_t capacity(const struct tp_qp *qp, uint32_t ext)
{
	return qp->conn->mss + WIRE_STREAM_LEN - ext;
}

/* Of the extension, at most. */
static uint32_t extension_len(const struct tp_swqe *w)
{
	switch (w->opcode) {
	case TP_SEND:
		return w->flags & TP_HAS_IMM ? WIRE_SEND_IMM_LEN : WIRE_SEND_LEN;
	case TP_WRITE:
		return WIRE_WRITE_LEN;
	case TP_WRITE_IMM:
		return WIRE_WRITE_IMM_LEN;
	}
	return WIRE_ATOMIC_LEN; /* what asks has no bytes */
}

static void take_answer(struct tp_qp *qp, uint64_t psn, struct tp_source *source, struct tp_sent *s)
{
	struct tp_incoming *i = incoming_at(qp, qp->in_send);
	uint32_t room = capacity(qp, WIRE_READ_RESP_LEN), left = i->len - i->sent;

	*source = (struct tp_source){SOURCE_ANSWER, qp->in_send, i->sent};
	s->off = WIRE_READ_RESP_LEN;
	s->len = (uint16_t)(left < room ? left : room);
	i->sent += s->len;
	if (i->sent < i->len)
		return;
	i->end_psn = psn + 1;
	qp->in_send++;
}

static void begin(struct tp_qp *qp, struct tp_swqe *w)
{
	w->begun = true;
	if (!is_read(w))
		return;
	w->number = qp->rsn_begun++;
	qp->readers[w->number & qp->readers_mask] = qp->sq_next;
}

static void take_request(struct tp_qp *qp, uint64_t psn, struct tp_source *source, struct tp_sent *s)
{
	struct tp_swqe *w = swqe_at(qp, qp->sq_next);
	uint32_t ext = extension_len(w), room = capacity(qp, ext), left = w->len - w->sent;

	if (!w->begun)
		begin(qp, w);
	*source = (struct tp_source){SOURCE_REQUEST, qp->sq_next, w->sent};
	s->off = ext;
	s->len = is_read(w) ? 0 : (uint16_t)(left < room ? left : room);
	w->sent += s->len;
	w->end_psn = psn + 1;
	if (w->sent < w->len && !is_read(w))
		return;
	w->over = !is_read(w);
	qp->sq_next++;
}

bool tp_requester_exceeds(const struct tp_qp *qp)
{
	bool request = has_request(qp);
	const struct tp_swqe *w;

	if (has_answer(qp) && (qp->answers_turn || !request)) {
		const struct tp_incoming *i = incoming_at(qp, qp->in_send);

		return i->len - i->sent > capacity(qp, WIRE_READ_RESP_LEN);
	}
	w = request ? swqe_at(qp, qp->sq_next) : NULL;
	return w && !is_read(w) && w->len - w->sent > capacity(qp, extension_len(w));
}

void tp_requester_take(struct tp_qp *qp, uint64_t psn, struct tp_sent *s)
{
	struct tp_source *source = &qp->sources[psn & qp->sources_mask];
	bool answer = has_answer(qp), request = has_request(qp);

	s->off = WIRE_ACK_LEN; /* of FIN */
	s->len = 0;
	if (answer && (qp->answers_turn || !request)) {
		take_answer(qp, psn, source, s);
	} else if (request) {
		take_request(qp, psn, source, s);
	} else {
		source->kind = SOURCE_FIN;
		s->flags |= SENT_FIN;
	}
	qp->answers_turn = !qp->answers_turn;
}

/* --- building ------------------------------------------------------------------------------------------ */

static void put_bytes(const struct tp_qp *qp, struct tp_swqe *w, uint32_t off, uint8_t *to, size_t len)
{
	struct tp_parts *parts = tp_parts_for(qp->tp, len);

	if (parts)
		parts->request = w;
	if (parts && w->flags & TP_INLINE)
		tp_parts_add(parts, NULL, (const uint8_t *)w->sg + off, len);
	else if (parts)
		tp_sge_pieces(w->sg, off, len, parts);
	else if (w->flags & TP_INLINE)
		memcpy(to, (const uint8_t *)w->sg + off, len);
	else
		tp_sge_gather(w->sg, off, to, len);
}

static size_t put_send(const struct tp_swqe *w, struct wire_message *m, uint8_t *ext)
{
	m->op = WIRE_OP_SEND;
	m->has_imm = m->last && w->flags & TP_HAS_IMM;
	m->imm = w->imm;
	m->number = w->number;
	return tp_wire_put_message(ext, m);
}

static size_t put_write(const struct tp_swqe *w, struct wire_message *m, uint8_t *ext)
{
	m->op = m->last && w->opcode == TP_WRITE_IMM ? WIRE_OP_WRITE_IMM : WIRE_OP_WRITE;
	m->imm = w->imm;
	m->number = w->number;
	m->rkey = w->rkey;
	m->remote = w->remote + m->offset;
	return tp_wire_put_message(ext, m);
}

static size_t put_asking(const struct tp_swqe *w, struct wire_message *m, uint8_t *ext)
{
	m->op = w->opcode == TP_READ	    ? WIRE_OP_READ_REQ
		: w->opcode == TP_FETCH_ADD ? WIRE_OP_ADD
					    : WIRE_OP_SWAP;
	m->number = w->number;
	m->rkey = w->rkey;
	m->remote = w->remote;
	m->len = w->len;
	m->operand = w->operand;
	m->compare = w->compare;
	return tp_wire_put_message(ext, m);
}

static size_t put_request(const struct tp_qp *qp, const struct tp_source *source, size_t len, uint8_t *ext,
	struct wire_message *m, unsigned *flags)
{
	struct tp_swqe *w = swqe_at(qp, source->index);
	size_t n;

	m->offset = source->offset;
	m->last = !is_read(w) && source->offset + len == w->len;
	if (m->last && w->flags & TP_SOLICITED)
		*flags |= WIRE_F_SE;
	if (is_read(w))
		return put_asking(w, m, ext);
	n = w->opcode == TP_SEND ? put_send(w, m, ext) : put_write(w, m, ext);
	put_bytes(qp, w, source->offset, ext + n, len);
	return n;
}

static size_t put_answer(const struct tp_qp *qp, const struct tp_source *source, size_t len, uint8_t *ext,
	struct wire_message *m)
{
	const struct tp_incoming *i = incoming_at(qp, source->index);
	struct tp_parts *parts = tp_parts_for(qp->tp, len);
	size_t n;

	m->op = WIRE_OP_READ_RESP;
	m->number = source->index;
	m->offset = source->offset;
	m->last = source->offset + len == i->len;
	n = tp_wire_put_message(ext, m);
	if (i->mr && parts)
		tp_parts_add(parts, i->mr, i->mr->addr + i->offset + source->offset, len);
	else if (i->mr)
		memcpy(ext + n, i->mr->addr + i->offset + source->offset, len);
	else
		memcpy(ext + n, i->result, len);
	return n;
}

size_t tp_requester_put(const struct tp_qp *qp, uint64_t psn, uint32_t from, size_t len, uint8_t *ext,
	enum wire_opcode *op, unsigned *flags)
{
	struct tp_source source = qp->sources[psn & qp->sources_mask];
	struct wire_message m = {.op = WIRE_OP_NONE};
	size_t n = 0;

	source.offset += from;
	if (source.kind == SOURCE_REQUEST)
		n = put_request(qp, &source, len, ext, &m, flags);
	else if (source.kind == SOURCE_ANSWER)
		n = put_answer(qp, &source, len, ext, &m);
	else /* FIN alone would be too short to be answered by RESET (FINISHED) */
		n = tp_wire_put_ack(ext, 0, 0);
	*op = m.op;
	return n;
}

/* --- what comes of it ---------------------------------------------------------------------------------- */

static bool is_complete(struct tp_qp *qp, const struct tp_swqe *w)
{
	return w->over && qp->conn->snd_una >= w->end_psn && tp_hold_is_over(qp, w);
}

void tp_requester_progress(struct tp_qp *qp)
{
	while (qp->sq.head != qp->sq_next && is_complete(qp, swqe_at(qp, qp->sq.head)))
		tp_qp_sent(qp, TP_WC_SUCCESS);
}

/* The newest of what the peer says: it only grows. */
void tp_requester_credit(struct tp_qp *qp, const struct wire_packet *p)
{
	int16_t more = (int16_t)(p->credit - (uint16_t)qp->peer_credit);

	if (!(p->flags & WIRE_F_READY))
		return;
	qp->peer_ready = true;
	if (more > 0)
		qp->peer_credit += (uint16_t)more;
}
