/* SPDX-License-Identifier: BSD-3-Clause */
/* Descriptors, as a library keeps them inside somebody else's program. */
#ifndef SD_BASE_FD_H
#define SD_BASE_FD_H

#include <stddef.h>
#include <sys/types.h>

/* Moves fd out of the way of the numbers that programs count on, the lowest free ones: to 512 or higher, or
 * to the upper half of what a smaller RLIMIT_NOFILE allows, close-on-exec; the number it has now. One that is
 * there already or cannot be moved stays as it is, and an fd below zero is passed through. Leaves errno as it
 * was. */
int sd_fd_raise(int fd);

/* The kernel's limit for one packet (SCM_MAX_FD). */
#define SD_FDS_MAX 253u
/* Sends bytes with n descriptors beside them by a UNIX socket, without a wait or a signal. As sendmsg(2). */
ssize_t sd_fd_send(int to, const void *bytes, size_t len, const int *fds, unsigned n);

/* Closes descriptors that somebody else has prepared, which may take any time, and does not wait for it. */
void sd_fd_close_apart(const int *fds, unsigned n);

/* Closes *fd, if there is one, and leaves -1. */
void sd_fd_close(int *fd);

#endif
