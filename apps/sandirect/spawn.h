/* SPDX-License-Identifier: BSD-3-Clause */
/* Other programs that do part of the work. */
#ifndef SD_APPS_SPAWN_H
#define SD_APPS_SPAWN_H

/* Runs the command (words separated by single blanks) and waits. 0, or -EIO when it failed: it has then said
 * why on standard error; -ENOENT: there is no such program. */
int spawn_words(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
