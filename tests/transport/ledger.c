/* SPDX-License-Identifier: BSD-3-Clause */
/* What a queue pair owes. */
#include "ledger.h"

#include <string.h>

static struct entry *send_at(struct ledger *l, uint64_t id)
{
	return &l->sends[id % LEDGER_SIZE];
}

static bool asks(const struct entry *e)
{
	return e->opcode == TP_READ || e->opcode == TP_COMPARE_SWAP || e->opcode == TP_FETCH_ADD;
}

static bool takes(const struct entry *e)
{
	return e->opcode == TP_SEND || e->opcode == TP_WRITE_IMM;
}

void ledger_open(struct ledger *l, struct tp_qp *qp, struct area *areas, unsigned n_areas, uint32_t base)
{
	*l = (struct ledger){.areas = areas,
		.n_areas = n_areas,
		.qp = qp,
		.base = base,
		.ssn = base,
		.rsn = base,
		.granted = base};
}

/* --- posting --- */

struct entry *ledger_next_send(struct ledger *l)
{
	struct entry *e = send_at(l, l->sent);

	if (l->sent - l->sent_done >= LEDGER_SIZE)
		return NULL;
	*e = (struct entry){.rsn_before = l->rsn};
	return e;
}

struct entry *ledger_next_receive(struct ledger *l)
{
	struct entry *e = &l->receives[l->received % LEDGER_SIZE];

	if (l->received - l->received_done >= LEDGER_SIZE)
		return NULL;
	*e = (struct entry){.opcode = TP_RECV, .number = l->base + (uint32_t)l->received};
	return e;
}

void ledger_posted_send(struct ledger *l)
{
	struct entry *e = send_at(l, l->sent++);

	if (takes(e))
		e->number = l->ssn++;
	else if (asks(e))
		e->number = l->rsn++;
}

static bool names(const struct entry *e, const struct area *a)
{
	for (unsigned i = 0; i < e->n_pieces; i++) {
		if (e->piece[i].area == a && !(e->flags & TP_INLINE))
			return true;
	}
	return false;
}

bool ledger_uses(const struct ledger *l, const struct area *a)
{
	uint32_t sends = l->qp->sq.tail - l->qp->sq.head, receives = l->qp->rq.tail - l->qp->rq.head;

	for (uint64_t id = l->sent - sends; id != l->sent; id++) {
		if (names(&l->sends[id % LEDGER_SIZE], a))
			return true;
	}
	for (uint64_t id = l->received - receives; id != l->received; id++) {
		if (names(&l->receives[id % LEDGER_SIZE], a))
			return true;
	}
	return false;
}

/* --- what leaves --- */

void ledger_credit(struct ledger *l, uint16_t credit)
{
	int16_t more = (int16_t)(credit - (uint16_t)l->granted);

	if (more > 0)
		l->granted += (uint16_t)more;
}

/* The posted request that f says is the one; its id in *id. */
static struct entry *find(struct ledger *l, bool (*f)(const struct entry *, const struct wire_message *),
	const struct wire_message *m, uint64_t *id)
{
	for (*id = l->sent_done; *id != l->sent; ++*id) {
		struct entry *e = send_at(l, *id);

		if (f(e, m))
			return e;
	}
	return NULL;
}

static bool is_message(const struct entry *e, const struct wire_message *m)
{
	return e->opcode == TP_SEND && e->number == m->number;
}

static bool is_write(const struct entry *e, const struct wire_message *m)
{
	return (e->opcode == TP_WRITE || e->opcode == TP_WRITE_IMM) && e->rkey == m->rkey;
}

static bool is_asking(const struct entry *e, const struct wire_message *m)
{
	return asks(e) && e->number == m->number;
}

/* Every request takes as much of it as it has, and the bytes are those of now. */
static void check_bytes(const struct entry *e, uint64_t pos, const struct wire_packet *w)
{
	require(pos <= e->len && w->payload_len <= e->len - pos);
	require(w->msg.last == (pos + w->payload_len == e->len));
	require(w->payload_len || !e->len);
	for (size_t i = 0; i < w->payload_len; i++) {
		uint32_t at = (uint32_t)(pos + i);

		require(w->payload[i] == (e->flags & TP_INLINE ? e->data[at] : *piece_at(e->piece, at)));
	}
}

static void check_asking(const struct ledger *l, const struct entry *e, const struct wire_message *m)
{
	require(m->op == (e->opcode == TP_READ		     ? WIRE_OP_READ_REQ
				 : e->opcode == TP_FETCH_ADD ? WIRE_OP_ADD
							     : WIRE_OP_SWAP));
	require(m->rkey == e->rkey && m->remote == e->remote);
	if (e->opcode == TP_READ)
		require(m->len == e->len);
	else
		require(m->operand == e->operand && m->compare == e->compare);
	require(m->number - l->qp->rsn_done < l->peer_reads || e->left); /* it may be repeated later */
}

/* That this has been asked for, may be told, and is what is there. */
static void check_answer(const struct ledger *l, const struct wire_packet *w)
{
	for (unsigned i = 0; i < l->n_asked; i++) {
		const struct asked *q = &l->asked[i];
		struct area *a;

		if (q->number != w->msg.number)
			continue;
		if (q->op != WIRE_OP_READ_REQ && w->payload_len == 8 && !w->msg.offset && w->msg.last)
			return;
		a = area_find(l->areas, l->n_areas, l->qp->pd, q->rkey, TP_REMOTE_READ, q->offset, q->len);
		if (q->op != WIRE_OP_READ_REQ || !a || w->msg.offset > q->len ||
			w->payload_len > q->len - w->msg.offset ||
			w->msg.last != (w->msg.offset + w->payload_len == q->len))
			continue;
		if (!w->payload_len || !memcmp(w->payload, a->at + q->offset + w->msg.offset, w->payload_len))
			return;
	}
	require(false);
}

void ledger_check_sent(struct ledger *l, const struct wire_packet *w)
{
	const struct wire_message *m = &w->msg;
	bool fresh = (int32_t)(w->psn - l->seen_psn) >= 0;
	struct entry *e;
	uint64_t id;

	if (m->op == WIRE_OP_READ_RESP) {
		check_answer(l, w);
	} else if (m->op == WIRE_OP_NONE) {
		require(w->flags & WIRE_F_FIN);
		require(!fresh || l->qp->sq_next == l->qp->sq.tail);
	} else {
		bool writes = m->op == WIRE_OP_WRITE || m->op == WIRE_OP_WRITE_IMM;

		e = find(l, m->op == WIRE_OP_SEND ? is_message : writes ? is_write : is_asking, m, &id);
		require(e);
		if (takes(e))
			require((int32_t)(e->number - l->granted) < 0);
		if (m->op == WIRE_OP_SEND)
			require(m->has_imm == (m->last && (e->flags & TP_HAS_IMM)));
		if (m->has_imm)
			require(m->imm == e->imm);
		if (writes)
			require((m->op == WIRE_OP_WRITE_IMM) == (m->last && e->opcode == TP_WRITE_IMM));
		if (asks(e))
			check_asking(l, e, m);
		else
			check_bytes(e, writes ? m->remote - e->remote : m->offset, w);
		if (fresh) {
			require(id >= l->leaving);
			if (e->flags & TP_FENCE)
				require((int32_t)(l->qp->rsn_done - e->rsn_before) >= 0);
			l->leaving = id;
			e->left = m->last || asks(e);
			e->psn = l->qp->conn->snd_una + (w->psn - (uint32_t)l->qp->conn->snd_una);
		}
	}
	if (fresh)
		l->seen_psn = w->psn + 1;
}

/* --- what is brought --- */

static struct entry *receive_of(struct ledger *l, uint32_t ssn)
{
	uint32_t waiting = l->qp->rq.tail - l->qp->rq.head, ahead = ssn - l->qp->rq.head;

	return ahead < waiting ? &l->receives[(l->received - waiting + ahead) % LEDGER_SIZE] : NULL;
}

/* The request that waits for this answer. */
static struct entry *waiting_for(struct ledger *l, uint32_t rsn)
{
	const struct wire_message m = {.number = rsn};
	uint64_t id;

	if (rsn - l->qp->rsn_done >= l->qp->rsn_begun - l->qp->rsn_done)
		return NULL;
	return find(l, is_asking, &m, &id);
}

bool ledger_allows(struct ledger *l, const struct wire_message *m, size_t len, struct landing *to)
{
	struct entry *e = NULL;

	*to = (struct landing){0};
	switch (m->op) {
	case WIRE_OP_SEND:
		to->entry = e = receive_of(l, m->number);
		break;
	case WIRE_OP_READ_RESP:
		to->entry = e = waiting_for(l, m->number);
		if (e && e->opcode != TP_READ && len != 8)
			return false;
		break;
	case WIRE_OP_WRITE_IMM:
		if (!receive_of(l, m->number))
			return false;
		/* fall through */
	case WIRE_OP_WRITE:
		to->area =
			area_find(l->areas, l->n_areas, l->qp->pd, m->rkey, TP_REMOTE_WRITE, m->remote, len);
		return to->area || !len;
	default:
		return true; /* it has no bytes */
	}
	return e && m->offset <= e->len && len <= e->len - m->offset;
}

static void put(struct entry *e, uint32_t offset, const uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		uint32_t at = offset + (uint32_t)i;

		*piece_ought(e->piece, at) = data[i];
		e->brought[at / 8] |= (uint8_t)(1 << at % 8);
	}
}

void ledger_bring(const struct landing *to, const struct wire_message *m, const uint8_t *data, size_t len)
{
	if (to->area) {
		area_expect(to->area, m->remote, data, len);
	} else if (to->entry && m->op == WIRE_OP_READ_RESP && to->entry->opcode != TP_READ) {
		uint64_t was = be64_get(data); /* it is told in the host's order */

		put(to->entry, 0, (const uint8_t *)&was, 8);
	} else if (to->entry) {
		put(to->entry, m->offset, data, len);
	}
}

void ledger_execute(struct ledger *l, const struct wire_message *m)
{
	struct area *a = area_find(l->areas, l->n_areas, l->qp->pd, m->rkey, TP_REMOTE_ATOMIC, m->remote, 8);
	uint64_t value;

	require(a && (uintptr_t)(a->at + m->remote) % 8 == 0);
	memcpy(&value, a->ought + (a->at - a->block) + m->remote, 8);
	if (m->op == WIRE_OP_ADD)
		value += m->operand;
	else if (value == m->compare)
		value = m->operand;
	area_expect(a, m->remote, &value, 8);
}

void ledger_trust_atomics(struct ledger *l, uint32_t from_psn, uint32_t to_psn)
{
	for (unsigned i = 0; i < l->n_asked; i++) {
		const struct asked *q = &l->asked[i];
		struct area *a =
			area_find(l->areas, l->n_areas, l->qp->pd, q->rkey, TP_REMOTE_ATOMIC, q->offset, 8);

		if (a && q->op != WIRE_OP_READ_REQ && q->psn - from_psn < to_psn - from_psn)
			area_expect(a, q->offset, a->at + q->offset, 8);
	}
}

/* --- completions --- */

static void all_brought(const struct entry *e, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++)
		require(e->brought[i / 8] >> i % 8 & 1);
}

void ledger_check_sent_wc(struct ledger *l, const struct tp_wc *wc)
{
	const struct entry *e;

	require(wc->wr_id >= l->sent_done && wc->wr_id < l->sent);
	for (; l->sent_done != wc->wr_id; l->sent_done++) /* only these complete without a word */
		require(!(send_at(l, l->sent_done)->flags & TP_SIGNALED));
	e = send_at(l, l->sent_done++);
	if (wc->status != TP_WC_SUCCESS) {
		require(tp_qp_error(l->qp));
		return;
	}
	require(e->left && (l->qp->nak || l->qp->conn->snd_una > e->psn));
	require(wc->opcode == e->opcode && wc->len == e->len);
	if (asks(e))
		all_brought(e, e->len);
}

void ledger_check_received_wc(struct ledger *l, const struct tp_wc *wc)
{
	const struct entry *e = &l->receives[l->received_done % LEDGER_SIZE];

	require(wc->wr_id == l->received_done && l->received_done < l->received);
	l->received_done++;
	if (wc->status != TP_WC_SUCCESS)
		return;
	require(wc->opcode == TP_RECV || wc->opcode == TP_RECV_WRITE);
	if (wc->opcode == TP_RECV) {
		require(wc->len <= e->len);
		all_brought(e, wc->len);
	}
}

void ledger_check_over(const struct ledger *l)
{
	require(l->received_done == l->received);
	for (uint64_t id = l->sent_done; id != l->sent; id++)
		require(!(l->sends[id % LEDGER_SIZE].flags & TP_SIGNALED));
}
