/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * receive: a DATA packet's bytes go straight to their place in the ring, in whatever order packets come; what
 * the reader may see ends where the first missing packet begins. A packet number says how packets follow each
 * other, an offset where bytes belong; a peer whose offsets contradict its packet numbers, or leave the
 * window, has broken the protocol and loses this connection. Bytes below the contiguous edge are never
 * written again.
 */
#include <errno.h>

#include "transport/qp.h"

static bool violation(struct tp_conn *c)
{
	c->tp->stats.rx_out_of_window++;
	tp_conn_abort(c, WIRE_RESET_PROTOCOL, -ECONNRESET);
	return false;
}

static void place(struct tp_conn *c, const struct wire_packet *p)
{
	if (c->rcv.data && !c->read_shut)
		tp_ring_put(&c->rcv, p->offset, p->payload, p->payload_len);
}

/* What is too much for the reader goes into the ring. */
static void land(struct tp_conn *c, const struct wire_packet *p)
{
	struct tp_landing *l = &c->landing;
	size_t n = l->len - l->done;

	if (n > p->payload_len)
		n = p->payload_len;
	memcpy(l->data + l->done, p->payload, n);
	if (n < p->payload_len)
		tp_ring_put(&c->rcv, p->offset + n, p->payload + n, p->payload_len - n);
	l->done += (uint32_t)n;
	c->rcv_read += n;
	c->lands = l->done < l->len;
}

/* Has its reader nothing to do yet? The ring is made larger by who reads. */
static bool lands_on(const struct tp_conn *c)
{
	return c->landing.done < c->landing.low && !c->rcv_fin && !c->limited;
}

static void advance(struct tp_conn *c, size_t len, bool fin, bool whole, unsigned *events)
{
	c->rcv_nxt += whole;
	c->rcv_off += len;
	if (c->read_shut)
		c->rcv_read = c->rcv_off;
	if (fin)
		c->rcv_fin = true;
	*events |= TP_EV_READABLE;
}

bool tp_early_known(struct tp_conn *c, uint64_t psn)
{
	bool known = c->reorder && tp_bits_test(&c->reorder->have, psn);

	c->tp->stats.rx_duplicate += known;
	return known;
}

struct tp_early *tp_early_add(struct tp_conn *c, uint64_t psn)
{
	if (!c->reorder) {
		c->reorder = tp_pool_reorder(c->tp);
		if (!c->reorder)
			return NULL;
		c->rcv_high = psn;
	}
	tp_bits_set(&c->reorder->have, psn);
	if (psn >= c->rcv_high)
		c->rcv_high = psn + 1;
	return &c->reorder->early[psn % TP_BITS];
}

void tp_early_drained(struct tp_conn *c)
{
	struct tp_reorder *r = c->reorder;

	if (c->rcv_nxt < c->rcv_high)
		return;
	tp_pool_reorder_put(c->tp, r);
	c->reorder = NULL;
}

/* Packets that came early and whose turn it is now. */
static bool drain_early(struct tp_conn *c, unsigned *events)
{
	struct tp_reorder *r = c->reorder;

	while (c->rcv_nxt < c->rcv_high && tp_bits_test(&r->have, c->rcv_nxt)) {
		const struct tp_early *e = &r->early[c->rcv_nxt % TP_BITS];

		if (e->off != (uint32_t)c->rcv_off || c->rcv_fin)
			return violation(c);
		tp_bits_clear(&r->have, c->rcv_nxt);
		advance(c, e->len, e->flags & EARLY_FIN, true, events);
	}
	tp_early_drained(c);
	return true;
}

/* ahead: how many packets before it are missing. */
static bool receive_early(struct tp_conn *c, const struct wire_packet *p, uint32_t ahead)
{
	uint64_t psn = c->rcv_nxt + ahead;
	struct tp_early *e;

	if (ahead >= c->rcv_window) {
		c->tp->stats.rx_out_of_window++;
		return true;
	}
	if (p->offset < c->rcv_off + ahead) /* every packet but the last carries a byte at least */
		return violation(c);
	if (tp_early_known(c, psn))
		return true;
	e = tp_early_add(c, psn);
	if (!e)
		return true; /* as if it were lost */
	e->off = (uint32_t)p->offset;
	e->len = (uint16_t)p->payload_len;
	e->flags = p->flags & WIRE_F_FIN ? EARLY_FIN : 0;
	place(c, p);
	c->lands = false; /* these bytes come next, and they are in the ring */
	return true;
}

/* Streams and messages do not mix. */
static bool receive_message(struct tp_conn *c, const struct wire_packet *p, uint32_t ahead, unsigned *events)
{
	if (c->messages && p->msg.op != WIRE_OP_STREAM)
		return tp_responder_input(c, p, ahead, events);
	return violation(c);
}

static bool receive(struct tp_conn *c, const struct wire_packet *p, int32_t ahead, unsigned *events)
{
	bool fin = p->flags & WIRE_F_FIN;

	if (__builtin_expect(c->messages || p->msg.op != WIRE_OP_STREAM, 0))
		return receive_message(c, p, (uint32_t)ahead, events);
	if (c->rcv_fin || p->offset > c->rcv_limit || p->payload_len > c->rcv_limit - p->offset)
		return violation(c);
	if (__builtin_expect(c->reset_on_data, 0) && p->payload_len) {
		tp_conn_abort(c, WIRE_RESET_CLOSED, -ECONNRESET);
		return false;
	}
	if (__builtin_expect(ahead, 0)) {
		tp_ack_soon(c);
		return receive_early(c, p, (uint32_t)ahead);
	}
	if (p->offset != c->rcv_off)
		return violation(c);
	if (c->rcv_read == c->rcv_off && !c->reorder)
		tp_ring_rewind(&c->rcv, c->rcv_off);
	if (__builtin_expect(c->lands, 0))
		land(c, p);
	else
		place(c, p);
	advance(c, p->payload_len, fin, !p->more, events);
	if (__builtin_expect(c->lands, 0) && lands_on(c))
		*events &= ~TP_EV_READABLE;
	if (__builtin_expect(c->reorder != NULL, 0)) {
		tp_ack_soon(c);
		return drain_early(c, events);
	}
	tp_ack_received(c, p->flags);
	return true;
}

/*
 * A sender whose path has become too narrow for a packet repeats it in pieces. They are taken in their order,
 * when it is the packet's turn; an ACK says how far that has come. Pieces may be cut anew, or the packet
 * come as a whole after all: what is known of it is skipped.
 */
static bool receive_piece(struct tp_conn *c, const struct wire_packet *p, int32_t ahead, unsigned *events)
{
	struct wire_packet rest = *p;
	size_t from = p->piece ? p->piece_off : 0, known = c->rcv_piece - from;

	tp_ack_soon(c);
	if (ahead || (c->messages && !c->qp))
		return p->piece ? true : receive(c, p, ahead, events);
	if (from > c->rcv_piece || (p->more && known >= p->payload_len))
		return true;
	if (known && known >= p->payload_len)
		return violation(c);
	rest.payload += known;
	rest.payload_len -= known;
	rest.offset += known;
	rest.msg.offset += (uint32_t)known;
	rest.msg.remote += known;
	c->rcv_piece = p->more ? (uint16_t)(from + p->payload_len) : 0;
	return receive(c, &rest, 0, events);
}

/* Is there a ring to put the bytes in? One that is shared has been promised, and comes with the first. */
static bool has_ring(struct tp_conn *c)
{
	if (c->rcv.data || !c->rcv.size || c->read_shut || tp_pool_ring(c->tp, &c->rcv))
		return true;
	c->tp->stats.pool_empty++;
	return false;
}

void tp_receive_leave(struct tp_conn *c)
{
	uint32_t size = c->rcv.size;

	if (!c->rcv.data || c->rcv_off != c->rcv_read || c->reorder || size != c->tp->cfg.ring_min)
		return;
	tp_pool_ring_share(c->tp, &c->rcv);
	c->rcv.size = size;
}

bool tp_receive_data(struct tp_conn *c, const struct wire_packet *p, unsigned *events)
{
	int32_t ahead = (int32_t)(p->psn - (uint32_t)c->rcv_nxt);

	if (__builtin_expect(ahead < 0, 0)) {
		c->tp->stats.rx_duplicate++;
		tp_ack_soon(c);
		return true;
	}
	if (p->payload_len && !has_ring(c))
		return true; /* as if it were lost */
	if (__builtin_expect(p->piece | c->rcv_piece, 0))
		return receive_piece(c, p, ahead, events);
	return receive(c, p, ahead, events);
}

/* The ring becomes four times as large, up to its bound. */
static void grow(struct tp_conn *c)
{
	struct tp *t = c->tp;
	struct tp_ring bigger = {.size = c->rcv.size < c->rcv_max / 4 ? c->rcv.size * 4 : c->rcv_max};

	bigger.data = t->ops.alloc(t->ctx, bigger.size);
	if (!bigger.data)
		return;
	if (c->rcv.data)
		tp_ring_move(&bigger, &c->rcv, c->rcv_read, c->rcv_limit - c->rcv_read);
	tp_pool_ring_put(t, &c->rcv);
	tp_pool_trim(t);
	c->rcv = bigger;
}

void tp_grow(struct tp_conn *c)
{
	if (!c->limited || c->state != CONN_OPEN || c->read_shut)
		return;
	c->limited = false;
	if (c->rcv.size < c->rcv_max && c->rcv_off - c->rcv_read <= c->rcv.size / 2)
		grow(c);
}

/* The reader has moved on: tells the peer once it is worth a word. */
void tp_receive_window(struct tp_conn *c)
{
	uint64_t freed;

	if (__builtin_expect(c->limited, 0))
		tp_grow(c);
	freed = c->rcv_read + c->rcv.size - c->rcv_limit;
	if (freed < c->rcv.size / 4 || c->rcv_fin || c->state != CONN_OPEN)
		return;
	if (c->rcv_limit - c->rcv_off < c->rcv.size / 2)
		tp_ack_soon(c); /* the peer may be waiting for it */
	else
		tp_ack_later(c, c->tp->now);
}

int tp_land(struct tp_conn *c, void *data, size_t len, size_t low)
{
	if (c->landing.data || c->read_shut || c->rcv_off != c->rcv_read || c->reorder || c->rcv_fin ||
		c->state != CONN_OPEN)
		return -EBUSY;
	if (len > TP_RING_LIMIT)
		len = TP_RING_LIMIT;
	c->landing = (struct tp_landing){
		.data = data, .len = (uint32_t)len, .low = (uint32_t)(low < len ? low : len)};
	c->lands = true;
	return 0;
}

size_t tp_land_end(struct tp_conn *c)
{
	size_t n = c->landing.done;

	c->lands = false;
	c->landing.data = NULL;
	c->landing.done = 0;
	if (n)
		tp_receive_window(c);
	tp_receive_drained(c);
	return n;
}
