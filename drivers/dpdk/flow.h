/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * flow: a NIC whose kernel driver stays (bifurcated: mlx5) leads to us what is the SAN's and nothing
 * else, by rte_flow in isolated mode.
 */
#ifndef SD_DRIVERS_DPDK_FLOW_H
#define SD_DRIVERS_DPDK_FLOW_H

#include <rte_ethdev.h>
#include <stdbool.h>
#include <stdint.h>

/* A PCI device that is an interface of the kernel's as well. */
bool flow_is_bifurcated(const struct rte_eth_dev_info *info);
/* Nothing comes to us but by flow_steer(). Before the device is configured. 0 or -errno, why then being a
 * text of the driver's, or of strerror(). */
int flow_isolate(uint16_t id, const char **why);
/* UDP to the SAN's port comes to us, by IPv4 and IPv6, spread over these queues by its addresses and ports,
 * or all to the first one, if the NIC does not spread.
 * While the device runs: stopping it takes the rules away. 0 or -errno, as above: at least one of the rules
 * was refused. */
int flow_steer(uint16_t id, uint16_t n_queues, const char **why);

#endif
