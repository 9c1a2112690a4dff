/* SPDX-License-Identifier: BSD-3-Clause */
/* What a NIC that the kernel keeps is asked to lead to us. The driver is this file: no such NIC is here. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>
#include <rte_errno.h>
#include <rte_flow.h>

#include "drivers/dpdk/flow.h"
#include "drivers/port.h"

#define ETHDEV 3

static struct {
	int isolated; /* -1: not asked for */
	int result;
	const char *message;
	int refuse; /* the rule of this number; -1: none */
	unsigned n_rules;
	struct rule {
		enum rte_flow_item_type ip;
		enum rte_flow_action_type action;
		uint64_t hash;
		unsigned n_queues;
	} rules[4];
} nic;

int rte_flow_isolate(uint16_t id, int set, struct rte_flow_error *error)
{
	assert_int_equal(id, ETHDEV);
	nic.isolated = set;
	error->message = nic.message;
	return nic.result;
}

static void look_at_actions(struct rule *r, const struct rte_flow_action *a)
{
	r->action = a[0].type;
	if (a[0].type == RTE_FLOW_ACTION_TYPE_RSS) {
		const struct rte_flow_action_rss *rss = a[0].conf;

		r->hash = rss->types;
		r->n_queues = rss->queue_num;
		for (uint16_t i = 0; i < rss->queue_num; i++)
			assert_int_equal(rss->queue[i], i);
		assert_int_equal(rss->func, RTE_ETH_HASH_FUNCTION_DEFAULT);
		assert_int_equal(rss->key_len, 0);
	} else {
		assert_int_equal(a[0].type, RTE_FLOW_ACTION_TYPE_QUEUE);
		assert_int_equal(((const struct rte_flow_action_queue *)a[0].conf)->index, 0);
	}
	assert_int_equal(a[1].type, RTE_FLOW_ACTION_TYPE_END);
}

struct rte_flow *rte_flow_create(uint16_t id, const struct rte_flow_attr *attr,
	const struct rte_flow_item pattern[], const struct rte_flow_action actions[],
	struct rte_flow_error *error)
{
	const struct rte_flow_item_udp *spec = pattern[2].spec, *mask = pattern[2].mask;
	struct rule *r = &nic.rules[nic.n_rules];

	assert_int_equal(id, ETHDEV);
	assert_true(attr->ingress && !attr->egress && !attr->transfer);
	assert_int_equal(pattern[0].type, RTE_FLOW_ITEM_TYPE_ETH);
	assert_null(pattern[0].spec); /* also what is for all */
	r->ip = pattern[1].type;
	assert_null(pattern[1].spec); /* addresses come and go */
	assert_int_equal(pattern[2].type, RTE_FLOW_ITEM_TYPE_UDP);
	assert_int_equal(rte_be_to_cpu_16(spec->hdr.dst_port), PORT_UDP_PORT);
	assert_int_equal(mask->hdr.dst_port, 0xffff);
	assert_int_equal(mask->hdr.src_port, 0); /* which differs by connection */
	assert_int_equal(pattern[3].type, RTE_FLOW_ITEM_TYPE_END);
	look_at_actions(r, actions);
	if (nic.refuse == (int)nic.n_rules++) {
		error->message = nic.message;
		rte_errno = ENOTSUP;
		return NULL;
	}
	return (struct rte_flow *)r;
}

static int begin(void **state)
{
	(void)state;
	memset(&nic, 0, sizeof nic);
	nic.isolated = nic.refuse = -1;
	return 0;
}

static void it_keeps_away_from_the_kernels_traffic(void **state)
{
	const char *why = NULL;

	(void)state;
	assert_int_equal(flow_isolate(ETHDEV, &why), 0);
	assert_int_equal(nic.isolated, 1);
	assert_null(why);
}

static void a_driver_that_cannot_isolate_says_why(void **state)
{
	const char *why = NULL;

	(void)state;
	nic.result = -ENOSYS;
	assert_int_equal(flow_isolate(ETHDEV, &why), -ENOSYS);
	assert_string_equal(why, strerror(ENOSYS));
	nic.message = "port must be stopped first";
	assert_int_equal(flow_isolate(ETHDEV, &why), -ENOSYS);
	assert_string_equal(why, "port must be stopped first");
}

static void one_queue_has_it_all(void **state)
{
	const char *why;

	(void)state;
	assert_int_equal(flow_steer(ETHDEV, 1, &why), 0);
	assert_int_equal(nic.n_rules, 2);
	assert_int_equal(nic.rules[0].ip, RTE_FLOW_ITEM_TYPE_IPV4);
	assert_int_equal(nic.rules[1].ip, RTE_FLOW_ITEM_TYPE_IPV6);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(nic.rules[i].action, RTE_FLOW_ACTION_TYPE_QUEUE);
}

static void several_share_it_by_hash(void **state)
{
	const uint64_t hash[] = {RTE_ETH_RSS_NONFRAG_IPV4_UDP, RTE_ETH_RSS_NONFRAG_IPV6_UDP};
	const char *why;

	(void)state;
	assert_int_equal(flow_steer(ETHDEV, 4, &why), 0);
	assert_int_equal(nic.n_rules, 2);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(nic.rules[i].action, RTE_FLOW_ACTION_TYPE_RSS);
		assert_int_equal(nic.rules[i].n_queues, 4);
		assert_true(nic.rules[i].hash == hash[i]);
	}
}

static void a_nic_that_does_not_spread_has_it_in_one_queue(void **state)
{
	const char *why;

	(void)state;
	nic.refuse = 0;
	assert_int_equal(flow_steer(ETHDEV, 4, &why), 0);
	assert_int_equal(nic.n_rules, 3);
	assert_int_equal(nic.rules[0].action, RTE_FLOW_ACTION_TYPE_RSS);
	assert_int_equal(nic.rules[1].action, RTE_FLOW_ACTION_TYPE_QUEUE);
	assert_int_equal(nic.rules[1].ip, RTE_FLOW_ITEM_TYPE_IPV4);
	assert_int_equal(nic.rules[2].ip, RTE_FLOW_ITEM_TYPE_IPV6);
}

static void a_refused_rule_says_why(void **state)
{
	const char *why = NULL;

	(void)state;
	for (int i = 0; i < 2; i++) {
		begin(NULL);
		nic.refuse = i;
		nic.message = "no such thing";
		assert_int_equal(flow_steer(ETHDEV, 1, &why), -ENOTSUP);
		assert_string_equal(why, "no such thing");
	}
}

static void virtual_devices_are_ours_alone(void **state)
{
	struct rte_eth_dev_info info = {.if_index = 1};

	(void)state;
	assert_false(flow_is_bifurcated(&info)); /* it has no bus */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(it_keeps_away_from_the_kernels_traffic, begin),
		cmocka_unit_test_setup(a_driver_that_cannot_isolate_says_why, begin),
		cmocka_unit_test_setup(one_queue_has_it_all, begin),
		cmocka_unit_test_setup(several_share_it_by_hash, begin),
		cmocka_unit_test_setup(a_nic_that_does_not_spread_has_it_in_one_queue, begin),
		cmocka_unit_test_setup(a_refused_rule_says_why, begin),
		cmocka_unit_test_setup(virtual_devices_are_ours_alone, begin),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
