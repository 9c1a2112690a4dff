/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * packed: bursts over a packed virtqueue (2.8). Descriptors become the device's when the flags of the first
 * of them are written, a cache line at a time: a device that waits can begin, and looks at no line that is
 * being written. DPDK's takes whole lines, if what it finds first ends with one. With IN_ORDER a buffer's id
 * is the place of its first descriptor.
 */
#include "drivers/virtio/packed.h"

#include <errno.h>

#include "drivers/virtio/burst.h"

enum {
	OWNER = VN_DESC_AVAIL | VN_DESC_USED,
	LINE = RTE_CACHE_LINE_SIZE / sizeof(struct vn_pdesc),
};

/* --- both directions --- */

VN_INLINE void advance_avail(struct vn_queue *q, uint16_t n)
{
	q->avail_pos = (uint16_t)(q->avail_pos + n);
	if (q->avail_pos >= q->size) {
		q->avail_pos = (uint16_t)(q->avail_pos - q->size);
		q->avail_flags ^= OWNER;
	}
}

VN_INLINE void advance_used(struct vn_queue *q, uint16_t n)
{
	q->used_pos = (uint16_t)(q->used_pos + n);
	if (q->used_pos >= q->size) {
		q->used_pos = (uint16_t)(q->used_pos - q->size);
		q->used_flags ^= OWNER;
	}
}

static bool device_waits(const struct vn_queue *q, uint16_t before)
{
	uint16_t flags = VN_READ(q->packed.device->flags), off_wrap, event, added;

	if (flags != VN_EVENT_DESC)
		return flags == VN_EVENT_ENABLE;
	off_wrap = VN_READ(q->packed.device->off_wrap);
	event = off_wrap & (VN_EVENT_WRAP - 1);
	if (!(off_wrap & VN_EVENT_WRAP) != !(q->avail_flags & VN_DESC_AVAIL))
		event = (uint16_t)(event - q->size);
	added = (uint16_t)(((uint16_t)(q->avail_pos - before - 1) & q->mask) + 1);
	return (uint16_t)(q->avail_pos - event - 1) < added;
}

/* The first descriptor since the last time gets its flags. */
VN_INLINE void reveal(struct vn_queue *q)
{
	vn_wmb(q);
	VN_WRITE(q->packed.desc[q->first_pos].flags, q->first_flags);
	q->hidden = false;
}

/* After a whole buffer: if a line of descriptors ends with it. */
VN_INLINE void reveal_line(struct vn_queue *q)
{
	if (!(q->avail_pos % LINE))
		reveal(q);
}

/* What is left of the burst that began at before; the device is told if it wants to be. */
VN_INLINE void publish(struct vn_queue *q, uint16_t before)
{
	if (q->hidden)
		reveal(q);
	vn_mb(q);
	if (unlikely(VN_READ(q->packed.device->flags) != VN_EVENT_DISABLE) && device_waits(q, before)) {
		q->stats.kicks++;
		q->notify(q);
	}
}

/* The next descriptor. Those behind the first are not looked at before it has its flags. */
VN_INLINE void set_desc(struct vn_queue *q, uint64_t addr, uint32_t len, uint16_t id, uint16_t flags)
{
	struct vn_pdesc *d = &q->packed.desc[q->avail_pos];

	flags |= q->avail_flags;
	d->addr = addr;
	if (likely(q->hidden)) {
		uint64_t rest = len | (uint64_t)id << 32 | (uint64_t)flags << 48;

		memcpy(&d->len, &rest, sizeof rest);
	} else {
		d->len = len;
		d->id = id;
		q->first_flags = flags;
		q->first_pos = q->avail_pos;
		q->hidden = true;
	}
	advance_avail(q, 1);
}

VN_INLINE uint16_t count_used(const struct vn_queue *q, uint16_t want)
{
	uint16_t at = q->used_pos, flags = q->used_flags, n = 0;

	if (want > q->out)
		want = q->out;
	while (n < want && (VN_READ(q->packed.desc[at].flags) & OWNER) == flags) {
		n++;
		if (++at == q->size) {
			at = 0;
			flags ^= OWNER;
		}
	}
	return n;
}

uint16_t vn_packed_waiting(const struct vn_queue *q)
{
	return count_used(q, q->out);
}

VN_INLINE uint16_t pending(struct vn_queue *q, uint16_t want)
{
	uint16_t n = count_used(q, want);

	vn_rmb(q);
	return n;
}

VN_INLINE uint32_t peek(const struct vn_queue *q, uint16_t ahead, bool in_order)
{
	uint16_t at = (uint16_t)(q->used_pos + ahead) & q->mask;

	return in_order ? at : VN_READ(q->packed.desc[at].id);
}

/* --- receive --- */

VN_INLINE struct rte_mbuf *take(struct vn_queue *q, uint32_t *len, bool in_order)
{
	struct vn_pdesc *d = &q->packed.desc[q->used_pos];
	uint16_t id = q->used_pos;
	struct rte_mbuf *m;

	*len = VN_READ(d->len);
	if (!in_order) {
		id = VN_READ(d->id);
		if (unlikely(id >= q->size || !q->mbufs[id])) {
			vn_queue_break(q, "used a descriptor that it did not have");
			return NULL;
		}
		vn_queue_give_ids(q, id, 1);
	}
	m = q->mbufs[id];
	q->mbufs[id] = NULL;
	advance_used(q, 1);
	q->free++;
	q->out--;
	return m;
}

/* Whole lines of descriptors, where there are enough of them: DPDK's device, which takes four at once if they
 * begin a line, goes on with a line's first then when it had none left. */
VN_INLINE uint16_t refill_now(const struct vn_queue *q)
{
	uint16_t n = q->free < VN_REFILL ? q->free : VN_REFILL, over = (q->avail_pos + n) % LINE;

	if (unlikely(q->size < VN_REFILL))
		return n;
	return n > over ? (uint16_t)(n - over) : 0;
}

VN_INLINE void refill(struct vn_queue *q, bool in_order)
{
	uint16_t before = q->avail_pos, n;

	while ((n = refill_now(q))) {
		struct rte_mbuf *mbufs[VN_REFILL];

		if (unlikely(rte_mempool_get_bulk(q->pool, (void **)mbufs, n))) {
			q->stats.no_mbufs++;
			break;
		}
		for (uint16_t i = 0; i < n; i++) {
			uint16_t id = in_order ? q->avail_pos : vn_queue_take_id(q);

			q->mbufs[id] = mbufs[i];
			set_desc(q, vn_buffer(q, mbufs[i]) + q->rx_off, q->room, id, VN_DESC_WRITE);
		}
		q->free = (uint16_t)(q->free - n);
		q->out = (uint16_t)(q->out + n);
	}
	if (q->hidden)
		publish(q, before);
}

/* --- transmit --- */

VN_INLINE void account(struct vn_queue *q, struct rte_mbuf *m, uint16_t id, uint16_t count)
{
	q->mbufs[id] = m;
	q->count[id] = count;
	q->free = (uint16_t)(q->free - count);
	q->out++;
}

VN_INLINE void put(struct vn_queue *q, struct rte_mbuf *m, bool in_order)
{
	uint16_t id = in_order ? q->avail_pos : vn_queue_take_id(q);

	set_desc(q, vn_buffer(q, m) + m->data_off - sizeof(struct vn_hdr),
		m->data_len + (uint32_t)sizeof(struct vn_hdr), id, 0);
	account(q, m, id, 1);
	reveal_line(q);
}

static int put_pieces(struct vn_queue *q, struct rte_mbuf *m, bool in_order)
{
	bool table = q->mode.indirect && m->nb_segs <= VN_INDIRECT;
	uint16_t count = table ? 1 : (uint16_t)(1 + m->nb_segs), id, n = 0;
	struct vn_aside *aside;

	if (count > q->size)
		return -EINVAL;
	if (count > q->free)
		return -ENOSPC;
	id = in_order ? q->avail_pos : vn_queue_take_id(q);
	aside = &q->aside[id];
	vn_hdr_fill(&aside->hdr, m);
	if (!table)
		set_desc(q, vn_aside_addr(q, id), sizeof aside->hdr, id, VN_DESC_NEXT);
	aside->table.packed[n++] = (struct vn_pdesc){vn_aside_addr(q, id), sizeof aside->hdr, 0, 0};
	for (struct rte_mbuf *s = m; s; s = s->next) {
		uint64_t addr = vn_buffer(q, s) + s->data_off;

		if (table)
			aside->table.packed[n++] = (struct vn_pdesc){addr, s->data_len, 0, 0};
		else
			set_desc(q, addr, s->data_len, id, s->next ? VN_DESC_NEXT : 0);
	}
	if (table)
		set_desc(q, vn_aside_addr(q, id) + offsetof(struct vn_aside, table),
			(uint32_t)(n * sizeof(struct vn_pdesc)), id, VN_DESC_INDIRECT);
	q->pieces++;
	account(q, m, id, count);
	q->count[id] |= VN_PIECES;
	return 0;
}

/* In order, the device names the last of those that it has used together, and writes to the place of the
 * first. Of buffers of one descriptor each: how many have been used, as many as are wanted or a few more. */
VN_INLINE uint16_t count_singles(struct vn_queue *q, uint16_t want)
{
	uint16_t at = q->used_pos, flags = q->used_flags, n = 0;

	while (n < want && n < q->out && (VN_READ(q->packed.desc[at].flags) & OWNER) == flags) {
		uint16_t id, run;

		vn_rmb(q);
		id = VN_READ(q->packed.desc[at].id);
		run = (uint16_t)(((id - at) & q->mask) + 1);
		if (unlikely(id >= q->size || n + run > q->out)) {
			vn_queue_break(q, "used a descriptor that it did not have");
			return 0;
		}
		n = (uint16_t)(n + run);
		at = (uint16_t)(at + run);
		if (at >= q->size) {
			at = (uint16_t)(at - q->size);
			flags ^= OWNER;
		}
	}
	return n;
}

VN_INLINE void reclaim_singles(struct vn_queue *q, uint16_t n)
{
	vn_tx_free_run(q, q->used_pos, n);
	q->free = (uint16_t)(q->free + n);
	q->out = (uint16_t)(q->out - n);
	advance_used(q, n);
}

/* One buffer. */
VN_INLINE void reclaim_one(struct vn_queue *q, uint16_t id)
{
	uint16_t count = vn_tx_free_one(q, id);

	q->free = (uint16_t)(q->free + count);
	q->out--;
	advance_used(q, count);
}

VN_INLINE void reclaim(struct vn_queue *q, uint16_t want, bool in_order)
{
	uint32_t enough = (uint32_t)q->free + want;

	if (in_order && likely(!q->pieces)) {
		reclaim_singles(q, count_singles(q, want));
		return;
	}
	while (q->free < enough && pending(q, 1)) {
		uint16_t id = VN_READ(q->packed.desc[q->used_pos].id), last;

		if (unlikely(id >= q->size || !q->mbufs[id])) {
			vn_queue_break(q, "used a descriptor that it did not have");
			return;
		}
		if (!in_order) {
			reclaim_one(q, id);
			vn_queue_give_ids(q, id, 1);
			continue;
		}
		do {
			last = q->used_pos;
			reclaim_one(q, last);
		} while (last != id);
	}
}

/* --- the modes --- */

static const struct vn_ring ring = {pending, peek, take, refill, reclaim, put, put_pieces, publish};

VN_BURSTS(vn_packed_burst, &ring)

void vn_packed_reclaim(struct vn_queue *q, uint16_t want)
{
	reclaim(q, want, q->in_order);
}

void vn_packed_reset(struct vn_queue *q)
{
	q->avail_flags = VN_DESC_AVAIL;
	q->used_flags = OWNER;
	q->hidden = false;
	vn_packed_interrupt(q, q->interrupts, 0);
}

void vn_packed_interrupt(struct vn_queue *q, bool on, uint16_t ahead)
{
	uint16_t at = (uint16_t)(q->used_pos + ahead),
		 wrap = q->used_flags & VN_DESC_USED ? VN_EVENT_WRAP : 0;

	if (!on || !q->event_idx) {
		VN_WRITE(q->packed.driver->flags, on ? VN_EVENT_ENABLE : VN_EVENT_DISABLE);
		return;
	}
	if (at >= q->size) {
		at = (uint16_t)(at - q->size);
		wrap ^= VN_EVENT_WRAP;
	}
	VN_WRITE(q->packed.driver->off_wrap, (uint16_t)(at | wrap));
	vn_wmb(q);
	VN_WRITE(q->packed.driver->flags, VN_EVENT_DESC);
}
