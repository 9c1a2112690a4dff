/* SPDX-License-Identifier: BSD-3-Clause */
/* attach: the slow part of an ethdev port: finding the device, settling what it can do, starting and removing
 * it. */
#include <errno.h>
#include <net/if.h>
#include <rte_bus_vdev.h>
#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mbuf_pool_ops.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mac.h"
#include "drivers/dpdk/devargs.h"
#include "drivers/dpdk/ethdev.h"
#include "drivers/dpdk/events.h"
#include "drivers/dpdk/flow.h"
#include "drivers/dpdk/manners.h"
#include "drivers/dpdk/node.h"
#include "drivers/dpdk/plug.h"
#include "drivers/dpdk/standin.h"
#include "drivers/dpdk/xdp.h"

enum {
	DEFAULT_MTU = 1500,
	DEFAULT_DESCRIPTORS = 1024,
	POOL_CACHE = 256,
	POOL_EXTRA = 1024, /* frames that the caller, the cache and bursts hold */
	FRAME_EXTRA = 64,
	XDP_TRIES = 25,
	XDP_PAUSE = 20,	    /* ms */
	VIRTIO_HEADER = 12, /* which virtio drivers put in front of a frame */
	MAX_FRAME = 65535 - RTE_PKTMBUF_HEADROOM,
};

static int fail(int code, char *err, size_t err_len, const struct port_config *cfg, const char *what)
{
	switch (code) {
	case -EBUSY:
	case -EEXIST:
		snprintf(
			err, err_len, "%s: in use already; give this process a port of its own", cfg->device);
		return -EBUSY;
	case -EACCES:
		snprintf(err, err_len, "%s: %s: not permitted; run as root or grant access to the device",
			cfg->device, what);
		return -EPERM;
	case -EPERM: /* drivers return -1 for all sorts of reasons */
		snprintf(err, err_len, "%s: %s; SANDIRECT_LOG=debug says why%s", cfg->device, what,
			geteuid() ? ", or try as root" : "");
		return -ENODEV;
	case -ENOMEM:
		snprintf(err, err_len,
			"%s: %s: out of memory; more hugepages, fewer descriptors or a smaller MTU",
			cfg->device, what);
		return -ENOMEM;
	default:
		snprintf(err, err_len, "%s: %s: %s; SANDIRECT_LOG=debug says why", cfg->device, what,
			strerror(-code));
		return code == -EINVAL || code == -ENOTSUP ? -EINVAL : -ENODEV;
	}
}

/* Whose a device is: EAL gives one that is attached already to whoever asks for it again. */
static _Atomic(struct eth_port *) owners[RTE_MAX_ETHPORTS];

static int probe(struct eth_port *e, const struct port_config *cfg, char *err, size_t err_len)
{
	struct rte_dev_iterator it;
	uint16_t id;
	int r = rte_dev_probe(cfg->device);

	if (r)
		return fail(r, err, err_len, cfg, "cannot attach");
	RTE_ETH_FOREACH_MATCHING_DEV(id, cfg->device, &it)
	{
		struct eth_port *nobody = NULL;

		rte_eth_iterator_cleanup(&it);
		if (!atomic_compare_exchange_strong(&owners[id], &nobody, e))
			return fail(-EBUSY, err, err_len, cfg, "cannot attach");
		e->id = id;
		return 0;
	}
	return fail(-ENODEV, err, err_len, cfg, "the device has no Ethernet port");
}

/* The MTU of the kernel's interface that the device is tied to; 0: none is. */
static unsigned interface_mtu(unsigned index)
{
	struct ifreq req = {0};
	int fd, r = -1;

	if (!index || !if_indextoname(index, req.ifr_name))
		return 0;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0) {
		r = ioctl(fd, SIOCGIFMTU, &req);
		close(fd);
	}
	return r ? 0 : (unsigned)req.ifr_mtu;
}

/*
 * Settles the MTU: at most what was asked for. Drivers of software devices give Ethernet's usual limit, and
 * ethdev insists on it, though none of them keeps to it: ethdev is told what it likes to hear.
 */
static uint16_t choose_mtu(
	struct eth_port *e, const struct port_config *cfg, const struct rte_eth_dev_info *info)
{
	unsigned want = cfg->mtu ? cfg->mtu : DEFAULT_MTU, most = interface_mtu(info->if_index), nominal;

	if (info->max_mtu && want > info->max_mtu)
		want = info->max_mtu;
	if (most && want > most)
		want = most;
	if (want > MAX_FRAME - FRAME_EXTRA)
		want = MAX_FRAME - FRAME_EXTRA;
	if (e->capacity &&
		want > e->capacity - FRAME_EXTRA) /* another device than before: the frames are the same */
		want = e->capacity - FRAME_EXTRA;
	e->mtu = (uint16_t)want;
	nominal = info->max_rx_pktlen - RTE_ETHER_HDR_LEN - RTE_ETHER_CRC_LEN;
	return (uint16_t)(info->max_mtu == UINT16_MAX && nominal < want ? nominal : want);
}

/* How many pairs of queues: what is wanted, or one. A virtual device whose other end has to have as many is
 * told so by its arguments; but for memif, which goes on with fewer and would lose what the others send. Of
 * af_packet's sockets we know one; which of its queues the kernel gives net_tap a frame in is untried. */
static uint16_t choose_queues(
	const struct eth_port *e, const struct port_config *cfg, const struct rte_eth_dev_info *info)
{
	unsigned most = RTE_MIN(info->max_rx_queues, info->max_tx_queues);

	if (!cfg->queues || cfg->queues > RTE_MIN(most, (unsigned)ETH_QUEUES_MAX) || e->packet_fd >= 0 ||
		devargs_is_driver(cfg->device, "net_af_xdp") || devargs_is_driver(cfg->device, "net_memif") ||
		devargs_is_driver(cfg->device, "net_tap"))
		return 1;
	return (uint16_t)cfg->queues;
}

/* With receive interrupts, and frames spread by their addresses and ports, if the device does that. */
static int configure_as(struct eth_port *e, struct rte_eth_conf *conf, const struct rte_eth_dev_info *info)
{
	uint64_t hash = info->flow_type_rss_offloads & (RTE_ETH_RSS_IP | RTE_ETH_RSS_UDP);
	int r = -EINVAL;

	for (int spread = e->n_queues > 1 && hash; spread >= 0 && r; spread--) {
		conf->rxmode.mq_mode = spread ? RTE_ETH_MQ_RX_RSS : RTE_ETH_MQ_RX_NONE;
		conf->rx_adv_conf.rss_conf.rss_hf = spread ? hash : 0;
		for (int intr = 1; intr >= 0 && r; intr--) {
			conf->intr_conf.rxq = (uint32_t)intr;
			r = rte_eth_dev_configure(e->id, e->n_queues, e->n_queues, conf);
		}
	}
	return r;
}

static int configure(struct eth_port *e, const struct port_config *cfg, const struct rte_eth_dev_info *info)
{
	struct rte_eth_conf conf = {0};
	int r;

	if (!e->n_queues)
		e->n_queues = choose_queues(e, cfg, info);
	conf.rxmode.mtu = choose_mtu(e, cfg, info);
	conf.rxmode.offloads =
		info->rx_offload_capa & (RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM);
	conf.txmode.offloads = info->tx_offload_capa & RTE_ETH_TX_OFFLOAD_UDP_CKSUM;
	if (cfg->ext_tx && eth_sends_from_anywhere(e) && conf.txmode.offloads &&
		info->tx_offload_capa & RTE_ETH_TX_OFFLOAD_MULTI_SEGS) {
		conf.txmode.offloads |= RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
		e->caps |= PORT_CAP_EXT_TX;
	}
	r = configure_as(e, &conf, info);
	if (conf.rxmode.offloads & RTE_ETH_RX_OFFLOAD_UDP_CKSUM)
		e->caps |= PORT_CAP_RX_CSUM;
	if (conf.txmode.offloads) {
		e->caps |= PORT_CAP_TX_CSUM;
		e->tx_csum_v4 = RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_UDP_CKSUM;
		e->tx_csum_v6 = RTE_MBUF_F_TX_IPV6 | RTE_MBUF_F_TX_UDP_CKSUM;
	}
	return r;
}

/* The device's node, whose memory it reaches best. Without hugepages there is one kind of memory, which comes
 * from where the thread runs. */
static int node_of(const struct eth_port *e)
{
	return rte_eal_has_hugepages() ? rte_eth_dev_socket_id(e->id) : SOCKET_ID_ANY;
}

/* May this thread run where the device is? */
static void check_node(const struct eth_port *e)
{
	int node = rte_eth_dev_socket_id(e->id);

	if (node < 0 || node_is_allowed(node))
		return;
	sd_warn("port %s: its device is on NUMA node %d, and this thread may not run there: every packet "
		"crosses between nodes; allow it CPUs of that node (numactl --cpunodebind=%d; "
		"a daemon's are its cores)",
		e->name, node, node);
}

/* Its frames lie as close as they can: net_af_xdp works out from their number how much memory they are in,
 * and is wrong where none may cross a page. */
static struct rte_mempool *new_dense_pool(const char *name, unsigned n, unsigned room, int node)
{
	struct rte_pktmbuf_pool_private p = {.mbuf_data_room_size = (uint16_t)room};
	struct rte_mempool *pool = rte_mempool_create_empty(name, n, (unsigned)sizeof(struct rte_mbuf) + room,
		POOL_CACHE, sizeof p, node, RTE_MEMPOOL_F_NO_IOVA_CONTIG);
	int r;

	if (!pool)
		return NULL;
	r = rte_mempool_set_ops_byname(pool, rte_mbuf_best_mempool_ops(), NULL);
	if (!r) {
		rte_pktmbuf_pool_init(pool, &p);
		r = rte_mempool_populate_default(pool);
	}
	if (r < 0) {
		rte_mempool_free(pool);
		rte_errno = -r;
		return NULL;
	}
	rte_mempool_obj_iter(pool, rte_pktmbuf_init, NULL);
	return pool;
}

static int create_pool(struct eth_port *e, struct eth_queue *q, unsigned room, unsigned descriptors)
{
	static _Atomic unsigned serial;
	uint16_t bytes = (uint16_t)(room + RTE_PKTMBUF_HEADROOM);
	unsigned n = descriptors + POOL_EXTRA;
	char name[32];

	snprintf(name, sizeof name, "sandirect-%u", serial++);
	q->pool = strcmp(e->driver, "net_af_xdp")
			  ? rte_pktmbuf_pool_create(name, n, POOL_CACHE, 0, bytes, e->node)
			  : new_dense_pool(name, n, bytes, e->node);
	if (!q->pool)
		return -rte_errno;
	q->cache = rte_mempool_default_cache(q->pool, rte_get_main_lcore());
	return 0;
}

/* Once, for all queues or none: later attachments use the same. */
static int create_pools(struct eth_port *e, const char *device, unsigned descriptors)
{
	unsigned header = strstr(e->driver, "virtio") ? VIRTIO_HEADER : 0;
	unsigned room = RTE_ALIGN_CEIL(e->mtu + FRAME_EXTRA + header, 64);
	int r = 0;

	if (e->queues[0].pool)
		return 0;
	if (room < RTE_MBUF_DEFAULT_DATAROOM)
		room = RTE_MBUF_DEFAULT_DATAROOM;
	if (room < devargs_frame_room(device))
		room = devargs_frame_room(device);
	if (room > MAX_FRAME)
		room = MAX_FRAME;
	/* The driver's header is to begin a cache line together with the frame. */
	e->tx_off = (uint16_t)(RTE_PKTMBUF_HEADROOM + header);
	e->capacity = room - header;
	e->node = node_of(e);
	for (unsigned i = 0; !r && i < e->n_queues; i++)
		r = create_pool(e, &e->queues[i], room, descriptors);
	if (r == -ENOMEM && e->node >= 0) {
		sd_warn("port %s: NUMA node %d, where its device is, has no hugepages left; it takes others",
			e->name, e->node);
		e->node = SOCKET_ID_ANY;
		for (unsigned i = r = 0; !r && i < e->n_queues; i++)
			r = e->queues[i].pool ? 0 : create_pool(e, &e->queues[i], room, descriptors);
	}
	for (unsigned i = 0; r && i < e->n_queues; i++) {
		rte_mempool_free(e->queues[i].pool);
		e->queues[i].pool = NULL;
	}
	return r;
}

/* One pair of queues, if there is no memory for more. */
static int create_pools_or_one(struct eth_port *e, const struct port_config *cfg,
	const struct rte_eth_dev_info *info, unsigned descriptors)
{
	int r = create_pools(e, cfg->device, descriptors);

	if (r != -ENOMEM || e->n_queues == 1)
		return r;
	sd_warn("port %s: no memory for %u pairs of queues; it goes on with one", e->name, e->n_queues);
	e->n_queues = 1;
	r = configure(e, cfg, info);
	return r ? r : create_pools(e, cfg->device, descriptors);
}

static int set_up_queues(struct eth_port *e, uint16_t rx, uint16_t tx)
{
	unsigned node = (unsigned)e->node;
	int r = 0;

	for (uint16_t i = 0; !r && i < e->n_queues; i++) {
		r = rte_eth_rx_queue_setup(e->id, i, rx, node, NULL, e->queues[i].pool);
		if (!r)
			r = rte_eth_tx_queue_setup(e->id, i, tx, node, NULL);
	}
	return r;
}

/* A NIC that the kernel keeps: only what is the SAN's is to come here. Without that the kernel's interface
 * would hear nothing any more. */
static int isolate(struct eth_port *e, const struct port_config *cfg, char *err, size_t err_len)
{
	const char *why;
	int r = flow_isolate(e->id, &why);

	if (r)
		snprintf(err, err_len,
			"%s: its interface would lose its traffic, as the driver does not leave the kernel "
			"what is not the SAN's (%s); update the NIC's firmware, or use net_af_xdp on the "
			"interface",
			cfg->device, why);
	return r ? -ENOTSUP : 0;
}

static int steer(struct eth_port *e, const struct port_config *cfg, char *err, size_t err_len)
{
	const char *why;
	int r = flow_steer(e->id, e->n_queues, &why);

	if (r)
		snprintf(err, err_len,
			"%s: the NIC does not lead UDP port %u to us (%s); use net_af_xdp on its interface",
			cfg->device, PORT_UDP_PORT, why);
	return r ? -ENOTSUP : 0;
}

/* The device's address, ours on the device, or just ours where the device does not filter. */
static void set_mac(struct eth_port *e, const struct port_config *cfg)
{
	struct rte_ether_addr mac, own;

	rte_eth_macaddr_get(e->id, &own);
	mac = own;
	if (!sd_mac_is_none(e->mac)) /* peers know this one */
		memcpy(mac.addr_bytes, e->mac, sizeof e->mac);
	else if (!sd_mac_is_none(cfg->mac))
		memcpy(mac.addr_bytes, cfg->mac, sizeof cfg->mac);
	else if (!strcmp(e->driver, "net_vhost")) /* has the same address everywhere */
		sd_mac_draw(mac.addr_bytes);
	memcpy(e->mac, mac.addr_bytes, sizeof e->mac);
	if (rte_is_same_ether_addr(&mac, &own)) /* an interface that the kernel shares is left alone */
		return;
	if (e->bifurcated
			? rte_eth_dev_mac_addr_add(e->id, &mac, 0)
			: rte_eth_dev_default_mac_addr_set(e->id, &mac) && rte_eth_promiscuous_enable(e->id))
		sd_warn("port %s: %s takes no other MAC address than its own, so it may hear nothing; "
			"configure no mac",
			e->name, e->driver);
}

static int start(struct eth_port *e, const struct port_config *cfg, char *err, size_t err_len)
{
	uint16_t rx = (uint16_t)(cfg->rx_descriptors ? cfg->rx_descriptors : DEFAULT_DESCRIPTORS);
	uint16_t tx = (uint16_t)(cfg->tx_descriptors ? cfg->tx_descriptors : DEFAULT_DESCRIPTORS);
	struct rte_eth_dev_info info;
	int r;

	r = rte_eth_dev_info_get(e->id, &info);
	if (r)
		return fail(r, err, err_len, cfg, "no information");
	e->device = info.device;
	plug_watch(e->device, &e->unplugging);
	e->if_index = info.if_index;
	e->packet_fd = manners_packet_socket(); /* net_af_xdp makes its socket with the queues */
	e->caps = PORT_CAP_BROADCAST | PORT_CAP_LINK;
	snprintf(e->driver, sizeof e->driver, "%s", info.driver_name);
	check_node(e);
	e->bifurcated = flow_is_bifurcated(&info);
	r = e->bifurcated ? isolate(e, cfg, err, err_len) : 0;
	if (r)
		return r;
	r = configure(e, cfg, &info);
	if (r)
		return fail(r, err, err_len, cfg, "cannot configure");
	rte_eth_dev_adjust_nb_rx_tx_desc(e->id, &rx, &tx);
	e->rx_descriptors = rx;
	r = create_pools_or_one(e, cfg, &info, rx + tx);
	if (!r)
		r = set_up_queues(e, rx, tx);
	if (r)
		return fail(r, err, err_len, cfg, "cannot set up queues");
	if (devargs_is_driver(cfg->device, "net_af_xdp"))
		e->packet_fd = xdp_socket();
	set_mac(e, cfg);
	r = rte_eth_dev_start(e->id);
	if (r)
		return fail(r, err, err_len, cfg, "cannot start");
	e->started = true;
	r = e->bifurcated ? steer(e, cfg, err, err_len) : 0;
	if (r)
		return r;
	standin_leave();
	rte_eth_link_get_nowait(e->id, &e->link);
	eth_find_interrupts(e);
	return 0;
}

void eth_await(struct eth_port *e)
{
	e->mtu = e->cfg.mtu ? e->cfg.mtu : DEFAULT_MTU;
	memcpy(e->mac, e->cfg.mac, sizeof e->mac);
	if (e->cfg.needs_mac && sd_mac_is_none(e->mac))
		sd_mac_draw(e->mac);
}

static int attach(struct eth_port *e, char *err, size_t err_len)
{
	int r = probe(e, &e->cfg, err, err_len);

	if (!r)
		r = start(e, &e->cfg, err, err_len);
	standin_leave();
	if (r)
		eth_detach(e);
	if (!e->queues[0].pool)
		e->n_queues = 0; /* to be settled by another try */
	return r;
}

/* The kernel takes its time to let go of an AF_XDP socket that was closed, in this process or another one.
 * The driver does not give back what frames it had then: the pool is made anew, unless it has been used. */
static int attach_xdp(struct eth_port *e, char *err, size_t err_len)
{
	const struct timespec pause = {0, XDP_PAUSE * 1000000};
	bool fresh = !e->queues[0].pool;
	char iface[IF_NAMESIZE];
	int r = -EINVAL;

	if (devargs_get(e->args, "iface", iface, sizeof iface))
		r = xdp_clear(iface, err, err_len);
	if (r)
		return r;
	xdp_begin(e);
	for (unsigned i = 0; i < XDP_TRIES; i++) {
		r = attach(e, err, err_len);
		if (r != -EINVAL)
			break;
		if (fresh) {
			rte_mempool_free(e->queues[0].pool);
			e->queues[0].pool = NULL;
		}
		nanosleep(&pause, NULL);
	}
	xdp_end();
	return r;
}

int eth_attach(struct eth_port *e, char *err, size_t err_len)
{
	return devargs_is_driver(e->args, "net_af_xdp") ? attach_xdp(e, err, err_len)
							: attach(e, err, err_len);
}

void eth_detach(struct eth_port *e)
{
	events_run(); /* nothing is left to be done for this device later */
	if (e->started)
		rte_eth_dev_stop(e->id);
	if (e->device) {
		plug_unwatch(e->device, &e->unplugging);
		rte_eth_dev_close(e->id);
		rte_dev_remove(e->device);
	}
	if (owners[e->id] == e)
		owners[e->id] = NULL;
	xdp_release(e);
	e->started = e->unplugging = false;
	e->device = NULL;
	e->link = (struct rte_eth_link){.link_status = RTE_ETH_LINK_DOWN};
	e->packet_fd = -1;
	for (unsigned i = 0; i < ETH_QUEUES_MAX; i++)
		e->queues[i].intr_fd = -1;
}
