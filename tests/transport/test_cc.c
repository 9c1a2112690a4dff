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

#define INITIAL 8
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

static const struct tp_cc_ack usual = {.rtt = MIN_RTT, .min_rtt = MIN_RTT, .limited = true, .round = true};

static float opened(const struct tp_cc_ops *cc)
{
	return fresh(cc)->open(space, INITIAL, MAX);
}

/* A round trip in which the whole window is used and acknowledged at once. */
static float round_of(const struct tp_cc_ops *cc, float window, struct tp_cc_ack a)
{
	if (!a.acked)
		a.acked = window < 1 ? 1 : (uint32_t)window;
	return cc->acked(space, &a);
}

static float full_round(const struct tp_cc_ops *cc, float window, uint64_t rtt)
{
	struct tp_cc_ack a = usual;

	a.rtt = rtt;
	return round_of(cc, window, a);
}

static float marked_round(const struct tp_cc_ops *cc, float window, uint32_t marked)
{
	struct tp_cc_ack a = usual;

	a.acked = window < 1 ? 1 : (uint32_t)window;
	a.marked = marked < a.acked ? marked : a.acked;
	a.rtt = MIN_RTT + 10 * SD_US;
	return round_of(cc, window, a);
}

/* Out of slow start, with a window of about n, and used to a little delay. */
static float steady(const struct tp_cc_ops *cc, float n)
{
	float w = opened(cc);

	while (w < MAX)
		w = full_round(cc, w, MIN_RTT);
	while (w > n && w > 1) {
		full_round(cc, w, MIN_RTT + 100 * SD_MS); /* by its delay, or */
		w = cc->lost(space, 0, false);
	}
	while (w > n)
		w = marked_round(cc, w, UINT32_MAX);
	return full_round(cc, w, MIN_RTT + 10 * SD_US);
}

static void fixed_never_changes(void **state)
{
	const struct tp_cc_ops *cc = fresh(&tp_cc_fixed);

	assert_true(cc->open(space, INITIAL, MAX) == MAX);
	assert_true(full_round(cc, MAX, SD_S) == MAX);
	assert_true(cc->lost(space, 0, false) == MAX);
	assert_true(cc->lost(space, 0, true) == MAX);
	assert_true(cc->undo(space) == MAX);
	assert_true(cc->idle(space) == MAX);
}

static void slow_start_doubles(void **state)
{
	const struct tp_cc_ops *cc = &tp_cc_swift;
	float w = opened(cc);

	assert_true(w == INITIAL);
	w = full_round(cc, w, MIN_RTT);
	assert_true(w == 2 * INITIAL);
	while (w < MAX)
		w = full_round(cc, w, MIN_RTT);
	assert_true(full_round(cc, w, MIN_RTT) == MAX);
}

/* As soon as the first packets of a round trip come late it is over, without a cut. */
static void slow_start_ends_with_delay(void **state)
{
	struct tp_cc_ack a = usual;
	float w = full_round(&tp_cc_swift, opened(&tp_cc_swift), MIN_RTT), next;

	a.rtt = MIN_RTT + 10 * SD_US;
	a.acked = 8;
	a.round = false;
	next = tp_cc_swift.acked(space, &a);
	assert_true(next >= w && next <= w + 8);
	assert_true(full_round(&tp_cc_swift, next, MIN_RTT + 10 * SD_US) < next + 1);
}

static void slow_start_ends_with_marks(void **state)
{
	float w = opened(&tp_cc_swift), next = marked_round(&tp_cc_swift, w, 8);

	assert_true(next < w && next >= w / 2);
}

static void opens_no_wider_than_allowed(void **state)
{
	assert_true(fresh(&tp_cc_swift)->open(space, INITIAL, 4) == 4);
	assert_true(fresh(&tp_cc_dctcp)->open(space, INITIAL, 4) == 4);
}

static void unused_window_does_not_grow(void **state)
{
	const struct tp_cc_ops *const all[] = {&tp_cc_swift, &tp_cc_dctcp};
	struct tp_cc_ack a = usual;

	a.limited = false;
	for (unsigned k = 0; k < 2; k++) {
		float w = opened(all[k]);

		for (int i = 0; i < 100; i++)
			assert_true(round_of(all[k], 1, a) == w);
	}
}

static void grows_slowly_beside_a_queue(void **state)
{
	float w = steady(&tp_cc_swift, 100);

	for (int i = 0; i < 20; i++) {
		float next = full_round(&tp_cc_swift, w, MIN_RTT + 10 * SD_US);

		assert_true(next > w && next <= w + 1);
		w = next;
	}
}

/* Small windows grow by less, but by a larger part: who has less catches up, and many together do no harm. */
static void small_windows_grow_by_a_larger_part(void **state)
{
	float few = steady(&tp_cc_swift, 0.3f), more, grown_few, grown_more;

	grown_few = full_round(&tp_cc_swift, few, MIN_RTT + 10 * SD_US) - few;
	more = steady(&tp_cc_swift, 3);
	grown_more = full_round(&tp_cc_swift, more, MIN_RTT + 10 * SD_US) - more;
	assert_true(grown_few < grown_more && grown_few / few > grown_more / more);
}

static void an_empty_path_is_filled_soon(void **state)
{
	float w = steady(&tp_cc_swift, 20);

	for (int i = 0; i < 15; i++)
		w = full_round(&tp_cc_swift, w, MIN_RTT);
	assert_true(w > 60);
}

static void queueing_delay_shrinks(void **state)
{
	float w = steady(&tp_cc_swift, 200), next = full_round(&tp_cc_swift, w, MIN_RTT + 300 * SD_US);

	assert_true(next < w && next >= w / 2 - 1);
	/* a little above the target costs little */
	w = steady(&tp_cc_swift, 200);
	next = full_round(&tp_cc_swift, w, MIN_RTT + 90 * SD_US);
	assert_true(next < w && next > w * 9 / 10);
}

/* The smallest delay of a round counts: one late acknowledgement says something about the host, not the
 * queue. */
static void one_late_acknowledgement_is_forgiven(void **state)
{
	float w = steady(&tp_cc_swift, 200);
	struct tp_cc_ack late = {.rtt = 50 * SD_MS, .min_rtt = MIN_RTT, .acked = 1, .limited = true};

	tp_cc_swift.acked(space, &late);
	assert_true(full_round(&tp_cc_swift, w, MIN_RTT) >= w);
}

static void small_windows_bear_more_delay(void **state)
{
	uint64_t rtt = MIN_RTT + 100 * SD_US;
	float big = steady(&tp_cc_swift, 300), small;

	assert_true(full_round(&tp_cc_swift, big, rtt) < big);
	small = steady(&tp_cc_swift, 3);
	assert_true(full_round(&tp_cc_swift, small, rtt) >= small);
}

static void long_paths_are_not_starved(void **state)
{
	struct tp_cc_ack a = usual;
	float w = steady(&tp_cc_swift, 200), first = w;

	a.rtt = a.min_rtt = SD_MS;
	for (int i = 0; i < 100; i++)
		w = round_of(&tp_cc_swift, w, a);
	assert_true(w > first + 40);
}

/* A window of about 200 that has not seen marks for long. */
static float unmarked(const struct tp_cc_ops *cc)
{
	struct tp_cc_ack a = usual;
	float w = steady(cc, 200);

	a.limited = false;
	for (int i = 0; i < 100; i++)
		w = round_of(cc, w, a);
	return w;
}

static void marks_shrink_in_proportion(void **state)
{
	const struct tp_cc_ops *const all[] = {&tp_cc_swift, &tp_cc_dctcp};

	for (unsigned k = 0; k < 2; k++) {
		float few = unmarked(all[k]), all_of_them;

		for (int i = 0; i < 10; i++)
			few = marked_round(all[k], few, 1);
		all_of_them = unmarked(all[k]);
		for (int i = 0; i < 10; i++)
			all_of_them = marked_round(all[k], all_of_them, UINT32_MAX);
		assert_true(all_of_them < few / 2);
	}
}

/* More flows than packets fit on the path. */
static void windows_fall_below_a_packet(void **state)
{
	float w = steady(&tp_cc_swift, 200);

	for (int i = 0; i < 100; i++)
		w = marked_round(&tp_cc_swift, w, UINT32_MAX);
	assert_true(w > 0 && w < 0.1f);
	for (int i = 0; i < 100 && w < 1; i++)
		w = full_round(&tp_cc_swift, w, MIN_RTT);
	assert_true(w >= 1);
}

/* A scheduler's delay may look like any queue. */
static void only_marks_go_below_a_packet(void **state)
{
	struct tp_cc_ack a = usual;
	float w = steady(&tp_cc_swift, 200);

	a.backlog = 255;
	for (int i = 0; i < 100; i++) {
		w = full_round(&tp_cc_swift, w, 10 * SD_MS);
		assert_true(w >= 1);
		w = tp_cc_swift.lost(space, 0, i % 7 == 0);
		assert_true(w >= 1);
		w = round_of(&tp_cc_swift, w, a);
		assert_true(w >= 1);
	}
}

static float after_loss(const struct tp_cc_ops *cc, uint64_t rtt, float *window)
{
	*window = steady(cc, 200);
	for (int i = 0; i < 3; i++)
		*window = full_round(cc, *window, rtt);
	return cc->lost(space, 0, false);
}

static void loss_takes_away_what_is_queued(void **state)
{
	float w, next;

	next = after_loss(&tp_cc_swift, MIN_RTT, &w);
	assert_true(next == w);
	next = after_loss(&tp_cc_swift, 2 * MIN_RTT, &w);
	assert_true(next < w * 8 / 10 && next > w / 2);
	next = after_loss(&tp_cc_dctcp, MIN_RTT, &w);
	assert_true(next == w / 2);
}

/* Buffers may be too small to be seen as delay. */
static void much_loss_counts_without_delay(void **state)
{
	struct tp_cc_ack a = usual;
	float w = steady(&tp_cc_swift, 100);

	for (int i = 0; i < 40; i++) {
		a.acked = (uint32_t)w;
		a.lost = a.acked / 4;
		tp_cc_swift.lost(space, 0, false);
		w = round_of(&tp_cc_swift, w, a);
	}
	assert_true(w < 20);
}

static void persistent_loss_starts_over(void **state)
{
	steady(&tp_cc_swift, 200);
	assert_true(tp_cc_swift.lost(space, 0, true) <= 1);
	steady(&tp_cc_dctcp, 200);
	assert_true(tp_cc_dctcp.lost(space, 0, true) <= 2);
}

static void the_receivers_backlog_counts(void **state)
{
	struct tp_cc_ack a = usual;
	float w = steady(&tp_cc_swift, 200), next;

	a.rtt = MIN_RTT + 10 * SD_US;
	a.backlog = 100;
	next = round_of(&tp_cc_swift, w, a);
	assert_true(next >= w);
	a.backlog = 255;
	w = round_of(&tp_cc_swift, next, a);
	assert_true(w < next * 6 / 10);
}

static void mistakes_are_undone(void **state)
{
	float w = steady(&tp_cc_swift, 200);

	w = full_round(&tp_cc_swift, w, 3 * MIN_RTT);
	assert_true(tp_cc_swift.lost(space, 0, false) < w);
	assert_true(tp_cc_swift.undo(space) == w);
	assert_true(tp_cc_swift.undo(space) == w); /* once */
	w = opened(&tp_cc_swift);
	tp_cc_swift.lost(space, 0, true);
	assert_true(tp_cc_swift.undo(space) == w);
	assert_true(full_round(&tp_cc_swift, w, MIN_RTT) == 2 * w); /* slow start goes on */
	w = steady(&tp_cc_dctcp, 200);
	assert_true(tp_cc_dctcp.lost(space, 0, false) < w);
	assert_true(tp_cc_dctcp.undo(space) == w);
}

static void idleness_forgets_a_large_window(void **state)
{
	const struct tp_cc_ops *const all[] = {&tp_cc_swift, &tp_cc_dctcp};

	for (unsigned k = 0; k < 2; k++) {
		steady(all[k], 400);
		assert_true(all[k]->idle(space) == INITIAL);
	}
	steady(&tp_cc_swift, 2);
	assert_true(tp_cc_swift.idle(space) < INITIAL);
}

/* RFC 8257: one packet a round beside the threshold, alpha from 1 on. */
static void dctcp_is_reno_without_marks(void **state)
{
	const struct tp_cc_ops *cc = &tp_cc_dctcp;
	float w = opened(cc);

	w = full_round(cc, w, MIN_RTT);
	assert_true(w == 2 * INITIAL);
	w = marked_round(cc, w, UINT32_MAX);
	assert_true(w < INITIAL + 1); /* alpha is still nearly 1 */
	for (int i = 0; i < 10; i++) {
		float next = full_round(cc, w, 50 * MIN_RTT); /* whatever the delay */

		assert_true(next > w && next <= w + 1);
		w = next;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fixed_never_changes),
		cmocka_unit_test(slow_start_doubles),
		cmocka_unit_test(slow_start_ends_with_delay),
		cmocka_unit_test(slow_start_ends_with_marks),
		cmocka_unit_test(opens_no_wider_than_allowed),
		cmocka_unit_test(unused_window_does_not_grow),
		cmocka_unit_test(grows_slowly_beside_a_queue),
		cmocka_unit_test(small_windows_grow_by_a_larger_part),
		cmocka_unit_test(an_empty_path_is_filled_soon),
		cmocka_unit_test(queueing_delay_shrinks),
		cmocka_unit_test(one_late_acknowledgement_is_forgiven),
		cmocka_unit_test(small_windows_bear_more_delay),
		cmocka_unit_test(long_paths_are_not_starved),
		cmocka_unit_test(marks_shrink_in_proportion),
		cmocka_unit_test(windows_fall_below_a_packet),
		cmocka_unit_test(only_marks_go_below_a_packet),
		cmocka_unit_test(loss_takes_away_what_is_queued),
		cmocka_unit_test(much_loss_counts_without_delay),
		cmocka_unit_test(persistent_loss_starts_over),
		cmocka_unit_test(the_receivers_backlog_counts),
		cmocka_unit_test(mistakes_are_undone),
		cmocka_unit_test(idleness_forgets_a_large_window),
		cmocka_unit_test(dctcp_is_reno_without_marks),
	};

	return cmocka_run_group_tests_name("transport_cc", tests, NULL, NULL);
}
