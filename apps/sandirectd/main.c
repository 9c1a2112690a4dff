/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sandirectd: brings the programs of this host together and connects them with other hosts. It opens its
 * socket and its ports, gives up its rights, and serves; connections inside the host go on without it.
 */
#include <argp.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "config/config.h"
#include "config/value.h"
#include "door.h"
#include "notify.h"
#include "service.h"
#include "takeover.h"

#define DEFAULT_SOCKET "/run/sandirect/sandirectd.sock"
/* Descriptors are what a connection costs the daemon: two each, and three with another host's or until it is
 * accepted. */
#define WANTED_FILES (1u << 20)

struct options {
	const char *config, *socket, *user;
	uint32_t max_connections;
	uint64_t max_memory;
	bool takes_over, verbose;
};

static struct options options;
static struct cfg cfg;

const char *argp_program_version = "sandirectd " SANDIRECT_VERSION;

static const struct argp_option arguments[] = {
	{"config", 'c', "FILE", 0, "ports and transport (as programs, sandirect.conf(5))", 0},
	{"socket", 's', "PATH", 0, "where programs call (the file's daemon, or " DEFAULT_SOCKET ")", 0},
	{"user", 'u', "NAME", 0,
		"whose rights to go on with once the socket is open (nobody, if started as root)", 0},
	{"max-connections", 'm', "N", 0,
		"of one user; each end counts (16384, or an eighth of the daemon's descriptors if that is "
		"less)",
		0},
	{"max-memory", 'M', "SIZE", 0,
		"of one user: what the buffers of its connections can come to (a quarter of the machine's)",
		0},
	{"takeover", 't', NULL, 0, "go on with what the running daemon has, which ends: connections stay", 0},
	{"verbose", 'v', NULL, 0, "tell more", 0},
	{0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *o = state->input;
	uint64_t n;

	switch (key) {
	case 'c':
		o->config = arg;
		return 0;
	case 's':
		if (*arg != '/')
			argp_error(state, "--socket %s: an absolute path is wanted", arg);
		o->socket = arg;
		return 0;
	case 'u':
		o->user = arg;
		return 0;
	case 'm':
		if (!cfg_value_count(arg, &n) || !n || n > UINT32_MAX)
			argp_error(state, "--max-connections %s: a positive number is wanted", arg);
		o->max_connections = (uint32_t)n;
		return 0;
	case 'M':
		if (!cfg_value_size(arg, &o->max_memory) || !o->max_memory)
			argp_error(state, "--max-memory %s: a size is wanted, such as 512M or 4G", arg);
		return 0;
	case 't':
		o->takes_over = true;
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

/* Whose rights to go on with. */
static struct {
	const char *name; /* NULL: there are none to give up */
	uid_t uid;
	gid_t gid;
} user;

/* 0, or -errno after a message. */
static int find_user(void)
{
	const struct passwd *p;

	if (getuid() && !options.user)
		return 0;
	if (getuid()) {
		sd_error("only root can go on as %s; leave --user out", options.user);
		return -EPERM;
	}
	user.name = options.user ? options.user : "nobody";
	p = getpwnam(user.name);
	if (!p) {
		sd_error("there is no user %s; give --user the name of one", user.name);
		return -ENOENT;
	}
	user.uid = p->pw_uid;
	user.gid = p->pw_gid;
	return 0;
}

static int drop_rights(void)
{
	if (!user.name)
		return 0;
	if (setgroups(0, NULL) || setgid(user.gid) || setuid(user.uid)) {
		sd_error("cannot go on as %s: %s", user.name, strerror(errno));
		return -errno;
	}
	/* It has everybody's memory, and others may be this user, too. */
	prctl(PR_SET_DUMPABLE, 0);
	return 0;
}

static int open_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGHUP);
	signal(SIGPIPE, SIG_IGN);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int read_config(struct cfg *out, char err[CFG_ERR_LEN])
{
	return options.config ? cfg_load_file(out, options.config, err, CFG_ERR_LEN)
			      : cfg_load(out, err, CFG_ERR_LEN);
}

/* Rules, for connections from now on, and how much is logged. Ports stay as they are. */
static void reload(struct service *s)
{
	static struct cfg fresh;
	char err[CFG_ERR_LEN];

	notify("RELOADING=1");
	if (read_config(&fresh, err)) {
		sd_error("%s; the rules stay as they were", err);
	} else {
		memcpy(cfg.rules, fresh.rules, sizeof cfg.rules);
		cfg.n_rules = fresh.n_rules;
		cfg.log_level = fresh.log_level;
		if (!options.verbose)
			sd_log_open(cfg.log_level, NULL, NULL);
		service_rules_changed(s);
		sd_notice("%u rules", cfg.n_rules);
	}
	notify("READY=1");
}

/* False: to end. */
static bool on_signals(struct service *s, int fd)
{
	struct signalfd_siginfo info;

	while (read(fd, &info, sizeof info) == sizeof info) {
		if (info.ssi_signo == SIGUSR1)
			service_tell(s);
		else if (info.ssi_signo == SIGHUP)
			reload(s);
		else
			return false;
	}
	return true;
}

/* Ports and transport are the file's; where to listen is the command line's, then the file's. */
static int load(void)
{
	char err[CFG_ERR_LEN];
	int r = read_config(&cfg, err);

	if (r) {
		sd_error("%s", err);
		return r;
	}
	if (!options.socket)
		options.socket = cfg.daemon[0] ? cfg.daemon : DEFAULT_SOCKET;
	if (!options.verbose)
		sd_log_open(cfg.log_level, NULL, NULL);
	return 0;
}

static int begin(struct service *s)
{
	int door = door_open(options.socket), successors;

	if (door < 0)
		return door;
	successors = takeover_listen(options.socket);
	return drop_rights() ? -EPERM : service_listen(s, door, successors);
}

/* The other daemon stands still from the answer to the confirmation. */
static int take_over(struct service *s)
{
	struct takeover t;
	int r = takeover_ask(options.socket, service_format(), &t);

	if (r)
		return r;
	r = service_take_over(s, &t.unpack);
	if (!r)
		r = drop_rights();
	if (!r) {
		r = takeover_confirm(&t);
		if (r)
			sd_error("the running daemon did not wait, and goes on itself");
	}
	if (!r) {
		service_taken_over(s);
		sd_notice("taken over; nobody was served for %.1f ms",
			(double)(sd_clock_ns() - t.since) / SD_MS);
	}
	takeover_end(&t);
	return r;
}

int main(int argc, char **argv)
{
	static const struct argp argp = {arguments, parse, NULL,
		"Carries the TCP connections of programs that are started with `sandirect run`: through "
		"shared "
		"memory inside this host, through its ports to others.\v"
		"It stays in the foreground and logs to standard error. SIGUSR1 makes it log what it has; "
		"SIGTERM "
		"ends it, and connections inside the host go on."};
	struct service_config sc = {.cfg = &cfg, .owner = getuid()};
	struct service *s;
	int signals;

	argp_parse(&argp, argc, argv, 0, NULL, &options);
	sd_log_open(options.verbose ? SD_LOG_DEBUG : SD_LOG_INFO, NULL, NULL);
	if (load() || find_user())
		return 1;
	want_files();
	signals = open_signals();
	sc.max_connections = options.max_connections;
	sc.max_memory = options.max_memory;
	/* Who reaches the door finds somebody behind it. */
	if (service_open(&sc, options.takes_over, &s))
		return 1;
	door_open_records(cfg.runtime_dir);
	if (options.takes_over ? take_over(s) : begin(s))
		_exit(1); /* another daemon may have what this one has */
	sd_notice("ready at %s", options.socket);
	notify("READY=1");
	if (service_run(s, signals, on_signals)) {
		/* Now, also if a thread is still closing something. */
		syscall(SYS_close_range, 3u, ~0u, 0u);
		_exit(0);
	}
	notify("STOPPING=1");
	service_tell(s);
	service_close(s);
	/* The socket's name may be another daemon's by now: that one took it over. */
	return 0;
}
