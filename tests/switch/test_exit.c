/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How a connection ends with its process, seen from the other side: two processes on hosts of their own
 * (network namespaces that go with the test), the SAN carried by UDP over a veth. Root only.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define BYTES	     (3u << 20)
#define DEAD_TIMEOUT 3	/* s */
#define KEEPALIVE    1	/* s */
#define SLOW	     15 /* s: a busy machine */

static char dir[] = "/tmp/sandirect-exit-XXXXXX";
static int hosts[2] = {-1, -1}; /* their network namespaces */
static pid_t holders[2];
static int go[2]; /* from client to server, beside the connection */

#define CHECK(x)                                                                                             \
	do {                                                                                                 \
		if (!(x)) {                                                                                  \
			fprintf(stderr, "%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #x, errno);            \
			exit(1);                                                                             \
		}                                                                                            \
	} while (0)

/* --- hosts --- */

static int command(const char *format, ...) __attribute__((format(printf, 1, 2)));
static int command(const char *format, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	return system(text);
}

static int make_host(unsigned i)
{
	char path[64], c;
	int ready[2];

	if (pipe(ready))
		return -1;
	holders[i] = fork();
	if (!holders[i]) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (unshare(CLONE_NEWNET) || write(ready[1], "", 1) != 1)
			_exit(1);
		pause();
		_exit(0);
	}
	close(ready[1]);
	if (read(ready[0], &c, 1) != 1)
		return -1;
	close(ready[0]);
	snprintf(path, sizeof path, "/proc/%d/ns/net", (int)holders[i]);
	hosts[i] = open(path, O_RDONLY | O_CLOEXEC);
	return hosts[i] < 0;
}

static int configure_host(unsigned i)
{
	return command("nsenter -t %d -n sh -c 'ip addr add 10.99.0.%u/24 dev san0; ip link set san0 up; "
		       "ip link set lo up'",
		(int)holders[i], i + 1);
}

static int setup(void **state)
{
	char path[sizeof dir + 8];
	FILE *f;

	if (geteuid() || make_host(0) || make_host(1) ||
		command("nsenter -t %d -n ip link add san0 type veth peer name san0 netns %d 2>/dev/null",
			(int)holders[0], (int)holders[1])) {
		print_message("needs root and network namespaces\n");
		exit(77);
	}
	assert_false(configure_host(0) || configure_host(1));
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/conf", dir);
	f = fopen(path, "w");
	assert_non_null(f);
	/* Patient with a busy machine where it does not matter. */
	fprintf(f,
		"[global]\nfind_timeout = 5s\n"
		"[transport]\ndead_timeout = %ds\nkeepalive = %ds\nconnect_timeout = 5s\n"
		"[port p]\nnetdev = san0\ndevice = udp\n",
		DEAD_TIMEOUT, KEEPALIVE);
	fclose(f);
	setenv("SANDIRECT_CONFIG", path, 1);
	setenv("SANDIRECT_RUNTIME_DIR", dir, 1);
	return 0;
}

static int teardown(void **state)
{
	for (unsigned i = 0; i < 2; i++) {
		kill(holders[i], SIGKILL);
		waitpid(holders[i], NULL, 0);
	}
	return command("rm -rf %s", dir);
}

static bool is_on_san(int fd)
{
	struct sockaddr_in a;
	socklen_t len = sizeof a;

	return syscall(SYS_getpeername, fd, &a, &len) && errno == ENOTCONN;
}

/* --- two processes and a connection --- */

struct ending {
	void (*client)(int fd); /* does what it does, and ends the process */
	void (*server)(int fd); /* looks at it */
	int status;		/* the client's exit status, or minus the signal that killed it */
};

static void be_server(const struct ending *e, int port_pipe)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	socklen_t len = sizeof a;
	struct pollfd p = {.events = POLLIN};
	int listener, fd;

	CHECK(!setns(hosts[0], CLONE_NEWNET));
	listener = socket(AF_INET, SOCK_STREAM, 0);
	CHECK(!bind(listener, (struct sockaddr *)&a, sizeof a) && !listen(listener, 5));
	p.fd = listener;
	CHECK(!poll(&p, 1, 1)); /* the engine starts */
	CHECK(!getsockname(listener, (struct sockaddr *)&a, &len));
	CHECK(write(port_pipe, &a.sin_port, sizeof a.sin_port) == sizeof a.sin_port);
	fd = accept(listener, NULL, NULL);
	CHECK(fd >= 0 && is_on_san(fd));
	e->server(fd);
	exit(0);
}

static void be_client(const struct ending *e, int port_pipe)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	int fd;

	CHECK(!setns(hosts[1], CLONE_NEWNET));
	CHECK(read(port_pipe, &a.sin_port, sizeof a.sin_port) == sizeof a.sin_port);
	a.sin_addr.s_addr = inet_addr("10.99.0.1");
	fd = socket(AF_INET, SOCK_STREAM, 0);
	CHECK(!connect(fd, (struct sockaddr *)&a, sizeof a));
	CHECK(is_on_san(fd));
	e->client(fd);
	exit(0);
}

static int status_of(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static pid_t start(void (*f)(const struct ending *, int), const struct ending *e, int fd)
{
	pid_t pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(60);
		f(e, fd);
	}
	return pid;
}

static void run(const struct ending *e)
{
	pid_t server, client;
	int port[2];

	assert_int_equal(pipe(port), 0);
	assert_int_equal(pipe(go), 0);
	server = start(be_server, e, port[1]);
	client = start(be_client, e, port[0]);
	close(port[0]);
	close(port[1]);
	close(go[0]);
	close(go[1]);
	assert_int_equal(status_of(client), e->status);
	assert_int_equal(status_of(server), 0);
}

/* --- what they do --- */

static char pattern(size_t i)
{
	return (char)(i * 7 + (i >> 8) * 13);
}

static void send_all(int fd)
{
	static char data[BYTES];
	size_t done = 0;
	ssize_t n;

	for (size_t i = 0; i < BYTES; i++)
		data[i] = pattern(i);
	for (; done < BYTES; done += (size_t)n) {
		n = send(fd, data + done, BYTES - done, 0);
		CHECK(n > 0);
	}
}

static void expect_all(int fd)
{
	static char data[1 << 16];
	size_t done = 0;
	ssize_t n;

	usleep(50000); /* so that the other side has gone as far as it can */
	while ((n = recv(fd, data, sizeof data, 0)) > 0) {
		for (ssize_t i = 0; i < n; i++)
			CHECK(data[i] == pattern(done + (size_t)i));
		done += (size_t)n;
	}
	CHECK(!n && done == BYTES);
}

static void expect_reset(int fd)
{
	char c;

	CHECK(recv(fd, &c, 1, 0) == -1 && errno == ECONNRESET);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* --- ways out --- */

static void by_return(int fd)
{
	send_all(fd);
}

static void by_close(int fd)
{
	send_all(fd);
	CHECK(!close(fd));
}

static void by_exit(int fd)
{
	send_all(fd);
	exit(3);
}

static void by_underscore_exit(int fd)
{
	send_all(fd);
	_exit(3);
}

static void by_Exit(int fd)
{
	send_all(fd);
	_Exit(3);
}

static void by_quick_exit(int fd)
{
	send_all(fd);
	quick_exit(3);
}

static void exits(int sig)
{
	_exit(3);
}

/* Between two calls: the handler has interrupted the program itself, perhaps in malloc(3). */
static void from_a_handler(int fd)
{
	signal(SIGUSR1, exits);
	send_all(fd);
	raise(SIGUSR1);
}

/* While the program waits for bytes. */
static void from_a_handler_in_a_call(int fd)
{
	char c;

	signal(SIGALRM, exits);
	send_all(fd);
	ualarm(20000, 0);
	CHECK(recv(fd, &c, 1, 0) == -1);
}

/* For LeakSanitizer: what a forked child has left of its parent's engine cannot be freed there. */
static bool is_child;
__attribute__((visibility("default"))) int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
	return is_child;
}

static void after_a_childs_exit(int fd)
{
	int status;
	pid_t pid = fork();

	/* It has a copy of the descriptor, and of the program's exit handlers. */
	if (!pid) {
		is_child = true;
		exit(5);
	}
	CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 5);
	send_all(fd);
	exit(3);
}

static void everything_arrives(void **state)
{
	static const struct ending endings[] = {
		{by_return, expect_all, 0},
		{by_close, expect_all, 0},
		{by_exit, expect_all, 3},
		{by_underscore_exit, expect_all, 3},
		{by_Exit, expect_all, 3},
		{by_quick_exit, expect_all, 3},
		{from_a_handler, expect_all, 3},
		{from_a_handler_in_a_call, expect_all, 3},
		{after_a_childs_exit, expect_all, 3},
	};

	for (unsigned i = 0; i < sizeof endings / sizeof *endings; i++) {
		print_message("ending %u\n", i);
		run(&endings[i]);
	}
}

static void exits_with_linger_0(int fd)
{
	struct linger l = {1, 0};

	CHECK(!setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l));
	exit(0);
}

static void exits_with_input_unread(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	CHECK(poll(&p, 1, 5000) == 1);
	exit(0);
}

static void send_and_expect_reset(int fd)
{
	CHECK(send(fd, "x", 1, 0) == 1);
	expect_reset(fd);
}

static void resets(void **state)
{
	static const struct ending linger_0 = {exits_with_linger_0, expect_reset, 0},
				   unread = {exits_with_input_unread, send_and_expect_reset, 0};

	run(&linger_0);
	run(&unread);
}

/* --- death --- */

static void dies(int fd)
{
	CHECK(send(fd, "x", 1, 0) == 1);
	raise(SIGKILL);
}

/* Its helper has everything that a forked and executed program inherits. */
static void dies_with_a_helper(int fd)
{
	pid_t pid = fork();

	if (!pid)
		execlp("sleep", "sleep", "8", NULL);
	dies(fd);
}

static void expect_death(int fd)
{
	char buf[4096] = {0};
	double begun = now();
	ssize_t n;

	CHECK(recv(fd, buf, 1, 0) == 1);
	/* Whoever sends notices. */
	while ((n = send(fd, buf, sizeof buf, MSG_NOSIGNAL | MSG_DONTWAIT)) > 0)
		;
	CHECK(n == -1 && errno == EAGAIN);
	n = recv(fd, buf, 1, 0);
	CHECK(n == 0 || errno == ECONNRESET || errno == ETIMEDOUT);
	CHECK(now() - begun < SLOW);
}

/* One that only reads has the keepalive, also where the program asks for a lazy one. */
static void expect_silent_death(int fd)
{
	double begun = now();
	int on = 1;
	char c;

	CHECK(!setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on));
	CHECK(recv(fd, &c, 1, 0) == 1);
	CHECK(recv(fd, &c, 1, 0) <= 0);
	CHECK(now() - begun < SLOW);
}

static void killed(void **state)
{
	static const struct ending alone = {dies, expect_death, -SIGKILL},
				   helper = {dies_with_a_helper, expect_death, -SIGKILL},
				   silent = {dies, expect_silent_death, -SIGKILL};

	run(&alone);
	run(&helper);
	run(&silent);
}

/* --- SO_LINGER --- */

static void lingers(int fd)
{
	struct linger l = {1, SLOW};
	double begun;

	CHECK(!setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l));
	CHECK(!fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK));
	for (;;) {
		static char data[65536];

		if (send(fd, data, sizeof data, 0) < 0) {
			struct pollfd p = {.fd = fd, .events = POLLOUT};

			CHECK(errno == EAGAIN);
			if (!poll(&p, 1, 100))
				break;
		}
	}
	begun = now();
	CHECK(write(go[1], "", 1) == 1);
	CHECK(!close(fd));
	CHECK(now() - begun > 0.4 && now() - begun < SLOW);
	_exit(0);
}

static void reads_late(int fd)
{
	static char data[1 << 16];
	ssize_t n;

	CHECK(read(go[0], data, 1) == 1);
	usleep(500000);
	while ((n = recv(fd, data, sizeof data, 0)) > 0)
		;
	CHECK(!n);
}

static void lingers_in_vain(int fd)
{
	struct linger l = {1, 1};
	static char data[65536];
	double begun;

	CHECK(!setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l));
	while (send(fd, data, sizeof data, MSG_DONTWAIT) > 0)
		;
	begun = now();
	CHECK(!close(fd));
	CHECK(now() - begun > 0.9 && now() - begun < SLOW);
	CHECK(write(go[1], "", 1) == 1);
}

static void never_reads(int fd)
{
	char c;

	CHECK(read(go[0], &c, 1) == 1);
}

static volatile bool handled;

static void note(int sig)
{
	handled = true;
}

static void lingers_until_a_signal(int fd)
{
	struct linger l = {1, 2 * SLOW};
	static char data[65536];
	double begun;

	signal(SIGALRM, note);
	CHECK(!setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l));
	while (send(fd, data, sizeof data, MSG_DONTWAIT) > 0)
		;
	begun = now();
	ualarm(200000, 200000); /* again, as the first may come before the call on a busy machine */
	CHECK(!close(fd));
	ualarm(0, 0);
	CHECK(handled && now() - begun < SLOW);
	CHECK(write(go[1], "", 1) == 1);
}

static void closing_waits_for_delivery(void **state)
{
	static const struct ending late = {lingers, reads_late, 0}, vain = {lingers_in_vain, never_reads, 0},
				   interrupted = {lingers_until_a_signal, never_reads, 0};

	run(&late);
	run(&vain);
	run(&interrupted);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(everything_arrives),
		cmocka_unit_test(resets),
		cmocka_unit_test(killed),
		cmocka_unit_test(closing_waits_for_delivery),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
