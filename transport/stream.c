/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * stream: the application's side of the two rings. Writing and reading copy and move a cursor; rings and the
 * memory of packets in flight grow here, because only here may memory be allocated.
 */
#include <errno.h>

#include "transport/conn.h"

#define SEND_RING_FREELY (256u << 10) /* a writer may have this much without the network asking for it */
#define CACHE_LINE	 64u
#define LOAN_AHEAD	 4096u /* bytes: how far ahead of the packets a loan is fetched from memory */

/* How large the send ring may become now: what the network can have in flight, twice, or the free allowance.
 */
static uint32_t send_ring_goal(const struct tp_conn *c)
{
	uint64_t flight = 2ull * c->cwnd * c->mss;
	uint32_t size = c->snd.size ? c->snd.size : c->tp->cfg.ring_min;

	while (size < c->snd_max && (size < flight || size < SEND_RING_FREELY))
		size *= 2;
	return size;
}

static void grow_send_ring(struct tp_conn *c, uint64_t want)
{
	uint32_t goal = send_ring_goal(c), size = c->snd.size;
	struct tp *t = c->tp;
	struct tp_ring bigger = {0};

	if (!size && tp_pool_ring_to_send(t, &c->snd))
		size = c->snd.size;
	if (want <= size || size >= goal)
		return;
	size = size ? size : t->cfg.ring_min;
	while (size < goal && size < want)
		size *= 2;
	bigger.data = t->ops.alloc(t->ctx, size);
	bigger.size = size;
	if (!bigger.data) { /* a smaller ring is slower, not wrong */
		if (!c->snd.size)
			tp_pool_ring(t, &c->snd);
		return;
	}
	if (c->snd.size)
		tp_ring_move(&bigger, &c->snd, c->snd_acked, c->snd_end - c->snd_acked);
	tp_pool_ring_put(t, &c->snd);
	tp_pool_trim(t);
	c->snd = bigger;
}

/* Room to remember more packets in flight, if what is written may become more packets than there is room for.
 */
static void grow_sent(struct tp_conn *c)
{
	uint32_t size = c->sent_mask ? (c->sent_mask + 1) * 4 : TP_SENT_MIN;

	if (size > c->tp->cfg.window_packets)
		size = c->tp->cfg.window_packets;
	if (!tp_flight_grow(c, size))
		tp_pool_trim(c->tp);
}

static bool sent_is_short(const struct tp_conn *c)
{
	uint32_t size = c->sent_mask + 1, half = (size + 1) / 2;

	return size < c->tp->cfg.window_packets &&
	       (c->snd_nxt - c->snd_una >= half || c->snd_end - c->snd_acked > (uint64_t)half * c->mss);
}

/* Before it is open nothing could leave anyway. */
void tp_cork_start(struct tp_conn *c)
{
	if (!c->cork || c->cork_until != NEVER || c->snd_end == c->snd_sent || c->state != CONN_OPEN)
		return;
	c->cork_until = c->tp->now + TP_CORK_MAX;
	tp_conn_timer(c, c->cork_until);
}

/* Packet by packet is too little at a time for the processor to guess what is read next. */
static void fetch_ahead(const uint8_t *at, size_t len)
{
	for (size_t i = 0; i < len; i += CACHE_LINE)
		__builtin_prefetch(at + LOAN_AHEAD + i);
}

size_t tp_loan_at(const struct tp_conn *c, uint64_t off, size_t len, const uint8_t **at)
{
	const struct tp_loan *l = &c->flight->loan;

	if (off >= l->from && off < l->to) {
		if (len > l->to - off)
			len = l->to - off;
		*at = l->data + (off - l->from);
		fetch_ahead(*at, len);
		return len;
	}
	if (off < l->from && l->from - off < len)
		len = l->from - off;
	return tp_ring_at(&c->snd, off, len, at);
}

void tp_settle(struct tp_conn *c)
{
	struct tp_loan *l = &c->flight->loan;
	uint64_t from = l->from < c->snd_acked ? c->snd_acked : l->from;

	if (!c->lent)
		return;
	c->lent = false;
	if (from < l->to)
		tp_ring_put(&c->snd, from, l->data + (from - l->from), l->to - from);
}

/* A loan is one piece of memory and of the stream: what does not go on where it ends is another one. */
static void borrow(struct tp_conn *c, const uint8_t *data, size_t len)
{
	struct tp_loan *l = &c->flight->loan;

	if (!c->lent || l->to != c->snd_end || l->data + (l->to - l->from) != data) {
		tp_settle(c);
		*l = (struct tp_loan){.data = data, .from = c->snd_end, .to = c->snd_end};
		c->lent = true;
	}
	l->to += len;
}

/* Which a loan is kept with. */
static bool has_flight(struct tp_conn *c)
{
	if (!c->sent_mask)
		grow_sent(c);
	return c->sent_mask;
}

static inline __attribute__((always_inline)) ptrdiff_t take(
	struct tp_conn *c, const void *data, size_t len, bool lend)
{
	uint64_t queued = c->snd_end - c->snd_acked;

	if (__builtin_expect(c->error, 0))
		return c->error;
	if (__builtin_expect(c->fin_wanted, 0))
		return -EPIPE;
	if (__builtin_expect(len > c->snd.size - queued, 0)) {
		grow_send_ring(c, queued + len);
		if (!c->snd.size)
			return -ENOMEM;
		if (len > c->snd.size - queued) {
			len = c->snd.size - queued;
			c->want_writable = true;
		}
	}
	if (!len)
		return 0;
	if (!queued)
		tp_ring_rewind(&c->snd, c->snd_end);
	if (lend && has_flight(c))
		borrow(c, data, len);
	else
		tp_ring_put(&c->snd, c->snd_end, data, len);
	c->snd_end += len;
	if (__builtin_expect(!tp_is_roomy(c->snd.size, c->snd_end - c->snd_acked), 0))
		c->want_writable = true;
	if (__builtin_expect(c->state != CONN_OPEN, 0))
		return (ptrdiff_t)len; /* not yet */
	if (__builtin_expect(sent_is_short(c), 0))
		grow_sent(c);
	if (__builtin_expect(c->cork, 0))
		tp_cork_start(c);
	if (c->probe_at == NEVER && c->snd_limit == c->snd_sent)
		tp_recovery_arm(c, c->tp->now);
	if (!c->queued && tp_output_new_data(c))
		tp_conn_mark(c);
	return (ptrdiff_t)len;
}

ptrdiff_t tp_write(struct tp_conn *c, const void *data, size_t len)
{
	return take(c, data, len, false);
}

ptrdiff_t tp_lend(struct tp_conn *c, const void *data, size_t len)
{
	return take(c, data, len, true);
}

void tp_set_cork(struct tp_conn *c, uint64_t now, bool on)
{
	c->tp->now = now;
	c->cork = on;
	c->cork_pushed = false;
	c->cork_until = NEVER;
	tp_cork_start(c);
	tp_output_check(c);
}

void tp_set_nagle(struct tp_conn *c, bool on)
{
	c->nagle = on;
	tp_output_check(c);
}

static size_t copy_out(const struct tp_conn *c, void *data, size_t len, uint64_t from)
{
	uint64_t there = c->rcv_off - from;

	if (len > there)
		len = there;
	if (len)
		tp_ring_get(&c->rcv, from, data, len);
	return len;
}

ptrdiff_t tp_read(struct tp_conn *c, void *data, size_t len)
{
	size_t n = copy_out(c, data, len, c->rcv_read);

	if (!n)
		return c->rcv_off == c->rcv_read && !c->rcv_fin ? c->error : 0;
	c->rcv_read += n;
	tp_receive_window(c);
	tp_receive_drained(c);
	return (ptrdiff_t)n;
}

ptrdiff_t tp_peek(const struct tp_conn *c, void *data, size_t len, size_t skip)
{
	uint64_t there = c->rcv_off - c->rcv_read;

	if (skip >= there)
		return there || c->rcv_fin ? 0 : c->error;
	return (ptrdiff_t)copy_out(c, data, len, c->rcv_read + skip);
}

size_t tp_readable(const struct tp_conn *c)
{
	return c->rcv_off - c->rcv_read;
}

size_t tp_writable(const struct tp_conn *c)
{
	if (c->error || c->fin_wanted)
		return 0;
	return send_ring_goal(c) - (c->snd_end - c->snd_acked);
}

bool tp_is_writable(const struct tp_conn *c)
{
	return !c->error && !c->fin_wanted && tp_is_roomy(send_ring_goal(c), c->snd_end - c->snd_acked);
}

size_t tp_unacked(const struct tp_conn *c)
{
	return c->snd_end - c->snd_acked;
}

size_t tp_unsent(const struct tp_conn *c)
{
	return c->snd_end - c->snd_sent;
}

bool tp_at_eof(const struct tp_conn *c)
{
	return c->rcv_fin && c->rcv_off == c->rcv_read;
}

bool tp_peer_fin(const struct tp_conn *c)
{
	return c->rcv_fin;
}

static uint32_t ring_bound(uint32_t bytes, uint32_t least)
{
	uint32_t size = least;

	while (size < bytes && size < TP_RING_LIMIT)
		size *= 2;
	return size;
}

void tp_set_buffers(struct tp_conn *c, uint32_t send_max, uint32_t recv_max)
{
	if (send_max)
		c->snd_max = ring_bound(send_max, c->tp->cfg.ring_min);
	if (recv_max)
		c->rcv_max = ring_bound(recv_max, c->tp->cfg.ring_min);
}
