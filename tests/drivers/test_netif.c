/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The copy of the kernel's addresses and routes, followed through changes in a network namespace of its own.
 * The kernel is the oracle: it is asked the same questions.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/rng.h"
#include "drivers/netif.h"

enum {
	SKIPPED = 77, /* to meson */
	ADDRS = 16,
};

static struct netif *netif;
static struct mnl_socket *oracle;

/* ip(8), with the arguments of one line per command; all must succeed. */
__attribute__((format(printf, 1, 2))) static void ip(const char *fmt, ...)
{
	char lines[4096];
	FILE *f = popen("ip -batch -", "w");
	va_list ap;

	assert_non_null(f);
	va_start(ap, fmt);
	vsnprintf(lines, sizeof lines, fmt, ap);
	va_end(ap);
	fputs(lines, f);
	if (pclose(f))
		fail_msg("ip: %s", lines);
}

static struct sd_addr addr(const char *text)
{
	struct sd_addr a = {0};

	assert_int_equal(sd_addr_parse(text, &a), 0);
	return a;
}

static void settle(void)
{
	struct pollfd p = {.fd = netif_fd(netif), .events = POLLIN};

	do
		netif_poll(netif);
	while (poll(&p, 1, 2) > 0);
}

/* --- the kernel's opinion --- */

struct opinion {
	int error;
	struct netif_route route;
};

static struct sd_addr attr_addr(const struct nlattr *a, unsigned char family)
{
	struct sd_addr out = {.family = family == AF_INET ? 4 : 6};

	memcpy(out.ip, mnl_attr_get_payload(a), sd_addr_ip_len(&out));
	return out;
}

static void read_opinion(const struct nlmsghdr *nlh, struct opinion *o)
{
	const struct rtmsg *rtm = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *attr;

	if (rtm->rtm_type == RTN_UNREACHABLE || rtm->rtm_type == RTN_BLACKHOLE ||
		rtm->rtm_type == RTN_PROHIBIT)
		o->error = EHOSTUNREACH;
	o->route.local = rtm->rtm_type == RTN_LOCAL;
	o->route.onlink = true;
	mnl_attr_for_each(attr, nlh, sizeof *rtm)
	{
		switch (mnl_attr_get_type(attr)) {
		case RTA_OIF:
			o->route.ifindex = (int)mnl_attr_get_u32(attr);
			break;
		case RTA_GATEWAY:
			o->route.gateway = attr_addr(attr, rtm->rtm_family);
			o->route.onlink = false;
			break;
		case RTA_PREFSRC:
			o->route.source = attr_addr(attr, rtm->rtm_family);
			break;
		}
	}
}

static struct opinion ask_kernel(const struct sd_addr *dst)
{
	char buffer[8192];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buffer);
	struct opinion o = {0};
	struct rtmsg *rtm;
	ssize_t n;

	nlh->nlmsg_type = RTM_GETROUTE;
	nlh->nlmsg_flags = NLM_F_REQUEST;
	rtm = mnl_nlmsg_put_extra_header(nlh, sizeof *rtm);
	rtm->rtm_family = dst->family == 4 ? AF_INET : AF_INET6;
	rtm->rtm_dst_len = (unsigned char)(sd_addr_ip_len(dst) * 8);
	mnl_attr_put(nlh, RTA_DST, sd_addr_ip_len(dst), dst->ip);
	if (dst->scope)
		mnl_attr_put_u32(nlh, RTA_OIF, dst->scope);
	assert_true(mnl_socket_sendto(oracle, nlh, nlh->nlmsg_len) > 0);
	n = mnl_socket_recvfrom(oracle, buffer, sizeof buffer);
	assert_true(n > 0);
	nlh = (struct nlmsghdr *)buffer;
	if (nlh->nlmsg_type == NLMSG_ERROR)
		o.error = -((const struct nlmsgerr *)mnl_nlmsg_get_payload(nlh))->error;
	else
		read_opinion(nlh, &o);
	return o;
}

/* Refusals have several errors, for which one is enough. */
static int kind_of(int error)
{
	return error == ENETUNREACH ? ENETUNREACH : error ? EHOSTUNREACH : 0;
}

/* Else says why not. */
static bool agree(const struct sd_addr *dst, char *why, size_t len)
{
	struct opinion want = ask_kernel(dst);
	struct netif_route got = {0};
	int e = -netif_route(netif, dst, &got);
	char text[SD_ADDR_STRLEN];

	sd_addr_format(dst, text);
	if (kind_of(e) != kind_of(want.error)) {
		snprintf(why, len, "%s: %s, the kernel says %s", text, strerror(e), strerror(want.error));
		return false;
	}
	if (e)
		return true;
	if (got.local != want.route.local || got.onlink != want.route.onlink ||
		(!got.local && got.ifindex != want.route.ifindex) ||
		!sd_addr_same_ip(&got.gateway, &want.route.gateway) ||
		!sd_addr_same_ip(&got.source, &want.route.source)) {
		char a[SD_ADDR_STRLEN], b[SD_ADDR_STRLEN];

		sd_addr_format(&got.source, a);
		sd_addr_format(&want.route.source, b);
		snprintf(why, len, "%s: interface %d from %s%s%s, the kernel: %d from %s%s%s", text,
			got.ifindex, a, got.local ? " local" : "", got.onlink ? "" : " by gateway",
			want.route.ifindex, b, want.route.local ? " local" : "",
			want.route.onlink ? "" : " by gateway");
		return false;
	}
	return true;
}

/* The kernel may be in the middle of something: a link that comes up does so in steps, which may be a second
 * apart when others do, too. */
static void compare(const struct sd_addr *dst)
{
	char why[512];

	for (unsigned i = 0; !agree(dst, why, sizeof why); i++) {
		if (i == 300)
			fail_msg("%s", why);
		usleep(10000);
		settle();
	}
}

static void compare_all(const char *const *dsts)
{
	settle();
	for (; *dsts; dsts++) {
		struct sd_addr a = addr(*dsts);

		compare(&a);
	}
}

static const char *const interesting[] = {"10.1.0.1", "10.1.0.2", "10.1.0.77", "10.1.1.1", "10.2.0.1",
	"10.2.0.9", "10.3.0.1", "10.3.5.1", "10.9.9.9", "127.0.0.1", "127.9.9.9", "8.8.8.8", "192.0.2.1",
	"fd01::1", "fd01::2", "fd01::77", "fd02::1", "fd02::9", "fd03::1", "2001:db8::1", "::1", NULL};

/* --- the cases --- */

static void knows_what_was_there(void **state)
{
	struct sd_addr a = addr("10.1.0.1"), b = addr("fd01::1"), other = addr("10.1.0.2"), out[ADDRS];
	int one = netif_index(netif, "sdn1");

	assert_int_equal(one, if_nametoindex("sdn1"));
	assert_int_equal(netif_index(netif, "nosuch"), 0);
	assert_true(netif_is_up(netif, one));
	assert_false(netif_is_up(netif, 9999));
	assert_int_equal(netif_mtu(netif, one), 1500);
	assert_int_equal(netif_mtu(netif, 9999), 0);
	assert_true(netif_has_addr(netif, one, &a) && netif_has_addr(netif, 0, &a) &&
		    netif_has_addr(netif, one, &b));
	assert_false(netif_has_addr(netif, one, &other));
	assert_false(netif_has_addr(netif, netif_index(netif, "sdn2"), &a));
	assert_int_equal(netif_addrs(netif, one, out, ADDRS), 3); /* and the link-local one */
	assert_int_equal(netif_addrs(netif, one, out, 1), 3);
	compare_all(interesting);
}

static void follows_addresses(void **state)
{
	struct sd_addr a = addr("10.1.0.77");
	uint64_t generation = netif_generation(netif);
	int one = netif_index(netif, "sdn1");

	for (unsigned i = 0; netif_poll(netif); i++)
		assert_true(i < 10); /* nothing happens, nothing has changed */
	ip("address add 10.1.0.77/24 dev sdn1\n");
	settle();
	assert_true(netif_generation(netif) > generation);
	assert_true(netif_has_addr(netif, one, &a));
	compare_all(interesting);
	ip("address add 10.1.1.1/24 dev sdn1\naddress add fd01::77/64 dev sdn1 nodad\n");
	compare_all(interesting);
	ip("address del 10.1.0.77/24 dev sdn1\n");
	compare_all(interesting);
	assert_false(netif_has_addr(netif, one, &a));
	ip("address del 10.1.1.1/24 dev sdn1\naddress del fd01::77/64 dev sdn1\n");
	compare_all(interesting);
}

/* When the primary address of a subnet goes, its secondary ones go or are promoted, and routes with them. */
static void follows_primary_addresses(void **state)
{
	ip("address add 10.2.0.9/24 dev sdn2\n");
	compare_all(interesting);
	ip("address del 10.2.0.1/24 dev sdn2\n");
	compare_all(interesting);
	ip("address flush dev sdn2 scope global\naddress add 10.2.0.1/24 dev sdn2\naddress add fd02::1/64 "
	   "dev sdn2 nodad\n");
	compare_all(interesting);
}

static void follows_routes(void **state)
{
	ip("route add default via 10.1.0.2\nroute add 10.3.0.0/16 via 10.2.0.2\nroute add 10.3.5.0/24 dev "
	   "sdn1\n");
	compare_all(interesting);
	ip("route add blackhole 192.0.2.0/24\nroute add unreachable fd03::/64\nroute add prohibit "
	   "10.9.0.0/16\n");
	compare_all(interesting);
	ip("route replace 10.3.0.0/16 via 10.1.0.3\nroute change 10.3.5.0/24 dev sdn2\n");
	compare_all(interesting);
	ip("route add ::/0 via fd01::9\nroute add fd03::/48 via fd02::9\n");
	compare_all(interesting);
	ip("route add 10.3.0.0/16 via 10.2.0.3 metric 50\n"); /* the one without a metric is better */
	compare_all(interesting);
	ip("route del 10.3.0.0/16 via 10.1.0.3\n");
	compare_all(interesting);
	ip("route del 10.3.0.0/16 metric 50\nroute del 10.3.5.0/24\nroute del default\nroute del "
	   "192.0.2.0/24\n"
	   "route del 10.9.0.0/16\nroute del ::/0\nroute del unreachable fd03::/64\nroute del fd03::/48\n");
	compare_all(interesting);
}

static void follows_links(void **state)
{
	int two = netif_index(netif, "sdn2");

	ip("link set sdn2 down\n");
	compare_all(interesting);
	assert_false(netif_is_up(netif, two));
	ip("link set sdn2 up\nlink set sdn2 mtu 9000\n");
	ip("address replace fd02::1/64 dev sdn2 nodad\n");
	compare_all(interesting);
	assert_true(netif_is_up(netif, two));
	assert_int_equal(netif_mtu(netif, two), 9000);
	ip("link set sdn2 down\nlink set sdn2 name sdn9\nlink set sdn9 up\n");
	settle();
	assert_int_equal(netif_index(netif, "sdn9"), two);
	assert_int_equal(netif_index(netif, "sdn2"), 0);
	ip("link set sdn9 down\nlink set sdn9 name sdn2\nlink set sdn2 up\nlink set sdn2 mtu 1500\n"
	   "address replace fd02::1/64 dev sdn2 nodad\n");
	ip("link add sdn3 type veth peer name sdp3\nlink set sdp3 up\nlink set sdn3 up\naddress add "
	   "10.3.0.1/16 dev sdn3\n");
	compare_all(interesting);
	ip("link del sdn3\n");
	compare_all(interesting);
	assert_int_equal(netif_index(netif, "sdn3"), 0);
}

static void follows_rules(void **state)
{
	ip("route add default via 10.2.0.2 table 100\nrule add priority 100 table main suppress_prefixlength "
	   "0\n"
	   "rule add priority 101 table 100\n");
	compare_all(interesting);
	ip("rule del priority 101\n");
	compare_all(interesting);
	ip("rule del priority 100\nroute flush table 100\n");
	compare_all(interesting);
}

static void keeps_to_a_scope(void **state)
{
	for (unsigned i = 1; i <= 2; i++) {
		struct sd_addr a = addr("fe80::99");
		struct netif_route r;

		settle();
		a.scope = (uint32_t)netif_index(netif, i == 1 ? "sdn1" : "sdn2");
		assert_int_equal(netif_route(netif, &a, &r), 0);
		assert_int_equal(r.ifindex, a.scope);
		assert_int_equal(r.source.scope, a.scope);
		compare(&a);
	}
}

/* Many changes at random, all the while the same answers as the kernel's. */
static void follows_a_storm(void **state)
{
	static const char *const nets[] = {"10.3.0.0/16", "10.3.5.0/24", "10.3.5.0/25", "10.9.0.0/16",
		"192.0.2.0/24", "0.0.0.0/1", "8.8.8.8/32"};
	static const char *const hops[] = {"via 10.1.0.2", "via 10.2.0.2", "dev sdn1", "dev sdn2",
		"via 10.1.0.3 src 10.2.0.1", "via 10.2.0.4 metric 7"};
	struct sd_rng rng;

	sd_rng_seed(&rng, 5);
	for (unsigned round = 0; round < 30; round++) {
		char command[2048] = "";

		for (unsigned i = 0; i < 6; i++) {
			static const char *const verbs[] = {"append", "prepend", "replace", "del"};
			size_t used = strlen(command);

			snprintf(command + used, sizeof command - used, "ip route %s %s %s 2>/dev/null;",
				verbs[sd_rng_below(&rng, 4)], nets[sd_rng_below(&rng, 7)],
				hops[sd_rng_below(&rng, 6)]);
		}
		strcat(command, "true"); /* some of it fails, as it should */
		assert_int_equal(system(command), 0);
		compare_all(interesting);
	}
	for (unsigned i = 0; i < sizeof nets / sizeof *nets; i++) {
		char command[128];

		snprintf(command, sizeof command, "while ip route del %s 2>/dev/null; do :; done", nets[i]);
		assert_int_equal(system(command), 0);
	}
	compare_all(interesting);
}

/* More announcements than the socket holds: the copy is made anew. */
static void survives_an_overrun(void **state)
{
	FILE *f = popen("ip -batch -", "w");

	assert_non_null(f);
	for (unsigned i = 0; i < 4096; i++)
		fprintf(f, "route add 172.%u.%u.0/24 via 10.1.0.2\n", 16 + i / 256, i % 256);
	assert_int_equal(pclose(f), 0);
	compare_all(interesting);
	compare_all((const char *const[]){"172.16.0.1", "172.31.255.1", "172.20.7.7", NULL});
	assert_int_equal(system("ip route flush via 10.1.0.2"), 0);
	compare_all((const char *const[]){"172.16.0.1", "172.31.255.1", "172.20.7.7", NULL});
}

static void is_quick(void **state)
{
	struct sd_addr dst = addr("10.1.0.5");
	struct netif_route r;
	struct timespec a, b;

	clock_gettime(CLOCK_MONOTONIC, &a);
	for (unsigned i = 0; i < 100000; i++)
		assert_int_equal(netif_route(netif, &dst, &r), 0);
	clock_gettime(CLOCK_MONOTONIC, &b);
	print_message(
		"%ld ns a lookup\n", ((b.tv_sec - a.tv_sec) * 1000000000 + b.tv_nsec - a.tv_nsec) / 100000);
}

static bool is_complete(const char *netdev)
{
	struct sd_addr out[ADDRS];

	return netif_addrs(netif, netif_index(netif, netdev), out, ADDRS) == 3;
}

static int set_up(void **state)
{
	oracle = mnl_socket_open(NETLINK_ROUTE);
	if (!oracle || mnl_socket_bind(oracle, 0, MNL_SOCKET_AUTOPID))
		return -1;
	ip("link set lo up\n"
	   "link add sdn1 type veth peer name sdp1\nlink set sdp1 up\nlink set sdn1 up\naddress add "
	   "10.1.0.1/24 dev sdn1\n"
	   "address add fd01::1/64 dev sdn1 nodad\n"
	   "link add sdn2 type veth peer name sdp2\nlink set sdp2 up\nlink set sdn2 up\naddress add "
	   "10.2.0.1/24 dev sdn2\n"
	   "address add fd02::1/64 dev sdn2 nodad\n");
	if (netif_open(&netif))
		return -1;
	/* Link-local addresses come with the links, a moment later. */
	for (unsigned i = 0; i < 300 && (!is_complete("sdn1") || !is_complete("sdn2")); i++) {
		usleep(10000);
		settle();
	}
	return 0;
}

static int tear_down(void **state)
{
	if (netif)
		netif_close(netif);
	return mnl_socket_close(oracle);
}

int main(void)
{
	const struct CMUnitTest cases[] = {
		cmocka_unit_test(knows_what_was_there),
		cmocka_unit_test(follows_addresses),
		cmocka_unit_test(follows_primary_addresses),
		cmocka_unit_test(follows_routes),
		cmocka_unit_test(follows_links),
		cmocka_unit_test(follows_rules),
		cmocka_unit_test(keeps_to_a_scope),
		cmocka_unit_test(follows_a_storm),
		cmocka_unit_test(survives_an_overrun),
		cmocka_unit_test(is_quick),
	};

	if (unshare(CLONE_NEWNET)) {
		perror("no network namespace");
		return SKIPPED;
	}
	if (system("sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0"))
		return 1;
	return cmocka_run_group_tests_name("netif", cases, set_up, tear_down);
}
