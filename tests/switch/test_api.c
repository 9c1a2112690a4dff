/* SPDX-License-Identifier: BSD-3-Clause */
/* sandirect.h, as a linked program uses it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "loopback.h"
#include "switch/sandirect.h"

static void paths(void **state)
{
	int san[2], kernel[2];

	loopback_pair(SAN, san);
	loopback_pair(KERNEL, kernel);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(sandirect_path(san[i]), SANDIRECT_SAN);
		assert_string_equal(sandirect_reason(san[i]), "LOOP");
		assert_int_equal(sandirect_path(kernel[i]), SANDIRECT_TCP);
		assert_string_not_equal(sandirect_reason(kernel[i]), "LOOP");
		close(san[i]);
		close(kernel[i]);
	}
}

static void unconnected(void **state)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(sandirect_path(fd), SANDIRECT_TCP);
	assert_string_equal(sandirect_reason(fd), "NOT_YET");
	close(fd);
}

static void errors(void **state)
{
	int ends[2];

	assert_int_equal(pipe(ends), 0);
	errno = 0;
	assert_int_equal(sandirect_path(ends[0]), -1);
	assert_int_equal(errno, ENOTSOCK);
	close(ends[0]);
	close(ends[1]);
	errno = 0;
	assert_int_equal(sandirect_path(ends[0]), -1);
	assert_int_equal(errno, EBADF);
	assert_null(sandirect_reason(-1));
	assert_int_equal(errno, EBADF);
}

static void version(void **state)
{
	assert_non_null(sandirect_version());
	assert_true(sandirect_version()[0] >= '0' && sandirect_version()[0] <= '9');
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(paths),
		cmocka_unit_test(unconnected),
		cmocka_unit_test(errors),
		cmocka_unit_test(version),
	};

	loopback_begin();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
