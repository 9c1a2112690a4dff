/* SPDX-License-Identifier: BSD-3-Clause */
/* What the subcommands of `sandirect` share: their entry points and how they speak to a person. */
#ifndef SD_APPS_COMMAND_H
#define SD_APPS_COMMAND_H

/* Each is called with argv[0] being "sandirect NAME" and returns the exit status. */
int cmd_run(int argc, char **argv);
int cmd_stat(int argc, char **argv);
int cmd_ports(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_lab(int argc, char **argv);

/* One line to standard error: "sandirect: ...". */
void command_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same; always 1, the exit status of a failure. */
int command_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
