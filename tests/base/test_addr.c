/* SPDX-License-Identifier: BSD-3-Clause */
/* Addresses: text forms and back, what is no address, mapped ones, prefixes. */
#include <errno.h>
#include <net/if.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/addr.h"
#include "base/rng.h"

static struct sd_addr parsed(const char *text)
{
	struct sd_addr a;

	memset(&a, 0xa5, sizeof a);
	if (sd_addr_parse(text, &a))
		fail_msg("\"%s\" was refused", text);
	return a;
}

static void refused(const char *text)
{
	struct sd_addr a, before;

	memset(&a, 0xa5, sizeof a);
	before = a;
	if (sd_addr_parse(text, &a) != -EINVAL)
		fail_msg("\"%s\" was not refused with -EINVAL", text);
	assert_memory_equal(&a, &before, sizeof a);
}

static void parse__ipv4(void **state)
{
	struct sd_addr a = parsed("10.0.255.1:80");

	assert_int_equal(a.family, 4);
	assert_int_equal(a.port, 80);
	assert_int_equal(a.scope, 0);
	assert_memory_equal(a.ip, "\x0a\x00\xff\x01\0\0\0\0\0\0\0\0\0\0\0\0", 16);
	assert_int_equal(parsed("10.0.255.1").port, 0);
	assert_int_equal(parsed("10.0.255.1:0").port, 0);
	assert_int_equal(parsed("10.0.255.1:65535").port, 65535);
	assert_true(sd_addr_is_any(&(struct sd_addr){.family = 4}));
	a = parsed("0.0.0.0:1");
	assert_true(sd_addr_is_any(&a));
}

static void parse__ipv6(void **state)
{
	struct sd_addr a = parsed("[fd00:1::2]:443"), any = parsed("::");

	assert_int_equal(a.family, 6);
	assert_int_equal(a.port, 443);
	assert_int_equal(a.scope, 0);
	assert_memory_equal(a.ip, "\xfd\0\0\1\0\0\0\0\0\0\0\0\0\0\0\2", 16);
	assert_false(sd_addr_is_any(&a));
	assert_true(sd_addr_is_any(&any));
	a = parsed("fd00::2:80"); /* without brackets there is no port */
	assert_int_equal(a.port, 0);
	assert_memory_equal(a.ip + 12, "\0\2\0\x80", 4);
	assert_int_equal(parsed("[::1]").port, 0);
	assert_int_equal(parsed("::ffff:1.2.3.4").family, 6);
	assert_int_equal(parsed("[::ffff:1.2.3.4]:65535").port, 65535);
}

static void parse__scope(void **state)
{
	unsigned lo = if_nametoindex("lo");

	assert_int_equal(parsed("fe80::1%7").scope, 7);
	assert_int_equal(parsed("[fe80::1%7]:80").scope, 7);
	assert_int_equal(parsed("[fe80::1%7]:80").port, 80);
	assert_true(parsed("fe80::1%4294967295").scope == UINT32_MAX);
	if (lo) {
		assert_int_equal(parsed("fe80::1%lo").scope, lo);
		assert_int_equal(parsed("[fe80::1%lo]:80").scope, lo);
	}
	refused("fe80::1%");
	refused("fe80::1%0");
	refused("fe80::1%-1");
	refused("fe80::1%1x");
	refused("fe80::1% 1");
	refused("fe80::1%4294967296");
	refused("fe80::1%18446744073709551617");
	refused("fe80::1%nosuchinterface");
	refused("[fe80::1%]:80");
	refused("[fe80::1]%7:80");
	refused("1.2.3.4%7");
	refused("1.2.3.4%lo:80");
	refused("%7");
}

static void parse__refuses(void **state)
{
	static const char *const bad[] = {"", " ", ":", ":80", "80", "localhost", "localhost:80", "1.2.3",
		"1.2.3.4.5", "1.2.3.256", "1.2.3.-4", "1.2.3.4x", "1.2.3.4 ", " 1.2.3.4",
		"1.2.3.4:", "1.2.3.4:x", "1.2.3.4:80x", "1.2.3.4:80 ", "1.2.3.4: 80", "1.2.3.4:+80",
		"1.2.3.4:-80", "1.2.3.4:0x50", "1.2.3.4:65536", "1.2.3.4:4294967376",
		"1.2.3.4:18446744073709551696", "1.2.3.4:99999999999999999999999", "1.2.3.4:80:90",
		"1.2.3.4:80/24", "1.2.3.4/24", "[1.2.3.4]", "[1.2.3.4]:80", "[", "]", "[]", "[]:80", "[::1",
		"::1]", "[::1:80", "::1]:80", "[[::1]]:80", "[::1]]:80", "[::1]80", "[::1]:", "[::1]:x",
		"[::1]:80x", "[::1]:65536", "[::1]::80", "[::1] :80", "[::1]:80 ", " ::1", "::1 ", "::1x",
		":::", "1::2::3", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "12345::", "g::", "::1.2.3",
		"::1.2.3.4.5"};
	char text[4096];

	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
		refused(bad[i]);
	/* Longer than any address: neither cut off nor copied over the end. */
	for (unsigned len = 60; len < sizeof text; len += len < 100 ? 1 : 500) {
		memset(text, '1', len);
		memcpy(text, "1.2.3.4:", 8);
		text[len] = '\0';
		refused(text);
		memcpy(text, "fe80::1%", 8);
		refused(text);
		memset(text, '0', len);
		memcpy(text, "[::", 3);
		refused(text);
	}
}

static void format__as_written(void **state)
{
	static const char *const same[] = {"0.0.0.0:0", "1.2.3.4:80", "255.255.255.255:65535", "[::]:0",
		"[fd00::1]:80", "[fe80::1%7]:443", "[::ffff:1.2.3.4]:80",
		"[fe80:1111:2222:3333:4444:5555:6666:7777%4294967295]:65535"};
	char out[SD_ADDR_STRLEN];
	struct sd_addr a;

	for (unsigned i = 0; i < sizeof same / sizeof *same; i++) {
		a = parsed(same[i]);
		assert_ptr_equal(sd_addr_format(&a, out), out);
		assert_string_equal(out, same[i]);
	}
	a = parsed("FD00:0:0::0001");
	assert_string_equal(sd_addr_format(&a, out), "[fd00::1]:0");
	a = (struct sd_addr){.port = 80};
	assert_string_equal(sd_addr_format(&a, out), "none");
	a.family = 9;
	assert_string_equal(sd_addr_format(&a, out), "none");
}

static void format__and_back(void **state)
{
	struct sd_rng rng;

	sd_rng_seed(&rng, 6);
	for (unsigned i = 0; i < 20000; i++) {
		struct sd_addr a = {.family = i & 1 ? 4 : 6}, b;
		char text[SD_ADDR_STRLEN];

		/* Many zeros, so that "::" comes at every place. */
		for (unsigned k = 0; k < sd_addr_ip_len(&a); k++)
			if (sd_rng_below(&rng, 3))
				a.ip[k] = (uint8_t)sd_rng_below(&rng, 256);
		if (i % 7 == 0 && a.family == 6)
			memset(a.ip, 0, sd_rng_below(&rng, 16));
		a.port = (uint16_t)sd_rng_next(&rng);
		if (a.family == 6 && sd_rng_below(&rng, 2))
			a.scope = (uint32_t)sd_rng_next(&rng);
		b = parsed(sd_addr_format(&a, text));
		if (!sd_addr_equal(&a, &b) || a.scope != b.scope)
			fail_msg("%s comes back as another address", text);
	}
}

static void equal__looks_at_all(void **state)
{
	struct sd_addr a = parsed("[fd00::1]:80"), b = a;

	assert_int_equal(sd_addr_ip_len(&a), 16);
	assert_int_equal(sd_addr_ip_len(&(struct sd_addr){.family = 4}), 4);
	assert_int_equal(sd_addr_ip_len(&(struct sd_addr){.family = 0}), 0);
	assert_true(sd_addr_equal(&a, &b));
	b.port = 81;
	assert_true(sd_addr_same_ip(&a, &b));
	assert_false(sd_addr_equal(&a, &b));
	for (unsigned i = 0; i < 16; i++) {
		b = a;
		b.ip[i] ^= 0x80;
		assert_false(sd_addr_same_ip(&a, &b));
		assert_false(sd_addr_equal(&a, &b));
	}
	a = parsed("0.0.0.0");
	b = parsed("::");
	assert_false(sd_addr_same_ip(&a, &b));
}

static void unmap__makes_ipv4(void **state)
{
	static const char *const others[] = {"::1.2.3.4", "::fffe:1.2.3.4", "::1:ffff:1.2.3.4",
		"8000::ffff:1.2.3.4", "fd00::1", "::", "1.2.3.4"};
	struct sd_addr a = parsed("[::ffff:1.2.3.4%7]:80"), plain = parsed("1.2.3.4:80");

	sd_addr_unmap(&a);
	assert_memory_equal(&a, &plain, sizeof a);
	sd_addr_unmap(&a);
	assert_memory_equal(&a, &plain, sizeof a);
	for (unsigned i = 0; i < sizeof others / sizeof *others; i++) {
		struct sd_addr before = parsed(others[i]);

		a = before;
		sd_addr_unmap(&a);
		assert_memory_equal(&a, &before, sizeof a);
	}
}

/* An address with one bit changed is in the prefixes that end before this bit. */
static void prefix__every_length(void **state)
{
	static const char *const nets[] = {"10.255.0.170", "fd00:ff:0:aa55::8001"};

	for (unsigned n = 0; n < 2; n++) {
		struct sd_addr net = parsed(nets[n]);
		unsigned bits = sd_addr_ip_len(&net) * 8;

		for (unsigned len = 0; len <= bits; len++) {
			assert_true(sd_addr_in_prefix(&net, &net, len));
			for (unsigned bit = 0; bit < bits; bit++) {
				struct sd_addr a = net;

				a.ip[bit / 8] ^= 0x80 >> bit % 8;
				if (sd_addr_in_prefix(&a, &net, len) != (bit >= len))
					fail_msg("bit %u changed, prefix %s/%u", bit, nets[n], len);
			}
		}
		assert_false(sd_addr_in_prefix(&net, &net, bits + 1));
		assert_false(sd_addr_in_prefix(&net, &net, 256));
		assert_false(sd_addr_in_prefix(&net, &net, UINT32_MAX));
	}
}

static void prefix__examples(void **state)
{
	static const struct {
		const char *a, *net;
		unsigned len;
		bool in;
	} t[] = {{"1.2.3.4", "9.9.9.9", 0, true}, {"128.0.0.0", "0.0.0.0", 1, false},
		{"127.0.0.0", "0.0.0.0", 1, true}, {"10.0.0.1", "10.0.0.0", 31, true},
		{"10.0.0.2", "10.0.0.0", 31, false}, {"10.0.0.1", "10.0.0.1", 32, true},
		{"10.0.0.0", "10.0.0.1", 32, false}, {"10.0.0.1", "10.0.0.1", 33, false},
		{"fd00::1", "::", 0, true}, {"8000::", "::", 1, false}, {"fd00::1", "fd00::", 127, true},
		{"fd00::2", "fd00::", 127, false}, {"fd00::1", "fd00::1", 128, true},
		{"fd00::", "fd00::1", 128, false}, {"1.2.3.4", "::", 0, false},
		{"::1.2.3.4", "1.2.3.4", 0, false}, {"::ffff:1.2.3.4", "1.2.3.4", 32, false}};

	for (unsigned i = 0; i < sizeof t / sizeof *t; i++) {
		struct sd_addr a = parsed(t[i].a), net = parsed(t[i].net);

		if (sd_addr_in_prefix(&a, &net, t[i].len) != t[i].in)
			fail_msg("%s in %s/%u", t[i].a, t[i].net, t[i].len);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parse__ipv4),
		cmocka_unit_test(parse__ipv6),
		cmocka_unit_test(parse__scope),
		cmocka_unit_test(parse__refuses),
		cmocka_unit_test(format__as_written),
		cmocka_unit_test(format__and_back),
		cmocka_unit_test(equal__looks_at_all),
		cmocka_unit_test(unmap__makes_ipv4),
		cmocka_unit_test(prefix__every_length),
		cmocka_unit_test(prefix__examples),
	};

	return cmocka_run_group_tests_name("addr", tests, NULL, NULL);
}
