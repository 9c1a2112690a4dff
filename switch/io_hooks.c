/* SPDX-License-Identifier: BSD-3-Clause */
/* The C library's functions that move bytes. A descriptor that is not on the SAN path costs one look at the
 * table. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "switch/libc.h"
#include "switch/rights.h"
#include "switch/stream.h"

/* Is fd worth a closer look? */
static inline bool ours(int fd)
{
	return __builtin_expect(sw_fd_hot(fd) != NULL, 0) && !sw_is_internal();
}

/* --- sending --- */

static ssize_t send_bytes(int fd, const void *buf, size_t len, int flags)
{
	struct iovec iov = {(void *)buf, len};

	return sw_stream_send(fd, &iov, 1, flags);
}

SW_EXPORT ssize_t write(int fd, const void *buf, size_t len)
{
	ssize_t r = ours(fd) ? send_bytes(fd, buf, len, 0) : SW_NOT_OURS;

	return r == SW_NOT_OURS ? sw_libc.write(fd, buf, len) : sw_result(r);
}

SW_EXPORT ssize_t writev(int fd, const struct iovec *iov, int n)
{
	ssize_t r = ours(fd) ? sw_stream_send(fd, iov, n, 0) : SW_NOT_OURS;

	return r == SW_NOT_OURS ? sw_libc.writev(fd, iov, n) : sw_result(r);
}

SW_EXPORT ssize_t send(int fd, const void *buf, size_t len, int flags)
{
	ssize_t r = ours(fd) ? send_bytes(fd, buf, len, flags) : SW_NOT_OURS;

	return r == SW_NOT_OURS ? sw_libc.send(fd, buf, len, flags) : sw_result(r);
}

SW_EXPORT ssize_t sendto(
	int fd, const void *buf, size_t len, int flags, const struct sockaddr *addr, socklen_t addr_len)
{
	/* A connected TCP socket ignores the address. */
	ssize_t r = ours(fd) ? send_bytes(fd, buf, len, flags) : SW_NOT_OURS;

	return r == SW_NOT_OURS ? sw_libc.sendto(fd, buf, len, flags, addr, addr_len) : sw_result(r);
}

static size_t length(const struct msghdr *msg)
{
	size_t len = 0;

	for (size_t i = 0; i < msg->msg_iovlen; i++)
		len += msg->msg_iov[i].iov_len;
	return len;
}

static ssize_t send_message(int fd, const struct msghdr *msg, int flags)
{
	if (msg->msg_iovlen > IOV_MAX)
		return -EMSGSIZE;
	return sw_stream_send(fd, msg->msg_iov, (int)msg->msg_iovlen, flags);
}

/* With descriptors beside the bytes? */
static inline bool has_control(const struct msghdr *msg)
{
	return __builtin_expect(msg && msg->msg_control && msg->msg_controllen, 0) && !sw_is_internal();
}

SW_EXPORT ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	ssize_t r = ours(fd) ? send_message(fd, msg, flags) : SW_NOT_OURS;

	if (r != SW_NOT_OURS)
		return sw_result(r);
	if (has_control(msg))
		sw_rights_leave(msg);
	return sw_libc.sendmsg(fd, msg, flags);
}

static int kernel_sendmmsg(int fd, struct mmsghdr *msgs, unsigned n, int flags)
{
	for (unsigned i = 0; i < n; i++) {
		if (has_control(&msgs[i].msg_hdr))
			sw_rights_leave(&msgs[i].msg_hdr);
	}
	return sw_libc.sendmmsg(fd, msgs, n, flags);
}

SW_EXPORT int sendmmsg(int fd, struct mmsghdr *msgs, unsigned n, int flags)
{
	ssize_t r = 0;
	unsigned i;

	if (!ours(fd))
		return kernel_sendmmsg(fd, msgs, n, flags);
	for (i = 0; i < n; i++) {
		r = send_message(fd, &msgs[i].msg_hdr, flags);
		if (r < 0)
			break;
		msgs[i].msg_len = (unsigned)r;
		/* The next one would leave a hole in the stream. */
		if ((size_t)r < length(&msgs[i].msg_hdr)) {
			i++;
			break;
		}
	}
	if (r == SW_NOT_OURS && !i)
		return kernel_sendmmsg(fd, msgs, n, flags);
	return i ? (int)i : (int)sw_result(r);
}

/* --- receiving --- */

static ssize_t recv_bytes(int fd, void *buf, size_t len, int flags)
{
	struct iovec iov = {buf, len};

	return sw_stream_recv(fd, &iov, 1, flags);
}

/* How many bytes a receive of len would get. */
static ssize_t count_unread(int fd, size_t len, int flags)
{
	char first;
	ssize_t r = recv_bytes(fd, &first, len ? 1 : 0, flags & ~(MSG_TRUNC | MSG_WAITALL));
	int queued;

	if (r <= 0 || ioctl(fd, FIONREAD, &queued) || queued < 1)
		return r;
	return (size_t)queued < len ? queued : (ssize_t)len;
}

/* Drops bytes unread: what MSG_TRUNC means on TCP (tcp(7)). */
static ssize_t discard(int fd, size_t len, int flags)
{
	int next = flags & ~MSG_TRUNC;
	char sink[16384];
	size_t done = 0, n;
	ssize_t r;

	if (flags & MSG_PEEK)
		return count_unread(fd, len, flags);
	do {
		n = len - done < sizeof sink ? len - done : sizeof sink;
		r = recv_bytes(fd, sink, n, next);
		if (r <= 0)
			return done ? (ssize_t)done : r;
		done += (size_t)r;
		if (!(flags & MSG_WAITALL))
			next |= MSG_DONTWAIT;
	} while (done < len && (size_t)r == n);
	return (ssize_t)done;
}

static ssize_t recv_any(int fd, void *buf, size_t len, int flags)
{
	return __builtin_expect(flags & MSG_TRUNC, 0) ? discard(fd, len, flags)
						      : recv_bytes(fd, buf, len, flags);
}

SW_EXPORT ssize_t read(int fd, void *buf, size_t len)
{
	ssize_t r = ours(fd) ? recv_bytes(fd, buf, len, 0) : SW_NOT_OURS;

	return r == SW_NOT_OURS ? sw_libc.read(fd, buf, len) : sw_result(r);
}

SW_EXPORT ssize_t readv(int fd, const struct iovec *iov, int n)
{
	ssize_t r = ours(fd) ? sw_stream_recv(fd, iov, n, 0) : SW_NOT_OURS;

	return r == SW_NOT_OURS ? sw_libc.readv(fd, iov, n) : sw_result(r);
}

SW_EXPORT ssize_t recv(int fd, void *buf, size_t len, int flags)
{
	ssize_t r = ours(fd) ? recv_any(fd, buf, len, flags) : SW_NOT_OURS;

	return r == SW_NOT_OURS ? sw_libc.recv(fd, buf, len, flags) : sw_result(r);
}

SW_EXPORT ssize_t recvfrom(
	int fd, void *buf, size_t len, int flags, struct sockaddr *addr, socklen_t *addr_len)
{
	ssize_t r = ours(fd) ? recv_any(fd, buf, len, flags) : SW_NOT_OURS;

	if (r == SW_NOT_OURS)
		return sw_libc.recvfrom(fd, buf, len, flags, addr, addr_len);
	if (r >= 0 && addr && addr_len)
		*addr_len = 0; /* as TCP does */
	return sw_result(r);
}

static ssize_t recv_message(int fd, struct msghdr *msg, int flags)
{
	ssize_t r;

	if (msg->msg_iovlen > IOV_MAX)
		return -EMSGSIZE;
	if (flags & MSG_TRUNC)
		r = discard(fd, length(msg), flags);
	else
		r = sw_stream_recv(fd, msg->msg_iov, (int)msg->msg_iovlen, flags);
	if (r < 0)
		return r;
	msg->msg_namelen = 0;
	msg->msg_controllen = 0;
	msg->msg_flags = flags & MSG_CMSG_CLOEXEC;
	return r;
}

SW_EXPORT ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
	ssize_t r = ours(fd) ? recv_message(fd, msg, flags) : SW_NOT_OURS;

	if (r != SW_NOT_OURS)
		return sw_result(r);
	r = sw_libc.recvmsg(fd, msg, flags);
	if (r >= 0 && has_control(msg))
		sw_rights_arrive(msg);
	return r;
}

static int kernel_recvmmsg(int fd, struct mmsghdr *msgs, unsigned n, int flags, struct timespec *timeout)
{
	int r = sw_libc.recvmmsg(fd, msgs, n, flags, timeout);

	for (int i = 0; i < r; i++) {
		if (has_control(&msgs[i].msg_hdr))
			sw_rights_arrive(&msgs[i].msg_hdr);
	}
	return r;
}

SW_EXPORT int recvmmsg(int fd, struct mmsghdr *msgs, unsigned n, int flags, struct timespec *timeout)
{
	ssize_t r = 0;
	unsigned i;

	if (!ours(fd))
		return kernel_recvmmsg(fd, msgs, n, flags, timeout);
	for (i = 0; i < n; i++) {
		r = recv_message(fd, &msgs[i].msg_hdr,
			(flags & ~MSG_WAITFORONE) | (i && (flags & MSG_WAITFORONE) ? MSG_DONTWAIT : 0));
		if (r < 0)
			break;
		msgs[i].msg_len = (unsigned)r;
		if (!r)
			return (int)i + 1;
	}
	if (r == SW_NOT_OURS && !i)
		return kernel_recvmmsg(fd, msgs, n, flags, timeout);
	return i ? (int)i : (int)sw_result(r);
}

/* --- what _FORTIFY_SOURCE makes of them --- */

ssize_t __read_chk(int fd, void *buf, size_t len, size_t room);
ssize_t __recv_chk(int fd, void *buf, size_t len, size_t room, int flags);
ssize_t __recvfrom_chk(
	int fd, void *buf, size_t len, size_t room, int flags, struct sockaddr *addr, socklen_t *addr_len);
void __chk_fail(void) __attribute__((noreturn));

SW_EXPORT ssize_t __read_chk(int fd, void *buf, size_t len, size_t room)
{
	if (len > room)
		__chk_fail();
	return read(fd, buf, len);
}

SW_EXPORT ssize_t __recv_chk(int fd, void *buf, size_t len, size_t room, int flags)
{
	if (len > room)
		__chk_fail();
	return recv(fd, buf, len, flags);
}

SW_EXPORT ssize_t __recvfrom_chk(
	int fd, void *buf, size_t len, size_t room, int flags, struct sockaddr *addr, socklen_t *addr_len)
{
	if (len > room)
		__chk_fail();
	return recvfrom(fd, buf, len, flags, addr, addr_len);
}
