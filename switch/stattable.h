/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * stattable: this process's table (statfile.h): the file, who the process is, and its ports. The file is
 * sparse; a page is made present by madvise(2) before it is first written, because a full file system would
 * answer a plain write with SIGBUS. Whatever goes wrong, there is just no table: nothing here is worth a
 * failure of the program.
 *
 * The mapping is not inherited by a forked child.
 */
#ifndef SD_SWITCH_STATTABLE_H
#define SD_SWITCH_STATTABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "config/config.h"
#include "switch/statfile.h"

struct pv;

struct stattable {
	struct statfile_header *h; /* NULL: there is no table */
	size_t size, present;	   /* bytes of the file, and of it that may be written */
	char path[sizeof(((struct cfg *)0)->runtime_dir) + 32];
	dev_t dev;
	ino_t ino;
};

/* Makes RUNTIME_DIR/stat/PID, with room for so many records. False: t->h is NULL. */
bool stattable_make(
	struct stattable *t, const char *runtime_dir, pid_t pid, const char *program, unsigned records);
/* Makes the table writable up to end. */
bool stattable_reach(struct stattable *t, size_t end);
/* The ports of this provider and what has gone through them; of several that are a crew, together. The domain
 * of the first one entered. */
void stattable_ports(struct stattable *t, const struct pv *const ethers[], unsigned n);
/* Removes the file, if it still is at its place: after chroot(2) the path may lead to another's. */
void stattable_remove(const struct stattable *t);

#endif
