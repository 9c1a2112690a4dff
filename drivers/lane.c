/* SPDX-License-Identifier: BSD-3-Clause */
#include "drivers/lane.h"

#include <stdlib.h>
#include <string.h>

static bool put(struct lane_ring *r, const struct port_frame *f)
{
	uint32_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);

	if (tail - atomic_load_explicit(&r->head, memory_order_acquire) == LANE_RING)
		return false;
	r->frames[tail & (LANE_RING - 1)] = *f;
	atomic_store_explicit(&r->tail, tail + 1, memory_order_release);
	return true;
}

static unsigned take(struct lane_ring *r, struct port_frame *frames, unsigned max)
{
	uint32_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
	uint32_t n = atomic_load_explicit(&r->tail, memory_order_acquire) - head;

	if (n > max)
		n = max;
	for (uint32_t i = 0; i < n; i++)
		frames[i] = r->frames[(head + i) & (LANE_RING - 1)];
	if (n)
		atomic_store_explicit(&r->head, head + n, memory_order_release);
	return n;
}

struct lane *lane_new(uint32_t most)
{
	struct lane *l = aligned_alloc(64, sizeof *l);

	if (!l)
		return NULL;
	memset(l, 0, sizeof *l);
	l->most = most;
	l->copies = malloc(LANE_COPIES * LANE_COPY_SIZE);
	if (!l->copies) {
		free(l);
		return NULL;
	}
	for (; l->n_free < LANE_COPIES; l->n_free++)
		l->free_copies[l->n_free] = l->copies + l->n_free * LANE_COPY_SIZE;
	return l;
}

void lane_free(struct lane *l)
{
	if (!l)
		return;
	free(l->copies);
	free(l);
}

bool lane_hand(struct lane *l, const struct port_frame *f)
{
	/* All of them may be on their way back at once. */
	if (l->under_way >= l->most || !put(&l->in, f)) {
		atomic_fetch_add_explicit(&l->missed, 1, memory_order_relaxed);
		return false;
	}
	l->under_way++;
	l->fresh = true;
	return true;
}

void lane_hand_copy(struct lane *l, const struct port_frame *f)
{
	struct port_frame copy = *f;

	if (!l->n_free || f->len > LANE_COPY_SIZE) {
		atomic_fetch_add_explicit(&l->missed, 1, memory_order_relaxed);
		return;
	}
	copy.data = copy.handle = l->free_copies[--l->n_free];
	memcpy(copy.data, f->data, f->len);
	if (!lane_hand(l, &copy))
		l->n_free++;
}

static bool is_copy(const struct lane *l, const struct port_frame *f)
{
	const uint8_t *at = f->handle;

	return at >= l->copies && at < l->copies + LANE_COPIES * LANE_COPY_SIZE;
}

unsigned lane_reclaim(struct lane *l, struct port_frame *frames, unsigned max)
{
	unsigned own = 0, n;

	do {
		n = take(&l->done, frames + own, max - own);
		l->under_way -= n;
		for (unsigned from = own, i = 0; i < n; i++) {
			const struct port_frame *f = &frames[from + i];

			if (is_copy(l, f))
				l->free_copies[l->n_free++] = f->handle;
			else
				frames[own++] = *f;
		}
	} while (n && own < max);
	return own;
}

unsigned lane_take(struct lane *l, struct port_frame *frames, unsigned max)
{
	return take(&l->in, frames, max);
}

void lane_give_back(struct lane *l, const struct port_frame *f)
{
	put(&l->done, f);
}
