/* SPDX-License-Identifier: BSD-3-Clause */
#include "drivers/dpdk/flow.h"

#include <errno.h>
#include <rte_bus.h>
#include <rte_dev.h>
#include <rte_flow.h>
#include <string.h>

#include "drivers/dpdk/ethdev.h"
#include "drivers/port.h"

bool flow_is_bifurcated(const struct rte_eth_dev_info *info)
{
	const struct rte_bus *bus = info->device ? rte_dev_bus(info->device) : NULL;

	return bus && !strcmp(rte_bus_name(bus), "pci") && info->if_index;
}

static int failure(int r, const struct rte_flow_error *error, const char **why)
{
	*why = error->message ? error->message : strerror(-r);
	return r;
}

int flow_isolate(uint16_t id, const char **why)
{
	struct rte_flow_error error = {0};
	int r = rte_flow_isolate(id, 1, &error);

	return r ? failure(r, &error, why) : 0;
}

static int steer(uint16_t id, enum rte_flow_item_type ip, uint64_t hash, uint16_t n_queues, const char **why)
{
	static const struct rte_flow_item_udp port = {.hdr.dst_port = RTE_BE16(PORT_UDP_PORT)},
					      mask = {.hdr.dst_port = RTE_BE16(0xffff)};
	static const struct rte_flow_attr ingress = {.ingress = 1};
	const struct rte_flow_item pattern[] = {{.type = RTE_FLOW_ITEM_TYPE_ETH}, {.type = ip},
		{.type = RTE_FLOW_ITEM_TYPE_UDP, .spec = &port, .mask = &mask},
		{.type = RTE_FLOW_ITEM_TYPE_END}};
	uint16_t queues[ETH_QUEUES_MAX];
	const struct rte_flow_action_rss rss = {.types = hash, .queue_num = n_queues, .queue = queues};
	const struct rte_flow_action_queue first = {.index = 0};
	const struct rte_flow_action actions[] = {
		n_queues > 1 ? (struct rte_flow_action){.type = RTE_FLOW_ACTION_TYPE_RSS, .conf = &rss}
			     : (struct rte_flow_action){.type = RTE_FLOW_ACTION_TYPE_QUEUE, .conf = &first},
		{.type = RTE_FLOW_ACTION_TYPE_END}};
	struct rte_flow_error error = {0};

	for (uint16_t i = 0; i < n_queues; i++)
		queues[i] = i;
	return rte_flow_create(id, &ingress, pattern, actions, &error) ? 0 : failure(-rte_errno, &error, why);
}

static int steer_or_not_spread(
	uint16_t id, enum rte_flow_item_type ip, uint64_t hash, uint16_t n_queues, const char **why)
{
	int r = steer(id, ip, hash, n_queues, why);

	return r && n_queues > 1 ? steer(id, ip, hash, 1, why) : r;
}

int flow_steer(uint16_t id, uint16_t n_queues, const char **why)
{
	int v4 =
		steer_or_not_spread(id, RTE_FLOW_ITEM_TYPE_IPV4, RTE_ETH_RSS_NONFRAG_IPV4_UDP, n_queues, why);
	int v6 =
		steer_or_not_spread(id, RTE_FLOW_ITEM_TYPE_IPV6, RTE_ETH_RSS_NONFRAG_IPV6_UDP, n_queues, why);

	return v4 ? v4 : v6;
}
