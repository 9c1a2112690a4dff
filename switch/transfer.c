/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sendfile and splice with a socket on the SAN path: by copying. What has been taken from the source and
 * could not be given to the destination must not be lost, so a file is read at an offset of our own, a socket
 * is peeked at, and from a pipe no more is read than is sure to be taken.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "switch/libc.h"
#include "switch/stream.h"

#define CHUNK 65536

static ssize_t send_chunk(int fd, const void *buf, size_t len, int flags)
{
	struct iovec iov = {(void *)buf, len};

	return sw_stream_send(fd, &iov, 1, flags);
}

/* --- sendfile --- */

/* Where a file ends; 0: nobody knows. */
static off_t end_of(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && S_ISREG(st.st_mode) ? st.st_size : 0;
}

/* In the file from *at on, by buf, which has room for CHUNK or len; moves *at by what was sent. */
static ssize_t file_to_socket(int out, int in, off_t *at, size_t len, char *buf)
{
	size_t done = 0, want;
	off_t end = end_of(in);
	ssize_t got, sent;

	while (done < len) {
		want = len - done < CHUNK ? len - done : CHUNK;
		got = pread(in, buf, want, *at);
		if (got <= 0)
			return done || !got ? (ssize_t)done : -errno;
		sent = send_chunk(
			out, buf, (size_t)got, done + (size_t)got < len && *at + got < end ? MSG_MORE : 0);
		if (sent < 0)
			return done ? (ssize_t)done : sent;
		done += (size_t)sent;
		*at += sent;
		if (sent < got)
			break;
	}
	return (ssize_t)done;
}

SW_EXPORT ssize_t sendfile(int out, int in, off_t *offset, size_t len)
{
	char *buf;
	off_t at;
	ssize_t r;

	if (!sw_fd_hot(out) || sw_is_internal())
		return sw_libc.sendfile(out, in, offset, len);
	at = offset ? *offset : lseek(in, 0, SEEK_CUR);
	if (at < 0) {
		errno = EINVAL;
		return -1;
	}
	buf = malloc(len < CHUNK ? len : CHUNK); /* a thread's stack may be smaller */
	if (!buf && len) {
		errno = ENOMEM;
		return -1;
	}
	pthread_cleanup_push(free, buf); /* the thread may be cancelled */
	r = file_to_socket(out, in, &at, len < SSIZE_MAX ? len : SSIZE_MAX, buf);
	pthread_cleanup_pop(1);
	if (r == SW_NOT_OURS)
		return sw_libc.sendfile(out, in, offset, len);
	if (r > 0 && offset)
		*offset = at;
	else if (r > 0)
		lseek(in, at, SEEK_SET);
	return sw_result(r);
}

SW_EXPORT ssize_t sendfile64(int out, int in, off_t *offset, size_t len)
{
	return sendfile(out, in, offset, len);
}

/* --- splice --- */

/* How many bytes a send is sure to take now; waits for some unless it must not. -errno. */
static ssize_t wait_for_room(int fd, bool nonblock)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	struct pv_info info;
	struct sw_sock *s;
	ssize_t room = 0;

	for (int timeout = 0;; timeout = -1) {
		if (poll(&p, 1, timeout) < 0)
			return -errno;
		if (!sw_enter())
			return -EAGAIN;
		s = sw_sock_hot(fd);
		if (s && s->state == SW_CONNECTED) {
			s->ep->ops->info(s->ep, &info);
			room = (ssize_t)info.send_room;
			/* Writable without room: the send says why, or what is sent is dropped. */
			if (!room && s->ep->ops->state(s->ep) & PV_OUT)
				room = CHUNK;
		}
		nonblock |= s && s->nonblock;
		sw_leave();
		if (!s || room > 0 || (p.revents & (POLLERR | POLLHUP)))
			return room > 0 ? room : 1; /* the send will say what is wrong */
		if (nonblock)
			return -EAGAIN;
	}
}

static ssize_t pipe_to_socket(int in, int out, char *buf, size_t len, unsigned flags)
{
	ssize_t room = wait_for_room(out, flags & SPLICE_F_NONBLOCK), got, sent, done = 0;
	struct pollfd p = {.fd = in, .events = POLLIN};

	if (room < 0)
		return room;
	len = len < (size_t)room ? len : (size_t)room;
	if ((flags & SPLICE_F_NONBLOCK) && sw_libc.poll(&p, 1, 0) == 0)
		return -EAGAIN;
	got = sw_libc.read(in, buf, len);
	if (got <= 0)
		return got ? -errno : 0;
	while (done < got) {
		sent = send_chunk(
			out, buf + done, (size_t)(got - done), flags & SPLICE_F_MORE ? MSG_MORE : 0);
		if (sent == -EAGAIN || sent == -EINTR) {
			p = (struct pollfd){.fd = out, .events = POLLOUT};
			poll(&p, 1, -1);
		} else if (sent < 0) {
			return done ? done : sent;
		} else {
			done += sent;
		}
	}
	return done;
}

static ssize_t socket_to_pipe(int in, int out, char *buf, size_t len, unsigned flags)
{
	struct iovec iov = {buf, len};
	struct pollfd p = {.fd = out, .events = POLLOUT};
	ssize_t got = sw_stream_recv(in, &iov, 1, MSG_PEEK | (flags & SPLICE_F_NONBLOCK ? MSG_DONTWAIT : 0)),
		put;

	if (got <= 0)
		return got;
	/* A ready pipe takes PIPE_BUF at least without blocking. */
	if (flags & SPLICE_F_NONBLOCK) {
		if (sw_libc.poll(&p, 1, 0) == 0)
			return -EAGAIN;
		got = got < PIPE_BUF ? got : PIPE_BUF;
	}
	put = sw_libc.write(out, buf, (size_t)got);
	if (put < 0)
		return -errno;
	iov.iov_len = (size_t)put;
	return sw_stream_recv(in, &iov, 1, MSG_WAITALL);
}

static ssize_t copy(bool from_socket, int in, int out, size_t len, unsigned flags)
{
	char *buf = malloc(len);
	ssize_t r;

	if (!buf)
		return -ENOMEM;
	pthread_cleanup_push(free, buf); /* the thread may be cancelled */
	r = from_socket ? socket_to_pipe(in, out, buf, len, flags) : pipe_to_socket(in, out, buf, len, flags);
	pthread_cleanup_pop(1);
	return r;
}

SW_EXPORT ssize_t splice(int in, off_t *in_off, int out, off_t *out_off, size_t len, unsigned flags)
{
	bool from = sw_fd_hot(in), to = sw_fd_hot(out);
	ssize_t r;

	if ((!from && !to) || sw_is_internal() || !len)
		return sw_libc.splice(in, in_off, out, out_off, len, flags);
	if ((from && in_off) || (to && out_off)) {
		errno = ESPIPE;
		return -1;
	}
	if (from && to) {
		errno = EINVAL; /* one end has to be a pipe */
		return -1;
	}
	r = copy(from, in, out, len < CHUNK ? len : CHUNK, flags);
	return r == SW_NOT_OURS ? sw_libc.splice(in, in_off, out, out_off, len, flags) : sw_result(r);
}
