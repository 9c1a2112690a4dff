/* SPDX-License-Identifier: BSD-3-Clause */
/* The CPU that a thread runs on, and who else wants it. */
#ifndef SD_BASE_CORE_H
#define SD_BASE_CORE_H

#include <stdbool.h>

/* Lets others run (sched_yield(2)); 1 to 2 us if nobody wants to. Did anybody? */
bool sd_core_offer(void);

#endif
