/* SPDX-License-Identifier: BSD-3-Clause */
/* Birth, names and shutdown of sockets. */
#include <errno.h>
#include <poll.h>

#include "switch/libc.h"
#include "switch/stream.h"

/* --- birth --- */

static bool is_tcp(int domain, int type, int protocol)
{
	return (domain == AF_INET || domain == AF_INET6) &&
	       (type & ~(SOCK_CLOEXEC | SOCK_NONBLOCK)) == SOCK_STREAM &&
	       (!protocol || protocol == IPPROTO_TCP);
}

/* Known from its birth, a socket need not be asked what has been set on it. */
SW_EXPORT int socket(int domain, int type, int protocol)
{
	int fd = sw_libc.socket(domain, type, protocol), saved_errno = errno;
	struct sw_sock *s;

	if (fd < 0 || !is_tcp(domain, type, protocol) || sw_is_internal() || !sw_is_own_process() ||
		!sw_enter())
		return fd;
	s = sw_sock_new(fd, domain, SW_IDLE);
	if (s) {
		s->known = true;
		s->nonblock = type & SOCK_NONBLOCK;
	}
	sw_leave();
	errno = saved_errno;
	return fd;
}

SW_EXPORT int bind(int fd, const struct sockaddr *addr, socklen_t len)
{
	int r = sw_libc.bind(fd, addr, len), saved_errno = errno;
	struct sw_sock *s;

	if (r || !sw_fd_obj(fd) || sw_is_internal() || !sw_is_own_process() || !sw_enter())
		return r;
	s = sw_sock_at(fd);
	if (s)
		s->bound = true;
	sw_leave();
	errno = saved_errno;
	return r;
}

/* --- names --- */

/* The socket at fd if the switch answers for it; domain entered then. */
static struct sw_sock *enter_for(int fd)
{
	struct sw_sock *s;

	if (!sw_fd_hot(fd) || sw_is_internal() || !sw_enter())
		return NULL;
	s = sw_sock_hot(fd);
	if (!s)
		sw_leave();
	return s;
}

static int give_name(struct sw_sock *s, const struct sd_addr *a, struct sockaddr *addr, socklen_t *len)
{
	if (!addr || !len)
		return -EFAULT;
	if ((int)*len < 0)
		return -EINVAL;
	sw_name_give(a, s->domain, addr, len);
	return 0;
}

SW_EXPORT int getsockname(int fd, struct sockaddr *addr, socklen_t *len)
{
	struct sw_sock *s = enter_for(fd);
	int r = 1;

	if (!s)
		return sw_libc.getsockname(fd, addr, len);
	/* An accepted connection has the listener's port, which its kernel socket cannot have. */
	if (s->state == SW_CONNECTED)
		r = give_name(s, &s->local, addr, len);
	else if (s->state == SW_DEAD)
		r = -EBADF;
	sw_leave();
	return r == 1 ? sw_libc.getsockname(fd, addr, len) : (int)sw_result(r);
}

SW_EXPORT int getpeername(int fd, struct sockaddr *addr, socklen_t *len)
{
	struct sw_sock *s = enter_for(fd);
	int r = -ENOTCONN;

	if (!s)
		return sw_libc.getpeername(fd, addr, len);
	/* A reset connection has no peer any more, as in the kernel. */
	if (s->state == SW_CONNECTED && !(s->ep->ops->state(s->ep) & POLLERR))
		r = give_name(s, &s->peer, addr, len);
	else if (s->state == SW_DEAD)
		r = -EBADF;
	sw_leave();
	return (int)sw_result(r);
}

static int shut_down(struct sw_sock *s, int how)
{
	int r;

	switch (s->state) {
	case SW_CONNECTED:
		r = s->ep->ops->shutdown(s->ep, how);
		s->wr_shut |= !r && how != SHUT_RD;
		s->rd_shut |= !r && how != SHUT_WR;
		if (!r)
			sw_sock_wake_all(s); /* other threads that wait */
		return r;
	case SW_CONNECTING: /* as tcp_disconnect() of a connection that is being made */
		sw_sock_drop_ep(s, PV_CLOSE_ABORT);
		s->so_error = ECONNRESET;
		sw_sock_set_state(s, SW_FAILED);
		sw_sock_wake_all(s);
		return 0;
	case SW_DEAD:
		sw_stream_say_dead(s);
		return -EBADF;
	case SW_LISTENING:
		if (sw_libc.shutdown(s->fd, how))
			return -errno;
		if (how != SHUT_WR) {
			sw_sock_stop_listening(s);
			sw_sock_wake(s, POLLIN | POLLHUP);
		}
		return 0;
	case SW_FAILED:
	case SW_IDLE:
	case SW_KERNEL:
		break;
	}
	return -ENOTCONN;
}

SW_EXPORT int shutdown(int fd, int how)
{
	struct sw_sock *s = enter_for(fd);
	int r;

	if (!s)
		return sw_libc.shutdown(fd, how);
	r = how < SHUT_RD || how > SHUT_RDWR ? -EINVAL : shut_down(s, how);
	sw_leave();
	return (int)sw_result(r);
}
