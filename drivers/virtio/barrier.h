/* SPDX-License-Identifier: BSD-3-Clause */
/* Order between the processor and the device: that of other processors, or of the bus (ORDER_PLATFORM). */
#ifndef SD_DRIVERS_VIRTIO_BARRIER_H
#define SD_DRIVERS_VIRTIO_BARRIER_H

#include <rte_atomic.h>

#include "drivers/virtio/queue.h"

/* What was written before is there before what is written after. */
static inline void vn_wmb(const struct vn_queue *q)
{
	if (q->platform_order)
		rte_io_wmb();
	else
		rte_atomic_thread_fence(__ATOMIC_RELEASE);
}

static inline void vn_rmb(const struct vn_queue *q)
{
	if (q->platform_order)
		rte_io_rmb();
	else
		rte_atomic_thread_fence(__ATOMIC_ACQUIRE);
}

static inline void vn_mb(const struct vn_queue *q)
{
	if (q->platform_order)
		rte_io_mb();
	else
		rte_smp_mb();
}

/* The other side may write it at any time. */
#define VN_READ(field)	       __atomic_load_n(&(field), __ATOMIC_RELAXED)
#define VN_WRITE(field, value) __atomic_store_n(&(field), (value), __ATOMIC_RELAXED)

#endif
