/* SPDX-License-Identifier: BSD-3-Clause */
/* The measuring programs' percentiles. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "histogram.h"

static struct histogram h;

static void quantile__empty(void **state)
{
	memset(&h, 0, sizeof h);
	assert_int_equal(histogram_quantile(&h, 0.5), 0);
	assert_true(histogram_mean(&h) == 0);
}

static void quantile__uniform_within_one_percent(void **state)
{
	memset(&h, 0, sizeof h);
	for (uint64_t v = 1; v <= 1000000; v++)
		histogram_add(&h, v);
	assert_in_range(histogram_quantile(&h, 0.5), 495000, 500000);
	assert_in_range(histogram_quantile(&h, 0.99), 980000, 990000);
	assert_in_range(histogram_quantile(&h, 1), 990000, 1000000);
	assert_true(histogram_mean(&h) == 500000.5);
	assert_int_equal(h.max, 1000000);
}

static void quantile__every_magnitude(void **state)
{
	for (uint64_t v = 1; v < 900000000000; v += v / 3 + 1) {
		uint64_t q;

		memset(&h, 0, sizeof h);
		histogram_add(&h, v);
		q = histogram_quantile(&h, 0.5);
		if (q > v || v - q > v / 100)
			fail_msg("%llu became %llu", (unsigned long long)v, (unsigned long long)q);
	}
	histogram_add(&h, UINT64_MAX); /* and stays in its bounds */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(quantile__empty),
		cmocka_unit_test(quantile__uniform_within_one_percent),
		cmocka_unit_test(quantile__every_magnitude),
	};

	return cmocka_run_group_tests_name("bench_histogram", tests, NULL, NULL);
}
