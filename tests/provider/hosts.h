/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * hosts: two hosts in one test program. Each has a network namespace with an interface san0 (a veth pair),
 * 10.77.0.1 and .2, fd77::1 and ::2, and may have a provider of its own; one domain drives both. A thread is
 * always on one of the hosts, at first on none of them.
 */
#ifndef SD_TESTS_PROVIDER_HOSTS_H
#define SD_TESTS_PROVIDER_HOSTS_H

#include "provider/registry.h"

#define HOSTS_NETDEV "san0"

/* Makes the namespaces; they go with the process. False: this machine does not let us. */
bool hosts_open(void);
/* Moves the calling thread to host 0 or 1. */
void hosts_enter(unsigned host);
/* host's address of the family, with port. */
struct sd_addr hosts_addr(unsigned host, unsigned family, uint16_t port);

#endif
