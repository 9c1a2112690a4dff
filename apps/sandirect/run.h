/* SPDX-License-Identifier: BSD-3-Clause */
/* Starting a program over the switch; `sandirect run` and `sandirect lab run`. */
#ifndef SD_APPS_RUN_H
#define SD_APPS_RUN_H

#include <argp.h>

struct run_options {
	const char *config, *log, *spin; /* NULL: as the environment has it */
};

/* Options of `run` as an argp child; its input is a struct run_options. */
extern const struct argp run_argp;

/* Replaces this process by argv[0], with the library preloaded. Returns only when it cannot: 127 (no such
 * program), 126 (not executable) or 1. */
int run_program(const struct run_options *o, char **argv);
/* execvp with the messages and exit statuses of env(1). */
int run_exec(char **argv);

#endif
