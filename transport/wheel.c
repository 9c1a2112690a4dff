/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * wheel: a timer sits at the level of the highest base-64 digit in which its tick differs from the current
 * one, in the slot of that digit. So within a level all used slots lie ahead of the current digit, a lower
 * level always expires before a higher one, and reaching a slot of a higher level spreads its timers over the
 * lower ones.
 */
#include "transport/wheel.h"

#include <stddef.h>

void tp_wheel_init(struct tp_wheel *w, uint64_t now)
{
	w->tick = now >> TP_WHEEL_SHIFT;
	for (int i = 0; i < TP_WHEEL_LEVELS; i++)
		w->used[i] = 0;
	for (int i = 0; i < TP_WHEEL_LEVELS * 64; i++)
		list_init(&w->slots[i]);
}

void tp_timer_init(struct tp_timer *t)
{
	list_init(&t->node);
	t->due = UINT64_MAX;
	t->slot = 0;
}

static void unlink_timer(struct tp_wheel *w, struct tp_timer *t)
{
	if (list_empty(&t->node))
		return;
	list_remove(&t->node);
	if (list_empty(&w->slots[t->slot]))
		w->used[t->slot / 64] &= ~(1ull << t->slot % 64);
}

/* least: the first tick at which it may expire. */
static void link_timer(struct tp_wheel *w, struct tp_timer *t, uint64_t least)
{
	uint64_t tick = (t->due >> TP_WHEEL_SHIFT) + 1; /* rounded up: late rather than early */
	unsigned level, digit;

	if (tick < least)
		tick = least;
	level = (63 - (unsigned)__builtin_clzll((tick ^ w->tick) | 1)) / 6;
	digit = (unsigned)(tick >> 6 * level) & 63;
	t->slot = (uint16_t)(level * 64 + digit);
	list_push_back(&w->slots[t->slot], &t->node);
	w->used[level] |= 1ull << digit;
}

void tp_timer_set(struct tp_wheel *w, struct tp_timer *t, uint64_t due)
{
	unlink_timer(w, t);
	t->due = due;
	if (due != UINT64_MAX)
		link_timer(w, t, w->tick + 1);
}

/* The tick at which the next used slot begins, and that slot; UINT64_MAX: none. */
static uint64_t next_tick(const struct tp_wheel *w, unsigned *slot)
{
	for (unsigned level = 0; level < TP_WHEEL_LEVELS; level++) {
		unsigned digit;

		if (!w->used[level])
			continue;
		digit = (unsigned)__builtin_ctzll(w->used[level]);
		*slot = level * 64 + digit;
		return ((w->tick >> 6 * level & ~63ull) + digit) << 6 * level;
	}
	return UINT64_MAX;
}

uint64_t tp_wheel_next(const struct tp_wheel *w)
{
	unsigned slot;
	uint64_t tick = next_tick(w, &slot);

	return tick == UINT64_MAX ? UINT64_MAX : tick << TP_WHEEL_SHIFT;
}

struct tp_timer *tp_wheel_peek(const struct tp_wheel *w)
{
	const struct list *head = &w->slots[w->tick & 63];

	return list_empty(head) ? NULL : container_of(head->next, struct tp_timer, node);
}

struct tp_timer *tp_wheel_expire(struct tp_wheel *w, uint64_t now)
{
	uint64_t target = now >> TP_WHEEL_SHIFT;

	for (;;) {
		unsigned slot = 0;
		uint64_t tick = next_tick(w, &slot);
		struct list *head = &w->slots[slot];

		if (tick > target) {
			if (w->tick < target)
				w->tick = target;
			return NULL;
		}
		w->tick = tick;
		if (slot < 64) {
			struct tp_timer *t = container_of(head->next, struct tp_timer, node);

			unlink_timer(w, t);
			t->due = UINT64_MAX;
			return t;
		}
		w->used[slot / 64] &= ~(1ull << slot % 64);
		while (!list_empty(head)) {
			struct tp_timer *t = container_of(list_pop_front(head), struct tp_timer, node);

			link_timer(w, t, tick); /* those of this very tick are the next to expire */
		}
	}
}
