/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * burst: receiving and sending, whatever the ring's layout. split.c and packed.c say how their ring does each
 * step; everything here is inlined into them, once for each mode.
 */
#ifndef SD_DRIVERS_VIRTIO_BURST_H
#define SD_DRIVERS_VIRTIO_BURST_H

#include <rte_branch_prediction.h>
#include <rte_ether.h>
#include <rte_prefetch.h>

#include "drivers/virtio/barrier.h"
#include "drivers/virtio/frame.h"
#include "drivers/virtio/queue.h"

#define VN_INLINE static inline __attribute__((always_inline))

struct vn_ring {
	/* Used buffers that can be looked at; counting may stop at want. 0 also if the device broke the
	 * rules. */
	uint16_t (*pending)(struct vn_queue *q, uint16_t want);
	/* The id of the ahead-th of those pending. */
	uint32_t (*peek)(const struct vn_queue *q, uint16_t ahead, bool in_order);
	/* Receive: takes the next of those pending. NULL: it is none of the device's; the queue is broken. */
	struct rte_mbuf *(*take)(struct vn_queue *q, uint32_t *len, bool in_order);
	/* Receive: gives the device buffers for those that are free, but for a few that may wait. */
	void (*refill)(struct vn_queue *q, bool in_order);
	/* Transmit: frees what has been sent, of about so many descriptors or frames. */
	void (*reclaim)(struct vn_queue *q, uint16_t want, bool in_order);
	/* Transmit: a frame that begins with its header, as one descriptor, of which one is free. */
	void (*put)(struct vn_queue *q, struct rte_mbuf *m, bool in_order);
	/* Transmit: any other; -ENOSPC: not enough are free. */
	int (*put_pieces)(struct vn_queue *q, struct rte_mbuf *m, bool in_order);
	/* Transmit: what has been put since before is the device's. */
	void (*publish)(struct vn_queue *q, uint16_t before);
};

/* --- receive --- */

VN_INLINE bool vn_is_length(const struct vn_queue *q, uint32_t len)
{
	return len - sizeof(struct vn_hdr) - 1 < q->room - sizeof(struct vn_hdr);
}

VN_INLINE struct vn_hdr *vn_rx_hdr(const struct vn_queue *q, const struct rte_mbuf *m)
{
	return (struct vn_hdr *)((uint8_t *)m->buf_addr + q->rx_off);
}

VN_INLINE void vn_rx_finish(const struct vn_queue *q, struct rte_mbuf *m)
{
	if (q->mode.rx_offload)
		vn_rx_flags(m, vn_rx_hdr(q, m));
	if (unlikely(q->mode.vlan_strip) && m->data_len >= RTE_ETHER_HDR_LEN + RTE_VLAN_HLEN)
		rte_vlan_strip(m);
}

/* One buffer for each frame. */
VN_INLINE uint16_t vn_rx_single(struct vn_queue *q, struct rte_mbuf **pkts, uint16_t n,
	const struct vn_ring *ring, const bool in_order)
{
	uint16_t have = ring->pending(q, n), got = 0;
	uint64_t bytes = 0;

	if (n > have)
		n = have;
	for (uint16_t i = 0; i < n; i++) {
		uint32_t len;
		struct rte_mbuf *m;

		if (i + 3 < n) {
			uint32_t id = ring->peek(q, 3, in_order);

			rte_prefetch0(q->mbufs[id & q->mask]);
		}
		m = ring->take(q, &len, in_order);
		if (unlikely(!m))
			break;
		if (unlikely(!vn_is_length(q, len))) {
			q->stats.errors++;
			rte_pktmbuf_free_seg(m);
			continue;
		}
		len -= sizeof(struct vn_hdr);
		vn_rx_fill(q, m, len);
		rte_prefetch0((uint8_t *)m->buf_addr + q->rx_off);
		vn_rx_finish(q, m);
		bytes += len;
		pkts[got++] = m;
	}
	q->stats.packets += got;
	q->stats.bytes += bytes;
	if (q->free >= q->refill_below && !q->broken)
		ring->refill(q, in_order);
	return got;
}

/* The parts - 1 buffers that follow first's; false: the frame is of no use and all is freed. */
VN_INLINE bool vn_rx_join(struct vn_queue *q, struct rte_mbuf *first, uint16_t parts,
	const struct vn_ring *ring, const bool in_order)
{
	struct rte_mbuf *last = first;
	bool good = true;

	while (--parts) {
		uint32_t len;
		struct rte_mbuf *m = ring->take(q, &len, in_order);

		if (unlikely(!m)) {
			good = false;
			break;
		}
		vn_rx_fill(q, m, len);
		m->data_off = q->rx_off; /* no header there */
		last->next = m;
		last = m;
		first->nb_segs++;
		first->pkt_len += len;
		good = good && len && len <= q->room;
	}
	if (unlikely(!good)) {
		q->stats.errors++;
		rte_pktmbuf_free(first);
	}
	return good;
}

/* A frame in as many buffers as its header says. One whose buffers are not all there yet waits. */
VN_INLINE uint16_t vn_rx_merged(struct vn_queue *q, struct rte_mbuf **pkts, uint16_t n,
	const struct vn_ring *ring, const bool in_order)
{
	uint16_t have = ring->pending(q, n), got = 0;

	while (got < n && have) {
		uint32_t id = ring->peek(q, 0, in_order), len;
		struct rte_mbuf *m = id < q->size ? q->mbufs[id] : NULL;
		uint16_t parts;

		if (unlikely(!m)) {
			vn_queue_break(q, "used a descriptor that it did not have");
			break;
		}
		parts = VN_READ(vn_rx_hdr(q, m)->num_buffers);
		if (unlikely(parts - 1u >= q->size)) {
			vn_queue_break(q, "says that a frame is in no buffer, or in too many");
			break;
		}
		if (parts > have) {
			have = ring->pending(q, parts);
			if (parts > have)
				break;
		}
		have = (uint16_t)(have - parts);
		m = ring->take(q, &len, in_order);
		if (unlikely(!m))
			break;
		if (have && parts == 1)
			rte_prefetch0(q->mbufs[ring->peek(q, 0, in_order) & q->mask]);
		if (unlikely(!vn_is_length(q, len)))
			len = sizeof(struct vn_hdr); /* an empty frame: dropped below */
		len -= sizeof(struct vn_hdr);
		vn_rx_fill(q, m, len);
		if (parts > 1 && !vn_rx_join(q, m, parts, ring, in_order))
			continue;
		if (unlikely(!len || m->pkt_len > q->longest)) {
			q->stats.errors++;
			rte_pktmbuf_free(m);
			continue;
		}
		vn_rx_finish(q, m);
		q->stats.packets++;
		q->stats.bytes += m->pkt_len;
		pkts[got++] = m;
	}
	if (q->free >= q->refill_below && !q->broken)
		ring->refill(q, in_order);
	return got;
}

/* --- transmit --- */

/* Is a descriptor free? Those of several pieces may have taken more than the burst has taken back. */
VN_INLINE bool vn_tx_room(struct vn_queue *q, const struct vn_ring *ring, const bool in_order)
{
	if (likely(q->free))
		return true;
	if (q->pieces)
		ring->reclaim(q, q->size, in_order);
	return q->free;
}

/* A frame that is not plain as it is. -ENOSPC: no room. Any other error: it cannot be sent. */
static __rte_noinline int vn_tx_other(
	struct vn_queue *q, struct rte_mbuf **m, const struct vn_ring *ring, const bool in_order)
{
	int e = vn_tx_fix(q, m);

	if (e)
		return e;
	if (!vn_is_plain(*m, VN_TX_SLOW & ~VN_TX_SEG)) {
		e = ring->put_pieces(q, *m, in_order);
		if (e != -ENOSPC)
			return e;
		ring->reclaim(q, q->size, in_order); /* it may need more than one frame's worth */
		return ring->put_pieces(q, *m, in_order);
	}
	if (!vn_tx_room(q, ring, in_order))
		return -ENOSPC;
	vn_hdr_fill(rte_pktmbuf_mtod(*m, struct vn_hdr *) - 1, *m);
	ring->put(q, *m, in_order);
	return 0;
}

VN_INLINE uint16_t vn_tx(struct vn_queue *q, struct rte_mbuf **pkts, uint16_t n, const struct vn_ring *ring,
	const bool in_order)
{
	uint16_t before = q->avail_pos, done = 0, failed = 0;
	uint64_t bytes = 0;

	/* As many as are sent, so that the same mbufs go round. All at once run over their pool's cache, and
	 * from then on all of the pool goes round, which no processor's cache holds. One by one, more at a
	 * time: with fewer, round trips of large frames were a tenth slower.
	 */
	if (q->free < q->reclaim_below || q->free < n)
		ring->reclaim(q, n < VN_BURST_LEAST ? 2 * VN_RECLAIM : n, in_order);
	for (; done < n; done++) {
		struct rte_mbuf *m = pkts[done];
		uint32_t len = m->pkt_len;

		if (done + 4 < n)
			rte_prefetch0(pkts[done + 4]);
		if (likely(vn_is_plain(m, q->slow_flags))) {
			struct vn_hdr *h = rte_pktmbuf_mtod(m, struct vn_hdr *) - 1;

			if (!vn_tx_room(q, ring, in_order))
				break;
			if (m->ol_flags & VN_TX_OFFLOAD)
				vn_hdr_fill(h, m);
			else
				vn_hdr_clear(h);
			ring->put(q, m, in_order);
		} else {
			int e = vn_tx_other(q, &m, ring, in_order);

			if (e == -ENOSPC) {
				pkts[done] = m;
				break;
			}
			if (unlikely(e)) {
				failed++;
				rte_pktmbuf_free(m);
				continue;
			}
		}
		bytes += len;
	}
	q->stats.packets += (uint16_t)(done - failed);
	q->stats.errors += failed;
	q->stats.bytes += bytes;
	q->stats.full += done < n;
	if (done > failed)
		ring->publish(q, before);
	return done;
}

/* --- the modes --- */

/* A layout's bursts, one for each mode, and choose, which finds a queue's. */
#define VN_BURSTS(choose, ring)                                                                              \
	static uint16_t rx_single_in_order(struct vn_queue *q, struct rte_mbuf **pkts, uint16_t n)           \
	{                                                                                                    \
		return vn_rx_single(q, pkts, n, ring, true);                                                 \
	}                                                                                                    \
	static uint16_t rx_single(struct vn_queue *q, struct rte_mbuf **pkts, uint16_t n)                    \
	{                                                                                                    \
		return vn_rx_single(q, pkts, n, ring, false);                                                \
	}                                                                                                    \
	static uint16_t rx_merged_in_order(struct vn_queue *q, struct rte_mbuf **pkts, uint16_t n)           \
	{                                                                                                    \
		return vn_rx_merged(q, pkts, n, ring, true);                                                 \
	}                                                                                                    \
	static uint16_t rx_merged(struct vn_queue *q, struct rte_mbuf **pkts, uint16_t n)                    \
	{                                                                                                    \
		return vn_rx_merged(q, pkts, n, ring, false);                                                \
	}                                                                                                    \
	static uint16_t tx_in_order(struct vn_queue *q, struct rte_mbuf **pkts, uint16_t n)                  \
	{                                                                                                    \
		return vn_tx(q, pkts, n, ring, true);                                                        \
	}                                                                                                    \
	static uint16_t tx(struct vn_queue *q, struct rte_mbuf **pkts, uint16_t n)                           \
	{                                                                                                    \
		return vn_tx(q, pkts, n, ring, false);                                                       \
	}                                                                                                    \
	vn_burst *choose(const struct vn_queue *q)                                                           \
	{                                                                                                    \
		if (q->kind == VN_TX)                                                                        \
			return q->in_order ? tx_in_order : tx;                                               \
		if (q->mode.mergeable)                                                                       \
			return q->in_order ? rx_merged_in_order : rx_merged;                                 \
		return q->in_order ? rx_single_in_order : rx_single;                                         \
	}

#endif
