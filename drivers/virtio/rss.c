/* SPDX-License-Identifier: BSD-3-Clause */
#include "drivers/virtio/rss.h"

#include <errno.h>
#include <rte_common.h>
#include <string.h>

#include "drivers/virtio/control.h"
#include "drivers/virtio/device.h"

/* The key that Microsoft's specification of RSS gives as its example, and most drivers use. */
static const uint8_t usual_key[VN_RSS_KEY] = {0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67,
	0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d,
	0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa};

/* VIRTIO_NET_RSS_HASH_TYPE_*, from bit 0 on. */
static const uint64_t types[] = {RTE_ETH_RSS_IPV4, RTE_ETH_RSS_NONFRAG_IPV4_TCP, RTE_ETH_RSS_NONFRAG_IPV4_UDP,
	RTE_ETH_RSS_IPV6, RTE_ETH_RSS_NONFRAG_IPV6_TCP, RTE_ETH_RSS_NONFRAG_IPV6_UDP, RTE_ETH_RSS_IPV6_EX,
	RTE_ETH_RSS_IPV6_TCP_EX, RTE_ETH_RSS_IPV6_UDP_EX};

static uint64_t to_dpdk(uint32_t hashed)
{
	uint64_t out = 0;

	for (unsigned i = 0; i < RTE_DIM(types); i++)
		out |= hashed & 1u << i ? types[i] : 0;
	return out;
}

static uint32_t from_dpdk(uint64_t wanted)
{
	uint32_t out = 0;

	for (unsigned i = 0; i < RTE_DIM(types); i++)
		out |= wanted & types[i] ? 1u << i : 0;
	return out;
}

void vn_rss_learn(struct vn_dev *d)
{
	const size_t from = offsetof(struct vn_config, rss_max_key_size);
	struct vn_config c;

	d->rss.table = 0;
	d->rss.types = 0;
	if (!(d->offered & VN_BIT(VN_F_RSS)) || !(d->offered & VN_BIT(VN_F_CTRL_VQ)) ||
		d->bus->read_config(d, from, (uint8_t *)&c + from, sizeof c - from))
		return;
	if (c.rss_max_key_size < VN_RSS_KEY || !c.rss_max_indirection_table_length) {
		d->stats.bad_config++;
		return;
	}
	d->rss.table = VN_RSS_TABLE;
	while (d->rss.table > c.rss_max_indirection_table_length)
		d->rss.table /= 2;
	d->rss.types = c.supported_hash_types & ((1u << RTE_DIM(types)) - 1);
}

uint64_t vn_rss_offloads(const struct vn_dev *d)
{
	return d->rss.table ? to_dpdk(d->rss.types) : 0;
}

static void set_key(struct vn_rss *r, const struct rte_eth_rss_conf *conf)
{
	if (conf->rss_key && conf->rss_key_len >= VN_RSS_KEY)
		memcpy(r->key, conf->rss_key, VN_RSS_KEY);
}

void vn_rss_configure(struct vn_dev *d)
{
	const struct rte_eth_conf *conf = &d->data->dev_conf;
	struct vn_rss *r = &d->rss;

	r->on = r->table && conf->rxmode.mq_mode == RTE_ETH_MQ_RX_RSS && d->data->nb_rx_queues > 1;
	r->hashed = from_dpdk(conf->rx_adv_conf.rss_conf.rss_hf) & r->types;
	memcpy(r->key, usual_key, sizeof r->key);
	set_key(r, &conf->rx_adv_conf.rss_conf);
	for (unsigned i = 0; i < VN_RSS_TABLE; i++)
		r->queues[i] = d->data->nb_rx_queues ? (uint16_t)(i % d->data->nb_rx_queues) : 0;
}

static uint8_t *put16(uint8_t *p, uint16_t v)
{
	memcpy(p, &v, sizeof v);
	return p + sizeof v;
}

int vn_rss_send(struct vn_dev *d)
{
	uint8_t command[4 + 2 + 2 + 2 * VN_RSS_TABLE + 2 + 1 + VN_RSS_KEY], *p = command;
	const struct vn_rss *r = &d->rss;

	memcpy(p, &r->hashed, sizeof r->hashed);
	p = put16(p + sizeof r->hashed, (uint16_t)(r->table - 1));
	p = put16(p, 0); /* for what is not hashed */
	for (unsigned i = 0; i < r->table; i++)
		p = put16(p, r->queues[i]);
	p = put16(p, d->pairs);
	*p++ = VN_RSS_KEY;
	memcpy(p, r->key, VN_RSS_KEY);
	p += VN_RSS_KEY;
	return vn_control(d, VN_CTRL_MQ, VN_CTRL_MQ_RSS_CONFIG, command, (size_t)(p - command));
}

/* --- the ethdev's --- */

/* The device's, if it runs: what it refuses is as it was. */
static int change(struct vn_dev *d, const struct vn_rss *to)
{
	struct vn_rss before = d->rss;
	int e = 0;

	d->rss = *to;
	if (d->running && vn_has(d, VN_F_RSS))
		e = vn_rss_send(d);
	if (e)
		d->rss = before;
	return e;
}

int vn_rss_hash_update(struct rte_eth_dev *eth, struct rte_eth_rss_conf *conf)
{
	struct vn_dev *d = eth->data->dev_private;
	struct vn_rss r;
	int e;

	if (!d->rss.table)
		return -ENOTSUP;
	if (conf->rss_hf & ~vn_rss_offloads(d))
		return -EINVAL;
	vn_device_lock(d);
	r = d->rss;
	r.hashed = from_dpdk(conf->rss_hf);
	set_key(&r, conf);
	e = change(d, &r);
	vn_device_unlock(d);
	return e;
}

int vn_rss_hash_get(struct rte_eth_dev *eth, struct rte_eth_rss_conf *conf)
{
	const struct vn_dev *d = eth->data->dev_private;

	if (!d->rss.table)
		return -ENOTSUP;
	conf->rss_hf = d->rss.on ? to_dpdk(d->rss.hashed) : 0;
	if (conf->rss_key && conf->rss_key_len >= VN_RSS_KEY)
		memcpy(conf->rss_key, d->rss.key, VN_RSS_KEY);
	conf->rss_key_len = VN_RSS_KEY;
	return 0;
}

int vn_rss_reta_update(struct rte_eth_dev *eth, struct rte_eth_rss_reta_entry64 *table, uint16_t size)
{
	struct vn_dev *d = eth->data->dev_private;
	struct vn_rss r;
	int e;

	if (!d->rss.table)
		return -ENOTSUP;
	if (size != d->rss.table)
		return -EINVAL;
	vn_device_lock(d);
	r = d->rss;
	for (unsigned i = 0; i < size; i++) {
		const struct rte_eth_rss_reta_entry64 *group = &table[i / RTE_ETH_RETA_GROUP_SIZE];
		unsigned at = i % RTE_ETH_RETA_GROUP_SIZE;

		if (group->mask & 1ull << at)
			r.queues[i] = group->reta[at];
	}
	e = change(d, &r);
	vn_device_unlock(d);
	return e;
}

int vn_rss_reta_query(struct rte_eth_dev *eth, struct rte_eth_rss_reta_entry64 *table, uint16_t size)
{
	const struct vn_dev *d = eth->data->dev_private;

	if (!d->rss.table)
		return -ENOTSUP;
	if (size != d->rss.table)
		return -EINVAL;
	for (unsigned i = 0; i < size; i++)
		table[i / RTE_ETH_RETA_GROUP_SIZE].reta[i % RTE_ETH_RETA_GROUP_SIZE] = d->rss.queues[i];
	return 0;
}
