/* SPDX-License-Identifier: BSD-3-Clause */
/* Streams on connections. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "loopback.h"

static void expect_line(FILE *f, const char *line)
{
	char got[100];

	assert_non_null(fgets(got, sizeof got, f));
	assert_string_equal(got, line);
}

static void lines_both_ways(void **state)
{
	for (enum path p = KERNEL; p <= SAN; p++) {
		int fds[2];
		FILE *in, *out, *both;

		loopback_pair(p, fds);
		in = fdopen(fds[0], "r");
		out = fdopen(dup(fds[0]), "w");
		both = fdopen(fds[1], "r+");
		assert_true(in && out && both);
		assert_int_equal(fprintf(out, "hello %d\n", 1), 8);
		assert_int_equal(fflush(out), 0);
		expect_line(both, "hello 1\n");
		assert_int_equal(fputs("and back\n", both) < 0, 0);
		assert_int_equal(fflush(both), 0);
		expect_line(in, "and back\n");
		assert_int_equal(dprintf(fds[1], "%s\n", "formatted"), 10);
		expect_line(in, "formatted\n");
		assert_int_equal(fclose(both), 0);
		assert_int_equal(fgetc(in), EOF);
		assert_true(feof(in) && !ferror(in));
		assert_int_equal(fclose(in), 0);
		assert_int_equal(fclose(out), 0);
		assert_int_equal(close(fds[0]), -1);
		assert_int_equal(close(fds[1]), -1);
	}
}

static void numbers(void **state)
{
	for (enum path p = KERNEL; p <= SAN; p++) {
		int fds[2];
		FILE *a, *b;

		loopback_pair(p, fds);
		a = fdopen(fds[0], "r");
		b = fdopen(fds[1], "w");
		assert_int_equal(fileno(a), fds[0]);
		assert_int_equal(fileno_unlocked(b), fds[1]);
		assert_int_equal(ftell(a), -1);
		assert_int_equal(errno, ESPIPE);
		assert_null(fdopen(fds[0], "nonsense"));
		assert_int_equal(errno, EINVAL);
		fclose(a);
		fclose(b);
		assert_int_equal(fileno(stdout), 1);
		/* Numbers and streams are free for whatever comes. */
		a = fopen("/dev/null", "r");
		b = fopen("/dev/null", "r");
		assert_in_range(fileno(a), 3, fds[1]);
		assert_in_range(fileno(b), fileno(a) + 1, fds[1]);
		assert_int_equal(fgetc(a), EOF);
		fclose(a);
		fclose(b);
	}
}

/* A stream that is made first and connected later. */
static void before_connect(void **state)
{
	for (enum path p = KERNEL; p <= SAN; p++) {
		int listener = loopback_listen(p), fd = socket(AF_INET, SOCK_STREAM, 0), a;
		FILE *f = fdopen(fd, "w");
		char b[8];

		loopback_connect(listener, fd);
		assert_int_equal(loopback_path(fd), p);
		a = accept(listener, NULL, NULL);
		assert_int_equal(fputs("first", f) < 0, 0);
		assert_int_equal(fclose(f), 0);
		assert_int_equal(read(a, b, sizeof b), 5);
		assert_int_equal(read(a, b, sizeof b), 0);
		close(a);
		close(listener);
	}
}

#define BULK (2u << 20)

static void *write_bulk(void *arg)
{
	FILE *f = arg;

	for (unsigned i = 0; i < BULK / 4; i++)
		fwrite(&i, sizeof i, 1, f);
	return (void *)(intptr_t)fclose(f);
}

static void bulk(void **state)
{
	for (enum path p = KERNEL; p <= SAN; p++) {
		int fds[2];
		unsigned n, got = 0;
		pthread_t t;
		void *closed;
		FILE *in;

		loopback_pair(p, fds);
		in = fdopen(fds[1], "r");
		pthread_create(&t, NULL, write_bulk, fdopen(fds[0], "w"));
		while (fread(&n, sizeof n, 1, in) == 1)
			assert_int_equal(n, got++);
		assert_int_equal(got, BULK / 4);
		pthread_join(t, &closed);
		assert_null(closed);
		fclose(in);
	}
}

static void other_files(void **state)
{
	int p[2];
	FILE *f;

	assert_int_equal(pipe(p), 0);
	f = fdopen(p[0], "r");
	assert_int_equal(dprintf(p[1], "%d\n", 42), 3);
	expect_line(f, "42\n");
	fclose(f);
	close(p[1]);
	assert_null(fdopen(p[1], "r"));
	assert_int_equal(errno, EBADF);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines_both_ways),
		cmocka_unit_test(numbers),
		cmocka_unit_test(before_connect),
		cmocka_unit_test(bulk),
		cmocka_unit_test(other_files),
	};

	loopback_begin();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
