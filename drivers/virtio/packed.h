/* SPDX-License-Identifier: BSD-3-Clause */
/* packed: a packed virtqueue's own part of queue.h. */
#ifndef SD_DRIVERS_VIRTIO_PACKED_H
#define SD_DRIVERS_VIRTIO_PACKED_H

#include "drivers/virtio/queue.h"

/* What of an empty ring is not zero. */
void vn_packed_reset(struct vn_queue *q);
/* On: from the buffer on that comes after ahead others. */
void vn_packed_interrupt(struct vn_queue *q, bool on, uint16_t ahead);
/* Used buffers that wait to be looked at. */
uint16_t vn_packed_waiting(const struct vn_queue *q);
vn_burst *vn_packed_burst(const struct vn_queue *q);
/* Transmit: frees what has been sent, up to about so many descriptors. */
void vn_packed_reclaim(struct vn_queue *q, uint16_t want);

#endif
