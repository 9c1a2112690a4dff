/* SPDX-License-Identifier: BSD-3-Clause */
#include "drivers/virtio/vhost_msg.h"

#include <errno.h>
#include <poll.h>
#include <rte_cycles.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum {
	HEADER = offsetof(struct vn_vhost_msg, u64),
	VERSION = 1,
	VERSION_MASK = 3,
	REPLY = 1 << 2,
	NEED_REPLY = 1 << 3,
	PATIENCE_S = 2, /* for an answer */
};

int vn_vhost_send(int fd, struct vn_vhost_msg *m, const int *fds, unsigned n)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(VN_REGIONS_MAX * sizeof(int))];
	} control = {.bytes = {0}};
	struct iovec iov = {m, HEADER + m->size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t sent;

	m->flags |= VERSION;
	if (n) {
		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(n * sizeof(int));
		control.header.cmsg_len = CMSG_LEN(n * sizeof(int));
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		memcpy(CMSG_DATA(&control.header), fds, n * sizeof(int));
	}
	do
		sent = sendmsg(fd, &msg, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent == (ssize_t)iov.iov_len ? 0 : -ENOTCONN;
}

static int ms_until(uint64_t deadline)
{
	uint64_t now = rte_get_timer_cycles();

	return now >= deadline ? 0 : (int)((deadline - now) * 1000 / rte_get_timer_hz()) + 1;
}

/* All of it, before the deadline. Descriptors that come with it are not taken. */
static bool read_all(int fd, void *to, size_t len, uint64_t deadline)
{
	size_t got = 0;

	while (got < len) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t n = recv(fd, (uint8_t *)to + got, len - got, MSG_DONTWAIT);

		if (n > 0) {
			got += (size_t)n;
			continue;
		}
		if (!n || (errno != EAGAIN && errno != EINTR))
			return false;
		if (!ms_until(deadline) || (poll(&p, 1, ms_until(deadline)) < 0 && errno != EINTR))
			return false;
	}
	return true;
}

int vn_vhost_receive(int fd, uint32_t request, uint32_t size, struct vn_vhost_msg *m)
{
	uint64_t deadline = rte_get_timer_cycles() + PATIENCE_S * rte_get_timer_hz();

	if (!read_all(fd, m, HEADER, deadline) || m->request != request || m->size != size ||
		(m->flags & (VERSION_MASK | REPLY)) != (VERSION | REPLY) ||
		!read_all(fd, &m->u64, size, deadline))
		return -ENOTCONN;
	return 0;
}

int vn_vhost_do(int fd, struct vn_vhost_msg *m, const int *fds, unsigned n, bool answers)
{
	int e;

	m->flags = answers ? NEED_REPLY : 0;
	e = vn_vhost_send(fd, m, fds, n);
	if (e || !answers)
		return e;
	e = vn_vhost_receive(fd, m->request, sizeof m->u64, m);
	if (e)
		return e;
	return m->u64 ? -EPROTO : 0;
}
