/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ether: the transport over NIC ports as a provider. This half knows addresses and routes, opens the ports
 * when they are first needed, and serves the domain; ether_ep.c holds the endpoints. A configured port stands
 * for one kernel interface (netdev): its addresses are ours, and a destination is on the SAN when the kernel
 * would send to it by that interface without a router. Guarded by the domain's token.
 */
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "provider/crew.h"
#include "provider/domain_private.h"
#include "provider/ether_private.h"
#include "provider/portlock.h"
#include "transport/cc.h"

#define RETRY_START_NS (1 * SD_S)
#define NETIF_POLL_NS  (10 * SD_MS)
/* How often a port without receive interrupts is looked at while everybody sleeps. */
#define BLIND_POLL_NS (100 * SD_US)
/* A link that is down is looked at this often: a port that waits for its peer learns of it by that. */
#define DOWN_POLL_NS (20 * SD_MS)
/* And one that is up: nothing else tells that the peer has gone. */
#define UP_POLL_NS (100 * SD_MS)

static struct ether *of(struct pv *p)
{
	return container_of(p, struct ether, pv);
}

/* --- addresses and routes --- */

static void guard_netif(struct ether *x, bool own)
{
	pv_domain_guard_fd(x->pv.domain, netif_fd(x->netif), own ? PV_GUARD_OWN : PV_GUARD_NONE);
	pv_domain_guard_fd(x->pv.domain, netif_dump_fd(x->netif), own ? PV_GUARD_OWN : PV_GUARD_NONE);
}

static bool netif_ready(struct ether *x)
{
	uint64_t now;

	if (x->netif && x->netif_owner != getpid()) {
		/* The parent's socket would lose it messages if we read them. Its copy stays with it. */
		x->netif = NULL;
	}
	now = sd_clock_ns();
	if (!x->netif) {
		if (netif_open(&x->netif)) {
			x->netif = NULL;
			sd_error("cannot read addresses and routes from the kernel (rtnetlink); everything "
				 "uses TCP");
			return false;
		}
		x->netif_owner = getpid();
		x->netif_polled = now;
		guard_netif(x, true);
	} else if (now - x->netif_polled > NETIF_POLL_NS) {
		netif_poll(x->netif);
		x->netif_polled = now;
	}
	return true;
}

static int port_of_ifindex(struct ether *x, int ifindex)
{
	for (unsigned i = 0; i < x->cfg.n_ports; i++) {
		if (ifindex && netif_index(x->netif, x->ports[i].netdev) == ifindex)
			return i;
	}
	return -1;
}

/* The port and source address for peer; a bound *local is kept and must belong to the port. */
enum sd_reason ether_find_route(struct ether *x, const struct sd_addr *peer, struct sd_addr *local, int *port)
{
	struct sd_addr addrs[ENGINE_MAX_ADDRS];
	struct netif_route r;
	unsigned n;
	int index;

	if (!x->cfg.n_ports)
		return SD_REASON_NO_PORT;
	if (sd_addr_is_any(peer) || !netif_ready(x) || netif_route(x->netif, peer, &r))
		return SD_REASON_NO_ROUTE;
	if (r.local)
		return SD_REASON_LOCAL;
	index = port_of_ifindex(x, r.ifindex);
	if (index < 0)
		return SD_REASON_NO_ROUTE;
	if (!r.onlink)
		return SD_REASON_GATEWAY;
	*port = index;
	if (local->family && !sd_addr_is_any(local))
		return netif_has_addr(x->netif, r.ifindex, local) ? SD_REASON_SAN : SD_REASON_NO_ROUTE;
	if (r.source.family) {
		r.source.port = local->port;
		*local = r.source;
		return SD_REASON_SAN;
	}
	n = netif_addrs(x->netif, r.ifindex, addrs, ENGINE_MAX_ADDRS);
	for (unsigned i = 0; i < n && i < ENGINE_MAX_ADDRS; i++) {
		if (addrs[i].family == peer->family) {
			addrs[i].port = local->port;
			*local = addrs[i];
			return SD_REASON_SAN;
		}
	}
	return SD_REASON_NO_ROUTE;
}

static enum sd_reason ether_route(struct pv *p, const struct sd_addr *peer, struct sd_addr *local)
{
	int port;

	return ether_find_route(of(p), peer, local, &port);
}

static bool ether_serves(struct pv *p, const struct sd_addr *local)
{
	struct ether *x = of(p);

	if (!x->cfg.n_ports || !netif_ready(x))
		return false;
	if (sd_addr_is_any(local))
		return true;
	for (unsigned i = 0; i < x->cfg.n_ports; i++) {
		int ifindex = netif_index(x->netif, x->ports[i].netdev);

		if (ifindex && netif_has_addr(x->netif, ifindex, local))
			return true;
	}
	return false;
}

void ether_give_addrs(struct ether *x)
{
	struct sd_addr addrs[ENGINE_MAX_ADDRS];
	unsigned n;

	for (unsigned i = 0; i < x->engine.n_ports; i++) {
		n = netif_addrs(x->netif, netif_index(x->netif, x->ports[i].netdev), addrs, ENGINE_MAX_ADDRS);
		engine_set_addrs(&x->engine, i, addrs, n < ENGINE_MAX_ADDRS ? n : ENGINE_MAX_ADDRS);
	}
	x->netif_seen = netif_generation(x->netif);
}

/* --- starting --- */

/* To peers a crew is one host. */
static int choose_secrets(const struct ether *x, struct tp_config *tc)
{
	const struct pv_ether_crew *crew = x->cfg.crew;

	if (crew) {
		memcpy(tc->seed, crew->seed, sizeof tc->seed);
		memcpy(tc->node_key, crew->node_key, sizeof tc->node_key);
		tc->engine = (uint8_t)x->cfg.member;
		return 0;
	}
	return crew_draw_secrets(tc->seed, tc->node_key);
}

static int open_transport(struct ether *x)
{
	struct resolver_config rc = {x->cfg.find_timeout_ns, x->cfg.negative_ttl_ns, x->cfg.positive_ttl_ns};
	struct engine_ops eo = {ether_ep_event, ether_ep_acceptable, ether_ep_resolved, x};
	struct tp_config tc = {
		.size = sizeof tc,
		.crc = x->cfg.crc,
		.window_packets = x->cfg.window_packets,
		.ring_min = x->cfg.ring_min,
		.ring_max = x->cfg.ring_max,
		.dead_timeout_ns = x->cfg.dead_timeout_ns,
		.keepalive_ns = x->cfg.keepalive_ns,
		.connect_timeout_ns = x->cfg.connect_timeout_ns,
		.cc = tp_cc_named(x->cfg.congestion),
	};

	int r = choose_secrets(x, &tc);

	return r ? r : engine_open(&x->engine, &tc, &rc, &eo, sd_clock_ns());
}

static void stop(struct ether *x)
{
	list_for_each (it, &x->listeners)
		container_of(it, struct ether_ep, node)->listener = NULL;
	if (x->engine.tp)
		tp_destroy(x->engine.tp);
	x->engine.tp = NULL;
	ether_close_ports(x);
	engine_close(&x->engine);
}

static enum sd_reason start_transport(struct ether *x)
{
	int r;

	if (!netif_ready(x))
		return SD_REASON_START_FAILED;
	r = open_transport(x);
	if (!r)
		return SD_REASON_SAN;
	sd_error("the transport could not be set up: %s; connections use kernel TCP", strerror(-r));
	return ether_reason_of(r);
}

enum sd_reason ether_start_from(struct ether *x, struct sd_unpack *saved)
{
	x->failed = start_transport(x);
	if (x->failed == SD_REASON_SAN)
		x->failed = ether_open_ports(x, saved != NULL);
	if (x->failed == SD_REASON_SAN) {
		list_for_each (it, &x->listeners)
			ether_ep_listen_now(container_of(it, struct ether_ep, node));
		if (saved)
			x->failed = ether_restore_transport(x, saved);
	}
	if (x->failed != SD_REASON_SAN) {
		x->retry_at = sd_clock_ns() + RETRY_START_NS;
		stop(x);
		return x->failed;
	}
	if (saved) /* not a packet before it is certain that nobody else goes on */
		return SD_REASON_SAN;
	engine_announce(&x->engine);
	engine_flush(&x->engine, sd_clock_ns());
	return SD_REASON_SAN;
}

static enum sd_reason ether_start(struct pv *p)
{
	struct ether *x = of(p);

	if (x->started)
		return SD_REASON_SAN;
	if (!x->cfg.n_ports)
		return SD_REASON_NO_PORT;
	if (x->failed && sd_clock_ns() < x->retry_at)
		return x->failed;
	return ether_start_from(x, NULL);
}

/* --- endpoints --- */

static int ether_listen(struct pv *p, int socket, const struct sd_addr *local, unsigned backlog, void *user,
	struct pv_ep **out)
{
	struct ether *x = of(p);
	struct ether_ep *e;
	int r;

	list_for_each (it, &x->listeners) {
		if (sd_addr_equal(&container_of(it, struct ether_ep, node)->local, local))
			return -EADDRINUSE;
	}
	e = ether_ep_new(x, user);
	if (!e)
		return -ENOMEM;
	e->state = ETHER_LISTENING;
	e->local = *local;
	e->backlog = backlog;
	r = x->started ? ether_ep_listen_now(e) : 0;
	if (r) {
		free(e);
		return r;
	}
	list_push_back(&x->listeners, &e->node);
	*out = &e->ep;
	return 0;
}

/* Once, after a start: without it the first connection of a short-lived client would always be TCP's. */
static void await_link(struct ether *x, unsigned index)
{
	uint64_t now = sd_clock_ns();

	while (!x->engine.ports[index].info.link_up && now < x->link_expected) {
		engine_poll_links(&x->engine, now);
		nanosleep(&(struct timespec){.tv_nsec = SD_MS}, NULL);
		now = sd_clock_ns();
	}
}

static int ether_connect(struct pv *p, int socket, const struct sd_addr *local, const struct sd_addr *peer,
	void *user, struct pv_ep **out)
{
	struct ether *x = of(p);
	struct sd_addr source = *local;
	struct ether_ep *e;
	int port;

	if (!x->started || ether_find_route(x, peer, &source, &port) != SD_REASON_SAN)
		return -ENETUNREACH;
	e = ether_ep_new(x, user);
	if (!e)
		return -ENOMEM;
	e->local = source;
	e->peer = *peer;
	await_link(x, (unsigned)port);
	ether_ep_connect(e, port, sd_clock_ns());
	*out = &e->ep;
	return 0;
}

/* --- for the domain --- */

static bool all_links_up(const struct ether *x)
{
	for (unsigned i = 0; i < x->engine.n_ports; i++) {
		if (!x->engine.ports[i].info.link_up)
			return false;
	}
	return true;
}

/* What was received for the others counts as work: who has done it does not go to sleep. */
static unsigned handed_over(struct ether *x)
{
	uint64_t before = x->handed;

	x->handed = crew_handed_by(x->cfg.crew, x->cfg.member);
	return (unsigned)(x->handed - before);
}

static unsigned ether_progress(struct pv *p, uint64_t now)
{
	struct ether *x = of(p);
	unsigned work;

	if (!x->started)
		return 0;
	if (__builtin_expect(now >= x->poll_links_at, 0)) {
		engine_poll_links(&x->engine, now);
		x->poll_links_at = now + (all_links_up(x) ? UP_POLL_NS : DOWN_POLL_NS);
	}
	work = engine_progress(&x->engine, now);
	return x->cfg.crew ? work + handed_over(x) : work;
}

static uint64_t ether_deadline(struct pv *p)
{
	struct ether *x = of(p);
	uint64_t due;

	if (!x->started)
		return UINT64_MAX;
	due = engine_deadline(&x->engine);
	return due < x->poll_links_at ? due : x->poll_links_at;
}

/* Arms port i; adds its descriptor to the set of several ports. */
static int arm_port(struct ether *x, unsigned i, uint64_t *max_sleep_ns)
{
	struct port *port = x->engine.ports[i].port;
	struct epoll_event ev = {.events = EPOLLIN};
	int fd = port->ops->wait_fd(port);

	if (fd == -EAGAIN) /* nothing can come */
		return fd;
	if (fd < 0 || port->ops->arm(port)) {
		*max_sleep_ns = BLIND_POLL_NS;
		return -ENOTSUP;
	}
	/* A port may have changed its descriptor since: those that are there already say EEXIST. */
	if (x->wait_set >= 0)
		epoll_ctl(x->wait_set, EPOLL_CTL_ADD, fd, &ev);
	return fd;
}

static int ether_arm(struct pv *p, uint64_t *max_sleep_ns)
{
	struct ether *x = of(p);
	int fd = -ENOTSUP;

	if (!x->started)
		return pv_no_arm(p, max_sleep_ns);
	for (unsigned i = 0; i < x->engine.n_ports; i++)
		fd = arm_port(x, i, max_sleep_ns);
	return x->wait_set >= 0 ? x->wait_set : fd;
}

static void ether_disarm(struct pv *p, bool rang)
{
	struct ether *x = of(p);

	if (!x->started)
		return;
	if (rang)
		engine_hurry_kernel(&x->engine);
	for (unsigned i = 0; i < x->engine.n_ports; i++)
		x->engine.ports[i].port->ops->disarm(x->engine.ports[i].port);
}

static void ether_slow(struct pv *p, uint64_t now)
{
	struct ether *x = of(p);

	if (!x->started)
		return;
	netif_ready(x);
	if (netif_generation(x->netif) != x->netif_seen)
		ether_give_addrs(x);
	for (unsigned i = 0; i < x->engine.n_ports; i++)
		ether_look_after_kernel(x, &x->engine.ports[i]);
}

static unsigned ether_lingering(struct pv *p)
{
	struct ether *x = of(p);

	return x->started ? tp_lingering(x->engine.tp) : 0;
}

static void free_port_config(struct pv_ether_port *p)
{
	free((char *)p->netdev);
	free((char *)p->lock_dir);
	free((char *)p->port.name);
	free((char *)p->port.device);
	free((char *)p->port.standby);
	free((char *)p->port.hugepages);
	free((char *)p->port.eal_args);
}

static void ether_close(struct pv *p)
{
	struct ether *x = of(p);

	if (x->started)
		stop(x);
	if (x->netif) {
		guard_netif(x, false);
		netif_close(x->netif);
	}
	for (unsigned i = 0; i < x->cfg.n_ports; i++) {
		if (x->given[i])
			port_close(x->given[i]);
		free_port_config(&x->ports[i]);
	}
	free(x->restored);
	free((char *)x->cfg.congestion);
	free(x);
}

static const struct pv_ops ops = {
	.size = sizeof ops,
	.name = "ether",
	.route = ether_route,
	.serves = ether_serves,
	.start = ether_start,
	.listen = ether_listen,
	.connect = ether_connect,
	.adopt = pv_no_adopt,
	.in_child = pv_no_child,
	.confine = pv_no_confine,
	.progress = ether_progress,
	.deadline = ether_deadline,
	.arm = ether_arm,
	.disarm = ether_disarm,
	.slow = ether_slow,
	.lingering = ether_lingering,
	.close = ether_close,
};

static char *copy(const char *s)
{
	return s ? strdup(s) : NULL;
}

int pv_ether_open(const struct pv_ether_config *cfg, pv_ready_fn *ready, struct pv **out)
{
	struct ether *x;

	if (cfg->size != sizeof *cfg || cfg->n_ports > ENGINE_MAX_PORTS ||
		(cfg->crew && cfg->member >= cfg->crew->n))
		return -EINVAL;
	x = calloc(1, sizeof *x);
	if (!x)
		return -ENOMEM;
	x->pv.ops = &ops;
	x->pv.ready = ready;
	x->cfg = *cfg;
	x->cfg.ports = x->ports;
	x->cfg.congestion = copy(cfg->congestion);
	x->wait_set = -1;
	list_init(&x->listeners);
	list_init(&x->unasked);
	for (unsigned i = 0; i < cfg->n_ports; i++) {
		x->ports[i] = cfg->ports[i];
		x->ports[i].miniport &= !cfg->member; /* the kernel's side is member 0's */
		x->ports[i].netdev = copy(cfg->ports[i].netdev);
		x->ports[i].lock_dir = copy(cfg->ports[i].lock_dir);
		x->ports[i].port.name = copy(cfg->ports[i].port.name);
		x->ports[i].port.device = copy(cfg->ports[i].port.device);
		x->ports[i].port.standby = copy(cfg->ports[i].port.standby);
		x->ports[i].port.hugepages = copy(cfg->ports[i].port.hugepages);
		x->ports[i].port.eal_args = copy(cfg->ports[i].port.eal_args);
		x->locks[i][0] = x->locks[i][1] = -1;
	}
	*out = &x->pv;
	return 0;
}
