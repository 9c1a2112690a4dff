/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * netif: the kernel's addresses and routes, from rtnetlink, followed live.
 *
 * Answers "which local address and interface would the kernel use for this destination?" from a local copy,
 * so that a connect costs no system call. The copy is brought up to date by netif_poll(); one thread at a
 * time.
 */
#ifndef SD_DRIVERS_NETIF_H
#define SD_DRIVERS_NETIF_H

#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"

struct netif;

struct netif_route {
	int ifindex;		/* outgoing interface */
	bool local;		/* the destination is an address of this host */
	bool onlink;		/* no gateway in between */
	struct sd_addr source;	/* preferred source address; family 0: none known */
	struct sd_addr gateway; /* family 0 when onlink */
};

/* Dumps links, addresses and routes (all tables that the rules without selectors lead to; at least main and
 * local) of the calling thread's network namespace. 0, -ENOMEM, or a netlink error. */
int netif_open(struct netif **out);
void netif_close(struct netif *n);
/* Readable when there may be changes. */
int netif_fd(const struct netif *n);
/* The other descriptor it holds. */
int netif_dump_fd(const struct netif *n);
/* Applies pending changes without blocking (an overrun dumps anew); returns true when anything changed. */
bool netif_poll(struct netif *n);
/* Grows with every change. */
uint64_t netif_generation(const struct netif *n);
/* Longest prefix match, lowest metric. 0, -ENETUNREACH, -EHOSTUNREACH (blackhole, unreachable, prohibit). */
int netif_route(const struct netif *n, const struct sd_addr *dst, struct netif_route *out);
/* 0: no such interface. */
int netif_index(const struct netif *n, const char *ifname);
bool netif_is_up(const struct netif *n, int ifindex);
/* Is a an address of ifindex (0: of any interface)? */
bool netif_has_addr(const struct netif *n, int ifindex, const struct sd_addr *a);
/* Addresses of ifindex, at most max; returns how many there are. */
unsigned netif_addrs(const struct netif *n, int ifindex, struct sd_addr *out, unsigned max);
uint16_t netif_mtu(const struct netif *n, int ifindex);

#endif
