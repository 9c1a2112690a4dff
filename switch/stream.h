/* SPDX-License-Identifier: BSD-3-Clause */
/* stream: sending and receiving over the SAN path, with the semantics of a TCP socket. */
#ifndef SD_SWITCH_STREAM_H
#define SD_SWITCH_STREAM_H

#include <limits.h>
#include <sys/uio.h>

#include "switch/sock.h"

/* The descriptor is not on the SAN path (any more): the call is the kernel's. */
#define SW_NOT_OURS ((ssize_t)-65536)

/* flags are those of send(2) and recv(2). Bytes, 0, -errno or SW_NOT_OURS. SIGPIPE is raised as the kernel
 * would. Outside the domain; may block; runs handlers. */
ssize_t sw_stream_send(int fd, const struct iovec *iov, int n, int flags);
ssize_t sw_stream_recv(int fd, const struct iovec *iov, int n, int flags);
/* Says once why a connection of the parent process cannot be used. */
void sw_stream_say_dead(struct sw_sock *s);

#endif
