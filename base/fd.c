/* SPDX-License-Identifier: BSD-3-Clause */
/* System calls and not the C library's functions, which this library may have hooked. */
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/thread.h"

#define FLOOR 512

static int lowest(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur / 2 >= FLOOR)
		return FLOOR;
	return (int)(limit.rlim_cur / 2);
}

int sd_fd_raise(int fd)
{
	int saved_errno = errno, min = lowest(), high;

	if (fd < 0 || fd >= min)
		return fd;
	high = (int)syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, min);
	if (high >= 0)
		syscall(SYS_close, fd);
	errno = saved_errno;
	return high >= 0 ? high : fd;
}

void sd_fd_close(int *fd)
{
	if (*fd >= 0)
		syscall(SYS_close, *fd);
	*fd = -1;
}

struct heap {
	unsigned n;
	int fds[];
};

static void *close_heap(void *arg)
{
	struct heap *h = arg;

	for (unsigned i = 0; i < h->n; i++)
		syscall(SYS_close, h->fds[i]);
	free(h);
	return NULL;
}

void sd_fd_close_apart(const int *fds, unsigned n)
{
	struct heap *h = malloc(sizeof *h + n * sizeof *fds);

	if (h) {
		h->n = n;
		memcpy(h->fds, fds, n * sizeof *fds);
	}
	if (h && !sd_thread_apart(close_heap, h))
		return;
	free(h);
	for (unsigned i = 0; i < n; i++)
		syscall(SYS_close, fds[i]);
}

ssize_t sd_fd_send(int to, const void *bytes, size_t len, const int *fds, unsigned n)
{
	union {
		char bytes[CMSG_SPACE(SD_FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = {(void *)bytes, len};
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};

	if (n > SD_FDS_MAX) {
		errno = EINVAL;
		return -1;
	}
	if (n) {
		h.msg_control = control.bytes;
		h.msg_controllen = CMSG_SPACE(n * sizeof *fds);
		memset(control.bytes, 0, h.msg_controllen);
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(n * sizeof *fds);
		memcpy(CMSG_DATA(&control.align), fds, n * sizeof *fds);
	}
	return syscall(SYS_sendmsg, to, &h, MSG_DONTWAIT | MSG_NOSIGNAL);
}
