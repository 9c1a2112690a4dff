/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * warm: fetches what connections have in memory before it is needed. With thousands of them each packet's is
 * in no cache, some twenty lines that lie in several places; one after the other they take longer than all
 * else that a packet needs. The first step is what the connection itself is; the second, when that is there,
 * what it points to.
 */
#include "transport/qp.h"

static void fetch(const void *at, size_t from, size_t to)
{
	for (size_t i = from; i < to; i += 64)
		__builtin_prefetch((const uint8_t *)at + i, 1);
}

static void warm_conn(const struct tp_conn *c)
{
	fetch(c, 0, offsetof(struct tp_conn, cc_state));
	fetch(c, offsetof(struct tp_conn, timer), offsetof(struct tp_conn, timer) + 64);
	fetch(c, offsetof(struct tp_conn, qp), offsetof(struct tp_conn, qp) + 1);
	fetch(c, offsetof(struct tp_conn, path), sizeof *c);
}

static void warm_rest(const struct tp_conn *c)
{
	const struct tp_qp *qp = c->qp;

	if (c->sent) {
		__builtin_prefetch(&c->sent[c->snd_una & c->sent_mask]);
		__builtin_prefetch(&c->sent[c->snd_nxt & c->sent_mask], 1);
	}
	if (qp)
		fetch(qp, 0, sizeof *qp);
}

void tp_warm_output(const struct tp *t, const struct tp_conn *c)
{
	const struct list *next = c->out.next;

	if (next == &t->out)
		return;
	warm_rest(container_of(next, struct tp_conn, out));
	if (next->next != &t->out)
		warm_conn(container_of(next->next, struct tp_conn, out));
}

void tp_expect(const struct tp *t, const uint8_t *pkt, size_t len, bool next)
{
	uint32_t index;
	const struct tp_conn *c;

	if (t->conn_count <= TP_WARM || len < WIRE_BASE_LEN || tp_wire_type(pkt) > WIRE_ACK)
		return;
	index = (uint32_t)tp_wire_cid(pkt) & ((1u << TP_CID_BITS) - 1);
	c = index < t->max_conns ? t->slots[index] : NULL;
	if (c && next)
		warm_rest(c);
	else if (c)
		warm_conn(c);
}
