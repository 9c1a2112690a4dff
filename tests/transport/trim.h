/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * trim: makes a simulated run smaller than its seed says, so that what goes wrong can be looked at. SIM_TRIM
 * is a list like "pairs=1,bytes=1000,-loss": bounds, and troubles that are switched off. All is drawn as
 * before.
 */
#ifndef SD_TESTS_TRANSPORT_TRIM_H
#define SD_TESTS_TRANSPORT_TRIM_H

#include "sim.h"

/* Is it switched off? */
bool trim_off(const char *trouble);
/* What the list says, or n. */
uint64_t trim_value(const char *name, uint64_t n);
/* n, or the lower bound that the list sets. */
uint64_t trim_bound(const char *name, uint64_t n);
/* Of links and hosts: loss, duplicate, reorder, corrupt, ce, jitter, rate, queue, mark, mtu, lag, burst,
 * clock, isn, memory, crc, change. */
void trim_sim(struct sim *s);

/* Runs of seeds, by the environment: SIM_SEED and SIM_COUNT, or those from 1 to n. Without SIM_COUNT one seed
 * is run, in words. */
struct trim_seeds {
	uint64_t first, count;
	bool verbose;
};

struct trim_seeds trim_seeds(uint64_t n);

#endif
