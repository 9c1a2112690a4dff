/* SPDX-License-Identifier: BSD-3-Clause */
/* Random numbers. All seeds are fixed: what these tests say about frequencies is the same in every run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"

#define DRAWS 200000

/* The reference implementations' numbers: splitmix64 from 0, and xoshiro256** from the state 1, 2, 3, 4. */
static void rng__published(void **state)
{
	static const uint64_t split[] = {
		0xe220a8397b1dcdaf, 0x6e789e6aa1b965f4, 0x06c45d188009454f, 0xf88bb8a8724c81ec};
	static const uint64_t next[] = {11520, 0, 1509978240, 1215971899390074240, 1216172134540287360,
		607988272756665600, 16172922978634559625u, 8476171486693032832, 10595114339597558777u,
		2904607092377533576};
	struct sd_rng r;

	sd_rng_seed(&r, 0);
	assert_memory_equal(r.s, split, sizeof split);
	r = (struct sd_rng){{1, 2, 3, 4}};
	for (unsigned i = 0; i < sizeof next / sizeof *next; i++)
		assert_true(sd_rng_next(&r) == next[i]);
}

static void rng__seed_decides(void **state)
{
	struct sd_rng a, b, c;
	unsigned same = 0;

	sd_rng_seed(&a, 42);
	sd_rng_seed(&b, 42);
	sd_rng_seed(&c, 43);
	for (unsigned i = 0; i < 1000; i++) {
		uint64_t x = sd_rng_next(&a);

		assert_true(x == sd_rng_next(&b));
		same += x == sd_rng_next(&c);
	}
	assert_int_equal(same, 0);
}

static void below__in_range(void **state)
{
	static const uint64_t limits[] = {1, 2, 3, 10, 255, 256, 1000000007, 1ull << 32, (1ull << 32) + 1,
		1ull << 63, (1ull << 63) + 1, UINT64_MAX - 1, UINT64_MAX};
	struct sd_rng r;

	sd_rng_seed(&r, 1);
	for (unsigned i = 0; i < sizeof limits / sizeof *limits; i++) {
		uint64_t most = 0;

		for (unsigned k = 0; k < 10000; k++) {
			uint64_t x = sd_rng_below(&r, limits[i]);

			assert_true(x < limits[i]);
			if (x > most)
				most = x;
		}
		assert_true(most >= (limits[i] - 1) / 100 * 99); /* and it comes near the limit */
	}
}

/* Are n counts of DRAWS draws within five standard deviations of equal? */
static bool uniform(const unsigned *counts, unsigned n)
{
	double mean = (double)DRAWS / n, variance = mean * (1 - 1.0 / n);

	for (unsigned i = 0; i < n; i++)
		if ((counts[i] - mean) * (counts[i] - mean) > 25 * variance)
			return false;
	return true;
}

static void below__uniform(void **state)
{
	static const unsigned limits[] = {2, 3, 7, 10, 64, 100};

	for (unsigned i = 0; i < sizeof limits / sizeof *limits; i++) {
		unsigned counts[100] = {0};
		struct sd_rng r;

		sd_rng_seed(&r, limits[i]);
		for (unsigned k = 0; k < DRAWS; k++)
			counts[sd_rng_below(&r, limits[i])]++;
		if (!uniform(counts, limits[i]))
			fail_msg("not uniform below %u", limits[i]);
	}
}

/* Three quarters of 2^64: unless some numbers are drawn again, every third result is twice as likely. */
static void below__unbiased(void **state)
{
	unsigned counts[3] = {0};
	struct sd_rng r;

	sd_rng_seed(&r, 5);
	for (unsigned k = 0; k < DRAWS; k++)
		counts[sd_rng_below(&r, 3ull << 62) % 3]++;
	assert_true(uniform(counts, 3));
}

static void unit__uniform(void **state)
{
	unsigned counts[100] = {0};
	struct sd_rng r;

	sd_rng_seed(&r, 8);
	for (unsigned k = 0; k < DRAWS; k++) {
		double x = sd_rng_unit(&r);

		assert_true(x >= 0 && x < 1);
		counts[(unsigned)(x * 100)]++;
	}
	assert_true(uniform(counts, 100));
}

/* The state whose next number is x: the inverses of * 9, of the rotation by 7 and of * 5. */
static struct sd_rng about_to_give(uint64_t x)
{
	uint64_t y = x * 0x8e38e38e38e38e39;

	return (struct sd_rng){{1, (y >> 7 | y << 57) * 0xcccccccccccccccd, 3, 4}};
}

static void unit__never_one(void **state)
{
	struct sd_rng r = about_to_give(UINT64_MAX);
	double x;

	assert_true(sd_rng_next(&r) == UINT64_MAX);
	r = about_to_give(UINT64_MAX);
	x = sd_rng_unit(&r);
	assert_true(x < 1 && x > 0.999999999999999);
	r = about_to_give(0);
	assert_true(sd_rng_unit(&r) == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rng__published),
		cmocka_unit_test(rng__seed_decides),
		cmocka_unit_test(below__in_range),
		cmocka_unit_test(below__uniform),
		cmocka_unit_test(below__unbiased),
		cmocka_unit_test(unit__uniform),
		cmocka_unit_test(unit__never_one),
	};

	return cmocka_run_group_tests_name("rng", tests, NULL, NULL);
}
