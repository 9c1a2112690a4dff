/* SPDX-License-Identifier: BSD-3-Clause */
/* What a forked child has: the kernel's descriptors, none of the engine's, and the truth about SAN
 * connections. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "loopback.h"

#define MAX_FDS 4096

static bool before[MAX_FDS];

static bool is_open(int fd)
{
	return syscall(SYS_fcntl, fd, F_GETFD) >= 0;
}

/* In a child an assertion of cmocka would go on with the parent's tests. */
#define CHECK(x)                                                                                             \
	do {                                                                                                 \
		if (!(x)) {                                                                                  \
			fprintf(stderr, "%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #x, errno);            \
			_exit(1);                                                                            \
		}                                                                                            \
	} while (0)

typedef pid_t fork_fn(void);

/* Runs f in a child; its checks must hold. */
static void in_child(fork_fn *how, void (*f)(void *), void *arg)
{
	int status;
	pid_t pid = how();

	if (!pid) {
		alarm(20);
		f(arg);
		_exit(0);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void talk(int a, int b)
{
	char buf[8];

	assert_int_equal(write(a, "ping", 4), 4);
	assert_int_equal(read(b, buf, sizeof buf), 4);
	assert_int_equal(write(b, "pong!", 5), 5);
	assert_int_equal(read(a, buf, sizeof buf), 5);
}

static int count_stat_files(void)
{
	char command[128];
	int n;
	FILE *f;

	snprintf(command, sizeof command, "ls %s/stat 2>/dev/null | wc -l", loopback_dir());
	f = popen(command, "r");
	if (!f || fscanf(f, "%d", &n) != 1)
		n = -1;
	if (f)
		pclose(f);
	return n;
}

/* A new connection within the child, and what carried it. */
static enum path connect_in_child(void)
{
	int listener = loopback_listen(SAN), c = loopback_connect(listener, -1);
	int a = accept(listener, NULL, NULL);
	enum path p;
	char b;

	CHECK(a >= 0);
	CHECK(write(c, "x", 1) == 1);
	CHECK(read(a, &b, 1) == 1);
	CHECK(loopback_path(a) == loopback_path(c));
	close(a);
	close(listener);
	CHECK(read(c, &b, 1) == 0);
	p = loopback_path(c);
	close(c);
	return p;
}

static void accepts(void *listener)
{
	int fd = accept(*(int *)listener, NULL, NULL);
	char c;

	CHECK(fd >= 0);
	CHECK(read(fd, &c, 1) == 1);
}

/* --- before the engine has started --- */

static void uses_a_san_of_its_own(void *arg)
{
	int *listener = arg, c = loopback_connect(*listener, -1), a, flags;

	CHECK(loopback_path(c) == SAN);
	a = accept(*listener, NULL, NULL);
	CHECK(a >= 0 && loopback_path(a) == SAN);
	talk(a, c);
	flags = fcntl(*listener, F_GETFL);
	CHECK(flags >= 0 && !(flags & O_NONBLOCK));
}

/* A server that makes itself a daemon between listen() and accept(). */
static void a_listener_goes_with_the_child(void **state)
{
	int listener = loopback_listen(SAN);

	in_child(fork, uses_a_san_of_its_own, &listener);
	in_child(_Fork, uses_a_san_of_its_own, &listener);
	close(listener);
}

static void daemonizes(void *arg)
{
	int *listener = arg, done[2], status = 1;
	pid_t pid;

	CHECK(!pipe(done));
	CHECK(dup2(*listener, 0) == 0);
	pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		CHECK(!daemon(1, 0));
		/* 0 was a socket, and is /dev/null now. */
		CHECK(read(0, &status, sizeof status) == 0);
		uses_a_san_of_its_own(listener);
		CHECK(write(done[1], "", 1) == 1);
		_exit(0);
	}
	close(done[1]);
	CHECK(waitpid(pid, &status, 0) == pid && !status);
	CHECK(read(done[0], &status, 1) == 1);
}

static void daemon_3(void **state)
{
	int listener = loopback_listen(SAN);

	in_child(fork, daemonizes, &listener);
	close(listener);
}

/* --- after --- */

static void finds_them_dead(void *arg)
{
	int *fds = arg, error = 0, set = epoll_create1(0);
	struct epoll_event ev = {.events = EPOLLIN};
	struct pollfd p = {.fd = fds[0], .events = POLLIN};
	socklen_t len = sizeof error;
	char c;

	CHECK(write(fds[0], "x", 1) == -1 && errno == EBADF);
	CHECK(read(fds[0], &c, 1) == -1 && errno == EBADF);
	CHECK(poll(&p, 1, 1000) == 1 && p.revents & POLLERR);
	CHECK(!getsockopt(fds[0], SOL_SOCKET, SO_ERROR, &error, &len) && error == EBADF);
	CHECK(!epoll_ctl(set, EPOLL_CTL_ADD, fds[1], &ev));
	CHECK(epoll_wait(set, &ev, 1, 1000) == 1 && ev.events & EPOLLERR);
	CHECK(dup2(fds[1], 300) == 300);
	CHECK(write(300, "x", 1) == -1 && errno == EBADF);
	CHECK(!close(300) && !close(fds[0]) && !close(fds[1]));
	CHECK(close(fds[0]) == -1 && errno == EBADF);
}

static void connections_stay_with_the_parent(void **state)
{
	int fds[2];

	loopback_pair(SAN, fds);
	for (unsigned i = 0; i < 3; i++) {
		in_child(fork, finds_them_dead, fds);
		talk(fds[0], fds[1]);
	}
	in_child(_Fork, finds_them_dead, fds);
	talk(fds[0], fds[1]);
	close(fds[0]);
	close(fds[1]);
}

static void has_none_of_the_engines(void *arg)
{
	int *fds = arg;

	for (int fd = 0; fd < MAX_FDS; fd++)
		CHECK(before[fd] || !is_open(fd) || fd == fds[0] || fd == fds[1]);
}

static void the_engines_descriptors_are_closed(void **state)
{
	int fds[2];

	loopback_pair(SAN, fds);
	in_child(fork, has_none_of_the_engines, fds);
	in_child(_Fork, has_none_of_the_engines, fds);
	close(fds[0]);
	close(fds[1]);
}

static void makes_new_ones_over_tcp(void *arg)
{
	int *listener = arg, c, a;
	struct pollfd p = {.fd = *listener, .events = POLLIN};

	CHECK(connect_in_child() == KERNEL);
	c = loopback_connect(*listener, -1);
	CHECK(loopback_path(c) == KERNEL);
	CHECK(poll(&p, 1, 1000) == 1);
	a = accept(*listener, NULL, NULL);
	CHECK(a >= 0 && loopback_path(a) == KERNEL);
	talk(a, c);
	CHECK(count_stat_files() == 2);
}

static void new_connections_of_a_child(void **state)
{
	int listener = loopback_listen(SAN), c, a;
	struct pollfd p = {.fd = listener, .events = POLLIN};

	assert_int_equal(poll(&p, 1, 0), 0);
	in_child(fork, makes_new_ones_over_tcp, &listener);
	/* The parent's listener has lost nothing, as it has been waited for. */
	c = loopback_connect(listener, -1);
	a = accept(listener, NULL, NULL);
	assert_int_equal(loopback_path(a), SAN);
	talk(a, c);
	close(a);
	close(c);
	close(listener);
	assert_int_equal(count_stat_files(), 1);
}

/* The kernel's socket of this listener has been made non-blocking by an accept. */
static void accepts_blocking(void *arg)
{
	int *listener = arg, fd;
	pid_t pid;

	CHECK(!(fcntl(*listener, F_GETFL) & O_NONBLOCK));
	pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		usleep(50000);
		fd = loopback_connect(*listener, -1);
		close(fd);
		_exit(0);
	}
	CHECK(accept(*listener, NULL, NULL) >= 0);
	CHECK(waitpid(pid, NULL, 0) == pid);
}

static void a_childs_listener_still_blocks(void **state)
{
	int listener = loopback_listen(SAN), c, a;
	struct timeval t = {.tv_usec = 10000}, none = {0};

	assert_int_equal(setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t), 0);
	assert_int_equal(accept(listener, NULL, NULL), -1);
	assert_int_equal(setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none), 0);
	in_child(fork, accepts_blocking, &listener);
	c = loopback_connect(listener, -1);
	a = accept(listener, NULL, NULL);
	assert_true(a >= 0);
	close(a);
	close(c);
	close(listener);
}

/* What the child accepts from is not for the parent's SAN side, as long as the parent does not wait for it.
 */
static void a_listener_for_the_child(void **state)
{
	int listener = loopback_listen(SAN), c, a, status;
	struct pollfd p = {.fd = listener, .events = POLLIN};
	pid_t pid = fork();

	if (!pid) {
		alarm(20);
		accepts(&listener);
		_exit(0);
	}
	c = loopback_connect(listener, -1);
	assert_int_equal(loopback_path(c), KERNEL);
	assert_int_equal(write(c, "x", 1), 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	close(c);
	assert_int_equal(poll(&p, 1, 1), 0);
	c = loopback_connect(listener, -1);
	assert_int_equal(loopback_path(c), SAN);
	a = accept(listener, NULL, NULL);
	assert_true(a >= 0);
	talk(c, a);
	close(a);
	close(c);
	close(listener);
}

static void forks_again(void *arg)
{
	in_child(fork, finds_them_dead, arg);
	in_child(fork, has_none_of_the_engines, arg);
	CHECK(connect_in_child() == KERNEL);
}

static void grandchildren(void **state)
{
	int fds[2];

	loopback_pair(SAN, fds);
	in_child(fork, forks_again, fds);
	talk(fds[0], fds[1]);
	close(fds[0]);
	close(fds[1]);
}

static void executes(void *arg)
{
	/* The engine's have numbers from 512 on. */
	CHECK(!system("test -z \"$(ls /proc/self/fd | awk '$1 >= 500')\""));
}

static void executed_programs_inherit_nothing(void **state)
{
	executes(NULL);
	in_child(fork, executes, NULL);
}

/* --- signals and threads --- */

static void mask_is(void *arg)
{
	sigset_t mask;

	CHECK(!sigprocmask(SIG_BLOCK, NULL, &mask));
	CHECK(sigismember(&mask, SIGUSR1) == 1 && sigismember(&mask, SIGTERM) == 0);
}

static void the_signal_mask_stays(void **state)
{
	sigset_t set, old;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_SETMASK, &set, &old);
	in_child(fork, mask_is, NULL);
	mask_is(NULL);
	sigprocmask(SIG_SETMASK, &old, NULL);
}

static volatile int in_handler;

static void forks_in_handler(int sig)
{
	pid_t pid = fork();
	int status = -1;

	if (!pid)
		_exit(0);
	if (waitpid(pid, &status, 0) == pid && !status)
		in_handler++;
}

/* The handler interrupts a receive that waits. */
static void fork_in_a_handler(void **state)
{
	struct sigaction act = {.sa_handler = forks_in_handler}, old;
	struct timeval t = {.tv_sec = 2};
	int fds[2];
	char c;

	loopback_pair(SAN, fds);
	sigaction(SIGALRM, &act, &old);
	setsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
	ualarm(30000, 100000); /* again, as the first may come before the call on a busy machine */
	assert_int_equal(read(fds[0], &c, 1), -1);
	assert_int_equal(errno, EINTR);
	ualarm(0, 0);
	assert_in_range(in_handler, 1, 20);
	talk(fds[0], fds[1]);
	sigaction(SIGALRM, &old, NULL);
	close(fds[0]);
	close(fds[1]);
}

static _Atomic bool stop;

static void *chatter(void *arg)
{
	int fds[2];

	while (!stop) {
		loopback_pair(SAN, fds);
		for (unsigned i = 0; i < 20; i++)
			talk(fds[0], fds[1]);
		close(fds[0]);
		close(fds[1]);
	}
	return NULL;
}

static void comes_and_goes(void *arg)
{
	CHECK(connect_in_child() == KERNEL);
}

/* Whatever the other threads are in the middle of, the child's tables are whole. */
static void fork_among_busy_threads(void **state)
{
	pthread_t t[3];

	stop = false;
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&t[i], NULL, chatter, NULL), 0);
	for (unsigned i = 0; i < 60; i++)
		in_child(fork, comes_and_goes, NULL);
	stop = true;
	for (unsigned i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
}

static int start_engine(void **state)
{
	loopback_start_engine();
	return 0;
}

int main(void)
{
	const struct CMUnitTest not_started[] = {
		cmocka_unit_test(a_listener_goes_with_the_child),
		cmocka_unit_test(daemon_3),
	};
	const struct CMUnitTest started[] = {
		cmocka_unit_test(connections_stay_with_the_parent),
		cmocka_unit_test(the_engines_descriptors_are_closed),
		cmocka_unit_test(new_connections_of_a_child),
		cmocka_unit_test(a_childs_listener_still_blocks),
		cmocka_unit_test(a_listener_for_the_child),
		cmocka_unit_test(grandchildren),
		cmocka_unit_test(executed_programs_inherit_nothing),
		cmocka_unit_test(the_signal_mask_stays),
		cmocka_unit_test(fork_in_a_handler),
		cmocka_unit_test(fork_among_busy_threads),
	};
	int failed;

	prctl(PR_SET_CHILD_SUBREAPER, 1);
	loopback_begin();
	for (int fd = 0; fd < MAX_FDS; fd++)
		before[fd] = is_open(fd);
	failed = cmocka_run_group_tests(not_started, NULL, NULL);
	return cmocka_run_group_tests(started, start_engine, NULL) + failed;
}
