/* SPDX-License-Identifier: BSD-3-Clause */
/* Descriptors, counted for tests and fuzz targets. */
#ifndef SD_TESTS_PROVIDER_FDS_H
#define SD_TESTS_PROVIDER_FDS_H

#include <dirent.h>
#include <stdlib.h>

/* How many this process has open, the one of the count itself among them. */
static inline unsigned fds_open(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	if (!d)
		abort();
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

#endif
