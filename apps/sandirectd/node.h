/* SPDX-License-Identifier: BSD-3-Clause */
/* node: keeps an engine's thread on the NUMA node of the NIC that it serves. */
#ifndef SD_APPS_SANDIRECTD_NODE_H
#define SD_APPS_SANDIRECTD_NODE_H

#include <stdbool.h>

#include "config/config.h"

/* Of the ports' devices, the first that is known; -1: none is, or the machine has but one. */
int node_of_ports(const struct cfg *cfg);
/* The calling thread runs on this node only, on those of its CPUs that it may use at all, and takes memory
 * from there while there is any. 0; -EINVAL: it may use none of them, and stays as it was. */
int node_join(int node);
/* Is this CPU of another node? */
bool node_is_other(int node, int cpu);

#endif
