/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libc: the C library's own functions behind the hooks.
 *
 * Until the constructor of this file has run, the table holds bare system calls, so that a hook works from
 * the very first instruction: called by another library's constructor, or by malloc inside dlsym.
 */
#ifndef SD_SWITCH_LIBC_H
#define SD_SWITCH_LIBC_H

#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

/* X(result, name, parameters, system call and its arguments) */
#define SW_LIBC_CALLS(X)                                                                                     \
	X(ssize_t, read, (int fd, void *buf, size_t len), SYS_read, fd, buf, len)                            \
	X(ssize_t, write, (int fd, const void *buf, size_t len), SYS_write, fd, buf, len)                    \
	X(ssize_t, readv, (int fd, const struct iovec *iov, int n), SYS_readv, fd, iov, n)                   \
	X(ssize_t, writev, (int fd, const struct iovec *iov, int n), SYS_writev, fd, iov, n)                 \
	X(ssize_t, recv, (int fd, void *buf, size_t len, int flags), SYS_recvfrom, fd, buf, len, flags, 0,   \
		0)                                                                                           \
	X(ssize_t, send, (int fd, const void *buf, size_t len, int flags), SYS_sendto, fd, buf, len, flags,  \
		0, 0)                                                                                        \
	X(ssize_t, recvfrom,                                                                                 \
		(int fd, void *buf, size_t len, int flags, struct sockaddr *addr, socklen_t *addr_len),      \
		SYS_recvfrom, fd, buf, len, flags, addr, addr_len)                                           \
	X(ssize_t, sendto,                                                                                   \
		(int fd, const void *buf, size_t len, int flags, const struct sockaddr *addr,                \
			socklen_t addr_len),                                                                 \
		SYS_sendto, fd, buf, len, flags, addr, addr_len)                                             \
	X(ssize_t, recvmsg, (int fd, struct msghdr *msg, int flags), SYS_recvmsg, fd, msg, flags)            \
	X(ssize_t, sendmsg, (int fd, const struct msghdr *msg, int flags), SYS_sendmsg, fd, msg, flags)      \
	X(int, recvmmsg, (int fd, struct mmsghdr *msgs, unsigned n, int flags, struct timespec *timeout),    \
		SYS_recvmmsg, fd, msgs, n, flags, timeout)                                                   \
	X(int, sendmmsg, (int fd, struct mmsghdr *msgs, unsigned n, int flags), SYS_sendmmsg, fd, msgs, n,   \
		flags)                                                                                       \
	X(ssize_t, sendfile, (int out, int in, off_t *offset, size_t len), SYS_sendfile, out, in, offset,    \
		len)                                                                                         \
	X(ssize_t, splice, (int in, off_t *in_off, int out, off_t *out_off, size_t len, unsigned flags),     \
		SYS_splice, in, in_off, out, out_off, len, flags)                                            \
	X(int, socket, (int domain, int type, int protocol), SYS_socket, domain, type, protocol)             \
	X(int, connect, (int fd, const struct sockaddr *addr, socklen_t len), SYS_connect, fd, addr, len)    \
	X(int, bind, (int fd, const struct sockaddr *addr, socklen_t len), SYS_bind, fd, addr, len)          \
	X(int, listen, (int fd, int backlog), SYS_listen, fd, backlog)                                       \
	X(int, accept, (int fd, struct sockaddr *addr, socklen_t *len), SYS_accept, fd, addr, len)           \
	X(int, accept4, (int fd, struct sockaddr *addr, socklen_t *len, int flags), SYS_accept4, fd, addr,   \
		len, flags)                                                                                  \
	X(int, shutdown, (int fd, int how), SYS_shutdown, fd, how)                                           \
	X(int, getsockname, (int fd, struct sockaddr *addr, socklen_t *len), SYS_getsockname, fd, addr, len) \
	X(int, getpeername, (int fd, struct sockaddr *addr, socklen_t *len), SYS_getpeername, fd, addr, len) \
	X(int, getsockopt, (int fd, int level, int name, void *value, socklen_t *len), SYS_getsockopt, fd,   \
		level, name, value, len)                                                                     \
	X(int, setsockopt, (int fd, int level, int name, const void *value, socklen_t len), SYS_setsockopt,  \
		fd, level, name, value, len)                                                                 \
	X(int, close, (int fd), SYS_close, fd)                                                               \
	X(int, close_range, (unsigned first, unsigned last, int flags), SYS_close_range, first, last, flags) \
	X(int, dup, (int fd), SYS_dup, fd)                                                                   \
	X(int, dup2, (int fd, int to), SYS_dup2, fd, to)                                                     \
	X(int, dup3, (int fd, int to, int flags), SYS_dup3, fd, to, flags)                                   \
	X(int, poll, (struct pollfd * fds, nfds_t n, int timeout), SYS_poll, fds, n, timeout)                \
	X(int, ppoll, (struct pollfd * fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask), \
		SYS_ppoll, fds, n, timeout, mask, _NSIG / 8)                                                 \
	X(int, select, (int n, fd_set *in, fd_set *out, fd_set *ex, struct timeval *timeout), SYS_select, n, \
		in, out, ex, timeout)                                                                        \
	X(int, pselect,                                                                                      \
		(int n, fd_set *in, fd_set *out, fd_set *ex, const struct timespec *timeout,                 \
			const sigset_t *mask),                                                               \
		SYS_pselect6, n, in, out, ex, timeout, SW_SIGSET_ARG(mask))                                  \
	X(int, epoll_create1, (int flags), SYS_epoll_create1, flags)                                         \
	X(int, epoll_ctl, (int set, int op, int fd, struct epoll_event *ev), SYS_epoll_ctl, set, op, fd, ev) \
	X(int, epoll_wait, (int set, struct epoll_event *evs, int n, int timeout), SYS_epoll_wait, set, evs, \
		n, timeout)                                                                                  \
	X(int, epoll_pwait, (int set, struct epoll_event *evs, int n, int timeout, const sigset_t *mask),    \
		SYS_epoll_pwait, set, evs, n, timeout, mask, _NSIG / 8)                                      \
	X(int, epoll_pwait2,                                                                                 \
		(int set, struct epoll_event *evs, int n, const struct timespec *timeout,                    \
			const sigset_t *mask),                                                               \
		SYS_epoll_pwait2, set, evs, n, timeout, mask, _NSIG / 8)

struct sw_libc {
#define X(result, name, params, ...) result(*name) params;
	SW_LIBC_CALLS(X)
#undef X
	int (*fcntl)(int fd, int cmd, ...);
	int (*ioctl)(int fd, unsigned long request, ...);
};

extern struct sw_libc sw_libc;

/* The next definition of a function that is no system call; the process ends when there is none. */
void *sw_libc_symbol(const char *name);

#endif
