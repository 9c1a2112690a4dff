/* SPDX-License-Identifier: BSD-3-Clause */
/* The front end's half of the protocol: QEMU's docs/interop/vhost-user.rst. */
#include "drivers/dpdk/standin.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum request {
	GET_FEATURES = 1,
	GET_VRING_BASE = 11,
	GET_PROTOCOL_FEATURES = 15,
	GET_QUEUE_NUM = 17,
	GET_STATUS = 40
};

#define VERSION	   0x1u
#define IS_REPLY   0x4u
#define WANT_REPLY 0x8u

/*
 * What DPDK's net_vhost offers and a port here uses: the driver settles on these before it has seen the real
 * back end, and afterwards can only give up some. VIRTIO_NET_F_CSUM, GUEST_CSUM, MRG_RXBUF, INDIRECT_DESC,
 * EVENT_IDX, VERSION_1, RING_PACKED, IN_ORDER.
 */
#define FEATURES                                                                                             \
	(1ull << 0 | 1ull << 1 | 1ull << 15 | 1ull << 28 | 1ull << 29 | 1ull << 32 | 1ull << 34 | 1ull << 35)

struct message {
	uint32_t request, flags, size;
	uint8_t payload[1024];
} __attribute__((packed));
#define HEADER 12

static int there = -1; /* our end */
static pthread_t thread;

static void close_passed(struct msghdr *m)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; CMSG_LEN((i + 1) * sizeof(int)) <= c->cmsg_len; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
			syscall(SYS_close, fd);
		}
	}
}

/* The header with its descriptors, then the payload. */
static bool receive(int fd, struct message *m)
{
	char control[CMSG_SPACE(16 * sizeof(int))];
	struct iovec iov = {m, HEADER};
	struct msghdr h = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};

	if (syscall(SYS_recvmsg, fd, &h, MSG_WAITALL | MSG_CMSG_CLOEXEC) != HEADER)
		return false;
	close_passed(&h);
	if (m->size > sizeof m->payload)
		return false;
	return !m->size || syscall(SYS_recvfrom, fd, m->payload, m->size, MSG_WAITALL, NULL, NULL) == m->size;
}

static uint64_t answer(const struct message *m)
{
	switch (m->request) {
	case GET_FEATURES:
		return FEATURES;
	case GET_VRING_BASE:
		return m->payload[0]; /* the ring's number, and zero as its position */
	case GET_QUEUE_NUM:
		return 1;
	default:
		return 0;
	}
}

static bool is_question(const struct message *m)
{
	return m->request == GET_FEATURES || m->request == GET_VRING_BASE ||
	       m->request == GET_PROTOCOL_FEATURES || m->request == GET_QUEUE_NUM ||
	       m->request == GET_STATUS || (m->flags & WANT_REPLY);
}

static void *serve(void *arg)
{
	int fd = (int)(intptr_t)arg;
	struct message m;
	uint64_t value;

	while (receive(fd, &m)) {
		if (!is_question(&m))
			continue;
		value = answer(&m);
		m.flags = VERSION | IS_REPLY;
		m.size = sizeof value;
		memcpy(m.payload, &value, sizeof value);
		if (syscall(SYS_sendto, fd, &m, HEADER + sizeof value, MSG_NOSIGNAL, NULL, 0) < 0)
			break;
	}
	return NULL;
}

int standin_connect(void)
{
	int pair[2], r;

	if (there >= 0) {
		errno = EBUSY;
		return -1;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return -1;
	r = pthread_create(&thread, NULL, serve, (void *)(intptr_t)pair[0]);
	if (r) {
		syscall(SYS_close, pair[0]);
		syscall(SYS_close, pair[1]);
		errno = r;
		return -1;
	}
	there = pair[0];
	return pair[1];
}

void standin_leave(void)
{
	if (there < 0)
		return;
	shutdown(there, SHUT_RDWR);
	pthread_join(thread, NULL);
	syscall(SYS_close, there);
	there = -1;
}
