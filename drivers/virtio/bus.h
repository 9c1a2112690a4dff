/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bus: how the driver reaches a device. The device's state machine (device.h) and its queues are the same on
 * all; a bus carries feature bits, status, configuration, queue addresses, notifications and signals.
 *
 * All calls come with the device locked, except notify, which a burst makes; with RSS that of another queue,
 * too.
 */
#ifndef SD_DRIVERS_VIRTIO_BUS_H
#define SD_DRIVERS_VIRTIO_BUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vn_dev;
struct vn_queue;

struct vn_bus {
	bool physical;	 /* the device takes IOVAs, not virtual addresses */
	bool unfiltered; /* it delivers every frame, whatever is asked */
	/* What the device offers. -ENOTCONN: there is none at the moment; *offered is what one is likely to.
	 */
	int (*features)(struct vn_dev *d, uint64_t *offered);
	/* The device forgets all that it knew. Errors: -ETIMEDOUT, -ENOTCONN. */
	int (*reset)(struct vn_dev *d);
	uint8_t (*status)(struct vn_dev *d);
	int (*set_status)(struct vn_dev *d, uint8_t status);
	/* What has been chosen; before FEATURES_OK. */
	int (*set_features)(struct vn_dev *d, uint64_t features);
	/* Descriptors of the queue with this index that the device can have at most; 0: there is no such
	 * queue. */
	uint16_t (*queue_size)(struct vn_dev *d, uint16_t index);
	/* Tells the device where q is and makes its notifications work; before DRIVER_OK. */
	int (*queue_up)(struct vn_dev *d, struct vn_queue *q);
	/* What the bus has for q, when q is freed. NULL: nothing. */
	void (*queue_free)(struct vn_queue *q);
	/* Notifies the device of new buffers. */
	void (*notify)(struct vn_queue *q);
	/* Bytes at offset of struct vn_config, consistent with each other. -ENOENT: none. */
	int (*read_config)(struct vn_dev *d, size_t offset, void *to, size_t len);
	/* Can n receive queues have an interrupt each? NULL: yes. */
	bool (*has_vectors)(const struct vn_dev *d, uint16_t n);
	/* Receive interrupts: a vector for each of n receive queues, before queue_up. */
	int (*interrupts_up)(struct vn_dev *d, uint16_t n);
	void (*interrupts_down)(struct vn_dev *d);
	/* No event comes any more; without the device's lock. Then close, with it. */
	void (*quiet)(struct vn_dev *d);
	void (*close)(struct vn_dev *d);
};

#endif
