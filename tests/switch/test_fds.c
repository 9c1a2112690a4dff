/* SPDX-License-Identifier: BSD-3-Clause */
/* Descriptor numbers: what close, dup and their relatives do to connections, and what the engine hides. */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "loopback.h"

#define MAX_FDS 4096

static bool open_now[MAX_FDS], open_before[MAX_FDS];

/* What is open, past all hooks. */
static void look(bool fds[MAX_FDS])
{
	memset(fds, 0, MAX_FDS * sizeof *fds);
	for (int fd = 0; fd < MAX_FDS; fd++)
		fds[fd] = syscall(SYS_fcntl, fd, F_GETFD) >= 0;
}

static void talk(int a, int b)
{
	char buf[8];

	assert_int_equal(write(a, "ping", 4), 4);
	assert_int_equal(read(b, buf, sizeof buf), 4);
	assert_int_equal(write(b, "pong!", 5), 5);
	assert_int_equal(read(a, buf, sizeof buf), 5);
}

static bool has_event(int fd, short events, int ms)
{
	struct pollfd p = {.fd = fd, .events = events};

	return poll(&p, 1, ms) == 1 && (p.revents & events);
}

static void expect_end(int fd)
{
	char c;

	assert_true(has_event(fd, POLLIN, 2000));
	assert_int_equal(read(fd, &c, 1), 0);
}

/* --- the library's own --- */

static void refused(int r, int error)
{
	assert_int_equal(r, -1);
	assert_int_equal(errno, error);
}

static void the_engines_descriptors_are_hidden(void **state)
{
	int n = 0, value = 0;
	socklen_t len = sizeof value;

	for (int fd = 0; fd < MAX_FDS; fd++) {
		if (!open_now[fd] || open_before[fd])
			continue;
		n++;
		assert_true(syscall(SYS_fcntl, fd, F_GETFD) & FD_CLOEXEC);
		assert_in_range(fd, 64, MAX_FDS); /* above those that programs count on */
		refused(fcntl(fd, F_GETFD), EBADF);
		refused(fcntl(fd, F_DUPFD, 0), EBADF);
		refused(fcntl(fd, F_SETFD, 0), EBADF);
		refused(ioctl(fd, 0x541b, &value), EBADF);
		refused(getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &len), EBADF);
		refused(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &value, len), EBADF);
		refused(close(fd), EBADF);
		refused(dup(fd), EBADF);
		refused(dup2(fd, 0), EBADF);
		refused(dup2(0, fd), EBUSY);
		refused(dup3(0, fd, O_CLOEXEC), EBUSY);
		assert_true(syscall(SYS_fcntl, fd, F_GETFD) >= 0);
	}
	assert_true(n >= 3); /* routes, a port, a bell */
}

static void engine_is_whole(void)
{
	int fds[2];

	for (int fd = 0; fd < MAX_FDS; fd++) {
		if (open_now[fd] && !open_before[fd])
			assert_true(syscall(SYS_fcntl, fd, F_GETFD) >= 0);
	}
	loopback_pair(SAN, fds);
	talk(fds[0], fds[1]);
	close(fds[0]);
	close(fds[1]);
}

static void closefrom_spares_the_engine(void **state)
{
	int fds[2], plain = dup(0);

	loopback_pair(SAN, fds);
	closefrom(3);
	refused(fcntl(plain, F_GETFD), EBADF);
	refused((int)write(fds[0], "x", 1), EBADF);
	refused(close(fds[0]), EBADF);
	engine_is_whole();
}

static void close_range_spares_the_engine(void **state)
{
	int fds[2], plain = dup(0);

	loopback_pair(SAN, fds);
	assert_int_equal(close_range((unsigned)fds[1], ~0u, 0), 0);
	refused((int)write(fds[1], "x", 1), EBADF);
	expect_end(fds[0]);
	assert_int_equal(close_range((unsigned)fds[0], ~0u, CLOSE_RANGE_CLOEXEC), 0);
	assert_int_equal(fcntl(fds[0], F_GETFD), FD_CLOEXEC);
	assert_int_equal(close_range((unsigned)plain, (unsigned)fds[0], CLOSE_RANGE_UNSHARE), 0);
	refused(fcntl(plain, F_GETFD), EBADF);
	refused(close_range(9, 8, 0), EINVAL);
	refused(close_range(3, 4, 1 << 10), EINVAL);
	engine_is_whole();
}

static void closing_every_number_spares_the_engine(void **state)
{
	for (int fd = 3; fd < MAX_FDS; fd++)
		close(fd);
	engine_is_whole();
}

/* --- duplicates --- */

static void the_last_descriptor_ends_a_connection(void **state)
{
	for (enum path p = KERNEL; p <= SAN; p++) {
		int fds[2], a, b, c, d;

		loopback_pair(p, fds);
		a = dup(fds[0]);
		b = fcntl(fds[0], F_DUPFD, 100);
		c = fcntl(a, F_DUPFD_CLOEXEC, 100);
		d = dup3(b, 200, O_CLOEXEC);
		assert_true(b >= 100 && c > b);
		assert_int_equal(d, 200);
		assert_int_equal(fcntl(b, F_GETFD), 0);
		assert_int_equal(fcntl(c, F_GETFD), FD_CLOEXEC);
		assert_int_equal(fcntl(d, F_GETFD), FD_CLOEXEC);
		assert_int_equal(dup2(d, d), d);
		assert_int_equal(close(fds[0]), 0);
		talk(a, fds[1]);
		assert_int_equal(close(a), 0);
		talk(b, fds[1]);
		assert_int_equal(close(b), 0);
		talk(fds[1], c);
		assert_int_equal(close(c), 0);
		talk(d, fds[1]);
		assert_false(has_event(fds[1], POLLIN, 0));
		assert_int_equal(close(d), 0);
		expect_end(fds[1]);
		assert_int_equal(close(fds[1]), 0);
		refused(close(fds[1]), EBADF);
	}
}

static void a_number_that_is_replaced(void **state)
{
	for (enum path p = KERNEL; p <= SAN; p++) {
		int fds[2], others[2], pipes[2];
		char c;

		loopback_pair(p, fds);
		loopback_pair(p, others);
		assert_int_equal(pipe(pipes), 0);
		/* a connection by another */
		assert_int_equal(dup2(others[0], fds[0]), fds[0]);
		expect_end(fds[1]);
		talk(fds[0], others[1]);
		/* by something of the kernel's, and back */
		assert_int_equal(close(others[0]), 0);
		assert_int_equal(dup2(pipes[0], fds[0]), fds[0]);
		expect_end(others[1]);
		assert_int_equal(write(pipes[1], "x", 1), 1);
		assert_int_equal(read(fds[0], &c, 1), 1);
		refused(dup3(pipes[0], pipes[0], 0), EINVAL);
		refused(dup2(-1, fds[1]), EBADF);
		for (unsigned i = 0; i < 2; i++)
			close(fds[i]), close(pipes[i]);
		close(others[1]);
	}
}

/* The way a shell gives a connection to standard input and output. */
static void standard_numbers(void **state)
{
	int fds[2], keep = dup(0);

	loopback_pair(SAN, fds);
	assert_int_equal(dup2(fds[0], 0), 0);
	close(fds[0]);
	talk(0, fds[1]);
	assert_int_equal(dup2(keep, 0), 0);
	expect_end(fds[1]);
	close(fds[1]);
	close(keep);
}

/* Behind the switch's back: the number is free, and comes back as something else. */
static void a_number_that_was_closed_unseen(void **state)
{
	int fds[2], p[2];
	char c;

	loopback_pair(SAN, fds);
	assert_int_equal(pipe(p), 0);
	assert_int_equal(syscall(SYS_close, fds[0]), 0);
	assert_int_equal(dup(p[0]), fds[0]);
	assert_int_equal(write(p[1], "x", 1), 1);
	assert_int_equal(read(fds[0], &c, 1), 1);
	expect_end(fds[1]);
	close(fds[0]);
	close(fds[1]);
	close(p[0]);
	close(p[1]);
}

/* --- linger --- */

static void aborting_close(void **state)
{
	for (enum path p = KERNEL; p <= SAN; p++) {
		struct linger l = {1, 0};
		int fds[2];
		char c;

		loopback_pair(p, fds);
		assert_int_equal(setsockopt(fds[0], SOL_SOCKET, SO_LINGER, &l, sizeof l), 0);
		assert_int_equal(write(fds[0], "x", 1), 1);
		assert_int_equal(close(fds[0]), 0);
		assert_true(has_event(fds[1], POLLERR, 2000));
		assert_int_equal(read(fds[1], &c, 1), 1);
		refused((int)read(fds[1], &c, 1), ECONNRESET);
		close(fds[1]);
	}
}

static void lingering_close(void **state)
{
	for (enum path p = KERNEL; p <= SAN; p++) {
		struct linger l = {1, 5};
		int fds[2], other;
		char buf[4];

		loopback_pair(p, fds);
		assert_int_equal(setsockopt(fds[0], SOL_SOCKET, SO_LINGER, &l, sizeof l), 0);
		assert_int_equal(write(fds[0], "abc", 3), 3);
		other = dup(fds[0]);
		assert_int_equal(close(fds[0]), 0);
		assert_int_equal(close(other), 0);
		assert_int_equal(read(fds[1], buf, sizeof buf), 3);
		expect_end(fds[1]);
		close(fds[1]);
	}
}

/* --- other processes and threads --- */

static void a_vfork_child_closes_its_own(void **state)
{
	int fds[2], status;
	pid_t pid;

	loopback_pair(SAN, fds);
	pid = vfork();
	if (!pid) {
		close(fds[0]);
		dup2(0, fds[1]);
		close_range(3, ~0u, 0);
		_exit(7);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
	talk(fds[0], fds[1]);
	close(fds[0]);
	close(fds[1]);
	engine_is_whole();
}

static _Atomic bool failed;

/* Numbers come and go between threads; a byte that ends up in another connection is seen. */
static void *churn(void *arg)
{
	char mine = (char)(uintptr_t)arg, got;

	for (unsigned i = 0; i < 300 && !failed; i++) {
		int fds[2], extra, p[2];

		loopback_pair(SAN, fds);
		extra = dup(fds[i & 1]);
		if (pipe(p) || write(fds[0], &mine, 1) != 1 || read(fds[1], &got, 1) != 1 || got != mine ||
			write(p[1], &mine, 1) != 1 || read(p[0], &got, 1) != 1 || got != mine)
			failed = true;
		if (dup2(p[0], fds[0]) != fds[0] || write(p[1], &mine, 1) != 1 ||
			read(fds[0], &got, 1) != 1 || got != mine)
			failed = true;
		if (close(fds[0]) || close(extra) || close(fds[1]) || close(p[0]) || close(p[1]))
			failed = true;
	}
	return NULL;
}

static void numbers_reused_between_threads(void **state)
{
	pthread_t t[4];

	for (uintptr_t i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, churn, (void *)('a' + i)), 0);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	assert_false(failed);
}

struct reader {
	int fd;
	_Atomic pid_t tid; /* once it is about to read */
};

static void *receive(void *arg)
{
	struct reader *r = arg;
	char c;

	r->tid = gettid();
	return (void *)(intptr_t)(read(r->fd, &c, 1) == 1);
}

static char state_of(pid_t tid)
{
	char path[64], state = 0;
	FILE *f;

	snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)tid);
	f = fopen(path, "r");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%*d (%*[^)]) %c", &state), 1);
	fclose(f);
	return state;
}

/* Until the reader has slept for a while: on a busy machine it may come to its read() late. */
static void wait_until_it_reads(struct reader *r)
{
	while (!r->tid)
		usleep(1000);
	for (unsigned asleep = 0; asleep < 5; asleep = state_of(r->tid) == 'S' ? asleep + 1 : 0)
		usleep(10000);
}

/* The one in read() keeps the connection until it returns. */

static void closed_while_another_thread_waits(void **state)
{
	for (enum path p = KERNEL; p <= SAN; p++) {
		struct reader reader = {0};
		int fds[2];
		pthread_t t;
		void *got;

		loopback_pair(p, fds);
		reader.fd = fds[0];
		assert_int_equal(pthread_create(&t, NULL, receive, &reader), 0);
		wait_until_it_reads(&reader);
		assert_int_equal(close(fds[0]), 0);
		assert_int_equal(write(fds[1], "x", 1), 1);
		pthread_join(t, &got);
		assert_true((bool)(uintptr_t)got);
		expect_end(fds[1]);
		close(fds[1]);
	}
}

static void no_descriptor_is_left(void **state)
{
	bool left[MAX_FDS];

	look(left);
	for (int fd = 0; fd < MAX_FDS; fd++) {
		if (left[fd] && !open_before[fd])
			refused(fcntl(fd, F_GETFD), EBADF);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_engines_descriptors_are_hidden),
		cmocka_unit_test(closefrom_spares_the_engine),
		cmocka_unit_test(close_range_spares_the_engine),
		cmocka_unit_test(closing_every_number_spares_the_engine),
		cmocka_unit_test(the_last_descriptor_ends_a_connection),
		cmocka_unit_test(a_number_that_is_replaced),
		cmocka_unit_test(standard_numbers),
		cmocka_unit_test(a_number_that_was_closed_unseen),
		cmocka_unit_test(aborting_close),
		cmocka_unit_test(lingering_close),
		cmocka_unit_test(a_vfork_child_closes_its_own),
		cmocka_unit_test(numbers_reused_between_threads),
		cmocka_unit_test(closed_while_another_thread_waits),
		cmocka_unit_test(no_descriptor_is_left),
	};

	loopback_begin();
	look(open_before);
	loopback_start_engine();
	look(open_now);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
