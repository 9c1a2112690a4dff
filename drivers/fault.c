/* SPDX-License-Identifier: BSD-3-Clause */
#include "drivers/fault.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

#define REORDER_HOLD (200 * SD_US)
#define QUEUE_TIME                                                                                           \
	(20 * SD_MS) /* what waits longer at the given rate is dropped: the queue of a slow link is finite   \
		      */

void fault_judge_init(struct fault_judge *j, const struct port_faults *f, unsigned stream)
{
	memset(j, 0, sizeof *j);
	j->faults = *f;
	sd_rng_seed(&j->rng, f->seed + stream * 0x9e3779b97f4a7c15ull);
}

/* When the frame's last bit leaves; UINT64_MAX: the queue is full. */
static uint64_t serialise(struct fault_judge *j, uint64_t now, uint32_t len)
{
	uint64_t start = j->link_free > now ? j->link_free : now;

	if (!j->faults.rate_bps)
		return now;
	if (start - now > QUEUE_TIME)
		return UINT64_MAX;
	j->link_free = start + (uint64_t)len * 8 * SD_S / j->faults.rate_bps;
	return j->link_free;
}

struct fault_verdict fault_judge_frame(struct fault_judge *j, uint64_t now, uint32_t len)
{
	const struct port_faults *f = &j->faults;
	struct fault_verdict v = {.copies = 1};
	/* Drawn for every frame, so that one fault's rate does not change another's pattern. */
	bool lost = sd_rng_unit(&j->rng) < f->loss, twice = sd_rng_unit(&j->rng) < f->duplicate;
	bool late = sd_rng_unit(&j->rng) < f->reorder, corrupt = sd_rng_unit(&j->rng) < f->corrupt;
	uint64_t jitter = (uint64_t)(sd_rng_unit(&j->rng) * (double)f->jitter_ns);

	v.due = serialise(j, now, len);
	if (lost || v.due == UINT64_MAX) {
		v.copies = 0;
		v.touched = true;
		return v;
	}
	v.due += f->delay_ns;
	if (late) {
		v.due += f->jitter_ns ? f->jitter_ns : REORDER_HOLD;
	} else {
		v.due += jitter;
		if (v.due < j->last_due)
			v.due = j->last_due;
		j->last_due = v.due;
	}
	v.copies += twice;
	v.corrupt = corrupt;
	v.touched = twice || late || corrupt;
	return v;
}

void fault_judge_corrupt(struct fault_judge *j, uint8_t *data, uint32_t len)
{
	for (uint64_t n = 1 + sd_rng_below(&j->rng, 3); len && n; n--) {
		uint64_t bit = sd_rng_below(&j->rng, (uint64_t)len * 8);

		data[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}

bool port_faults_any(const struct port_faults *f)
{
	return f->loss > 0 || f->duplicate > 0 || f->reorder > 0 || f->corrupt > 0 || f->delay_ns ||
	       f->jitter_ns || f->rate_bps;
}

/* --- the line --- */

int fault_line_open(struct fault_line *l, unsigned slots, uint32_t capacity)
{
	memset(l, 0, sizeof *l);
	l->frames = calloc(slots, sizeof *l->frames);
	l->heap = calloc(slots, sizeof(struct fault_frame *));
	l->idle = calloc(slots, sizeof(struct fault_frame *));
	l->memory = malloc((size_t)slots * capacity);
	if (!l->frames || !l->heap || !l->idle || !l->memory) {
		fault_line_close(l);
		return -ENOMEM;
	}
	l->capacity = capacity;
	/* The first slot is used first: memory that a test never needs is never touched. */
	for (unsigned i = slots; i-- > 0;) {
		l->frames[i].data = l->memory + (size_t)i * capacity;
		l->idle[l->idle_count++] = &l->frames[i];
	}
	return 0;
}

void fault_line_close(struct fault_line *l)
{
	free(l->frames);
	free(l->heap);
	free(l->idle);
	free(l->memory);
	memset(l, 0, sizeof *l);
}

static bool earlier(const struct fault_frame *a, const struct fault_frame *b)
{
	return a->due != b->due ? a->due < b->due : a->seq < b->seq;
}

struct fault_frame *fault_line_push(
	struct fault_line *l, uint64_t due, const uint8_t *data, uint32_t len, uint32_t flags)
{
	struct fault_frame *f;
	unsigned i;

	if (!l->idle_count || len > l->capacity)
		return NULL;
	f = l->idle[--l->idle_count];
	f->due = due;
	f->seq = l->next_seq++;
	f->len = len;
	f->flags = flags;
	memcpy(f->data, data, len);
	for (i = l->held++; i && earlier(f, l->heap[(i - 1) / 2]); i = (i - 1) / 2)
		l->heap[i] = l->heap[(i - 1) / 2];
	l->heap[i] = f;
	return f;
}

const struct fault_frame *fault_line_peek(const struct fault_line *l)
{
	return l->held ? l->heap[0] : NULL;
}

struct fault_frame *fault_line_pop(struct fault_line *l)
{
	struct fault_frame *top, *last;
	unsigned i = 0, child;

	if (!l->held)
		return NULL;
	top = l->heap[0];
	last = l->heap[--l->held];
	while ((child = 2 * i + 1) < l->held) {
		if (child + 1 < l->held && earlier(l->heap[child + 1], l->heap[child]))
			child++;
		if (!earlier(l->heap[child], last))
			break;
		l->heap[i] = l->heap[child];
		i = child;
	}
	l->heap[i] = last;
	return top;
}

void fault_line_release(struct fault_line *l, struct fault_frame *f)
{
	l->idle[l->idle_count++] = f;
}
