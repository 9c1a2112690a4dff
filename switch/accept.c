/* SPDX-License-Identifier: BSD-3-Clause */
/* listen and accept: the kernel's listener, which owns the port, and the SAN's beside it. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "switch/inherit.h"
#include "switch/libc.h"
#include "switch/options.h"
#include "switch/statwrite.h"
#include "switch/stream.h"
#include "switch/wait.h"

/* So many accepts in a row from the SAN side, then the kernel's is looked at first. */
#define SAN_TURNS 8

/* --- listen --- */

static void add_listener(struct sw_sock *s, struct pv *p, const struct sd_addr *local, unsigned backlog)
{
	struct pv_ep *l;
	int r;

	if (s->n_listeners == SW_MAX_LISTENERS || !p->ops->serves(p, local))
		return;
	if (!s->listeners)
		s->listeners = calloc(SW_MAX_LISTENERS, sizeof *s->listeners);
	if (!s->listeners)
		return;
	/* -EADDRINUSE: another socket of a SO_REUSEPORT group has the SAN side. */
	r = p->ops->listen(p, s->fd, local, backlog, s, &l);
	if (!r) {
		s->listeners[s->n_listeners++] = l;
		sw_rt.started |= p == sw_rt.shm;
	} else if (r != -EADDRINUSE) {
		sd_warn("port %u is not listened on over the SAN: %s", local->port, strerror(-r));
	}
}

static bool is_dual_stack(const struct sw_sock *s, const struct sd_addr *local)
{
	return s->domain == AF_INET6 && local->family == 6 && sd_addr_is_any(local) &&
	       !sw_option_int(s->fd, IPPROTO_IPV6, IPV6_V6ONLY);
}

void sw_listen_on_san(struct sw_sock *s)
{
	struct sd_addr v4 = {.family = 4};
	unsigned backlog = s->backlog < 0 ? SOMAXCONN : (unsigned)s->backlog;
	bool dual = is_dual_stack(s, &s->local);

	v4.port = s->local.port;
	s->reason = sw_rt.off;
	if (sw_rt.off != SD_REASON_SAN)
		return;
	if (cfg_match(sw_rt.cfg, CFG_SERVER, sw_program_name(), &s->local) == CFG_TCP) {
		s->reason = SD_REASON_RULE;
		return;
	}
	for (unsigned i = 0; i < sw_rt.n_providers; i++) {
		add_listener(s, sw_rt.providers[i], &s->local, backlog);
		if (dual)
			add_listener(s, sw_rt.providers[i], &v4, backlog);
	}
	s->reason = s->n_listeners ? SD_REASON_SAN : SD_REASON_NO_ROUTE;
	if (s->n_listeners)
		sw_rt.n_listeners++;
}

static void begin_listening(int fd, int backlog)
{
	struct sw_sock *s = sw_sock_adopt(fd);

	if (!s)
		return;
	s->backlog = backlog;
	s->late = false;
	if (s->n_listeners) {
		for (unsigned i = 0; i < s->n_listeners; i++)
			s->listeners[i]->ops->set_backlog(
				s->listeners[i], backlog < 0 ? SOMAXCONN : (unsigned)backlog);
		return;
	}
	if (!sw_name_bound(fd, &s->local))
		return;
	s->role = SW_LISTENER;
	sw_options_read(s);
	if (s->kernel_bound)
		s->reason = SD_REASON_OPTION;
	else
		sw_listen_on_san(s);
	sw_sock_set_state(s, SW_LISTENING);
}

SW_EXPORT int listen(int fd, int backlog)
{
	int r = sw_libc.listen(fd, backlog), saved_errno = errno;

	if (!r && !sw_is_internal() && sw_is_own_process() && sw_sock_is_tcp(fd) && sw_enter()) {
		begin_listening(fd, backlog);
		sw_leave();
	}
	errno = saved_errno;
	return r;
}

/* --- accept --- */

/*
 * A descriptor for a connection of the SAN: a kernel socket that stays unconnected, or, where the
 * connection's own descriptor takes its place in a moment, what costs less. As with the kernel's TCP, there
 * is a number before a connection is taken out of the queue.
 */
static int accepted_fd(struct sw_sock *s, bool is_placed, int flags)
{
	int fd;

	if (is_placed)
		fd = sw_libc.fcntl(s->fd, flags & SOCK_CLOEXEC ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
	else
		fd = sw_libc.socket(s->domain, SOCK_STREAM | flags, IPPROTO_TCP);
	return fd < 0 ? -errno : fd;
}

static int accept_san(struct sw_sock *s, struct pv_ep *l, int flags, struct sd_addr *peer)
{
	struct sw_sock *c;
	struct pv_info info;
	bool is_placed = l->pv == sw_rt.shm;
	int fd = accepted_fd(s, is_placed, flags), r;

	if (fd < 0)
		return fd;
	c = sw_sock_new(fd, s->domain, SW_IDLE);
	if (!c) {
		sw_libc.close(fd);
		return -ENOMEM;
	}
	r = l->ops->accept(l, c, &c->ep);
	if (r) {
		sw_fd_drop(fd);
		sw_libc.close(fd);
		return r;
	}
	c->ep->ops->info(c->ep, &info);
	c->local = info.local;
	c->peer = *peer = info.peer;
	c->role = SW_SERVER;
	c->nonblock = flags & SOCK_NONBLOCK;
	c->reason = c->ep->pv == sw_rt.loop ? SD_REASON_LOOP : SD_REASON_SAN;
	sw_options_inherit(s, c);
	sw_options_apply(c);
	if (!is_placed)
		sw_options_to_kernel(c);
	r = sw_sock_take_place(c, false);
	if (r) {
		sw_fd_drop(fd);
		sw_libc.close(fd);
		return r;
	}
	stat_count(c->reason);
	sw_sock_set_state(c, SW_CONNECTED);
	return fd;
}

/*
 * So that accept4 on the kernel's side can be tried without blocking. Others may get the socket, by execve or
 * passed on, and take the flag for the program's wish: it is there for the moment only, unless forked
 * children accept too. They know of it, and one would take it away under another's hands.
 */
static void set_kernel_nonblocking(struct sw_sock *s, bool on)
{
	int flags;

	if (s->nonblock || s->kernel_nonblock == on || (!on && s->was_forked))
		return;
	flags = sw_libc.fcntl(s->fd, F_GETFL);
	flags = on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
	if (flags >= 0 && !sw_libc.fcntl(s->fd, F_SETFL, flags))
		s->kernel_nonblock = on;
}

static void track_kernel_connection(int fd, enum sd_reason reason, int domain)
{
	struct sw_sock *c = sw_sock_new(fd, domain, SW_KERNEL);

	if (!c)
		return;
	c->role = SW_SERVER;
	c->reason = reason;
	stat_count(reason);
	stat_update(c);
}

static int accept_kernel(struct sw_sock *s, struct sockaddr *addr, socklen_t *len, int flags)
{
	struct pollfd side = {.fd = s->fd, .events = POLLIN};
	enum sd_reason reason = s->reason;
	int fd;

	/* accept4 makes a file first and then finds that nobody is there: a look is cheaper. */
	if (sw_libc.poll(&side, 1, 0) == 0)
		return -EAGAIN;
	set_kernel_nonblocking(s, true);
	fd = sw_libc.accept4(s->fd, addr, len, flags);
	if (fd < 0)
		fd = -errno;
	set_kernel_nonblocking(s, false);
	if (fd < 0)
		return fd;
	if (s->n_listeners)
		reason = sw_rt.started ? SD_REASON_PEER_TCP : SD_REASON_BACKLOG;
	track_kernel_connection(fd, reason, s->domain);
	return fd;
}

/* One look at both sides. */
static int accept_any(struct sw_sock *s, struct sockaddr *addr, socklen_t *len, int flags, bool kernel_too)
{
	struct pv_ep *l = sw_sock_acceptable(s);
	struct sd_addr peer;
	int fd;

	if (!l && !kernel_too)
		return -EAGAIN;
	if (l && s->turn < SAN_TURNS) {
		s->turn++;
		fd = accept_san(s, l, flags, &peer);
		if (fd >= 0 && addr)
			sw_name_give(&peer, s->domain, addr, len);
		if (fd != -EAGAIN || !kernel_too)
			return fd;
		l = NULL; /* another process was faster */
	}
	s->turn = 0;
	fd = accept_kernel(s, addr, len, flags);
	if (fd != -EAGAIN || !l)
		return fd;
	return accept_any(s, addr, len, flags, false);
}

/* *sock is pinned, and is NULL afterwards if it is not any more. */
static ssize_t accept_loop(
	struct sw_sock **sock, int fd, struct sockaddr *addr, socklen_t *len, int flags, bool *inside)
{
	struct sw_sock *s = *sock;
	struct pollfd kernel = {.events = POLLIN};
	struct sw_wait w;
	bool waiting = false, kernel_too = true;
	int r;

	s->served = true;
	if (s->late)
		sw_inherit_listener(s);
	sw_runtime_start_listeners();
	sw_progress();
	for (;;) {
		if (s->state != SW_LISTENING || s->fd < 0)
			return -EINVAL;
		r = accept_any(s, addr, len, flags, kernel_too);
		if (r != -EAGAIN)
			return r;
		if (s->nonblock)
			return -EAGAIN;
		if (!waiting)
			sw_wait_begin(&w, s->recv_timeout_ns ? s->recv_timeout_ns : SW_FOREVER,
				!s->recv_timeout_ns);
		waiting = true;
		kernel.fd = s->fd;
		kernel.revents = 0;
		/* While it spins the kernel's side has to wait: a spin is short. */
		r = sw_wait_on(&w, &s->waiters, NULL, &kernel, 1);
		kernel_too = kernel.revents != 0;
		sw_runtime_start_listeners();
		if (r == -EINTR) {
			r = sw_sock_step_out(sock, fd, &w, inside);
			waiting = false;
			if (!*sock)
				return r;
		}
		if (r)
			return r == -ETIMEDOUT ? -EAGAIN : r;
	}
}

/* Leaves the domain. */
static int accept_here(struct sw_sock *s, int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	bool inside = true;
	ssize_t r;

	sw_obj_pin(&s->obj);
	r = accept_loop(&s, fd, addr, len, flags, &inside);
	if (s)
		sw_obj_unpin(&s->obj);
	if (inside)
		sw_leave();
	return (int)sw_result(r);
}

/* A process with the same listener has set the flag that this one does not know of. */
static bool is_another_ones_flag(int fd, const struct sw_sock *s)
{
	return s && s->state == SW_LISTENING && sw_libc.fcntl(fd, F_GETFL) & O_NONBLOCK;
}

SW_EXPORT int accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	struct sw_sock *s;
	bool waits_with_others;
	ssize_t r;
	int saved_errno;

	if (sw_is_internal() || !sw_is_own_process() || (flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK)) ||
		!sw_fd_obj(fd) || !sw_enter())
		return sw_libc.accept4(fd, addr, len, flags);
	s = sw_sock_at(fd);
	/* Also where the SAN side has gone, but has left its mark on the kernel's socket. */
	if (s && s->state == SW_LISTENING && (s->n_listeners || s->kernel_nonblock || s->late))
		return accept_here(s, fd, addr, len, flags);
	waits_with_others = s && s->was_forked && !s->nonblock;
	sw_leave();
	r = sw_libc.accept4(fd, addr, len, flags);
	saved_errno = errno;
	if (r < 0 && errno == EAGAIN && waits_with_others && sw_enter()) {
		s = sw_sock_at(fd);
		if (is_another_ones_flag(fd, s))
			return accept_here(s, fd, addr, len, flags);
		sw_leave();
	}
	if (r >= 0 && s && sw_enter()) {
		/* The listener may have been closed meanwhile; its reason tells for all it accepted. */
		s = sw_sock_at(fd);
		if (s && s->state == SW_LISTENING)
			track_kernel_connection((int)r, s->reason, s->domain);
		sw_leave();
	}
	errno = saved_errno;
	return (int)r;
}

SW_EXPORT int accept(int fd, struct sockaddr *addr, socklen_t *len)
{
	return accept4(fd, addr, len, 0);
}
