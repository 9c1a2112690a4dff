/* SPDX-License-Identifier: BSD-3-Clause */
/* The ports of an ether provider: their devices, the kernel's side of them, what there is to tell. */
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/mac.h"
#include "provider/crew.h"
#include "provider/domain_private.h"
#include "provider/ether_private.h"
#include "provider/portlock.h"

/* A port that has just been opened may take this long to get its link before a connect gives it up. */
#define LINK_GRACE_NS (400 * SD_MS)

static struct ether *of(struct pv *p)
{
	return container_of(p, struct ether, pv);
}

enum sd_reason ether_reason_of(int error)
{
	struct rlimit as;

	switch (error) {
	case -EBUSY:
		return SD_REASON_PORT_BUSY;
	case -EMFILE:
		return SD_REASON_LIMIT_NOFILE;
	case -ENOMEM:
		if (!getrlimit(RLIMIT_AS, &as) && as.rlim_cur != RLIM_INFINITY)
			return SD_REASON_LIMIT_AS;
		break;
	}
	return SD_REASON_START_FAILED;
}

static bool is_link_local(const struct sd_addr *a)
{
	return a->family == 6 && a->ip[0] == 0xfe && (a->ip[1] & 0xc0) == 0x80;
}

/* For the udp device: an address of each family that the interface has. */
static void choose_udp_addrs(struct ether *x, int ifindex, struct port_config *c)
{
	struct sd_addr addrs[ENGINE_MAX_ADDRS], best[2] = {{0}};
	unsigned n = netif_addrs(x->netif, ifindex, addrs, ENGINE_MAX_ADDRS);

	for (unsigned i = 0; i < n && i < ENGINE_MAX_ADDRS; i++) {
		struct sd_addr *b = &best[addrs[i].family == 6];

		if (!b->family || (is_link_local(b) && !is_link_local(&addrs[i])))
			*b = addrs[i];
	}
	for (unsigned i = 0; i < 2; i++) {
		if (is_link_local(&best[i]))
			best[i].scope = (uint32_t)ifindex;
	}
	c->udp_bind = best[!best[0].family];
	_Static_assert(TP_UDP_PORT == PORT_UDP_PORT, "ports expect what the transport sends");
	c->udp_bind.port = TP_UDP_PORT;
	if (best[0].family)
		c->udp_bind_too = best[1];
}

static void guard_fd(void *ctx, int fd, bool own)
{
	pv_domain_guard_fd(ctx, fd, own ? PV_GUARD_OWN : PV_GUARD_NONE);
}

/* The kernel's interface, which keeps its addresses and routes while nobody has the port. */
static int open_miniport(struct ether *x, unsigned i, struct port *port, char *err, size_t err_len)
{
	struct miniport_config c = {.size = sizeof c,
		.name = x->ports[i].netdev,
		.offloads = MINIPORT_OFFLOAD_ALL,
		.persist = true};
	struct port_info info;
	struct miniport *m;
	int r;

	port->ops->info(port, &info);
	memcpy(c.mac, info.mac, sizeof c.mac);
	c.mtu = info.mtu;
	c.port_caps = info.caps;
	c.link_up = info.link_up || !(info.caps & PORT_CAP_LINK);
	r = miniport_open(&c, &m, err, err_len);
	if (r)
		return r;
	r = engine_add_port(&x->engine, port);
	if (r) {
		miniport_close(m);
		return r;
	}
	pv_domain_guard_fd(x->pv.domain, miniport_fd(m), PV_GUARD_OWN);
	engine_set_miniport(&x->engine, x->engine.n_ports - 1, m);
	return 0;
}

/* An interface that has outlived the port's last owner keeps its address: neighbours know it by that. */
static void keep_mac(const char *netdev, struct port_config *c)
{
	struct ifreq r = {0};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	snprintf(r.ifr_name, sizeof r.ifr_name, "%.15s", netdev);
	if (fd >= 0 && sd_mac_is_none(c->mac) && !ioctl(fd, SIOCGIFHWADDR, &r))
		memcpy(c->mac, r.ifr_hwaddr.sa_data, sizeof c->mac);
	if (fd >= 0)
		close(fd);
}

static void unlock_device(struct ether *x, int *lock)
{
	if (*lock >= 0)
		pv_domain_guard_fd(x->pv.domain, *lock, PV_GUARD_NONE);
	portlock_release(*lock);
	*lock = -1;
}

/* A device is one process's. "udp" is as many devices as there are interfaces. */
static int lock_device(struct ether *x, unsigned i, const char *device, int *lock, char *err, size_t err_len)
{
	char udp[64];

	if (!x->ports[i].lock_dir)
		return 0;
	snprintf(udp, sizeof udp, "udp of %s", x->ports[i].netdev);
	*lock = portlock_take(x->ports[i].lock_dir, strcmp(device, "udp") ? device : udp);
	if (*lock == -EBUSY) {
		snprintf(err, err_len, "another process has it; give this one a port of its own");
		return -EBUSY;
	}
	pv_domain_guard_fd(x->pv.domain, *lock, PV_GUARD_OWN);
	return 0;
}

/* A port_opener: of port index / 2 the device, or the standby. */
static int open_member(void *ctx, unsigned index, const struct port_config *cfg, struct port **out, char *err,
	size_t err_len)
{
	struct ether *x = ctx;
	int *lock = &x->locks[index / 2][index % 2];
	int r = lock_device(x, index / 2, cfg->device, lock, err, err_len);

	if (r)
		return r;
	*out = x->given[index / 2];
	x->given[index / 2] = NULL;
	r = *out ? 0 : port_open(cfg, out, err, err_len);
	if (r)
		unlock_device(x, lock);
	return r;
}

/* A port_opener: port i's device, if there is the kernel's interface that it stands for and nobody has it. */
static int open_device(
	void *ctx, unsigned i, const struct port_config *cfg, struct port **out, char *err, size_t err_len)
{
	struct ether *x = ctx;
	struct port_config c = *cfg;
	int ifindex = netif_index(x->netif, x->ports[i].netdev);

	if (!ifindex && !x->ports[i].miniport) {
		snprintf(err, err_len, "there is no interface %s; create it or correct netdev",
			x->ports[i].netdev);
		return -ENODEV;
	}
	if (!c.udp_bind.family)
		choose_udp_addrs(x, ifindex, &c);
	return c.standby ? port_open_both(&c, open_member, x, 2 * i, out, err, err_len)
			 : open_member(x, 2 * i, &c, out, err, err_len);
}

/* As it is configured, and as the kernel's interface says. */
static struct port_config config_of(struct ether *x, unsigned i)
{
	struct port_config c = x->ports[i].port;
	int ifindex = netif_index(x->netif, x->ports[i].netdev);

	if (x->ports[i].miniport && ifindex)
		keep_mac(x->ports[i].netdev, &c);
	if (!c.mtu && ifindex)
		c.mtu = netif_mtu(x->netif, ifindex);
	if (x->cfg.crew)
		c.queues = x->cfg.crew->n;
	c.needs_mac = x->ports[i].miniport;
	return c;
}

/* It is ours from now on. */
static int add_port(struct ether *x, unsigned i, struct port *port, char *err, size_t err_len)
{
	bool late = !strcmp(port->ops->name, "late");
	int r = x->cfg.crew ? crew_share(x->cfg.crew, i, &port) : 0;

	if (!r && x->ports[i].miniport) {
		r = open_miniport(x, i, port, err, err_len);
		if (!r || !late)
			goto out;
		/* Who has the device has its interface, too. */
		sd_warn("SAN port %s: %s; the kernel gets its side of it when this is started again",
			x->ports[i].port.name, err);
		err[0] = 0;
		r = 0;
	}
	if (!r)
		r = engine_add_port(&x->engine, port);
out:
	if (r)
		port_close(port);
	return r;
}

/* What member 0 has opened. */
static int fetch_port(struct ether *x, unsigned i)
{
	struct port *port;
	int r = crew_fetch(x->cfg.crew, i, x->cfg.member, &port);

	if (!r) {
		r = engine_add_port(&x->engine, port);
		if (r)
			port_close(port);
	}
	return r;
}

static bool has_miniport(const struct ether *x)
{
	for (unsigned i = 0; i < x->cfg.n_ports; i++) {
		if (x->ports[i].miniport)
			return true;
	}
	return false;
}

/* What the kernel has to send ends a sleep. */
static void watch_kernel(struct ether *x)
{
	struct epoll_event ev = {.events = EPOLLIN};

	for (unsigned i = 0; i < x->engine.n_ports; i++) {
		if (x->engine.ports[i].kernel)
			epoll_ctl(x->wait_set, EPOLL_CTL_ADD, miniport_fd(x->engine.ports[i].kernel), &ev);
	}
}

static void tell_failure(const struct ether *x, unsigned i, int error, const char *err, const char *then)
{
	sd_log(ether_reason_of(error) == SD_REASON_START_FAILED ? SD_LOG_ERROR : SD_LOG_INFO,
		"SAN port %s cannot be used: %s; %s", x->ports[i].port.name, err[0] ? err : strerror(-error),
		then);
}

static void close_devices(struct port *ports[], const int failed[], unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (!failed[i])
			port_close(ports[i]);
	}
}

/* The devices of all ports. For those that cannot be opened, if others can be and not all have to, something
 * that waits for them (port_late_open). */
static int open_devices(struct ether *x, struct port *ports[], bool all)
{
	char err[ENGINE_MAX_PORTS][256] = {{0}};
	struct port_config cfg[ENGINE_MAX_PORTS];
	int failed[ENGINE_MAX_PORTS] = {0};
	bool any = false;

	for (unsigned i = 0; i < x->cfg.n_ports; i++) {
		cfg[i] = config_of(x, i);
		failed[i] = open_device(x, i, &cfg[i], &ports[i], err[i], sizeof err[i]);
		any |= !failed[i];
	}
	for (unsigned i = 0; i < x->cfg.n_ports; i++) {
		if (!failed[i] || (any && !all))
			continue;
		tell_failure(x, i, failed[i], err[i], "connections use kernel TCP");
		close_devices(ports, failed, x->cfg.n_ports);
		return failed[i];
	}
	for (unsigned i = 0; i < x->cfg.n_ports; i++) {
		if (!failed[i])
			continue;
		tell_failure(x, i, failed[i], err[i], "it is tried again every second");
		failed[i] = port_late_open(&cfg[i], open_device, x, i, &ports[i]);
		any &= !failed[i];
	}
	if (!any)
		close_devices(ports, failed, x->cfg.n_ports);
	return any ? 0 : -ENOMEM;
}

static int open_own_ports(struct ether *x, bool all)
{
	struct port *ports[ENGINE_MAX_PORTS];
	int r = open_devices(x, ports, all);

	if (r)
		return r;
	for (unsigned i = 0; i < x->cfg.n_ports; i++) {
		char err[256] = "";

		if (!r)
			r = add_port(x, i, ports[i], err, sizeof err);
		else
			port_close(ports[i]);
		if (err[0])
			tell_failure(x, i, r, err, "connections use kernel TCP");
	}
	return r;
}

static int fetch_ports(struct ether *x)
{
	int r = 0;

	for (unsigned i = 0; !r && i < x->cfg.n_ports; i++)
		r = fetch_port(x, i);
	return r;
}

/* A set of what to wait for, if that is more than one. */
static int open_wait_set(struct ether *x)
{
	if (x->cfg.n_ports == 1 && !has_miniport(x))
		return 0;
	x->wait_set = sd_fd_raise(epoll_create1(EPOLL_CLOEXEC));
	if (x->wait_set < 0)
		return -errno;
	pv_domain_guard_fd(x->pv.domain, x->wait_set, PV_GUARD_OWN);
	watch_kernel(x);
	return 0;
}

void ether_close_ports(struct ether *x)
{
	for (unsigned i = 0; i < x->engine.n_ports; i++) {
		if (x->engine.ports[i].kernel)
			pv_domain_guard_fd(
				x->pv.domain, miniport_fd(x->engine.ports[i].kernel), PV_GUARD_NONE);
	}
	engine_remove_ports(&x->engine);
	if (x->cfg.crew && !x->cfg.member)
		crew_close_ports(x->cfg.crew);
	for (unsigned i = 0; i < x->cfg.n_ports; i++) {
		unlock_device(x, &x->locks[i][0]);
		unlock_device(x, &x->locks[i][1]);
	}
	if (x->wait_set >= 0) {
		pv_domain_guard_fd(x->pv.domain, x->wait_set, PV_GUARD_NONE);
		close(x->wait_set);
		x->wait_set = -1;
	}
	x->started = false;
}

enum sd_reason ether_open_ports(struct ether *x, bool all)
{
	int r;

	port_set_fd_guard(guard_fd, x->pv.domain);
	r = x->cfg.member ? fetch_ports(x) : open_own_ports(x, all);
	if (!r)
		r = open_wait_set(x);
	if (!r)
		r = pv_domain_need_helper(x->pv.domain);
	if (r)
		sd_info("the SAN ports cannot be used: %s", strerror(-r));
	if (!r) {
		x->started = true;
		x->link_expected = sd_clock_ns() + LINK_GRACE_NS;
		ether_give_addrs(x);
		return SD_REASON_SAN;
	}
	x->failed = ether_reason_of(r);
	ether_close_ports(x);
	return x->failed;
}

/* Its interface may have been deleted: the descriptor is readable for ever then. */
void ether_look_after_kernel(struct ether *x, struct engine_port *p)
{
	if (!p->kernel || !miniport_is_gone(p->kernel))
		return;
	sd_error("the interface of SAN port %s has been deleted; the kernel gets it back when the port is "
		 "opened "
		 "again",
		p->info.name);
	pv_domain_guard_fd(x->pv.domain, miniport_fd(p->kernel), PV_GUARD_NONE);
	miniport_close(p->kernel);
	p->kernel = NULL;
}

void pv_ether_describe(const struct pv *p, char *out, size_t len)
{
	struct ether *x = container_of(p, struct ether, pv);
	struct port_info info;
	size_t at = 0;

	if (!x->started) {
		snprintf(out, len, "%s", x->failed ? sd_reason_text(x->failed) : "not started");
		return;
	}
	for (unsigned i = 0; i < x->engine.n_ports && at < len; i++) {
		x->engine.ports[i].port->ops->info(x->engine.ports[i].port, &info);
		at += snprintf(out + at, len - at, "%s%s %s %s mtu %u", i ? ", " : "", x->ports[i].port.name,
			info.driver, info.link_up ? "up" : "down", info.mtu);
	}
}

unsigned pv_ether_ports(const struct pv *p, struct pv_port_report *out, unsigned max)
{
	struct ether *x = container_of(p, struct ether, pv);
	unsigned n = x->started ? x->engine.n_ports : 0;

	if (n > max)
		n = max;
	for (unsigned i = 0; i < n; i++) {
		struct port *port = x->engine.ports[i].port;

		out[i] = (struct pv_port_report){.name = x->ports[i].port.name,
			.netdev = x->ports[i].netdev,
			.device = x->ports[i].port.device};
		port->ops->info(port, &out[i].info);
		port->ops->stats(port, &out[i].stats);
	}
	return n;
}

void ether_give_port(struct pv *p, unsigned i, struct port *port)
{
	of(p)->given[i] = port;
}
