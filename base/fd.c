/* SPDX-License-Identifier: BSD-3-Clause */
/* System calls and not the C library's functions, which this library may have hooked. */
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

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
