/* SPDX-License-Identifier: BSD-3-Clause */
/* The clock: never back, and near the kernel's. No test depends on when this process runs. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/rng.h"

/* It is a microsecond off the kernel's at most, usually; a wrong slope shows after a few of the pauses below.
 */
#define NEAR (5 * SD_MS)

static bool slow;
static unsigned late, quick; /* so many readings are late, then so many are not, */
static unsigned then_ms;     /* and the next one comes after a pause */
static uint64_t jump;	     /* that the kernel's clock has made */
static struct sd_rng rng;

static uint64_t kernel_ns(void)
{
	struct timespec ts;

	syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * SD_S + (uint64_t)ts.tv_nsec + jump;
}

static void dawdle(void)
{
	for (volatile unsigned i = 0; i < 20000; i++)
		;
}

/* In place of the C library's: a kernel's clock that may jump, and that may be read late or return late, as
 * when the processor is taken away in between. */
int clock_gettime(clockid_t id, struct timespec *ts)
{
	unsigned when = slow ? (unsigned)sd_rng_below(&rng, 10) : 0;
	uint64_t ns;

	if (id != CLOCK_MONOTONIC)
		return (int)syscall(SYS_clock_gettime, id, ts);
	if (when > 5 || late)
		dawdle();
	if (late)
		late--;
	else if (quick && !--quick)
		usleep(then_ms * 1000);
	ns = kernel_ns();
	if (when && when <= 5)
		dawdle();
	ts->tv_sec = (time_t)(ns / SD_S);
	ts->tv_nsec = (long)(ns % SD_S);
	return 0;
}

/* By how much it goes back, at worst, in this long. */
static uint64_t step_back(uint64_t duration)
{
	uint64_t last = sd_clock_ns(), end = last + duration, worst = 0;

	while (last < end) {
		uint64_t now = sd_clock_ns();

		if (now < last && last - now > worst)
			worst = last - now;
		last = now;
	}
	return worst;
}

static bool agrees(void)
{
	uint64_t before = kernel_ns(), now = sd_clock_ns(), after = kernel_ns();

	return now + NEAR >= before && now <= after + NEAR;
}

static void pause_ms(unsigned ms)
{
	usleep(ms * 1000);
}

/* In processes that have not used it yet: the kernel's clock at first, its own line after two milliseconds,
 * and the next one, which may know better, after two more. */
static void clock__never_goes_back_at_the_start(void **state)
{
	for (unsigned i = 0; i < 100; i++) {
		pid_t child = fork();
		int status;

		if (!child) {
			bool back;

			sd_rng_seed(&rng, i);
			slow = i % 4 != 0;
			back = step_back(3 * SD_MS) != 0;
			slow = false;
			_exit(back || step_back(4 * SD_MS));
		}
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_true(WIFEXITED(status));
		if (WEXITSTATUS(status))
			fail_msg("process %u saw the clock go back", i);
	}
}

/* The first reading was late, so that the line seems less steep than it is, and the process sleeps between
 * drawing it and being told the kernel's time for the last time. */
static void clock__is_not_behind_what_was_told(void **state)
{
	pid_t child = fork();
	int status;

	if (!child) {
		uint64_t told;

		late = 4;
		sd_clock_ns();
		usleep(2500);
		quick = 6; /* one to see that it is time, four to measure */
		then_ms = 10;
		told = sd_clock_ns();
		_exit(sd_clock_ns() < told);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* A counter that does not count what it did (the machine was moved, say) does not lead away for long. */
static void clock__follows_the_kernel(void **state)
{
	pid_t child = fork();
	int status;

	if (!child) {
		uint64_t end;
		bool back = step_back(20 * SD_MS);

		jump = 50 * SD_MS;
		end = kernel_ns() + 10 * SD_S;
		while (!agrees() && kernel_ns() < end)
			back |= step_back(SD_MS) != 0;
		_exit(back || !agrees());
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void clock__never_goes_back(void **state)
{
	assert_int_equal(step_back(60 * SD_MS), 0);
	pause_ms(200); /* longer than its line was drawn for */
	assert_int_equal(step_back(60 * SD_MS), 0);
}

static void *thread_steps_back(void *worst)
{
	*(uint64_t *)worst = step_back(100 * SD_MS);
	return NULL;
}

static void clock__never_goes_back_on_any_thread(void **state)
{
	pthread_t threads[4];
	uint64_t worst[4];

	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, thread_steps_back, &worst[i]), 0);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(worst[i], 0);
}

static void clock__agrees_with_the_kernel(void **state)
{
	for (unsigned i = 0; i < 60; i++) {
		assert_true(agrees());
		pause_ms(i % 10);
	}
	pause_ms(600);
	assert_true(agrees());
}

static void clock__units(void **state)
{
	uint64_t start = sd_clock_ns();

	pause_ms(20);
	assert_true(sd_clock_ns() - start >= 20 * SD_MS - NEAR);
	assert_true(SD_US * 1000 == SD_MS && SD_MS * 1000 == SD_S && SD_S == 1000000000);
}

static atomic_bool over;

static void *keep_reading(void *unused)
{
	while (!over)
		sd_clock_ns();
	return NULL;
}

/* A child starts at any moment of another thread's reading. */
static void clock__goes_on_in_a_child(void **state)
{
	pthread_t thread;
	bool good = true;

	assert_int_equal(pthread_create(&thread, NULL, keep_reading, NULL), 0);
	for (unsigned i = 0; i < 50 && good; i++) {
		uint64_t before = sd_clock_ns();
		pid_t child = fork();
		int status;

		if (!child)
			_exit(sd_clock_ns() < before || step_back(2 * SD_MS) || !agrees());
		good = waitpid(child, &status, 0) == child && WIFEXITED(status) && !WEXITSTATUS(status);
	}
	over = true;
	pthread_join(thread, NULL);
	assert_true(good);
}

int main(void)
{
	/* The first two come before anything has read the clock in this process. */
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(clock__never_goes_back_at_the_start),
		cmocka_unit_test(clock__is_not_behind_what_was_told),
		cmocka_unit_test(clock__follows_the_kernel),
		cmocka_unit_test(clock__never_goes_back),
		cmocka_unit_test(clock__never_goes_back_on_any_thread),
		cmocka_unit_test(clock__agrees_with_the_kernel),
		cmocka_unit_test(clock__units),
		cmocka_unit_test(clock__goes_on_in_a_child),
	};

	return cmocka_run_group_tests_name("clock", tests, NULL, NULL);
}
