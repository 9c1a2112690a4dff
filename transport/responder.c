/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * responder: what a peer's packets do here. Bytes go to their place at once, in whatever order packets come;
 * what they mean (a message is there, a READ is to be answered, an answer is complete) happens in the order
 * of packet numbers. A packet that may not do what it says is an error only when it is its turn: before that
 * it might follow something that it depends on, and is taken for lost.
 */
#include <errno.h>

#include "transport/qp.h"

/* What is left of a packet when its bytes are in their place. */
struct step {
	uint8_t op; /* enum wire_opcode */
	bool last;
	bool more;	 /* of the packet's bytes: it is not over yet */
	uint16_t number; /* low half */
	uint32_t off;
	uint16_t len;
};

/* What becomes of a packet. */
enum fate { TAKEN, NOT_YET, ENDED };

static bool broken(struct tp_conn *c, enum wire_reset why)
{
	c->tp->stats.rx_out_of_window++;
	tp_conn_abort(c, why, -ECONNRESET);
	return false;
}

/* --- placing ------------------------------------------------------------------------------------------- */

static enum fate refuse(struct tp_qp *qp, bool early, enum wire_reset why)
{
	if (early)
		return NOT_YET;
	broken(qp->conn, why);
	return ENDED;
}

/* The receive of this number; NULL: it has not been posted, or it is over. */
static struct tp_rwqe *receive_of(const struct tp_qp *qp, uint32_t ssn)
{
	return ssn - qp->rq.head < qp->rq.tail - qp->rq.head ? rwqe_at(qp, ssn) : NULL;
}

static void note_imm(struct tp_rwqe *w, const struct wire_packet *p)
{
	if (p->msg.has_imm) {
		w->imm = p->msg.imm;
		w->has_imm = true;
	}
	w->solicited |= (p->flags & WIRE_F_SE) != 0;
}

static enum fate place_send(struct tp_qp *qp, const struct wire_packet *p, bool early)
{
	struct tp_rwqe *w = receive_of(qp, p->msg.number);

	if (!w)
		return refuse(qp, early, WIRE_RESET_PROTOCOL); /* beyond our credits */
	if (p->payload_len > w->len || p->msg.offset > w->len - p->payload_len) {
		if (!early)
			tp_qp_received(qp, &(struct tp_wc){.status = TP_WC_LENGTH, .opcode = TP_RECV});
		return refuse(qp, early, WIRE_RESET_INVALID);
	}
	tp_sge_scatter(w->sg, (uint32_t)p->msg.offset, p->payload, p->payload_len);
	note_imm(w, p);
	return TAKEN;
}

static enum fate place_write(struct tp_qp *qp, const struct wire_packet *p, bool early)
{
	struct tp_rwqe *w = NULL;

	if (p->msg.op == WIRE_OP_WRITE_IMM) {
		w = receive_of(qp, p->msg.number);
		if (!w)
			return refuse(qp, early, WIRE_RESET_PROTOCOL);
	}
	if (p->payload_len) {
		const struct tp_mr *mr =
			tp_region_of(qp, p->msg.rkey, TP_REMOTE_WRITE, p->msg.remote, p->payload_len);

		if (!mr)
			return refuse(qp, early, WIRE_RESET_ACCESS);
		memcpy(mr->addr + p->msg.remote, p->payload, p->payload_len);
	}
	if (w)
		note_imm(w, p);
	return TAKEN;
}

static enum fate place_asking(struct tp_qp *qp, const struct wire_packet *p, bool early)
{
	struct tp_incoming *i;

	if (p->msg.number - qp->in_next >= qp->attr.max_peer_reads - (qp->in_next - qp->in_done))
		return refuse(qp, early, WIRE_RESET_PROTOCOL);
	i = incoming_at(qp, p->msg.number);
	*i = (struct tp_incoming){.state = INCOMING_EARLY,
		.op = p->msg.op,
		.len = p->msg.op == WIRE_OP_READ_REQ ? p->msg.len : 8,
		.rkey = p->msg.rkey,
		.offset = p->msg.remote,
		.operand = p->msg.operand,
		.compare = p->msg.compare};
	return TAKEN;
}

static enum fate place_answer(struct tp_qp *qp, const struct wire_packet *p, bool early)
{
	uint32_t ahead = p->msg.number - qp->rsn_done;
	struct tp_swqe *w;

	if (ahead >= qp->rsn_begun - qp->rsn_done)
		return refuse(qp, early, WIRE_RESET_PROTOCOL);
	w = swqe_at(qp, qp->readers[p->msg.number & qp->readers_mask]);
	if (p->payload_len > w->len || p->msg.offset > w->len - p->payload_len)
		return refuse(qp, early, WIRE_RESET_PROTOCOL);
	if (w->opcode == TP_READ) {
		tp_sge_scatter(w->sg, (uint32_t)p->msg.offset, p->payload, p->payload_len);
	} else if (p->payload_len != 8) {
		return refuse(qp, early, WIRE_RESET_PROTOCOL); /* a value does not come in pieces */
	} else {
		uint64_t value = be64_get(p->payload);

		tp_sge_scatter(w->sg, 0, &value, 8);
	}
	return TAKEN;
}

static enum fate place(struct tp_qp *qp, const struct wire_packet *p, bool early)
{
	switch (p->msg.op) {
	case WIRE_OP_SEND:
		return place_send(qp, p, early);
	case WIRE_OP_WRITE:
	case WIRE_OP_WRITE_IMM:
		return place_write(qp, p, early);
	case WIRE_OP_READ_REQ:
	case WIRE_OP_SWAP:
	case WIRE_OP_ADD:
		return place_asking(qp, p, early);
	case WIRE_OP_READ_RESP:
		return place_answer(qp, p, early);
	case WIRE_OP_NONE: /* FIN */
		return TAKEN;
	default:
		return refuse(qp, early, WIRE_RESET_PROTOCOL);
	}
}

/* --- in order ------------------------------------------------------------------------------------------ */

static bool is_violation(struct tp_qp *qp)
{
	return broken(qp->conn, WIRE_RESET_PROTOCOL);
}

static bool step_send(struct tp_qp *qp, const struct step *s)
{
	struct tp_wc wc = {.opcode = TP_RECV};

	if (qp->within == WIRE_OP_WRITE || s->number != (uint16_t)qp->rq.head || s->off != qp->msg_off ||
		(!s->last && !s->len))
		return is_violation(qp);
	qp->msg_off += s->len;
	qp->within = s->last ? WIRE_OP_NONE : WIRE_OP_SEND;
	if (!s->last)
		return true;
	wc.len = qp->msg_off;
	qp->msg_off = 0;
	tp_qp_received(qp, &wc);
	return true;
}

static bool step_write(struct tp_qp *qp, const struct step *s)
{
	struct tp_wc wc = {.opcode = TP_RECV_WRITE};
	bool imm = s->op == WIRE_OP_WRITE_IMM;

	if (qp->within == WIRE_OP_SEND || (imm && s->number != (uint16_t)qp->rq.head))
		return is_violation(qp);
	qp->write_len += s->len;
	qp->within = s->last ? WIRE_OP_NONE : WIRE_OP_WRITE;
	if (!s->last)
		return true;
	wc.len = qp->write_len;
	qp->write_len = 0;
	if (imm)
		tp_qp_received(qp, &wc);
	return true;
}

static void execute(struct tp_incoming *i, uint64_t *at)
{
	uint64_t was = __atomic_load_n(at, __ATOMIC_SEQ_CST);

	if (i->op == WIRE_OP_ADD) {
		was = __atomic_fetch_add(at, i->operand, __ATOMIC_SEQ_CST);
	} else {
		was = i->compare;
		__atomic_compare_exchange_n(at, &was, i->operand, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	}
	be64_put(i->result, was);
}

static bool step_asking(struct tp_qp *qp, const struct step *s)
{
	struct tp_incoming *i = qp->incoming ? incoming_at(qp, qp->in_next) : NULL;
	bool reads = s->op == WIRE_OP_READ_REQ;
	struct tp_mr *mr;

	if (qp->within || s->number != (uint16_t)qp->in_next || !i || i->state != INCOMING_EARLY ||
		i->op != s->op)
		return is_violation(qp);
	mr = tp_region_of(qp, i->rkey, reads ? TP_REMOTE_READ : TP_REMOTE_ATOMIC, i->offset, i->len);
	if (!mr)
		return broken(qp->conn, WIRE_RESET_ACCESS);
	if (reads) {
		i->mr = mr;
		mr->uses++;
	} else if ((uintptr_t)(mr->addr + i->offset) % 8) {
		return broken(qp->conn, WIRE_RESET_INVALID);
	} else {
		execute(i, (uint64_t *)(void *)(mr->addr + i->offset));
	}
	i->state = INCOMING_ANSWERED;
	qp->in_next++;
	return true;
}

static bool step_answer(struct tp_qp *qp, const struct step *s)
{
	struct tp_swqe *w;

	if (qp->rsn_done == qp->rsn_begun || s->number != (uint16_t)qp->rsn_done ||
		s->off != qp->answer_off || (!s->last && !s->len))
		return is_violation(qp);
	w = swqe_at(qp, qp->readers[qp->rsn_done & qp->readers_mask]);
	qp->answer_off += s->len;
	if (!s->last)
		return true;
	if (qp->answer_off != w->len)
		return is_violation(qp);
	qp->answer_off = 0;
	qp->rsn_done++;
	w->over = true;
	tp_requester_progress(qp);
	return true;
}

static bool step_fin(struct tp_qp *qp, unsigned *events)
{
	if (qp->within)
		return is_violation(qp);
	qp->conn->rcv_fin = true;
	*events |= TP_EV_READABLE;
	return true;
}

/* After FIN the peer asks for nothing, but goes on answering. */
static bool step_by_kind(struct tp_qp *qp, const struct step *s, unsigned *events)
{
	if (qp->conn->rcv_fin && s->op != WIRE_OP_READ_RESP)
		return is_violation(qp);
	switch (s->op) {
	case WIRE_OP_SEND:
		return step_send(qp, s);
	case WIRE_OP_WRITE:
	case WIRE_OP_WRITE_IMM:
		return step_write(qp, s);
	case WIRE_OP_READ_REQ:
	case WIRE_OP_SWAP:
	case WIRE_OP_ADD:
		return step_asking(qp, s);
	case WIRE_OP_READ_RESP:
		return step_answer(qp, s);
	}
	return step_fin(qp, events);
}

/* False: the connection has ended. */
static bool step(struct tp_conn *c, const struct step *s, unsigned *events)
{
	if (!step_by_kind(c->qp, s, events))
		return false; /* and rcv_nxt says by which packet */
	c->rcv_nxt += !s->more;
	return true;
}

/* --- packets ------------------------------------------------------------------------------------------- */

static bool drain_early(struct tp_conn *c, unsigned *events)
{
	struct tp_reorder *r = c->reorder;

	while (c->rcv_nxt < c->rcv_high && tp_bits_test(&r->have, c->rcv_nxt)) {
		const struct tp_early *e = &r->early[c->rcv_nxt % TP_BITS];
		const struct step s = {.op = e->op,
			.last = e->flags & EARLY_LAST,
			.number = e->number,
			.off = e->off,
			.len = e->len};

		tp_bits_clear(&r->have, c->rcv_nxt);
		if (!step(c, &s, events))
			return false;
	}
	tp_early_drained(c);
	return true;
}

static bool receive_early(struct tp_conn *c, const struct wire_packet *p, uint32_t ahead)
{
	uint64_t psn = c->rcv_nxt + ahead;

	if (ahead >= c->rcv_window) {
		c->tp->stats.rx_out_of_window++;
		return true;
	}
	if (tp_early_known(c, psn))
		return true;
	if ((!c->reorder && !tp_pool_has_reorder(c->tp)) || place(c->qp, p, true) != TAKEN)
		return true; /* as if it were lost */
	*tp_early_add(c, psn) = (struct tp_early){.off = (uint32_t)p->msg.offset,
		.len = (uint16_t)p->payload_len,
		.number = (uint16_t)p->msg.number,
		.op = p->msg.op,
		.flags = p->msg.last ? EARLY_LAST : 0};
	return true;
}

/* The peer may end before we accept; there is nothing else that may come. */
static void end_before_accept(struct tp_conn *c, const struct wire_packet *p, uint32_t ahead)
{
	if (p->msg.op != WIRE_OP_NONE || ahead || c->rcv_fin)
		return;
	c->rcv_nxt++;
	c->rcv_fin = true;
	tp_ack_soon(c);
}

bool tp_responder_input(struct tp_conn *c, const struct wire_packet *p, uint32_t ahead, unsigned *events)
{
	const struct step s = {.op = p->msg.op,
		.last = p->msg.last,
		.more = p->more,
		.number = (uint16_t)p->msg.number,
		.off = (uint32_t)p->msg.offset,
		.len = (uint16_t)p->payload_len};

	if (!c->qp) {
		end_before_accept(c, p, ahead);
		return true;
	}
	if (ahead) {
		tp_ack_soon(c);
		return receive_early(c, p, ahead);
	}
	if (place(c->qp, p, false) != TAKEN || !step(c, &s, events))
		return false;
	if (c->reorder) {
		tp_ack_soon(c);
		return drain_early(c, events);
	}
	tp_ack_received(c, p->flags);
	return true;
}

void tp_responder_posted(struct tp_qp *qp)
{
	struct tp_conn *c = qp->conn;
	uint32_t untold = qp->rq.tail - qp->credit_told;

	if (!c || c->state != CONN_OPEN)
		return;
	if ((int32_t)(qp->credit_told - qp->rq.head) <= 0)
		tp_ack_soon(c); /* the peer may be waiting for it */
	else if (untold > qp->rq.mask / 4)
		tp_ack_later(c, qp->tp->now);
}

static void forget(struct tp_incoming *i)
{
	if (i->mr)
		i->mr->uses--;
	i->mr = NULL;
	i->state = INCOMING_FREE;
}

void tp_responder_progress(struct tp_qp *qp)
{
	while (qp->in_done != qp->in_send && qp->conn->snd_una >= incoming_at(qp, qp->in_done)->end_psn)
		forget(incoming_at(qp, qp->in_done++));
}

void tp_responder_forget(struct tp_qp *qp)
{
	for (; qp->in_done != qp->in_next; qp->in_done++)
		forget(incoming_at(qp, qp->in_done));
	qp->in_send = qp->in_next;
}
