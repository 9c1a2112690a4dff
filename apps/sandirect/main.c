/* SPDX-License-Identifier: BSD-3-Clause */
/* sandirect: one command, whose first argument names what to do. */
#include <stdio.h>
#include <string.h>

#include "command.h"

static const struct command {
	const char *name, *help;
	int (*run)(int argc, char **argv);
} commands[] = {
	{"run", "start a program whose TCP connections may take the SAN", cmd_run},
	{"stat", "show the connections of all such programs, their path and why", cmd_stat},
	{"ports", "show ports and NICs; give a NIC to user space, or back to the kernel", cmd_ports},
	{"check", "say what this machine lacks for the SAN and how to mend it", cmd_check},
	{"lab", "a laboratory: hosts as network namespaces, joined by a SAN", cmd_lab},
};

static void usage(FILE *to)
{
	fputs("Usage: sandirect COMMAND [ARGUMENT...]\n\n", to);
	for (unsigned i = 0; i < sizeof commands / sizeof *commands; i++)
		fprintf(to, "  %-8s %s\n", commands[i].name, commands[i].help);
	fputs("\n`sandirect COMMAND --help` tells more, and so does sandirect(1).\n", to);
}

int main(int argc, char **argv)
{
	char name[32];

	if (argc < 2) {
		usage(stderr);
		return 2;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		usage(stdout);
		return 0;
	}
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
		puts("sandirect " SANDIRECT_VERSION);
		return 0;
	}
	for (unsigned i = 0; i < sizeof commands / sizeof *commands; i++) {
		if (!strcmp(argv[1], commands[i].name)) {
			snprintf(name, sizeof name, "sandirect %s", commands[i].name);
			argv[1] = name;
			return commands[i].run(argc - 1, argv + 1);
		}
	}
	command_warn("\"%s\" is no command", argv[1]);
	usage(stderr);
	return 2;
}
