/* SPDX-License-Identifier: BSD-3-Clause */
#include "drivers/netif_fib.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void fib_init(struct fib *f)
{
	memset(f, 0, sizeof *f);
}

void fib_free(struct fib *f)
{
	free(f->routes);
	free(f->rules);
	fib_init(f);
}

static uint8_t *length_flag(struct fib *f, const struct fib_route *r)
{
	return &f->lengths[r->family == 6][r->prefix_len];
}

/* Table, family, longest prefix first, destination. */
static int compare_prefix(const struct fib_route *a, const struct fib_route *b)
{
	if (a->table != b->table)
		return a->table < b->table ? -1 : 1;
	if (a->family != b->family)
		return a->family < b->family ? -1 : 1;
	if (a->prefix_len != b->prefix_len)
		return a->prefix_len > b->prefix_len ? -1 : 1;
	return memcmp(a->dst, b->dst, sizeof a->dst);
}

static int compare_key(const struct fib_route *a, const struct fib_route *b)
{
	int c = compare_prefix(a, b);

	if (c || a->metric == b->metric)
		return c;
	return a->metric < b->metric ? -1 : 1;
}

static bool same_route(const struct fib_route *a, const struct fib_route *b)
{
	return !compare_key(a, b) && a->verdict == b->verdict && a->ifindex == b->ifindex &&
	       sd_addr_same_ip(&a->gateway, &b->gateway) && sd_addr_same_ip(&a->source, &b->source);
}

/* The first route that is not before key. */
static unsigned lower_bound(const struct fib *f, const struct fib_route *key)
{
	unsigned lo = 0, hi = f->route_count;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;

		if (compare_key(&f->routes[mid], key) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static int reserve(void **v, unsigned *cap, unsigned count, size_t size)
{
	unsigned want = *cap ? *cap * 2 : 32;
	void *grown;

	if (count < *cap)
		return 0;
	grown = reallocarray(*v, want, size);
	if (!grown)
		return -ENOMEM;
	*v = grown;
	*cap = want;
	return 0;
}

int fib_append(struct fib *f, const struct fib_route *r)
{
	int err = reserve((void **)&f->routes, &f->route_cap, f->route_count, sizeof *f->routes);

	if (err)
		return err;
	f->routes[f->route_count++] = *r;
	*length_flag(f, r) = 1;
	return 0;
}

int fib_append_rule(struct fib *f, const struct fib_rule *r)
{
	int err = reserve((void **)&f->rules, &f->rule_cap, f->rule_count, sizeof *f->rules);

	if (err)
		return err;
	f->rules[f->rule_count++] = *r;
	return 0;
}

/* Merge sort, because equal keys must stay in the kernel's order. */
static void merge(struct fib_route *v, struct fib_route *tmp, unsigned n)
{
	unsigned half = n / 2, i = 0, j = half, k = 0;

	if (n < 2)
		return;
	merge(v, tmp, half);
	merge(v + half, tmp, n - half);
	while (i < half && j < n)
		tmp[k++] = compare_key(&v[j], &v[i]) < 0 ? v[j++] : v[i++];
	while (i < half)
		tmp[k++] = v[i++];
	memcpy(v, tmp, k * sizeof *v);
}

static void insertion_sort_rules(struct fib *f)
{
	for (unsigned i = 1; i < f->rule_count; i++) {
		struct fib_rule r = f->rules[i];
		unsigned j = i;

		for (; j > 0 && f->rules[j - 1].priority > r.priority; j--)
			f->rules[j] = f->rules[j - 1];
		f->rules[j] = r;
	}
}

int fib_sort(struct fib *f)
{
	struct fib_route *tmp = malloc((f->route_count + 1) * sizeof *tmp);

	if (!tmp)
		return -ENOMEM;
	merge(f->routes, tmp, f->route_count);
	free(tmp);
	insertion_sort_rules(f);
	return 0;
}

static void remove_at(struct fib *f, unsigned i)
{
	memmove(&f->routes[i], &f->routes[i + 1], (--f->route_count - i) * sizeof *f->routes);
}

int fib_insert(struct fib *f, const struct fib_route *r, enum fib_place place)
{
	unsigned first = lower_bound(f, r), end = first, at;
	int err;

	for (; end < f->route_count && !compare_key(&f->routes[end], r); end++)
		if (same_route(&f->routes[end], r))
			return 0;
	if (place == FIB_INSTEAD_OF_FIRST && end > first) {
		f->routes[first] = *r;
		return 0;
	}
	err = reserve((void **)&f->routes, &f->route_cap, f->route_count, sizeof *f->routes);
	if (err)
		return err;
	at = place == FIB_LAST ? end : first;
	memmove(&f->routes[at + 1], &f->routes[at], (f->route_count++ - at) * sizeof *f->routes);
	f->routes[at] = *r;
	*length_flag(f, r) = 1;
	return 0;
}

bool fib_remove(struct fib *f, const struct fib_route *r)
{
	for (unsigned i = lower_bound(f, r); i < f->route_count && !compare_key(&f->routes[i], r); i++) {
		if (same_route(&f->routes[i], r)) {
			remove_at(f, i);
			return true;
		}
	}
	return false;
}

bool fib_has_key(const struct fib *f, const struct fib_route *r)
{
	unsigned i = lower_bound(f, r);

	return i < f->route_count && !compare_key(&f->routes[i], r);
}

static void mask(uint8_t ip[16], unsigned len)
{
	unsigned whole = len / 8;

	if (whole == 16)
		return;
	ip[whole] &= (uint8_t)(0xff00 >> len % 8);
	memset(ip + whole + 1, 0, 15 - whole);
}

static const struct fib_route *lookup_table(const struct fib *f, uint32_t table, const struct sd_addr *dst)
{
	const uint8_t *lengths = f->lengths[dst->family == 6];
	struct fib_route key = {.table = table, .family = dst->family};

	for (unsigned len = sd_addr_ip_len(dst) * 8 + 1; len-- > 0;) {
		if (!lengths[len])
			continue;
		key.prefix_len = (uint8_t)len;
		memcpy(key.dst, dst->ip, sizeof key.dst);
		mask(key.dst, len);
		for (unsigned i = lower_bound(f, &key); i < f->route_count; i++) {
			const struct fib_route *r = &f->routes[i];

			if (compare_prefix(r, &key))
				break;
			if (!dst->scope || r->ifindex == (int)dst->scope)
				return r;
		}
	}
	return NULL;
}

const struct fib_route *fib_lookup(const struct fib *f, const struct sd_addr *dst)
{
	for (unsigned i = 0; i < f->rule_count; i++) {
		const struct fib_rule *rule = &f->rules[i];
		const struct fib_route *r;

		if (rule->family != dst->family)
			continue;
		r = lookup_table(f, rule->table, dst);
		if (r && r->verdict != FIB_THROW && (int)r->prefix_len > rule->suppress_len)
			return r;
	}
	return NULL;
}
