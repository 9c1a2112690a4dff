/* SPDX-License-Identifier: BSD-3-Clause */
/* fds: descriptors as the application sees them: what is open, what refers to the same socket. */
#ifndef SD_SWITCH_FDS_H
#define SD_SWITCH_FDS_H

#include "switch/fdtab.h"
#include "switch/runtime.h"

/* One of the library's own, which the application must not see. Any thread; no domain. */
static inline bool sw_fds_not_open(int fd)
{
	return __builtin_expect(sw_fd_is_guarded(fd), 0) && !sw_is_internal() && sw_is_own_process();
}

/* dup(2) by fcntl(2): cmd is F_DUPFD or F_DUPFD_CLOEXEC. The new descriptor, or -1 with errno. Outside the
 * domain. */
int sw_fds_duplicate(int fd, int cmd, long min);

#endif
