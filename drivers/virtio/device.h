/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * device: a virtio network device, from its reset to its traffic: negotiation, queues, commands, and getting
 * back to work after the device has gone, asked for a reset or broken the rules.
 *
 * Calls come from the ethdev's owner and from the thread that handles events. Start, stop, init and fini take
 * the device's lock, all others are made with it.
 */
#ifndef SD_DRIVERS_VIRTIO_DEVICE_H
#define SD_DRIVERS_VIRTIO_DEVICE_H

#include <ethdev_driver.h>
#include <pthread.h>
#include <rte_log.h>

#include "drivers/virtio/bus.h"
#include "drivers/virtio/queue.h"
#include "drivers/virtio/rss.h"

enum {
	VN_PAIRS_MAX = 128,
	VN_MACS_MAX = 64,
	VN_MTU_MAX = 9728,
	VN_RETRY_MS = 100, /* between attempts to get back to work */
};

enum vn_choice { VN_OFF, VN_ON, VN_AUTO };

/* Device arguments. */
struct vn_options {
	bool packed, in_order;
	enum vn_choice event_idx, mergeable;
	uint16_t pairs, queue_size; /* 0: the device's */
	uint32_t speed;		    /* Mbit/s; 0: the device's */
	uint8_t mac[6];
};

struct vn_dev_stats {
	uint64_t resets; /* after the first start, for whatever reason */
	uint64_t peer_left, peer_came;
	uint64_t bad_config; /* values that make no sense */
};

struct vn_dev {
	pthread_mutex_t lock;
	const struct vn_bus *bus;
	void *bus_data;
	struct rte_eth_dev *eth;
	struct rte_eth_dev_data *data;
	struct vn_options options;

	uint64_t offered, features; /* negotiated ones are 0 while the device does not run */
	uint64_t wanted;	    /* by the ethdev's configuration */
	struct vn_queue_mode mode;
	bool started; /* by the owner */
	bool running; /* DRIVER_OK; traffic flows */
	bool admin_up;
	bool retrying;	/* an alarm is set */
	bool told;	/* why it does not run */
	bool link_news; /* that the owner has not been told of */
	uint16_t pairs; /* in use */
	uint16_t pairs_max, mtu_max;
	uint16_t device_pairs; /* that the device has: its control queue comes behind them */
	struct vn_queue
		*spares[2][VN_PAIRS_MAX]; /* by kind: of pairs of which the owner has set up one half */
	struct vn_queue *ctrl;
	struct vn_rss rss;
	struct vn_dev_stats stats;

	/* What the owner has asked for, to be asked for again after a reset. */
	bool promiscuous, allmulticast;
	struct rte_ether_addr macs[VN_MACS_MAX];
	bool vlan_filter;
	uint64_t vlans[4096 / 64];
};

#define VN_LOG(level, d, fmt, ...)                                                                           \
	rte_log(RTE_LOG_##level, vn_log_type, "%s: " fmt "\n", (d)->data->name, ##__VA_ARGS__)
/* What keeps the device from running: once, not at each attempt. */
#define VN_COMPLAIN(d, ...)                                                                                  \
	do {                                                                                                 \
		if (!(d)->told)                                                                              \
			VN_LOG(ERR, d, __VA_ARGS__);                                                         \
	} while (0)
extern int vn_log_type;

/* Once, before the bus may have events. */
void vn_device_setup(struct vn_dev *d);
void vn_device_lock(struct vn_dev *d);
/* Also tells the owner what has become of the link, who may call anything in turn. */
void vn_device_unlock(struct vn_dev *d);

uint16_t vn_device_id(const struct vn_dev *d);
/* Bytes of the longest frame with the ethdev's MTU. */
uint32_t vn_device_frame(const struct vn_dev *d);
/* Fills in what is known of the device before it is configured. */
int vn_device_init(struct vn_dev *d);
void vn_device_fini(struct vn_dev *d);
/* Features that a configuration with these offloads needs or can use. */
uint64_t vn_device_wanted(const struct vn_dev *d, uint64_t rx_offloads, uint64_t tx_offloads);
/* Brings the device to work with the ethdev's queues. 0 also if there is no device at the moment: it is taken
 * when it comes. Errors are those of a device that refuses. */
int vn_device_start(struct vn_dev *d);
void vn_device_stop(struct vn_dev *d);

/* For a bus, from its events: the device is there and answers; it has gone; its configuration changed. */
void vn_device_came(struct vn_dev *d);
void vn_device_left(struct vn_dev *d);
void vn_device_config_changed(struct vn_dev *d);
/* For a queue, from a burst. */
void vn_device_broke(struct vn_dev *d, struct vn_queue *q, const char *what);

/* Bytes of the longest frame that is to be received. */
uint32_t vn_device_longest(const struct vn_dev *d);

/* Reads the link; true if it changed. */
bool vn_device_link(struct vn_dev *d);

static inline bool vn_has(const struct vn_dev *d, unsigned feature)
{
	return d->features & VN_BIT(feature);
}

#endif
