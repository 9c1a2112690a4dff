/* SPDX-License-Identifier: BSD-3-Clause */
/* The timer wheel against a list that is searched from end to end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/rng.h"
#include "transport/wheel.h"

#define TIMERS 200
#define TICK   (1ull << TP_WHEEL_SHIFT)
#define NEVER  UINT64_MAX

static void nothing_set(void **state)
{
	static struct tp_wheel w;

	tp_wheel_init(&w, 12345);
	assert_true(tp_wheel_next(&w) == NEVER);
	assert_null(tp_wheel_expire(&w, 1ull << 60));
	assert_true(tp_wheel_next(&w) == NEVER);
}

static void one_timer_at_every_distance(void **state)
{
	static struct tp_wheel w;
	struct tp_timer t;

	for (unsigned shift = 0; shift < 62; shift++) {
		uint64_t now = 0x123456789ab, due = now + (1ull << shift) + 3;

		tp_wheel_init(&w, now);
		tp_timer_init(&t);
		tp_timer_set(&w, &t, due);
		assert_null(tp_wheel_expire(&w, due - 1)); /* never early */
		assert_true(tp_wheel_next(&w) <= due + TICK);
		assert_ptr_equal(tp_wheel_expire(&w, due + TICK), &t); /* late by a tick at most */
		assert_true(t.due == NEVER);
		assert_null(tp_wheel_expire(&w, due + TICK));
		assert_true(tp_wheel_next(&w) == NEVER);
	}
}

/* A tick at which a higher level is spread over the lower ones is no later than any other. */
static void at_every_tick(void **state)
{
	static struct tp_wheel w;
	struct tp_timer t;

	for (uint64_t due = 0; due < 10000 * TICK; due += TICK) {
		tp_wheel_init(&w, 0);
		tp_timer_init(&t);
		tp_timer_set(&w, &t, due);
		assert_null(tp_wheel_expire(&w, due));
		assert_ptr_equal(tp_wheel_expire(&w, due + TICK), &t);
	}
}

static void due_already(void **state)
{
	static struct tp_wheel w;
	struct tp_timer t;

	tp_wheel_init(&w, 100 * SD_S);
	tp_timer_init(&t);
	tp_timer_set(&w, &t, 5);
	assert_null(tp_wheel_expire(&w, 100 * SD_S));
	assert_ptr_equal(tp_wheel_expire(&w, 100 * SD_S + TICK), &t);
}

static void stopping_and_moving(void **state)
{
	static struct tp_wheel w;
	struct tp_timer t;

	tp_wheel_init(&w, 0);
	tp_timer_init(&t);
	tp_timer_set(&w, &t, NEVER); /* stopping what is not set */
	tp_timer_set(&w, &t, SD_S);
	tp_timer_set(&w, &t, NEVER);
	assert_true(tp_wheel_next(&w) == NEVER);
	assert_null(tp_wheel_expire(&w, 10 * SD_S));
	tp_timer_set(&w, &t, 20 * SD_S);
	tp_timer_set(&w, &t, 11 * SD_S);
	assert_ptr_equal(tp_wheel_expire(&w, 11 * SD_S + TICK), &t);
	assert_null(tp_wheel_expire(&w, 30 * SD_S));
}

/* Of several in one tick the one that is seen is the next to expire. */
static void seen_before_its_turn(void **state)
{
	static struct tp_wheel w;
	struct tp_timer t[4], *next = NULL;

	tp_wheel_init(&w, 0);
	assert_null(tp_wheel_peek(&w));
	for (int i = 0; i < 4; i++) {
		tp_timer_init(&t[i]);
		tp_timer_set(&w, &t[i], i < 3 ? SD_S : 2 * SD_S);
	}
	for (int i = 0; i < 3; i++) {
		struct tp_timer *expired = tp_wheel_expire(&w, SD_S + TICK);

		assert_non_null(expired);
		assert_true(!next || expired == next);
		next = tp_wheel_peek(&w);
		assert_true(i < 2 ? next && next->due == SD_S : !next);
	}
}

/* Random timers, moved and stopped at random, over jumps of time from nothing to hours. */
static void against_a_list(void **state)
{
	static struct tp_wheel w;
	static struct tp_timer timers[TIMERS];
	static uint64_t due[TIMERS];
	uint64_t now = 77 * SD_S, expired = 0;
	struct sd_rng r;

	sd_rng_seed(&r, 1);
	tp_wheel_init(&w, now);
	for (unsigned i = 0; i < TIMERS; i++) {
		tp_timer_init(&timers[i]);
		due[i] = NEVER;
	}
	for (unsigned step = 0; step < 200000; step++) {
		struct tp_timer *t;
		uint64_t next = tp_wheel_next(&w), first = NEVER;

		for (unsigned n = (unsigned)sd_rng_below(&r, 3); n; n--) {
			unsigned i = (unsigned)sd_rng_below(&r, TIMERS);

			due[i] = sd_rng_below(&r, 8) ? now + (sd_rng_next(&r) >> (20 + sd_rng_below(&r, 40)))
						     : NEVER;
			tp_timer_set(&w, &timers[i], due[i]);
		}
		next = tp_wheel_next(&w);
		for (unsigned i = 0; i < TIMERS; i++)
			if (due[i] < first)
				first = due[i];
		assert_true(first == NEVER ? next == NEVER : next <= (first > now ? first : now) + TICK);
		if (sd_rng_below(&r, 4) && next != NEVER && next > now)
			now = next;
		else
			now += sd_rng_next(&r) >> (20 + sd_rng_below(&r, 40));
		while ((t = tp_wheel_expire(&w, now))) {
			size_t i = (size_t)(t - timers);

			assert_true(due[i] <= now);
			due[i] = NEVER;
			expired++;
		}
		for (unsigned i = 0; i < TIMERS; i++)
			assert_true(due[i] == NEVER || due[i] + TICK > now);
	}
	assert_true(expired > 50000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_set),
		cmocka_unit_test(one_timer_at_every_distance),
		cmocka_unit_test(at_every_tick),
		cmocka_unit_test(due_already),
		cmocka_unit_test(stopping_and_moving),
		cmocka_unit_test(seen_before_its_turn),
		cmocka_unit_test(against_a_list),
	};

	return cmocka_run_group_tests_name("transport_wheel", tests, NULL, NULL);
}
