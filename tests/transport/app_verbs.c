/* SPDX-License-Identifier: BSD-3-Clause */
/* What one endpoint's program posts, polls and registers. */
#include "app_verbs.h"

#include <errno.h>
#include <string.h>

#define QUEUE 8

/* --- posting --- */

static unsigned some_pieces(
	struct verbs *v, struct script *s, const struct pair *q, struct piece *out, struct tp_sge *sg)
{
	unsigned n = script_below(s, 8) % (LEDGER_PIECES + 1);

	for (unsigned i = 0; i < n; i++) {
		unsigned b = script_byte(s);
		struct area *a = &v->areas[b % AREAS];

		for (unsigned k = 0; k < AREAS && b < 0xf0 && (!a->mr || a->pd != q->qp->pd); k++)
			a = &v->areas[(b + k) % AREAS];
		out[i] = (struct piece){a, script_byte(s) * 2u, script_byte(s) * (v->wide ? 4u : 2u)};
		if (a->mr && b < 0xf0 && out[i].offset + out[i].len > a->len) {
			out[i].offset %= a->len + 1;
			out[i].len %= a->len - out[i].offset + 1;
		}
		if (a->mr && b >= 0xf0 && out[i].offset <= a->len) /* or nearly so */
			out[i].len = a->len - out[i].offset + (out[i].len + b) % 3;
		sg[i] = (struct tp_sge){a->mr, out[i].offset, out[i].len};
	}
	return n;
}

static void measure(struct entry *e)
{
	e->len = 0;
	for (unsigned i = 0; i < e->n_pieces; i++)
		e->len += e->piece[i].len;
}

/* Is it one that must not be refused for what it says? */
static bool sound(const struct pair *q, const struct entry *e, unsigned access)
{
	for (unsigned i = 0; i < e->n_pieces; i++) {
		const struct area *a = e->piece[i].area;

		if (!a->mr || a->pd != q->qp->pd || (a->access & access) != access ||
			e->piece[i].offset + e->piece[i].len > a->len)
			return false;
	}
	return true;
}

void verbs_post_send(struct verbs *v, struct script *s, struct pair *q)
{
	struct entry *e = q->qp ? ledger_next_send(&q->ledger) : NULL;
	struct tp_sge sg[LEDGER_PIECES];
	struct tp_send_wr wr = {.sg = sg};
	bool asks;
	int r;

	if (!e)
		return;
	e->opcode = wr.opcode = (enum tp_opcode)script_below(s, TP_FETCH_ADD + 1);
	asks = e->opcode >= TP_READ;
	e->flags = script_byte(s) & 31;
	if (asks)
		e->flags &= ~(unsigned)TP_INLINE;
	if (q->ledger.sent % 8 == 7)
		e->flags |= TP_SIGNALED; /* or what was not would never be known to be over */
	wr.wr_id = q->ledger.sent;
	e->imm = wr.imm = script_byte(s);
	e->rkey = wr.rkey = tp_random_id(v->p.tp);
	e->remote = wr.remote_offset = (uint64_t)script_byte(s) << 32;
	e->operand = wr.operand = script_byte(s);
	e->compare = wr.compare = script_byte(s);
	if (e->flags & TP_INLINE) {
		e->len = wr.len = script_below(s, LEDGER_INLINE + 1);
		memset(e->data, script_byte(s), sizeof e->data);
		wr.data = e->data;
	} else {
		e->n_pieces = wr.n_sg = some_pieces(v, s, q, e->piece, sg);
		if (asks && e->opcode != TP_READ)
			for (unsigned i = 0; i < e->n_pieces; i++)
				sg[i].len = e->piece[i].len = i ? 0 : 8;
		measure(e);
	}
	wr.flags = e->flags;
	v->p.may_alloc = false;
	r = tp_post_send(q->qp, &wr);
	v->p.may_alloc = true;
	require(r || e->flags & TP_INLINE || sound(q, e, asks ? TP_LOCAL_WRITE : 0));
	require(r != -EACCES || !sound(q, e, asks ? TP_LOCAL_WRITE : 0));
	if (!r)
		ledger_posted_send(&q->ledger);
}

void verbs_post_receive(struct verbs *v, struct script *s, struct pair *q)
{
	struct entry *e = q->qp ? ledger_next_receive(&q->ledger) : NULL;
	struct tp_sge sg[LEDGER_PIECES];
	struct tp_recv_wr wr = {.sg = sg};
	int r;

	if (!e)
		return;
	wr.wr_id = q->ledger.received;
	e->n_pieces = wr.n_sg = some_pieces(v, s, q, e->piece, sg);
	measure(e);
	v->p.may_alloc = false;
	r = tp_post_recv(q->qp, &wr);
	v->p.may_alloc = true;
	require(r || sound(q, e, TP_LOCAL_WRITE));
	require(r != -EACCES || !sound(q, e, TP_LOCAL_WRITE));
	q->ledger.received += !r;
}

/* --- polling --- */

static struct pair *owner(struct verbs *v, const struct tp_wc *wc)
{
	for (unsigned i = 0; i < PAIRS; i++) {
		if (v->pairs[i].qp == wc->qp && wc->qp)
			return &v->pairs[i];
	}
	abort();
}

bool verbs_poll(struct verbs *v, unsigned max)
{
	struct tp_wc wc[CQ_SIZE];
	unsigned n, m;

	v->p.may_alloc = false;
	n = tp_cq_poll(v->scq, wc, max);
	for (unsigned i = 0; i < n; i++)
		ledger_check_sent_wc(&owner(v, &wc[i])->ledger, &wc[i]);
	m = tp_cq_poll(v->rcq, wc, max);
	for (unsigned i = 0; i < m; i++)
		ledger_check_received_wc(&owner(v, &wc[i])->ledger, &wc[i]);
	v->p.may_alloc = true;
	return n || m;
}

static void poll_all(struct verbs *v)
{
	while (verbs_poll(v, CQ_SIZE))
		;
	for (unsigned i = 0; i < PAIRS; i++) {
		if (v->pairs[i].qp && v->pairs[i].qp->error)
			ledger_check_over(&v->pairs[i].ledger);
	}
}

/* --- regions --- */

static void open_area(struct verbs *v, struct script *s, unsigned i)
{
	static const unsigned rights[] = {
		TP_LOCAL_WRITE | TP_REMOTE_WRITE | TP_REMOTE_READ | TP_REMOTE_ATOMIC, TP_LOCAL_WRITE,
		TP_REMOTE_READ, TP_LOCAL_WRITE | TP_REMOTE_WRITE, TP_LOCAL_WRITE | TP_REMOTE_ATOMIC, 0};
	unsigned b = script_byte(s), access = b & 64 ? script_byte(s) & 15 : rights[i];

	area_open(&v->areas[i], v->pds[i >= 4], script_byte(s) * 4u, b % 8 == 7 ? 4 : 0, access, i + 1);
}

void verbs_region(struct verbs *v, struct script *s)
{
	unsigned i = script_below(s, AREAS);
	bool used[PAIRS];

	if (!v->areas[i].mr) {
		open_area(v, s, i);
		return;
	}
	for (unsigned k = 0; k < PAIRS; k++)
		used[k] = v->pairs[k].qp && !v->pairs[k].qp->error &&
			  ledger_uses(&v->pairs[k].ledger, &v->areas[i]);
	v->old_keys[v->n_old_keys++ % 8] = v->areas[i].key;
	area_close(&v->areas[i]);
	for (unsigned k = 0; k < PAIRS; k++)
		require(!used[k] || v->pairs[k].qp->error);
}

bool verbs_memory_is_right(const struct verbs *v)
{
	for (unsigned i = 0; i < AREAS; i++) {
		if (v->areas[i].mr && !area_is_right(&v->areas[i]))
			return false;
	}
	return true;
}

/* --- life --- */

void verbs_create(struct verbs *v, struct pair *q)
{
	struct tp_qp_attr attr = {.size = sizeof attr,
		.pd = v->pds[q - v->pairs == 2],
		.send_cq = v->scq,
		.recv_cq = v->rcq,
		.max_send_wr = QUEUE,
		.max_recv_wr = QUEUE,
		.max_inline = LEDGER_INLINE,
		.max_sge = LEDGER_PIECES,
		.max_reads = READS,
		.max_peer_reads = READS};
	struct tp_qp *qp;

	require(!tp_qp_create(v->p.tp, &attr, &qp));
	/* it has been busy for long */
	qp->rq.head = qp->rq.tail = qp->credit_told = qp->ssn_next = qp->peer_credit = v->base;
	qp->rsn_begun = qp->rsn_done = qp->in_next = qp->in_send = qp->in_done = v->base;
	qp->sq.head = qp->sq.tail = qp->sq_next = v->base;
	q->qp = qp;
	ledger_open(&q->ledger, qp, v->areas, AREAS, v->base);
	peer_init(&v->p, &q->peer, ++v->n_peers);
	q->peer.messages = true;
	q->peer.reads = READS - 1;
	q->peer.credit = (uint16_t)v->base;
	q->ledger.peer_reads = q->peer.reads;
	q->waits = false;
}

void verbs_open(struct verbs *v, struct script *s, bool wide)
{
	static const uint32_t bases[] = {0, 0xfffffffe, 0xfffd, 0x7ffffffe};
	static const uint8_t plain[] = {0, 200};
	const struct sd_addr any = {.family = 4, .port = PUPPET_PORT};
	unsigned b = script_byte(s);
	struct tp *t;

	memset(v, 0, sizeof *v);
	puppet_init(&v->p);
	v->p.cfg.max_conns = 16;
	v->p.cfg.window_packets = 32u << b % 4;
	v->p.cfg.crc = b & 8;
	v->p.cfg.cc = b & 16 ? &tp_cc_fixed : &tp_cc_swift;
	v->wide = wide;
	v->p.max_payload = wide ? 8972 : b & 32 ? WIRE_MIN_PAYLOAD : 576;
	v->base = bases[b >> 6];
	puppet_start(&v->p);
	t = v->p.tp;
	require(!tp_qp_listen(t, &any, 4, READS, NULL, &v->p.listener));
	require(!tp_pd_create(t, &v->pds[0]) && !tp_pd_create(t, &v->pds[1]));
	require(!tp_cq_create(t, CQ_SIZE, NULL, &v->scq) && !tp_cq_create(t, CQ_SIZE, NULL, &v->rcq));
	for (unsigned i = 0; i < AREAS; i++)
		open_area(v, &(struct script){plain, plain + sizeof plain}, i);
	for (unsigned i = 0; i < PAIRS; i++)
		verbs_create(v, &v->pairs[i]);
}

void verbs_close(struct verbs *v)
{
	poll_all(v);
	for (unsigned i = 0; i < PAIRS; i++) {
		if (v->pairs[i].qp)
			tp_qp_destroy(v->pairs[i].qp, v->p.now);
		v->pairs[i].qp = NULL;
	}
	for (unsigned i = 0; i < AREAS; i++) {
		if (!v->areas[i].mr)
			continue;
		require(!v->areas[i].mr->uses);
		area_close(&v->areas[i]);
	}
	require(!tp_cq_destroy(v->scq) && !tp_cq_destroy(v->rcq));
	require(!tp_pd_destroy(v->pds[0]) && !tp_pd_destroy(v->pds[1]));
	puppet_flush(&v->p);
	require(puppet_stop(&v->p));
}
