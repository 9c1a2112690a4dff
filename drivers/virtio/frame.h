/* SPDX-License-Identifier: BSD-3-Clause */
/* Between mbufs and the header that is before each frame. */
#ifndef SD_DRIVERS_VIRTIO_FRAME_H
#define SD_DRIVERS_VIRTIO_FRAME_H

#include <rte_branch_prediction.h>
#include <rte_mbuf.h>
#include <string.h>

#include "drivers/virtio/barrier.h"
#include "drivers/virtio/queue.h"

#define VN_TX_SEG     (RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_UDP_SEG)
#define VN_TX_OFFLOAD (RTE_MBUF_F_TX_L4_MASK | VN_TX_SEG)
#define VN_TX_SLOW    (RTE_MBUF_F_TX_VLAN | RTE_MBUF_F_INDIRECT | RTE_MBUF_F_EXTERNAL | VN_TX_SEG)

/* --- transmit --- */

/* One segment, of which nobody else has a reference. */
static inline bool vn_is_single(uint64_t fields)
{
	return (fields & 0x0000ffffffff0000) == 0x0000000100010000;
}

static inline uint64_t vn_fields(const struct rte_mbuf *m)
{
	uint64_t fields;

	memcpy(&fields, &m->rearm_data, sizeof fields);
	return fields;
}

/* Goes out as one descriptor, with the header in its headroom; slow: flags that hinder it. */
static inline bool vn_is_plain(const struct rte_mbuf *m, uint64_t slow)
{
	uint64_t fields = vn_fields(m);

	return vn_is_single(fields) && (uint16_t)fields >= sizeof(struct vn_hdr) && !(m->ol_flags & slow);
}

/* It mostly is clear, from the mbuf's last frame: the device then keeps its copy of the cache line. */
static inline void vn_hdr_clear(struct vn_hdr *h)
{
	const uint64_t zero = 0;
	uint64_t low;
	uint32_t high;

	memcpy(&low, h, 8);
	memcpy(&high, (uint8_t *)h + 8, 4);
	if (likely(!(low | high)))
		return;
	memcpy(h, &zero, 8);
	memcpy((uint8_t *)h + 8, &zero, 4);
}

/* What m's flags ask of the device. */
static inline void vn_hdr_fill(struct vn_hdr *h, const struct rte_mbuf *m)
{
	uint64_t l4 = m->ol_flags & RTE_MBUF_F_TX_L4_MASK;
	unsigned header = m->l2_len + m->l3_len;

	vn_hdr_clear(h);
	if (m->ol_flags & RTE_MBUF_F_TX_TCP_SEG) {
		l4 = RTE_MBUF_F_TX_TCP_CKSUM;
		h->gso_type = m->ol_flags & RTE_MBUF_F_TX_IPV6 ? VN_GSO_TCPV6 : VN_GSO_TCPV4;
	} else if (m->ol_flags & RTE_MBUF_F_TX_UDP_SEG) {
		l4 = RTE_MBUF_F_TX_UDP_CKSUM;
		h->gso_type = VN_GSO_UDP_L4;
	}
	if (h->gso_type) {
		h->gso_size = m->tso_segsz;
		h->hdr_len = (uint16_t)(header + m->l4_len);
	}
	if (l4 != RTE_MBUF_F_TX_TCP_CKSUM && l4 != RTE_MBUF_F_TX_UDP_CKSUM)
		return;
	h->flags = VN_HDR_NEEDS_CSUM;
	h->csum_start = (uint16_t)header;
	h->csum_offset = l4 == RTE_MBUF_F_TX_TCP_CKSUM ? 16 : 6;
}

/* Makes of m what the device can send: VLAN tag inserted, checksum finished here if the device cannot.
 * -EINVAL: there is no such frame; -ENOTSUP: the device cannot segment; -ENOMEM: no mbuf for a copy. */
int vn_tx_fix(const struct vn_queue *q, struct rte_mbuf **m);
/* The ethdev's tx_prepare. */
uint16_t vn_tx_prepare(void *queue, struct rte_mbuf **pkts, uint16_t n);

/* Gives mbufs back that the device has sent, or never will. */
static inline void vn_tx_free(const struct vn_queue *q, struct rte_mbuf **mbufs, unsigned n)
{
	void *batch[VN_RECLAIM];
	struct rte_mempool *pool = NULL;
	unsigned k = 0;

	if (q->fast_free && n) { /* all of one pool, and nobody else's */
		rte_mempool_put_bulk(mbufs[0]->pool, (void **)mbufs, n);
		return;
	}
	for (unsigned i = 0; i < n; i++) {
		struct rte_mbuf *m = mbufs[i];

		if (__builtin_expect(!vn_is_single(vn_fields(m)) || !RTE_MBUF_DIRECT(m), 0)) {
			rte_pktmbuf_free(m);
			continue;
		}
		if (k && (m->pool != pool || k == VN_RECLAIM)) {
			rte_mempool_put_bulk(pool, batch, k);
			k = 0;
		}
		pool = m->pool;
		batch[k++] = m;
	}
	if (k)
		rte_mempool_put_bulk(pool, batch, k);
}

/* The same for n buffers of one descriptor each, with ids from this one on, around the ring's end. */
static inline void vn_tx_free_run(struct vn_queue *q, uint16_t id, uint16_t n)
{
	while (n) {
		uint16_t run = id + n > q->size ? (uint16_t)(q->size - id) : n;

		vn_tx_free(q, &q->mbufs[id], run);
		memset(&q->mbufs[id], 0, run * sizeof q->mbufs[0]);
		id = (uint16_t)(id + run) & q->mask;
		n = (uint16_t)(n - run);
	}
}

/* The same for the buffer with this id; returns how many descriptors it had. */
static inline uint16_t vn_tx_free_one(struct vn_queue *q, uint16_t id)
{
	uint16_t count = q->count[id];

	if (count & VN_PIECES) {
		rte_pktmbuf_free(q->mbufs[id]);
		q->pieces--;
	} else
		vn_tx_free(q, &q->mbufs[id], 1);
	q->mbufs[id] = NULL;
	return count & ~VN_PIECES;
}

/* --- receive --- */

/* m as a received frame of len bytes. */
static inline void vn_rx_fill(const struct vn_queue *q, struct rte_mbuf *m, uint32_t len)
{
	uint64_t fields = (uint64_t)len << 32, more = len & 0xffff; /* packet_type, pkt_len; data_len, vlan */
	const uint64_t no_flags = 0;

	memcpy(&m->rearm_data, &q->rearm, 8);
	memcpy(&m->ol_flags, &no_flags, 8);
	memcpy(&m->rx_descriptor_fields1, &fields, 8);
	memcpy((uint8_t *)&m->rx_descriptor_fields1 + 8, &more, 8);
}

/* What the header in front of a received frame says. Nothing in it leads to an access: a frame whose checksum
 * the device left to us is told as such. */
static inline void vn_rx_flags(struct rte_mbuf *m, const struct vn_hdr *h)
{
	uint8_t flags = VN_READ(h->flags), gso = VN_READ(h->gso_type);

	if (flags & VN_HDR_NEEDS_CSUM)
		m->ol_flags |= RTE_MBUF_F_RX_L4_CKSUM_NONE;
	else if (flags & VN_HDR_DATA_VALID)
		m->ol_flags |= RTE_MBUF_F_RX_L4_CKSUM_GOOD;
	if ((gso & ~VN_GSO_ECN) != VN_GSO_NONE) {
		m->ol_flags |= RTE_MBUF_F_RX_LRO | RTE_MBUF_F_RX_L4_CKSUM_NONE;
		m->tso_segsz = h->gso_size;
	}
}

#endif
