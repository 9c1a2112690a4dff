/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sandirectd: brings the programs of this host together (provider/broker.h). It opens its socket, gives up
 * its rights, and waits; connections that it has made go on without it.
 */
#include <argp.h>
#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "door.h"
#include "notify.h"
#include "provider/broker.h"

#define DEFAULT_SOCKET "/run/sandirect/sandirectd.sock"
/* Descriptors are what a connection costs the daemon: five each. */
#define WANTED_FILES (1u << 20)

struct options {
	const char *socket, *user;
	unsigned max_connections;
	bool verbose;
};

const char *argp_program_version = "sandirectd " SANDIRECT_VERSION;

static const struct argp_option arguments[] = {
	{"socket", 's', "PATH", 0, "where programs call (" DEFAULT_SOCKET ")", 0},
	{"user", 'u', "NAME", 0,
		"whose rights to go on with once the socket is open (nobody, if started as root)", 0},
	{"max-connections", 'm', "N", 0, "of one user; each end counts (16384)", 0},
	{"verbose", 'v', NULL, 0, "tell more", 0},
	{0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *o = state->input;
	char *end;

	switch (key) {
	case 's':
		if (*arg != '/')
			argp_error(state, "--socket %s: an absolute path is wanted", arg);
		o->socket = arg;
		return 0;
	case 'u':
		o->user = arg;
		return 0;
	case 'm':
		o->max_connections = (unsigned)strtoul(arg, &end, 10);
		if (*end || !o->max_connections || *arg == '-')
			argp_error(state, "--max-connections %s: a positive number is wanted", arg);
		return 0;
	case 'v':
		o->verbose = true;
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "\"%s\" is more than there should be", arg);
	}
	return ARGP_ERR_UNKNOWN;
}

static void want_files(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l))
		return;
	if (l.rlim_max < WANTED_FILES) {
		struct rlimit more = {WANTED_FILES, WANTED_FILES};

		if (!setrlimit(RLIMIT_NOFILE, &more))
			return;
	}
	l.rlim_cur = l.rlim_max < WANTED_FILES ? l.rlim_max : WANTED_FILES;
	setrlimit(RLIMIT_NOFILE, &l);
}

static int drop_rights(const char *name)
{
	const struct passwd *p;

	if (getuid()) {
		if (!name)
			return 0;
		sd_error("only root can go on as %s; leave --user out", name);
		return -EPERM;
	}
	name = name ? name : "nobody";
	p = getpwnam(name);
	if (!p) {
		sd_error("there is no user %s; give --user the name of one", name);
		return -ENOENT;
	}
	if (setgroups(0, NULL) || setgid(p->pw_gid) || setuid(p->pw_uid)) {
		sd_error("cannot go on as %s: %s", name, strerror(errno));
		return -errno;
	}
	return 0;
}

static int open_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGUSR1);
	signal(SIGPIPE, SIG_IGN);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void tell(const struct broker *b)
{
	struct broker_stats s;

	broker_stats(b, &s);
	sd_info("%lu programs, %lu listeners, %lu connections; %lu made, %lu refused, %lu offered again, %lu "
		"bad "
		"messages",
		s.clients, s.listeners, s.streams, s.joined, s.refused, s.offered_again, s.bad_messages);
}

/* True: to end. */
static bool on_signal(int fd, const struct broker *b)
{
	struct signalfd_siginfo info;

	while (read(fd, &info, sizeof info) == sizeof info) {
		if (info.ssi_signo != SIGUSR1)
			return true;
		tell(b);
	}
	return false;
}

static int until_due(const struct broker *b)
{
	uint64_t due = broker_deadline(b), now = sd_clock_ns(), ms;

	if (due == UINT64_MAX)
		return -1;
	ms = due > now ? (due - now) / SD_MS + 1 : 0;
	return ms < 60000 ? (int)ms : 60000;
}

static void serve(struct broker *b, int signals)
{
	struct pollfd p[] = {{.fd = broker_fd(b), .events = POLLIN}, {.fd = signals, .events = POLLIN}};

	for (;;) {
		if (poll(p, 2, until_due(b)) < 0 && errno != EINTR)
			return;
		if (p[1].revents && on_signal(signals, b))
			return;
		broker_progress(b, sd_clock_ns());
	}
}

int main(int argc, char **argv)
{
	static const struct argp argp = {arguments, parse, NULL,
		"Joins the TCP connections between programs of this host that are started with `sandirect "
		"run`.\v"
		"It stays in the foreground and logs to standard error. SIGUSR1 makes it log what it has; "
		"SIGTERM "
		"ends it, and the connections it has made go on."};
	struct options o = {.socket = DEFAULT_SOCKET};
	struct broker_config cfg = {.size = sizeof cfg};
	struct broker *b;
	int door, signals, r;

	argp_parse(&argp, argc, argv, 0, NULL, &o);
	sd_log_open(o.verbose ? SD_LOG_DEBUG : SD_LOG_INFO, NULL, NULL);
	want_files();
	signals = open_signals();
	door = door_open(o.socket);
	if (door < 0 || drop_rights(o.user))
		return 1;
	cfg.max_connections = o.max_connections;
	r = broker_open(&cfg, door, &b);
	if (r) {
		sd_error("cannot start: %s", strerror(-r));
		return 1;
	}
	sd_info("ready at %s", o.socket);
	notify("READY=1");
	serve(b, signals);
	notify("STOPPING=1");
	tell(b);
	broker_close(b);
	/* It may be another daemon's by now: that one took the name over. */
	return 0;
}
