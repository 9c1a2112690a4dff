/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * qp: the life of a queue pair, and what is posted to it. When its connection ends, everything that was
 * posted completes: the request that was the reason says why, the others that they were flushed.
 */
#include <errno.h>

#include "transport/qp.h"

/* --- life ---------------------------------------------------------------------------------------------- */

static size_t align8(size_t n)
{
	return (n + 7) & ~(size_t)7;
}

static int queue_open(struct tp *t, struct tp_wq *q, uint32_t n, size_t stride)
{
	uint32_t size = tp_queue_size(n);

	q->stride = (uint32_t)align8(stride);
	q->mask = size - 1;
	q->wqes = t->ops.alloc(t->ctx, (size_t)size * q->stride);
	return q->wqes ? 0 : -ENOMEM;
}

static void queue_close(struct tp *t, struct tp_wq *q)
{
	if (q->wqes)
		t->ops.free(t->ctx, q->wqes, (size_t)(q->mask + 1) * q->stride);
}

static bool is_valid(const struct tp *t, const struct tp_qp_attr *a)
{
	return a->size == sizeof *a && a->pd && a->pd->tp == t && a->send_cq && a->recv_cq &&
	       a->max_send_wr && a->max_send_wr <= TP_MAX_WR && a->max_recv_wr &&
	       a->max_recv_wr <= TP_MAX_WR && a->max_sge <= TP_MAX_SGE && a->max_inline <= TP_MAX_INLINE;
}

static void release(struct tp_qp *qp)
{
	struct tp *t = qp->tp;

	queue_close(t, &qp->sq);
	queue_close(t, &qp->rq);
	if (qp->readers)
		t->ops.free(t->ctx, qp->readers, (qp->readers_mask + 1) * sizeof *qp->readers);
	if (qp->incoming)
		t->ops.free(t->ctx, qp->incoming, (qp->incoming_mask + 1) * sizeof *qp->incoming);
	if (qp->sources)
		t->ops.free(t->ctx, qp->sources, (qp->sources_mask + 1) * sizeof *qp->sources);
	t->ops.free(t->ctx, qp, sizeof *qp);
}

static int allocate(struct tp_qp *qp)
{
	struct tp *t = qp->tp;
	const struct tp_qp_attr *a = &qp->attr;
	size_t pieces = a->max_sge * sizeof(struct tp_sge);
	int r = queue_open(t, &qp->sq, a->max_send_wr,
		sizeof(struct tp_swqe) + (pieces > a->max_inline ? pieces : a->max_inline));

	if (!r)
		r = queue_open(t, &qp->rq, a->max_recv_wr, sizeof(struct tp_rwqe) + pieces);
	qp->sources_mask = t->cfg.window_packets - 1;
	qp->sources = t->ops.alloc(t->ctx, t->cfg.window_packets * sizeof *qp->sources);
	/* powers of two, or numbers that wrap would meet others in their places */
	qp->readers_mask = tp_queue_size(a->max_reads) - 1;
	qp->incoming_mask = tp_queue_size(a->max_peer_reads) - 1;
	if (a->max_reads)
		qp->readers = t->ops.alloc(t->ctx, (qp->readers_mask + 1) * sizeof *qp->readers);
	if (a->max_peer_reads)
		qp->incoming = t->ops.alloc(t->ctx, (qp->incoming_mask + 1) * sizeof *qp->incoming);
	if (r || !qp->sources || (a->max_reads && !qp->readers) || (a->max_peer_reads && !qp->incoming))
		return -ENOMEM;
	return 0;
}

int tp_qp_create(struct tp *t, const struct tp_qp_attr *attr, struct tp_qp **out)
{
	struct tp_qp *qp;

	if (!is_valid(t, attr))
		return -EINVAL;
	qp = t->ops.alloc(t->ctx, sizeof *qp);
	if (!qp)
		return -ENOMEM;
	*qp = (struct tp_qp){.tp = t,
		.attr = *attr,
		.pd = attr->pd,
		.scq = attr->send_cq,
		.rcq = attr->recv_cq,
		.user = attr->user};
	qp->attr.max_sge = attr->max_sge ? attr->max_sge : 1;
	if (allocate(qp)) {
		release(qp);
		return -ENOMEM;
	}
	qp->scq->users++;
	qp->rcq->users++;
	list_push_back(&qp->pd->qps, &qp->of_pd);
	list_init(&qp->of_waiting);
	*out = qp;
	return 0;
}

/* What was posted and has not completed: as many completions fewer. */
static void drop_posted(struct tp_qp *qp)
{
	while (qp->sq.head != qp->sq.tail) {
		tp_qp_release(swqe_at(qp, qp->sq.head)->sg, swqe_at(qp, qp->sq.head)->n_sg);
		qp->sq.head++;
		tp_cq_release(qp->scq);
	}
	while (qp->rq.head != qp->rq.tail) {
		tp_qp_release(rwqe_at(qp, qp->rq.head)->sg, rwqe_at(qp, qp->rq.head)->n_sg);
		qp->rq.head++;
		tp_cq_release(qp->rcq);
	}
}

void tp_qp_destroy(struct tp_qp *qp, uint64_t now)
{
	struct tp *t = qp->tp;
	struct tp_conn *c = qp->conn;

	t->now = now;
	drop_posted(qp);
	tp_responder_forget(qp);
	if (c) {
		bool over = c->rcv_fin && c->fin_acked && !c->ack_now;

		c->qp = NULL;
		c->owned = false;
		if (c->state == CONN_FAILED || c->state == CONN_INIT_SENT)
			tp_conn_free(c);
		else if (over)
			tp_conn_finish(c);
		else
			tp_conn_abort(c, WIRE_RESET_ABORT, -ECONNABORTED);
	}
	tp_cq_forget(qp->scq, qp);
	tp_cq_forget(qp->rcq, qp);
	qp->scq->users--;
	qp->rcq->users--;
	list_remove(&qp->of_pd);
	list_remove(&qp->of_waiting);
	release(qp);
	tp_pool_trim(t);
}

/* Room to remember all packets in flight. */
static int attach(struct tp_qp *qp, struct tp_conn *c)
{
	int r = tp_flight_grow(c, qp->tp->cfg.window_packets);

	if (r)
		return r;
	c->qp = qp;
	qp->conn = c;
	return 0;
}

int tp_qp_connect(struct tp_qp *qp, uint64_t now, const struct tp_path *path)
{
	struct tp_conn *c;
	int r;

	if (qp->error || qp->conn)
		return qp->error ? qp->error : -EISCONN;
	r = tp_connect(qp->tp, now, path, NULL, &c);
	if (r)
		return r;
	tp_conn_for_messages(c, qp->attr.max_peer_reads);
	r = attach(qp, c);
	if (r)
		tp_conn_free(c);
	return r;
}

int tp_qp_accept(struct tp_qp *qp, struct tp_listener *l)
{
	struct tp_conn *c;
	int r;

	if (qp->error || qp->conn)
		return qp->error ? qp->error : -EISCONN;
	if (qp->attr.max_peer_reads < l->reads)
		return -EINVAL;
	c = tp_accept(l, NULL);
	if (!c)
		return -EAGAIN;
	r = attach(qp, c);
	if (r) {
		c->owned = false;
		tp_conn_abort(c, WIRE_RESET_ABORT, -ECONNABORTED);
		return r;
	}
	if (c->state == CONN_FAILED) {
		tp_qp_failed(qp, c->error);
	} else { /* requests may come; and what the peer takes, which it said too early */
		c->ping_due = true;
		tp_conn_mark(c);
	}
	tp_qp_agree(qp);
	if (c->rcv_fin)
		tp_conn_event(c, TP_EV_READABLE);
	return 0;
}

void tp_qp_agree(struct tp_qp *qp)
{
	uint32_t theirs = qp->conn->peer_reads;

	qp->max_reads = theirs < qp->attr.max_reads ? theirs : qp->attr.max_reads;
}

void tp_qp_disconnect(struct tp_qp *qp)
{
	if (qp->conn)
		tp_shutdown(qp->conn);
}

struct tp_conn *tp_qp_conn(const struct tp_qp *qp)
{
	return qp->conn;
}

int tp_qp_error(const struct tp_qp *qp)
{
	return qp->error;
}

/* --- posting ------------------------------------------------------------------------------------------- */

static void note_uses(const struct tp_sge *sg, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		sg[i].mr->uses++;
}

void tp_qp_release(const struct tp_sge *sg, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		sg[i].mr->uses--;
}

/* 0, and the bytes it is of. */
static int check_send(const struct tp_qp *qp, const struct tp_send_wr *wr, uint64_t *len)
{
	bool reads = wr->opcode == TP_READ,
	     atomic = wr->opcode == TP_COMPARE_SWAP || wr->opcode == TP_FETCH_ADD;
	int r;

	if (wr->opcode > TP_FETCH_ADD)
		return -EINVAL;
	*len = wr->len;
	if (wr->flags & TP_INLINE)
		return reads || atomic || wr->len > qp->attr.max_inline ? -EINVAL : 0;
	if (wr->n_sg > qp->attr.max_sge)
		return -EINVAL;
	r = tp_sge_check(qp->pd, wr->sg, wr->n_sg, reads || atomic ? TP_LOCAL_WRITE : 0, len);
	if (!r && atomic && *len != 8)
		r = -EINVAL;
	return !r && (reads || atomic) && !qp->attr.max_reads ? -EINVAL : r;
}

static void fill(struct tp_swqe *w, const struct tp_send_wr *wr, uint32_t len)
{
	*w = (struct tp_swqe){.wr_id = wr->wr_id,
		.rkey = wr->rkey,
		.remote = wr->remote_offset,
		.operand = wr->operand,
		.compare = wr->compare,
		.imm = wr->imm,
		.len = len,
		.opcode = (uint8_t)wr->opcode,
		.flags = (uint8_t)wr->flags};
	if (wr->flags & TP_INLINE) {
		if (len)
			memcpy(w->sg, wr->data, len);
		return;
	}
	w->n_sg = (uint8_t)wr->n_sg;
	if (wr->n_sg)
		memcpy(w->sg, wr->sg, wr->n_sg * sizeof *wr->sg);
	note_uses(w->sg, w->n_sg);
}

int tp_post_send(struct tp_qp *qp, const struct tp_send_wr *wr)
{
	struct tp_conn *c = qp->conn;
	struct tp_swqe *w;
	uint64_t len;
	int r;

	if (qp->error)
		return qp->error;
	if (c && c->fin_wanted)
		return -EPIPE;
	r = check_send(qp, wr, &len);
	if (r)
		return r;
	if (qp->sq.tail - qp->sq.head > qp->sq.mask || !tp_cq_reserve(qp->scq))
		return -EAGAIN;
	w = swqe_at(qp, qp->sq.tail);
	fill(w, wr, (uint32_t)len);
	if (takes_receive(wr->opcode))
		w->number = qp->ssn_next++;
	qp->sq.tail++;
	if (!c)
		return 0;
	if (c->probe_at == NEVER && c->state == CONN_OPEN && tp_requester_waits(qp))
		tp_recovery_arm(c, qp->tp->now);
	tp_output_check(c);
	return 0;
}

int tp_post_recv(struct tp_qp *qp, const struct tp_recv_wr *wr)
{
	struct tp_rwqe *w;
	uint64_t len;
	int r;

	if (qp->error)
		return qp->error;
	if (wr->n_sg > qp->attr.max_sge)
		return -EINVAL;
	r = tp_sge_check(qp->pd, wr->sg, wr->n_sg, TP_LOCAL_WRITE, &len);
	if (r)
		return r;
	if (qp->rq.tail - qp->rq.head > qp->rq.mask || !tp_cq_reserve(qp->rcq))
		return -EAGAIN;
	w = rwqe_at(qp, qp->rq.tail);
	*w = (struct tp_rwqe){.wr_id = wr->wr_id, .len = (uint32_t)len, .n_sg = (uint8_t)wr->n_sg};
	if (wr->n_sg)
		memcpy(w->sg, wr->sg, wr->n_sg * sizeof *wr->sg);
	note_uses(w->sg, w->n_sg);
	qp->rq.tail++;
	tp_responder_posted(qp);
	return 0;
}

/* --- completing ---------------------------------------------------------------------------------------- */

void tp_qp_event(struct tp_qp *qp, unsigned events)
{
	qp->tp->ops.qp_event(qp->tp->ctx, qp, qp->user, events);
}

void tp_qp_received(struct tp_qp *qp, struct tp_wc *wc)
{
	struct tp_rwqe *w = rwqe_at(qp, qp->rq.head);

	wc->wr_id = w->wr_id;
	wc->qp = qp;
	wc->imm = w->imm;
	wc->has_imm = w->has_imm;
	tp_qp_release(w->sg, w->n_sg);
	qp->rq.head++;
	tp_cq_complete(qp->rcq, wc, w->solicited);
}

void tp_qp_sent(struct tp_qp *qp, enum tp_wc_status status)
{
	struct tp_swqe *w = swqe_at(qp, qp->sq.head);
	const struct tp_wc wc = {.wr_id = w->wr_id,
		.qp = qp,
		.status = status,
		.opcode = (enum tp_opcode)w->opcode,
		.len = w->len};

	tp_qp_release(w->sg, w->n_sg);
	qp->sq.head++;
	if (status != TP_WC_SUCCESS || w->flags & TP_SIGNALED || qp->attr.signal_all)
		tp_cq_complete(qp->scq, &wc, false);
	else
		tp_cq_release(qp->scq);
}

/* --- the end ------------------------------------------------------------------------------------------- */

static enum tp_wc_status why(const struct tp_qp *qp)
{
	switch (qp->nak) {
	case WIRE_RESET_ACCESS:
		return TP_WC_REMOTE_ACCESS;
	case WIRE_RESET_INVALID:
		return TP_WC_REMOTE_INVALID;
	}
	switch (qp->error) {
	case -ETIMEDOUT:
		return TP_WC_TIMEOUT;
	case -ECONNRESET:
	case -ECONNREFUSED:
		return TP_WC_REMOTE_FAILED;
	default:
		return TP_WC_FLUSHED;
	}
}

/* What the peer could not take tells that it has taken all before it. */
static bool has_arrived(const struct tp_qp *qp, const struct tp_swqe *w)
{
	return qp->nak && w->begun && (w->over || is_read(w)) && w->end_psn <= qp->nak_psn;
}

/* What has been posted to send completes, as soon as nothing refers to its memory. */
static void flush_sends(struct tp_qp *qp)
{
	enum tp_wc_status status = why(qp);
	bool failed = false;

	for (uint32_t i = qp->sq.head; i != qp->sq.tail; i++) {
		if (!tp_hold_is_over(qp, swqe_at(qp, i)))
			return;
	}
	while (qp->sq.head != qp->sq.tail) {
		const struct tp_swqe *w = swqe_at(qp, qp->sq.head);

		if (has_arrived(qp, w)) {
			/* The answer to a READ may be lost; nothing succeeds behind what has not. */
			failed |= !w->over;
			tp_qp_sent(qp, failed ? TP_WC_FLUSHED : TP_WC_SUCCESS);
			continue;
		}
		tp_qp_sent(qp, tp_sge_names(w->sg, w->n_sg, qp->lost_mr) ? TP_WC_PROTECTION : status);
		status = TP_WC_FLUSHED;
	}
	qp->sq_next = qp->sq.head;
}

void tp_qp_failed(struct tp_qp *qp, int error)
{
	if (qp->error)
		return;
	qp->error = error;
	flush_sends(qp);
	while (qp->rq.head != qp->rq.tail) {
		const struct tp_rwqe *w = rwqe_at(qp, qp->rq.head);
		struct tp_wc wc = {.opcode = TP_RECV,
			.status =
				tp_sge_names(w->sg, w->n_sg, qp->lost_mr) ? TP_WC_PROTECTION : TP_WC_FLUSHED};

		tp_qp_received(qp, &wc);
	}
	tp_responder_forget(qp);
}

void tp_qp_released(struct tp_qp *qp)
{
	if (qp->error)
		flush_sends(qp);
	else
		tp_requester_progress(qp);
}

void tp_qp_lost_region(struct tp_qp *qp, const struct tp_mr *mr)
{
	qp->lost_mr = mr;
	if (qp->conn && qp->conn->state != CONN_FAILED)
		tp_conn_abort(qp->conn, WIRE_RESET_FAILED, -ECONNABORTED);
	else
		tp_qp_failed(qp, -ECONNABORTED);
}
