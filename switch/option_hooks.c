/* SPDX-License-Identifier: BSD-3-Clause */
/* The C library's functions for socket options and descriptor flags. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>

#include "switch/fds.h"
#include "switch/libc.h"
#include "switch/options.h"
#include "switch/stream.h"
#include "switch/tcpinfo.h"

/* --- getsockopt --- */

static int give(void *value, socklen_t *len, const void *from, size_t size)
{
	if ((int)*len < 0)
		return -EINVAL;
	if (*len > size)
		*len = (socklen_t)size;
	memcpy(value, from, *len);
	return 0;
}

static int give_int(void *value, socklen_t *len, int v)
{
	return give(value, len, &v, sizeof v);
}

/* The terminal error of the endpoint, if nobody has been told. */
static int take_error(struct sw_sock *s)
{
	char nothing = 0; /* no byte goes out on a connection that has failed */
	struct iovec one = {&nothing, 1};
	ssize_t r;

	if (s->error_told || !(s->ep->ops->state(s->ep) & PV_ERR))
		return 0;
	r = s->ep->ops->send(s->ep, &one, 1, 0);
	s->error_told = true;
	return r < 0 ? (int)-r : 0;
}

static int so_error(struct sw_sock *s, void *value, socklen_t *len)
{
	int error = 0;

	if (s->state == SW_CONNECTING)
		sw_progress();
	switch (s->state) {
	case SW_FAILED:
		error = s->so_error;
		s->so_error = 0;
		break;
	case SW_CONNECTED:
		error = take_error(s);
		break;
	case SW_DEAD:
		sw_stream_say_dead(s);
		error = EBADF;
		break;
	case SW_CONNECTING:
		break;
	case SW_LISTENING:
	case SW_IDLE:
	case SW_KERNEL:
		return SW_KERNELS;
	}
	return give_int(value, len, error);
}

static int tcp_info(struct sw_sock *s, void *value, socklen_t *len)
{
	if ((int)*len < 0)
		return -EINVAL;
	*len = (socklen_t)sw_tcpinfo(s, value, *len);
	return 0;
}

static int max_segment(struct sw_sock *s, void *value, socklen_t *len)
{
	struct pv_info info;

	s->ep->ops->info(s->ep, &info);
	return give_int(value, len, (int)info.mss);
}

static int san_getsockopt(struct sw_sock *s, int level, int name, void *value, socklen_t *len)
{
	if (level == SOL_SOCKET && name == SO_ERROR)
		return so_error(s, value, len);
	if (level == IPPROTO_TCP && s->ep && (s->state == SW_CONNECTED || s->state == SW_CONNECTING)) {
		if (name == TCP_INFO)
			return tcp_info(s, value, len);
		if (name == TCP_MAXSEG && s->state == SW_CONNECTED)
			return max_segment(s, value, len);
	}
	return SW_KERNELS;
}

/* The kernel's socket is not what the program's descriptor is. */
static int placed_getsockopt(struct sw_sock *s, int level, int name, void *value, socklen_t *len)
{
	int fd, v;

	if (!sw_options_get(s, level, name, &v))
		return give_int(value, len, v);
	fd = sw_sock_kernel_fd(s);
	if (fd < 0)
		return -ENOBUFS;
	return sw_libc.getsockopt(fd, level, name, value, len) ? -errno : 0;
}

SW_EXPORT int getsockopt(int fd, int level, int name, void *restrict value, socklen_t *restrict len)
{
	struct sw_sock *s;
	int r = SW_KERNELS;

	if (sw_fds_not_open(fd))
		return (int)sw_result(-EBADF);
	if (sw_fd_hot(fd) && value && len && sw_enter()) {
		s = sw_sock_hot(fd);
		if (s)
			r = san_getsockopt(s, level, name, value, len);
		if (s && r == SW_KERNELS && s->placed)
			r = placed_getsockopt(s, level, name, value, len);
		sw_leave();
	}
	return r == SW_KERNELS ? sw_libc.getsockopt(fd, level, name, value, len) : (int)sw_result(r);
}

/* --- setsockopt --- */

/* An option that the SAN path does not carry, before the kernel has it. */
static int bind_to_kernel(struct sw_sock *s)
{
	switch (s->state) {
	case SW_CONNECTING:
	case SW_CONNECTED:
	case SW_FAILED:
	case SW_DEAD:
		return -ENOPROTOOPT;
	case SW_LISTENING:
		s->kernel_bound = true;
		s->reason = SD_REASON_OPTION;
		if (s->n_listeners)
			sw_sock_stop_listening(s);
		break;
	case SW_IDLE:
	case SW_KERNEL:
		s->kernel_bound = true;
		break;
	}
	return 0;
}

static int set_bound(int fd, int level, int name, const void *value, socklen_t len)
{
	struct sw_sock *s;
	int r = 0;

	if (sw_enter()) {
		/* Only now is the configuration there for sure. */
		s = sw_options_bind_to_kernel(level, name, value, len) ? sw_sock_adopt(fd) : NULL;
		if (s)
			r = bind_to_kernel(s);
		sw_leave();
	}
	return r ? (int)sw_result(r) : sw_libc.setsockopt(fd, level, name, value, len);
}

static int tracked_setsockopt(struct sw_sock *s, int level, int name, const void *value, socklen_t len)
{
	int fd, r = sw_options_set(s, level, name, value, len);

	if (r != SW_KERNELS)
		return r;
	fd = sw_sock_kernel_fd(s);
	if (fd < 0)
		return -ENOBUFS;
	if (sw_libc.setsockopt(fd, level, name, value, len))
		return -errno;
	if (s->state != SW_KERNEL)
		sw_options_mirror(s, level, name);
	return 0;
}

SW_EXPORT int setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
	struct sw_sock *s;
	int r;

	if (sw_fds_not_open(fd))
		return (int)sw_result(-EBADF);
	if (!sw_is_internal() && sw_options_bind_to_kernel(level, name, value, len) && sw_sock_is_tcp(fd))
		return set_bound(fd, level, name, value, len);
	if (!sw_fd_obj(fd) || !sw_enter())
		return sw_libc.setsockopt(fd, level, name, value, len);
	s = sw_sock_at(fd);
	r = s ? tracked_setsockopt(s, level, name, value, len) : SW_KERNELS;
	sw_leave();
	return r == SW_KERNELS ? sw_libc.setsockopt(fd, level, name, value, len) : (int)sw_result(r);
}

/* --- O_NONBLOCK --- */

/* The flags as the application set them. */
static int get_flags(int fd)
{
	int flags = sw_libc.fcntl(fd, F_GETFL);
	struct sw_sock *s;

	if (flags < 0 || !sw_fd_obj(fd) || !sw_enter())
		return flags;
	s = sw_sock_at(fd);
	if (s && s->kernel_nonblock && !s->nonblock)
		flags &= ~O_NONBLOCK;
	sw_leave();
	return flags;
}

static int set_flags(int fd, int flags)
{
	struct sw_sock *s;
	int r;

	if (!sw_fd_obj(fd) || !sw_enter())
		return sw_libc.fcntl(fd, F_SETFL, flags);
	s = sw_sock_at(fd);
	r = sw_libc.fcntl(fd, F_SETFL, s && s->kernel_nonblock ? flags | O_NONBLOCK : flags);
	if (!r && s)
		s->nonblock = flags & O_NONBLOCK;
	sw_leave();
	return r;
}

static int set_nonblock(int fd, int *on)
{
	struct sw_sock *s;
	int r = 0;

	if (!on || !sw_fd_obj(fd) || !sw_enter())
		return sw_libc.ioctl(fd, FIONBIO, on);
	s = sw_sock_at(fd);
	if (!s || !s->kernel_nonblock)
		r = sw_libc.ioctl(fd, FIONBIO, on);
	if (!r && s)
		s->nonblock = *on;
	sw_leave();
	return r;
}

/* --- fcntl --- */

static int control(int fd, int cmd, long arg)
{
	if (sw_is_internal())
		return sw_libc.fcntl(fd, cmd, arg);
	if (sw_fds_not_open(fd))
		return (int)sw_result(-EBADF);
	switch (cmd) {
	case F_DUPFD:
	case F_DUPFD_CLOEXEC:
		return sw_fds_duplicate(fd, cmd, arg);
	case F_GETFL:
		return get_flags(fd);
	case F_SETFL:
		return set_flags(fd, (int)arg);
	default:
		return sw_libc.fcntl(fd, cmd, arg);
	}
}

SW_EXPORT int fcntl(int fd, int cmd, ...)
{
	va_list ap;
	long arg;

	va_start(ap, cmd);
	arg = va_arg(ap, long);
	va_end(ap);
	return control(fd, cmd, arg);
}

SW_EXPORT int fcntl64(int fd, int cmd, ...)
{
	va_list ap;
	long arg;

	va_start(ap, cmd);
	arg = va_arg(ap, long);
	va_end(ap);
	return control(fd, cmd, arg);
}

/* --- ioctl --- */

static int clip(uint64_t n)
{
	return n < INT_MAX ? (int)n : INT_MAX;
}

static int queued(struct sw_sock *s, unsigned long request, int *out)
{
	struct pv_info info = {0};

	if (s->state == SW_DEAD) {
		sw_stream_say_dead(s);
		return -EBADF;
	}
	if (s->state == SW_CONNECTED)
		s->ep->ops->info(s->ep, &info);
	else if (s->state == SW_LISTENING)
		return SW_KERNELS;
	if (request == SIOCINQ)
		*out = clip(info.recv_queued);
	else if (request == SIOCOUTQ)
		*out = clip(info.send_queued);
	else if (request == SIOCOUTQNSD)
		*out = clip(info.send_unsent);
	else
		*out = 0; /* SIOCATMARK: there is no urgent data */
	return 0;
}

static int san_ioctl(int fd, unsigned long request, int *out)
{
	struct sw_sock *s;
	int r = SW_KERNELS;

	if (sw_enter()) {
		s = sw_sock_hot(fd);
		/* A program may wait for bytes with nothing but this call. */
		if (s && s->state == SW_CONNECTED)
			sw_progress();
		if (s)
			r = queued(s, request, out);
		sw_leave();
	}
	return r == SW_KERNELS ? sw_libc.ioctl(fd, request, out) : (int)sw_result(r);
}

SW_EXPORT int ioctl(int fd, unsigned long request, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (sw_is_internal())
		return sw_libc.ioctl(fd, request, arg);
	if (sw_fds_not_open(fd))
		return (int)sw_result(-EBADF);
	switch (request) {
	case FIONBIO:
		return set_nonblock(fd, arg);
	case SIOCINQ: /* FIONREAD */
	case SIOCOUTQ:
	case SIOCOUTQNSD:
	case SIOCATMARK:
		return sw_fd_hot(fd) ? san_ioctl(fd, request, arg) : sw_libc.ioctl(fd, request, arg);
	default:
		return sw_libc.ioctl(fd, request, arg);
	}
}
