/* SPDX-License-Identifier: BSD-3-Clause */
/* ethdev: what DPDK asks of a port, in terms of the device. */
#include "drivers/virtio/ethdev.h"

#include <errno.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_malloc.h>
#include <string.h>

#include "drivers/virtio/control.h"
#include "drivers/virtio/frame.h"
#include "drivers/virtio/xstats.h"

RTE_LOG_REGISTER(vn_log_type, pmd.net.sandirect_virtio, NOTICE);

enum {
	QUEUE_MIN = 16, /* descriptors */
	QUEUE_DEFAULT = 256,
	SEGMENTS_MAX = 64, /* of a frame */
};

static struct vn_dev *dev_of(const struct rte_eth_dev *eth)
{
	return eth->data->dev_private;
}

/* --- what it can do --- */

static uint64_t rx_capa(const struct vn_dev *d)
{
	uint64_t capa = RTE_ETH_RX_OFFLOAD_VLAN_STRIP | RTE_ETH_RX_OFFLOAD_SCATTER;

	if (d->offered & VN_BIT(VN_F_GUEST_CSUM))
		capa |= RTE_ETH_RX_OFFLOAD_TCP_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
	if ((d->offered & VN_BIT(VN_F_GUEST_TSO4)) && (d->offered & VN_BIT(VN_F_GUEST_TSO6)))
		capa |= RTE_ETH_RX_OFFLOAD_TCP_LRO;
	if (d->offered & VN_BIT(VN_F_CTRL_VLAN))
		capa |= RTE_ETH_RX_OFFLOAD_VLAN_FILTER;
	return capa;
}

static uint64_t tx_capa(const struct vn_dev *d)
{
	uint64_t capa = RTE_ETH_TX_OFFLOAD_MULTI_SEGS | RTE_ETH_TX_OFFLOAD_VLAN_INSERT |
			RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;

	if (d->offered & VN_BIT(VN_F_CSUM))
		capa |= RTE_ETH_TX_OFFLOAD_UDP_CKSUM | RTE_ETH_TX_OFFLOAD_TCP_CKSUM;
	if ((d->offered & VN_BIT(VN_F_HOST_TSO4)) && (d->offered & VN_BIT(VN_F_HOST_TSO6)))
		capa |= RTE_ETH_TX_OFFLOAD_TCP_TSO;
	if (d->offered & VN_BIT(VN_F_HOST_USO))
		capa |= RTE_ETH_TX_OFFLOAD_UDP_TSO;
	return capa;
}

static int infos_get(struct rte_eth_dev *eth, struct rte_eth_dev_info *info)
{
	struct vn_dev *d = dev_of(eth);
	const struct rte_eth_desc_lim lim = {
		.nb_max = VN_QUEUE_MAX,
		.nb_min = QUEUE_MIN,
		.nb_align = 1,
		.nb_seg_max = SEGMENTS_MAX,
		.nb_mtu_seg_max = SEGMENTS_MAX,
	};

	info->max_rx_queues = info->max_tx_queues = d->pairs_max;
	info->min_rx_bufsize = RTE_ETHER_MIN_LEN;
	info->max_rx_pktlen = (uint32_t)d->mtu_max + RTE_ETHER_HDR_LEN + RTE_VLAN_HLEN;
	info->min_mtu = RTE_ETHER_MIN_MTU;
	info->max_mtu = d->mtu_max;
	info->max_lro_pkt_size = 65535 + RTE_ETHER_HDR_LEN;
	info->max_mac_addrs = VN_MACS_MAX;
	info->flow_type_rss_offloads = vn_rss_offloads(d);
	info->reta_size = d->rss.table;
	info->hash_key_size = d->rss.table ? VN_RSS_KEY : 0;
	info->speed_capa = RTE_ETH_LINK_SPEED_AUTONEG;
	info->rx_offload_capa = rx_capa(d);
	info->tx_offload_capa = tx_capa(d);
	info->rx_desc_lim = info->tx_desc_lim = lim;
	info->default_rxportconf.ring_size = info->default_txportconf.ring_size =
		d->options.queue_size ? d->options.queue_size : QUEUE_DEFAULT;
	info->default_rxportconf.nb_queues = info->default_txportconf.nb_queues = 1;
	return 0;
}

/* --- configuration and queues --- */

static int configure(struct rte_eth_dev *eth)
{
	struct vn_dev *d = dev_of(eth);
	const struct rte_eth_conf *conf = &eth->data->dev_conf;

	if (conf->rxmode.mq_mode != RTE_ETH_MQ_RX_NONE && conf->rxmode.mq_mode != RTE_ETH_MQ_RX_RSS) {
		VN_LOG(ERR, d, "receive mode %d is not supported", conf->rxmode.mq_mode);
		return -ENOTSUP;
	}
	if (conf->txmode.mq_mode != RTE_ETH_MQ_TX_NONE) {
		VN_LOG(ERR, d, "transmit mode %d is not supported", conf->txmode.mq_mode);
		return -ENOTSUP;
	}
	if (conf->intr_conf.rxq && d->bus->has_vectors && !d->bus->has_vectors(d, eth->data->nb_rx_queues)) {
		VN_LOG(NOTICE, d, "the device has no interrupts for %u receive queues",
			eth->data->nb_rx_queues);
		return -ENOTSUP;
	}
	d->wanted = vn_device_wanted(d, conf->rxmode.offloads, conf->txmode.offloads);
	vn_rss_configure(d);
	return 0;
}

static uint16_t power_of_two(uint16_t n)
{
	uint16_t size = QUEUE_MIN;

	while (size < n && size < VN_QUEUE_MAX)
		size = (uint16_t)(size * 2);
	return size;
}

static int rx_queue_setup(struct rte_eth_dev *eth, uint16_t index, uint16_t n, unsigned node,
	const struct rte_eth_rxconf *conf, struct rte_mempool *pool)
{
	struct vn_dev *d = dev_of(eth);
	struct vn_queue *q;

	if (conf->rx_deferred_start)
		return -EINVAL;
	q = vn_queue_new(d, VN_RX, (uint16_t)(2 * index), power_of_two(n), (int)node);
	if (!q)
		return -rte_errno;
	q->pool = pool;
	eth->data->rx_queues[index] = q;
	return 0;
}

/* What has been sent is taken back early, so that few buffers go round while the device keeps up; but not for
 * every frame, because looking at what the device has used costs a cache line. */
static uint16_t default_reclaim(uint16_t size)
{
	return size > 2 * VN_RECLAIM ? (uint16_t)(size - VN_RECLAIM) : size / 2;
}

static int tx_queue_setup(
	struct rte_eth_dev *eth, uint16_t index, uint16_t n, unsigned node, const struct rte_eth_txconf *conf)
{
	struct vn_dev *d = dev_of(eth);
	uint64_t offloads = conf->offloads | eth->data->dev_conf.txmode.offloads;
	struct vn_queue *q;

	if (conf->tx_deferred_start)
		return -EINVAL;
	q = vn_queue_new(d, VN_TX, (uint16_t)(2 * index + 1), power_of_two(n), (int)node);
	if (!q)
		return -rte_errno;
	q->fast_free =
		(offloads & RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE) && !(offloads & RTE_ETH_TX_OFFLOAD_MULTI_SEGS);
	q->reclaim_below = conf->tx_free_thresh ? conf->tx_free_thresh : default_reclaim(q->ring_size);
	eth->data->tx_queues[index] = q;
	return 0;
}

static void rx_queue_release(struct rte_eth_dev *eth, uint16_t index)
{
	vn_queue_free(eth->data->rx_queues[index]);
	eth->data->rx_queues[index] = NULL;
}

static void tx_queue_release(struct rte_eth_dev *eth, uint16_t index)
{
	vn_queue_free(eth->data->tx_queues[index]);
	eth->data->tx_queues[index] = NULL;
}

static void rxq_info_get(struct rte_eth_dev *eth, uint16_t index, struct rte_eth_rxq_info *info)
{
	const struct vn_queue *q = eth->data->rx_queues[index];

	info->mp = q->pool;
	info->nb_desc = q->ring_size;
	info->conf.offloads = eth->data->dev_conf.rxmode.offloads;
	info->scattered_rx = q->mode.mergeable;
}

static void txq_info_get(struct rte_eth_dev *eth, uint16_t index, struct rte_eth_txq_info *info)
{
	const struct vn_queue *q = eth->data->tx_queues[index];

	info->nb_desc = q->ring_size;
	info->conf.tx_free_thresh = q->reclaim_below;
	info->conf.offloads = eth->data->dev_conf.txmode.offloads;
}

static uint32_t rx_queue_count(void *queue)
{
	return vn_queue_waiting(queue);
}

/* --- start, stop, link --- */

static void set_queue_states(struct rte_eth_dev_data *data, uint8_t state)
{
	memset(data->rx_queue_state, state, data->nb_rx_queues);
	memset(data->tx_queue_state, state, data->nb_tx_queues);
}

static int start(struct rte_eth_dev *eth)
{
	int e = vn_device_start(dev_of(eth));

	if (!e)
		set_queue_states(eth->data, RTE_ETH_QUEUE_STATE_STARTED);
	return e;
}

static int stop(struct rte_eth_dev *eth)
{
	vn_device_stop(dev_of(eth));
	set_queue_states(eth->data, RTE_ETH_QUEUE_STATE_STOPPED);
	return 0;
}

static int link_update(struct rte_eth_dev *eth, int wait)
{
	struct vn_dev *d = dev_of(eth);
	bool changed;

	vn_device_lock(d);
	changed = vn_device_link(d);
	vn_device_unlock(d);
	return changed ? 0 : -1;
}

static int set_admin(struct rte_eth_dev *eth, bool up)
{
	struct vn_dev *d = dev_of(eth);

	vn_device_lock(d);
	d->admin_up = up;
	vn_device_link(d);
	vn_device_unlock(d);
	return 0;
}

static int set_link_up(struct rte_eth_dev *eth)
{
	return set_admin(eth, true);
}

static int set_link_down(struct rte_eth_dev *eth)
{
	return set_admin(eth, false);
}

static int mtu_set(struct rte_eth_dev *eth, uint16_t mtu)
{
	struct vn_dev *d = dev_of(eth);
	uint32_t frame = mtu + RTE_ETHER_HDR_LEN + RTE_VLAN_HLEN;

	if (!d->running) /* buffers are looked at when it starts */
		return 0;
	for (unsigned i = 0; i < eth->data->nb_rx_queues; i++) {
		struct vn_queue *q = eth->data->rx_queues[i];

		if (!q->mode.mergeable && frame + sizeof(struct vn_hdr) > q->room) {
			VN_LOG(ERR, d,
				"frames of MTU %u do not fit into buffers of %zu bytes: stop the port first",
				mtu, q->room - sizeof(struct vn_hdr));
			return -EBUSY;
		}
		q->longest = RTE_MAX(q->longest, frame);
	}
	return 0;
}

/* --- filters --- */

static int set_rx_mode(struct rte_eth_dev *eth, bool *mode, bool on)
{
	struct vn_dev *d = dev_of(eth);
	int e;

	vn_device_lock(d);
	*mode = on;
	e = vn_control_rx_mode(d);
	if (e)
		*mode = !on;
	vn_device_unlock(d);
	return e;
}

static int promiscuous_enable(struct rte_eth_dev *eth)
{
	return set_rx_mode(eth, &dev_of(eth)->promiscuous, true);
}

static int promiscuous_disable(struct rte_eth_dev *eth)
{
	return set_rx_mode(eth, &dev_of(eth)->promiscuous, false);
}

static int allmulticast_enable(struct rte_eth_dev *eth)
{
	return set_rx_mode(eth, &dev_of(eth)->allmulticast, true);
}

static int allmulticast_disable(struct rte_eth_dev *eth)
{
	return set_rx_mode(eth, &dev_of(eth)->allmulticast, false);
}

/* The ethdev's table is the truth: it is sent whole. */
static int send_macs(struct rte_eth_dev *eth, unsigned index, const struct rte_ether_addr *mac)
{
	static const struct rte_ether_addr none;
	struct vn_dev *d = dev_of(eth);
	struct rte_ether_addr old;
	int e;

	if (index >= VN_MACS_MAX)
		return -EINVAL;
	vn_device_lock(d);
	old = d->macs[index];
	d->macs[index] = mac ? *mac : none;
	e = vn_control_macs(d);
	if (e)
		d->macs[index] = old;
	vn_device_unlock(d);
	return e;
}

static int mac_addr_add(struct rte_eth_dev *eth, struct rte_ether_addr *mac, uint32_t index, uint32_t pool)
{
	return send_macs(eth, index, mac);
}

static void mac_addr_remove(struct rte_eth_dev *eth, uint32_t index)
{
	send_macs(eth, index, NULL);
}

static int mac_addr_set(struct rte_eth_dev *eth, struct rte_ether_addr *mac)
{
	return send_macs(eth, 0, mac);
}

static int vlan_filter_set(struct rte_eth_dev *eth, uint16_t id, int on)
{
	struct vn_dev *d = dev_of(eth);
	int e;

	vn_device_lock(d);
	e = vn_control_vlan(d, id, on);
	if (!e && on)
		d->vlans[id / 64] |= 1ull << id % 64;
	else if (!e)
		d->vlans[id / 64] &= ~(1ull << id % 64);
	vn_device_unlock(d);
	return e;
}

static int vlan_offload_set(struct rte_eth_dev *eth, int mask)
{
	struct vn_dev *d = dev_of(eth);
	uint64_t offloads = eth->data->dev_conf.rxmode.offloads;

	if ((mask & RTE_ETH_VLAN_FILTER_MASK) && (offloads & RTE_ETH_RX_OFFLOAD_VLAN_FILTER) &&
		!(rx_capa(d) & RTE_ETH_RX_OFFLOAD_VLAN_FILTER))
		return -ENOTSUP;
	if (mask & RTE_ETH_VLAN_STRIP_MASK)
		for (unsigned i = 0; i < eth->data->nb_rx_queues; i++) {
			struct vn_queue *q = eth->data->rx_queues[i];

			if (q)
				q->mode.vlan_strip = offloads & RTE_ETH_RX_OFFLOAD_VLAN_STRIP;
		}
	return 0;
}

/* --- interrupts --- */

static int set_interrupt(struct rte_eth_dev *eth, uint16_t index, bool on)
{
	struct vn_queue *q = eth->data->rx_queues[index];

	vn_queue_interrupt(q, on);
	return 0;
}

static int rx_queue_intr_enable(struct rte_eth_dev *eth, uint16_t index)
{
	return set_interrupt(eth, index, true);
}

static int rx_queue_intr_disable(struct rte_eth_dev *eth, uint16_t index)
{
	return set_interrupt(eth, index, false);
}

/* --- birth and death --- */

static int dev_close(struct rte_eth_dev *eth)
{
	struct vn_dev *d = dev_of(eth);

	if (rte_eal_process_type() != RTE_PROC_PRIMARY)
		return 0;
	for (unsigned i = 0; i < eth->data->nb_rx_queues; i++)
		rx_queue_release(eth, (uint16_t)i);
	for (unsigned i = 0; i < eth->data->nb_tx_queues; i++)
		tx_queue_release(eth, (uint16_t)i);
	vn_device_fini(d);
	return 0;
}

static const struct eth_dev_ops ops = {
	.dev_configure = configure,
	.dev_start = start,
	.dev_stop = stop,
	.dev_close = dev_close,
	.dev_infos_get = infos_get,
	.dev_set_link_up = set_link_up,
	.dev_set_link_down = set_link_down,
	.link_update = link_update,
	.mtu_set = mtu_set,
	.promiscuous_enable = promiscuous_enable,
	.promiscuous_disable = promiscuous_disable,
	.allmulticast_enable = allmulticast_enable,
	.allmulticast_disable = allmulticast_disable,
	.mac_addr_add = mac_addr_add,
	.mac_addr_remove = mac_addr_remove,
	.mac_addr_set = mac_addr_set,
	.vlan_filter_set = vlan_filter_set,
	.vlan_offload_set = vlan_offload_set,
	.rss_hash_update = vn_rss_hash_update,
	.rss_hash_conf_get = vn_rss_hash_get,
	.reta_update = vn_rss_reta_update,
	.reta_query = vn_rss_reta_query,
	.rx_queue_setup = rx_queue_setup,
	.rx_queue_release = rx_queue_release,
	.tx_queue_setup = tx_queue_setup,
	.tx_queue_release = tx_queue_release,
	.rxq_info_get = rxq_info_get,
	.txq_info_get = txq_info_get,
	.tx_done_cleanup = vn_queue_reclaim,
	.rx_queue_intr_enable = rx_queue_intr_enable,
	.rx_queue_intr_disable = rx_queue_intr_disable,
	.stats_get = vn_stats_get,
	.stats_reset = vn_stats_reset,
	.xstats_get = vn_xstats_get,
	.xstats_get_names = vn_xstats_get_names,
	.xstats_reset = vn_stats_reset,
};

int vn_ethdev_init(struct rte_eth_dev *eth)
{
	struct vn_dev *d = dev_of(eth);
	int e;

	vn_queue_prepare();
	e = vn_device_init(d);
	if (e) {
		vn_device_fini(d);
		return e;
	}
	eth->data->mac_addrs = rte_zmalloc("vn macs", VN_MACS_MAX * sizeof *eth->data->mac_addrs, 0);
	if (!eth->data->mac_addrs) {
		vn_device_fini(d);
		return -ENOMEM;
	}
	eth->data->mac_addrs[0] = d->macs[0];
	eth->data->dev_flags |= RTE_ETH_DEV_AUTOFILL_QUEUE_XSTATS | RTE_ETH_DEV_INTR_LSC;
	eth->dev_ops = &ops;
	eth->rx_pkt_burst = vn_queue_burst;
	eth->tx_pkt_burst = vn_queue_burst;
	eth->tx_pkt_prepare = vn_tx_prepare;
	eth->rx_queue_count = rx_queue_count;
	return 0;
}
