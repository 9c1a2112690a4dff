/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/sockaddr.h"

static struct sd_addr addr(const char *text)
{
	struct sd_addr a;

	assert_int_equal(sd_addr_parse(text, &a), 0);
	return a;
}

static void there_and_back(void **state)
{
	static const struct {
		const char *text;
		uint32_t scope;
		socklen_t len;
	} cases[] = {
		{"10.1.2.3:80", 0, sizeof(struct sockaddr_in)},
		{"0.0.0.0:0", 0, sizeof(struct sockaddr_in)},
		{"[fd00::1]:65535", 0, sizeof(struct sockaddr_in6)},
		{"[fe80::1]:1", 7, sizeof(struct sockaddr_in6)},
	};

	for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct sd_addr a = addr(cases[i].text), back;
		union sd_sockaddr name;

		a.scope = cases[i].scope;
		memset(&name, 0xff, sizeof name);
		memset(&back, 0xff, sizeof back);
		assert_int_equal(sd_sockaddr_from(&name, &a), cases[i].len);
		assert_true(sd_sockaddr_to(&name.any, cases[i].len, &back));
		assert_memory_equal(&back, &a, sizeof a);
	}
}

static void mapped_stays_mapped(void **state)
{
	union sd_sockaddr name = {.v6 = {.sin6_family = AF_INET6, .sin6_port = htons(5)}};
	struct sd_addr a, b;

	memcpy(&name.v6.sin6_addr, "\0\0\0\0\0\0\0\0\0\0\xff\xff\x0a\1\2\3", 16);
	assert_true(sd_sockaddr_to(&name.any, sizeof name.v6, &a));
	assert_int_equal(a.family, 6);
	sd_addr_unmap(&a);
	b = addr("10.1.2.3:5");
	assert_memory_equal(&a, &b, sizeof a);
}

static void a_scope_is_of_link_local_addresses(void **state)
{
	union sd_sockaddr name = {.v6 = {.sin6_family = AF_INET6, .sin6_scope_id = 3}};
	struct sd_addr a;

	name.v6.sin6_addr.s6_addr[0] = 0xfd;
	assert_true(sd_sockaddr_to(&name.any, sizeof name.v6, &a));
	assert_int_equal(a.scope, 0);
}

static void short_and_foreign_names_are_none(void **state)
{
	union sd_sockaddr name = {.v4.sin_family = AF_INET};
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct sd_addr a;

	assert_false(sd_sockaddr_to(NULL, sizeof name, &a));
	assert_false(sd_sockaddr_to(&name.any, 0, &a));
	assert_false(sd_sockaddr_to(&name.any, 1, &a));
	assert_false(sd_sockaddr_to(&name.any, sizeof name.v4 - 1, &a));
	name.any.sa_family = AF_INET6;
	assert_false(sd_sockaddr_to(&name.any, offsetof(struct sockaddr_in6, sin6_scope_id) - 1, &a));
	assert_true(sd_sockaddr_to(&name.any, offsetof(struct sockaddr_in6, sin6_scope_id), &a));
	memset(&a, 0xff, sizeof a);
	assert_false(sd_sockaddr_to((struct sockaddr *)&un, sizeof un, &a));
	assert_int_equal(a.family, 0);
}

static void what_a_socket_is_bound_to(void **state)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0), un = socket(AF_UNIX, SOCK_STREAM, 0);
	struct sd_addr a = addr("127.0.0.1:0"), bound;
	union sd_sockaddr name;
	socklen_t len = sd_sockaddr_from(&name, &a);

	assert_false(bind(fd, &name.any, len));
	assert_int_equal(sd_sockaddr_bound(fd, &bound), 0);
	assert_true(sd_addr_same_ip(&bound, &a));
	assert_true(bound.port);
	assert_int_equal(sd_sockaddr_bound(un, &bound), -EAFNOSUPPORT);
	assert_int_equal(bound.family, 0);
	close(fd);
	close(un);
	assert_int_equal(sd_sockaddr_bound(fd, &bound), -EBADF);
}

static void the_source_towards_a_peer(void **state)
{
	struct sd_addr peer = addr("127.0.0.5:80"), expected, a;

	assert_int_equal(sd_sockaddr_source(&peer, &a), 0);
	expected = addr("127.0.0.1");
	assert_memory_equal(&a, &expected, sizeof a);
	peer = addr("255.255.255.255:80"); /* a broadcast address, which it does not allow */
	assert_true(sd_sockaddr_source(&peer, &a) < 0);
	assert_int_equal(a.family, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(there_and_back),
		cmocka_unit_test(mapped_stays_mapped),
		cmocka_unit_test(a_scope_is_of_link_local_addresses),
		cmocka_unit_test(short_and_foreign_names_are_none),
		cmocka_unit_test(what_a_socket_is_bound_to),
		cmocka_unit_test(the_source_towards_a_peer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
