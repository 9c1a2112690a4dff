/* SPDX-License-Identifier: BSD-3-Clause */
/* SipHash-2-4 against the authors' published values: key 00 01 .. 0f, input 00 01 .. of each length. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/siphash.h"

static const struct sd_sipkey key = {{0x0706050403020100, 0x0f0e0d0c0b0a0908}};
static uint8_t input[64];

static void siphash64__published(void **state)
{
	static const struct {
		size_t len;
		uint64_t hash;
	} t[] = {
		{0, 0x726fdb47dd0e0e31},
		{1, 0x74f839c593dc67fd},
		{2, 0x0d6c8009d9a94f5a},
		{3, 0x85676696d7fb7e2d},
		{4, 0xcf2794e0277187b7},
		{5, 0x18765564cd99a68d},
		{6, 0xcbc9466e58fee3ce},
		{7, 0xab0200f58b01d137},
		{8, 0x93f5f5799a932462},
		{9, 0x9e0082df0ba9e4b0},
		{15, 0xa129ca6149be45e5},
		{16, 0x3f2acc7f57c29bdb},
		{63, 0x958a324ceb064572},
	};

	for (unsigned i = 0; i < sizeof t / sizeof *t; i++)
		if (sd_siphash64(&key, input, t[i].len) != t[i].hash)
			fail_msg("%zu bytes: %016llx", t[i].len,
				(unsigned long long)sd_siphash64(&key, input, t[i].len));
}

static void siphash128__published(void **state)
{
	static const struct {
		size_t len;
		const char *hash;
	} t[] = {
		{0, "\xa3\x81\x7f\x04\xba\x25\xa8\xe6\x6d\xf6\x72\x14\xc7\x55\x02\x93"},
		{1, "\xda\x87\xc1\xd8\x6b\x99\xaf\x44\x34\x76\x59\x11\x9b\x22\xfc\x45"},
		{2, "\x81\x77\x22\x8d\xa4\xa4\x5d\xc7\xfc\xa3\x8b\xde\xf6\x0a\xff\xe4"},
		{7, "\xa1\xf1\xeb\xbe\xd8\xdb\xc1\x53\xc0\xb8\x4a\xa6\x1f\xf0\x82\x39"},
		{8, "\x3b\x62\xa9\xba\x62\x58\xf5\x61\x0f\x83\xe2\x64\xf3\x14\x97\xb4"},
		{9, "\x26\x44\x99\x06\x0a\xd9\xba\xab\xc4\x7f\x8b\x02\xbb\x6d\x71\xed"},
		{15, "\x54\x93\xe9\x99\x33\xb0\xa8\x11\x7e\x08\xec\x0f\x97\xcf\xc3\xd9"},
		{16, "\x6e\xe2\xa4\xca\x67\xb0\x54\xbb\xfd\x33\x15\xbf\x85\x23\x05\x77"},
		{63, "\x51\x50\xd1\x77\x2f\x50\x83\x4a\x50\x3e\x06\x9a\x97\x3f\xbd\x7c"},
	};

	for (unsigned i = 0; i < sizeof t / sizeof *t; i++) {
		uint8_t out[16 + 1];

		out[16] = 0x5a;
		sd_siphash128(&key, input, t[i].len, out);
		if (memcmp(out, t[i].hash, 16))
			fail_msg("%zu bytes hash to another value", t[i].len);
		assert_int_equal(out[16], 0x5a);
	}
}

/* Neither the place of the input nor what lies beside it matters. */
static void siphash__any_alignment(void **state)
{
	uint8_t buf[64 + 16], expected[16], out[16];

	for (size_t len = 0; len < 64; len++) {
		sd_siphash128(&key, input, len, expected);
		for (size_t at = 0; at < 16; at++) {
			memset(buf, (int)(at * 17), sizeof buf);
			memcpy(buf + at, input, len);
			assert_true(sd_siphash64(&key, buf + at, len) == sd_siphash64(&key, input, len));
			sd_siphash128(&key, buf + at, len, out);
			assert_memory_equal(out, expected, 16);
		}
	}
}

static void siphash__every_key_bit_counts(void **state)
{
	uint64_t good = sd_siphash64(&key, input, 20);
	uint8_t good128[16], out[16];

	sd_siphash128(&key, input, 20, good128);
	for (unsigned bit = 0; bit < 128; bit++) {
		struct sd_sipkey other = key;

		other.k[bit / 64] ^= 1ull << bit % 64;
		assert_true(sd_siphash64(&other, input, 20) != good);
		sd_siphash128(&other, input, 20, out);
		assert_memory_not_equal(out, good128, 8);
		assert_memory_not_equal(out + 8, good128 + 8, 8);
	}
}

static int group_setup(void **state)
{
	for (unsigned i = 0; i < sizeof input; i++)
		input[i] = i;
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(siphash64__published),
		cmocka_unit_test(siphash128__published),
		cmocka_unit_test(siphash__any_alignment),
		cmocka_unit_test(siphash__every_key_bit_counts),
	};

	return cmocka_run_group_tests_name("siphash", tests, group_setup, NULL);
}
