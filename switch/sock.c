/* SPDX-License-Identifier: BSD-3-Clause */
/* Socket objects: birth by adoption, slots and tags, readiness, death. Everything with the domain entered. */
#include "switch/sock.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "switch/epset.h"
#include "switch/inherit.h"
#include "switch/libc.h"
#include "switch/options.h"
#include "switch/statfile.h"
#include "switch/statwrite.h"
#include "switch/wait.h"

/* --- slots --- */

static uintptr_t slot_of(struct sw_obj *o)
{
	if (o->is_epset)
		return (uintptr_t)o | SW_SLOT_KERNEL | SW_SLOT_EPSET;
	return (uintptr_t)o | (sw_sock_is_san(sw_sock_of(o)) ? 0 : SW_SLOT_KERNEL);
}

void sw_fd_share(int fd, struct sw_obj *o)
{
	/* Something there was closed behind our back, inside the C library. */
	sw_fd_drop(fd);
	if (sw_fd_store(fd, slot_of(o)))
		o->fds++;
}

static int other_fd_of(struct sw_obj *o)
{
	for (int fd = sw_fd_next(0); fd >= 0; fd = sw_fd_next(fd + 1)) {
		if (sw_fd_obj(fd) == o)
			return fd;
	}
	return -1;
}

static void orphan(struct sw_obj *o)
{
	if (o->is_epset)
		sw_epset_orphan(sw_epset_of(o));
	else
		sw_sock_orphan(sw_sock_of(o));
}

static void release(struct sw_obj *o);

void sw_fd_drop(int fd)
{
	struct sw_obj *o = sw_fd_obj(fd);

	if (!o)
		return;
	sw_fd_store(fd, 0);
	o->fds--;
	if (!o->fds) {
		orphan(o);
		if (!o->pins)
			release(o);
	} else if (o->is_epset && sw_epset_of(o)->fd == fd) {
		sw_epset_of(o)->fd = other_fd_of(o);
	} else if (!o->is_epset && sw_sock_of(o)->fd == fd) {
		struct sw_sock *s = sw_sock_of(o);

		s->fd = other_fd_of(o);
		if (s->placed && s->ep)
			s->ep->ops->moved(s->ep, s->fd);
	}
}

void sw_obj_pin(struct sw_obj *o)
{
	o->pins++;
}

void sw_obj_unpin(struct sw_obj *o)
{
	if (!--o->pins && !o->fds)
		release(o);
}

int sw_sock_step_out(struct sw_sock **s, int fd, const struct sw_wait *w, bool *inside)
{
	struct sw_sock *was = *s;
	int r;

	*s = NULL;
	sw_obj_unpin(&was->obj);
	sw_leave();
	r = sw_wait_restarts(w) ? 0 : -EINTR;
	*inside = sw_enter();
	if (!*inside)
		return -EINTR;
	/* One that lies where the other one lay is as good: the call begins anew. */
	if (sw_sock_at(fd) != was)
		return r ? r : -EBADF;
	*s = was;
	sw_obj_pin(&was->obj);
	return r;
}

/* --- birth --- */

struct sw_sock *sw_sock_new(int fd, int domain, enum sw_state state)
{
	struct sw_sock *s = calloc(1, sizeof *s);

	if (!s)
		return NULL;
	s->state = state;
	s->fd = fd;
	s->shadow = -1;
	s->domain = domain;
	s->reason = SD_REASON_NOT_YET;
	s->stat_record = -1;
	s->options = (struct pv_options)PV_OPTIONS_NONE;
	s->recv_low = 1;
	list_init(&s->watchers);
	list_init(&s->waiters);
	list_init(&s->work);
	sw_fd_share(fd, &s->obj);
	if (!s->obj.fds) {
		free(s);
		return NULL;
	}
	return s;
}

bool sw_sock_is_tcp(int fd)
{
	struct sw_obj *o = sw_fd_obj(fd);
	int saved_errno = errno, protocol;

	if (o)
		return !o->is_epset;
	protocol = sw_option_int(fd, SOL_SOCKET, SO_PROTOCOL);
	errno = saved_errno;
	return protocol == IPPROTO_TCP;
}

/* The kernel's TCP state (tcp_states.h), or -1: not TCP. It is the first byte of struct tcp_info. */
static int tcp_state(int fd)
{
	uint8_t state = 0;
	socklen_t len = sizeof state;

	return sw_libc.getsockopt(fd, IPPROTO_TCP, TCP_INFO, &state, &len) ? -1 : state;
}

struct sw_sock *sw_sock_adopt(int fd)
{
	struct sw_sock *s = sw_sock_at(fd);
	int saved_errno = errno, state, domain;
	enum sw_state is = SW_KERNEL;

	if (s || sw_fd_slot(fd))
		return s;
	state = tcp_state(fd);
	domain = state < 0 ? -1 : sw_option_int(fd, SOL_SOCKET, SO_DOMAIN);
	/* MPTCP and SMC answer to TCP's options too. */
	if ((domain == AF_INET || domain == AF_INET6) &&
		sw_option_int(fd, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_TCP) {
		if (state == TCP_CLOSE)
			is = SW_IDLE;
		else if (state == TCP_LISTEN)
			is = SW_LISTENING;
		s = sw_sock_new(fd, domain, is);
	}
	if (s) {
		s->nonblock = sw_libc.fcntl(fd, F_GETFL) & O_NONBLOCK;
		if (is == SW_KERNEL)
			s->reason = SD_REASON_INHERITED;
	}
	errno = saved_errno;
	return s;
}

/* --- state --- */

void sw_sock_retag(struct sw_sock *s)
{
	uintptr_t slot = slot_of(&s->obj);

	if (s->obj.fds == 1 && s->fd >= 0) {
		sw_fd_store(s->fd, slot);
		return;
	}
	for (int fd = sw_fd_next(0); fd >= 0; fd = sw_fd_next(fd + 1)) {
		if (sw_fd_obj(fd) == &s->obj)
			sw_fd_store(fd, slot);
	}
}

void sw_sock_set_state(struct sw_sock *s, enum sw_state state)
{
	if (s->state == SW_CONNECTED && state != SW_CONNECTED)
		sw_rt.n_san--;
	if (s->state != SW_CONNECTED && state == SW_CONNECTED)
		sw_rt.n_san++;
	s->state = state;
	sw_rt.moves++;
	if (s->obj.fds)
		sw_sock_retag(s);
	sw_epset_target_moves(s);
	stat_update(s);
}

/* dup3(2) and not the switch's own: to the application nothing changes. */
static int put_in_place(int end, int fd)
{
	int flags = sw_libc.fcntl(fd, F_GETFD);

	return sw_libc.dup3(end, fd, flags & FD_CLOEXEC ? O_CLOEXEC : 0) < 0 ? -errno : 0;
}

static int put_everywhere(struct sw_sock *s, int what)
{
	int r = 0;

	if (s->obj.fds == 1)
		return put_in_place(what, s->fd);
	for (int fd = sw_fd_next(0); fd >= 0 && !r; fd = sw_fd_next(fd + 1)) {
		if (sw_fd_obj(fd) == &s->obj)
			r = put_in_place(what, fd);
	}
	return r;
}

/* fd, a new one or negative with errno set, is the kernel's socket from now on. */
static int set_shadow(struct sw_sock *s, int fd)
{
	s->shadow = sd_fd_raise(fd);
	if (s->shadow < 0)
		return -errno;
	sw_fd_guard(NULL, s->shadow, PV_GUARD_KEPT);
	return 0;
}

int sw_sock_kernel_fd(struct sw_sock *s)
{
	if (!s->placed)
		return s->fd;
	if (s->shadow < 0 && !sw_rt.confined &&
		!set_shadow(s, sw_libc.socket(s->domain, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP)))
		sw_options_to_kernel(s);
	return s->shadow;
}

int sw_sock_take_place(struct sw_sock *s, bool keep)
{
	uint8_t note[PV_NOTE_SIZE];
	int end = s->ep->ops->take_fd(s->ep, note, sw_note_of(s, note)), r = 0;
	bool nonblock;

	if (end < 0)
		return 0;
	nonblock = keep ? sw_libc.fcntl(s->fd, F_GETFL) & O_NONBLOCK : s->nonblock;
	if (keep)
		r = set_shadow(s, sw_libc.fcntl(s->fd, F_DUPFD_CLOEXEC, 0));
	if (!r && nonblock)
		sw_libc.fcntl(end, F_SETFL, O_NONBLOCK);
	if (!r) {
		r = put_everywhere(s, end);
		s->placed = true;
		s->ep->ops->moved(s->ep, s->fd);
	}
	sw_libc.close(end);
	return r;
}

static void close_shadow(struct sw_sock *s)
{
	if (s->shadow < 0)
		return;
	sw_fd_guard(NULL, s->shadow, PV_GUARD_NONE);
	sw_libc.close(s->shadow);
	s->shadow = -1;
}

void sw_sock_leave_place(struct sw_sock *s)
{
	if (s->placed)
		put_everywhere(s, sw_sock_kernel_fd(s));
	s->placed = false;
	close_shadow(s);
}

/* --- readiness --- */

struct pv_ep *sw_sock_acceptable(const struct sw_sock *s)
{
	for (unsigned i = 0; i < s->n_listeners; i++) {
		if (s->listeners[i]->ops->state(s->listeners[i]) & PV_IN)
			return s->listeners[i];
	}
	return NULL;
}

unsigned sw_sock_level(struct sw_sock *s)
{
	struct pv_info info;
	unsigned bits = 0;

	switch (s->state) {
	case SW_CONNECTED:
		bits = s->ep->ops->state(s->ep);
		if (s->error_told)
			bits &= ~PV_ERR;
		if ((bits & PV_IN) && s->recv_low > 1 && !(bits & (PV_RDHUP | PV_ERR | PV_HUP))) {
			s->ep->ops->info(s->ep, &info);
			/* As in the kernel: a buffer that cannot hold so much is not waited for. */
			if (info.recv_queued < (uint64_t)s->recv_low &&
				info.recv_queued < info.recv_buffer / 2)
				bits &= ~PV_IN;
		}
		break;
	case SW_LISTENING:
		s->served = true;
		if (s->late)
			sw_inherit_listener(s);
		bits = sw_sock_acceptable(s) ? PV_IN : 0;
		break;
	case SW_FAILED:
		bits = PV_IN | PV_OUT | PV_HUP | PV_RDHUP | (s->so_error ? PV_ERR : 0);
		break;
	case SW_DEAD:
		bits = PV_ERR | PV_HUP;
		break;
	case SW_IDLE:
	case SW_CONNECTING:
	case SW_KERNEL:
		break;
	}
	return bits | (bits & PV_IN ? POLLRDNORM : 0) | (bits & PV_OUT ? POLLWRNORM : 0);
}

void sw_sock_wake(struct sw_sock *s, unsigned events)
{
	sw_epset_target_ready(&s->watchers, events);
	list_for_each (it, &s->waiters)
		pv_waiter_ring(container_of(it, struct sw_link, node)->waiter);
}

void sw_sock_ready(void *user, unsigned events)
{
	struct sw_sock *s = user;

	if (s->state != SW_CONNECTING) {
		sw_sock_wake(s, events);
		return;
	}
	/* Its endpoint must not be touched from here: whoever drives the domain settles it. */
	if (list_empty(&s->work))
		list_push_back(&sw_rt.work, &s->work);
	list_for_each (it, &s->waiters)
		pv_waiter_ring(container_of(it, struct sw_link, node)->waiter);
	list_for_each (it, &s->watchers)
		sw_epset_ring(container_of(it, struct sw_epitem, by_target)->set);
}

/* --- death --- */

void sw_sock_drop_ep(struct sw_sock *s, enum pv_close_mode mode)
{
	struct pv_ep *ep = s->ep;

	if (!ep)
		return;
	stat_update(s);
	s->ep = NULL;
	list_remove(&s->work);
	ep->ops->close(ep, mode);
}

static void close_listeners(struct sw_sock *s)
{
	for (unsigned i = 0; i < s->n_listeners; i++)
		s->listeners[i]->ops->close(s->listeners[i], PV_CLOSE_ABORT);
	if (s->n_listeners)
		sw_rt.n_listeners--;
	s->n_listeners = 0;
}

void sw_sock_stop_listening(struct sw_sock *s)
{
	close_listeners(s);
	sw_sock_set_state(s, s->state);
}

void sw_sock_listen_late(struct sw_sock *s)
{
	close_listeners(s);
	s->late = true;
	stat_update(s);
}

void sw_sock_orphan(struct sw_sock *s)
{
	s->fd = -1;
	/* A thread may wait with it still, and the number be another's meanwhile. */
	if (s->placed && s->ep)
		s->ep->ops->moved(s->ep, -1);
	sw_epset_target_gone(&s->watchers);
	/* A thread that waits in accept() does not keep the port; one that waits in recv() keeps the
	 * connection. */
	close_listeners(s);
}

static void sock_release(struct sw_sock *s)
{
	bool abort = s->state != SW_CONNECTED || (s->linger.l_onoff && !s->linger.l_linger);

	sw_sock_drop_ep(s, abort ? PV_CLOSE_ABORT : PV_CLOSE_GRACEFUL);
	if (s->state == SW_CONNECTED)
		sw_rt.n_san--;
	list_remove(&s->work);
	stat_remove(s);
	close_shadow(s);
	free(s->listeners);
	free(s);
}

static void release(struct sw_obj *o)
{
	if (o->is_epset)
		sw_epset_free(sw_epset_of(o));
	else
		sock_release(sw_sock_of(o));
}
