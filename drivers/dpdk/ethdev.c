/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ethdev: any DPDK port behind the port SPI. Frames are mbufs whose data room holds a whole frame. The fast
 * calls do nothing but fill arrays for the driver; opening and link_poll run the driver's slow code with
 * signals blocked. Owned by one thread at a time, which need not be the same always: the mempool's cache
 * follows the port, not the thread (see eal_adopt_thread).
 */
#include <errno.h>
#include <net/if.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/pci.h"
#include "drivers/dpdk/devargs.h"
#include "drivers/dpdk/eal.h"
#include "drivers/dpdk/ethdev.h"
#include "drivers/dpdk/events.h"
#include "drivers/dpdk/manners.h"
#include "drivers/dpdk/peer.h"
#include "drivers/dpdk/plug.h"
#include "drivers/port.h"

enum {
	BURST = 64,
	MEETING_TIME = 500,  /* ms for a connection to bring the link up, before it is tried anew */
	ATTACH_PAUSE = 1000, /* ms after a PCI device was given back or could not be attached */
};

/* --- the fast calls --- */

static inline void adopt_thread(void)
{
	/* One byte has room among the static ones, which take no call. */
	static __thread bool adopted __attribute__((tls_model("initial-exec")));

	if (__builtin_expect(!adopted, 0)) {
		eal_adopt_thread();
		adopted = true;
	}
}

/* NONE means to DPDK: the sum in the frame is not complete, but the data are known to be good (a virtual peer
 * that left the sum to us). */
static inline uint32_t rx_flags(uint64_t ol_flags)
{
	uint64_t l4 = ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK;

	if (l4 == RTE_MBUF_F_RX_L4_CKSUM_BAD ||
		(ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK) == RTE_MBUF_F_RX_IP_CKSUM_BAD)
		return PORT_RX_CSUM_BAD;
	return l4 == RTE_MBUF_F_RX_L4_CKSUM_GOOD || l4 == RTE_MBUF_F_RX_L4_CKSUM_NONE ? PORT_RX_CSUM_OK : 0;
}

/* A frame came although the wake-up for which we armed did not: too often, and the interrupt is not to be
 * relied on. */
static void intr_strike(struct eth_queue *q)
{
	if (q->intr_proven || ++q->intr_strikes < INTR_STRIKES)
		return;
	sd_warn("port %s: %s does not signal received frames; sleeping on a timer", q->port->name,
		q->port->driver);
	q->intr_fd = -1;
}

static unsigned eth_rx(struct port *p, struct port_frame *frames, unsigned max)
{
	struct eth_queue *q = eth_of(p);
	struct rte_mbuf *mbufs[BURST];
	uint64_t bytes = 0;
	unsigned out = 0;
	uint16_t n;

	if (__builtin_expect(!q->port->started, 0))
		return 0;
	adopt_thread();
	n = rte_eth_rx_burst(q->port->id, q->index, mbufs, (uint16_t)(max < BURST ? max : BURST));
	if (!n) {
		q->intr_missed = false;
		return 0;
	}
	for (unsigned i = 0; i < n; i++) {
		struct rte_mbuf *m = mbufs[i];

		if (__builtin_expect(m->nb_segs != 1, 0)) { /* longer than any frame of ours */
			rte_pktmbuf_free(m);
			q->stats.rx_errors++;
			continue;
		}
		frames[out].data = rte_pktmbuf_mtod(m, uint8_t *);
		frames[out].len = m->data_len;
		frames[out].flags = rx_flags(m->ol_flags);
		frames[out].handle = m;
		rte_prefetch0(frames[out].data);
		bytes += m->data_len;
		out++;
	}
	q->stats.rx_bytes += bytes;
	q->stats.rx_frames += out;
	if (__builtin_expect(q->intr_missed, 0)) {
		q->intr_missed = false;
		intr_strike(q);
	}
	return out;
}

/* Ours alone, in one piece, and as the pool wants to have it back. */
static inline bool is_plain(const struct eth_queue *q, const struct rte_mbuf *m)
{
	return m->pool == q->pool && RTE_MBUF_DIRECT(m) && rte_mbuf_refcnt_read(m) == 1;
}

static void free_frames(struct eth_queue *q, struct port_frame *frames, unsigned n)
{
	while (n) {
		unsigned burst = n < BURST ? n : BURST, k = 0;
		void *plain[BURST];

		for (unsigned i = 0; i < burst; i++) {
			struct rte_mbuf *m = frames[i].handle;

			if (__builtin_expect(frames[i].flags & PORT_TX_CHAINED, 0))
				rte_pktmbuf_free(m);
			else if (__builtin_expect(is_plain(q, m), 1))
				plain[k++] = m;
			else
				rte_pktmbuf_free_seg(m);
		}
		rte_mempool_generic_put(q->pool, plain, k, q->cache);
		frames += burst;
		n -= burst;
	}
}

static void eth_frames_done(struct port *p, struct port_frame *frames, unsigned n)
{
	free_frames(eth_of(p), frames, n);
}

static unsigned eth_tx_get(struct port *p, struct port_frame *frames, unsigned n)
{
	struct eth_queue *q = eth_of(p);
	const struct eth_port *e = q->port;
	void *mbufs[BURST];
	unsigned got = 0;

	if (__builtin_expect(!q->pool, 0))
		return 0;
	while (got < n) {
		unsigned k = n - got < BURST ? n - got : BURST;

		if (rte_mempool_generic_get(q->pool, mbufs, k, q->cache)) {
			if (k == 1)
				break;
			n = got + k / 2; /* the pool is nearly empty: take what there is */
			continue;
		}
		for (unsigned i = 0; i < k; i++, got++) {
			/* What the pool does not keep as a fresh mbuf has it, eth_tx sets. */
			frames[got].data = eth_room_of(mbufs[i]) + e->tx_off;
			frames[got].len = e->capacity;
			frames[got].flags = 0;
			frames[got].handle = mbufs[i];
		}
	}
	return got;
}

/* What of the checksum the NIC is to do: our frames have no options and no extension headers. */
static inline void ask_csum(const struct eth_port *e, struct rte_mbuf *m, const uint8_t *frame)
{
	bool v6 = frame[12] == 0x86;

	m->tx_offload = rte_mbuf_tx_offload(14, v6 ? 40 : 20, 0, 0, 0, 0, 0);
	m->ol_flags = v6 ? e->tx_csum_v6 : e->tx_csum_v4;
}

static unsigned eth_tx(struct port *p, struct port_frame *frames, unsigned n)
{
	struct eth_queue *q = eth_of(p);
	const struct eth_port *e = q->port;
	unsigned done = 0;

	if (__builtin_expect(!e->started, 0))
		return 0;
	adopt_thread();
	while (done < n) {
		unsigned k = n - done < BURST ? n - done : BURST;
		struct rte_mbuf *mbufs[BURST];
		uint16_t taken;

		for (unsigned i = 0; i < k; i++) {
			const struct port_frame *f = &frames[done + i];
			struct rte_mbuf *m = f->handle;

			m->data_off = (uint16_t)(f->data - eth_room_of(m));
			if (__builtin_expect(!(f->flags & PORT_TX_CHAINED), 1))
				m->data_len = (uint16_t)f->len;
			m->pkt_len = f->len;
			m->ol_flags = 0;
			if (f->flags & PORT_TX_CSUM)
				ask_csum(e, m, f->data);
			q->stats.tx_bytes += f->len;
			mbufs[i] = m;
		}
		taken = rte_eth_tx_burst(e->id, q->index, mbufs, (uint16_t)k);
		done += taken;
		if (taken < k) {
			for (unsigned i = taken; i < k; i++)
				q->stats.tx_bytes -= mbufs[i]->pkt_len;
			q->stats.tx_full++;
			break;
		}
	}
	q->stats.tx_frames += done;
	return done;
}

/* --- slow calls --- */

static bool is_up(const struct eth_port *e)
{
	return e->link.link_status == RTE_ETH_LINK_UP;
}

/* Why the port is without its device; once for each reason. */
static void tell_missing(struct eth_port *e, const char *why)
{
	if (strncmp(e->missing, why, sizeof e->missing - 1))
		sd_warn("port %s: %s", e->name, why);
	snprintf(e->missing, sizeof e->missing, "%s", why);
}

/* Can it be attached? */
static bool device_is_there(struct eth_port *e)
{
	char err[256];

	if (!plug_is_in(e->args, err, sizeof err)) {
		tell_missing(e, err);
		return false;
	}
	return peer_is_there(e->args);
}

static bool attach_again(struct eth_port *e)
{
	uint64_t now = sd_clock_ns();
	char err[256];

	if (now < e->attach_at || !device_is_there(e))
		return false;
	if (eth_attach(e, err, sizeof err)) {
		tell_missing(e, err);
		e->attach_at = now + (sd_pci_address(e->args, NULL) ? ATTACH_PAUSE * SD_MS : 0);
		return false;
	}
	if (*e->missing)
		sd_info("port %s has its device", e->name);
	*e->missing = 0;
	e->down_since = now;
	return true;
}

/* A device that connects only when it is started: attached when its peer is there, detached when that has
 * gone. And one that can be unplugged. */
static bool follow_device(struct eth_port *e)
{
	if (e->unplugging) {
		eth_detach(e);
		e->attach_at =
			sd_clock_ns() + ATTACH_PAUSE * SD_MS; /* the kernel is to have it gone by then */
		sd_warn("port %s: its device is unplugged", e->name);
		return false;
	}
	if (is_up(e) || (e->started && !peer_is_sought(e->args)))
		return false;
	if (e->started && sd_clock_ns() < e->down_since + MEETING_TIME * SD_MS)
		return false;
	eth_detach(e);
	return attach_again(e);
}

/* net_af_packet says that its link is up, whatever the interface's is. A socket of net_af_xdp cannot be
 * asked, and that driver asks itself. */
static bool interface_runs(const struct eth_port *e)
{
	struct ifreq req = {0};

	if (!if_indextoname(e->if_index, req.ifr_name))
		return false;
	return ioctl(e->packet_fd, SIOCGIFFLAGS, &req) ? errno != ENODEV : req.ifr_flags & IFF_RUNNING;
}

/* Some drivers act on what they see there, by means of an event. */
static void look_at_link(struct eth_port *e)
{
	events_run();
	if (!e->started)
		return;
	rte_eth_link_get_nowait(e->id, &e->link);
	events_run();
	rte_eth_link_get_nowait(e->id, &e->link);
	if (e->packet_fd >= 0 && !interface_runs(e))
		e->link.link_status = RTE_ETH_LINK_DOWN;
}

static bool eth_link_poll(struct port *p)
{
	struct eth_port *e = eth_of(p)->port;
	bool was_up = is_up(e), attached;
	sigset_t mask;

	manners_enter(&mask);
	look_at_link(e);
	if (was_up && !is_up(e))
		e->down_since = sd_clock_ns();
	attached = follow_device(e);
	if (attached)
		look_at_link(e);
	if (is_up(e) != was_up)
		eth_find_interrupts(e);
	manners_leave(&mask);
	return attached || is_up(e) != was_up;
}

static void eth_info(struct port *p, struct port_info *out)
{
	const struct eth_queue *q = eth_of(p);
	const struct eth_port *e = q->port;

	*out = (struct port_info){
		.name = e->name,
		.driver = e->driver,
		.mtu = e->mtu,
		.queues = e->queues[0].pool ? e->n_queues : 1,
		.numa_node = e->started ? rte_eth_dev_socket_id(e->id) : -1,
		.caps = e->caps | (q->intr_fd >= 0 ? PORT_CAP_RX_INTR : 0),
		.link_up = is_up(e),
	};
	memcpy(out->mac, e->mac, sizeof out->mac);
}

static void eth_stats(struct port *p, struct port_stats *out)
{
	const struct eth_queue *q = eth_of(p);
	const struct eth_port *e = q->port;
	struct rte_eth_stats hw;

	*out = q->stats;
	if (!q->index && e->started && !rte_eth_stats_get(e->id, &hw)) {
		out->rx_missed = hw.imissed + hw.rx_nombuf;
		out->rx_errors += hw.ierrors;
	}
}

static void eth_close(struct port *p)
{
	struct eth_port *e = eth_of(p)->port;
	sigset_t mask;

	manners_enter(&mask);
	eth_detach(e);
	for (unsigned i = 0; i < e->n_queues; i++)
		rte_mempool_free(e->queues[i].pool);
	manners_leave(&mask);
	free(e);
}

static unsigned eth_backlog(struct port *p)
{
	const struct eth_queue *q = eth_of(p);
	int n = q->port->started ? rte_eth_rx_queue_count(q->port->id, q->index) : 0;

	return n > 0 ? (unsigned)n * 256 / q->port->rx_descriptors : 0;
}

static struct port *eth_queue(struct port *p, unsigned i)
{
	return &eth_of(p)->port->queues[i].base;
}

static const struct port_ops eth_ops = {
	.size = sizeof(struct port_ops),
	.name = "ethdev",
	.rx = eth_rx,
	.rx_done = eth_frames_done,
	.tx_get = eth_tx_get,
	.tx_put = eth_frames_done,
	.tx = eth_tx,
	.wait_fd = eth_wait_fd,
	.arm = eth_arm,
	.disarm = eth_disarm,
	.link_poll = eth_link_poll,
	.info = eth_info,
	.stats = eth_stats,
	.queue = eth_queue,
	.backlog = eth_backlog,
	.close = eth_close,
	.map = eth_map,
	.unmap = eth_unmap,
	.set_released = eth_set_released,
	.tx_chain = eth_tx_chain,
	.reclaim = eth_reclaim,
};

/* --- opening --- */

/* A device that seeks its peer may have to wait for it, and one on the bus may be plugged in later: then the
 * port is there, with its link down. */
static int open_device(struct eth_port *e, char *err, size_t err_len)
{
	sigset_t mask;
	int r;

	if (!device_is_there(e)) {
		eth_await(e);
		return 0;
	}
	manners_enter(&mask);
	r = eth_attach(e, err, err_len);
	if (!r)
		look_at_link(e);
	e->down_since = sd_clock_ns();
	manners_leave(&mask);
	return r;
}

static struct eth_port *make(const struct port_config *cfg)
{
	struct eth_port *e = aligned_alloc(RTE_CACHE_LINE_SIZE, sizeof *e);

	if (!e)
		return NULL;
	memset(e, 0, sizeof *e);
	for (uint16_t i = 0; i < ETH_QUEUES_MAX; i++) {
		e->queues[i].base.ops = &eth_ops;
		e->queues[i].port = e;
		e->queues[i].index = i;
		e->queues[i].intr_fd = -1;
	}
	e->packet_fd = -1;
	e->caps = PORT_CAP_BROADCAST | PORT_CAP_LINK;
	snprintf(e->name, sizeof e->name, "%s", cfg->name ? cfg->name : cfg->device);
	e->cfg = *cfg;
	e->cfg.name = e->name;
	e->cfg.device = e->args;
	e->cfg.eal_args = e->cfg.hugepages = NULL;
	return e;
}

__attribute__((visibility("default"))) int port_ethdev_prepare(
	const struct port_config *cfg, char *err, size_t err_len)
{
	int r = manners_teach();

	if (r)
		snprintf(err, err_len, "cannot prepare DPDK's libraries: %s", strerror(-r));
	if (!r)
		r = devargs_check(cfg, err, err_len);
	return r ? r : eal_start(cfg, err, err_len);
}

__attribute__((visibility("default"))) int port_ethdev_open(
	const struct port_config *cfg, struct port **out, char *err, size_t err_len)
{
	struct eth_port *e;
	int r = port_ethdev_prepare(cfg, err, err_len);

	if (!r)
		r = peer_make_way(cfg->device, err, err_len);
	if (r)
		return r;
	e = make(cfg);
	if (!e) {
		snprintf(err, err_len, "%s: out of memory", cfg->device);
		return -ENOMEM;
	}
	r = devargs_complete(cfg, e->args, sizeof e->args);
	if (r)
		snprintf(err, err_len, "%s: too long", cfg->device);
	else
		r = open_device(e, err, err_len);
	if (r) {
		eth_close(&e->queues[0].base);
		return r;
	}
	*out = &e->queues[0].base;
	return 0;
}

__attribute__((visibility("default"))) void port_ethdev_set_fd_guard(port_fd_guard *guard, void *ctx)
{
	manners_set_guard(guard, ctx);
}

__attribute__((visibility("default"))) void port_ethdev_set_log(
	enum sd_log_level level, sd_log_sink *sink, void *ctx)
{
	sd_log_open(level, sink, ctx);
}
