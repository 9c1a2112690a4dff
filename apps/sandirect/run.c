/* SPDX-License-Identifier: BSD-3-Clause */
/* `sandirect run`: sets what the dynamic loader and the library read, checks what can be checked, and execs.
 */
#include "run.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "command.h"
#include "config/config.h"
#include "locate.h"
#include "program.h"

enum { OPT_LOG = 256, OPT_SPIN };

static const struct argp_option options[] = {
	{"config", 'c', "FILE", 0, "Use this configuration instead of " CFG_FILE, 0},
	{"log", OPT_LOG, "LEVEL", 0, "error, warn, info or debug", 0},
	{"spin", OPT_SPIN, "US", 0, "How many microseconds a waiting thread polls before it sleeps", 0},
	{0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
	struct run_options *o = state->input;

	switch (key) {
	case 'c':
		o->config = arg;
		return 0;
	case OPT_LOG:
		o->log = arg;
		return 0;
	case OPT_SPIN:
		o->spin = arg;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

const struct argp run_argp = {.options = options, .parser = parse_option};

static int set_env(const struct run_options *o)
{
	char real[PATH_MAX];

	if (o->config && !realpath(o->config, real))
		return command_fail("%s: %s", o->config, strerror(errno));
	if ((o->config && setenv("SANDIRECT_CONFIG", real, 1)) ||
		(o->log && setenv("SANDIRECT_LOG", o->log, 1)) ||
		(o->spin && setenv("SANDIRECT_SPIN_US", o->spin, 1)))
		return command_fail("the environment: %s", strerror(errno));
	return 0;
}

/* Puts the library before whatever is preloaded already. */
static int set_preload(void)
{
	const char *before = getenv("LD_PRELOAD");
	char library[PATH_MAX], *value;
	int rc = locate_library(library, sizeof library);

	if (rc == -EINVAL)
		return command_fail(
			"the path of libsandirect.so has a blank or a colon, which LD_PRELOAD cannot "
			"express; move it");
	if (rc)
		return command_fail(
			"libsandirect.so is neither beside this command nor in its build directory nor in "
			"%s/%s; build or install it",
			SANDIRECT_PREFIX, SANDIRECT_LIBDIR);
	if (asprintf(&value, "%s%s%s", library, before && *before ? ":" : "", before ? before : "") < 0 ||
		setenv("LD_PRELOAD", value, 1))
		return command_fail("the environment: %s", strerror(errno));
	free(value);
	return 0;
}

static int check_config(void)
{
	struct cfg *cfg = malloc(sizeof *cfg);
	char err[CFG_ERR_LEN];
	int rc;

	if (!cfg)
		return command_fail("out of memory");
	rc = cfg_load(cfg, err, sizeof err);
	free(cfg);
	return rc ? command_fail("%s", err) : 0;
}

int run_exec(char **argv)
{
	int status;

	execvp(argv[0], argv);
	status = errno == ENOENT ? 127 : 126;
	command_warn("%s: %s", argv[0], strerror(errno));
	return status;
}

int run_program(const struct run_options *o, char **argv)
{
	const char *obstacle;

	if (set_env(o) || check_config() || set_preload())
		return 1;
	obstacle = program_obstacle(argv[0]);
	if (obstacle)
		command_warn("%s %s, so nothing can be preloaded into it: it will use kernel TCP", argv[0],
			obstacle);
	return run_exec(argv);
}

/* The command's own arguments end where PROGRAM begins. */
struct arguments {
	struct run_options run;
	char **program;
};

static error_t parse_argument(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &a->run;
		return 0;
	case ARGP_KEY_ARG:
		a->program = &state->argv[state->next - 1];
		state->next = state->argc;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_usage(state);
		return EINVAL;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

int cmd_run(int argc, char **argv)
{
	static const struct argp_child children[] = {{&run_argp, 0, NULL, 0}, {0}};
	static const struct argp argp = {
		.parser = parse_argument,
		.args_doc = "PROGRAM [ARGUMENT...]",
		.doc = "Starts PROGRAM so that its TCP connections take the SAN where the peer is on it too, "
		       "and kernel "
		       "TCP where not.",
		.children = children,
	};
	struct arguments a = {{0}, NULL};

	argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &a);
	return run_program(&a.run, a.program);
}
