/* SPDX-License-Identifier: BSD-3-Clause */
/* Descriptors out of the way of programs. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"

static struct rlimit saved;

static int setup(void **state)
{
	return getrlimit(RLIMIT_NOFILE, &saved);
}

static int teardown(void **state)
{
	return setrlimit(RLIMIT_NOFILE, &saved);
}

static void limit_to(rlim_t n)
{
	struct rlimit r = saved;

	r.rlim_cur = n;
	if (n > r.rlim_max)
		skip();
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &r), 0);
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

/* The write end of a pipe is raised; the number it gets, after it has been shown to be that pipe. */
static int raised(void)
{
	int p[2], fd;
	char c = 0;

	assert_int_equal(pipe(p), 0);
	errno = EPIPE;
	fd = sd_fd_raise(p[1]);
	assert_int_equal(errno, EPIPE);
	if (fd != p[1])
		assert_false(is_open(p[1]));
	assert_int_equal(write(fd, "x", 1), 1);
	assert_int_equal(read(p[0], &c, 1), 1);
	assert_int_equal(c, 'x');
	close(p[0]);
	return fd;
}

static void raise__high_and_close_on_exec(void **state)
{
	int a, b;

	limit_to(1024);
	a = raised();
	b = raised();
	assert_in_range(a, 512, 1023);
	assert_in_range(b, 512, 1023);
	assert_int_not_equal(a, b);
	assert_true(fcntl(a, F_GETFD) & FD_CLOEXEC);
	assert_true(fcntl(b, F_GETFD) & FD_CLOEXEC);
	close(a);
	close(b);
}

/* However many the limit allows: the kernel's table grows with the highest number. */
static void raise__not_higher_than_needed(void **state)
{
	int fd;

	limit_to(saved.rlim_max < 4096 ? 4096 : saved.rlim_max);
	fd = raised();
	assert_in_range(fd, 512, 1023);
	close(fd);
}

static void raise__high_already(void **state)
{
	int fd, same;

	limit_to(1024);
	fd = raised();
	errno = EPIPE;
	same = sd_fd_raise(fd);
	assert_int_equal(same, fd);
	assert_int_equal(errno, EPIPE);
	assert_true(is_open(fd));
	close(fd);
}

static void raise__passes_errors_through(void **state)
{
	errno = EMFILE;
	assert_int_equal(sd_fd_raise(-1), -1);
	assert_int_equal(errno, EMFILE);
	assert_int_equal(sd_fd_raise(-EACCES), -EACCES);
	assert_int_equal(errno, EMFILE);
}

static void raise__not_open(void **state)
{
	int fd = dup(STDOUT_FILENO);

	close(fd);
	errno = EPIPE;
	assert_int_equal(sd_fd_raise(fd), fd);
	assert_int_equal(errno, EPIPE);
}

/* The upper half of what there is. */
static void raise__small_limit(void **state)
{
	int fd;

	limit_to(200);
	fd = raised();
	assert_in_range(fd, 100, 199);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	close(fd);
}

/* A descriptor that finds no place above stays where it is, and works. */
static void raise__no_room(void **state)
{
	bool mine[64] = {false};
	int p[2], fd, kept;
	char c = 0;

	limit_to(64);
	assert_int_equal(pipe(p), 0);
	assert_in_range(p[1], 0, 31);
	for (int i = 32; i < 64; i++)
		if (!is_open(i))
			mine[i] = dup2(p[0], i) == i;
	errno = EPIPE;
	fd = sd_fd_raise(p[1]);
	kept = errno;
	for (int i = 32; i < 64; i++)
		if (mine[i])
			close(i);
	assert_int_equal(fd, p[1]);
	assert_int_equal(kept, EPIPE);
	assert_int_equal(write(fd, "x", 1), 1);
	assert_int_equal(read(p[0], &c, 1), 1);
	close(p[0]);
	close(p[1]);
}

/* The limit was lowered below what is open already. */
static void raise__above_the_limit(void **state)
{
	int p[2], fd, kept;

	assert_int_equal(pipe(p), 0);
	limit_to(0);
	errno = EPIPE;
	fd = sd_fd_raise(p[0]);
	kept = errno;
	limit_to(saved.rlim_cur);
	assert_int_equal(fd, p[0]);
	assert_int_equal(kept, EPIPE);
	assert_true(is_open(p[0]));
	close(p[0]);
	close(p[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(raise__high_and_close_on_exec, setup, teardown),
		cmocka_unit_test_setup_teardown(raise__not_higher_than_needed, setup, teardown),
		cmocka_unit_test_setup_teardown(raise__high_already, setup, teardown),
		cmocka_unit_test_setup_teardown(raise__passes_errors_through, setup, teardown),
		cmocka_unit_test_setup_teardown(raise__not_open, setup, teardown),
		cmocka_unit_test_setup_teardown(raise__small_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(raise__no_room, setup, teardown),
		cmocka_unit_test_setup_teardown(raise__above_the_limit, setup, teardown),
	};

	return cmocka_run_group_tests_name("fd", tests, NULL, NULL);
}
