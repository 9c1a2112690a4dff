/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/core.h"

#include <sched.h>
#include <sys/resource.h>

/* How often this thread could have gone on and was taken from its CPU. */
static long switches(void)
{
	struct rusage u;

	return getrusage(RUSAGE_THREAD, &u) ? 0 : u.ru_nivcsw;
}

bool sd_core_offer(void)
{
	long before = switches();

	sched_yield();
	return switches() != before;
}
