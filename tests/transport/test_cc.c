/* SPDX-License-Identifier: BSD-3-Clause */
/* Congestion control as a function: acknowledgements in, windows out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "transport/cc.h"

#define MAX	512
#define MIN_RTT (20 * SD_US)

static uint64_t space[TP_CC_STATE_MAX / 8];

static const struct tp_cc_ops *fresh(const struct tp_cc_ops *cc)
{
	assert_int_equal(cc->size, sizeof *cc);
	assert_true(cc->state_size <= sizeof space);
	memset(space, 0, sizeof space);
	return cc;
}

/* One round trip: n packets acknowledged at once. */
static uint32_t one_round(const struct tp_cc_ops *cc, uint32_t n, uint64_t rtt, uint32_t marked, bool limited)
{
	struct tp_cc_ack a = {.rtt = rtt,
		.min_rtt = MIN_RTT,
		.acked = n,
		.marked = marked,
		.limited = limited,
		.round = true};

	return cc->acked(space, &a);
}

/* A round trip in which the whole window is used. */
static uint32_t full_round(const struct tp_cc_ops *cc, uint32_t window, uint64_t rtt)
{
	return one_round(cc, window, rtt, 0, true);
}

/* Out of slow start, with a window of about n. */
static uint32_t steady(const struct tp_cc_ops *cc, uint32_t n)
{
	uint32_t w = fresh(cc)->open(space, MAX);

	while (w < MAX)
		w = full_round(cc, w, MIN_RTT);
	while (w > n)
		w = full_round(cc, w, 100 * SD_MS);
	return w;
}

static void fixed_never_changes(void **state)
{
	const struct tp_cc_ops *cc = fresh(&tp_cc_fixed);

	assert_int_equal(cc->open(space, MAX), MAX);
	assert_int_equal(full_round(cc, MAX, SD_S), MAX);
	assert_int_equal(cc->lost(space, 0, false), MAX);
	assert_int_equal(cc->lost(space, 0, true), MAX);
	assert_int_equal(cc->undo(space), MAX);
	assert_int_equal(cc->idle(space), MAX);
}

static void slow_start_doubles(void **state)
{
	const struct tp_cc_ops *cc = fresh(&tp_cc_swift);
	uint32_t w = cc->open(space, MAX);

	assert_int_equal(w, TP_CC_INITIAL);
	w = full_round(cc, w, MIN_RTT);
	assert_int_equal(w, 2 * TP_CC_INITIAL);
	while (w < MAX)
		w = full_round(cc, w, MIN_RTT);
	assert_int_equal(full_round(cc, w, MIN_RTT), MAX);
}

static void opens_no_wider_than_allowed(void **state)
{
	assert_int_equal(fresh(&tp_cc_swift)->open(space, 32), 32);
}

static void unused_window_does_not_grow(void **state)
{
	const struct tp_cc_ops *cc = fresh(&tp_cc_swift);
	uint32_t w = cc->open(space, MAX);

	for (int i = 0; i < 100; i++)
		assert_int_equal(one_round(cc, 1, MIN_RTT, 0, false), w);
}

static void grows_by_one_a_round(void **state)
{
	uint32_t w = steady(&tp_cc_swift, 100);

	for (int i = 0; i < 10; i++) {
		uint32_t next = full_round(&tp_cc_swift, w, MIN_RTT);

		assert_in_range(next, w, w + 1);
		w = next;
	}
}

static void queueing_delay_shrinks(void **state)
{
	uint32_t w = steady(&tp_cc_swift, 200), next = full_round(&tp_cc_swift, w, MIN_RTT + 300 * SD_US);

	assert_true(next < w && next >= w / 2 - 1);
	/* a little above the target costs little */
	w = steady(&tp_cc_swift, 200);
	next = full_round(&tp_cc_swift, w, MIN_RTT + 120 * SD_US);
	assert_true(next < w && next > w * 9 / 10);
}

/* The smallest delay of a round counts: one late acknowledgement says something about the host, not the
 * queue. */
static void one_late_acknowledgement_is_forgiven(void **state)
{
	uint32_t w = steady(&tp_cc_swift, 200);
	struct tp_cc_ack late = {.rtt = 50 * SD_MS, .min_rtt = MIN_RTT, .acked = 1, .limited = true};

	tp_cc_swift.acked(space, &late);
	assert_true(full_round(&tp_cc_swift, w, MIN_RTT) >= w);
}

static void small_windows_bear_more_delay(void **state)
{
	uint64_t rtt = MIN_RTT + 180 * SD_US;
	uint32_t big = steady(&tp_cc_swift, 300), small;

	assert_true(full_round(&tp_cc_swift, big, rtt) < big);
	small = steady(&tp_cc_swift, 6);
	assert_true(full_round(&tp_cc_swift, small, rtt) >= small);
}

static void marks_shrink_in_proportion(void **state)
{
	uint32_t w = steady(&tp_cc_swift, 200), few, all;

	for (int i = 0; i < 50; i++)
		w = one_round(&tp_cc_swift, 100, MIN_RTT, 5, false);
	few = w;
	w = steady(&tp_cc_swift, 200);
	for (int i = 0; i < 50; i++)
		w = one_round(&tp_cc_swift, 100, MIN_RTT, 100, false);
	all = w;
	assert_true(all < few);
	assert_int_equal(all, 2);
}

static void loss_without_delay_is_taken_mildly(void **state)
{
	uint32_t w = steady(&tp_cc_swift, 200), next;

	full_round(&tp_cc_swift, w, MIN_RTT);
	next = tp_cc_swift.lost(space, 0, false);
	assert_true(next < w && next > w * 8 / 10);
	w = steady(&tp_cc_swift, 200);
	w = full_round(&tp_cc_swift, w, MIN_RTT + 90 * SD_US); /* a queue below the target */
	next = tp_cc_swift.lost(space, 0, false);
	assert_true(next < w * 8 / 10 && next > w / 2);
}

static void persistent_loss_starts_over(void **state)
{
	steady(&tp_cc_swift, 200);
	assert_int_equal(tp_cc_swift.lost(space, 0, true), 2);
}

static void mistakes_are_undone(void **state)
{
	uint32_t w = steady(&tp_cc_swift, 200);

	tp_cc_swift.lost(space, 0, false);
	assert_int_equal(tp_cc_swift.undo(space), w);
	assert_int_equal(tp_cc_swift.undo(space), w); /* once */
	fresh(&tp_cc_swift);
	w = tp_cc_swift.open(space, MAX);
	tp_cc_swift.lost(space, 0, true);
	assert_int_equal(tp_cc_swift.undo(space), w);
	assert_int_equal(full_round(&tp_cc_swift, w, MIN_RTT), 2 * w); /* slow start goes on */
}

static void idleness_forgets_a_large_window(void **state)
{
	steady(&tp_cc_swift, 400);
	assert_int_equal(tp_cc_swift.idle(space), TP_CC_INITIAL);
	steady(&tp_cc_swift, 20);
	assert_true(tp_cc_swift.idle(space) <= 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fixed_never_changes),
		cmocka_unit_test(slow_start_doubles),
		cmocka_unit_test(opens_no_wider_than_allowed),
		cmocka_unit_test(unused_window_does_not_grow),
		cmocka_unit_test(grows_by_one_a_round),
		cmocka_unit_test(queueing_delay_shrinks),
		cmocka_unit_test(one_late_acknowledgement_is_forgiven),
		cmocka_unit_test(small_windows_bear_more_delay),
		cmocka_unit_test(marks_shrink_in_proportion),
		cmocka_unit_test(loss_without_delay_is_taken_mildly),
		cmocka_unit_test(persistent_loss_starts_over),
		cmocka_unit_test(mistakes_are_undone),
		cmocka_unit_test(idleness_forgets_a_large_window),
	};

	return cmocka_run_group_tests_name("transport_cc", tests, NULL, NULL);
}
