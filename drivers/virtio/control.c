/* SPDX-License-Identifier: BSD-3-Clause */
/* One command at a time, waited for: its three parts are descriptors 0 to 2 of the control queue. */
#include "drivers/virtio/control.h"

#include <errno.h>
#include <rte_cycles.h>
#include <rte_errno.h>
#include <string.h>

#include "drivers/virtio/barrier.h"

enum {
	RING = 16,	    /* descriptors of the control queue: at least 3 */
	DATA_MAX = 2048,    /* bytes of a command */
	PATIENCE_MS = 2000, /* that a device may take for one */
	LOOK_US = 20,
};

/* What the device reads and writes. */
struct message {
	struct vn_ctrl_hdr hdr;
	uint8_t ack;
	uint8_t data[DATA_MAX];
};

int vn_control_up(struct vn_dev *d)
{
	uint16_t index = (uint16_t)(2 * (vn_has(d, VN_F_MQ) ? d->device_pairs : 1)), most, size = RING;

	_Static_assert(sizeof(struct message) <= VN_CTRL_ROOM, "the control queue has room for a command");
	if (d->ctrl && d->ctrl->index != index) {
		vn_queue_free(d->ctrl);
		d->ctrl = NULL;
	}
	if (!d->ctrl)
		d->ctrl = vn_queue_new(d, VN_CTRL, index, RING, d->data->numa_node);
	if (!d->ctrl)
		return -rte_errno;
	most = d->bus->queue_size(d, index);
	while (size > most)
		size /= 2;
	if (size < 4) {
		VN_LOG(ERR, d, "the device's control queue has %u descriptors", most);
		return -ENOTSUP;
	}
	vn_queue_reset(d->ctrl, size, &d->mode);
	return d->bus->queue_up(d, d->ctrl);
}

void vn_control_free(struct vn_dev *d)
{
	vn_queue_free(d->ctrl);
	d->ctrl = NULL;
}

/* --- one command --- */

struct part {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
};

static void send_split(struct vn_queue *q, const struct part *parts, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		q->split.desc[i] = (struct vn_desc){parts[i].addr, parts[i].len,
			parts[i].flags | (i + 1 < n ? VN_DESC_NEXT : 0), (uint16_t)(i + 1)};
	q->split.avail->ring[q->avail_pos++ & q->mask] = 0;
	vn_wmb(q);
	VN_WRITE(q->split.avail->idx, q->avail_pos);
}

static bool done_split(struct vn_queue *q)
{
	return VN_READ(q->split.used->idx) == q->avail_pos;
}

static uint16_t place(const struct vn_queue *q, unsigned i, uint16_t *lap)
{
	unsigned at = q->avail_pos + i;

	*lap = q->avail_flags;
	if (at < q->size)
		return (uint16_t)at;
	*lap ^= VN_DESC_AVAIL | VN_DESC_USED;
	return (uint16_t)(at - q->size);
}

static void send_packed(struct vn_queue *q, const struct part *parts, unsigned n)
{
	uint16_t lap;

	for (unsigned i = n; i-- > 0;) { /* the first last */
		struct vn_pdesc *p = &q->packed.desc[place(q, i, &lap)];

		p->addr = parts[i].addr;
		p->len = parts[i].len;
		p->id = q->in_order ? q->avail_pos : 0;
		vn_wmb(q);
		VN_WRITE(p->flags, (uint16_t)(parts[i].flags | lap | (i + 1 < n ? VN_DESC_NEXT : 0)));
	}
	q->used_pos = q->avail_pos;
	q->used_flags = q->avail_flags & VN_DESC_AVAIL ? VN_DESC_AVAIL | VN_DESC_USED : 0;
	q->avail_pos = place(q, n, &lap);
	q->avail_flags = lap;
}

static bool done_packed(struct vn_queue *q)
{
	return (VN_READ(q->packed.desc[q->used_pos].flags) & (VN_DESC_AVAIL | VN_DESC_USED)) == q->used_flags;
}

static int wait_for(struct vn_dev *d, struct vn_queue *q)
{
	bool (*done)(struct vn_queue *) = d->mode.packed ? done_packed : done_split;

	for (unsigned us = 0; !done(q); us += LOOK_US) {
		if (us > PATIENCE_MS * 1000) {
			vn_queue_break(q, "does not answer a command");
			return -ETIMEDOUT;
		}
		rte_delay_us_sleep(LOOK_US);
	}
	vn_rmb(q);
	return 0;
}

int vn_control(struct vn_dev *d, uint8_t class, uint8_t cmd, const void *data, size_t len)
{
	struct vn_queue *q = d->ctrl;
	struct message *m;
	uint64_t at;
	int e;

	if (!d->features)
		return -ENOTCONN;
	if (!vn_has(d, VN_F_CTRL_VQ))
		return -ENOTSUP;
	if (q->broken)
		return -ETIMEDOUT;
	if (len > DATA_MAX)
		return -EMSGSIZE;
	m = (struct message *)q->aside;
	at = q->aside_addr;
	m->hdr = (struct vn_ctrl_hdr){class, cmd};
	m->ack = 0xff;
	memcpy(m->data, data, len);
	const struct part parts[] = {
		{at + offsetof(struct message, hdr), sizeof m->hdr, 0},
		{at + offsetof(struct message, data), (uint32_t)len, 0},
		{at + offsetof(struct message, ack), 1, VN_DESC_WRITE},
	};
	if (d->mode.packed)
		send_packed(q, parts, RTE_DIM(parts));
	else
		send_split(q, parts, RTE_DIM(parts));
	vn_mb(q);
	q->notify(q);
	e = wait_for(d, q);
	if (e)
		return e;
	return VN_READ(m->ack) == VN_CTRL_OK ? 0 : -ENOTSUP;
}

/* --- what is asked --- */

static int switch_on(struct vn_dev *d, uint8_t cmd, bool on)
{
	uint8_t value = on;

	return vn_control(d, VN_CTRL_RX, cmd, &value, 1);
}

int vn_control_rx_mode(struct vn_dev *d)
{
	int e;

	if (d->bus->unfiltered)
		return 0;
	if (!vn_has(d, VN_F_CTRL_RX))
		return d->features ? -ENOTSUP : 0;
	e = switch_on(d, VN_CTRL_RX_PROMISC, d->promiscuous);
	return e ? e : switch_on(d, VN_CTRL_RX_ALLMULTI, d->allmulticast);
}

/* The first address is the device's own; the others, unicast and multicast, are tables. */
int vn_control_macs(struct vn_dev *d)
{
	uint8_t tables[2 * sizeof(uint32_t) + VN_MACS_MAX * sizeof d->macs[0]], *p = tables;
	int e;

	if (d->bus->unfiltered || !d->features)
		return 0;
	if (!vn_has(d, VN_F_CTRL_RX))
		return -ENOTSUP;
	if (vn_has(d, VN_F_CTRL_MAC_ADDR)) {
		e = vn_control(d, VN_CTRL_MAC, VN_CTRL_MAC_ADDR_SET, &d->macs[0], sizeof d->macs[0]);
		if (e)
			return e;
	}
	for (int multicast = 0; multicast < 2; multicast++) {
		uint8_t *count = p;
		uint32_t n = 0;

		p += sizeof n;
		for (unsigned i = 1; i < VN_MACS_MAX; i++) {
			const struct rte_ether_addr *a = &d->macs[i];

			if (rte_is_zero_ether_addr(a) || rte_is_multicast_ether_addr(a) != multicast)
				continue;
			memcpy(p, a, sizeof *a);
			p += sizeof *a;
			n++;
		}
		memcpy(count, &n, sizeof n);
	}
	return vn_control(d, VN_CTRL_MAC, VN_CTRL_MAC_TABLE_SET, tables, (size_t)(p - tables));
}

int vn_control_vlan(struct vn_dev *d, uint16_t id, bool on)
{
	if (d->bus->unfiltered)
		return 0;
	if (!vn_has(d, VN_F_CTRL_VLAN))
		return d->features ? -ENOTSUP : 0;
	return vn_control(d, VN_CTRL_VLAN, on ? VN_CTRL_VLAN_ADD : VN_CTRL_VLAN_DEL, &id, sizeof id);
}

static void set_pairs(struct vn_dev *d)
{
	if (d->pairs == 1)
		return;
	if (vn_has(d, VN_F_RSS)) {
		if (!vn_rss_send(d))
			return;
		VN_LOG(ERR, d, "the device does not let its hash be set");
	}
	if (vn_control(d, VN_CTRL_MQ, VN_CTRL_MQ_PAIRS_SET, &d->pairs, sizeof d->pairs))
		VN_LOG(ERR, d, "the device does not take %u pairs of queues", d->pairs);
}

void vn_control_restore(struct vn_dev *d)
{
	if (!vn_has(d, VN_F_CTRL_VQ))
		return;
	set_pairs(d);
	if (vn_control_rx_mode(d))
		VN_LOG(NOTICE, d, "the device does not let its filter be set");
	vn_control_macs(d);
	for (unsigned id = 0; id < 4096; id++)
		if (d->vlans[id / 64] & 1ull << id % 64)
			vn_control_vlan(d, (uint16_t)id, true);
}
