/* SPDX-License-Identifier: BSD-3-Clause */
/* Nobody gets more than its limit, and what is returned can be had again. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rng.h"
#include "provider/ledger.h"

#define KIB 1024ull

static const struct ledger_share limit = {.connections = 10, .bytes = 100 * KIB};
static struct ledger l;

static int setup(void **state)
{
	ledger_open(&l, &limit, NULL);
	return 0;
}

static int teardown(void **state)
{
	ledger_close(&l);
	return 0;
}

static void has(uid_t uid, uint32_t connections, uint64_t bytes)
{
	struct ledger_share s = ledger_of(&l, uid);

	assert_int_equal(s.connections, connections);
	assert_int_equal(s.bytes, bytes);
}

static void ledger__empty(void **state)
{
	has(0, 0, 0);
	has(1000, 0, 0);
	ledger_give(&l, 1000, 1, 1);
	has(1000, 0, 0);
	assert_int_equal(ledger_take(&l, 1000, 0, 0), 0);
	assert_int_equal(l.n_users, 0);
	assert_null(l.users);
}

static void ledger__take_and_give(void **state)
{
	assert_int_equal(ledger_take(&l, 1000, 1, 8 * KIB), 0);
	assert_int_equal(ledger_take(&l, 1000, 0, 4 * KIB), 0); /* a ring grows */
	assert_int_equal(ledger_take(&l, 1001, 2, 1), 0);
	has(1000, 1, 12 * KIB);
	has(1001, 2, 1);
	has(1002, 0, 0);
	ledger_give(&l, 1000, 0, 4 * KIB);
	has(1000, 1, 8 * KIB);
	assert_int_equal(l.n_users, 2);
	ledger_give(&l, 1000, 1, 8 * KIB);
	has(1000, 0, 0);
	has(1001, 2, 1);
	assert_int_equal(l.n_users, 1);
}

static void ledger__limits(void **state)
{
	assert_int_equal(ledger_take(&l, 5, 11, 0), -EDQUOT);
	assert_int_equal(ledger_take(&l, 5, 0, 100 * KIB + 1), -EDQUOT);
	has(5, 0, 0);
	assert_int_equal(l.n_users, 0);
	assert_int_equal(ledger_take(&l, 5, 10, 100 * KIB), 0);
	assert_int_equal(ledger_take(&l, 5, 1, 0), -EDQUOT);
	assert_int_equal(ledger_take(&l, 5, 0, 1), -EDQUOT);
	assert_int_equal(ledger_take(&l, 5, UINT32_MAX, UINT64_MAX), -EDQUOT);
	assert_int_equal(ledger_take(&l, 5, 0, UINT64_MAX - 100 * KIB + 1), -EDQUOT);
	has(5, 10, 100 * KIB);
	assert_int_equal(ledger_take(&l, 6, 10, 100 * KIB), 0); /* each its own */
	ledger_give(&l, 5, 1, 1);
	assert_int_equal(ledger_take(&l, 5, 1, 2), -EDQUOT); /* all or nothing */
	assert_int_equal(ledger_take(&l, 5, 2, 1), -EDQUOT);
	has(5, 9, 100 * KIB - 1);
	assert_int_equal(ledger_take(&l, 5, 1, 1), 0);
}

static void ledger__no_limit(void **state)
{
	const struct ledger_share all = {UINT32_MAX, UINT64_MAX};

	ledger_set_limits(&l, &all, NULL);
	assert_int_equal(ledger_take(&l, 5, UINT32_MAX, UINT64_MAX), 0);
	assert_int_equal(ledger_take(&l, 5, 1, 0), -EDQUOT);
	assert_int_equal(ledger_take(&l, 5, 0, 1), -EDQUOT);
	has(5, UINT32_MAX, UINT64_MAX);
}

static void ledger__root(void **state)
{
	const struct ledger_share more = {20, 200 * KIB}, none = {0};

	assert_int_equal(ledger_limit_of(&l, 0).connections, 10);
	assert_int_equal(ledger_take(&l, 0, 11, 0), -EDQUOT);
	ledger_set_limits(&l, &limit, &more);
	assert_int_equal(ledger_limit_of(&l, 0).connections, 20);
	assert_int_equal(ledger_limit_of(&l, 1).connections, 10);
	assert_int_equal(ledger_take(&l, 0, 20, 200 * KIB), 0);
	assert_int_equal(ledger_take(&l, 0, 1, 0), -EDQUOT);
	assert_int_equal(ledger_take(&l, 1, 11, 0), -EDQUOT);
	ledger_give(&l, 0, 20, 200 * KIB);
	ledger_set_limits(&l, &limit, &none);
	assert_int_equal(ledger_take(&l, 0, 1, 0), -EDQUOT);
	assert_int_equal(ledger_take(&l, 1, 1, 1), 0);
}

static void ledger__lowered_limits(void **state)
{
	const struct ledger_share less = {5, 50 * KIB};

	assert_int_equal(ledger_take(&l, 7, 8, 20 * KIB), 0);
	ledger_set_limits(&l, &less, NULL);
	has(7, 8, 20 * KIB);
	assert_int_equal(ledger_take(&l, 7, 1, 0), -EDQUOT);
	assert_int_equal(ledger_take(&l, 7, 0, 30 * KIB), 0); /* not of this it has too much */
	ledger_give(&l, 7, 4, 0);
	assert_int_equal(ledger_take(&l, 7, 1, 0), 0);
	has(7, 5, 50 * KIB);
}

/* A mistake of the caller's harms nobody else's account. */
static void ledger__gives_too_much(void **state)
{
	assert_int_equal(ledger_take(&l, 8, 2, 10), 0);
	assert_int_equal(ledger_take(&l, 9, 1, 1), 0);
	ledger_give(&l, 8, 3, 5);
	has(8, 0, 5);
	ledger_give(&l, 8, 1, UINT64_MAX);
	has(8, 0, 0);
	has(9, 1, 1);
	assert_int_equal(l.n_users, 1);
}

/* Against a plain array, with users that come and go; small uids, large ones and neighbours. */
static void ledger__many_users(void **state)
{
	enum { USERS = 500, ROUNDS = 200000 };
	static struct ledger_share model[USERS];
	static uid_t uids[USERS];
	size_t most = 0;
	struct sd_rng r;

	print_message("# seed 1\n");
	sd_rng_seed(&r, 1);
	for (unsigned i = 0; i < USERS; i++)
		uids[i] = i < 200 ? i : i < 300 ? i << 20 : (uid_t)-2 - i;
	for (unsigned round = 0; round < ROUNDS; round++) {
		unsigned active = round / 20000 % 2 ? 20 : USERS, i = (unsigned)sd_rng_below(&r, USERS);
		uint32_t connections = (uint32_t)sd_rng_below(&r, 6);
		uint64_t bytes = sd_rng_below(&r, 40 * KIB);
		struct ledger_share *m = &model[i];

		if (i < active && sd_rng_below(&r, 2)) {
			bool fits = m->connections + connections <= limit.connections &&
				    m->bytes + bytes <= limit.bytes;

			assert_int_equal(ledger_take(&l, uids[i], connections, bytes), fits ? 0 : -EDQUOT);
			m->connections += fits ? connections : 0;
			m->bytes += fits ? bytes : 0;
		} else {
			if (connections > m->connections || sd_rng_below(&r, 2))
				connections = m->connections;
			if (bytes > m->bytes || sd_rng_below(&r, 2))
				bytes = m->bytes;
			ledger_give(&l, uids[i], connections, bytes);
			m->connections -= connections;
			m->bytes -= bytes;
		}
		most = l.n_users > most ? l.n_users : most;
		if (round % 500)
			continue;
		for (unsigned u = 0; u < USERS; u++)
			has(uids[u], model[u].connections, model[u].bytes);
	}
	assert_true(most > USERS / 2 && l.size <= 4 * USERS);
	for (unsigned u = 0; u < USERS; u++) {
		has(uids[u], model[u].connections, model[u].bytes);
		ledger_give(&l, uids[u], UINT32_MAX, UINT64_MAX);
	}
	assert_int_equal(l.n_users, 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(ledger__empty),
		CASE(ledger__take_and_give),
		CASE(ledger__limits),
		CASE(ledger__no_limit),
		CASE(ledger__root),
		CASE(ledger__lowered_limits),
		CASE(ledger__gives_too_much),
		CASE(ledger__many_users),
	};

	return cmocka_run_group_tests_name("ledger", tests, NULL, NULL);
}
