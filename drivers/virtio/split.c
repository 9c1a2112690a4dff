/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * split: bursts over a split virtqueue (2.7). With IN_ORDER a descriptor's place follows from its turn: the
 * used ring is read for lengths only, and there is no list of free descriptors.
 */
#include "drivers/virtio/split.h"

#include <errno.h>

#include "drivers/virtio/burst.h"

/* --- both directions --- */

/* Tells the device what is its own, if it wants to be told. */
VN_INLINE void publish(struct vn_queue *q, uint16_t before)
{
	uint16_t now = q->avail_pos;
	bool wanted;

	vn_wmb(q);
	VN_WRITE(q->split.avail->idx, now);
	vn_mb(q);
	if (q->event_idx)
		wanted = (uint16_t)(now - VN_READ(*vn_split_avail_event(q)) - 1) < (uint16_t)(now - before);
	else
		wanted = !(VN_READ(q->split.used->flags) & VN_USED_NO_NOTIFY);
	if (unlikely(wanted)) {
		q->stats.kicks++;
		q->notify(q);
	}
}

VN_INLINE uint16_t count_used(const struct vn_queue *q)
{
	return (uint16_t)(VN_READ(q->split.used->idx) - q->used_pos);
}

uint16_t vn_split_waiting(const struct vn_queue *q)
{
	uint16_t n = count_used(q);

	return n <= q->out ? n : 0;
}

VN_INLINE uint16_t pending(struct vn_queue *q, uint16_t want)
{
	uint16_t n = count_used(q);

	if (unlikely(n > q->out)) {
		vn_queue_break(q, "used more buffers than it had");
		return 0;
	}
	vn_rmb(q);
	return n;
}

VN_INLINE uint32_t peek(const struct vn_queue *q, uint16_t ahead, bool in_order)
{
	uint16_t at = (uint16_t)(q->used_pos + ahead) & q->mask;

	return in_order ? at : VN_READ(q->split.used->ring[at].id);
}

/* --- receive --- */

VN_INLINE struct rte_mbuf *take(struct vn_queue *q, uint32_t *len, bool in_order)
{
	struct vn_used_elem *e = &q->split.used->ring[q->used_pos & q->mask];
	uint32_t id = q->used_pos & q->mask;
	struct rte_mbuf *m;

	*len = VN_READ(e->len);
	if (!in_order) {
		id = VN_READ(e->id);
		if (unlikely(id >= q->size || !q->mbufs[id])) {
			vn_queue_break(q, "used a descriptor that it did not have");
			return NULL;
		}
		vn_queue_give_ids(q, (uint16_t)id, 1);
	}
	m = q->mbufs[id];
	q->mbufs[id] = NULL;
	q->used_pos++;
	q->free++;
	q->out--;
	return m;
}

VN_INLINE void offer(struct vn_queue *q, uint16_t id, struct rte_mbuf *m)
{
	/* Length and flags are always the same: vn_split_reset wrote them. */
	q->split.desc[id].addr = vn_buffer(q, m) + q->rx_off;
}

/* The mbufs go straight to where they are kept, which ends at the ring's end. */
VN_INLINE uint16_t refill_in_order(struct vn_queue *q, uint16_t n)
{
	uint16_t id = q->avail_pos & q->mask;
	struct rte_mbuf **at = &q->mbufs[id];

	if (unlikely(id + n > q->size))
		n = (uint16_t)(q->size - id);
	if (unlikely(rte_mempool_get_bulk(q->pool, (void **)at, n))) {
		memset(at, 0, n * sizeof *at);
		return 0;
	}
	for (uint16_t i = 0; i < n; i++)
		offer(q, (uint16_t)(id + i), at[i]);
	q->avail_pos = (uint16_t)(q->avail_pos + n);
	return n;
}

VN_INLINE uint16_t refill_by_list(struct vn_queue *q, uint16_t n)
{
	struct rte_mbuf *mbufs[VN_REFILL];

	if (unlikely(rte_mempool_get_bulk(q->pool, (void **)mbufs, n)))
		return 0;
	for (uint16_t i = 0; i < n; i++) {
		uint16_t id = vn_queue_take_id(q);

		q->mbufs[id] = mbufs[i];
		offer(q, id, mbufs[i]);
		q->split.avail->ring[q->avail_pos++ & q->mask] = id;
	}
	return n;
}

VN_INLINE void refill(struct vn_queue *q, bool in_order)
{
	uint16_t before = q->avail_pos;

	while (q->free) {
		uint16_t n = q->free < VN_REFILL ? q->free : VN_REFILL;

		n = in_order ? refill_in_order(q, n) : refill_by_list(q, n);
		if (unlikely(!n)) {
			q->stats.no_mbufs++;
			break;
		}
		q->free = (uint16_t)(q->free - n);
		q->out = (uint16_t)(q->out + n);
	}
	if (q->avail_pos != before)
		publish(q, before);
}

/* --- transmit --- */

VN_INLINE void set_desc(struct vn_desc *d, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	uint64_t rest = len | (uint64_t)flags << 32 | (uint64_t)next << 48;

	d->addr = addr;
	memcpy(&d->len, &rest, sizeof rest);
}

VN_INLINE uint16_t pop(struct vn_queue *q, bool in_order)
{
	return in_order ? q->head++ & q->mask : vn_queue_take_id(q);
}

/* The buffer that begins with descriptor id is the device's. */
VN_INLINE void offer_sent(struct vn_queue *q, struct rte_mbuf *m, uint16_t id, uint16_t count)
{
	uint16_t *entry = &q->split.avail->ring[q->avail_pos++ & q->mask];

	q->mbufs[id] = m;
	q->count[id] = count;
	/* In order it mostly is the same in each lap: the device then keeps its copy of the cache line. */
	if (unlikely(*entry != id))
		*entry = id;
	q->free = (uint16_t)(q->free - count);
	q->out++;
}

VN_INLINE void put(struct vn_queue *q, struct rte_mbuf *m, bool in_order)
{
	uint16_t id = pop(q, in_order);

	set_desc(&q->split.desc[id], vn_buffer(q, m) + m->data_off - sizeof(struct vn_hdr),
		m->data_len + (uint32_t)sizeof(struct vn_hdr), 0, 0);
	offer_sent(q, m, id, 1);
}

static int put_pieces(struct vn_queue *q, struct rte_mbuf *m, bool in_order)
{
	bool table = q->mode.indirect && m->nb_segs <= VN_INDIRECT;
	uint16_t count = table ? 1 : (uint16_t)(1 + m->nb_segs), id, at, n = 0;
	struct vn_aside *aside;
	struct vn_desc *d;

	if (count > q->size)
		return -EINVAL;
	if (count > q->free)
		return -ENOSPC;
	at = id = pop(q, in_order);
	aside = &q->aside[id];
	vn_hdr_fill(&aside->hdr, m);
	d = table ? aside->table.split : &q->split.desc[id];
	set_desc(d, vn_aside_addr(q, id), sizeof aside->hdr, 0, 0);
	for (struct rte_mbuf *s = m; s; s = s->next) {
		uint64_t addr = vn_buffer(q, s) + s->data_off;

		d->flags = VN_DESC_NEXT;
		if (table) {
			d->next = ++n;
			d++;
		} else {
			uint16_t next = pop(q, in_order);

			q->next[at] = next; /* for those who free it, who do not ask the ring */
			d->next = next;
			at = next;
			d = &q->split.desc[at];
		}
		set_desc(d, addr, s->data_len, 0, 0);
	}
	if (table)
		set_desc(&q->split.desc[id], vn_aside_addr(q, id) + offsetof(struct vn_aside, table),
			(uint32_t)((1 + m->nb_segs) * sizeof *d), VN_DESC_INDIRECT, 0);
	q->pieces++;
	offer_sent(q, m, id, count);
	q->count[id] |= VN_PIECES;
	return 0;
}

/* All that have been used are one descriptor each. */
VN_INLINE void reclaim_singles(struct vn_queue *q, uint16_t n)
{
	vn_tx_free_run(q, q->tail & q->mask, n);
	q->tail = (uint16_t)(q->tail + n);
	q->free = (uint16_t)(q->free + n);
	q->used_pos = (uint16_t)(q->used_pos + n);
	q->out = (uint16_t)(q->out - n);
}

/* One look tells of all that has been used; the next is when no more of that is left. */
VN_INLINE void reclaim(struct vn_queue *q, uint16_t want, bool in_order)
{
	uint16_t n = (uint16_t)(q->used_seen - q->used_pos);

	if (n < want) {
		n = pending(q, want);
		q->used_seen = (uint16_t)(q->used_pos + n);
	}
	if (n > want)
		n = want;
	if (in_order && likely(!q->pieces)) {
		reclaim_singles(q, n);
		return;
	}
	while (n--) {
		uint32_t id = in_order ? q->tail & q->mask : peek(q, 0, false);
		uint16_t count;

		if (unlikely(id >= q->size || !q->mbufs[id])) {
			vn_queue_break(q, "used a descriptor that it did not have");
			return;
		}
		count = vn_tx_free_one(q, (uint16_t)id);
		q->free = (uint16_t)(q->free + count);
		q->tail = (uint16_t)(q->tail + count);
		q->used_pos++;
		q->out--;
		if (!in_order)
			vn_queue_give_ids(q, (uint16_t)id, count);
	}
}

/* --- the modes --- */

static const struct vn_ring ring = {pending, peek, take, refill, reclaim, put, put_pieces, publish};

VN_BURSTS(vn_split_burst, &ring)

void vn_split_reclaim(struct vn_queue *q, uint16_t want)
{
	reclaim(q, want, q->in_order);
}

void vn_split_reset(struct vn_queue *q)
{
	for (unsigned i = 0; i < q->size; i++) {
		if (q->kind == VN_RX)
			q->split.desc[i] = (struct vn_desc){0, q->room, VN_DESC_WRITE, 0};
		q->split.avail->ring[i] = (uint16_t)i;
	}
	vn_split_interrupt(q, q->interrupts, 0);
}

void vn_split_interrupt(struct vn_queue *q, bool on, uint16_t ahead)
{
	if (q->event_idx) /* off: one that has passed, so not before 65536 more */
		VN_WRITE(*vn_split_used_event(q), (uint16_t)(on ? q->used_pos + ahead : q->used_pos - 1));
	else
		VN_WRITE(q->split.avail->flags, on ? 0 : VN_AVAIL_NO_INTERRUPT);
}
