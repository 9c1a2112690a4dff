/* SPDX-License-Identifier: BSD-3-Clause */
/* ethdev: the device as a port of DPDK's. */
#ifndef SD_DRIVERS_VIRTIO_ETHDEV_H
#define SD_DRIVERS_VIRTIO_ETHDEV_H

#include "drivers/virtio/device.h"

/* eth's private data are a struct vn_dev whose bus, eth, data and options are set: the rest is done here. On
 * failure the bus is closed. */
int vn_ethdev_init(struct rte_eth_dev *eth);

#endif
