/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * port_udp: frames carried as datagrams by the kernel's UDP, for machines without a port of their own.
 * Outside it looks like any NIC: headers are taken off on transmit and made up on receive, with MAC addresses
 * that follow from the IP addresses. There is a socket for an address of each family, all on one port number,
 * and peers are expected on the same; in the frames that port always reads PORT_UDP_PORT. Because IP does the
 * addressing, a frame to the broadcast MAC reaches the host that its IP header names. Owned by one thread at
 * a time, as every port.
 */
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/fnv.h"
#include "base/log.h"
#include "base/sockaddr.h"
#include "drivers/encap.h"
#include "drivers/port.h"

enum {
	DEFAULT_MTU = 1500,
	BURST = 64,
	BUFFERS = 512, /* each way */
	CAPACITY_EXTRA = 64,
	SOCKET_BYTES = 4 << 20,
	CONTROL_BYTES = 64, /* one int for the ECN bits, one for the drop counter */
};

union control {
	struct cmsghdr align;
	char bytes[CONTROL_BYTES];
};

/* Empty buffers of one direction. */
struct pool {
	uint8_t *memory;
	uint8_t *free[BUFFERS];
	unsigned count;
};

/* One family's socket. */
struct leg {
	int fd;
	unsigned hdr_len;
	struct sd_addr self;
};

struct udp_port {
	struct port base;
	struct leg legs[2];
	unsigned n_legs;
	int wait_set; /* epoll set of two legs' sockets, or -1 */
	uint16_t mtu, wire_port;
	unsigned capacity;
	uint8_t mac[6];
	uint32_t kernel_drops;
	struct pool rx, tx;
	struct port_stats stats;
	char name[64];
	/* Of the burst at hand. */
	struct mmsghdr msgs[BURST];
	struct iovec iov[BURST];
	union sd_sockaddr names[BURST];
	union control controls[BURST];
	uint8_t *buffers[BURST];
};

static struct udp_port *udp_of(struct port *p)
{
	return (struct udp_port *)p;
}

/* --- addresses --- */

/* A locally administered address that is the same wherever it is worked out. */
static void mac_of(const struct sd_addr *a, uint8_t mac[6])
{
	uint64_t hash;

	mac[0] = 0x02;
	if (a->family == 4) {
		mac[1] = 0;
		memcpy(mac + 2, a->ip, 4);
		return;
	}
	hash = sd_fnv(SD_FNV_BASIS, a->ip, sizeof a->ip);
	mac[1] = 6;
	memcpy(mac + 2, &hash, 4);
}

/* Another leg's or host's address, at the port of this wire. */
static socklen_t wire_name(
	const struct udp_port *u, const struct leg *leg, const struct sd_addr *a, union sd_sockaddr *out)
{
	struct sd_addr to = *a;

	to.port = u->wire_port;
	to.scope = leg->self.scope;
	return sd_sockaddr_from(out, &to);
}

/* --- buffers --- */

static int pool_open(struct pool *p, unsigned capacity)
{
	p->memory = malloc((size_t)capacity * BUFFERS);
	if (!p->memory)
		return -ENOMEM;
	for (p->count = 0; p->count < BUFFERS; p->count++)
		p->free[p->count] = p->memory + (size_t)capacity * p->count;
	return 0;
}

static void pool_put(struct pool *p, struct port_frame *frames, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		p->free[p->count++] = frames[i].handle;
}

/* --- receive --- */

/* Reads the ECN bits and the socket's drop counter, in whichever order the kernel has put them. */
static uint8_t read_control(struct udp_port *u, struct msghdr *m)
{
	uint8_t ecn = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS)
			ecn = *CMSG_DATA(c) & 3;
		else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS)
			ecn = *CMSG_DATA(c) & 3;
		else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_RXQ_OVFL)
			memcpy(&u->kernel_drops, CMSG_DATA(c), sizeof u->kernel_drops);
	}
	return ecn;
}

/* Puts headers before the payload that lies at hdr_len. */
static void make_frame(
	struct udp_port *u, const struct leg *leg, unsigned i, uint8_t *buffer, struct port_frame *out)
{
	size_t len = u->msgs[i].msg_len;
	struct encap_flow f = {.dst = leg->self};
	uint8_t hdr[ENCAP_MAX]; /* not in place: a template clears all of it, and the payload may begin
				   earlier */

	sd_sockaddr_to(&u->names[i].any, u->msgs[i].msg_hdr.msg_namelen, &f.src);
	f.ecn = read_control(u, &u->msgs[i].msg_hdr);
	f.dst.port = PORT_UDP_PORT;
	memcpy(f.dst_mac, u->mac, sizeof f.dst_mac);
	mac_of(&f.src, f.src_mac);
	encap_template(&f, hdr);
	memcpy(buffer, hdr, leg->hdr_len);
	encap_finish(buffer, leg->hdr_len, len, true);
	out->data = out->handle = buffer;
	out->len = (uint32_t)(leg->hdr_len + len);
	out->flags = PORT_RX_CSUM_OK;
}

static unsigned receive(struct udp_port *u, const struct leg *leg, struct port_frame *frames, unsigned max)
{
	unsigned n = max < BURST ? max : BURST, out = 0;
	int got;

	if (n > u->rx.count)
		n = u->rx.count;
	for (unsigned i = 0; i < n; i++) {
		u->buffers[i] = u->rx.free[u->rx.count - 1 - i];
		u->iov[i] = (struct iovec){u->buffers[i] + leg->hdr_len, u->capacity - leg->hdr_len};
		u->msgs[i].msg_hdr = (struct msghdr){
			.msg_name = &u->names[i],
			.msg_namelen = sizeof u->names[i],
			.msg_iov = &u->iov[i],
			.msg_iovlen = 1,
			.msg_control = &u->controls[i],
			.msg_controllen = sizeof u->controls[i],
		};
	}
	got = n ? recvmmsg(leg->fd, u->msgs, n, MSG_DONTWAIT, NULL) : 0;
	if (got <= 0)
		return 0;
	u->rx.count -= (unsigned)got;
	for (int i = 0; i < got; i++) {
		if (u->msgs[i].msg_hdr.msg_flags & MSG_TRUNC) { /* larger than any frame of ours */
			u->stats.rx_errors++;
			u->rx.free[u->rx.count++] = u->buffers[i];
			continue;
		}
		make_frame(u, leg, (unsigned)i, u->buffers[i], &frames[out]);
		u->stats.rx_bytes += frames[out].len;
		out++;
	}
	u->stats.rx_frames += out;
	return out;
}

static unsigned udp_rx(struct port *p, struct port_frame *frames, unsigned max)
{
	struct udp_port *u = udp_of(p);
	unsigned n = 0;

	for (unsigned i = 0; i < u->n_legs && n < max; i++)
		n += receive(u, &u->legs[i], frames + n, max - n);
	return n;
}

static void udp_rx_done(struct port *p, struct port_frame *frames, unsigned n)
{
	pool_put(&udp_of(p)->rx, frames, n);
}

/* --- transmit --- */

static unsigned udp_tx_get(struct port *p, struct port_frame *frames, unsigned n)
{
	struct udp_port *u = udp_of(p);

	if (n > u->tx.count)
		n = u->tx.count;
	for (unsigned i = 0; i < n; i++) {
		frames[i].data = frames[i].handle = u->tx.free[--u->tx.count];
		frames[i].len = u->capacity;
		frames[i].flags = 0;
	}
	return n;
}

static void udp_tx_put(struct port *p, struct port_frame *frames, unsigned n)
{
	pool_put(&udp_of(p)->tx, frames, n);
}

static void set_ecn(struct msghdr *m, union control *control, uint8_t family, uint8_t ecn)
{
	struct cmsghdr *c = &control->align;
	int tos = ecn;

	m->msg_control = control;
	m->msg_controllen = CMSG_SPACE(sizeof tos);
	c->cmsg_level = family == 4 ? IPPROTO_IP : IPPROTO_IPV6;
	c->cmsg_type = family == 4 ? IP_TOS : IPV6_TCLASS;
	c->cmsg_len = CMSG_LEN(sizeof tos);
	memcpy(CMSG_DATA(c), &tos, sizeof tos);
}

/* A frame that a NIC or the first router would discard (damaged on purpose by a fault injector, say) must not
 * make the kernel send a sound datagram to a wrong address. */
static bool frame_valid(const struct leg *leg, const struct port_frame *f, struct encap_view *v)
{
	bool summed = !(f->flags & PORT_TX_CSUM);

	if (encap_parse(f->data, f->len, PORT_UDP_PORT, summed, v))
		return false;
	if (!sd_addr_same_ip(&v->flow.src, &leg->self))
		return false;
	if (!summed && v->flow.src.family ==
			       6) { /* no header checksum: the pseudo header's sum covers the addresses */
		uint64_t sum = encap_csum_add(0, f->data + 22, 32) + (17u << 8);
		uint16_t len = htons((uint16_t)(v->payload_len + 8));

		return !memcmp(f->data + 60, &(uint16_t){encap_csum_fold(sum + len)}, 2);
	}
	return true;
}

/* Prepares msgs for the frames; damaged ones are left out. origin[k] is the frame of message k. */
static unsigned prepare(struct udp_port *u, const struct leg *leg, const struct port_frame *frames,
	unsigned n, uint8_t origin[BURST])
{
	unsigned used = 0;

	for (unsigned i = 0; i < n; i++) {
		struct msghdr *m = &u->msgs[used].msg_hdr;
		struct encap_view v;

		if (!frame_valid(leg, &frames[i], &v))
			continue;
		u->iov[used] = (struct iovec){(void *)v.payload, v.payload_len};
		memset(m, 0, sizeof *m);
		m->msg_name = &u->names[used];
		m->msg_namelen = wire_name(u, leg, &v.flow.dst, &u->names[used]);
		m->msg_iov = &u->iov[used];
		m->msg_iovlen = 1;
		set_ecn(m, &u->controls[used], leg->self.family, v.flow.ecn);
		origin[used++] = (uint8_t)i;
	}
	return used;
}

/* How many of the frames are dealt with: sent, or refused by the kernel for good and so lost. */
static unsigned send_burst(
	struct udp_port *u, const struct leg *leg, const struct port_frame *frames, unsigned n)
{
	uint8_t origin[BURST];
	unsigned used = prepare(u, leg, frames, n, origin), sent = 0;

	while (sent < used) {
		int k = sendmmsg(leg->fd, u->msgs + sent, used - sent, MSG_DONTWAIT);

		if (k > 0)
			sent += (unsigned)k;
		else if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS)
			return origin[sent];
		else if (errno != EINTR)
			sent++; /* too big for the path, no route, a firewall: this one is lost */
	}
	return n;
}

/* The socket of a frame's family; any, which will not take it, if there is none. */
static const struct leg *leg_of(const struct udp_port *u, const struct port_frame *f)
{
	uint8_t family = f->data[12] == 0x86 ? 6 : 4;

	return &u->legs[u->n_legs == 2 && u->legs[0].self.family != family];
}

static unsigned udp_tx(struct port *p, struct port_frame *frames, unsigned n)
{
	struct udp_port *u = udp_of(p);
	unsigned done = 0;

	while (done < n) {
		const struct leg *leg = leg_of(u, &frames[done]);
		unsigned burst = 1, k;

		while (burst < BURST && done + burst < n && leg_of(u, &frames[done + burst]) == leg)
			burst++;
		k = send_burst(u, leg, frames + done, burst);

		for (unsigned i = done; i < done + k; i++)
			u->stats.tx_bytes += frames[i].len;
		pool_put(&u->tx, frames + done, k);
		done += k;
		if (k < burst) {
			u->stats.tx_full++;
			break;
		}
	}
	u->stats.tx_frames += done;
	return done;
}

/* --- the rest --- */

static int udp_wait_fd(struct port *p)
{
	struct udp_port *u = udp_of(p);

	return u->wait_set >= 0 ? u->wait_set : u->legs[0].fd;
}

/* It is readable while there are datagrams: nothing to arm. */
static int udp_arm(struct port *p)
{
	return 0;
}

static void udp_disarm(struct port *p)
{
}

static bool udp_link_poll(struct port *p)
{
	return false;
}

static void udp_info(struct port *p, struct port_info *out)
{
	struct udp_port *u = udp_of(p);

	*out = (struct port_info){
		.name = u->name,
		.driver = "udp",
		.mtu = u->mtu,
		.queues = 1,
		.numa_node = -1,
		.caps = PORT_CAP_TX_CSUM | PORT_CAP_RX_CSUM | PORT_CAP_RX_INTR | PORT_CAP_BROADCAST,
		.link_up = true,
	};
	memcpy(out->mac, u->mac, sizeof out->mac);
}

static void udp_stats(struct port *p, struct port_stats *out)
{
	struct udp_port *u = udp_of(p);

	*out = u->stats;
	out->rx_missed = u->kernel_drops;
}

static void close_fd(int fd)
{
	if (fd < 0)
		return;
	port_guard_fd(fd, false);
	close(fd);
}

static void udp_close(struct port *p)
{
	struct udp_port *u = udp_of(p);

	close_fd(u->wait_set);
	for (unsigned i = 0; i < u->n_legs; i++)
		close_fd(u->legs[i].fd);
	free(u->rx.memory);
	free(u->tx.memory);
	free(u);
}

static const struct port_ops udp_ops = {
	.size = sizeof(struct port_ops),
	.name = "udp",
	.rx = udp_rx,
	.rx_done = udp_rx_done,
	.tx_get = udp_tx_get,
	.tx_put = udp_tx_put,
	.tx = udp_tx,
	.wait_fd = udp_wait_fd,
	.arm = udp_arm,
	.disarm = udp_disarm,
	.link_poll = udp_link_poll,
	.info = udp_info,
	.stats = udp_stats,
	.close = udp_close,
};

static void set_option(int fd, int level, int name, int value)
{
	if (setsockopt(fd, level, name, &value, sizeof value))
		sd_debug("udp port: option %d/%d: %s", level, name, strerror(errno));
}

static void set_options(int fd, uint8_t family)
{
	set_option(fd, SOL_SOCKET, SO_RCVBUF, SOCKET_BYTES);
	set_option(fd, SOL_SOCKET, SO_SNDBUF, SOCKET_BYTES);
	set_option(fd, SOL_SOCKET, SO_RCVBUFFORCE, SOCKET_BYTES); /* beyond rmem_max, where we may */
	set_option(fd, SOL_SOCKET, SO_SNDBUFFORCE, SOCKET_BYTES);
	set_option(fd, SOL_SOCKET, SO_RXQ_OVFL, 1);
	if (family == 4) {
		set_option(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO);
		set_option(fd, IPPROTO_IP, IP_RECVTOS, 1);
	} else {
		set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
		set_option(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO);
		set_option(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, 1);
	}
}

/* The MTU of the interface that has the address; 0: none has. */
static unsigned interface_mtu(int fd, const struct sd_addr *self)
{
	struct ifaddrs *all, *i;
	unsigned mtu = 0;

	if (getifaddrs(&all))
		return 0;
	for (i = all; i && !mtu; i = i->ifa_next) {
		struct ifreq req = {0};
		struct sd_addr a;

		/* getifaddrs(3) has room for the longest in each. */
		if (!sd_sockaddr_to(i->ifa_addr, sizeof(union sd_sockaddr), &a) || !sd_addr_same_ip(&a, self))
			continue;
		strncpy(req.ifr_name, i->ifa_name, sizeof req.ifr_name - 1);
		if (!ioctl(fd, SIOCGIFMTU, &req))
			mtu = (unsigned)req.ifr_mtu;
	}
	freeifaddrs(all);
	return mtu;
}

static int bind_socket(struct udp_port *u, struct leg *leg, char *err, size_t err_len)
{
	union sd_sockaddr name;
	socklen_t len = wire_name(u, leg, &leg->self, &name);
	char text[SD_ADDR_STRLEN];
	struct sd_addr shown = leg->self;

	shown.port = u->wire_port;
	sd_addr_format(&shown, text);
	leg->fd = sd_fd_raise(socket(
		leg->self.family == 4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
	if (leg->fd < 0) {
		snprintf(err, err_len, "udp: no socket: %s", strerror(errno));
		return -errno;
	}
	port_guard_fd(leg->fd, true);
	set_options(leg->fd, leg->self.family);
	if (!bind(leg->fd, &name.any, len))
		return 0;
	switch (errno) {
	case EADDRINUSE:
		snprintf(err, err_len, "udp: another process has %s; give this one an address of its own",
			text);
		return -EBUSY;
	case EADDRNOTAVAIL:
		snprintf(
			err, err_len, "udp: %s is not an address of this host; add it to an interface", text);
		return -ENODEV;
	case EACCES:
		snprintf(err, err_len, "udp: may not bind %s; use a port above 1023", text);
		return -EPERM;
	default:
		snprintf(err, err_len, "udp: cannot bind %s: %s", text, strerror(errno));
		return -errno;
	}
}

static int open_leg(struct udp_port *u, const struct sd_addr *self, char *err, size_t err_len)
{
	struct leg *leg = &u->legs[u->n_legs++];
	unsigned most;
	int e;

	*leg = (struct leg){.fd = -1, .hdr_len = self->family == 4 ? ENCAP_V4 : ENCAP_V6, .self = *self};
	leg->self.port = PORT_UDP_PORT;
	e = bind_socket(u, leg, err, err_len);
	if (e)
		return e;
	most = interface_mtu(leg->fd, self);
	if (most && most < u->mtu)
		u->mtu = (uint16_t)most;
	return 0;
}

static void close_leg(struct udp_port *u)
{
	close_fd(u->wait_set);
	u->wait_set = -1;
	close_fd(u->legs[--u->n_legs].fd);
}

static int wait_for_both(struct udp_port *u, char *err, size_t err_len)
{
	struct epoll_event e = {.events = EPOLLIN};
	bool ok;

	u->wait_set = sd_fd_raise(epoll_create1(EPOLL_CLOEXEC));
	ok = u->wait_set >= 0;
	if (ok)
		port_guard_fd(u->wait_set, true);
	for (unsigned i = 0; ok && i < u->n_legs; i++)
		ok = !epoll_ctl(u->wait_set, EPOLL_CTL_ADD, u->legs[i].fd, &e);
	if (!ok)
		snprintf(err, err_len, "udp: no epoll set: %s", strerror(errno));
	return ok ? 0 : -errno;
}

static int open_sockets(struct udp_port *u, const struct port_config *cfg, char *err, size_t err_len)
{
	int e = open_leg(u, &cfg->udp_bind, err, err_len);

	if (e)
		return e;
	if (cfg->udp_bind_too.family &&
		(open_leg(u, &cfg->udp_bind_too, err, err_len) || wait_for_both(u, err, err_len))) {
		sd_warn("port %s: no IPv%u: %s", u->name, cfg->udp_bind_too.family, err);
		close_leg(u);
	}
	u->capacity = (u->mtu + CAPACITY_EXTRA + 63u) & ~63u;
	e = pool_open(&u->rx, u->capacity);
	if (!e)
		e = pool_open(&u->tx, u->capacity);
	if (e)
		snprintf(err, err_len, "udp: out of memory for buffers");
	return e;
}

static bool is_usable(const struct sd_addr *a)
{
	return (a->family == 4 || a->family == 6) && !sd_addr_is_any(a);
}

int port_udp_open(const struct port_config *cfg, struct port **out, char *err, size_t err_len)
{
	const struct sd_addr *self = &cfg->udp_bind, *too = &cfg->udp_bind_too;
	struct udp_port *u;
	int e;

	if (!is_usable(self) || (too->family && (!is_usable(too) || too->family == self->family))) {
		snprintf(err, err_len, "udp: needs the local address to use, one that peers can reach");
		return -EINVAL;
	}
	u = calloc(1, sizeof *u);
	if (!u) {
		snprintf(err, err_len, "udp: out of memory");
		return -ENOMEM;
	}
	u->base.ops = &udp_ops;
	u->wait_set = -1;
	u->mtu = cfg->mtu ? cfg->mtu : DEFAULT_MTU;
	u->wire_port = self->port ? self->port : PORT_UDP_PORT;
	mac_of(self, u->mac);
	snprintf(u->name, sizeof u->name, "%s", cfg->name ? cfg->name : "udp");
	e = open_sockets(u, cfg, err, err_len);
	if (e) {
		udp_close(&u->base);
		return e;
	}
	*out = &u->base;
	return 0;
}
