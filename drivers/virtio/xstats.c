/* SPDX-License-Identifier: BSD-3-Clause */
#include "drivers/virtio/xstats.h"

#include <stdio.h>
#include <string.h>

#include "drivers/virtio/device.h"

struct counter {
	const char *name;
	size_t offset;
};

#define OF_QUEUE(field)	 offsetof(struct vn_queue_stats, field)
#define OF_DEVICE(field) offsetof(struct vn_dev_stats, field)

/* The ethdev layer adds each queue's packets, bytes and errors by itself. */
static const struct counter of_rx[] = {
	{"no_mbufs", OF_QUEUE(no_mbufs)},
	{"kicks", OF_QUEUE(kicks)},
	{"violations", OF_QUEUE(violations)},
};

static const struct counter of_tx[] = {
	{"full", OF_QUEUE(full)},
	{"kicks", OF_QUEUE(kicks)},
	{"violations", OF_QUEUE(violations)},
};

static const struct counter of_device[] = {
	{"resets", OF_DEVICE(resets)},
	{"peer_came", OF_DEVICE(peer_came)},
	{"peer_left", OF_DEVICE(peer_left)},
	{"bad_config", OF_DEVICE(bad_config)},
};

static uint64_t value(const void *stats, const struct counter *c)
{
	return *(const uint64_t *)((const uint8_t *)stats + c->offset);
}

static void add_queue(struct rte_eth_stats *out, const struct vn_queue *q, unsigned i)
{
	const struct vn_queue_stats *s = &q->stats;
	bool rx = q->kind == VN_RX;

	*(rx ? &out->ipackets : &out->opackets) += s->packets;
	*(rx ? &out->ibytes : &out->obytes) += s->bytes;
	*(rx ? &out->ierrors : &out->oerrors) += s->errors;
	out->rx_nombuf += rx ? s->no_mbufs : 0;
	if (i >= RTE_ETHDEV_QUEUE_STAT_CNTRS)
		return;
	(rx ? out->q_ipackets : out->q_opackets)[i] = s->packets;
	(rx ? out->q_ibytes : out->q_obytes)[i] = s->bytes;
	if (rx)
		out->q_errors[i] = s->errors;
}

int vn_stats_get(struct rte_eth_dev *eth, struct rte_eth_stats *out)
{
	const struct rte_eth_dev_data *data = eth->data;

	for (unsigned i = 0; i < data->nb_rx_queues; i++)
		if (data->rx_queues[i])
			add_queue(out, data->rx_queues[i], i);
	for (unsigned i = 0; i < data->nb_tx_queues; i++)
		if (data->tx_queues[i])
			add_queue(out, data->tx_queues[i], i);
	return 0;
}

static void reset_queues(void **queues, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (queues[i])
			memset(&((struct vn_queue *)queues[i])->stats, 0, sizeof(struct vn_queue_stats));
}

int vn_stats_reset(struct rte_eth_dev *eth)
{
	struct vn_dev *d = eth->data->dev_private;

	reset_queues(eth->data->rx_queues, eth->data->nb_rx_queues);
	reset_queues(eth->data->tx_queues, eth->data->nb_tx_queues);
	memset(&d->stats, 0, sizeof d->stats);
	return 0;
}

static unsigned count(const struct rte_eth_dev_data *data)
{
	return RTE_DIM(of_device) + data->nb_rx_queues * RTE_DIM(of_rx) + data->nb_tx_queues * RTE_DIM(of_tx);
}

static unsigned put_values(
	struct rte_eth_xstat *out, unsigned at, const void *stats, const struct counter *c, unsigned n)
{
	static const struct vn_queue_stats none;

	for (unsigned i = 0; i < n; i++, at++)
		out[at] = (struct rte_eth_xstat){at, value(stats ? stats : &none, &c[i])};
	return at;
}

static const void *stats_of(const struct vn_queue *q)
{
	return q ? &q->stats : NULL;
}

int vn_xstats_get(struct rte_eth_dev *eth, struct rte_eth_xstat *out, unsigned n)
{
	const struct rte_eth_dev_data *data = eth->data;
	const struct vn_dev *d = data->dev_private;
	unsigned at = 0;

	if (n < count(data) || !out)
		return (int)count(data);
	for (unsigned i = 0; i < data->nb_rx_queues; i++)
		at = put_values(out, at, stats_of(data->rx_queues[i]), of_rx, RTE_DIM(of_rx));
	for (unsigned i = 0; i < data->nb_tx_queues; i++)
		at = put_values(out, at, stats_of(data->tx_queues[i]), of_tx, RTE_DIM(of_tx));
	return (int)put_values(out, at, &d->stats, of_device, RTE_DIM(of_device));
}

static unsigned put_names(struct rte_eth_xstat_name *out, unsigned at, const char *prefix, int queue,
	const struct counter *c, unsigned n)
{
	for (unsigned i = 0; i < n; i++, at++)
		if (queue < 0)
			snprintf(out[at].name, sizeof out[at].name, "%s_%s", prefix, c[i].name);
		else
			snprintf(out[at].name, sizeof out[at].name, "%s_q%d_%s", prefix, queue, c[i].name);
	return at;
}

int vn_xstats_get_names(struct rte_eth_dev *eth, struct rte_eth_xstat_name *out, unsigned n)
{
	const struct rte_eth_dev_data *data = eth->data;
	unsigned at = 0;

	if (n < count(data) || !out)
		return (int)count(data);
	for (unsigned i = 0; i < data->nb_rx_queues; i++)
		at = put_names(out, at, "rx", (int)i, of_rx, RTE_DIM(of_rx));
	for (unsigned i = 0; i < data->nb_tx_queues; i++)
		at = put_names(out, at, "tx", (int)i, of_tx, RTE_DIM(of_tx));
	return (int)put_names(out, at, "device", -1, of_device, RTE_DIM(of_device));
}
