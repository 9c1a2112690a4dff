/* SPDX-License-Identifier: BSD-3-Clause */
/* xstats: what has been counted, as DPDK's statistics and extended statistics. */
#ifndef SD_DRIVERS_VIRTIO_XSTATS_H
#define SD_DRIVERS_VIRTIO_XSTATS_H

#include <ethdev_driver.h>

int vn_stats_get(struct rte_eth_dev *eth, struct rte_eth_stats *out);
int vn_stats_reset(struct rte_eth_dev *eth);
int vn_xstats_get(struct rte_eth_dev *eth, struct rte_eth_xstat *out, unsigned n);
int vn_xstats_get_names(struct rte_eth_dev *eth, struct rte_eth_xstat_name *out, unsigned n);

#endif
