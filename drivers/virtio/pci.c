/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where the device says that its registers are is checked against the BARs that have been mapped; what it
 * says later (sizes of queues, where to notify) against that.
 */
#include "drivers/virtio/pci.h"

#include <errno.h>
#include <rte_cycles.h>
#include <rte_interrupts.h>
#include <rte_io.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/virtio/packed.h"

enum {
	CAPS_MAX = 48, /* in a list, until it is taken for a loop */
	CAP_VENDOR = 0x09,
	CAP_MSIX = 0x11,
	MSIX_SIZE = 0x7ff, /* less one; in the word behind a capability's first */
	STATUS_HAS_CAPS = 1 << 4,
	RESET_MS = 1000,   /* that a device may take */
	CONFIG_TRIES = 16, /* to read values that do not change meanwhile */
	NO_VECTOR = 0xffff,
	CONFIG_VECTOR = 0, /* those of receive queues come behind it */
	BARS = 6,
};

enum cap_type { CAP_COMMON = 1, CAP_NOTIFY = 2, CAP_ISR = 3, CAP_DEVICE = 4 };

/* 4.1.4 */
struct cap {
	uint8_t vendor, next, len, type, bar, id, padding[2];
	uint32_t offset, length;
};

/* 4.1.4.3 */
struct common {
	uint32_t device_feature_select, device_feature, driver_feature_select, driver_feature;
	uint16_t config_vector, num_queues;
	uint8_t status, generation;
	uint16_t queue_select, queue_size, queue_vector, queue_enable, queue_notify_off;
	uint32_t queue_desc[2], queue_driver[2], queue_device[2];
};
_Static_assert(sizeof(struct common) == 56, "the common configuration has 56 bytes");

/* Registers. */
struct window {
	uint8_t *at; /* NULL: there are none */
	uint32_t len;
};

struct vpci {
	struct vn_dev *d;
	struct rte_pci_device *dev;
	volatile struct common *common;
	struct window notify, isr, config;
	uint32_t notify_multiplier;
	uint16_t messages; /* of MSI-X that the device has */
	uint16_t vectors;  /* of receive queues, in use */
	bool watched;
};

static struct vpci *pci_of(const struct vn_dev *d)
{
	return d->bus_data;
}

#define READ8(field)	      rte_read8(&(field))
#define READ16(field)	      rte_read16(&(field))
#define READ32(field)	      rte_read32(&(field))
#define WRITE8(value, field)  rte_write8((value), &(field))
#define WRITE16(value, field) rte_write16((value), &(field))
#define WRITE32(value, field) rte_write32((value), &(field))

/* --- finding the registers --- */

static struct window window_of(const struct rte_pci_device *dev, const struct cap *c)
{
	const struct rte_mem_resource *bar = c->bar < BARS ? &dev->mem_resource[c->bar] : NULL;

	if (!bar || !bar->addr || c->length > bar->len || c->offset > bar->len - c->length)
		return (struct window){NULL, 0};
	return (struct window){(uint8_t *)bar->addr + c->offset, c->length};
}

/* The first of each type counts. */
static void use_cap(struct vpci *p, const struct cap *c, uint8_t place)
{
	struct window w = window_of(p->dev, c);

	if (!w.at)
		return;
	switch (c->type) {
	case CAP_COMMON:
		if (!p->common && w.len >= sizeof(struct common) && !((uintptr_t)w.at & 3))
			p->common = (volatile struct common *)w.at;
		break;
	case CAP_NOTIFY:
		if (!p->notify.at &&
			rte_pci_read_config(p->dev, &p->notify_multiplier, 4, place + (int)sizeof *c) == 4)
			p->notify = w;
		break;
	case CAP_ISR:
		if (!p->isr.at && w.len)
			p->isr = w;
		break;
	case CAP_DEVICE:
		if (!p->config.at)
			p->config = w;
		break;
	}
}

static int find_registers(struct vpci *p)
{
	uint16_t status, control;
	uint8_t place;

	if (rte_pci_read_config(p->dev, &status, 2, 0x06) != 2 || !(status & STATUS_HAS_CAPS) ||
		rte_pci_read_config(p->dev, &place, 1, 0x34) != 1)
		return -ENODEV;
	for (unsigned i = 0; i < CAPS_MAX && place >= 0x40; i++) {
		struct cap c;

		if (rte_pci_read_config(p->dev, &c, sizeof c, place) != sizeof c)
			break;
		if (c.vendor == CAP_VENDOR && c.len >= sizeof c)
			use_cap(p, &c, place);
		if (c.vendor == CAP_MSIX && rte_pci_read_config(p->dev, &control, 2, place + 2) == 2)
			p->messages = (control & MSIX_SIZE) + 1;
		place = c.next & 0xfc;
	}
	if (!p->common || !p->notify.at || !p->isr.at || !p->config.at) {
		VN_LOG(ERR, p->d, "the device has no virtio 1.x interface");
		return -ENODEV;
	}
	return 0;
}

/* --- events --- */

static void on_interrupt(void *arg)
{
	struct vpci *p = arg;

	vn_device_lock(p->d);
	rte_read8(p->isr.at); /* which takes it back, if it is not a message */
	rte_intr_ack(p->dev->intr_handle);
	vn_device_config_changed(p->d);
	vn_device_unlock(p->d);
}

/* The descriptors of vectors are counted when the callback is registered. */
static int watch(struct vpci *p)
{
	if (rte_intr_callback_register(p->dev->intr_handle, on_interrupt, p))
		return -ENOTSUP;
	p->watched = true;
	if (rte_intr_enable(p->dev->intr_handle))
		return -ENOTSUP;
	return 0;
}

static void unwatch(struct vpci *p)
{
	if (!p->watched)
		return;
	rte_intr_disable(p->dev->intr_handle);
	while (rte_intr_callback_unregister(p->dev->intr_handle, on_interrupt, p) == -EAGAIN)
		rte_delay_us_sleep(100);
	p->watched = false;
}

/* --- the bus --- */

static int pci_features(struct vn_dev *d, uint64_t *offered)
{
	struct vpci *p = pci_of(d);
	uint32_t low;

	WRITE32(0, p->common->device_feature_select);
	low = READ32(p->common->device_feature);
	WRITE32(1, p->common->device_feature_select);
	*offered = low | (uint64_t)READ32(p->common->device_feature) << 32;
	return 0;
}

static int pci_set_features(struct vn_dev *d, uint64_t features)
{
	struct vpci *p = pci_of(d);

	/* The link is told of by an interrupt where there is one; it is looked at besides. */
	if (!p->watched && p->messages)
		watch(p);
	WRITE16(p->watched ? CONFIG_VECTOR : NO_VECTOR, p->common->config_vector);
	WRITE32(0, p->common->driver_feature_select);
	WRITE32((uint32_t)features, p->common->driver_feature);
	WRITE32(1, p->common->driver_feature_select);
	WRITE32((uint32_t)(features >> 32), p->common->driver_feature);
	return 0;
}

static uint8_t pci_status(struct vn_dev *d)
{
	return READ8(pci_of(d)->common->status);
}

static int pci_set_status(struct vn_dev *d, uint8_t status)
{
	WRITE8(status, pci_of(d)->common->status);
	return 0;
}

static int pci_reset(struct vn_dev *d)
{
	pci_set_status(d, 0);
	for (unsigned ms = 0; pci_status(d); ms++) {
		if (ms == RESET_MS) {
			VN_LOG(ERR, d, "the device does not reset");
			return -ETIMEDOUT;
		}
		rte_delay_us_sleep(1000);
	}
	return 0;
}

static uint16_t pci_queue_size(struct vn_dev *d, uint16_t index)
{
	struct vpci *p = pci_of(d);
	uint16_t size;

	if (index >= READ16(p->common->num_queues))
		return 0;
	WRITE16(index, p->common->queue_select);
	size = READ16(p->common->queue_size);
	return size > VN_QUEUE_MAX ? VN_QUEUE_MAX : size;
}

static void write_address(volatile uint32_t field[2], uint64_t addr)
{
	rte_write32((uint32_t)addr, &field[0]);
	rte_write32((uint32_t)(addr >> 32), &field[1]);
}

static int set_vector(struct vpci *p, const struct vn_queue *q)
{
	uint16_t vector = (uint16_t)(CONFIG_VECTOR + 1 + q->index / 2);

	if (q->kind != VN_RX || vector > p->vectors)
		vector = NO_VECTOR;
	WRITE16(vector, p->common->queue_vector);
	if (READ16(p->common->queue_vector) == vector)
		return 0;
	VN_LOG(ERR, p->d, "the device has no interrupt for queue %u", q->index);
	return -ENOTSUP;
}

static int pci_queue_up(struct vn_dev *d, struct vn_queue *q)
{
	struct vpci *p = pci_of(d);
	uint64_t place;
	int e;

	WRITE16(q->index, p->common->queue_select);
	WRITE16(q->size, p->common->queue_size);
	e = set_vector(p, q);
	if (e)
		return e;
	write_address(p->common->queue_desc, q->ring_addr[0]);
	write_address(p->common->queue_driver, q->ring_addr[1]);
	write_address(p->common->queue_device, q->ring_addr[2]);
	place = (uint64_t)READ16(p->common->queue_notify_off) * p->notify_multiplier;
	if (place + (q->mode.notification_data ? 4 : 2) > p->notify.len || place & 1) {
		VN_LOG(ERR, d, "the device wants queue %u to be notified outside of its registers", q->index);
		return -EINVAL;
	}
	q->notify_at = p->notify.at + place;
	WRITE16(1, p->common->queue_enable);
	return 0;
}

static void pci_notify(struct vn_queue *q)
{
	uint32_t next = q->avail_pos;

	if (!q->mode.notification_data) {
		rte_write16(q->index, q->notify_at);
		return;
	}
	if (q->mode.packed && q->avail_flags & VN_DESC_AVAIL)
		next |= 1 << 15;
	rte_write32(q->index | next << 16, q->notify_at);
}

static int pci_read_config(struct vn_dev *d, size_t offset, void *to, size_t len)
{
	struct vpci *p = pci_of(d);

	if (offset + len > p->config.len)
		return -ENOENT;
	for (unsigned i = 0; i < CONFIG_TRIES; i++) {
		uint8_t before = READ8(p->common->generation);

		for (size_t k = 0; k < len; k++)
			((uint8_t *)to)[k] = rte_read8(p->config.at + offset + k);
		if (READ8(p->common->generation) == before)
			return 0;
	}
	return -ENOENT;
}

/* --- receive interrupts --- */

/* EAL takes a device that has no messages for one that can have many. */
static bool pci_has_vectors(const struct vn_dev *d, uint16_t n)
{
	const struct vpci *p = pci_of(d);

	return rte_intr_cap_multiple(p->dev->intr_handle) && p->messages > CONFIG_VECTOR + n;
}

static int pci_interrupts_up(struct vn_dev *d, uint16_t n)
{
	struct vpci *p = pci_of(d);
	struct rte_intr_handle *h = p->dev->intr_handle;
	int e = 0;

	unwatch(p);
	if (rte_intr_efd_enable(h, n) || rte_intr_vec_list_alloc(h, "vn", n))
		e = -ENOMEM;
	for (uint16_t i = 0; !e && i < n; i++)
		if (rte_intr_vec_list_index_set(h, i, i + RTE_INTR_VEC_RXTX_OFFSET))
			e = -ENOMEM;
	if (!e)
		e = watch(p);
	p->vectors = e ? 0 : n;
	return e;
}

static void pci_interrupts_down(struct vn_dev *d)
{
	struct vpci *p = pci_of(d);

	unwatch(p);
	rte_intr_efd_disable(p->dev->intr_handle);
	rte_intr_vec_list_free(p->dev->intr_handle);
	p->vectors = 0;
}

/* --- birth and death --- */

static void pci_quiet(struct vn_dev *d)
{
	unwatch(pci_of(d));
}

static void pci_close(struct vn_dev *d)
{
	struct vpci *p = pci_of(d);

	if (p->common)
		pci_reset(d);
	rte_pci_unmap_device(p->dev);
	free(p);
	d->bus_data = NULL;
}

static const struct vn_bus pci_bus = {
	.physical = true,
	.features = pci_features,
	.reset = pci_reset,
	.status = pci_status,
	.set_status = pci_set_status,
	.set_features = pci_set_features,
	.queue_size = pci_queue_size,
	.queue_up = pci_queue_up,
	.notify = pci_notify,
	.read_config = pci_read_config,
	.has_vectors = pci_has_vectors,
	.interrupts_up = pci_interrupts_up,
	.interrupts_down = pci_interrupts_down,
	.quiet = pci_quiet,
	.close = pci_close,
};

int vn_pci_open(struct vn_dev *d, struct rte_pci_device *dev)
{
	struct vpci *p = calloc(1, sizeof *p);
	int e;

	if (!p)
		return -ENOMEM;
	p->d = d;
	p->dev = dev;
	d->bus = &pci_bus;
	d->bus_data = p;
	e = rte_pci_map_device(dev);
	if (e) {
		free(p);
		d->bus_data = NULL;
		return e;
	}
	e = find_registers(p);
	if (!e)
		e = pci_reset(d);
	if (e)
		pci_close(d);
	return e;
}
