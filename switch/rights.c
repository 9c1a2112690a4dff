/* SPDX-License-Identifier: BSD-3-Clause */
#include "switch/rights.h"

#include <string.h>

#include "switch/inherit.h"

/* A descriptor of the control message, which need not be aligned. */
static int descriptor(const struct cmsghdr *c, size_t i)
{
	int fd;

	memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
	return fd;
}

static size_t descriptors(const struct cmsghdr *c)
{
	if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || c->cmsg_len < CMSG_LEN(0))
		return 0;
	return (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
}

static void share(int fd)
{
	struct sw_sock *s;
	int saved_errno = errno;

	if (sw_fd_hot(fd) && sw_enter()) {
		s = sw_sock_hot(fd);
		if (s)
			sw_share(s);
		sw_leave();
	}
	errno = saved_errno;
}

void sw_rights_leave(const struct msghdr *msg)
{
	/* The macros want it writable and write nothing. */
	struct msghdr *m = (struct msghdr *)msg;

	if (!sw_is_own_process())
		return;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		for (size_t i = 0; i < descriptors(c); i++)
			share(descriptor(c, i));
	}
}

void sw_rights_arrive(struct msghdr *msg)
{
	if (!sw_is_own_process())
		return;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		for (size_t i = 0; i < descriptors(c); i++)
			sw_inherit_fd(descriptor(c, i));
	}
}
