/* SPDX-License-Identifier: BSD-3-Clause */
/* CRC32C: published values, and every implementation against the portable one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

/* The source and not the header: the processor takes one implementation, and the others are to be tested too.
 */
#include "base/crc32c.c"
#include "base/rng.h"

typedef uint32_t implementation(uint32_t crc, const void *data, size_t len);

static const struct {
	const char *name;
	implementation *crc;
} all[] = {
	{"portable", sd_crc32c_portable},
	{"chosen", sd_crc32c},
#if defined(__x86_64__)
	{"three-way", crc_three_way},
	{"fold", crc_fold},
#endif
};

#define N (sizeof all / sizeof *all)

static uint8_t data[16384];

static bool usable(unsigned i)
{
#if defined(__x86_64__)
	if (all[i].crc == crc_three_way)
		return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul");
	if (all[i].crc == crc_fold)
		return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
		       __builtin_cpu_supports("vpclmulqdq");
#endif
	return true;
}

static void expect(const void *p, size_t len, uint32_t crc)
{
	for (unsigned i = 0; i < N; i++)
		if (usable(i) && all[i].crc(0, p, len) != crc)
			fail_msg("%s, %zu bytes: %08x and not %08x", all[i].name, len, all[i].crc(0, p, len),
				crc);
}

static void expect_same(uint32_t start, const uint8_t *p, size_t len)
{
	uint32_t crc = sd_crc32c_portable(start, p, len);

	for (unsigned i = 1; i < N; i++)
		if (usable(i) && all[i].crc(start, p, len) != crc)
			fail_msg("%s, %zu bytes at %zu: %08x and not %08x", all[i].name, len,
				(size_t)((uintptr_t)p % 64), all[i].crc(start, p, len), crc);
}

/* RFC 3720 appendix B.4 (which prints the bytes in the order of transmission), and the usual check value. */
static void crc__published(void **state)
{
	static const uint8_t read_command[48] = {[0] = 0x01,
		[1] = 0xc0,
		[16] = 0x14,
		[22] = 0x04,
		[27] = 0x14,
		[31] = 0x18,
		[32] = 0x28,
		[40] = 0x02};
	uint8_t b[32];

	expect(NULL, 0, 0);
	expect("123456789", 9, 0xe3069283);
	memset(b, 0, sizeof b);
	expect(b, sizeof b, 0x8a9136aa);
	memset(b, 0xff, sizeof b);
	expect(b, sizeof b, 0x62a8ab43);
	for (unsigned i = 0; i < sizeof b; i++)
		b[i] = i;
	expect(b, sizeof b, 0x46dd794e);
	for (unsigned i = 0; i < sizeof b; i++)
		b[i] = sizeof b - 1 - i;
	expect(b, sizeof b, 0x113fdb5c);
	expect(read_command, sizeof read_command, 0xd9963a56);
}

static void crc__chains(void **state)
{
	static const size_t lengths[] = {0, 1, 7, 8, 255, 256, 257, 1000, sizeof data};

	for (unsigned n = 0; n < sizeof lengths / sizeof *lengths; n++) {
		size_t len = lengths[n];
		uint32_t whole = sd_crc32c_portable(0, data, len);

		for (size_t cut = 0; cut <= len; cut += 1 + len / 37)
			for (unsigned i = 0; i < N; i++)
				if (usable(i))
					assert_int_equal(
						all[i].crc(all[i].crc(0, data, cut), data + cut, len - cut),
						whole);
	}
}

static void crc__same_at_every_alignment(void **state)
{
	for (size_t at = 0; at < 16; at++)
		for (size_t len = 0; len <= 300; len++)
			expect_same((uint32_t)(at * 0x9e3779b9), data + at, len);
}

/* Around the strides of the implementations, and what packets and reads have. */
static void crc__same_for_long_buffers(void **state)
{
	static const size_t lengths[] = {512, 768, 1024, 1460, 1536, 2304, 4096, 8192, 8960, 9000, 16000};

	for (unsigned n = 0; n < sizeof lengths / sizeof *lengths; n++)
		for (size_t len = lengths[n] - 9; len <= lengths[n] + 9; len++)
			for (size_t at = 0; at < 4; at++)
				expect_same(0x12345678, data + at, len);
}

/* Behind the last byte there is no memory. */
static void crc__stays_inside(void **state)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint8_t *p = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	assert_int_equal(mprotect(p + page, page, PROT_NONE), 0);
	memcpy(p, data, page);
	for (size_t len = 0; len <= 1100; len++)
		expect_same(0, p + page - len, len);
	munmap(p, 2 * page);
}

/* A CRC finds every burst of up to 32 bits: a fortiori one wrong bit anywhere. */
static void crc__every_bit_counts(void **state)
{
	static const size_t lengths[] = {1, 9, 64, 300, 1000};
	uint8_t copy[1000];

	memcpy(copy, data, sizeof copy);
	for (unsigned n = 0; n < sizeof lengths / sizeof *lengths; n++) {
		uint32_t good = sd_crc32c(0, copy, lengths[n]);

		for (size_t bit = 0; bit < lengths[n] * 8; bit++) {
			copy[bit / 8] ^= 1u << bit % 8;
			if (sd_crc32c(0, copy, lengths[n]) == good)
				fail_msg("bit %zu of %zu bytes makes no difference", bit, lengths[n]);
			copy[bit / 8] ^= 1u << bit % 8;
		}
	}
}

static int group_setup(void **state)
{
	struct sd_rng rng;

	sd_rng_seed(&rng, 3720);
	for (size_t i = 0; i < sizeof data; i++)
		data[i] = (uint8_t)sd_rng_next(&rng);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(crc__published),
		cmocka_unit_test(crc__chains),
		cmocka_unit_test(crc__same_at_every_alignment),
		cmocka_unit_test(crc__same_for_long_buffers),
		cmocka_unit_test(crc__stays_inside),
		cmocka_unit_test(crc__every_bit_counts),
	};

#if defined(__x86_64__)
	__builtin_cpu_init();
#endif
	return cmocka_run_group_tests_name("crc32c", tests, group_setup, NULL);
}
