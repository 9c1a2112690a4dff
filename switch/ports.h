/* SPDX-License-Identifier: BSD-3-Clause */
/* The provider of the ports that the configuration names: for a program that has ports of its own, and for
 * the daemon. */
#ifndef SD_SWITCH_PORTS_H
#define SD_SWITCH_PORTS_H

#include "config/config.h"
#include "provider/registry.h"

/* Opens nothing before it is started. 0 or -errno. */
int sw_ports_open(const struct cfg *cfg, pv_ready_fn *ready, struct pv **out);
/* The same as member of a crew (provider/registry.h), or with NULL of none. */
int sw_ports_open_for(const struct cfg *cfg, struct pv_ether_crew *crew, unsigned member, pv_ready_fn *ready,
	struct pv **out);

#endif
