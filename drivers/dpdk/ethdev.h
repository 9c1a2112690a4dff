/* SPDX-License-Identifier: BSD-3-Clause */
/* ethdev: a DPDK port, as the files that implement it share it. */
#ifndef SD_DRIVERS_DPDK_ETHDEV_H
#define SD_DRIVERS_DPDK_ETHDEV_H

#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_spinlock.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "drivers/port.h"

enum {
	ETH_QUEUES_MAX = 16,
	INTR_STRIKES = 16, /* frames without their wake-up until the interrupt is given up */
};

/*
 * A pair of queues, as a port: what one thread uses. Its mbufs are its own, so that the pool's cache is, too,
 * which all threads of ours would share otherwise (they are one lcore to EAL).
 */
struct eth_queue {
	struct port base;
	struct eth_port *port;
	uint16_t index;
	struct rte_mempool *pool;
	struct rte_mempool_cache *cache; /* the pool's, which the driver uses too */
	port_released *released;	 /* of what frames were chained with */
	void *released_ctx;
	/* Sleeping. */
	int intr_fd; /* -1: none */
	enum { INTR_COUNTER, INTR_SET, INTR_LEVEL, INTR_OTHER } intr_kind;
	bool intr_proven;
	bool intr_missed; /* slept without a wake-up: a frame at hand now would have deserved one */
	unsigned intr_strikes;
	struct port_stats stats;
} __rte_cache_aligned;

struct eth_port {
	struct eth_queue queues[ETH_QUEUES_MAX];
	uint16_t id;
	uint16_t n_queues; /* in use; settled when they have their pools */
	bool started;
	uint16_t tx_off; /* where a frame to be sent begins in its mbuf's buffer */
	uint32_t capacity;
	uint32_t rx_descriptors;
	rte_spinlock_t intr_lock;	 /* drivers may keep the interrupts of all queues in one register */
	uint64_t tx_csum_v4, tx_csum_v6; /* mbuf flags for PORT_TX_CSUM */
	/* Seldom used. */
	struct rte_device *device;
	struct rte_eth_link link;
	int packet_fd; /* net_af_packet's socket, or -1 */
	unsigned if_index;
	uint32_t caps;
	uint16_t mtu;
	uint8_t mac[6];
	int node;		/* NUMA: of its memory; SOCKET_ID_ANY */
	bool bifurcated;	/* the kernel has the NIC too (flow.h) */
	bool unplugging;	/* the device is wanted back (plug.h) */
	char missing[256];	/* what has been said of why there is no device */
	uint64_t attach_at;	/* not before */
	uint64_t down_since;	/* when the link was lost or the device attached */
	struct port_config cfg; /* its device is args, its name is name, other strings are gone */
	char args[512];
	char name[64], driver[64];
};

/*
 * Attaches the device that e->cfg names and starts it; on the first time also makes the pool, which stays:
 * frames may be out while the device is not attached. 0 or a negative error with one line in err. Signals are
 * blocked.
 */
int eth_attach(struct eth_port *e, char *err, size_t err_len);
/* What is told of a port that is opened before it has its device: its MTU, and its address, if that is to be
 * known already. */
void eth_await(struct eth_port *e);
/* Takes the device away, if it is there; sends and receives nothing then. */
void eth_detach(struct eth_port *e);
/* Tries what can be tried of the interrupts without a frame: is there a descriptor, does the driver switch it
 * on? */
void eth_find_interrupts(struct eth_port *e);

/* sleep.c: of the port SPI */
int eth_wait_fd(struct port *p);
int eth_arm(struct port *p);
void eth_disarm(struct port *p);

/* chain.c: of the port SPI */
int eth_map(struct port *p, void *at, size_t len);
void eth_unmap(struct port *p, void *at, size_t len);
void eth_set_released(struct port *p, port_released *released, void *ctx);
int eth_tx_chain(struct port *p, struct port_frame *f, const struct port_piece *pieces, unsigned n,
	const void *tail, unsigned tail_len, uint64_t token);
void eth_reclaim(struct port *p);
/* Can the driver send from memory that is not the pool's? */
bool eth_sends_from_anywhere(const struct eth_port *e);

static inline struct eth_queue *eth_of(struct port *p)
{
	return (struct eth_queue *)p;
}

/* An mbuf's buffer follows it in our pool: worked out, it need not be fetched. */
static inline uint8_t *eth_room_of(void *mbuf)
{
	return (uint8_t *)mbuf + sizeof(struct rte_mbuf);
}

#endif
