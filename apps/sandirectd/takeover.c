/* SPDX-License-Identifier: BSD-3-Clause */
#include "takeover.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/fnv.h"
#include "base/log.h"

#define MAGIC	    0x31656b6154694453ull
#define FDS_AT_ONCE 200u
#define FDS_MAX	    (1u << 22)
#define HELLO_MS    100
#define SEALS	    (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)
#define PATIENCE_MS 5000 /* with the other side's next step */

/* What the new one says first. */
struct hello {
	uint64_t magic, format;
};

/* The first packet of the answer, with the memfd; the descriptors follow in others. */
struct header {
	uint64_t magic, len, since;
	uint32_t n_fds;
	int32_t error; /* 0, or why there is nothing */
};

/* --- packets --- */

/* 0 when it can be read or written, -EPIPE when the other has gone, -ETIMEDOUT. */
static int await(int fd, short events, unsigned patience_ms)
{
	uint64_t until = sd_clock_ns() + patience_ms * SD_MS, now;
	struct pollfd p = {.fd = fd, .events = events};
	int n = -1;

	while (n < 0 && (now = sd_clock_ns()) < until) {
		n = poll(&p, 1, (int)((until - now) / SD_MS) + 1);
		if (n < 0 && errno != EINTR)
			return -errno;
	}
	if (n <= 0)
		return -ETIMEDOUT;
	return p.revents & events ? 0 : -EPIPE;
}

static int send_packet(int channel, const void *data, size_t len, const int *fds, unsigned n)
{
	int r;

	do
		r = await(channel, POLLOUT, PATIENCE_MS);
	while (!r && sd_fd_send(channel, data, len, fds, n) < 0 &&
		(r = errno == EAGAIN || errno == EINTR ? 1 : -errno) > 0);
	return r;
}

/* How many descriptors came with it, at most FDS_AT_ONCE, or -errno. -EPROTO: it was not len bytes. */
static int receive_packet(int channel, void *data, size_t len, int *fds)
{
	union {
		char bytes[CMSG_SPACE(FDS_AT_ONCE * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = {data, len};
	struct msghdr h = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof control.bytes};
	int r = await(channel, POLLIN, PATIENCE_MS);
	struct cmsghdr *c;
	ssize_t n;

	if (r)
		return r;
	n = recvmsg(channel, &h, MSG_CMSG_CLOEXEC);
	if (n <= 0)
		return n ? -errno : -EPIPE;
	for (c = CMSG_FIRSTHDR(&h); c; c = CMSG_NXTHDR(&h, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		r = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(c), (size_t)r * sizeof(int));
		break;
	}
	if ((size_t)n == len && !(h.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
		return r;
	while (r)
		close(fds[--r]);
	return h.msg_flags & MSG_CTRUNC ? -EMFILE : -EPROTO;
}

/* --- giving --- */

static int fill_memory(const struct sd_pack *p)
{
	int fd = memfd_create("sandirect-takeover", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	size_t done = 0;

	while (fd >= 0 && done < p->len) {
		ssize_t n = write(fd, p->data + done, p->len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			sd_fd_close(&fd);
			return -ENOMEM;
		}
		done += (size_t)n;
	}
	if (fd >= 0 && fcntl(fd, F_ADD_SEALS, SEALS))
		sd_fd_close(&fd);
	return fd < 0 ? -errno : fd;
}

static int send_all(int channel, const struct sd_pack *p, uint64_t since)
{
	struct header h = {.magic = MAGIC, .len = p->len, .since = since, .n_fds = (uint32_t)p->n_fds};
	int memory = fill_memory(p), r;

	if (memory < 0)
		return memory;
	r = send_packet(channel, &h, sizeof h, &memory, 1);
	close(memory);
	for (size_t at = 0; !r && at < p->n_fds; at += FDS_AT_ONCE) {
		size_t n = p->n_fds - at;

		r = send_packet(channel, "", 1, p->fds + at, n < FDS_AT_ONCE ? (unsigned)n : FDS_AT_ONCE);
	}
	return r;
}

int takeover_give(int channel, const struct sd_pack *p, uint64_t since)
{
	int r = send_all(channel, p, since);
	char done;

	if (!r)
		r = await(channel, POLLIN, PATIENCE_MS);
	/* What it says from now on does not reach us, and it is told so. What it has said before counts. */
	if (r)
		shutdown(channel, SHUT_RD);
	return recv(channel, &done, 1, MSG_DONTWAIT) == 1 ? 0 : r ? r : -EPIPE;
}

/* --- calling --- */

/* A name for each door, of a length of its own. */
static socklen_t name_for(const char *door, struct sockaddr_un *out)
{
	int n;

	*out = (struct sockaddr_un){.sun_family = AF_UNIX};
	n = snprintf(out->sun_path + 1, sizeof out->sun_path - 1, "sandirect-takeover/%016lx",
		sd_fnv(SD_FNV_BASIS, door, strlen(door)));
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

int takeover_listen(const char *door)
{
	struct sockaddr_un a;
	socklen_t len = name_for(door, &a);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd >= 0 && (bind(fd, (struct sockaddr *)&a, len) || listen(fd, 4)))
		sd_fd_close(&fd);
	if (fd < 0)
		sd_warn("this daemon cannot be taken over by another: %s", strerror(errno));
	return fd;
}

static bool is_of(int fd, uid_t owner)
{
	struct ucred peer;
	socklen_t len = sizeof peer;

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) && (!peer.uid || peer.uid == owner);
}

int takeover_accept(int listening, uid_t owner, uint64_t format)
{
	int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC), none[FDS_AT_ONCE];
	struct header refusal = {.magic = MAGIC, .error = EPROTONOSUPPORT};
	struct hello hello;

	if (fd < 0)
		return -1;
	if (!is_of(fd, owner) || await(fd, POLLIN, HELLO_MS) ||
		receive_packet(fd, &hello, sizeof hello, none) || hello.magic != MAGIC) {
		sd_warn("somebody has called to take over and may not, or did not say so");
		sd_fd_close(&fd);
	} else if (hello.format != format) {
		sd_warn("a daemon of another version wants to take over, which it cannot");
		send_packet(fd, &refusal, sizeof refusal, NULL, 0);
		sd_fd_close(&fd);
	}
	return fd;
}

/* --- asking --- */

static int call(const char *door, uint64_t format)
{
	struct hello hello = {MAGIC, format};
	struct sockaddr_un a;
	socklen_t len = name_for(door, &a);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (fd >= 0 && connect(fd, (struct sockaddr *)&a, len))
		sd_fd_close(&fd);
	if (fd < 0) {
		sd_error("no daemon that serves %s answers (%s); start without --takeover", door,
			strerror(errno));
		return -ENOENT;
	}
	if (!is_of(fd, getuid())) {
		sd_error("what answers for %s is another user's", door);
		sd_fd_close(&fd);
		return -EPERM;
	}
	/* If it has hung up already, its answer will not come. */
	send(fd, &hello, sizeof hello, MSG_NOSIGNAL);
	return fd;
}

static int map_memory(struct takeover *t, int memory)
{
	struct stat st;

	if (fstat(memory, &st) || (uint64_t)st.st_size != t->len || fcntl(memory, F_GET_SEALS) != SEALS)
		return -EPROTO;
	t->map = mmap(NULL, t->len, PROT_READ, MAP_PRIVATE, memory, 0);
	if (t->map != MAP_FAILED)
		return 0;
	t->map = NULL;
	return -ENOMEM;
}

static int receive_fds(struct takeover *t, uint32_t n)
{
	t->fds = malloc((n + FDS_AT_ONCE) * sizeof *t->fds);
	if (!t->fds)
		return -ENOMEM;
	while (t->n_fds < n) {
		char byte;
		int r = receive_packet(t->channel, &byte, 1, t->fds + t->n_fds);

		if (r <= 0)
			return r ? r : -EPROTO;
		t->n_fds += (unsigned)r;
	}
	return t->n_fds == n ? 0 : -EPROTO;
}

static int receive_all(struct takeover *t)
{
	int fds[FDS_AT_ONCE];
	struct header h;
	int n = receive_packet(t->channel, &h, sizeof h, fds), r;

	if (n < 0)
		return n;
	r = h.magic != MAGIC || h.n_fds > FDS_MAX ? -EPROTO : h.error ? -h.error : n == 1 ? 0 : -EPROTO;
	t->len = h.len;
	t->since = h.since;
	if (!r)
		r = map_memory(t, fds[0]);
	while (n)
		close(fds[--n]);
	return r ? r : receive_fds(t, h.n_fds);
}

int takeover_ask(const char *door, uint64_t format, struct takeover *t)
{
	int r;

	*t = (struct takeover){.channel = call(door, format)};
	if (t->channel < 0)
		return t->channel;
	r = receive_all(t);
	if (r) {
		sd_error("the daemon that serves %s does not hand over: %s", door,
			r == -EPIPE || r == -ECONNRESET ? "only root may ask, and who has started it"
			: r == -EPROTONOSUPPORT		? "it is of another version; restart it"
							: strerror(-r));
		takeover_end(t);
		return r;
	}
	t->unpack = (struct sd_unpack){t->map, (uint8_t *)t->map + t->len, t->fds, t->n_fds};
	return 0;
}

int takeover_confirm(struct takeover *t)
{
	return send(t->channel, "", 1, MSG_NOSIGNAL) == 1 ? 0 : -EPIPE;
}

void takeover_end(struct takeover *t)
{
	/* What was unpacked is somebody's. */
	const int *left = t->unpack.fds ? t->unpack.fds : t->fds;

	for (unsigned n = t->unpack.fds ? t->unpack.n_fds : t->n_fds; n; n--)
		close(*left++);
	if (t->map)
		munmap(t->map, t->len);
	free(t->fds);
	sd_fd_close(&t->channel);
	*t = (struct takeover){.channel = -1};
}
