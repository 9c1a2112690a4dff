/* SPDX-License-Identifier: BSD-3-Clause */
/* The arena and the byte ring. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/rng.h"
#include "provider/arena.h"
#include "provider/bytering.h"

#define BLOCKS 400

/* --- arena --- */

static bool is_filled(const uint8_t *p, size_t len, uint8_t with)
{
	return !len || (p[0] == with && !memcmp(p, p + 1, len - 1));
}

/* Blocks of all sizes come and go; each begins zeroed and keeps what is written to it. */
static void arena__blocks_are_zeroed_and_apart(void **state)
{
	struct arena a = {0};
	uint8_t *block[BLOCKS] = {NULL};
	size_t size[BLOCKS] = {0}, align;
	struct sd_rng r;

	sd_rng_seed(&r, 1);
	for (unsigned i = 0; i < 20000; i++) {
		unsigned k = sd_rng_below(&r, BLOCKS);

		if (block[k]) {
			assert_true(is_filled(block[k], size[k], k));
			arena_free(&a, block[k], size[k]);
			block[k] = NULL;
			continue;
		}
		size[k] = 1 + sd_rng_below(&r, 1u << (1 + sd_rng_below(&r, 17)));
		block[k] = arena_alloc(&a, size[k]);
		assert_non_null(block[k]);
		for (align = 1; align * 2 <= size[k] && align < 4096;)
			align *= 2;
		assert_int_equal((uintptr_t)block[k] % align, 0);
		assert_true(is_filled(block[k], size[k], 0));
		memset(block[k], k, size[k]);
	}
	for (unsigned k = 0; k < BLOCKS; k++) {
		assert_true(!block[k] || is_filled(block[k], size[k], k));
		if (block[k])
			arena_free(&a, block[k], size[k]);
	}
	assert_int_equal(a.in_use, 0);
	arena_close(&a);
}

static bool is_resident(const void *page)
{
	unsigned char in = 0;

	assert_int_equal(mincore((void *)page, 4096, &in), 0);
	return in & 1;
}

/* What was idle is there, and reads and writes as ever. */
static void arena__idle_blocks(void **state)
{
	struct arena a = {0};
	char *before = arena_alloc(&a, 4096), *p = arena_alloc(&a, 16384), *after = arena_alloc(&a, 4096);

	memset(before, 1, 4096);
	memset(p, 2, 16384);
	memset(after, 3, 4096);
	arena_idle(p, 16384);
	for (unsigned i = 0; i < 16384; i += 4096)
		assert_false(is_resident(p + i));
	memset(p, 4, 16384);
	for (unsigned i = 0; i < 4096; i++)
		assert_true(before[i] == 1 && p[i] == 4 && p[4 * i] == 4 && after[i] == 3);
	/* Less than a page is left alone. */
	arena_idle(p + 1, 4096 + 4094);
	assert_true(p[0] == 4 && p[4095] == 4 && p[8192] == 4);
	arena_close(&a);
}

/* Connections and their rings, one after the other: when the rings are idle, what is left is the connections.
 */
static void arena__small_blocks_lie_together(void **state)
{
	enum { N = 400, SMALL = 1024, RING = 16384 };
	struct arena a = {0};
	char *small[N], *ring[N];
	unsigned pages = 1;

	for (unsigned i = 0; i < N; i++) {
		small[i] = arena_alloc(&a, SMALL);
		ring[i] = arena_alloc(&a, RING);
		memset(small[i], 1, SMALL);
		memset(ring[i], 2, RING);
	}
	for (unsigned i = 0; i < N; i++)
		arena_idle(ring[i], RING);
	for (unsigned i = 1; i < N; i++)
		pages += (uintptr_t)small[i] / 4096 != (uintptr_t)small[i - 1] / 4096;
	assert_true(pages * 4096 < 2 * N * SMALL);
	for (unsigned i = 0; i < N; i++) {
		for (unsigned k = 0; k < SMALL; k++)
			assert_int_equal(small[i][k], 1);
	}
	arena_close(&a);
}

/* Is p in memory for which large pages have been asked for? */
static bool is_in_large_pages(const void *p)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	bool here = false, large = false;
	char line[512];

	assert_non_null(f);
	while (fgets(line, sizeof line, f)) {
		unsigned long from, to;

		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			here = (uintptr_t)p >= from && (uintptr_t)p < to;
		else if (here && !strncmp(line, "VmFlags:", 8))
			large = strstr(line, " hg") != NULL;
	}
	fclose(f);
	return large;
}

/* Few small blocks are in small pages, and what is idle one day always. */
static void arena__what_there_is_much_of_is_in_large_pages(void **state)
{
	enum { SMALL = 1000, RING = 16384, N = 4096 };
	struct arena a = {0};
	char *small = arena_alloc(&a, SMALL), *ring, *big = arena_alloc(&a, 3 << 20);

	assert_false(is_in_large_pages(small));
	if (madvise((void *)((uintptr_t)small & ~(uintptr_t)4095), 4096, MADV_HUGEPAGE))
		skip(); /* the system has none */
	for (unsigned i = 0; i < N; i++) {
		small = arena_alloc(&a, SMALL);
		ring = arena_alloc(&a, RING);
		memset(small, 1, SMALL);
	}
	assert_true(is_in_large_pages(small));
	assert_false(is_in_large_pages(ring));
	assert_true(is_in_large_pages(big));
	assert_int_equal((uintptr_t)big % (2 << 20), 0);
	arena_free(&a, big, 3 << 20);
	arena_close(&a);
}

static void arena__big_blocks(void **state)
{
	struct arena a = {0};
	uint8_t *p;

	for (size_t size = 1 << 20; size <= 5 << 20; size += (1 << 20) - 1000) {
		p = arena_alloc(&a, size);
		assert_non_null(p);
		assert_int_equal((uintptr_t)p % 4096, 0);
		assert_true(is_filled(p, size, 0));
		assert_true(a.in_use >= size);
		p[size - 1] = 1;
		arena_free(&a, p, size);
		assert_int_equal(a.in_use, 0);
	}
	arena_free(&a, NULL, 100);
	arena_close(&a);
}

static void arena__children_do_not_get_it(void **state)
{
	struct arena a = {0};
	size_t sizes[] = {100, 3 << 20};
	int status;

	for (unsigned i = 0; i < 2; i++) {
		volatile uint8_t *p = arena_alloc(&a, sizes[i]);
		pid_t child = fork();

		if (!child) {
			signal(SIGSEGV, SIG_DFL);
			alarm(10);
			_exit(p[0]);
		}
		waitpid(child, &status, 0);
		assert_false(WIFEXITED(status) && !WEXITSTATUS(status));
		arena_free(&a, (void *)p, sizes[i]);
	}
	arena_close(&a);
}

/* --- byte ring --- */

static void bytering__against_a_model(void **state)
{
	uint8_t memory[256], in[400], out[400];
	struct bytering r = {.data = memory, .size = sizeof memory};
	uint64_t written = 0, read = 0;
	struct sd_rng rng;

	sd_rng_seed(&rng, 2);
	for (unsigned i = 0; i < 100000; i++) {
		size_t len = sd_rng_below(&rng, sizeof in), room = sizeof memory - (written - read), n, skip;

		assert_int_equal(bytering_used(&r), written - read);
		assert_int_equal(bytering_room(&r), room);
		switch (sd_rng_below(&rng, 3)) {
		case 0:
			for (size_t k = 0; k < len; k++)
				in[k] = (written + k) * 7;
			n = bytering_write(&r, in, len);
			assert_int_equal(n, len < room ? len : room);
			written += n;
			break;
		case 1:
			n = bytering_read(&r, out, len);
			assert_int_equal(n, len < written - read ? len : written - read);
			for (size_t k = 0; k < n; k++)
				assert_int_equal(out[k], (uint8_t)((read + k) * 7));
			read += n;
			break;
		case 2:
			skip = sd_rng_below(&rng, 300);
			n = bytering_peek(&r, out, len, skip);
			assert_true(n <= len && (skip < written - read || n == 0));
			for (size_t k = 0; k < n; k++)
				assert_int_equal(out[k], (uint8_t)((read + skip + k) * 7));
			break;
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(arena__blocks_are_zeroed_and_apart),
		cmocka_unit_test(arena__idle_blocks),
		cmocka_unit_test(arena__small_blocks_lie_together),
		cmocka_unit_test(arena__what_there_is_much_of_is_in_large_pages),
		cmocka_unit_test(arena__big_blocks),
		cmocka_unit_test(arena__children_do_not_get_it),
		cmocka_unit_test(bytering__against_a_model),
	};

	return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
