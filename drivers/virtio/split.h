/* SPDX-License-Identifier: BSD-3-Clause */
/* split: a split virtqueue's own part of queue.h. */
#ifndef SD_DRIVERS_VIRTIO_SPLIT_H
#define SD_DRIVERS_VIRTIO_SPLIT_H

#include "drivers/virtio/queue.h"

static inline uint16_t *vn_split_used_event(const struct vn_queue *q)
{
	return &q->split.avail->ring[q->size];
}

static inline uint16_t *vn_split_avail_event(const struct vn_queue *q)
{
	return (uint16_t *)&q->split.used->ring[q->size];
}

/* What of an empty ring is not zero. */
void vn_split_reset(struct vn_queue *q);
/* On: from the buffer on that comes after ahead others. */
void vn_split_interrupt(struct vn_queue *q, bool on, uint16_t ahead);
/* Used buffers that wait to be looked at; 0 also if there are more than there can be. */
uint16_t vn_split_waiting(const struct vn_queue *q);
vn_burst *vn_split_burst(const struct vn_queue *q);
/* Transmit: frees what has been sent, up to about so many descriptors. */
void vn_split_reclaim(struct vn_queue *q, uint16_t want);

#endif
