/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * clock: CLOCK_MONOTONIC extrapolated from the cycle counter. The line (anchor, slope) is measured against
 * the kernel's clock at the first use and again after 2 ms, 16 ms, 128 ms, then every second; in between a
 * call costs one rdtsc and a multiplication. A new line starts where the old one is and aims at the kernel's
 * time one interval ahead, so readers see neither a step back nor a drift. The two slots make a latch: the
 * writer fills the one that nobody reads and then publishes its number, so a reader never waits for a writer
 * (which may have been lost in a fork).
 */
#include "base/clock.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

static uint64_t kernel_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * SD_S + ts.tv_nsec;
}

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/prctl.h>
#include <x86intrin.h>

#define FIRST_INTERVAL (2 * SD_MS)
#define LAST_INTERVAL  SD_S
#define SHIFT	       32 /* slopes are ns per cycle in 32.32 fixed point */

struct line {
	_Atomic uint64_t tsc, ns, slope, cycles; /* valid for this many cycles */
};

enum { UNKNOWN, KERNEL, MEASURING, COUNTER };

static struct line slots[2];
static _Atomic unsigned generation; /* the low bit names the slot in use */
static _Atomic int mode;
static atomic_flag updating = ATOMIC_FLAG_INIT;
static uint64_t first_tsc, first_ns, first_width; /* written before mode leaves UNKNOWN */
static uint64_t interval, last_slope, last_doubt; /* owned by whoever holds updating */

/*
 * A reading of the kernel's clock, and the counter's before and after it: the tightest of a few tries,
 * because we may be preempted between them.
 *
 * Callers are told the kernel's time until there is a line, some of them late. So that none of them sees a
 * step back, the first line is never behind that time: it begins with the counter from before a reading, and
 * is as steep as if the very first reading had been made with the counter from after it.
 */
static void read_pair(uint64_t *before, uint64_t *ns, uint64_t *after)
{
	uint64_t best = UINT64_MAX;

	for (int i = 0; i < 4; i++) {
		uint64_t a = __rdtsc(), t = kernel_ns(), b = __rdtsc();

		if (b - a < best) {
			best = b - a;
			*before = a;
			*ns = t;
			*after = b;
		}
	}
}

static uint64_t line_at(const struct line *l, uint64_t tsc)
{
	uint64_t delta = tsc - atomic_load_explicit(&l->tsc, memory_order_relaxed);
	uint64_t slope = atomic_load_explicit(&l->slope, memory_order_relaxed);

	if ((int64_t)delta < 0)
		delta = 0;
	return atomic_load_explicit(&l->ns, memory_order_relaxed) +
	       (uint64_t)((unsigned __int128)delta * slope >> SHIFT);
}

static void publish(uint64_t tsc, uint64_t ns, uint64_t slope, uint64_t cycles)
{
	unsigned g = atomic_load_explicit(&generation, memory_order_relaxed) + 1;
	struct line *l = &slots[g & 1];

	atomic_thread_fence(memory_order_seq_cst);
	atomic_store_explicit(&l->tsc, tsc, memory_order_relaxed);
	atomic_store_explicit(&l->ns, ns, memory_order_relaxed);
	atomic_store_explicit(&l->slope, slope, memory_order_relaxed);
	atomic_store_explicit(&l->cycles, cycles, memory_order_relaxed);
	atomic_store_explicit(&generation, g, memory_order_release);
}

/* Measured since the first use; 0: makes no sense. */
static uint64_t true_slope(uint64_t tsc, uint64_t ns)
{
	if (tsc <= first_tsc || ns <= first_ns)
		return 0;
	return (uint64_t)(((unsigned __int128)(ns - first_ns) << SHIFT) / (tsc - first_tsc));
}

/* How much that may be off, as the readings took this many cycles. */
static uint64_t doubt_of(uint64_t slope, uint64_t tsc, uint64_t width)
{
	return (uint64_t)((unsigned __int128)slope * (first_width + width) / (tsc - first_tsc));
}

static bool near(uint64_t a, uint64_t b, uint64_t doubt)
{
	return (a > b ? a - b : b - a) <= b / 128 + doubt;
}

/* The slope that leads from `from` now to the kernel's time one interval ahead, at most a tenth off the true
 * one. */
static uint64_t aim(uint64_t slope, uint64_t from, uint64_t target)
{
	int64_t behind = (int64_t)(target - from), most = (int64_t)(interval / 10);

	if (behind > most)
		behind = most;
	if (behind < -most)
		behind = -most;
	return slope + (int64_t)((__int128)slope * behind / (int64_t)interval);
}

static void update(void)
{
	uint64_t tsc = 0, ns = 0, after = 0, slope, doubt, at;
	bool first = mode == MEASURING;

	read_pair(&tsc, &ns, &after);
	slope = true_slope(tsc, ns);
	doubt = slope ? doubt_of(slope, tsc, after - tsc) : 0;
	if (!slope || (!first && !near(slope, last_slope, doubt + last_doubt))) {
		mode = KERNEL; /* the counter was reset or changed its rate: it is not what it claims to be */
		return;
	}
	last_slope = slope;
	last_doubt = doubt;
	at = first ? ns : line_at(&slots[generation & 1], tsc);
	if (!first && interval < LAST_INTERVAL)
		interval = interval * 8 < LAST_INTERVAL ? interval * 8 : LAST_INTERVAL;
	if (at + SD_MS < ns)
		at = ns; /* the machine or this process slept: forward at once */
	publish(tsc, at, aim(slope, at, ns), (uint64_t)(((unsigned __int128)interval << SHIFT) / slope));
	if (first)
		mode = COUNTER;
}

static void try_update(void)
{
	if (atomic_flag_test_and_set_explicit(&updating, memory_order_acquire))
		return;
	update();
	atomic_flag_clear_explicit(&updating, memory_order_release);
}

/* Forked in the middle of another thread's update: that thread is not here to end it. */
static void unlock_child(void)
{
	atomic_flag_clear(&updating);
}

static bool counter_usable(void)
{
	unsigned a, b, c, d;
	int tsc = 0;

	if (!__get_cpuid(0x80000007, &a, &b, &c, &d) || !(d & 1u << 8))
		return false; /* stops or changes its rate */
	return prctl(PR_GET_TSC, &tsc) || tsc == PR_TSC_ENABLE;
}

static void start(void)
{
	uint64_t before = 0;

	if (!counter_usable() || pthread_atfork(NULL, NULL, unlock_child)) {
		mode = KERNEL;
		return;
	}
	interval = FIRST_INTERVAL;
	read_pair(&before, &first_ns, &first_tsc);
	first_width = first_tsc - before;
	mode = MEASURING;
}

/* Before there is a line: the kernel's clock, and the line once enough time has gone by to measure it. */
static uint64_t slow_ns(int m)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	if (m == UNKNOWN)
		pthread_once(&once, start);
	else if (m == MEASURING && kernel_ns() - first_ns >= FIRST_INTERVAL)
		try_update();
	return kernel_ns();
}

uint64_t sd_clock_ns(void)
{
	int m = atomic_load_explicit(&mode, memory_order_acquire);
	unsigned g;
	uint64_t now, tsc, age;

	if (__builtin_expect(m != COUNTER, 0))
		return slow_ns(m);
	do {
		const struct line *l;

		g = atomic_load_explicit(&generation, memory_order_acquire);
		l = &slots[g & 1];
		tsc = __rdtsc();
		now = line_at(l, tsc);
		age = tsc - atomic_load_explicit(&l->tsc, memory_order_relaxed);
		if (__builtin_expect(age > atomic_load_explicit(&l->cycles, memory_order_relaxed), 0))
			try_update();
		atomic_thread_fence(memory_order_acquire);
	} while (__builtin_expect(g != atomic_load_explicit(&generation, memory_order_relaxed), 0));
	return now;
}

#else

uint64_t sd_clock_ns(void)
{
	return kernel_ns();
}

#endif
