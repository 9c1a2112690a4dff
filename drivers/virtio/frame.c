/* SPDX-License-Identifier: BSD-3-Clause */
#include "drivers/virtio/frame.h"

#include <errno.h>
#include <rte_errno.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_net.h>

/* Finishes the checksum that m's flags ask for, whose field holds the pseudo header's sum. */
static int checksum(struct rte_mbuf *m)
{
	bool tcp = (m->ol_flags & RTE_MBUF_F_TX_L4_MASK) == RTE_MBUF_F_TX_TCP_CKSUM;
	uint32_t start = m->l2_len + m->l3_len, field = start + (tcp ? 16 : 6);
	uint16_t sum;

	if (field + sizeof sum > m->data_len || rte_raw_cksum_mbuf(m, start, m->pkt_len - start, &sum))
		return -EINVAL;
	sum = (uint16_t)~sum;
	if (!sum && !tcp) /* UDP: none at all (RFC 768) */
		sum = 0xffff;
	memcpy(rte_pktmbuf_mtod_offset(m, void *, field), &sum, sizeof sum);
	m->ol_flags &= ~RTE_MBUF_F_TX_L4_MASK;
	return 0;
}

/* Others may refer to the data, who want them as they are. */
static int make_own(struct rte_mbuf **m)
{
	struct rte_mbuf *copy;

	if (rte_mbuf_refcnt_read(*m) == 1 && RTE_MBUF_DIRECT(*m))
		return 0;
	copy = rte_pktmbuf_copy(*m, (*m)->pool, 0, UINT32_MAX);
	if (!copy)
		return -ENOMEM;
	rte_pktmbuf_free(*m);
	*m = copy;
	return 0;
}

int vn_tx_fix(const struct vn_queue *q, struct rte_mbuf **m)
{
	uint64_t flags = (*m)->ol_flags, l4 = flags & RTE_MBUF_F_TX_L4_MASK;

	if ((flags & VN_TX_SEG) && !q->mode.tx_seg)
		return -ENOTSUP;
	if ((flags & RTE_MBUF_F_TX_VLAN) && rte_vlan_insert(m))
		return -EINVAL;
	if (!q->mode.tx_csum && (l4 == RTE_MBUF_F_TX_TCP_CKSUM || l4 == RTE_MBUF_F_TX_UDP_CKSUM))
		return make_own(m) ? -ENOMEM : checksum(*m);
	return 0;
}

/* For a frame that the device cuts up virtio wants the sum over a pseudo header with the whole length; DPDK's
 * has none in it. */
static void add_length(struct rte_mbuf *m)
{
	uint32_t header = m->l2_len + m->l3_len, length = m->pkt_len - header;
	uint16_t *field = rte_pktmbuf_mtod_offset(
		m, uint16_t *, header + (m->ol_flags & RTE_MBUF_F_TX_UDP_SEG ? 6 : 16));
	uint32_t sum;

	sum = *field + (uint32_t)rte_cpu_to_be_16((uint16_t)length);
	*field = (uint16_t)((sum & 0xffff) + (sum >> 16));
}

uint16_t vn_tx_prepare(void *queue, struct rte_mbuf **pkts, uint16_t n)
{
	for (uint16_t i = 0; i < n; i++) {
		struct rte_mbuf *m = pkts[i];
		int e;

		if ((m->ol_flags & RTE_MBUF_F_TX_VLAN) && (e = rte_vlan_insert(&m))) {
			rte_errno = -e;
			return i;
		}
		pkts[i] = m;
		m->ol_flags &= ~RTE_MBUF_F_TX_VLAN;
		e = rte_net_intel_cksum_prepare(m);
		if (e) {
			rte_errno = -e;
			return i;
		}
		if (m->ol_flags & VN_TX_SEG) {
			if (m->l2_len + m->l3_len + m->l4_len > m->data_len) {
				rte_errno = EINVAL;
				return i;
			}
			add_length(m);
		}
	}
	return n;
}
