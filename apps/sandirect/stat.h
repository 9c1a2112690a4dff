/* SPDX-License-Identifier: BSD-3-Clause */
/* The views of `sandirect stat`. */
#ifndef SD_APPS_STAT_H
#define SD_APPS_STAT_H

#include <stdbool.h>

#include "statread.h"

const char *stat_role(const struct statfile_record *r);
const char *stat_address(const struct sd_addr *a, char out[SD_ADDR_STRLEN]);
/* The tables of all programs (pid 0) or of one, from where the configuration has them written: how many.
 * Negative: there are none to be had, and why has been said. */
int stat_look(pid_t pid, struct stat_file **out);
bool stat_is_shown(const struct statfile_record *r, bool all);
int stat_print_json(const struct stat_file *files, unsigned n, bool all);

#endif
