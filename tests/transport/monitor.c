/* SPDX-License-Identifier: BSD-3-Clause */
/* One record for each connection id: what its owner has sent, and what it has allowed its peer to send. */
#include "monitor.h"

#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "transport/wire.h"

#define SLOTS 256 /* to begin with */

struct sent {
	uint64_t off;
	uint32_t crc;
	uint16_t len;
	bool fin;
};

struct end {
	uint64_t cid;
	struct end *peer;
	bool certain; /* the peer is that one and no other */
	bool crc;
	uint32_t isn;
	uint32_t count, cap; /* packets sent, each counted once */
	struct sent *sent;
	uint64_t bytes;
	bool fin;
	uint64_t limit;		/* what its peer may send: bytes, */
	uint32_t window, acked; /* and packets beyond those acknowledged */
	uint16_t max_payload;
};

struct monitor {
	struct end **slots;
	uint32_t size, used; /* size: a power of two */
};

struct monitor *monitor_new(void)
{
	struct monitor *m = calloc(1, sizeof *m);

	if (!m || !(m->slots = calloc(SLOTS, sizeof *m->slots)))
		abort();
	m->size = SLOTS;
	return m;
}

void monitor_free(struct monitor *m)
{
	if (!m)
		return;
	for (uint32_t i = 0; i < m->size; i++) {
		if (m->slots[i])
			free(m->slots[i]->sent);
		free(m->slots[i]);
	}
	free(m->slots);
	free(m);
}

static struct end **slot(struct monitor *m, uint64_t cid)
{
	uint32_t i = (uint32_t)(cid >> 30) & (m->size - 1);

	while (m->slots[i] && m->slots[i]->cid != cid)
		i = (i + 1) & (m->size - 1);
	return &m->slots[i];
}

static void grow(struct monitor *m)
{
	struct monitor bigger = {.size = 2 * m->size, .used = m->used};

	bigger.slots = calloc(bigger.size, sizeof *bigger.slots);
	if (!bigger.slots)
		abort();
	for (uint32_t i = 0; i < m->size; i++)
		if (m->slots[i])
			*slot(&bigger, m->slots[i]->cid) = m->slots[i];
	free(m->slots);
	*m = bigger;
}

static struct end *learn(struct monitor *m, const struct wire_init *i)
{
	struct end *e = *slot(m, i->src_cid);

	if (e)
		return e;
	if (2 * ++m->used > m->size)
		grow(m);
	e = calloc(1, sizeof *e);
	if (!e)
		abort();
	*slot(m, i->src_cid) = e;
	e->cid = i->src_cid;
	e->isn = i->isn;
	e->limit = i->window;
	e->window = i->window_packets;
	e->max_payload = i->max_payload;
	e->crc = i->features & WIRE_FEAT_CRC;
	return e;
}

static const char *see_init(struct monitor *m, const uint8_t *pkt, size_t len)
{
	struct wire_init i;
	struct end *e, *p;

	if (!tp_wire_get_init(pkt, len, &i))
		return "a malformed INIT or INIT_ACK";
	e = learn(m, &i);
	if (e->isn != i.isn)
		return "an INIT repeated with another packet number";
	if (tp_wire_type(pkt) == WIRE_INIT)
		return NULL;
	p = *slot(m, i.dst_cid);
	if (!p)
		return "an INIT_ACK that nobody asked for";
	e->peer = p;
	if (!p->certain)
		p->peer = e;
	return NULL;
}

/* What tells two fragments of messages apart, and whether the bytes are those of the first time: what a READ
 * finds may have changed. */
static void describe_message(const struct wire_message *m, struct sent *now)
{
	uint64_t fields[] = {m->op, m->last, m->has_imm, m->has_imm ? m->imm : 0, m->number, m->offset,
		m->rkey, m->remote, m->len, m->operand, m->compare};
	const unsigned used = m->op == WIRE_OP_SEND || m->op == WIRE_OP_READ_RESP ? 6
			      : m->op == WIRE_OP_READ_REQ			  ? 9
			      : m->op == WIRE_OP_SWAP || m->op == WIRE_OP_ADD	  ? 11
										  : 8;

	if (m->op == WIRE_OP_WRITE)
		fields[4] = 0;
	if (m->op != WIRE_OP_SEND && m->op != WIRE_OP_READ_RESP)
		fields[5] = 0;
	now->off = m->op == WIRE_OP_NONE ? 0 : sd_crc32c(0, (uint8_t *)fields, used * sizeof *fields);
	if (m->op == WIRE_OP_READ_RESP)
		now->crc = 0;
}

/* Its bytes are checked where they are delivered. */
static const char *see_piece(const struct sent *whole, const struct wire_packet *p)
{
	size_t end = p->piece_off + p->payload_len;

	if (end > whole->len || p->more != (end < whole->len))
		return "a piece that does not fit its packet";
	if (p->msg.op == WIRE_OP_STREAM && p->offset != whole->off + p->piece_off)
		return "a piece from somewhere else";
	if (!p->more && whole->fin != !!(p->flags & WIRE_F_FIN))
		return "a last piece that does not end what its packet ended";
	return p->flags & WIRE_F_RETX ? NULL : "a retransmission that does not say so";
}

static const char *see_data(struct end *from, struct end *to, const struct wire_packet *p)
{
	uint32_t index = p->psn - from->isn;
	struct sent now = {.off = p->offset, .len = (uint16_t)p->payload_len, .fin = p->flags & WIRE_F_FIN};
	bool stream = p->msg.op == WIRE_OP_STREAM;
	const struct sent *then;

	now.crc = sd_crc32c(0, p->payload, p->payload_len);
	if (index >= to->acked + to->window)
		return "more packets in flight than the peer remembers";
	if (!stream)
		describe_message(&p->msg, &now);
	else if (p->offset + p->payload_len > to->limit)
		return "bytes beyond the peer's window";
	if (index > from->count)
		return "a packet number was left out";
	if (index == from->count) {
		if (p->piece)
			return "a first transmission in pieces";
		if ((from->fin && p->msg.op != WIRE_OP_READ_RESP) || (stream && p->offset != from->bytes))
			return "new bytes that do not follow the earlier ones";
		if (p->flags & WIRE_F_RETX)
			return "a first transmission that says it is not";
		if (from->count == from->cap) {
			from->cap = from->cap ? 2 * from->cap : 4;
			from->sent = realloc(from->sent, from->cap * sizeof *from->sent);
			if (!from->sent)
				abort();
		}
		from->sent[from->count++] = now;
		from->bytes += now.len;
		from->fin |= now.fin;
		return NULL;
	}
	then = &from->sent[index];
	if (p->piece)
		return see_piece(then, p);
	if (then->off != now.off || then->len != now.len || then->crc != now.crc || then->fin != now.fin)
		return "a retransmission that differs";
	return p->flags & WIRE_F_RETX ? NULL : "a retransmission that does not say so";
}

static const char *see_ack(struct end *from, struct end *to, const struct wire_packet *p)
{
	uint32_t ack = p->ack - to->isn, room;

	if (ack > to->count)
		return "an acknowledgement of what was not sent";
	if (ack < from->acked)
		return "an acknowledgement that goes back";
	from->acked = ack;
	room = to->count > ack ? to->count - ack - 1 : 0;
	for (unsigned k = 0; k < p->sack_words; k++) {
		uint64_t word = tp_wire_get_sack(p, k), known = room > 64 * k ? room - 64 * k : 0;

		if (known < 64 && word >> known)
			return "a selective acknowledgement of what was not sent";
	}
	if (!p->has_window)
		return NULL;
	if (p->window < from->limit)
		return "a window that shrinks";
	from->limit = p->window;
	return NULL;
}

const char *monitor_packet(struct monitor *m, const uint8_t *pkt, size_t len)
{
	struct wire_packet p;
	struct end *from, *to;
	const char *wrong;

	switch (tp_wire_type(pkt)) {
	case WIRE_INIT:
	case WIRE_INIT_ACK:
		return tp_wire_crc_ok(pkt, len) ? see_init(m, pkt, len)
						: "a control packet without its trailer";
	case WIRE_DATA:
	case WIRE_ACK:
		break;
	default:
		return tp_wire_crc_ok(pkt, len) ? NULL : "a control packet without its trailer";
	}
	to = *slot(m, tp_wire_cid(pkt));
	if (!to || !to->peer)
		return "a packet for a connection that nobody has set up";
	from = to->peer;
	if (!from->certain && from->peer == to)
		from->certain = to->certain = true;
	if (from->crc || to->crc) {
		if (!tp_wire_crc_ok(pkt, len))
			return "a packet without its trailer";
		if (len > to->max_payload)
			return "a packet larger than the peer takes";
		len -= WIRE_CRC_LEN;
	}
	if (!tp_wire_decode(pkt, len, &p))
		return "a malformed packet";
	wrong = p.type == WIRE_DATA ? see_data(from, to, &p) : NULL;
	if (!wrong && p.type == WIRE_ACK && p.psn != from->isn + from->count)
		wrong = "an ACK with a packet number that is not the next";
	return wrong ? wrong : see_ack(from, to, &p);
}
