/* SPDX-License-Identifier: BSD-3-Clause */
/* pollset: waiting for a mix of SAN and kernel descriptors. */
#ifndef SD_SWITCH_POLLSET_H
#define SD_SWITCH_POLLSET_H

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

/* Is there a descriptor that the kernel alone would answer for wrongly? */
bool sw_poll_has_san(const struct pollfd *fds, nfds_t n);
/* ppoll(2). timeout_ns may be SW_FOREVER. The count or -errno. Outside the domain. */
int sw_poll(struct pollfd *fds, nfds_t n, uint64_t timeout_ns, const sigset_t *mask);

#endif
