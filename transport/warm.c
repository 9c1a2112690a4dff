/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * warm: fetches what connections have in memory before it is needed. With thousands of them each packet's is
 * in no cache, some twenty lines that lie in several places; one after the other they take longer than all
 * else that a packet needs. Each step needs what the one before it has fetched: the connection itself, what
 * it points to, and the requests of its queue pair.
 */
#include "transport/qp.h"

static void fetch(const void *at, size_t from, size_t to)
{
	for (size_t i = from; i < to; i += 64)
		__builtin_prefetch((const uint8_t *)at + i, 1);
}

static void warm_conn(const struct tp_conn *c)
{
	fetch(c, 0, offsetof(struct tp_conn, rcv_off));
	fetch(c, offsetof(struct tp_conn, snd_sent), offsetof(struct tp_conn, min_rtt_new));
	__builtin_prefetch(&c->path.max_payload); /* and the template of its packets' headers */
}

static void warm_parts(const struct tp_conn *c)
{
	if (c->sent) {
		__builtin_prefetch(&c->sent[c->snd_una & c->sent_mask]);
		__builtin_prefetch(&c->sent[c->snd_nxt & c->sent_mask], 1);
	}
	if (c->qp)
		fetch(c->qp, 0, sizeof *c->qp);
}

static void warm_requests(const struct tp_conn *c)
{
	const struct tp_qp *qp = c->qp;

	if (!qp)
		return;
	fetch(swqe_at(qp, qp->sq.head), 0, sizeof(struct tp_swqe) + sizeof(struct tp_sge));
	__builtin_prefetch(&qp->sources[c->snd_nxt & qp->sources_mask], 1);
}

static void warm(const struct tp_conn *c, unsigned step)
{
	static void (*const steps[TP_WARM_STEPS])(const struct tp_conn *c) = {
		warm_conn, warm_parts, warm_requests};

	steps[step](c);
}

bool tp_is_crowded(const struct tp *t)
{
	return tp_crowded(t);
}

void tp_warm_output(const struct tp *t, const struct tp_conn *c)
{
	const struct list *at = &c->out;

	for (unsigned step = TP_WARM_STEPS; step-- && (at = at->next) != &t->out;)
		warm(container_of(at, struct tp_conn, out), step);
}

void tp_warm_timer(const struct tp *t)
{
	const struct tp_timer *next = tp_wheel_peek(&t->wheel);

	if (next)
		warm_conn(container_of(next, struct tp_conn, timer));
}

void tp_expect(const struct tp *t, const uint8_t *pkt, size_t len, unsigned step)
{
	uint32_t index;

	if (len < WIRE_BASE_LEN || tp_wire_type(pkt) > WIRE_ACK)
		return;
	index = (uint32_t)tp_wire_cid(pkt) & ((1u << TP_CID_BITS) - 1);
	if (index < t->max_conns && t->slots[index])
		warm(t->slots[index], step);
}

void tp_expect_post(const struct tp_qp *qp, unsigned step)
{
	if (!step) {
		fetch(qp, 0, sizeof *qp);
		return;
	}
	fetch(swqe_at(qp, qp->sq.tail), 0, sizeof(struct tp_swqe) + sizeof(struct tp_sge));
	if (qp->conn)
		warm_conn(qp->conn);
}
