/* SPDX-License-Identifier: BSD-3-Clause */
/* Descriptors that a library keeps inside somebody else's program. */
#ifndef SD_BASE_FD_H
#define SD_BASE_FD_H

/* Moves fd out of the way of the numbers that programs count on (the lowest free ones, and those that
 * select(2) can name), close-on-exec; the number it has now. A descriptor that cannot be moved stays, and an
 * fd below zero is passed through. Leaves errno as it was. */
int sd_fd_raise(int fd);

#endif
