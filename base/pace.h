/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How often to look at something where a look costs a system call and nothing else tells: the longer it has
 * been quiet, the more rarely, after an eighth of that time.
 */
#ifndef SD_BASE_PACE_H
#define SD_BASE_PACE_H

#include <stdbool.h>
#include <stdint.h>

struct sd_pace {
	uint64_t last_event, next; /* sd_clock_ns() */
};

/* A look has found something, or not: the next one is due after at least min_ns, at most max_ns. */
static inline void sd_pace_looked(
	struct sd_pace *p, uint64_t now, bool found, uint64_t min_ns, uint64_t max_ns)
{
	uint64_t wait;

	if (found)
		p->last_event = now;
	wait = (now - p->last_event) / 8;
	p->next = now + (wait < min_ns ? min_ns : wait < max_ns ? wait : max_ns);
}

#endif
