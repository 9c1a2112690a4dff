/* SPDX-License-Identifier: BSD-3-Clause */
/* Headers around a packet: built, taken apart again, and every kind of nonsense refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "drivers/encap.h"

enum {
	PORT = 7747,
	FRAME_MAX = 9100,
};

static const struct encap_flow flow4 = {
	.src_mac = {2, 0, 0, 0, 0, 1},
	.dst_mac = {2, 0, 0, 0, 0, 2},
	.src = {.family = 4, .port = 40000, .ip = {10, 77, 0, 1}},
	.dst = {.family = 4, .port = PORT, .ip = {10, 77, 0, 2}},
	.ecn = 2,
};
static const struct encap_flow flow6 = {
	.src_mac = {2, 0, 0, 0, 0, 1},
	.dst_mac = {2, 0, 0, 0, 0, 2},
	.src = {.family = 6, .port = 40000, .ip = {0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}},
	.dst = {.family = 6, .port = PORT, .ip = {0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2}},
	.ecn = 1,
};

/* RFC 1071, as simple as it can be said; in network byte order. */
static uint32_t plain_sum(uint32_t sum, const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		sum += i % 2 ? p[i] : (uint32_t)p[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* The sum over pseudo header and datagram; 0xffff when the checksum is right. */
static uint32_t udp_sum(const uint8_t *frame, size_t len)
{
	bool v6 = frame[12] == 0x86;
	unsigned at = v6 ? 54 : 34, addrs = v6 ? 22 : 26;
	uint8_t tail[4] = {0, 17, (uint8_t)((len - at) >> 8), (uint8_t)(len - at)};
	uint32_t sum = plain_sum(0, frame + addrs, v6 ? 32 : 8);

	return plain_sum(plain_sum(sum, tail, sizeof tail), frame + at, len - at);
}

static size_t build(const struct encap_flow *f, size_t payload, bool offload, uint8_t *frame)
{
	uint8_t hdr[ENCAP_MAX];
	unsigned hdr_len = encap_template(f, hdr);

	memcpy(frame, hdr, hdr_len);
	for (size_t i = 0; i < payload; i++)
		frame[hdr_len + i] = (uint8_t)(i * 31 + payload);
	encap_finish(frame, hdr_len, payload, offload);
	return hdr_len + payload;
}

static void sums_like_rfc1071(void **state)
{
	uint8_t data[700];
	struct sd_rng rng;

	sd_rng_seed(&rng, 1);
	for (size_t i = 0; i < sizeof data; i++)
		data[i] = sd_rng_below(&rng, 4) ? (uint8_t)sd_rng_next(&rng) : 0xff;
	for (size_t at = 0; at < 9; at++) {
		for (size_t len = 0; len + at <= sizeof data; len++) {
			uint16_t sum = encap_csum_fold(encap_csum_add(0, data + at, len));
			uint8_t bytes[2];

			memcpy(bytes, &sum, 2); /* memory order */
			assert_int_equal(bytes[0] << 8 | bytes[1], plain_sum(0, data + at, len));
		}
	}
	memset(data, 0xff, sizeof data);
	assert_int_equal(encap_csum_fold(encap_csum_add(UINT64_MAX >> 1, data, 512)),
		encap_csum_fold(
			encap_csum_add(encap_csum_add(0, data, 512), &(uint64_t){UINT64_MAX >> 1}, 8)));
}

static void check_round_trip(const struct encap_flow *f, size_t payload)
{
	uint8_t frame[FRAME_MAX], other[FRAME_MAX];
	size_t len = build(f, payload, false, frame);
	struct encap_view v;

	assert_int_equal(udp_sum(frame, len), 0xffff);
	if (f->dst.family == 4)
		assert_int_equal(plain_sum(0, frame + 14, 20), 0xffff);
	assert_int_equal(encap_parse(frame, len, PORT, true, &v), 0);
	assert_true(v.csum_ok);
	assert_int_equal(v.payload_len, payload);
	assert_ptr_equal(v.payload, frame + len - payload);
	assert_true(sd_addr_equal(&v.flow.src, &f->src) && sd_addr_equal(&v.flow.dst, &f->dst));
	assert_memory_equal(v.flow.src_mac, f->src_mac, 6);
	assert_memory_equal(v.flow.dst_mac, f->dst_mac, 6);
	assert_int_equal(v.flow.ecn, f->ecn);
	assert_int_equal(v.ce, f->ecn == 3);
	/* What a NIC would finish comes to the same. */
	assert_int_equal(build(f, payload, true, other), len);
	encap_finish_offload(other, len);
	assert_memory_equal(frame, other, len);
}

static void builds_what_it_parses(void **state)
{
	struct encap_flow f4 = flow4, f6 = flow6;

	for (size_t payload = 0; payload < 1500; payload++) {
		f4.ecn = f6.ecn = payload % 4;
		f4.src.port = (uint16_t)(payload * 43);
		check_round_trip(&f4, payload);
		check_round_trip(&f6, payload);
	}
	check_round_trip(&flow4, 8972);
	check_round_trip(&flow6, 8952);
}

/* Another source port makes the same template as if it had been there from the beginning. */
static void takes_another_source_port(void **state)
{
	const struct encap_flow *const flows[] = {&flow4, &flow6};

	for (unsigned i = 0; i < 2; i++) {
		uint8_t changed[ENCAP_MAX], fresh[ENCAP_MAX];
		struct encap_flow f = *flows[i];
		unsigned len = encap_template(&f, changed);

		encap_set_entropy(changed, len, 61234);
		f.src.port = 61234;
		assert_int_equal(encap_template(&f, fresh), len);
		assert_memory_equal(changed, fresh, len);
	}
}

/* A sum that comes out as zero is sent as 0xffff, because zero says that there is none. */
static void never_sends_zero_for_a_sum(void **state)
{
	unsigned hits = 0;
	uint8_t frame[FRAME_MAX];
	struct encap_view v;

	for (unsigned i = 0; i < 65536; i++) {
		size_t len;
		uint8_t hdr[ENCAP_MAX];
		unsigned hdr_len = encap_template(i % 2 ? &flow6 : &flow4, hdr);

		memcpy(frame, hdr, hdr_len);
		memcpy(frame + hdr_len, &(uint16_t){(uint16_t)i}, 2);
		encap_finish(frame, hdr_len, 2, false);
		len = hdr_len + 2;
		assert_true(frame[hdr_len - 2] || frame[hdr_len - 1]);
		assert_int_equal(encap_parse(frame, len, PORT, true, &v), 0);
		hits += frame[hdr_len - 2] == 0xff && frame[hdr_len - 1] == 0xff;
	}
	assert_in_range(hits, 1, 4);
}

static void assert_refused(const uint8_t *frame, size_t len, bool verify)
{
	struct encap_view v;
	uint8_t *exact = malloc(len ? len : 1); /* so that a sanitizer sees a byte too far */

	assert_non_null(exact);
	memcpy(exact, frame, len);
	assert_int_equal(encap_parse(exact, len, PORT, verify, &v), -EINVAL);
	free(exact);
}

static void refuses_truncation(void **state)
{
	const struct encap_flow *flows[] = {&flow4, &flow6};
	uint8_t frame[FRAME_MAX];

	for (unsigned i = 0; i < 2; i++) {
		size_t len = build(flows[i], 100, false, frame);

		for (size_t cut = 0; cut < len; cut++) {
			assert_refused(frame, cut, true);
			assert_refused(frame, cut, false);
		}
	}
}

static void cuts_padding_off(void **state)
{
	uint8_t frame[FRAME_MAX] = {0};
	struct encap_view v;
	size_t len = build(&flow4, 5, false, frame);

	memset(frame + len, 0xaa, 64);
	for (size_t pad = 0; pad < 64; pad++) {
		assert_int_equal(encap_parse(frame, len + pad, PORT, true, &v), 0);
		assert_int_equal(v.payload_len, 5);
	}
}

/* Sets the IPv4 header checksum right again after a change. */
static void fix_ip4(uint8_t *frame)
{
	unsigned len = (frame[14] & 15u) * 4;
	uint32_t sum;

	frame[24] = frame[25] = 0;
	sum = ~plain_sum(0, frame + 14, len) & 0xffff;
	frame[24] = (uint8_t)(sum >> 8);
	frame[25] = (uint8_t)sum;
}

static void refuses_wrong_fields_of_ip4(void **state)
{
	static const struct {
		unsigned at;
		uint8_t value;
	} wrong[] = {
		{6, 3},	    /* a group as source MAC */
		{12, 0x81}, /* VLAN, roughly */
		{14, 0x55}, /* version */
		{14, 0x44}, /* header too short */
		{14, 0x4f}, /* header longer than the packet */
		{16, 0x40}, /* total length beyond the frame */
		{17, 20},   /* no room for UDP */
		{20, 0x20}, /* more fragments */
		{20, 0x80}, /* the reserved bit */
		{21, 1},    /* a later fragment */
		{23, 6},    /* TCP */
		{26, 0},    /* source 0.x */
		{26, 224},  /* multicast source */
		{26, 255},  /* broadcast source */
		{36, 0},    /* another destination port */
		{38, 1},    /* UDP length against IP length */
		{39, 7},    /* UDP length below its header */
	};
	uint8_t good[FRAME_MAX], frame[FRAME_MAX];
	size_t len = build(&flow4, 40, false, good);

	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		memcpy(frame, good, len);
		frame[wrong[i].at] = wrong[i].value;
		if (wrong[i].at >= 14 && wrong[i].at < 34 && (frame[14] & 15) == 5)
			fix_ip4(frame);
		assert_refused(frame, len, false);
	}
	memcpy(frame, good, len);
	frame[24] ^= 1; /* the header's own checksum */
	assert_refused(frame, len, false);
	memcpy(frame, good, len);
	frame[50] ^= 1; /* payload */
	assert_refused(frame, len, true);
}

static void refuses_wrong_fields_of_ip6(void **state)
{
	static const struct {
		unsigned at;
		uint8_t value;
	} wrong[] = {
		{14, 0x40}, /* version */
		{18, 0x40}, /* payload length beyond the frame */
		{19, 7},    /* below UDP's header */
		{20, 44},   /* a fragment header */
		{20, 0},    /* hop-by-hop options */
		{20, 6},    /* TCP */
		{22, 0xff}, /* multicast source */
		{56, 0},    /* another destination port */
		{59, 7},    /* UDP length */
	};
	uint8_t good[FRAME_MAX], frame[FRAME_MAX];
	size_t len = build(&flow6, 40, false, good);

	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		memcpy(frame, good, len);
		frame[wrong[i].at] = wrong[i].value;
		assert_refused(frame, len, false);
	}
	memcpy(frame, good, len);
	memset(frame + 22, 0, 16); /* source "::" */
	assert_refused(frame, len, false);
	memcpy(frame, good, len);
	frame[60] = frame[61] = 0; /* IPv6 knows no absent checksum */
	assert_refused(frame, len, false);
	memcpy(frame, good, len);
	frame[70] ^= 0x80;
	assert_refused(frame, len, true);
}

static void takes_an_absent_checksum_of_ip4(void **state)
{
	uint8_t frame[FRAME_MAX];
	size_t len = build(&flow4, 40, false, frame);
	struct encap_view v;

	frame[40] = frame[41] = 0;
	assert_int_equal(encap_parse(frame, len, PORT, true, &v), 0);
	assert_true(v.csum_ok);
}

/* Makes room for options behind the IPv4 header of a built frame. */
static size_t with_options(uint8_t *frame, size_t len, const uint8_t *options, unsigned n)
{
	memmove(frame + 34 + n, frame + 34, len - 34);
	memcpy(frame + 34, options, n);
	frame[14] = (uint8_t)(0x40 | (5 + n / 4));
	frame[17] = (uint8_t)(frame[17] + n);
	fix_ip4(frame);
	return len + n;
}

static void reads_over_options(void **state)
{
	static const uint8_t good[][4] = {{1, 1, 1, 0}, {0x94, 4, 0, 0}, {7, 3, 4, 0}, {0, 9, 9, 9}};
	static const uint8_t bad[][4] = {{7, 0, 0, 0}, {7, 1, 0, 0}, {7, 5, 0, 0}, {1, 1, 1, 7}};
	uint8_t frame[FRAME_MAX];
	struct encap_view v;
	size_t len;

	for (unsigned i = 0; i < 4; i++) {
		len = with_options(frame, build(&flow4, 40, false, frame), good[i], 4);
		assert_int_equal(encap_parse(frame, len, PORT, true, &v), 0);
		assert_int_equal(v.payload_len, 40);
		len = with_options(frame, build(&flow4, 40, false, frame), bad[i], 4);
		assert_refused(frame, len, true);
	}
}

/* Any bytes are safe, and what is accepted lies within the frame. */
static void survives_noise(void **state)
{
	struct sd_rng rng;
	uint8_t base[300];

	sd_rng_seed(&rng, 2);
	for (unsigned i = 0; i < 200000; i++) {
		size_t len = build(i % 2 ? &flow6 : &flow4, sd_rng_below(&rng, 200), false, base);
		unsigned flips = (unsigned)sd_rng_below(&rng, 6);
		struct encap_view v;
		uint8_t *frame;

		for (unsigned k = 0; k < flips; k++)
			base[sd_rng_below(&rng, 62)] = (uint8_t)sd_rng_next(&rng);
		if (i % 4 >= 2)
			fix_ip4(base);
		len = sd_rng_below(&rng, 3) ? len : sd_rng_below(&rng, len);
		frame = malloc(len ? len : 1);
		assert_non_null(frame);
		memcpy(frame, base, len);
		if (!encap_parse(frame, len, PORT, i % 3, &v)) {
			assert_true(v.payload >= frame && v.payload + v.payload_len <= frame + len);
			assert_true(v.flow.dst.port == PORT);
		}
		free(frame);
	}
}

/* What is known says what taking apart would say, whatever the frame is; and does know the flow's frames. */
static void knows_what_it_would_parse(void **state)
{
	unsigned known = 0, unknown = 0;
	struct sd_rng rng;

	sd_rng_seed(&rng, 3);
	for (unsigned i = 0; i < 300000; i++) {
		const struct encap_flow *f = i % 2 ? &flow6 : &flow4;
		uint8_t first[300], next[300];
		size_t len = build(f, sd_rng_below(&rng, 200), false, first), at = sd_rng_below(&rng, 64);
		struct encap_known k = {0};
		struct encap_view v, w;
		bool same = sd_rng_below(&rng, 3), whole;

		assert_int_equal(encap_parse(first, len, PORT, false, &v), 0);
		assert_false(encap_is_known(&k, first, len, &v));
		encap_know(&k, first, len, &v);
		assert_int_equal(k.hdr_len != 0, len >= 64);
		len = build(f, 22 + sd_rng_below(&rng, 170), i & 4, next);
		if (!same)
			next[at] = sd_rng_below(&rng, 4) ? next[at] ^ 1u << sd_rng_below(&rng, 8) : 0;
		if (!same && at == 60)
			next[61] = next[60] = 0; /* no checksum, which IPv6 does not allow */
		if (i & 2 && f == &flow4)
			fix_ip4(next);
		whole = sd_rng_below(&rng, 4);
		if (!whole)
			len -= sd_rng_below(&rng, 40);
		if (sd_rng_below(&rng, 2))
			encap_set_entropy(
				next, f == &flow4 ? ENCAP_V4 : ENCAP_V6, (uint16_t)sd_rng_next(&rng));
		if (!encap_is_known(&k, next, len, &v)) {
			assert_false(same && whole && k.hdr_len);
			unknown++;
			continue;
		}
		known++;
		assert_int_equal(encap_parse(next, len, PORT, false, &w), 0);
		assert_int_equal(w.payload_len, v.payload_len);
		assert_ptr_equal(w.payload, v.payload);
		assert_true(sd_addr_same_ip(&v.flow.src, &w.flow.src));
		assert_true(sd_addr_equal(&v.flow.dst, &w.flow.dst));
		assert_memory_equal(v.flow.src_mac, w.flow.src_mac, 6);
		assert_memory_equal(v.flow.dst_mac, w.flow.dst_mac, 6);
		assert_int_equal(v.flow.ecn, w.flow.ecn);
	}
	assert_true(known > 100000 && unknown > 50000);
}

/* Where IPv4 options are, the packet is not where it is without them. */
static void does_not_know_options(void **state)
{
	struct encap_known k = {0};
	struct encap_view v;
	uint8_t frame[300];
	size_t len = build(&flow4, 100, true, frame);

	memmove(frame + 38, frame + 34, len - 34);
	memset(frame + 34, 1, 4); /* no operation */
	frame[14]++;
	frame[17] += 4;
	fix_ip4(frame);
	assert_int_equal(encap_parse(frame, len + 4, PORT, false, &v), 0);
	encap_know(&k, frame, len + 4, &v);
	assert_false(encap_is_known(&k, frame, len + 4, &v));
}

int main(void)
{
	const struct CMUnitTest cases[] = {
		cmocka_unit_test(sums_like_rfc1071),
		cmocka_unit_test(builds_what_it_parses),
		cmocka_unit_test(takes_another_source_port),
		cmocka_unit_test(never_sends_zero_for_a_sum),
		cmocka_unit_test(refuses_truncation),
		cmocka_unit_test(cuts_padding_off),
		cmocka_unit_test(refuses_wrong_fields_of_ip4),
		cmocka_unit_test(refuses_wrong_fields_of_ip6),
		cmocka_unit_test(takes_an_absent_checksum_of_ip4),
		cmocka_unit_test(reads_over_options),
		cmocka_unit_test(survives_noise),
		cmocka_unit_test(knows_what_it_would_parse),
		cmocka_unit_test(does_not_know_options),
	};

	return cmocka_run_group_tests_name("encap", cases, NULL, NULL);
}
