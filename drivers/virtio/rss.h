/* SPDX-License-Identifier: BSD-3-Clause */
/* rss: which receive queue the device puts a frame into, by a hash of its addresses and ports (5.1.6.5.7). */
#ifndef SD_DRIVERS_VIRTIO_RSS_H
#define SD_DRIVERS_VIRTIO_RSS_H

#include <ethdev_driver.h>
#include <stdbool.h>
#include <stdint.h>

struct vn_dev;

enum {
	VN_RSS_KEY = 40,    /* bytes */
	VN_RSS_TABLE = 128, /* entries that are used of the device's table, at most */
};

struct vn_rss {
	/* The device's; table is 0 if it cannot. */
	uint16_t table; /* entries: a power of two */
	uint32_t types; /* of frames that it can hash */
	/* As the owner wants it. */
	bool on;
	uint32_t hashed; /* types that are */
	uint8_t key[VN_RSS_KEY];
	uint16_t queues[VN_RSS_TABLE]; /* by the low bits of the hash */
};

/* Reads what the device can do, of what it offers. */
void vn_rss_learn(struct vn_dev *d);
/* What can be hashed, as DPDK's RTE_ETH_RSS_*. */
uint64_t vn_rss_offloads(const struct vn_dev *d);
/* By the ethdev's configuration; all queues get the same share. */
void vn_rss_configure(struct vn_dev *d);
/* Tells the device, which has d->pairs pairs of queues from then on. Errors: vn_control's. */
int vn_rss_send(struct vn_dev *d);

/* The ethdev's. */
int vn_rss_hash_update(struct rte_eth_dev *eth, struct rte_eth_rss_conf *conf);
int vn_rss_hash_get(struct rte_eth_dev *eth, struct rte_eth_rss_conf *conf);
int vn_rss_reta_update(struct rte_eth_dev *eth, struct rte_eth_rss_reta_entry64 *table, uint16_t size);
int vn_rss_reta_query(struct rte_eth_dev *eth, struct rte_eth_rss_reta_entry64 *table, uint16_t size);

#endif
