/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A ping-pong of two processes that do nothing but sleep on futexes and wake each other: what no connection
 * whose both ends sleep can beat.
 *
 * futexbench SECONDS CPU PEER_CPU
 */
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "histogram.h"

/* A line each. */
static struct {
	_Alignas(64) _Atomic uint32_t ping;
	_Alignas(64) _Atomic uint32_t pong;
} * words;

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((unsigned)cpu, &set);
	if (sched_setaffinity(0, sizeof set, &set)) {
		perror("futexbench: CPU");
		exit(1);
	}
}

static void give(_Atomic uint32_t *word, uint32_t value)
{
	atomic_store(word, value);
	syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void await(_Atomic uint32_t *word, uint32_t value)
{
	uint32_t seen;

	while ((seen = atomic_load(word)) != value)
		syscall(SYS_futex, word, FUTEX_WAIT, seen, NULL, NULL, 0);
}

static void answer(int cpu)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	pin(cpu);
	for (uint32_t i = 1;; i++) {
		await(&words->ping, i);
		give(&words->pong, i);
	}
}

int main(int argc, char **argv)
{
	static struct histogram h;
	uint64_t start, end, t;
	pid_t child;

	if (argc != 4) {
		fprintf(stderr, "usage: %s SECONDS CPU PEER_CPU\n", argv[0]);
		return 2;
	}
	words = mmap(NULL, sizeof *words, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	child = words == MAP_FAILED ? -1 : fork();
	if (child < 0) {
		perror("futexbench");
		return 1;
	}
	if (!child)
		answer(atoi(argv[3]));
	pin(atoi(argv[2]));
	end = now() + (uint64_t)(atof(argv[1]) * 1e9);
	for (uint32_t i = 1; (start = now()) < end; i++) {
		give(&words->ping, i);
		await(&words->pong, i);
		t = now();
		histogram_add(&h, t - start);
	}
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	printf("{\"mode\": \"futex\", \"count\": %llu, \"p50_us\": %.3f, \"p99_us\": %.3f}\n",
		(unsigned long long)h.n, (double)histogram_quantile(&h, 0.5) / 1e3,
		(double)histogram_quantile(&h, 0.99) / 1e3);
	return 0;
}
