/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SD_BASE_THREAD_H
#define SD_BASE_THREAD_H

/* A thread that nobody waits for and that gets no signals, with a small stack, for something that may take
 * any time. 0 or -errno: it has not begun. */
int sd_thread_apart(void *(*f)(void *arg), void *arg);

#endif
