/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * netif_fib: a copy of the kernel's routing tables with longest prefix match. Pure; private to netif.
 *
 * Routes lie in one array in the order of their keys, so a lookup is one binary search per prefix length in
 * use.
 */
#ifndef SD_DRIVERS_NETIF_FIB_H
#define SD_DRIVERS_NETIF_FIB_H

#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"

enum fib_verdict { FIB_UNICAST, FIB_LOCAL, FIB_GROUP, FIB_REFUSED, FIB_THROW };

struct fib_route {
	/* The key: routes with equal keys are tried in the order in which they came. */
	uint32_t table;
	uint8_t family, prefix_len;
	uint8_t dst[16];
	uint32_t metric;
	/* What it says. */
	uint8_t verdict; /* enum fib_verdict */
	int ifindex;
	struct sd_addr source, gateway; /* family 0: none */
};

struct fib_rule {
	uint32_t priority, table;
	int suppress_len; /* matches this short or shorter do not count; -1: all count */
	uint8_t family;
};

struct fib {
	struct fib_route *routes;
	unsigned route_count, route_cap;
	struct fib_rule *rules; /* by priority */
	unsigned rule_count, rule_cap;
	uint8_t lengths[2][129]; /* by family: there may be prefixes of this length */
};

void fib_init(struct fib *f);
void fib_free(struct fib *f);

/* Append without keeping order; fib_sort() afterwards. 0 or -ENOMEM. */
int fib_append(struct fib *f, const struct fib_route *r);
int fib_append_rule(struct fib *f, const struct fib_rule *r);
int fib_sort(struct fib *f);

/* Where a route goes among those with its key. Nothing happens when the same one is there already. 0 or
 * -ENOMEM. */
enum fib_place { FIB_FIRST, FIB_LAST, FIB_INSTEAD_OF_FIRST };
int fib_insert(struct fib *f, const struct fib_route *r, enum fib_place place);
/* Removes the same route; false when there was none. */
bool fib_remove(struct fib *f, const struct fib_route *r);
bool fib_has_key(const struct fib *f, const struct fib_route *r);

/* The route for dst by all rules in order, or NULL. A scope in dst restricts it to that interface. */
const struct fib_route *fib_lookup(const struct fib *f, const struct sd_addr *dst);

#endif
