/* SPDX-License-Identifier: BSD-3-Clause */
/* Reasons are counted in files that other versions read: their numbers and names do not change. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/reason.h"

/* By number. A new reason is added at the end, here and in base/reason.h; none is changed or removed. */
static const char *const names[] = {"SAN", "LOOP", "RULE", "NO_PORT", "NO_ROUTE", "GATEWAY", "LOCAL",
	"PEER_SILENT", "PEER_NO_LISTENER", "PEER_REFUSED", "PEER_VERSION", "PORT_BUSY", "PORT_DOWN",
	"START_FAILED", "LIMIT_NOFILE", "LIMIT_AS", "FORKED", "OPTION", "PEER_TCP", "FASTOPEN", "NO_MEMORY",
	"DISABLED", "NOT_YET", "BACKLOG", "INHERITED", "NO_DAEMON", "LIMIT_USER"};

static void reason__stable(void **state)
{
	assert_int_equal(SD_REASON_COUNT, sizeof names / sizeof *names);
	for (int i = 0; i < SD_REASON_COUNT; i++)
		assert_string_equal(sd_reason_name(i), names[i]);
	assert_int_equal(SD_REASON_SAN, 0);
	assert_int_equal(SD_REASON_PEER_SILENT, 7);
	assert_int_equal(SD_REASON_INHERITED, 24);
	assert_int_equal(SD_REASON_NO_DAEMON, 25);
	assert_int_equal(SD_REASON_LIMIT_USER, 26);
}

/* In the list itself, where a number that is used twice would leave a gap elsewhere or hide a reason. */
static void reason__numbers_in_order(void **state)
{
	static const int numbers[] = {
#define X(n, name, text) n,
		SD_REASONS(X)
#undef X
	};

	assert_int_equal(sizeof numbers / sizeof *numbers, SD_REASON_COUNT);
	for (int i = 0; i < SD_REASON_COUNT; i++)
		assert_int_equal(numbers[i], i);
}

static void reason__unique_and_told(void **state)
{
	for (int i = 0; i < SD_REASON_COUNT; i++) {
		const char *name = sd_reason_name(i), *text = sd_reason_text(i);

		assert_non_null(name);
		assert_non_null(text);
		assert_true(strlen(name) > 0);
		assert_int_equal(strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_"), strlen(name));
		assert_string_not_equal(name, "UNKNOWN");
		assert_true(strlen(text) >= 10);
		assert_null(strpbrk(text, "\n\t"));
		for (int k = 0; k < i; k++) {
			assert_string_not_equal(sd_reason_name(k), name);
			assert_string_not_equal(sd_reason_text(k), text);
		}
	}
}

static void reason__unknown(void **state)
{
	static const int others[] = {
		SD_REASON_COUNT, SD_REASON_COUNT + 1, 255, 65536, INT32_MAX, -1, INT32_MIN};

	for (unsigned i = 0; i < sizeof others / sizeof *others; i++) {
		assert_string_equal(sd_reason_name(others[i]), "UNKNOWN");
		assert_true(strlen(sd_reason_text(others[i])) > 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reason__stable),
		cmocka_unit_test(reason__numbers_in_order),
		cmocka_unit_test(reason__unique_and_told),
		cmocka_unit_test(reason__unknown),
	};

	return cmocka_run_group_tests_name("reason", tests, NULL, NULL);
}
