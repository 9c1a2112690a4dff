/* SPDX-License-Identifier: BSD-3-Clause */
/* sandirect.h: what the library tells a program that asks. */
#include <errno.h>
#include <fcntl.h>

#include "switch/libc.h"
#include "switch/sandirect.h"
#include "switch/sock.h"

/* The tracked socket at fd, domain entered; NULL with errno. */
static struct sw_sock *enter_for(int fd)
{
	struct sw_sock *s = NULL;

	if (sw_fd_is_guarded(fd) || sw_libc.fcntl(fd, F_GETFD) < 0) {
		errno = EBADF;
		return NULL;
	}
	if (sw_fd_obj(fd) && sw_enter()) {
		s = sw_sock_at(fd);
		if (s)
			return s;
		sw_leave();
	}
	errno = ENOTSOCK;
	return NULL;
}

SW_EXPORT int sandirect_path(int fd)
{
	struct sw_sock *s = enter_for(fd);
	int path;

	if (!s)
		return -1;
	path = sw_sock_is_san(s) ? SANDIRECT_SAN : SANDIRECT_TCP;
	sw_leave();
	return path;
}

SW_EXPORT const char *sandirect_reason(int fd)
{
	struct sw_sock *s = enter_for(fd);
	const char *name;

	if (!s)
		return NULL;
	name = sd_reason_name(s->reason);
	sw_leave();
	return name;
}

SW_EXPORT const char *sandirect_version(void)
{
	return SD_VERSION;
}
