/* SPDX-License-Identifier: BSD-3-Clause */
#include "drivers/virtio/queue.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <rte_cycles.h>
#include <rte_errno.h>
#include <rte_pause.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "drivers/virtio/barrier.h"
#include "drivers/virtio/device.h"
#include "drivers/virtio/frame.h"
#include "drivers/virtio/packed.h"
#include "drivers/virtio/split.h"

/* --- the guard ---
 *
 * A burst says that it is inside and then looks whether it may be; who stops the queue forbids it and then
 * looks whether one is inside. Each has to see what the other wrote, which takes a full barrier on both
 * sides; that of the burst is left to membarrier(2), which has the kernel put it there when somebody stops a
 * queue. */

enum { ASKING = 4 }; /* attempts, while frames keep coming */

static bool kernel_barrier;

void vn_queue_prepare(void)
{
	kernel_barrier = !syscall(__NR_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
}

static inline bool enter(struct vn_queue *q)
{
	VN_WRITE(q->busy, true);
	if (likely(kernel_barrier))
		rte_compiler_barrier();
	else
		rte_smp_mb();
	if (likely(VN_READ(q->live)))
		return true;
	VN_WRITE(q->busy, false);
	return false;
}

static inline void leave(struct vn_queue *q)
{
	__atomic_store_n(&q->busy, false, __ATOMIC_RELEASE);
}

/* What was written before is seen by every burst that begins, and what those wrote that have begun by us. */
static void barrier_for_both(void)
{
	rte_smp_mb();
	if (kernel_barrier)
		syscall(__NR_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
}

bool vn_queue_start(struct vn_queue *q)
{
	__atomic_store_n(&q->live, true, __ATOMIC_RELEASE);
	barrier_for_both();
	return VN_READ(q->interrupts);
}

void vn_queue_stop(struct vn_queue *q)
{
	VN_WRITE(q->live, false);
	barrier_for_both();
	for (unsigned i = 0; __atomic_load_n(&q->busy, __ATOMIC_ACQUIRE); i++)
		if (i < 1000)
			rte_pause();
		else /* it has lost its processor */
			usleep(50);
}

uint16_t vn_queue_burst(void *queue, struct rte_mbuf **pkts, uint16_t n)
{
	struct vn_queue *q = queue;
	uint16_t got;

	if (unlikely(!enter(q)))
		return 0;
	got = q->burst(q, pkts, n);
	leave(q);
	return got;
}

/* --- the device's conduct --- */

static uint16_t no_burst(struct vn_queue *q, struct rte_mbuf **pkts, uint16_t n)
{
	return 0;
}

void vn_queue_break(struct vn_queue *q, const char *what)
{
	if (q->broken)
		return;
	q->broken = true;
	q->burst = no_burst;
	q->stats.violations++;
	vn_device_broke(q->dev, q, what);
}

uint32_t vn_queue_waiting(const struct vn_queue *q)
{
	if (!VN_READ(q->live) || q->broken)
		return 0;
	return q->mode.packed ? vn_packed_waiting(q) : vn_split_waiting(q);
}

/* The device is to signal the next buffer after those that it has used already, which may be more every time
 * one looks. */
static void ask_for_interrupt(struct vn_queue *q)
{
	for (unsigned i = 0; i < ASKING; i++) {
		uint32_t waiting = vn_queue_waiting(q);

		if (q->mode.packed)
			vn_packed_interrupt(q, true, (uint16_t)waiting);
		else
			vn_split_interrupt(q, true, (uint16_t)waiting);
		vn_mb(q);
		if (vn_queue_waiting(q) == waiting)
			return;
	}
}

void vn_queue_interrupt(struct vn_queue *q, bool on)
{
	VN_WRITE(q->interrupts, on); /* also for when the ring is laid out, and started */
	if (!enter(q))
		return;
	if (on)
		ask_for_interrupt(q);
	else if (q->mode.packed)
		vn_packed_interrupt(q, false, 0);
	else
		vn_split_interrupt(q, false, 0);
	leave(q);
}

/* --- what has been sent --- */

int vn_queue_reclaim(void *queue, uint32_t want)
{
	struct vn_queue *q = queue;
	uint16_t before;

	if (!enter(q))
		return 0;
	before = q->out;
	if (!want || want > q->size)
		want = q->size;
	if (!q->broken)
		(q->mode.packed ? vn_packed_reclaim : vn_split_reclaim)(q, (uint16_t)want);
	leave(q);
	return before - q->out;
}

/* --- memory --- */

/* The parts of a ring are apart by more than a cache line and its neighbour. */
static size_t ring_bytes(uint16_t size, size_t at[3])
{
	at[0] = 0;
	at[1] = RTE_ALIGN_CEIL(size * sizeof(struct vn_desc), 256);
	at[2] = at[1] + RTE_ALIGN_CEIL(sizeof(struct vn_avail) + (size + 1u) * sizeof(uint16_t), 256);
	return at[2] +
	       RTE_ALIGN_CEIL(
		       sizeof(struct vn_used) + size * sizeof(struct vn_used_elem) + sizeof(uint16_t), 256);
}

/* On this node; or on any, as a slow ring is better than none. */
static int reserve(struct vn_queue *q, int node)
{
	size_t at[3], bytes = ring_bytes(q->ring_size, at), asides = 0;
	char name[RTE_MEMZONE_NAMESIZE];

	if (q->kind != VN_RX)
		asides = q->kind == VN_TX ? q->ring_size * sizeof(struct vn_aside) : VN_CTRL_ROOM;
	snprintf(name, sizeof name, "vn_%u_%u", vn_device_id(q->dev), q->index);
	q->zone = rte_memzone_reserve_aligned(name, bytes + asides, node, RTE_MEMZONE_IOVA_CONTIG, 4096);
	if (!q->zone && node != SOCKET_ID_ANY)
		q->zone = rte_memzone_reserve_aligned(
			name, bytes + asides, SOCKET_ID_ANY, RTE_MEMZONE_IOVA_CONTIG, 4096);
	if (!q->zone)
		return -rte_errno;
	if (asides)
		q->aside = (struct vn_aside *)((uint8_t *)q->zone->addr + bytes);
	return 0;
}

/* Not from EAL's heap, all of which a device may have mapped. */
static void *private_memory(size_t bytes)
{
	void *p = aligned_alloc(RTE_CACHE_LINE_SIZE, RTE_ALIGN_CEIL(bytes, RTE_CACHE_LINE_SIZE));

	return p ? memset(p, 0, bytes) : NULL;
}

static int get_memory(struct vn_queue *q, int node)
{
	q->mbufs = private_memory(q->ring_size * sizeof *q->mbufs);
	q->next = private_memory(q->ring_size * sizeof *q->next);
	q->count = private_memory(q->ring_size * sizeof *q->count);
	return q->mbufs && q->next && q->count ? reserve(q, node) : -ENOMEM;
}

struct vn_queue *vn_queue_new(struct vn_dev *dev, enum vn_kind kind, uint16_t index, uint16_t size, int node)
{
	struct vn_queue *q = private_memory(sizeof *q);
	int e;

	if (!q) {
		rte_errno = ENOMEM;
		return NULL;
	}
	q->dev = dev;
	q->notify = dev->bus->notify;
	q->kind = kind;
	q->index = index;
	q->size = q->ring_size = size;
	q->kick_fd = q->call_fd = -1;
	q->burst = no_burst;
	e = get_memory(q, node);
	if (e) {
		vn_queue_free(q);
		rte_errno = -e;
		return NULL;
	}
	return q;
}

void vn_queue_empty(struct vn_queue *q)
{
	for (unsigned i = 0; q->mbufs && i < q->ring_size; i++) {
		rte_pktmbuf_free(q->mbufs[i]);
		q->mbufs[i] = NULL;
	}
}

void vn_queue_free(struct vn_queue *q)
{
	if (!q)
		return;
	vn_queue_empty(q);
	if (q->dev->bus->queue_free)
		q->dev->bus->queue_free(q);
	rte_memzone_free(q->zone);
	free(q->mbufs);
	free(q->next);
	free(q->count);
	free(q);
}

static void lay_out(struct vn_queue *q)
{
	size_t at[3], bytes = ring_bytes(q->size, at);
	uint8_t *base = q->zone->addr;
	uint64_t addr = q->mode.physical ? q->zone->iova : (uintptr_t)base;

	memset(base, 0, bytes);
	for (unsigned i = 0; i < 3; i++)
		q->ring_addr[i] = addr + at[i];
	q->aside_addr = addr + (size_t)((uint8_t *)q->aside - base);
	if (q->mode.packed) {
		q->packed.desc = (void *)base;
		q->packed.driver = (void *)(base + at[1]);
		q->packed.device = (void *)(base + at[2]);
	} else {
		q->split.desc = (void *)base;
		q->split.avail = (void *)(base + at[1]);
		q->split.used = (void *)(base + at[2]);
	}
}

/* How frames lie in buffers of the pool: where DPDK has them, the header before them, in a cache line of its
 * own. A device that looks at the header before it writes (vhost changes what differs) finds it unchanged,
 * and need not wait for the line of the frame, which the driver has.
 */
static void learn_pool(struct vn_queue *q)
{
	struct rte_mbuf m = {.nb_segs = 1, .port = vn_device_id(q->dev), .data_off = RTE_PKTMBUF_HEADROOM};

	rte_mbuf_refcnt_set(&m, 1);
	q->rearm = vn_fields(&m);
	q->longest = vn_device_longest(q->dev);
	q->rx_off = RTE_PKTMBUF_HEADROOM - sizeof(struct vn_hdr);
	q->room = rte_pktmbuf_data_room_size(q->pool) - q->rx_off;
}

void vn_queue_reset(struct vn_queue *q, uint16_t size, const struct vn_queue_mode *mode)
{
	vn_queue_empty(q);
	q->mode = *mode;
	q->in_order = mode->in_order;
	q->event_idx = mode->event_idx;
	q->platform_order = mode->platform_order;
	q->size = size;
	q->mask = (uint16_t)(size - 1);
	q->avail_pos = q->used_pos = q->used_seen = q->head = q->tail = q->pieces = q->out = 0;
	q->free = size;
	q->free_head = 0;
	for (unsigned i = 0; i < size; i++)
		q->next[i] = (uint16_t)(i + 1);
	q->refill_below = size / 4 < VN_REFILL ? size / 4 : VN_REFILL;
	q->addr_offset =
		mode->physical ? offsetof(struct rte_mbuf, buf_iova) : offsetof(struct rte_mbuf, buf_addr);
	q->slow_flags = VN_TX_SLOW | (mode->tx_csum ? 0 : RTE_MBUF_F_TX_L4_MASK);
	q->broken = false;
	q->room = 0;
	if (q->pool)
		learn_pool(q);
	lay_out(q);
	if (mode->packed)
		vn_packed_reset(q);
	else
		vn_split_reset(q);
	q->burst = mode->packed ? vn_packed_burst(q) : vn_split_burst(q);
}
