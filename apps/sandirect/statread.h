/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * statread: the connection tables that programs publish (switch/statfile.h), read without trusting them.
 *
 * Files are read, never mapped, so that a writer which truncates its file cannot kill the reader. Strings
 * come out terminated and printable, numbers in their ranges.
 */
#ifndef SD_APPS_STATREAD_H
#define SD_APPS_STATREAD_H

#include <sys/types.h>

#include "switch/statfile.h"

struct stat_file {
	struct statfile_header header;
	char host[64]; /* its network namespace: the name under /run/netns, "-" if it is ours, else
			  "net:[INODE]" */
	struct statfile_record *records; /* those in use */
	unsigned n_records;
};

/* Reads the files of all processes, or of pid alone if that is not 0, after asking each for fresh numbers and
 * waiting for them a short while. Files of processes that are gone are removed on the way. Returns how many,
 * ordered by pid, or -errno; free with stat_free_all(). */
int stat_read_all(const char *runtime_dir, pid_t pid, struct stat_file **out);
/* Leaves out those that have no connections to tell of, but ports: the daemon's. How many are left. */
unsigned stat_with_connections(struct stat_file *files, unsigned n);
/* Removes the files of processes that are gone, and their directory if it is empty then. */
void stat_sweep(const char *runtime_dir);
void stat_free_all(struct stat_file *files, unsigned n);

#endif
