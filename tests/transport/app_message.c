/* SPDX-License-Identifier: BSD-3-Clause */
/* Programs that post what they know and poll for what they expect. */
#include "app_message.h"

#include <errno.h>
#include <string.h>

#define FIRST_PORT 2000u
#define READS	   3
#define SLOTS	   8u

/* What the memory of an end is for. */
#define AT_SOURCE(i)  ((i) % MESSAGE_OPS * MESSAGE_SIZE)
#define AT_LANDING(i) (MESSAGE_OPS * MESSAGE_SIZE + (i) % MESSAGE_OPS * MESSAGE_SIZE)
#define AT_RECEIVE(i) (2 * MESSAGE_OPS * MESSAGE_SIZE + (i) % MESSAGE_OPS * MESSAGE_SIZE)
#define AT_SLOT(i)    (3 * MESSAGE_OPS * MESSAGE_SIZE + (i) % SLOTS * MESSAGE_SIZE)
#define AT_CONST      (3 * MESSAGE_OPS * MESSAGE_SIZE + SLOTS * MESSAGE_SIZE)
#define AT_COUNTER    (AT_CONST + MESSAGE_SIZE)
#define MEMORY	      (AT_COUNTER + 8)

static uint8_t byte_of(uint64_t seed, uint32_t i)
{
	return (uint8_t)(seed * 37 + i * 11 + (i >> 8) * 5);
}

static void fill(uint8_t *at, uint64_t seed, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++)
		at[i] = byte_of(seed, i);
}

static void check_filled(const uint8_t *at, uint64_t seed, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++)
		require(at[i] == byte_of(seed, i));
}

static void open_end(struct message_end *e, struct puppet *host, uint64_t seed)
{
	struct tp_qp_attr attr = {.size = sizeof attr,
		.max_send_wr = MESSAGE_OPS,
		.max_recv_wr = MESSAGE_OPS,
		.max_inline = 64,
		.max_sge = 2,
		.max_reads = READS,
		.max_peer_reads = READS,
		.signal_all = true};

	*e = (struct message_end){.host = host};
	e->mem = calloc(1, MEMORY); /* the sanitizer knows where it ends */
	require(e->mem);
	fill(e->mem + AT_CONST, seed, MESSAGE_SIZE);
	require(!tp_pd_create(host->tp, &e->pd));
	require(!tp_mr_register(e->pd, e->mem, MEMORY,
		TP_LOCAL_WRITE | TP_REMOTE_WRITE | TP_REMOTE_READ | TP_REMOTE_ATOMIC, &e->mr));
	require(!tp_cq_create(host->tp, MESSAGE_OPS, NULL, &e->scq));
	require(!tp_cq_create(host->tp, MESSAGE_OPS, NULL, &e->rcq));
	attr.pd = e->pd;
	attr.send_cq = e->scq;
	attr.recv_cq = e->rcq;
	require(!tp_qp_create(host->tp, &attr, &e->qp));
}

void message_open(struct channel *ch, unsigned index, struct puppet *a, struct puppet *b)
{
	struct sd_addr any = {.family = b->local.family, .port = (uint16_t)(FIRST_PORT + index)};

	ch->index = index;
	open_end(&ch->end[0], a, 2 * index);
	open_end(&ch->end[1], b, 2 * index + 1);
	require(!tp_qp_listen(b->tp, &any, 4, READS, NULL, &ch->listener));
}

void message_connect(struct channel *ch)
{
	struct puppet *p = ch->end[0].host;
	struct tp_path path = {.local = p->local, .peer = p->peer, .max_payload = p->max_payload};

	path.local.port = path.peer.port = (uint16_t)(FIRST_PORT + ch->index);
	require(!tp_qp_connect(ch->end[0].qp, p->now, &path));
}

void message_accept(struct channel *ch)
{
	struct message_end *e = &ch->end[1];

	if (!e->qp->conn && !e->qp->error && tp_acceptable(ch->listener))
		require(!tp_qp_accept(e->qp, ch->listener));
}

/* --- posting --- */

static void describe(const struct channel *ch, unsigned end, struct op *o, struct tp_send_wr *wr,
	struct tp_sge *sg, struct script *s)
{
	const struct message_end *e = &ch->end[end], *far = &ch->end[!end];
	uint32_t cut = script_byte(s) * 3u;
	uint64_t at;

	o->seed = e->posted * 7 + end;
	o->imm = wr->imm = e->posted * 3;
	wr->wr_id = e->posted;
	wr->opcode = o->opcode;
	wr->rkey = tp_mr_rkey(far->mr);
	at = o->opcode >= TP_READ ? AT_LANDING(e->posted) : AT_SOURCE(e->posted);
	if (o->opcode == TP_FETCH_ADD) {
		o->len = 8;
		o->expect = e->adds;
		wr->operand = 1;
		wr->remote_offset = AT_COUNTER;
	} else if (o->opcode == TP_READ) {
		wr->remote_offset = AT_CONST;
	} else {
		fill(e->mem + at, o->seed, o->len);
		wr->remote_offset = AT_SLOT(e->writes);
	}
	if (o->opcode < TP_READ && o->len <= 64 && cut & 1) {
		wr->flags |= TP_INLINE;
		wr->data = e->mem + at;
		wr->len = o->len;
		return;
	}
	cut = cut < o->len ? cut : o->len;
	sg[0] = (struct tp_sge){e->mr, at, cut};
	sg[1] = (struct tp_sge){e->mr, at + cut, o->len - cut};
	wr->n_sg = 2;
}

static void post(struct channel *ch, unsigned end, struct script *s)
{
	static const enum tp_opcode kinds[] = {TP_SEND, TP_SEND, TP_WRITE_IMM, TP_READ, TP_FETCH_ADD};
	struct message_end *e = &ch->end[end];
	struct tp_sge sg[2];
	struct tp_send_wr wr = {.sg = sg};
	struct op *o = &e->ops[e->posted % MESSAGE_OPS];
	unsigned b = script_byte(s);
	int r;

	if (e->posted - e->done >= MESSAGE_OPS)
		return;
	*o = (struct op){.opcode = kinds[b % 5], .len = script_byte(s) * 3u};
	if (o->opcode == TP_WRITE_IMM && e->writes - e->writes_seen >= SLOTS)
		return;
	wr.flags = (b & 0x80 ? TP_FENCE : 0) | (b & 0x40 && o->opcode == TP_SEND ? TP_HAS_IMM : 0) |
		   (b & 0x20 ? TP_SOLICITED : 0);
	describe(ch, end, o, &wr, sg, s);
	e->host->may_alloc = false;
	r = tp_post_send(e->qp, &wr);
	e->host->may_alloc = true;
	require(!r || (r == -EPIPE && e->asked) || (e->qp->error && r == e->qp->error));
	if (r)
		return;
	e->posted++;
	if (o->opcode <= TP_WRITE_IMM) {
		o->imm = o->opcode == TP_WRITE_IMM || wr.flags & TP_HAS_IMM ? o->imm : 0;
		e->messages[e->told++ % 64] = *o;
	}
	e->writes += o->opcode == TP_WRITE_IMM;
	e->adds += o->opcode == TP_FETCH_ADD;
}

static bool post_receive(struct message_end *e)
{
	struct tp_sge sg = {e->mr, AT_RECEIVE(e->receives), MESSAGE_SIZE};

	if (e->qp->error || e->receives - e->heard >= MESSAGE_OPS)
		return false;
	require(!tp_post_recv(e->qp, &(struct tp_recv_wr){e->receives, &sg, 1}));
	e->receives++;
	return true;
}

/* --- polling --- */

static void sent(struct channel *ch, unsigned end, const struct tp_wc *wc)
{
	struct message_end *e = &ch->end[end];
	const struct op *o = &e->ops[e->done % MESSAGE_OPS];

	require(wc->wr_id == e->done && e->done < e->posted && wc->qp == e->qp);
	e->done++;
	if (wc->status != TP_WC_SUCCESS) {
		require(e->qp->error);
		return;
	}
	require(wc->opcode == o->opcode && wc->len == o->len);
	if (o->opcode == TP_READ)
		check_filled(e->mem + AT_LANDING(wc->wr_id), 2 * ch->index + !end, o->len);
	else if (o->opcode == TP_FETCH_ADD)
		require(!memcmp(e->mem + AT_LANDING(wc->wr_id), &o->expect, 8));
}

static void received(struct channel *ch, unsigned end, const struct tp_wc *wc)
{
	struct message_end *e = &ch->end[end], *far = &ch->end[!end];
	const struct op *o = &far->messages[e->heard % 64];

	require(wc->wr_id == e->heard && e->heard < e->receives && wc->qp == e->qp);
	if (wc->status != TP_WC_SUCCESS) {
		require(e->qp->error);
		e->heard++;
		return;
	}
	require(e->heard < far->told && wc->len == o->len);
	require(wc->opcode == (o->opcode == TP_SEND ? TP_RECV : TP_RECV_WRITE));
	require(wc->has_imm ? wc->imm == o->imm : !o->imm);
	if (o->opcode == TP_SEND)
		check_filled(e->mem + AT_RECEIVE(wc->wr_id), o->seed, o->len);
	else
		check_filled(e->mem + AT_SLOT(far->writes_seen++), o->seed, o->len);
	e->heard++;
}

static bool poll_end(struct channel *ch, unsigned end)
{
	struct message_end *e = &ch->end[end];
	struct tp_wc wc;
	bool moved = false;

	for (; tp_cq_poll(e->scq, &wc, 1); moved = true)
		sent(ch, end, &wc);
	for (; tp_cq_poll(e->rcq, &wc, 1); moved = true)
		received(ch, end, &wc);
	e->failed = e->qp->error != 0;
	return moved;
}

void message_step(struct channel *ch, unsigned end, struct script *script)
{
	struct message_end *e = &ch->end[end];

	switch (script_below(script, 16)) {
	case 0 ... 7:
		post(ch, end, script);
		break;
	case 8 ... 11:
		post_receive(e);
		break;
	case 12 ... 14:
		poll_end(ch, end);
		break;
	default:
		if (script_byte(script) >= 0xe0 && e->qp->conn) {
			tp_qp_disconnect(e->qp);
			e->asked = true;
		}
		break;
	}
}

bool message_drain(struct channel *ch)
{
	bool moved = false;

	for (unsigned i = 0; i < 2; i++) {
		struct message_end *e = &ch->end[i];

		moved |= poll_end(ch, i);
		while (post_receive(e))
			moved = true;
		if (!e->asked && e->qp->conn && e->done == e->posted) {
			tp_qp_disconnect(e->qp);
			e->asked = moved = true;
		}
	}
	return moved;
}

static bool end_over(const struct message_end *e)
{
	const struct tp_conn *c = e->qp->conn;

	return e->failed || (c && c->rcv_fin && c->fin_acked && !c->ack_now && e->done == e->posted);
}

bool message_over(const struct channel *ch)
{
	if (!ch->end[1].qp->conn)
		return ch->end[0].failed;
	return end_over(&ch->end[0]) && end_over(&ch->end[1]);
}

void message_check(const struct channel *ch, bool may_fail)
{
	for (unsigned i = 0; i < 2; i++) {
		const struct message_end *e = &ch->end[i], *far = &ch->end[!i];

		require(e->done == e->posted || (!e->qp->conn && !e->failed));
		require(!e->failed || (may_fail && e->heard == e->receives));
		if (!e->failed && !far->failed)
			require(e->heard == far->told);
	}
}

static void close_end(struct message_end *e)
{
	tp_qp_destroy(e->qp, e->host->now);
	require(!e->mr->uses);
	tp_mr_deregister(e->mr);
	free(e->mem);
	require(!tp_cq_destroy(e->scq) && !tp_cq_destroy(e->rcq) && !tp_pd_destroy(e->pd));
}

void message_close(struct channel *ch)
{
	close_end(&ch->end[0]);
	close_end(&ch->end[1]);
	tp_listener_close(ch->listener);
}
