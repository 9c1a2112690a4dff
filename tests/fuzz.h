/* SPDX-License-Identifier: BSD-3-Clause */
/* How fuzz targets fail: with a word of what did not hold, as the input alone may not show it again. */
#ifndef SD_TESTS_FUZZ_H
#define SD_TESTS_FUZZ_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#define fail_if(wrong) fuzz_fail_if(wrong, #wrong, __FILE__, __LINE__)
#define require(holds) fuzz_fail_if(!(holds), "not " #holds, __FILE__, __LINE__)

static inline void fuzz_fail_if(bool wrong, const char *what, const char *file, int line)
{
	if (!wrong)
		return;
	fprintf(stderr, "%s:%d: %s (%m)\n", file, line, what);
	abort();
}

#endif
