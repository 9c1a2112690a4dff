/* SPDX-License-Identifier: BSD-3-Clause */
/* The log: levels, sinks, whole lines, errno, and the budget of lines, with a clock that the tests set. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"

#define BUDGET 50

static uint64_t now = 1000 * SD_S;

/* In place of the library's: the second that the budget is about goes by when a test says so. */
uint64_t sd_clock_ns(void)
{
	return now;
}

static struct {
	unsigned lines;
	enum sd_log_level level;
	char line[2048];
	char before[2048]; /* the last line but one */
} got;

static void sink(void *ctx, enum sd_log_level level, const char *line)
{
	assert_ptr_equal(ctx, &got);
	assert_true(strlen(line) < sizeof got.line);
	got.lines++;
	got.level = level;
	strcpy(got.before, got.line);
	strcpy(got.line, line);
	errno = ENOTTY;
}

/* A new budget, nothing dropped and nothing received. */
static int setup(void **state)
{
	sd_log_open(SD_LOG_DEBUG, sink, &got);
	now += 2 * SD_S;
	for (int l = SD_LOG_NOTICE; l <= SD_LOG_DEBUG; l++)
		sd_log(l, "a note of what the last test dropped comes before this");
	now += 2 * SD_S;
	sd_log_open(SD_LOG_INFO, sink, &got);
	memset(&got, 0, sizeof got);
	return 0;
}

static void log__level(void **state)
{
	for (int level = SD_LOG_ERROR; level <= SD_LOG_DEBUG; level++) {
		sd_log_open(level, sink, &got);
		for (int l = SD_LOG_NOTICE; l <= SD_LOG_DEBUG; l++) {
			unsigned before = got.lines;

			assert_int_equal(sd_log_enabled(l), l <= level);
			sd_log(l, "%d at %d", l, level);
			assert_int_equal(got.lines - before, l <= level);
			if (l <= level)
				assert_int_equal(got.level, l);
		}
	}
}

static void log__macros(void **state)
{
	int evaluated = 0;

	sd_notice("%s %d", "zero", 0);
	assert_string_equal(got.line, "zero 0");
	assert_int_equal(got.level, SD_LOG_NOTICE);
	sd_error("%s %d", "one", 1);
	assert_string_equal(got.line, "one 1");
	assert_int_equal(got.level, SD_LOG_ERROR);
	sd_warn("two");
	assert_int_equal(got.level, SD_LOG_WARN);
	sd_info("three");
	assert_int_equal(got.level, SD_LOG_INFO);
	sd_debug("%d", ++evaluated);
	assert_int_equal(evaluated, 0); /* costs nothing while it is off */
	assert_int_equal(got.lines, 4);
	sd_log_open(SD_LOG_DEBUG, sink, &got);
	sd_debug("%d", ++evaluated);
	assert_int_equal(evaluated, 1);
	assert_int_equal(got.level, SD_LOG_DEBUG);
}

static void log__one_line_each(void **state)
{
	char text[3000];

	sd_info("a\nb\n\nc\n");
	assert_int_equal(got.lines, 1);
	assert_string_equal(got.line, "a b  c ");
	memset(text, 'x', sizeof text - 1);
	text[sizeof text - 1] = '\0';
	sd_info("%s", text);
	assert_int_equal(strlen(got.line), 1023);
	assert_int_equal(strspn(got.line, "x"), 1023);
}

static void log__errno_kept(void **state)
{
	errno = EPIPE;
	sd_info("the sink sets errno");
	assert_int_equal(errno, EPIPE);
	errno = EPIPE;
	sd_debug("off");
	assert_int_equal(errno, EPIPE);
	for (unsigned i = 0; i < BUDGET + 5; i++) {
		errno = (int)i;
		sd_info("with a budget and without");
		assert_int_equal(errno, i);
	}
	now += SD_S;
	errno = EPIPE;
	sd_info("with a note before it");
	assert_int_equal(errno, EPIPE);
}

static void log__budget(void **state)
{
	for (unsigned i = 0; i < BUDGET; i++)
		sd_info("line %u", i);
	assert_int_equal(got.lines, BUDGET);
	for (unsigned i = 0; i < 10; i++)
		sd_info("too many");
	now += SD_S - 1;
	sd_info("too early");
	assert_int_equal(got.lines, BUDGET);
	assert_string_equal(got.line, "line 49");
	now++;
	sd_info("the next second");
	assert_int_equal(got.lines, BUDGET + 2);
	assert_string_equal(got.before, "11 messages dropped");
	assert_string_equal(got.line, "the next second");
}

static void log__budget_anew(void **state)
{
	for (unsigned second = 0; second < 3; second++) {
		got.lines = 0;
		for (unsigned i = 0; i < BUDGET + 3; i++)
			sd_info("x");
		assert_int_equal(got.lines, BUDGET + (second ? 1 : 0)); /* one of them the note */
		now += SD_S;
	}
	sd_info("this takes the last note");
	now += SD_S;
	got.lines = 0;
	sd_info("nothing was dropped");
	assert_int_equal(got.lines, 1);
}

/* A library that has much to say on debug does not cost a word of what a person has to know. */
static void log__budget_of_each_level(void **state)
{
	sd_log_open(SD_LOG_DEBUG, sink, &got);
	for (unsigned i = 0; i < 2 * BUDGET; i++)
		sd_debug("chatter");
	for (int l = SD_LOG_NOTICE; l < SD_LOG_DEBUG; l++) {
		sd_log(l, "said on %d", l);
		assert_int_equal(got.level, l);
	}
	assert_int_equal(got.lines, BUDGET + 4);
}

/* What the level drops is not counted. */
static void log__budget_for_written_lines(void **state)
{
	for (unsigned i = 0; i < 2 * BUDGET; i++)
		sd_log(SD_LOG_DEBUG, "off");
	for (unsigned i = 0; i < BUDGET; i++)
		sd_info("on");
	assert_int_equal(got.lines, BUDGET);
	now += SD_S;
	sd_info("on");
	assert_int_equal(got.lines, BUDGET + 1);
}

/* Two threads may read the clock in one order and take their lines in the other. */
static void log__budget_with_late_readers(void **state)
{
	for (unsigned i = 0; i < BUDGET; i++)
		sd_info("x");
	now--;
	for (unsigned i = 0; i < BUDGET; i++)
		sd_info("read the clock before the second began");
	assert_int_equal(got.lines, BUDGET);
}

/* What one message writes to standard error. */
static size_t to_stderr(const char *message, char *out, size_t size)
{
	int p[2], saved = dup(STDERR_FILENO);
	ssize_t n;

	assert_int_equal(pipe2(p, O_NONBLOCK), 0);
	dup2(p[1], STDERR_FILENO);
	errno = EPIPE;
	sd_error("%s", message);
	n = errno == EPIPE ? 0 : -1;
	dup2(saved, STDERR_FILENO);
	assert_int_equal(n, 0);
	n = read(p[0], out, size);
	close(p[0]);
	close(p[1]);
	close(saved);
	assert_true(n >= 0);
	return (size_t)n;
}

static void log__standard_error(void **state)
{
	static const char expected[] = "sandirect: it broke\n";
	char out[4096], text[3000];
	size_t n;

	sd_log_open(SD_LOG_WARN, NULL, NULL);
	n = to_stderr("it broke", out, sizeof out);
	assert_int_equal(n, strlen(expected));
	assert_memory_equal(out, expected, n);
	memset(text, 'x', sizeof text - 1);
	text[sizeof text - 1] = '\0';
	n = to_stderr(text, out, sizeof out);
	assert_int_equal(n, strlen("sandirect: ") + 1023 + 1);
	assert_int_equal(out[n - 1], '\n');
	assert_int_equal(got.lines, 0);
}

/* Descriptor 2 may be closed, or a full pipe's: no message, and no harm. */
static void log__standard_error_closed(void **state)
{
	int saved = dup(STDERR_FILENO), kept;

	sd_log_open(SD_LOG_WARN, NULL, NULL);
	close(STDERR_FILENO);
	errno = EPIPE;
	sd_error("nobody hears this");
	kept = errno;
	dup2(saved, STDERR_FILENO);
	close(saved);
	assert_int_equal(kept, EPIPE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(log__level, setup),
		cmocka_unit_test_setup(log__macros, setup),
		cmocka_unit_test_setup(log__one_line_each, setup),
		cmocka_unit_test_setup(log__errno_kept, setup),
		cmocka_unit_test_setup(log__budget, setup),
		cmocka_unit_test_setup(log__budget_anew, setup),
		cmocka_unit_test_setup(log__budget_of_each_level, setup),
		cmocka_unit_test_setup(log__budget_for_written_lines, setup),
		cmocka_unit_test_setup(log__budget_with_late_readers, setup),
		cmocka_unit_test_setup(log__standard_error, setup),
		cmocka_unit_test_setup(log__standard_error_closed, setup),
	};

	return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
