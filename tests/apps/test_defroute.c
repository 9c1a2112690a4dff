/* SPDX-License-Identifier: BSD-3-Clause */
/* Which interfaces are said to carry a default route, in a network of the test's own. */
#include <errno.h>
#include <net/if.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "apps/sandirect/defroute.h"
#include "tests/isolate.h"

static int begin(void **state)
{
	(void)state;
	return system("ip link add v0 type veth peer name v1 && ip link set v0 up && ip link set v1 up &&"
		      "ip addr add 192.0.2.1/24 dev v0 && ip addr add 198.51.100.1/24 dev v1 &&"
		      "ip addr add 2001:db8::1/64 dev v0 nodad");
}

static void by(const char *add, int v0, int v1)
{
	char command[256];

	snprintf(command, sizeof command, "ip %s route add %s", *add == '6' ? "-6" : "", add + 2);
	assert_int_equal(system(command), 0);
	assert_int_equal(defroute_by(if_nametoindex("v0")), v0);
	assert_int_equal(defroute_by(if_nametoindex("v1")), v1);
	snprintf(command, sizeof command, "ip %s route del %s", *add == '6' ? "-6" : "", add + 2);
	assert_int_equal(system(command), 0);
	assert_int_equal(defroute_by(if_nametoindex("v0")), 0);
	assert_int_equal(defroute_by(if_nametoindex("v1")), 0);
}

static void of_the_main_table(void **state)
{
	(void)state;
	by("4 default via 192.0.2.2", 1, 0);
	by("6 default via 2001:db8::2 dev v0", 1, 0);
}

static void of_another_table(void **state)
{
	(void)state;
	by("4 default via 198.51.100.2 table 100", 0, 1);
	by("6 default via 2001:db8::2 dev v0 table 100", 1, 0);
}

static void with_several_next_hops(void **state)
{
	(void)state;
	by("4 default nexthop via 192.0.2.2 nexthop via 198.51.100.2", 1, 1);
}

static void in_two_halves(void **state)
{
	(void)state;
	by("4 128.0.0.0/1 via 198.51.100.2", 0, 1);
}

static void not_those_of_networks_nor_those_that_lead_nowhere(void **state)
{
	(void)state;
	by("4 203.0.113.0/24 via 192.0.2.2", 0, 0);
	by("4 unreachable default", 0, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(of_the_main_table),
		cmocka_unit_test(of_another_table),
		cmocka_unit_test(with_several_next_hops),
		cmocka_unit_test(in_two_halves),
		cmocka_unit_test(not_those_of_networks_nor_those_that_lead_nowhere),
	};

	if (!isolate_network())
		return 77; /* skipped */
	return cmocka_run_group_tests(tests, begin, NULL);
}
