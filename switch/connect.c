/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * connect: which path a connection takes, and the way back to kernel TCP.
 *
 * A SAN connect that fails is retried on the kernel's socket, on the same descriptor and without the program
 * noticing. A thread that is blocked in connect() does that itself; for a non-blocking socket whoever drives
 * the domain does it (sw_connect_settle).
 */
#include "switch/connect.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "switch/libc.h"
#include "switch/options.h"
#include "switch/statwrite.h"
#include "switch/stream.h"
#include "switch/wait.h"

/* --- the choice --- */

struct plan {
	struct pv *provider;
	enum sd_reason reason;
	struct sd_addr local; /* family 0: the kernel is to choose */
	bool bound;	      /* by the program, to a port */
	bool defers_port;     /* bound to an address without a port: IP_BIND_ADDRESS_NO_PORT */
	bool san_only;
};

/* The name the program has bound the socket to. */
static void read_bound(struct sw_sock *s, struct plan *p)
{
	struct sd_addr a;

	if ((s->known && !s->bound) || !sw_name_bound(s->fd, &a))
		return;
	p->bound = a.port != 0;
	p->defers_port = !p->bound && !sd_addr_is_any(&a);
	if (p->bound || p->defers_port)
		p->local = a;
}

static void ask_providers(struct plan *p, const struct sd_addr *peer)
{
	struct sd_addr local;
	enum sd_reason r;

	for (unsigned i = 0; i < sw_rt.n_providers; i++) {
		local = p->local;
		if (sd_addr_is_any(&local) && local.family != peer->family)
			local = (struct sd_addr){.port = local.port};
		r = sw_rt.providers[i]->ops->route(sw_rt.providers[i], peer, &local);
		/* Of two refusals the one that says more: only loop speaks of this host's own addresses
		 * first. */
		if (p->reason != SD_REASON_LOCAL)
			p->reason = r;
		if (r != SD_REASON_SAN && r != SD_REASON_LOOP)
			continue;
		p->reason = sw_runtime_start(sw_rt.providers[i]);
		if (p->reason != SD_REASON_SAN && p->reason != SD_REASON_LOOP)
			return;
		p->provider = sw_rt.providers[i];
		p->local = local;
		return;
	}
}

static void choose(struct sw_sock *s, const struct sd_addr *peer, struct plan *p)
{
	enum cfg_action action;

	*p = (struct plan){.reason = sw_rt.off};
	if (sw_rt.off != SD_REASON_SAN)
		return;
	action = cfg_match(sw_rt.cfg, CFG_CLIENT, sw_program_name(), peer);
	if (action == CFG_TCP) {
		p->reason = SD_REASON_RULE;
		return;
	}
	p->san_only = action == CFG_SAN;
	p->reason = SD_REASON_NO_ROUTE;
	read_bound(s, p);
	ask_providers(p, peer);
	if (!p->provider)
		return;
	sw_options_read(s);
	if (s->kernel_bound) {
		p->provider = NULL;
		p->reason = SD_REASON_OPTION;
	}
}

/* --- kernel TCP --- */

static void take_kernel(struct sw_sock *s, enum sd_reason reason)
{
	s->reason = reason;
	s->role = SW_CLIENT;
	stat_count(reason);
	sw_sock_set_state(s, SW_KERNEL);
}

/* connect() of the kernel's socket without blocking, whatever its flags. */
static int kernel_connect_now(struct sw_sock *s)
{
	union sd_sockaddr peer;
	socklen_t len = sw_addr_to(&s->peer, s->domain, &peer);
	int flags = sw_libc.fcntl(s->fd, F_GETFL), r;

	if (!(flags & O_NONBLOCK))
		sw_libc.fcntl(s->fd, F_SETFL, flags | O_NONBLOCK);
	r = sw_libc.connect(s->fd, &peer.any, len) ? -errno : 0;
	if (!(flags & O_NONBLOCK))
		sw_libc.fcntl(s->fd, F_SETFL, flags);
	return r;
}

/* The SAN path is not to be: the reason, and whether TCP may be tried. */
static bool give_up(struct sw_sock *s, int error, enum sd_reason reason)
{
	s->reason = reason;
	sw_sock_drop_ep(s, PV_CLOSE_ABORT);
	if (!s->san_only)
		return true;
	s->so_error = -error;
	stat_count(reason);
	sw_sock_set_state(s, SW_FAILED);
	return false;
}

static void fall_back(struct sw_sock *s)
{
	int r;

	take_kernel(s, s->reason);
	r = kernel_connect_now(s);
	if (r && r != -EINPROGRESS) {
		s->so_error = -r;
		sw_sock_set_state(s, SW_FAILED);
	}
}

static void succeed(struct sw_sock *s, enum sd_reason reason)
{
	struct pv_info info;
	int r;

	s->ep->ops->info(s->ep, &info);
	s->local = info.local;
	r = sw_sock_take_place(s, true);
	if (r)
		sd_error(
			"a connection's descriptor cannot take its place (%s); other processes cannot use it",
			strerror(-r));
	s->reason = reason;
	stat_count(reason);
	sw_sock_set_state(s, SW_CONNECTED);
}

static void decide(struct sw_sock *s, int result, enum sd_reason reason)
{
	if (!result)
		succeed(s, reason);
	else if (give_up(s, result, reason) && !s->connects)
		fall_back(s);
	sw_sock_wake_all(s);
}

void sw_connect_settle(struct sw_sock *s)
{
	enum sd_reason reason = SD_REASON_SAN;
	int r = -EINPROGRESS;

	if (s->state == SW_CONNECTING && s->ep)
		r = s->ep->ops->connect_result(s->ep, &reason);
	if (r != -EINPROGRESS)
		decide(s, r, reason);
}

/* --- beginning --- */

/* A real port of the kernel's for the client's end: nobody else gets it, and a fallback has it too. */
static int reserve_port(struct sw_sock *s, struct plan *p)
{
	union sd_sockaddr name;
	socklen_t len = sw_addr_to(&p->local, s->domain, &name);
	struct sd_addr a;
	int off = 0;

	if (p->bound)
		return 0;
	if (p->defers_port)
		sw_libc.setsockopt(s->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &off, sizeof off);
	if (sw_libc.bind(s->fd, &name.any, len))
		return -errno;
	s->bound = true;
	if (!sw_name_bound(s->fd, &a) || !a.port)
		return -EADDRNOTAVAIL;
	p->local.port = a.port;
	return 0;
}

/* True: the SAN path is being tried. */
static bool begin(struct sw_sock *s, const struct sd_addr *peer)
{
	struct plan p;

	s->peer = *peer;
	choose(s, peer, &p);
	if (!p.provider || reserve_port(s, &p)) {
		take_kernel(s, p.provider ? SD_REASON_NO_MEMORY : p.reason);
		return false;
	}
	if (p.provider->ops->connect(p.provider, s->fd, &p.local, peer, s, &s->ep)) {
		take_kernel(s, SD_REASON_NO_MEMORY);
		return false;
	}
	s->role = SW_CLIENT;
	s->san_only = p.san_only;
	s->local = p.local;
	sw_options_apply(s);
	sw_sock_set_state(s, SW_CONNECTING);
	/* A blocking connect falls back by itself. */
	s->connects += !s->nonblock;
	sw_connect_settle(s);
	s->connects -= !s->nonblock;
	return true;
}

/* The SAN path is not to be, and nobody waits to go on with TCP: it is begun in the background. */
static void go_on_alone(struct sw_sock *s)
{
	if (s->state != SW_CONNECTING || s->ep || s->connects)
		return;
	fall_back(s);
	sw_sock_wake_all(s);
}

/* Waits for the outcome. Enters with the domain and a pinned socket, returns with or without them: *inside,
 * *sock. */
static int await(struct sw_sock **sock, int fd, bool *inside)
{
	struct sw_sock *s = *sock;
	struct sw_wait w;
	int r = 0;

	sw_wait_begin(&w, s->send_timeout_ns ? s->send_timeout_ns : SW_FOREVER, !s->send_timeout_ns);
	s->connects++;
	while (s->state == SW_CONNECTING && s->ep) {
		r = sw_wait_on(&w, &s->waiters, NULL, NULL, 0);
		if (r == -EINTR) {
			s->connects--;
			go_on_alone(s);
			r = sw_sock_step_out(sock, fd, &w, inside);
			if (!*sock)
				return r;
			s->connects++;
			sw_wait_begin(&w, s->send_timeout_ns ? s->send_timeout_ns : SW_FOREVER,
				!s->send_timeout_ns);
		}
		if (r)
			break;
	}
	s->connects--;
	return r == -ETIMEDOUT ? -EINPROGRESS : r;
}

/* After a connect in the background has ended, connect() says so once. */
static ssize_t outcome(struct sw_sock *s)
{
	int error = s->so_error ? s->so_error : ECONNABORTED;

	if (s->state == SW_IDLE) /* another thread ended it, or was told */
		return -ECONNABORTED;
	if (s->state != SW_FAILED)
		return s->state == SW_CONNECTED ? 0 : SW_NOT_OURS;
	s->so_error = 0;
	sw_sock_set_state(s, SW_IDLE);
	return -error;
}

static ssize_t wait_for_it(struct sw_sock *s, int fd, bool *inside)
{
	int r;

	if (s->nonblock && (s->state == SW_CONNECTING || s->state == SW_KERNEL)) {
		s->first_connect = true;
		return -EINPROGRESS;
	}
	sw_obj_pin(&s->obj);
	r = await(&s, fd, inside);
	if (!s)
		return r;
	/* The one that waited last goes on with TCP, blocking as the program wants it. */
	if (!r && s->state == SW_CONNECTING && !s->ep) {
		take_kernel(s, s->reason);
		r = 1;
	} else {
		go_on_alone(s);
	}
	if (r == -EINPROGRESS || r == -EINTR)
		s->first_connect = true;
	if (!r)
		r = (int)outcome(s);
	sw_obj_unpin(&s->obj);
	return r == 1 ? SW_NOT_OURS : r;
}

static ssize_t connect_socket(struct sw_sock *s, int fd, const struct sd_addr *peer, bool *inside)
{
	switch (s->state) {
	case SW_IDLE:
		return begin(s, peer) ? wait_for_it(s, fd, inside) : SW_NOT_OURS;
	case SW_CONNECTING:
		return s->nonblock ? -EALREADY : wait_for_it(s, fd, inside);
	case SW_CONNECTED:
		if (!s->first_connect)
			return -EISCONN;
		s->first_connect = false;
		return 0;
	case SW_FAILED:
		return outcome(s);
	case SW_DEAD:
		sw_stream_say_dead(s);
		return -EBADF;
	case SW_LISTENING:
	case SW_KERNEL:
		break;
	}
	return SW_NOT_OURS;
}

/* connect() to AF_UNSPEC ends a connection; the socket is the kernel's from then on. */
static void disconnect(struct sw_sock *s)
{
	if (s->state != SW_CONNECTING && s->state != SW_CONNECTED && s->state != SW_FAILED)
		return;
	sw_sock_drop_ep(s, PV_CLOSE_ABORT);
	sw_sock_leave_place(s);
	s->reason = SD_REASON_NOT_YET;
	s->so_error = 0;
	s->error_told = s->pipe_told = s->wr_shut = s->rd_shut = s->first_connect = false;
	sw_sock_set_state(s, SW_IDLE);
	sw_sock_wake_all(s);
}

SW_EXPORT int connect(int fd, const struct sockaddr *addr, socklen_t len)
{
	struct sd_addr peer;
	struct sw_sock *s;
	ssize_t r = SW_NOT_OURS;
	bool inside = true;

	if (sw_is_internal() || !addr || len < sizeof addr->sa_family ||
		len > sizeof(struct sockaddr_storage) || !sw_is_own_process())
		return sw_libc.connect(fd, addr, len);
	if (addr->sa_family != AF_UNSPEC && !sw_addr_from(addr, len, &peer))
		return sw_libc.connect(fd, addr, len);
	if (!sw_sock_is_tcp(fd) || !sw_enter())
		return sw_libc.connect(fd, addr, len);
	s = sw_sock_adopt(fd);
	if (s && addr->sa_family == AF_UNSPEC)
		disconnect(s);
	else if (s)
		r = connect_socket(s, fd, &peer, &inside);
	if (inside)
		sw_leave();
	return r == SW_NOT_OURS ? sw_libc.connect(fd, addr, len) : (int)sw_result(r);
}
