/* SPDX-License-Identifier: BSD-3-Clause */
#include "drivers/virtio/device.h"

#include <errno.h>
#include <rte_alarm.h>
#include <rte_errno.h>
#include <string.h>
#include <sys/eventfd.h>

#include "drivers/virtio/control.h"

enum { SPARE_SIZE = 64 }; /* descriptors of a queue that only the device knows */

static void retry(void *arg);

uint16_t vn_device_id(const struct vn_dev *d)
{
	return d->data->port_id;
}

uint32_t vn_device_frame(const struct vn_dev *d)
{
	return d->data->mtu + RTE_ETHER_HDR_LEN + RTE_VLAN_HLEN;
}

uint32_t vn_device_longest(const struct vn_dev *d)
{
	return d->data->dev_conf.rxmode.offloads & RTE_ETH_RX_OFFLOAD_TCP_LRO ? UINT16_MAX + RTE_ETHER_HDR_LEN
									      : vn_device_frame(d);
}

/* --- the lock --- */

void vn_device_setup(struct vn_dev *d)
{
	pthread_mutex_init(&d->lock, NULL);
}

void vn_device_lock(struct vn_dev *d)
{
	pthread_mutex_lock(&d->lock);
}

void vn_device_unlock(struct vn_dev *d)
{
	bool news = d->link_news && d->data->dev_conf.intr_conf.lsc;

	d->link_news = false;
	pthread_mutex_unlock(&d->lock);
	if (news)
		rte_eth_dev_callback_process(d->eth, RTE_ETH_EVENT_INTR_LSC, NULL);
}

/* --- negotiation --- */

/* Over a split ring DPDK's vhost sends its bursts 2-4 % faster without it: it then looks at the driver's
 * flags after each burst, and so has the index beside them already when the next one begins, which has to
 * wait for it.
 */
static bool wants_event_idx(const struct vn_dev *d)
{
	return d->options.event_idx == VN_AUTO ? d->options.packed : d->options.event_idx == VN_ON;
}

uint64_t vn_device_wanted(const struct vn_dev *d, uint64_t rx_offloads, uint64_t tx_offloads)
{
	static const uint64_t always =
		VN_BIT(VN_F_VERSION_1) | VN_BIT(VN_F_ACCESS_PLATFORM) | VN_BIT(VN_F_ORDER_PLATFORM) |
		VN_BIT(VN_F_NOTIFICATION_DATA) | VN_BIT(VN_F_INDIRECT_DESC) | VN_BIT(VN_F_MAC) |
		VN_BIT(VN_F_MTU) | VN_BIT(VN_F_STATUS) | VN_BIT(VN_F_SPEED_DUPLEX) | VN_BIT(VN_F_CTRL_VQ) |
		VN_BIT(VN_F_CTRL_RX) | VN_BIT(VN_F_CTRL_VLAN) | VN_BIT(VN_F_CTRL_MAC_ADDR);
	uint64_t f = always;

	if (d->options.packed)
		f |= VN_BIT(VN_F_RING_PACKED);
	if (d->options.in_order)
		f |= VN_BIT(VN_F_IN_ORDER);
	if (wants_event_idx(d))
		f |= VN_BIT(VN_F_EVENT_IDX);
	if (rx_offloads & (RTE_ETH_RX_OFFLOAD_UDP_CKSUM | RTE_ETH_RX_OFFLOAD_TCP_CKSUM))
		f |= VN_BIT(VN_F_GUEST_CSUM);
	if (rx_offloads & RTE_ETH_RX_OFFLOAD_TCP_LRO)
		f |= VN_BIT(VN_F_GUEST_CSUM) | VN_BIT(VN_F_GUEST_TSO4) | VN_BIT(VN_F_GUEST_TSO6);
	if (tx_offloads & (RTE_ETH_TX_OFFLOAD_UDP_CKSUM | RTE_ETH_TX_OFFLOAD_TCP_CKSUM))
		f |= VN_BIT(VN_F_CSUM);
	if (tx_offloads & RTE_ETH_TX_OFFLOAD_TCP_TSO)
		f |= VN_BIT(VN_F_CSUM) | VN_BIT(VN_F_HOST_TSO4) | VN_BIT(VN_F_HOST_TSO6);
	if (tx_offloads & RTE_ETH_TX_OFFLOAD_UDP_TSO)
		f |= VN_BIT(VN_F_CSUM) | VN_BIT(VN_F_HOST_USO);
	return f;
}

/* Frames that do not fit into one receive buffer have to be taken apart. Where that is not so, DPDK's vhost
 * is up to a tenth faster if it may not. */
static bool wants_merging(const struct vn_dev *d)
{
	if (d->options.mergeable != VN_AUTO)
		return d->options.mergeable == VN_ON;
	if (d->data->dev_conf.rxmode.offloads & (RTE_ETH_RX_OFFLOAD_TCP_LRO | RTE_ETH_RX_OFFLOAD_SCATTER))
		return true;
	for (unsigned i = 0; i < d->data->nb_rx_queues; i++) {
		const struct vn_queue *q = d->data->rx_queues[i];

		if (RTE_PKTMBUF_HEADROOM + vn_device_frame(d) > rte_pktmbuf_data_room_size(q->pool))
			return true;
	}
	return false;
}

static int negotiate(struct vn_dev *d)
{
	static const uint64_t segmenting =
		VN_BIT(VN_F_HOST_TSO4) | VN_BIT(VN_F_HOST_TSO6) | VN_BIT(VN_F_HOST_USO);
	uint64_t wanted = d->wanted, f;
	int e = d->bus->features(d, &d->offered);

	if (e)
		return e;
	if (wants_merging(d))
		wanted |= VN_BIT(VN_F_MRG_RXBUF);
	if (d->pairs > 1)
		wanted |= VN_BIT(VN_F_MQ) | (d->rss.on ? VN_BIT(VN_F_RSS) : 0);
	f = d->offered & wanted;
	if (f & VN_BIT(VN_F_RSS)) /* queues are notified by others' bursts, which do not know where they end
				   */
		f &= ~VN_BIT(VN_F_NOTIFICATION_DATA);
	if (!(f & VN_BIT(VN_F_VERSION_1))) {
		VN_COMPLAIN(d, "the device has no virtio 1.x interface");
		return -ENOTSUP;
	}
	if (d->pairs > 1 && !(f & VN_BIT(VN_F_MQ))) {
		VN_COMPLAIN(d, "%u queues each way are configured, and the device has one", d->pairs);
		return -ENOTSUP;
	}
	if (wanted & segmenting & ~f) {
		VN_COMPLAIN(d, "the device cannot segment, as the port is configured to");
		return -ENOTSUP;
	}
	if (!(f & VN_BIT(VN_F_CTRL_VQ)))
		f &= ~(VN_BIT(VN_F_CTRL_RX) | VN_BIT(VN_F_CTRL_VLAN) | VN_BIT(VN_F_CTRL_MAC_ADDR) |
			VN_BIT(VN_F_RSS));
	e = d->bus->set_features(d, f);
	if (e)
		return e;
	e = d->bus->set_status(d, VN_S_ACKNOWLEDGE | VN_S_DRIVER | VN_S_FEATURES_OK);
	if (e)
		return e;
	if (!(d->bus->status(d) & VN_S_FEATURES_OK)) {
		VN_COMPLAIN(d, "the device refuses features %#llx of those that it offers",
			(unsigned long long)f);
		return -ENOTSUP;
	}
	d->features = f;
	return 0;
}

static void choose_mode(struct vn_dev *d)
{
	uint64_t rx = d->data->dev_conf.rxmode.offloads;

	d->mode = (struct vn_queue_mode){
		.packed = vn_has(d, VN_F_RING_PACKED),
		.in_order = vn_has(d, VN_F_IN_ORDER),
		.event_idx = vn_has(d, VN_F_EVENT_IDX),
		.mergeable = vn_has(d, VN_F_MRG_RXBUF),
		.indirect = vn_has(d, VN_F_INDIRECT_DESC),
		.platform_order = vn_has(d, VN_F_ORDER_PLATFORM),
		.notification_data = vn_has(d, VN_F_NOTIFICATION_DATA),
		.rx_offload = vn_has(d, VN_F_GUEST_CSUM),
		.tx_csum = vn_has(d, VN_F_CSUM),
		.tx_seg = vn_has(d, VN_F_HOST_TSO4) || vn_has(d, VN_F_HOST_USO),
		.vlan_strip = rx & RTE_ETH_RX_OFFLOAD_VLAN_STRIP,
		.physical = d->bus->physical,
	};
}

/* --- queues --- */

static struct vn_queue *queue_of(struct vn_dev *d, enum vn_kind kind, unsigned pair)
{
	void **queues = kind == VN_RX ? d->data->rx_queues : d->data->tx_queues;
	unsigned n = kind == VN_RX ? d->data->nb_rx_queues : d->data->nb_tx_queues;

	return pair < n ? queues[pair] : d->spares[kind][pair];
}

/* Runs f on all queues for traffic that the device knows. */
static void each_queue(struct vn_dev *d, void (*f)(struct vn_queue *q))
{
	for (unsigned i = 0; i < d->pairs; i++) {
		f(queue_of(d, VN_RX, i));
		f(queue_of(d, VN_TX, i));
	}
}

/* A device has its queues in pairs: what the owner has not set up gets one that stays empty. */
static int make_spares(struct vn_dev *d)
{
	for (unsigned i = 0; i < d->pairs; i++)
		for (int kind = VN_RX; kind <= VN_TX; kind++) {
			if (queue_of(d, kind, i))
				continue;
			d->spares[kind][i] = vn_queue_new(
				d, kind, (uint16_t)(2 * i + kind), SPARE_SIZE, d->data->numa_node);
			if (!d->spares[kind][i])
				return -rte_errno;
		}
	return 0;
}

static void free_spares(struct vn_dev *d)
{
	for (unsigned i = 0; i < VN_PAIRS_MAX; i++)
		for (int kind = VN_RX; kind <= VN_TX; kind++) {
			vn_queue_free(d->spares[kind][i]);
			d->spares[kind][i] = NULL;
		}
}

/*
 * Of new receive buffers, after the device had run out of them. QEMU (7.2) hashes in software: a frame that
 * has come to one of its queues and is for another one without buffers stays where it is, with all behind it,
 * until its own queue is notified. So all are.
 */
static void notify_receivers(struct vn_queue *q)
{
	struct vn_dev *d = q->dev;

	for (unsigned i = 0; i < d->pairs; i++)
		d->bus->notify(queue_of(d, VN_RX, i));
}

static int queue_up(struct vn_dev *d, struct vn_queue *q)
{
	uint16_t most = d->bus->queue_size(d, q->index), size = q->ring_size;

	if (!most) {
		VN_COMPLAIN(d, "the device has no queue %u", q->index);
		return -ENOTSUP;
	}
	while (size > most)
		size /= 2;
	vn_queue_reset(q, size, &d->mode);
	q->notify = q->kind == VN_RX && vn_has(d, VN_F_RSS) ? notify_receivers : d->bus->notify;
	return d->bus->queue_up(d, q);
}

static int queues_up(struct vn_dev *d)
{
	int e = 0;

	for (unsigned i = 0; !e && i < d->pairs; i++) {
		e = queue_up(d, queue_of(d, VN_RX, i));
		if (!e)
			e = queue_up(d, queue_of(d, VN_TX, i));
	}
	if (!e && vn_has(d, VN_F_CTRL_VQ))
		e = vn_control_up(d);
	return e;
}

/* A burst of none gives the device its buffers. */
static void fill(struct vn_queue *q)
{
	if (q->kind == VN_RX && q->pool)
		q->burst(q, NULL, 0);
}

/* --- up and down --- */

static int handshake(struct vn_dev *d)
{
	int e = d->bus->reset(d);

	if (!e)
		e = d->bus->set_status(d, VN_S_ACKNOWLEDGE);
	if (!e)
		e = d->bus->set_status(d, VN_S_ACKNOWLEDGE | VN_S_DRIVER);
	if (!e)
		e = negotiate(d);
	if (e)
		return e;
	choose_mode(d);
	e = queues_up(d);
	if (!e)
		e = d->bus->set_status(d, VN_S_ACKNOWLEDGE | VN_S_DRIVER | VN_S_FEATURES_OK | VN_S_DRIVER_OK);
	return e;
}

/* Before the device is left alone: its owner, or nobody, has it. */
static void take_down(struct vn_dev *d)
{
	each_queue(d, vn_queue_stop);
	d->running = false;
	d->bus->reset(d);
	d->features = 0;
}

static void open_queues(struct vn_dev *d)
{
	for (unsigned i = 0; i < d->pairs; i++) {
		vn_queue_start(queue_of(d, VN_TX, i));
		if (vn_queue_start(queue_of(d, VN_RX, i)))
			eventfd_write(rte_eth_dev_rx_intr_ctl_q_get_fd(vn_device_id(d), (uint16_t)i), 1);
	}
}

static int bring_up(struct vn_dev *d)
{
	int e = handshake(d);

	if (e) {
		if (e != -ENOTCONN && d->bus->status(d))
			d->bus->set_status(d, VN_S_FAILED);
		take_down(d);
		return e;
	}
	vn_control_restore(d);
	each_queue(d, fill);
	open_queues(d);
	d->running = true;
	d->told = false;
	return 0;
}

static void retry_later(struct vn_dev *d, unsigned ms)
{
	if (__atomic_exchange_n(&d->retrying, true, __ATOMIC_ACQ_REL))
		return;
	if (rte_eal_alarm_set(ms * 1000ull, retry, d))
		__atomic_store_n(&d->retrying, false, __ATOMIC_RELEASE);
}

/* Gets back to work; what the device does not do now it may do later. */
static void recover(struct vn_dev *d)
{
	int e;

	if (!d->started)
		return;
	if (d->running)
		take_down(d);
	e = bring_up(d);
	if (!e)
		d->stats.resets++;
	else if (e != -ENOTCONN) {
		if (!d->told)
			VN_LOG(ERR, d, "does not come back: %s; trying on", strerror(-e));
		d->told = true;
		retry_later(d, VN_RETRY_MS);
	}
	vn_device_link(d);
}

static void retry(void *arg)
{
	struct vn_dev *d = arg;

	vn_device_lock(d);
	__atomic_store_n(&d->retrying, false, __ATOMIC_RELEASE);
	recover(d);
	vn_device_unlock(d);
}

int vn_device_start(struct vn_dev *d)
{
	int e;

	for (unsigned i = 0; i < d->data->nb_rx_queues; i++)
		if (!d->data->rx_queues[i])
			return -EINVAL;
	for (unsigned i = 0; i < d->data->nb_tx_queues; i++)
		if (!d->data->tx_queues[i])
			return -EINVAL;
	vn_device_lock(d);
	d->told = false;
	d->pairs = RTE_MAX(d->data->nb_rx_queues, d->data->nb_tx_queues);
	e = make_spares(d);
	if (!e && d->data->dev_conf.intr_conf.rxq)
		e = d->bus->interrupts_up(d, d->data->nb_rx_queues);
	if (!e) {
		e = bring_up(d);
		if (e == -ENOTCONN)
			e = 0;
		if (e && d->data->dev_conf.intr_conf.rxq)
			d->bus->interrupts_down(d);
	}
	if (e)
		free_spares(d);
	d->started = d->admin_up = !e;
	vn_device_link(d);
	vn_device_unlock(d);
	return e;
}

void vn_device_stop(struct vn_dev *d)
{
	vn_device_lock(d);
	d->started = false;
	take_down(d);
	each_queue(d, vn_queue_empty);
	free_spares(d);
	if (d->data->dev_conf.intr_conf.rxq)
		d->bus->interrupts_down(d);
	vn_device_link(d);
	vn_device_unlock(d);
}

/* --- events --- */

void vn_device_came(struct vn_dev *d)
{
	d->stats.peer_came++;
	recover(d);
}

void vn_device_left(struct vn_dev *d)
{
	d->stats.peer_left++;
	if (d->running)
		take_down(d);
	vn_device_link(d);
}

void vn_device_config_changed(struct vn_dev *d)
{
	if (d->running && (d->bus->status(d) & VN_S_NEEDS_RESET)) {
		VN_LOG(WARNING, d, "the device asks to be reset");
		recover(d);
	} else
		vn_device_link(d);
}

void vn_device_broke(struct vn_dev *d, struct vn_queue *q, const char *what)
{
	VN_LOG(ERR, d, "the device breaks the rules on queue %u: it %s; it will be reset", q->index, what);
	retry_later(d, VN_RETRY_MS);
}

/* --- link --- */

static bool is_up(struct vn_dev *d)
{
	uint16_t status;

	if (!d->running || !d->admin_up)
		return false;
	if (!vn_has(d, VN_F_STATUS))
		return true;
	return !d->bus->read_config(d, offsetof(struct vn_config, status), &status, sizeof status) &&
	       (status & VN_STATUS_LINK_UP);
}

static uint32_t speed(struct vn_dev *d)
{
	uint32_t mbps;

	if (d->options.speed)
		return d->options.speed;
	if (!vn_has(d, VN_F_SPEED_DUPLEX) ||
		d->bus->read_config(d, offsetof(struct vn_config, speed), &mbps, sizeof mbps) ||
		mbps > INT32_MAX)
		return RTE_ETH_SPEED_NUM_UNKNOWN;
	return mbps;
}

bool vn_device_link(struct vn_dev *d)
{
	struct rte_eth_link link = {
		.link_duplex = RTE_ETH_LINK_FULL_DUPLEX, .link_autoneg = RTE_ETH_LINK_FIXED};

	link.link_status = is_up(d) ? RTE_ETH_LINK_UP : RTE_ETH_LINK_DOWN;
	link.link_speed = link.link_status ? speed(d) : RTE_ETH_SPEED_NUM_NONE;
	if (rte_eth_linkstatus_set(d->eth, &link))
		return false;
	d->link_news = true;
	return true;
}

/* --- birth and death --- */

static void learn_config(struct vn_dev *d)
{
	uint16_t pairs = 1, mtu = 0;
	struct rte_ether_addr mac;

	d->mtu_max = VN_MTU_MAX;
	if ((d->offered & VN_BIT(VN_F_MTU)) &&
		!d->bus->read_config(d, offsetof(struct vn_config, mtu), &mtu, sizeof mtu)) {
		if (mtu >= RTE_ETHER_MIN_MTU && mtu <= VN_MTU_MAX)
			d->mtu_max = mtu;
		else
			d->stats.bad_config++;
	}
	if ((d->offered & VN_BIT(VN_F_MQ)) &&
		!d->bus->read_config(
			d, offsetof(struct vn_config, max_virtqueue_pairs), &pairs, sizeof pairs) &&
		!pairs) {
		pairs = 1;
		d->stats.bad_config++;
	}
	vn_rss_learn(d);
	d->device_pairs = pairs;
	d->pairs_max = RTE_MIN(pairs, (uint16_t)VN_PAIRS_MAX);
	if (!(d->offered & VN_BIT(VN_F_MAC)) ||
		d->bus->read_config(d, offsetof(struct vn_config, mac), &mac, sizeof mac) ||
		!rte_is_valid_assigned_ether_addr(&mac))
		rte_eth_random_addr(mac.addr_bytes);
	d->macs[0] = mac;
}

int vn_device_init(struct vn_dev *d)
{
	int e;

	vn_device_lock(d);
	e = d->bus->features(d, &d->offered);
	if (!e || e == -ENOTCONN) {
		learn_config(d);
		e = 0;
	}
	vn_device_unlock(d);
	return e;
}

void vn_device_fini(struct vn_dev *d)
{
	d->bus->quiet(d);
	rte_eal_alarm_cancel(retry, d);
	vn_device_lock(d);
	vn_control_free(d);
	free_spares(d);
	d->bus->close(d);
	vn_device_unlock(d);
	pthread_mutex_destroy(&d->lock);
}
