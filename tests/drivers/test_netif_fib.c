/* SPDX-License-Identifier: BSD-3-Clause */
/* The copy of the routing tables against a model that looks at every route. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "drivers/netif_fib.h"

enum { MODEL_MAX = 4096 };

/* Routes in the order in which they came. */
struct model {
	struct fib_route routes[MODEL_MAX];
	unsigned count;
};

static struct sd_addr addr(const char *text)
{
	struct sd_addr a = {0};

	assert_int_equal(sd_addr_parse(text, &a), 0);
	return a;
}

static struct fib_route route(const char *dst, uint8_t len, uint32_t metric, int ifindex)
{
	struct sd_addr a = addr(dst);
	struct fib_route r = {
		.table = 254, .family = a.family, .prefix_len = len, .metric = metric, .ifindex = ifindex};

	memcpy(r.dst, a.ip, sizeof r.dst);
	return r;
}

static void add_rule(struct fib *f, uint32_t priority, uint32_t table, int suppress)
{
	for (uint8_t family = 4; family <= 6; family += 2) {
		struct fib_rule r = {
			.priority = priority, .table = table, .suppress_len = suppress, .family = family};

		assert_int_equal(fib_append_rule(f, &r), 0);
	}
	assert_int_equal(fib_sort(f), 0);
}

static int hop_of(const struct fib *f, const char *dst)
{
	struct sd_addr a = addr(dst);
	const struct fib_route *r = fib_lookup(f, &a);

	return r ? r->ifindex : 0;
}

static void prefers_the_longest_prefix(void **state)
{
	struct fib_route routes[] = {route("0.0.0.0", 0, 0, 1), route("10.0.0.0", 8, 0, 2),
		route("10.1.0.0", 16, 0, 3), route("10.1.2.0", 23, 0, 4), route("10.1.2.3", 32, 0, 5),
		route("::", 0, 0, 6), route("fd00::", 8, 0, 7)};
	struct fib f;

	fib_init(&f);
	add_rule(&f, 1, 254, -1);
	for (size_t i = 0; i < sizeof routes / sizeof *routes; i++)
		assert_int_equal(fib_insert(&f, &routes[i], FIB_LAST), 0);
	assert_int_equal(hop_of(&f, "9.9.9.9"), 1);
	assert_int_equal(hop_of(&f, "10.200.0.1"), 2);
	assert_int_equal(hop_of(&f, "10.1.4.1"), 3);
	assert_int_equal(hop_of(&f, "10.1.3.255"), 4);
	assert_int_equal(hop_of(&f, "10.1.2.3"), 5);
	assert_int_equal(hop_of(&f, "2001::1"), 6);
	assert_int_equal(hop_of(&f, "fd77::1"), 7);
	fib_free(&f);
}

static void prefers_the_lowest_metric(void **state)
{
	struct fib_route high = route("10.0.0.0", 8, 200, 1), low = route("10.0.0.0", 8, 100, 2),
			 later = route("10.0.0.0", 8, 100, 3);
	struct fib f;

	fib_init(&f);
	add_rule(&f, 1, 254, -1);
	fib_insert(&f, &high, FIB_LAST);
	fib_insert(&f, &low, FIB_LAST);
	fib_insert(&f, &later, FIB_LAST);
	assert_int_equal(hop_of(&f, "10.0.0.1"), 2); /* and of equals the first that came */
	assert_true(fib_remove(&f, &low));
	assert_int_equal(hop_of(&f, "10.0.0.1"), 3);
	assert_true(fib_remove(&f, &later));
	assert_int_equal(hop_of(&f, "10.0.0.1"), 1);
	assert_false(fib_remove(&f, &later));
	fib_free(&f);
}

static void keeps_a_place(void **state)
{
	struct fib_route a = route("10.0.0.0", 8, 0, 1), b = route("10.0.0.0", 8, 0, 2),
			 c = route("10.0.0.0", 8, 0, 3);
	struct fib f;

	fib_init(&f);
	add_rule(&f, 1, 254, -1);
	assert_false(fib_has_key(&f, &a));
	fib_insert(&f, &a, FIB_INSTEAD_OF_FIRST); /* of none */
	fib_insert(&f, &b, FIB_LAST);
	assert_int_equal(hop_of(&f, "10.0.0.1"), 1);
	fib_insert(&f, &c, FIB_FIRST);
	assert_int_equal(hop_of(&f, "10.0.0.1"), 3);
	fib_insert(&f, &c, FIB_LAST); /* the same again */
	assert_int_equal(f.route_count, 3);
	assert_true(fib_remove(&f, &a));
	fib_insert(&f, &a, FIB_INSTEAD_OF_FIRST);
	assert_int_equal(f.route_count, 2);
	assert_int_equal(hop_of(&f, "10.0.0.1"), 1);
	assert_true(fib_remove(&f, &a));
	assert_int_equal(hop_of(&f, "10.0.0.1"), 2);
	assert_true(fib_has_key(&f, &a));
	fib_free(&f);
}

static void follows_rules(void **state)
{
	struct fib_route main_default = route("0.0.0.0", 0, 0, 1), main_net = route("10.0.0.0", 8, 0, 2),
			 vpn_default = route("0.0.0.0", 0, 0, 3), thrown = route("10.5.0.0", 16, 0, 4);
	struct fib f;

	fib_init(&f);
	vpn_default.table = thrown.table = 100;
	thrown.verdict = FIB_THROW;
	fib_insert(&f, &main_default, FIB_LAST);
	fib_insert(&f, &main_net, FIB_LAST);
	fib_insert(&f, &vpn_default, FIB_LAST);
	fib_insert(&f, &thrown, FIB_LAST);
	/* As a VPN's client sets it up: main without its default route, then all into the tunnel. */
	add_rule(&f, 20, 100, -1);
	add_rule(&f, 10, 254, 0);
	add_rule(&f, 30, 254, -1);
	assert_int_equal(hop_of(&f, "10.0.0.1"), 2);
	assert_int_equal(hop_of(&f, "9.9.9.9"), 3);
	assert_true(fib_remove(&f, &main_net));
	assert_int_equal(hop_of(&f, "10.5.0.1"), 1); /* thrown out of the table, on to the next rule */
	assert_int_equal(hop_of(&f, "10.6.0.1"), 3);
	fib_free(&f);
}

static void keeps_to_a_scope(void **state)
{
	struct fib_route a = route("fe80::", 64, 256, 1), b = route("fe80::", 64, 256, 2);
	struct sd_addr dst = addr("fe80::9");
	struct fib f;

	fib_init(&f);
	add_rule(&f, 1, 254, -1);
	fib_insert(&f, &a, FIB_LAST);
	fib_insert(&f, &b, FIB_LAST);
	for (uint32_t scope = 1; scope <= 2; scope++) {
		dst.scope = scope;
		assert_int_equal(fib_lookup(&f, &dst)->ifindex, scope);
	}
	dst.scope = 3;
	assert_null(fib_lookup(&f, &dst));
	fib_free(&f);
}

/* --- against the model --- */

static bool covers(const struct fib_route *r, const struct sd_addr *dst)
{
	struct sd_addr net = {.family = r->family};

	memcpy(net.ip, r->dst, sizeof net.ip);
	return r->family == dst->family && sd_addr_in_prefix(dst, &net, r->prefix_len);
}

static const struct fib_route *model_lookup(const struct model *m, const struct sd_addr *dst)
{
	const struct fib_route *best = NULL;

	for (unsigned i = 0; i < m->count; i++) {
		const struct fib_route *r = &m->routes[i];

		if (covers(r, dst) &&
			(!best || r->prefix_len > best->prefix_len ||
				(r->prefix_len == best->prefix_len && r->metric < best->metric)))
			best = r;
	}
	return best;
}

/* Few bits, so that prefixes meet. */
static struct sd_addr random_addr(struct sd_rng *rng)
{
	struct sd_addr a = {.family = sd_rng_below(rng, 2) ? 4 : 6};

	for (unsigned i = 0; i < 4; i++)
		a.ip[i] = (uint8_t)(sd_rng_below(rng, 2) * 0x80 + sd_rng_below(rng, 2));
	return a;
}

static struct fib_route random_route(struct sd_rng *rng)
{
	struct sd_addr a = random_addr(rng);
	struct fib_route r = {.table = 254, .family = a.family, .metric = (uint32_t)sd_rng_below(rng, 2)};

	r.prefix_len = (uint8_t)sd_rng_below(rng, 33);
	for (unsigned bit = r.prefix_len; bit < 128; bit++)
		a.ip[bit / 8] &= (uint8_t) ~(0x80 >> bit % 8);
	memcpy(r.dst, a.ip, sizeof r.dst);
	r.ifindex = 1 + (int)sd_rng_below(rng, 3);
	return r;
}

static int model_find(const struct model *m, const struct fib_route *r)
{
	for (unsigned i = 0; i < m->count; i++)
		if (!memcmp(&m->routes[i], r, sizeof *r))
			return (int)i;
	return -1;
}

static void agrees_with_a_model(void **state)
{
	struct model *m = calloc(1, sizeof *m);
	struct sd_rng rng;
	struct fib f;

	assert_non_null(m);
	fib_init(&f);
	add_rule(&f, 1, 254, -1);
	sd_rng_seed(&rng, 3);
	for (unsigned step = 0; step < 20000; step++) {
		struct fib_route r = random_route(&rng);
		int at = model_find(m, &r);
		struct sd_addr dst = random_addr(&rng);
		const struct fib_route *got, *want;

		if (m->count < 300 && sd_rng_below(&rng, 3)) {
			assert_int_equal(fib_insert(&f, &r, FIB_LAST), 0);
			if (at < 0)
				m->routes[m->count++] = r;
		} else {
			if (m->count && sd_rng_below(&rng, 2)) { /* one that is there */
				at = (int)sd_rng_below(&rng, m->count);
				r = m->routes[at];
			}
			assert_int_equal(fib_remove(&f, &r), at >= 0);
			if (at >= 0)
				memmove(&m->routes[at], &m->routes[at + 1],
					(--m->count - (unsigned)at) * sizeof r);
		}
		assert_int_equal(f.route_count, m->count);
		got = fib_lookup(&f, &dst);
		want = model_lookup(m, &dst);
		assert_int_equal(!got, !want);
		if (got)
			assert_memory_equal(got, want, sizeof *got);
	}
	fib_free(&f);
	free(m);
}

/* Appending everything and sorting once comes to the same as inserting one by one. */
static void sorts_like_it_inserts(void **state)
{
	struct fib one, all;
	struct sd_rng rng;

	fib_init(&one);
	fib_init(&all);
	sd_rng_seed(&rng, 4);
	for (unsigned i = 0; i < 500; i++) {
		struct fib_route r = random_route(&rng);

		r.metric = i; /* all different */
		assert_int_equal(fib_insert(&one, &r, FIB_LAST), 0);
		assert_int_equal(fib_append(&all, &r), 0);
	}
	assert_int_equal(fib_sort(&all), 0);
	assert_int_equal(one.route_count, all.route_count);
	assert_memory_equal(one.routes, all.routes, one.route_count * sizeof *one.routes);
	fib_free(&one);
	fib_free(&all);
}

int main(void)
{
	const struct CMUnitTest cases[] = {
		cmocka_unit_test(prefers_the_longest_prefix),
		cmocka_unit_test(prefers_the_lowest_metric),
		cmocka_unit_test(keeps_a_place),
		cmocka_unit_test(follows_rules),
		cmocka_unit_test(keeps_to_a_scope),
		cmocka_unit_test(agrees_with_a_model),
		cmocka_unit_test(sorts_like_it_inserts),
	};

	return cmocka_run_group_tests_name("netif_fib", cases, NULL, NULL);
}
