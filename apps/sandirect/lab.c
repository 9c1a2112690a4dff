/* SPDX-License-Identifier: BSD-3-Clause */
/* `sandirect lab`: the command line. */
#include "lab.h"

#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command.h"
#include "config/config.h"
#include "config/value.h"
#include "run.h"

#define LOCK_TRIES 1000

enum {
	OPT_LINK = 256,
	OPT_MODE,
	OPT_MINIPORT,
	OPT_CORES,
	OPT_MTU,
	OPT_HUGEPAGES,
	OPT_LOSS,
	OPT_DUPLICATE,
	OPT_REORDER,
	OPT_CORRUPT,
	OPT_DELAY,
	OPT_JITTER,
	OPT_RATE,
	OPT_SEED
};

static const struct argp_option up_options[] = {
	{"hosts", 'n', "N", 0, "How many hosts, h1 to hN (default 2)", 0},
	{"link", OPT_LINK, "LINK", 0,
		"How the SAN ports are joined: vhost, vhost-packed, virtio-user or memif (two hosts, shared "
		"memory), veth (frames through kernel interfaces), xdp (AF_XDP on san0 itself), udp (the "
		"kernel's UDP). Default vhost for "
		"two hosts, else veth",
		0},
	{"mode", OPT_MODE, "MODE", 0,
		"Who has a host's SAN port: embedded, the program that uses it (default), or daemon, a "
		"sandirectd on each host, for any number of programs",
		0},
	{"miniport", OPT_MINIPORT, NULL, 0,
		"With --mode daemon: the kernel's san0 is the daemon's, and shares the SAN port", 0},
	{"cores", OPT_CORES, "CORES", 0,
		"With --mode daemon: each has an engine on each of these, such as 0-1", 0},
	{"mtu", OPT_MTU, "BYTES", 0, "IP MTU of the SAN (default 1500)", 0},
	{"hugepages", OPT_HUGEPAGES, "WHEN", 0, "on, off or auto (default): memory of the SAN ports", 0},
	{0, 0, 0, 0, "Faults of the SAN, on what each host sends:", 1},
	{"loss", OPT_LOSS, "PERCENT", 0, "Lose frames", 1},
	{"duplicate", OPT_DUPLICATE, "PERCENT", 0, "Send frames twice", 1},
	{"reorder", OPT_REORDER, "PERCENT", 0, "Hold frames back behind later ones", 1},
	{"corrupt", OPT_CORRUPT, "PERCENT", 0, "Flip bits", 1},
	{"delay", OPT_DELAY, "TIME", 0, "Delay all frames, for instance by 10us", 1},
	{"jitter", OPT_JITTER, "TIME", 0, "Delay them by up to this more", 1},
	{"rate", OPT_RATE, "BITS", 0, "Limit the rate, for instance to 10G", 1},
	{"seed", OPT_SEED, "N", 0, "Seed of the faults (default 1)", 1},
	{0},
};

static unsigned number(
	struct argp_state *state, const char *what, const char *arg, unsigned min, unsigned max)
{
	uint64_t v = 0;

	if (!cfg_value_count(arg, &v) || v < min || v > max)
		argp_error(state, "%s %s: must be a whole number from %u to %u", what, arg, min, max);
	return (unsigned)v;
}

static bool is_fault(int key, const char *arg)
{
	double p;
	uint64_t v;

	switch (key) {
	case OPT_DELAY:
	case OPT_JITTER:
		return cfg_value_time(arg, &v) && v <= 10000000000;
	case OPT_RATE:
		return cfg_value_rate(arg, &v);
	case OPT_SEED:
		return cfg_value_count(arg, &v);
	default:
		return cfg_value_percent(arg, &p);
	}
}

static error_t parse_fault(struct lab *l, int key, const char *arg, struct argp_state *state)
{
	char *const fields[] = {
		l->loss, l->duplicate, l->reorder, l->corrupt, l->delay, l->jitter, l->rate, l->seed};

	if (key < OPT_LOSS || key > OPT_SEED)
		return ARGP_ERR_UNKNOWN;
	if (!is_fault(key, arg) || strlen(arg) >= LAB_FAULT_LEN)
		argp_error(state,
			"\"%s\" is no fault; write percentages as 0.1%%, times (up to 10s) as 10us, rates as "
			"10G",
			arg);
	strcpy(fields[key - OPT_LOSS], arg);
	return 0;
}

static void parse_cores(struct lab *l, const char *arg, struct argp_state *state)
{
	uint16_t cores[CFG_MAX_CORES];
	unsigned n;

	if (!cfg_value_cores(arg, cores, CFG_MAX_CORES, &n) || strlen(arg) >= sizeof l->cores)
		argp_error(state, "--cores %s: up to %d different cores are wanted, such as 2,4-6", arg,
			CFG_MAX_CORES);
	strcpy(l->cores, arg);
	l->n_cores = n;
}

static error_t parse_up(int key, char *arg, struct argp_state *state)
{
	struct lab *l = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		l->link = LAB_LINKS; /* not chosen */
		return 0;
	case 'n':
		l->hosts = number(state, "--hosts", arg, 2, LAB_MAX_HOSTS);
		return 0;
	case OPT_LINK:
		l->link = lab_link_parse(arg);
		if (l->link == LAB_LINKS)
			argp_error(state,
				"--link %s: there are vhost, vhost-packed, virtio-user, memif, veth, xdp and "
				"udp",
				arg);
		return 0;
	case OPT_MODE:
		l->mode = lab_mode_parse(arg);
		if (l->mode == LAB_MODES)
			argp_error(state, "--mode %s: there are embedded and daemon", arg);
		return 0;
	case OPT_MINIPORT:
		l->miniport = true;
		return 0;
	case OPT_CORES:
		parse_cores(l, arg, state);
		return 0;
	case OPT_MTU:
		l->mtu = (uint16_t)number(state, "--mtu", arg, 1280, 9000);
		return 0;
	case OPT_HUGEPAGES:
		if (strcmp(arg, "on") && strcmp(arg, "off") && strcmp(arg, "auto"))
			argp_error(state, "--hugepages %s: must be on, off or auto", arg);
		strcpy(l->hugepages, arg);
		return 0;
	case ARGP_KEY_END:
		if (l->link == LAB_LINKS)
			l->link = l->hosts == 2 ? LAB_VHOST : LAB_VETH;
		if (*l->cores && l->mode != LAB_DAEMON)
			argp_error(state, "--cores are a daemon's: add --mode daemon");
		if (l->miniport && (l->mode != LAB_DAEMON || l->link >= LAB_XDP))
			argp_error(state,
				"--miniport needs --mode daemon, and a link of its own: not xdp or udp");
		if (l->hosts != 2 && l->link <= LAB_MEMIF)
			argp_error(state, "vhost, vhost-packed, virtio-user and memif join two hosts; use "
					  "--link veth or udp for more");
		return 0;
	default:
		return parse_fault(l, key, arg, state);
	}
}

static bool is_same_file(int fd, const char *path)
{
	struct stat a, b;

	return !fstat(fd, &a) && !stat(path, &b) && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static volatile sig_atomic_t interrupted;

static void note_interrupt(int sig)
{
	interrupted = 1;
}

/* An `up` that is interrupted takes away what it has made. */
static void catch_interrupts(int flags)
{
	struct sigaction note = {.sa_handler = note_interrupt, .sa_flags = flags};

	sigaction(SIGINT, &note, NULL);
	sigaction(SIGTERM, &note, NULL);
	sigaction(SIGHUP, &note, NULL);
}

bool lab_interrupted(void)
{
	return interrupted;
}

/*
 * Two `lab` commands at once must not build and remove under each other's hands. Held until exit, also by the
 * ip(8) that an `up` runs when it is killed: hence no O_CLOEXEC.
 */
static int lock(const struct lab *l)
{
	/* Whoever has it meanwhile may remove the directory. */
	for (unsigned i = 0; i < LOCK_TRIES; i++) {
		int fd;

		if (mkdir(l->runtime_dir, 0755) && errno != EEXIST)
			break;
		fd = open(l->runtime_dir, O_RDONLY | O_DIRECTORY);
		if (fd < 0 && errno == ENOENT)
			continue;
		if (fd < 0 || flock(fd, LOCK_EX))
			break;
		if (is_same_file(fd, l->runtime_dir))
			return 0;
		close(fd);
	}
	return command_fail("%s: %s%s", l->runtime_dir, strerror(errno),
		errno == EACCES ? "; `sandirect lab` needs root" : "");
}

static int action_up(struct lab *l, int argc, char **argv)
{
	static const struct argp argp = {.options = up_options,
		.parser = parse_up,
		.doc = "Builds the lab: hosts h1 to hN with san0 (10.77.0.I, fd77::I), lan0 (10.78.0.I) and "
		       "a SAN port each."};
	struct lab old = *l;

	argp_parse(&argp, argc, argv, 0, NULL, l);
	/* Before the lock, which makes the lab's directory; the wait for it is ended by an interrupt. */
	catch_interrupts(0);
	if (lock(l))
		return 1;
	catch_interrupts(SA_RESTART);
	if (lab_state_read(&old) != -ENOENT)
		return command_fail("there is a lab already; `sandirect lab down` removes it");
	/* Namespaces may be left over although the files are gone. */
	return lab_clear(l) || lab_up(l);
}

static const struct argp no_options = {0};

static int action_down(struct lab *l, int argc, char **argv)
{
	argp_parse(&no_options, argc, argv, 0, NULL, NULL);
	return lock(l) || lab_down(l);
}

static int action_status(struct lab *l, int argc, char **argv)
{
	argp_parse(&no_options, argc, argv, 0, NULL, NULL);
	return lab_status(l);
}

/* HOST PROGRAM [ARGUMENT...] */
struct program_arguments {
	bool has_options; /* `run` has, `exec` has not */
	struct run_options run;
	const char *host;
	char **program;
};

static error_t parse_program(int key, char *arg, struct argp_state *state)
{
	struct program_arguments *a = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		if (a->has_options)
			state->child_inputs[0] = &a->run;
		return 0;
	case ARGP_KEY_ARG:
		if (!a->host) {
			a->host = arg;
			return 0;
		}
		a->program = &state->argv[state->next - 1];
		state->next = state->argc;
		return 0;
	case ARGP_KEY_END:
		if (!a->program)
			argp_usage(state);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static int action_exec(struct lab *l, int argc, char **argv)
{
	static const struct argp argp = {.parser = parse_program,
		.args_doc = "HOST PROGRAM [ARGUMENT...]",
		.doc = "Runs PROGRAM on a host with the kernel's sockets."};
	struct program_arguments a = {.has_options = false};

	argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &a);
	return lab_exec(l, a.host, a.program);
}

static int action_run(struct lab *l, int argc, char **argv)
{
	static const struct argp_child children[] = {{&run_argp, 0, NULL, 0}, {0}};
	static const struct argp argp = {.parser = parse_program,
		.args_doc = "HOST PROGRAM [ARGUMENT...]",
		.doc = "Runs PROGRAM on a host over the switch, with the host's configuration.",
		.children = children};
	struct program_arguments a = {.has_options = true};

	argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &a);
	return lab_run(l, a.host, &a.run, a.program);
}

static const struct action {
	const char *name;
	int (*run)(struct lab *l, int argc, char **argv);
} actions[] = {{"up", action_up}, {"exec", action_exec}, {"run", action_run}, {"status", action_status},
	{"down", action_down}};

static const struct argp_option lab_options[] = {
	{"name", 'n', "NAME", 0, "Another lab beside the default one", 0},
	{0},
};

struct lab_arguments {
	const char *name;
	int action; /* its index in argv */
};

static error_t parse_lab(int key, char *arg, struct argp_state *state)
{
	struct lab_arguments *a = state->input;

	switch (key) {
	case 'n':
		a->name = arg;
		return 0;
	case ARGP_KEY_ARG:
		a->action = state->next - 1;
		state->next = state->argc;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_usage(state);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

int cmd_lab(int argc, char **argv)
{
	static const struct argp argp = {.options = lab_options,
		.parser = parse_lab,
		.args_doc = "up [OPTION...]\nexec HOST PROGRAM [ARGUMENT...]\nrun [OPTION...] HOST PROGRAM "
			    "[ARGUMENT...]\n"
			    "status\ndown",
		.doc = "Hosts on this machine, as network namespaces joined by a SAN. `exec` runs a program "
		       "with a host's "
		       "kernel sockets, `run` over the switch."};
	struct lab_arguments a = {"", 0};
	char name[32];
	struct lab lab;

	argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &a);
	for (unsigned i = 0; i < sizeof actions / sizeof *actions; i++) {
		if (strcmp(argv[a.action], actions[i].name))
			continue;
		snprintf(name, sizeof name, "sandirect lab %s", actions[i].name);
		argv[a.action] = name;
		if (lab_init(&lab, a.name))
			return 1;
		return actions[i].run(&lab, argc - a.action, argv + a.action);
	}
	command_fail("lab: \"%s\" is none of up, exec, run, status, down", argv[a.action]);
	return 2;
}
