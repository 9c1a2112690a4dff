/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * manners: makes DPDK's libraries behave inside somebody else's process.
 *
 * What DPDK imports from the C library is redirected, in DPDK's own import tables only, to versions that
 * leave the program as it was: descriptors are close-on-exec, numbered high and reported to the guard from
 * the moment they exist; mappings are neither inherited by children nor dumped; new threads take no signals;
 * syslog's identity and the resource limits stay the program's. All other I/O calls, and those of this
 * module, go straight to the C library, past any preloaded hooks. The program's own calls are not touched.
 */
#ifndef SD_DRIVERS_DPDK_MANNERS_H
#define SD_DRIVERS_DPDK_MANNERS_H

#include <signal.h>
#include <stdbool.h>

#include "drivers/port.h"

/* Descriptors get numbers from fd_floor on, where the limit allows. Before teach(). */
void manners_set_fd_floor(int fd_floor);
void manners_set_guard(port_fd_guard *guard, void *ctx);
/* Redirects the imports of this module and every DPDK library loaded so far; again after more have been
 * loaded. 0 or -errno. */
int manners_teach(void);
/* The socket of the net_af_packet port that has been attached since the last call, or -1; the driver hides
 * it. */
int manners_packet_socket(void);
/* A descriptor that was made for DPDK: out of the program's way, and reported to the guard. The one it has
 * now. */
int manners_adopt(int fd);
/* Closes a descriptor of DPDK's for it. */
void manners_close(int fd);
/* While true, the measuring of the cycle counter's rate sleeps 2 ms instead of 100, and EAL does not load
 * all of its drivers. */
void manners_set_starting(bool starting);

/* Slow DPDK calls run between these, with all signals blocked: none of them expects EINTR, and no handler of
 * the program shall run inside them. */
void manners_enter(sigset_t *saved);
void manners_leave(const sigset_t *saved);

#endif
