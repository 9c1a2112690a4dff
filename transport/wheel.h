/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * wheel: a hierarchical timer wheel (Varghese and Lauck 1987) over all of 64-bit time in ticks of 16.4 us.
 * Adding, removing and finding the next expiry are O(1); an expiry may be late by a tick, never early. Owned
 * by a struct tp; the timers are embedded in their owners.
 */
#ifndef SD_TRANSPORT_WHEEL_H
#define SD_TRANSPORT_WHEEL_H

#include <stdint.h>

#include "base/list.h"

#define TP_WHEEL_SHIFT	14 /* ns per tick, as a power of two */
#define TP_WHEEL_LEVELS 9  /* of 64 slots: 54 bits of ticks */

struct tp_timer {
	struct list node;
	uint64_t due; /* ns; UINT64_MAX: not set */
	uint16_t slot;
};

struct tp_wheel {
	uint64_t tick; /* everything up to here has expired */
	uint64_t used[TP_WHEEL_LEVELS];
	struct list slots[TP_WHEEL_LEVELS * 64];
};

void tp_wheel_init(struct tp_wheel *w, uint64_t now);
void tp_timer_init(struct tp_timer *t);
/* Sets or moves; due UINT64_MAX stops it. */
void tp_timer_set(struct tp_wheel *w, struct tp_timer *t, uint64_t due);
/* A time not after the earliest expiry (exact to a tick for what is near); UINT64_MAX: none. */
uint64_t tp_wheel_next(const struct tp_wheel *w);
/* A timer that expires in the tick that has been reached; NULL: none. */
struct tp_timer *tp_wheel_peek(const struct tp_wheel *w);
/* One timer that has expired by now, unset; NULL: no more. */
struct tp_timer *tp_wheel_expire(struct tp_wheel *w, uint64_t now);

#endif
