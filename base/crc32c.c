/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * crc32c: three implementations behind one pointer that the first call sets. Long buffers are folded 256
 * bytes at a time with carry-less multiplication (Gopal et al., "Fast CRC Computation for Generic Polynomials
 * Using PCLMULQDQ", 2009) where AVX-512 does it four lanes at once; else three independent streams keep the
 * crc32 instruction's pipeline full and are joined by one multiplication each. What is short goes eight bytes
 * a step.
 *
 * All values are bit-reflected: a 32-bit constant for x^n mod P, multiplied without carries, yields a product
 * that stands for x^(n+1); the constants below have that taken into account.
 */
#include "base/crc32c.h"

#include <stdatomic.h>
#include <string.h>

static const uint32_t table[256] = {
	0x00000000,
	0xf26b8303,
	0xe13b70f7,
	0x1350f3f4,
	0xc79a971f,
	0x35f1141c,
	0x26a1e7e8,
	0xd4ca64eb,
	0x8ad958cf,
	0x78b2dbcc,
	0x6be22838,
	0x9989ab3b,
	0x4d43cfd0,
	0xbf284cd3,
	0xac78bf27,
	0x5e133c24,
	0x105ec76f,
	0xe235446c,
	0xf165b798,
	0x030e349b,
	0xd7c45070,
	0x25afd373,
	0x36ff2087,
	0xc494a384,
	0x9a879fa0,
	0x68ec1ca3,
	0x7bbcef57,
	0x89d76c54,
	0x5d1d08bf,
	0xaf768bbc,
	0xbc267848,
	0x4e4dfb4b,
	0x20bd8ede,
	0xd2d60ddd,
	0xc186fe29,
	0x33ed7d2a,
	0xe72719c1,
	0x154c9ac2,
	0x061c6936,
	0xf477ea35,
	0xaa64d611,
	0x580f5512,
	0x4b5fa6e6,
	0xb93425e5,
	0x6dfe410e,
	0x9f95c20d,
	0x8cc531f9,
	0x7eaeb2fa,
	0x30e349b1,
	0xc288cab2,
	0xd1d83946,
	0x23b3ba45,
	0xf779deae,
	0x05125dad,
	0x1642ae59,
	0xe4292d5a,
	0xba3a117e,
	0x4851927d,
	0x5b016189,
	0xa96ae28a,
	0x7da08661,
	0x8fcb0562,
	0x9c9bf696,
	0x6ef07595,
	0x417b1dbc,
	0xb3109ebf,
	0xa0406d4b,
	0x522bee48,
	0x86e18aa3,
	0x748a09a0,
	0x67dafa54,
	0x95b17957,
	0xcba24573,
	0x39c9c670,
	0x2a993584,
	0xd8f2b687,
	0x0c38d26c,
	0xfe53516f,
	0xed03a29b,
	0x1f682198,
	0x5125dad3,
	0xa34e59d0,
	0xb01eaa24,
	0x42752927,
	0x96bf4dcc,
	0x64d4cecf,
	0x77843d3b,
	0x85efbe38,
	0xdbfc821c,
	0x2997011f,
	0x3ac7f2eb,
	0xc8ac71e8,
	0x1c661503,
	0xee0d9600,
	0xfd5d65f4,
	0x0f36e6f7,
	0x61c69362,
	0x93ad1061,
	0x80fde395,
	0x72966096,
	0xa65c047d,
	0x5437877e,
	0x4767748a,
	0xb50cf789,
	0xeb1fcbad,
	0x197448ae,
	0x0a24bb5a,
	0xf84f3859,
	0x2c855cb2,
	0xdeeedfb1,
	0xcdbe2c45,
	0x3fd5af46,
	0x7198540d,
	0x83f3d70e,
	0x90a324fa,
	0x62c8a7f9,
	0xb602c312,
	0x44694011,
	0x5739b3e5,
	0xa55230e6,
	0xfb410cc2,
	0x092a8fc1,
	0x1a7a7c35,
	0xe811ff36,
	0x3cdb9bdd,
	0xceb018de,
	0xdde0eb2a,
	0x2f8b6829,
	0x82f63b78,
	0x709db87b,
	0x63cd4b8f,
	0x91a6c88c,
	0x456cac67,
	0xb7072f64,
	0xa457dc90,
	0x563c5f93,
	0x082f63b7,
	0xfa44e0b4,
	0xe9141340,
	0x1b7f9043,
	0xcfb5f4a8,
	0x3dde77ab,
	0x2e8e845f,
	0xdce5075c,
	0x92a8fc17,
	0x60c37f14,
	0x73938ce0,
	0x81f80fe3,
	0x55326b08,
	0xa759e80b,
	0xb4091bff,
	0x466298fc,
	0x1871a4d8,
	0xea1a27db,
	0xf94ad42f,
	0x0b21572c,
	0xdfeb33c7,
	0x2d80b0c4,
	0x3ed04330,
	0xccbbc033,
	0xa24bb5a6,
	0x502036a5,
	0x4370c551,
	0xb11b4652,
	0x65d122b9,
	0x97baa1ba,
	0x84ea524e,
	0x7681d14d,
	0x2892ed69,
	0xdaf96e6a,
	0xc9a99d9e,
	0x3bc21e9d,
	0xef087a76,
	0x1d63f975,
	0x0e330a81,
	0xfc588982,
	0xb21572c9,
	0x407ef1ca,
	0x532e023e,
	0xa145813d,
	0x758fe5d6,
	0x87e466d5,
	0x94b49521,
	0x66df1622,
	0x38cc2a06,
	0xcaa7a905,
	0xd9f75af1,
	0x2b9cd9f2,
	0xff56bd19,
	0x0d3d3e1a,
	0x1e6dcdee,
	0xec064eed,
	0xc38d26c4,
	0x31e6a5c7,
	0x22b65633,
	0xd0ddd530,
	0x0417b1db,
	0xf67c32d8,
	0xe52cc12c,
	0x1747422f,
	0x49547e0b,
	0xbb3ffd08,
	0xa86f0efc,
	0x5a048dff,
	0x8ecee914,
	0x7ca56a17,
	0x6ff599e3,
	0x9d9e1ae0,
	0xd3d3e1ab,
	0x21b862a8,
	0x32e8915c,
	0xc083125f,
	0x144976b4,
	0xe622f5b7,
	0xf5720643,
	0x07198540,
	0x590ab964,
	0xab613a67,
	0xb831c993,
	0x4a5a4a90,
	0x9e902e7b,
	0x6cfbad78,
	0x7fab5e8c,
	0x8dc0dd8f,
	0xe330a81a,
	0x115b2b19,
	0x020bd8ed,
	0xf0605bee,
	0x24aa3f05,
	0xd6c1bc06,
	0xc5914ff2,
	0x37faccf1,
	0x69e9f0d5,
	0x9b8273d6,
	0x88d28022,
	0x7ab90321,
	0xae7367ca,
	0x5c18e4c9,
	0x4f48173d,
	0xbd23943e,
	0xf36e6f75,
	0x0105ec76,
	0x12551f82,
	0xe03e9c81,
	0x34f4f86a,
	0xc69f7b69,
	0xd5cf889d,
	0x27a40b9e,
	0x79b737ba,
	0x8bdcb4b9,
	0x988c474d,
	0x6ae7c44e,
	0xbe2da0a5,
	0x4c4623a6,
	0x5f16d052,
	0xad7d5351,
};

uint32_t sd_crc32c_portable(uint32_t crc, const void *data, size_t len)
{
	const uint8_t *p = data;

	crc = ~crc;
	while (len--)
		crc = crc >> 8 ^ table[(crc ^ *p++) & 0xff];
	return ~crc;
}

#if defined(__x86_64__)
#include <immintrin.h>

#define LANE 256 /* bytes of each of the three streams */

static inline uint64_t load64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof v);
	return v;
}

__attribute__((target("sse4.2"))) static inline uint64_t crc_short(uint64_t crc, const uint8_t *p, size_t len)
{
	for (; len >= 8; p += 8, len -= 8)
		crc = _mm_crc32_u64(crc, load64(p));
	if (len & 4) {
		uint32_t v;

		memcpy(&v, p, sizeof v);
		crc = _mm_crc32_u32((uint32_t)crc, v);
		p += 4;
	}
	for (len &= 3; len; len--)
		crc = _mm_crc32_u8((uint32_t)crc, *p++);
	return crc;
}

/* crc * x^(8n) mod P, k being x^(8n-33) mod P: the multiplication adds one power, the instruction 32. */
__attribute__((target("sse4.2,pclmul"))) static inline uint64_t shift(uint64_t crc, uint32_t k)
{
	__m128i product =
		_mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)crc), _mm_cvtsi32_si128((int)k), 0);

	return _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

__attribute__((target("sse4.2,pclmul"))) static uint32_t crc_three_way(
	uint32_t crc, const void *data, size_t len)
{
	const uint8_t *p = data;
	uint64_t a = (uint32_t)~crc;

	for (; len >= 3 * LANE; p += 3 * LANE, len -= 3 * LANE) {
		uint64_t b = 0, c = 0;

		for (size_t i = 0; i < LANE; i += 8) {
			a = _mm_crc32_u64(a, load64(p + i));
			b = _mm_crc32_u64(b, load64(p + LANE + i));
			c = _mm_crc32_u64(c, load64(p + 2 * LANE + i));
		}
		a = shift(a, 0xdd7e3b0c) ^ shift(b, 0xb9e02b86) ^ c; /* by 512 and by 256 bytes */
	}
	return ~(uint32_t)crc_short(a, p, len);
}

/* Moves the 128-bit lanes of s on by the distance that k stands for, and adds what is there. */
__attribute__((target("avx512f,vpclmulqdq"))) static inline __m512i fold(__m512i s, __m512i k, __m512i next)
{
	return _mm512_ternarylogic_epi64(
		_mm512_clmulepi64_epi128(s, k, 0x00), _mm512_clmulepi64_epi128(s, k, 0x11), next, 0x96);
}

__attribute__((target("pclmul,sse4.2"))) static inline __m128i fold128(__m128i s, uint64_t high, uint64_t low)
{
	__m128i k = _mm_set_epi64x((long long)low, (long long)high);

	return _mm_xor_si128(_mm_clmulepi64_si128(s, k, 0x00), _mm_clmulepi64_si128(s, k, 0x11));
}

__attribute__((target("avx512f,avx512vl,vpclmulqdq,pclmul,sse4.2"))) static uint32_t crc_fold(
	uint32_t crc, const void *data, size_t len)
{
	const __m512i by256 =
		_mm512_broadcast_i32x4(_mm_set_epi64x(0x1426a81500000000, (long long)0xe9a5d8be00000000));
	const __m512i by64 = _mm512_broadcast_i32x4(_mm_set_epi64x(0x75bba45b00000000, 0x1c19243b00000000));
	const uint8_t *p = data;
	__m512i a, b, c, d;
	__m128i s;
	uint64_t r;

	if (len < 256)
		return ~(uint32_t)crc_short((uint32_t)~crc, p, len);
	a = _mm512_xor_si512(_mm512_loadu_si512(p), _mm512_castsi128_si512(_mm_cvtsi32_si128((int)~crc)));
	b = _mm512_loadu_si512(p + 64);
	c = _mm512_loadu_si512(p + 128);
	d = _mm512_loadu_si512(p + 192);
	for (p += 256, len -= 256; len >= 256; p += 256, len -= 256) {
		a = fold(a, by256, _mm512_loadu_si512(p));
		b = fold(b, by256, _mm512_loadu_si512(p + 64));
		c = fold(c, by256, _mm512_loadu_si512(p + 128));
		d = fold(d, by256, _mm512_loadu_si512(p + 192));
	}
	a = fold(fold(fold(a, by64, b), by64, c), by64, d);
	for (; len >= 64; p += 64, len -= 64)
		a = fold(a, by64, _mm512_loadu_si512(p));
	s = _mm_xor_si128(fold128(_mm512_castsi512_si128(a), 0xa46ef4aa00000000, 0x6051243f00000000),
		fold128(_mm512_extracti32x4_epi32(a, 1), 0x33ccbbbc00000000, 0xa2158b3400000000));
	s = _mm_xor_si128(
		s, fold128(_mm512_extracti32x4_epi32(a, 2), 0x3743f7bd00000000, 0x3171d43000000000));
	s = _mm_xor_si128(s, _mm512_extracti32x4_epi32(a, 3));
	r = _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(s));
	r = _mm_crc32_u64(r, (uint64_t)_mm_extract_epi64(s, 1));
	return ~(uint32_t)crc_short(r, p, len);
}

typedef uint32_t crc_fn(uint32_t crc, const void *data, size_t len);

static uint32_t crc_choose(uint32_t crc, const void *data, size_t len);
static crc_fn *_Atomic chosen = crc_choose;

static uint32_t crc_choose(uint32_t crc, const void *data, size_t len)
{
	crc_fn *best = sd_crc32c_portable;

	__builtin_cpu_init();
	if (__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul"))
		best = crc_three_way;
	if (best == crc_three_way && __builtin_cpu_supports("avx512f") &&
		__builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("vpclmulqdq"))
		best = crc_fold;
	atomic_store_explicit(&chosen, best, memory_order_relaxed);
	return best(crc, data, len);
}

uint32_t sd_crc32c(uint32_t crc, const void *data, size_t len)
{
	return atomic_load_explicit(&chosen, memory_order_relaxed)(crc, data, len);
}

#else

uint32_t sd_crc32c(uint32_t crc, const void *data, size_t len)
{
	return sd_crc32c_portable(crc, data, len);
}

#endif
