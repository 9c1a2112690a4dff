/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * tcp: the kernel's TCP behind the provider SPI. It is the yardstick: the contract suite runs on it first, so
 * that what is asked of the other providers is what TCP does. Readiness comes from one edge-triggered epoll
 * set, emptied by progress.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/list.h"
#include "base/sockaddr.h"
#include "provider/registry.h"

#define EVENTS 64

struct tcp {
	struct pv pv;
	int set; /* epoll */
	struct list eps;
};

struct tcp_ep {
	struct pv_ep ep;
	void *user;
	int fd;
	bool listening, connecting;
	int result;
	uint64_t sent, received;
	struct list node;
};

static const struct pv_ep_ops ep_ops;

static struct tcp *of(struct pv *p)
{
	return container_of(p, struct tcp, pv);
}

static struct tcp_ep *ep_of(struct pv_ep *e)
{
	return container_of(e, struct tcp_ep, ep);
}

static struct tcp_ep *ep_new(struct tcp *t, int fd, void *user)
{
	struct tcp_ep *e = calloc(1, sizeof *e);
	struct epoll_event ev = {
		.events = EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET, .data.ptr = e};

	if (!e)
		return NULL;
	e->ep.ops = &ep_ops;
	e->ep.pv = &t->pv;
	e->user = user;
	e->fd = fd;
	if (epoll_ctl(t->set, EPOLL_CTL_ADD, fd, &ev)) {
		free(e);
		return NULL;
	}
	list_push_back(&t->eps, &e->node);
	return e;
}

static int bound_socket(const struct sd_addr *local)
{
	union sd_sockaddr name;
	socklen_t len = sd_sockaddr_from(&name, local);
	int one = 1, fd, error;

	fd = socket(name.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (name.any.sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
	if (local->family && bind(fd, &name.any, len)) {
		error = errno;
		close(fd);
		return -error;
	}
	return fd;
}

static enum sd_reason tcp_route(struct pv *p, const struct sd_addr *peer, struct sd_addr *local)
{
	return SD_REASON_SAN;
}

static bool tcp_serves(struct pv *p, const struct sd_addr *local)
{
	return true;
}

static enum sd_reason tcp_start(struct pv *p)
{
	return SD_REASON_SAN;
}

static int tcp_listen(struct pv *p, int socket, const struct sd_addr *local, unsigned backlog, void *user,
	struct pv_ep **out)
{
	int fd = bound_socket(local), error;
	struct tcp_ep *e;

	if (fd < 0)
		return fd;
	if (listen(fd, backlog)) {
		error = errno;
		close(fd);
		return -error;
	}
	e = ep_new(of(p), fd, user);
	if (!e) {
		close(fd);
		return -ENOMEM;
	}
	e->listening = true;
	*out = &e->ep;
	return 0;
}

static int tcp_connect(struct pv *p, int socket, const struct sd_addr *local, const struct sd_addr *peer,
	void *user, struct pv_ep **out)
{
	struct sd_addr source = *local;
	union sd_sockaddr name;
	socklen_t len = sd_sockaddr_from(&name, peer);
	struct tcp_ep *e;
	int fd;

	if (!source.family)
		source.family = peer->family;
	fd = bound_socket(&source);
	if (fd < 0)
		return fd;
	if (connect(fd, &name.any, len) && errno != EINPROGRESS) {
		int error = errno;

		close(fd);
		return -error;
	}
	e = ep_new(of(p), fd, user);
	if (!e) {
		close(fd);
		return -ENOMEM;
	}
	e->connecting = true;
	e->result = -EINPROGRESS;
	*out = &e->ep;
	return 0;
}

static unsigned tcp_progress(struct pv *p, uint64_t now)
{
	struct epoll_event ev[EVENTS];
	int n = epoll_wait(of(p)->set, ev, EVENTS, 0), error = 0;
	socklen_t len = sizeof error;

	for (int i = 0; i < n; i++) {
		struct tcp_ep *e = ev[i].data.ptr;

		if (e->connecting && ev[i].events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) {
			e->connecting = false;
			getsockopt(e->fd, SOL_SOCKET, SO_ERROR, &error, &len);
			e->result = -error;
		}
		if (e->user)
			p->ready(e->user,
				ev[i].events & (PV_IN | PV_PRI | PV_OUT | PV_ERR | PV_HUP | PV_RDHUP));
	}
	return n > 0 ? n : 0;
}

static int tcp_arm(struct pv *p, uint64_t *max_sleep_ns)
{
	return of(p)->set;
}

static void tcp_close(struct pv *p)
{
	struct tcp *t = of(p);

	list_for_each (it, &t->eps)
		ep_ops.close(&container_of(it, struct tcp_ep, node)->ep, PV_CLOSE_GRACEFUL);
	close(t->set);
	free(t);
}

/* --- endpoints --- */

static void ep_set_user(struct pv_ep *ep, void *user)
{
	ep_of(ep)->user = user;
}

static ssize_t ep_send(struct pv_ep *ep, const struct iovec *iov, int n, unsigned flags)
{
	struct msghdr m = {.msg_iov = (struct iovec *)iov, .msg_iovlen = n};
	ssize_t r =
		sendmsg(ep_of(ep)->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT | (flags & PV_MORE ? MSG_MORE : 0));

	if (r < 0)
		return -errno;
	ep_of(ep)->sent += r;
	return r;
}

static ssize_t ep_recv(struct pv_ep *ep, const struct iovec *iov, int n, unsigned flags)
{
	struct msghdr m = {.msg_iov = (struct iovec *)iov, .msg_iovlen = n};
	ssize_t r = recvmsg(ep_of(ep)->fd, &m, MSG_DONTWAIT | (flags & PV_PEEK ? MSG_PEEK : 0));

	if (r < 0)
		return -errno;
	ep_of(ep)->received += flags & PV_PEEK ? 0 : r;
	return r;
}

static unsigned ep_state(struct pv_ep *ep)
{
	struct pollfd p = {.fd = ep_of(ep)->fd, .events = POLLIN | POLLOUT | POLLPRI | POLLRDHUP};

	return poll(&p, 1, 0) > 0 ? p.revents : 0;
}

static int ep_shutdown(struct pv_ep *ep, int how)
{
	return shutdown(ep_of(ep)->fd, how) ? -errno : 0;
}

static int ep_connect_result(struct pv_ep *ep, enum sd_reason *reason)
{
	*reason = SD_REASON_SAN;
	return ep_of(ep)->result;
}

static int ep_accept(struct pv_ep *ep, void *user, struct pv_ep **out)
{
	int fd = accept4(ep_of(ep)->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct tcp_ep *e;

	if (fd < 0)
		return -errno;
	e = ep_new(of(ep->pv), fd, user);
	if (!e) {
		close(fd);
		return -ENOMEM;
	}
	*out = &e->ep;
	return 0;
}

static int ep_set_backlog(struct pv_ep *ep, unsigned backlog)
{
	return listen(ep_of(ep)->fd, backlog) ? -errno : 0;
}

static int set_int(int fd, int level, int name, int64_t value)
{
	int v = value;

	return value < 0 || !setsockopt(fd, level, name, &v, sizeof v) ? 0 : -errno;
}

static int ep_set_options(struct pv_ep *ep, const struct pv_options *o)
{
	const struct {
		int level, name;
		int64_t value;
	} all[] = {
		{IPPROTO_TCP, TCP_NODELAY, o->nodelay},
		{IPPROTO_TCP, TCP_CORK, o->cork},
		{SOL_SOCKET, SO_KEEPALIVE, o->keepalive},
		{IPPROTO_TCP, TCP_KEEPIDLE, o->keep_idle_s},
		{IPPROTO_TCP, TCP_KEEPINTVL, o->keep_interval_s},
		{IPPROTO_TCP, TCP_KEEPCNT, o->keep_count},
		{IPPROTO_TCP, TCP_USER_TIMEOUT, o->user_timeout_ms},
		{SOL_SOCKET, SO_SNDBUF, o->send_buffer},
		{SOL_SOCKET, SO_RCVBUF, o->recv_buffer},
	};
	int r = 0, one;

	for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
		one = set_int(ep_of(ep)->fd, all[i].level, all[i].name, all[i].value);
		r = r ? r : one;
	}
	return r;
}

static void ep_info(struct pv_ep *ep, struct pv_info *out)
{
	static const char *const names[] = {
		[TCP_ESTABLISHED] = "ESTABLISHED",
		[TCP_SYN_SENT] = "SYN_SENT",
		[TCP_SYN_RECV] = "SYN_RECV",
		[TCP_FIN_WAIT1] = "FIN_WAIT",
		[TCP_FIN_WAIT2] = "FIN_WAIT",
		[TCP_TIME_WAIT] = "TIME_WAIT",
		[TCP_CLOSE] = "CLOSED",
		[TCP_CLOSE_WAIT] = "CLOSE_WAIT",
		[TCP_LAST_ACK] = "LAST_ACK",
		[TCP_LISTEN] = "LISTEN",
		[TCP_CLOSING] = "CLOSING",
	};
	struct tcp_ep *e = ep_of(ep);
	union sd_sockaddr name;
	struct tcp_info t;
	socklen_t len = sizeof name;
	int queued;

	memset(out, 0, sizeof *out);
	sd_sockaddr_bound(e->fd, &out->local);
	if (!getpeername(e->fd, &name.any, &len))
		sd_sockaddr_to(&name.any, len, &out->peer);
	len = sizeof t;
	if (getsockopt(e->fd, IPPROTO_TCP, TCP_INFO, &t, &len))
		return;
	snprintf(out->state, sizeof out->state, "%s", names[t.tcpi_state]);
	out->bytes_out = e->sent;
	out->bytes_in = e->received;
	out->srtt_ns = t.tcpi_rtt * 1000ull;
	out->rto_ns = t.tcpi_rto * 1000ull;
	out->cwnd = t.tcpi_snd_cwnd;
	out->in_flight = t.tcpi_unacked;
	out->retransmits = t.tcpi_total_retrans;
	out->mss = t.tcpi_snd_mss;
	if (!ioctl(e->fd, FIONREAD, &queued))
		out->recv_queued = queued;
	if (!ioctl(e->fd, TIOCOUTQ, &queued))
		out->send_queued = queued;
}

static void ep_close(struct pv_ep *ep, enum pv_close_mode mode)
{
	struct tcp_ep *e = ep_of(ep);
	struct linger now = {.l_onoff = 1};

	if (mode == PV_CLOSE_ABORT)
		setsockopt(e->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
	close(e->fd);
	list_remove(&e->node);
	free(e);
}

static const struct pv_ep_ops ep_ops = {
	.size = sizeof ep_ops,
	.set_user = ep_set_user,
	.send = ep_send,
	.recv = ep_recv,
	.settle = pv_no_settle,
	.land = pv_no_landing,
	.landed = pv_no_landed,
	.state = ep_state,
	.shutdown = ep_shutdown,
	.connect_result = ep_connect_result,
	.accept = ep_accept,
	.set_backlog = ep_set_backlog,
	.set_options = ep_set_options,
	.info = ep_info,
	.arm_word = pv_no_word,
	.disarm_word = pv_no_disarm_word,
	.take_fd = pv_no_fd,
	.share = pv_no_share,
	.moved = pv_no_move,
	.close = ep_close,
};

static const struct pv_ops ops = {
	.size = sizeof ops,
	.name = "tcp",
	.route = tcp_route,
	.serves = tcp_serves,
	.start = tcp_start,
	.listen = tcp_listen,
	.connect = tcp_connect,
	.adopt = pv_no_adopt,
	.in_child = pv_no_child,
	.confine = pv_no_confine,
	.progress = tcp_progress,
	.deadline = pv_no_deadline,
	.arm = tcp_arm,
	.disarm = pv_no_disarm,
	.slow = pv_no_slow,
	.lingering = pv_no_lingering,
	.close = tcp_close,
};

int pv_tcp_open(pv_ready_fn *ready, struct pv **out)
{
	struct tcp *t = calloc(1, sizeof *t);

	if (!t)
		return -ENOMEM;
	t->set = epoll_create1(EPOLL_CLOEXEC);
	if (t->set < 0) {
		free(t);
		return -EMFILE;
	}
	t->pv.ops = &ops;
	t->pv.ready = ready;
	list_init(&t->eps);
	*out = &t->pv;
	return 0;
}
