/* SPDX-License-Identifier: BSD-3-Clause */
/* Monotonic time in nanoseconds. */
#ifndef SD_BASE_CLOCK_H
#define SD_BASE_CLOCK_H

#include <stdint.h>

#define SD_US 1000ull
#define SD_MS 1000000ull
#define SD_S  1000000000ull

/* CLOCK_MONOTONIC in ns, from the cycle counter where that is invariant (under 15 ns a call), else from
 * the vDSO. Never goes back on one thread. Thread-safe; makes no system call after the first use. */
uint64_t sd_clock_ns(void);

#endif
