/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A DPDK port in somebody else's process: whatever the program has set up, it finds as it was, and its limits
 * make the port fail with a reason, not the program. Each case has a process of its own, since EAL starts
 * once in each.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include <cmocka.h>

#include "drivers/port.h"

enum {
	FDS = 2048,
	THREADS = 64,
	LIMITS = RLIM_NLIMITS,
	SIGNALS = 64,
	TEXT = 4096,
};

#define CHECK(what)                                                                                          \
	do {                                                                                                 \
		if (!(what)) {                                                                               \
			complain(__LINE__, #what);                                                           \
			_exit(1);                                                                            \
		}                                                                                            \
	} while (0)

static int complaints = -1; /* stderr may be under test */
static char dir[] = "/tmp/sandirect-test-XXXXXX", vhost[128], server[128];
static bool guarded[FDS];

static void complain(int line, const char *what)
{
	dprintf(complaints, "%s:%d: not so: %s\n", __FILE__, line, what);
}

static void guard(void *ctx, int fd, bool own)
{
	CHECK(fd >= 0 && fd < FDS);
	guarded[fd] = own;
}

static int open_port(const char *device, struct port **out, char *err, size_t err_len)
{
	struct port_config cfg = {.size = sizeof cfg, .name = "san", .device = device, .hugepages = "off"};

	*err = 0;
	return port_open(&cfg, out, err, err_len);
}

static struct port *must_open(const char *device)
{
	struct port *p = NULL;
	char err[512];
	int e = open_port(device, &p, err, sizeof err);

	if (e)
		dprintf(complaints, "%s: %s (%s)\n", device, err, strerror(-e));
	CHECK(!e);
	return p;
}

/* All the calls once. */
static void use(struct port *p)
{
	struct port_frame f;
	struct port_info info;
	struct port_stats stats;

	for (unsigned i = 0; i < 3; i++) {
		p->ops->link_poll(p);
		if (p->ops->rx(p, &f, 1))
			p->ops->rx_done(p, &f, 1);
		CHECK(p->ops->tx_get(p, &f, 1) == 1);
		memset(f.data, 0xff, 100);
		f.len = 100;
		if (!p->ops->tx(p, &f, 1))
			p->ops->tx_put(p, &f, 1);
		if (!p->ops->arm(p))
			p->ops->disarm(p);
	}
	p->ops->info(p, &info);
	p->ops->stats(p, &stats);
}

/* --- what belongs to the program --- */

struct belongings {
	cpu_set_t affinity;
	int policy, nice;
	sigset_t mask;
	struct sigaction handlers[SIGNALS + 1];
	struct rlimit limits[LIMITS];
	struct itimerval timer;
	mode_t umask;
	int slack, dumpable;
	char cwd[256], locale[64], name[32], files[TEXT];
};

/* The directories that EAL likes to use, for ourselves alone. */
static const char *const places[] = {"/run", "/dev/shm", "/dev/hugepages"};

static void hide_places(void)
{
	CHECK(!unshare(CLONE_NEWNS) && !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	for (size_t i = 0; i < sizeof places / sizeof *places; i++)
		CHECK(!mount("none", places[i], "tmpfs", 0, NULL) || errno == ENOENT);
}

static void list_files(char *out, size_t len)
{

	*out = 0;
	for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
		DIR *d = opendir(places[i]);
		struct dirent *e;

		while (d && (e = readdir(d)))
			if (*e->d_name != '.')
				snprintf(out + strlen(out), len - strlen(out), "%s/%s\n", places[i],
					e->d_name);
		if (d)
			closedir(d);
	}
}

static void look(struct belongings *b)
{
	memset(b, 0, sizeof *b);
	CHECK(!sched_getaffinity(0, sizeof b->affinity, &b->affinity));
	b->policy = sched_getscheduler(0);
	b->nice = getpriority(PRIO_PROCESS, 0);
	sigprocmask(SIG_SETMASK, NULL, &b->mask);
	for (int i = 1; i <= SIGNALS; i++)
		sigaction(i, NULL, &b->handlers[i]);
	for (int i = 0; i < LIMITS; i++)
		getrlimit((__rlimit_resource_t)i, &b->limits[i]);
	getitimer(ITIMER_REAL, &b->timer);
	b->umask = umask(0);
	umask(b->umask);
	b->slack = prctl(PR_GET_TIMERSLACK);
	b->dumpable = prctl(PR_GET_DUMPABLE);
	CHECK(getcwd(b->cwd, sizeof b->cwd));
	snprintf(b->locale, sizeof b->locale, "%s", setlocale(LC_ALL, NULL));
	prctl(PR_GET_NAME, b->name);
	list_files(b->files, sizeof b->files);
}

static void check_same(const struct belongings *was)
{
	struct belongings is;

	look(&is);
	CHECK(CPU_EQUAL(&was->affinity, &is.affinity));
	CHECK(was->policy == is.policy && was->nice == is.nice);
	CHECK(!memcmp(&was->mask, &is.mask, sizeof is.mask));
	for (int i = 1; i <= SIGNALS; i++) {
		CHECK(was->handlers[i].sa_handler == is.handlers[i].sa_handler);
		CHECK(was->handlers[i].sa_flags == is.handlers[i].sa_flags);
	}
	for (int i = 0; i < LIMITS; i++)
		CHECK(!memcmp(&was->limits[i], &is.limits[i], sizeof is.limits[i]));
	CHECK(!memcmp(&was->timer, &is.timer, sizeof is.timer));
	CHECK(was->umask == is.umask && was->slack == is.slack && was->dumpable == is.dumpable);
	CHECK(!strcmp(was->cwd, is.cwd) && !strcmp(was->locale, is.locale) && !strcmp(was->name, is.name));
	CHECK(!strcmp(was->files, is.files));
}

/* --- descriptors and threads --- */

static void list_fds(bool open[FDS])
{
	DIR *d = opendir("/proc/self/fd");
	struct dirent *e;

	memset(open, 0, FDS * sizeof *open);
	CHECK(d);
	while ((e = readdir(d)))
		if (atoi(e->d_name) != dirfd(d) && *e->d_name != '.')
			open[atoi(e->d_name)] = true;
	closedir(d);
}

/* Those that have come are the guard's, close-on-exec and above the program's; none of the program's has
 * gone. */
static void check_fds(const bool before[FDS], int floor)
{
	bool now[FDS];

	list_fds(now);
	for (int fd = 0; fd < FDS; fd++) {
		CHECK(!before[fd] || now[fd]);
		CHECK(guarded[fd] == (now[fd] && !before[fd]));
		if (!guarded[fd])
			continue;
		CHECK(fd >= floor);
		CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	}
}

/* Threads besides ours may run where we may, and take no signals. */
static void check_threads(const cpu_set_t *affinity)
{
	DIR *d = opendir("/proc/self/task");
	struct dirent *e;

	CHECK(d);
	while ((e = readdir(d))) {
		unsigned long long blocked = 0;
		char path[320], line[256];
		cpu_set_t set;
		FILE *f;

		if (*e->d_name == '.' || atoi(e->d_name) == getpid())
			continue;
		CHECK(!sched_getaffinity(atoi(e->d_name), sizeof set, &set));
		CHECK(CPU_EQUAL(&set, affinity));
		snprintf(path, sizeof path, "/proc/self/task/%s/status", e->d_name);
		f = fopen(path, "re");
		CHECK(f);
		while (fgets(line, sizeof line, f))
			if (sscanf(line, "SigBlk: %llx", &blocked) == 1)
				break;
		fclose(f);
		/* All but SIGKILL, SIGSTOP and the two that belong to the C library. */
		CHECK((blocked | 1ull << 8 | 1ull << 18 | 3ull << 31) == UINT64_MAX);
	}
	closedir(d);
}

/* --- the cases, each in a process of its own --- */

static void on_signal(int signal)
{
}

/* Standard output and error go to a file of which nobody knows. */
static int divert_output(void)
{
	int fd = memfd_create("output", MFD_CLOEXEC);

	CHECK(fd >= 0);
	CHECK(dup2(fd, 1) == 1 && dup2(fd, 2) == 2);
	return fd;
}

static void check_silent(int fd)
{
	struct stat st;

	fflush(NULL);
	CHECK(!fstat(fd, &st) && st.st_size == 0);
}

/* syslog() of the program still goes where the program said. */
static void check_syslog(int fd)
{
	char text[256] = "";

	syslog(LOG_INFO, "hello");
	CHECK(pread(fd, text, sizeof text - 1, 0) > 0);
	CHECK(strstr(text, "our-own-name: hello"));
}

static void leave_alone(const char *device)
{
	struct rlimit nofile = {600, 1500};
	struct belongings was;
	struct port *p;
	bool fds[FDS];
	cpu_set_t set;
	int out = divert_output();

	if (!geteuid())
		hide_places();

	CHECK(!sched_getaffinity(0, sizeof set, &set));
	for (int cpu = 0; CPU_COUNT(&set) > 1; cpu++) /* the last one, which is not what EAL would choose */
		CPU_CLR(cpu, &set);
	CHECK(!sched_setaffinity(0, sizeof set, &set));
	sigaction(SIGUSR1, &(struct sigaction){.sa_handler = on_signal}, NULL);
	sigaction(SIGUSR2, &(struct sigaction){.sa_handler = SIG_IGN}, NULL);
	sigprocmask(SIG_BLOCK, &(sigset_t){{1ul << (SIGHUP - 1)}}, NULL);
	setlocale(LC_ALL, "C.UTF-8");
	umask(027);
	setpriority(PRIO_PROCESS, 0, 1);
	CHECK(!chdir("/"));
	CHECK(!setrlimit(RLIMIT_NOFILE, &nofile));
	openlog("our-own-name", LOG_PERROR, LOG_USER);
	port_set_fd_guard(guard, NULL);
	list_fds(fds);
	look(&was);
	for (unsigned i = 0; i < 3; i++) {
		p = must_open(device);
		check_fds(fds, 300);
		check_threads(&set);
		check_same(&was);
		use(p);
		check_same(&was);
		port_close(p);
		check_same(&was);
		check_fds(fds, 300);
	}
	check_silent(out);
	check_syslog(out);
}

static void leave_alone_vhost(void)
{
	leave_alone(vhost);
}

static void leave_alone_virtio_user(void)
{
	leave_alone(server);
}

/* Closed and opened again and again, nothing piles up. */
static void open_often(void)
{
	unsigned count[2] = {0};
	bool fds[FDS];

	port_set_fd_guard(guard, NULL);
	for (unsigned i = 0; i < 40; i++) {
		struct port *p = must_open(i % 2 ? vhost : server);

		use(p);
		port_close(p);
		if (i != 3 && i != 39)
			continue;
		list_fds(fds);
		for (int fd = 0; fd < FDS; fd++)
			count[i == 39] += fds[fd];
	}
	CHECK(count[0] == count[1]);
}

/* Signals that arrive all the time, for handlers that do not restart calls. */
static void open_under_signals(void)
{
	struct itimerval every = {{0, 500}, {0, 500}}, never = {{0, 0}, {0, 0}};
	struct port *p;

	sigaction(SIGALRM, &(struct sigaction){.sa_handler = on_signal}, NULL);
	CHECK(!setitimer(ITIMER_REAL, &every, NULL));
	p = must_open(server);
	use(p);
	port_close(p);
	CHECK(!setitimer(ITIMER_REAL, &never, NULL));
}

static bool maps_contain(const char *what)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[512];
	bool found = false;

	CHECK(f);
	while (!found && fgets(line, sizeof line, f))
		found = strstr(line, what);
	fclose(f);
	return found;
}

static void await_child(pid_t pid)
{
	int status = -1;

	CHECK(pid > 0);
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(status == 0);
}

/* A child has none of the port's memory, an executed program none of its descriptors, and the parent goes on.
 */
static void fork_children(void)
{
	bool before[FDS];
	struct port *p;
	pid_t pid;

	port_set_fd_guard(guard, NULL);
	list_fds(before);
	p = must_open(server);
	use(p);
	CHECK(maps_contain("memfd:nohuge"));
	pid = fork();
	if (!pid) {
		CHECK(!maps_contain("memfd:nohuge"));
		_exit(0);
	}
	await_child(pid);
	pid = fork();
	if (!pid) {
		char count[64];
		unsigned n = 0;

		for (int fd = 0; fd < FDS; fd++)
			n += before[fd];
		snprintf(count, sizeof count, "%u", n + 1); /* ls has one for the directory */
		execl("/bin/sh", "sh", "-c", "test $(ls /proc/self/fd | wc -l) -le $0", count, NULL);
		_exit(1);
	}
	await_child(pid);
	use(p);
	port_close(p);
	p = must_open(server);
	use(p);
	port_close(p);
}

/* A child forked before there is a port has one of its own. */
static void open_in_child(void)
{
	pid_t pid = fork();
	struct port *p;

	if (!pid) {
		p = must_open(vhost);
		use(p);
		port_close(p);
		_exit(0);
	}
	p = must_open(server);
	use(p);
	await_child(pid);
	port_close(p);
}

/* Too few descriptors: a reason; once there are enough: a port. */
static void need_descriptors(void)
{
	struct rlimit lim;
	struct port *p;
	char err[512];

	CHECK(!getrlimit(RLIMIT_NOFILE, &lim));
	lim.rlim_cur = 64;
	CHECK(!setrlimit(RLIMIT_NOFILE, &lim));
	CHECK(open_port(server, &p, err, sizeof err) == -EMFILE);
	CHECK(strstr(err, "RLIMIT_NOFILE") && strstr(err, "ulimit -n"));
	lim.rlim_cur = 1024;
	CHECK(!setrlimit(RLIMIT_NOFILE, &lim));
	p = must_open(server);
	use(p);
	port_close(p);
}

/* A child under a limit opens a port, or gets a reason. */
static void open_limited(__rlimit_resource_t resource, rlim_t limit, int expected)
{
	pid_t pid = fork();
	struct rlimit lim;
	struct port *p;
	char err[512];
	int e;

	if (pid) {
		await_child(pid);
		return;
	}
	getrlimit(resource, &lim);
	lim.rlim_cur = limit;
	CHECK(!setrlimit(resource, &lim));
	e = open_port(server, &p, err, sizeof err);
	if (e) {
		CHECK(e == expected ||
			(e == -ENOTSUP && strstr(err, "no DPDK support"))); /* no room for the library */
		CHECK(*err);
	} else {
		use(p);
		port_close(p);
	}
	_exit(0);
}

static void survive_few_descriptors(void)
{
	for (rlim_t n = 8; n < 200; n += 4)
		open_limited(RLIMIT_NOFILE, n, -EMFILE);
}

__attribute__((unused)) static void survive_little_address_space(void)
{
	for (rlim_t mb = 40; mb < 700; mb += 20)
		open_limited(RLIMIT_AS, mb << 20, -ENOMEM);
}

static void survive_small_files(void)
{
	signal(SIGXFSZ, SIG_IGN);
	open_limited(RLIMIT_FSIZE, 1 << 20, -ENOMEM);
}

static void refuse_foreign_devices(void)
{
	static const struct {
		const char *device;
		int error;
	} devices[] = {
		{"net_tap0", -EINVAL},
		{"net_nonsense0", -ENODEV},
		{"eth0", -EINVAL},
		{"../evil", -EINVAL},
		{"net_/../../x0", -EINVAL},
		{"net_af_packet0,iface=nosuch", -ENODEV},
		{"net_virtio_user0,path=/nonexistent/dir/s,server=1", -ENODEV},
	};
	struct port *p;
	char err[512];

	for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
		int e = open_port(devices[i].device, &p, err, sizeof err);

		if (e != devices[i].error)
			dprintf(complaints, "%s: %s: %s\n", devices[i].device, strerror(-e), err);
		CHECK(e == devices[i].error);
		CHECK(*err && !strchr(err, '\n'));
	}
	p = must_open(server); /* none of that did harm */
	use(p);
	port_close(p);
}

/* --- cmocka's side --- */

static void run_case(void **state)
{
	void (*body)(void) = (void (*)(void)) * state;
	pid_t pid;
	int status;

	fflush(NULL);
	pid = fork();
	if (!pid) {
		complaints = fcntl(2, F_DUPFD_CLOEXEC, 3);
		alarm(0);
		body();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status))
		fail_msg("died of signal %d", WTERMSIG(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

#define CASE(body)                                                                                           \
	{                                                                                                    \
#body, run_case, NULL, NULL, (void *)(body)                                                  \
	}

int main(void)
{
	const struct CMUnitTest cases[] = {
		CASE(leave_alone_vhost),
		CASE(leave_alone_virtio_user),
		CASE(open_often),
		CASE(open_under_signals),
		CASE(fork_children),
		CASE(open_in_child),
		CASE(need_descriptors),
		CASE(survive_few_descriptors),
#if !defined(__SANITIZE_ADDRESS__) /* which takes terabytes for itself */
		CASE(survive_little_address_space),
#endif
		CASE(survive_small_files),
		CASE(refuse_foreign_devices),
	};
	int failed;

	if (!mkdtemp(dir))
		return 1;
	snprintf(vhost, sizeof vhost, "net_vhost0,iface=%s/absent,client=1", dir);
	snprintf(server, sizeof server, "net_virtio_user0,path=%s/s,server=1,queue_size=256", dir);
	if (getenv("SANDIRECT_LOG"))
		sd_log_open(SD_LOG_DEBUG, NULL, NULL);
	failed = cmocka_run_group_tests_name("port_guest", cases, NULL, NULL);
	rmdir(dir);
	return failed;
}
