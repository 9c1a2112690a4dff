/* SPDX-License-Identifier: BSD-3-Clause */
/* node: the NUMA nodes of the machine, as far as memory and threads of ports are concerned (libnuma). */
#ifndef SD_DRIVERS_DPDK_NODE_H
#define SD_DRIVERS_DPDK_NODE_H

#include <stdbool.h>
#include <stdint.h>

/* The node that has all CPUs on which this thread may run; -1: they are on several, or there is but one. */
int node_only(void);
/* May this thread run on the node? Also true if the machine has but one. */
bool node_is_allowed(int node);
/* Its free hugepages, in bytes. */
uint64_t node_free_huge(int node);

#endif
