/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * two_kernels: two network namespaces, each with a miniport, and a thread that plays the ports and the wire
 * between them: what one kernel sends, the other receives. It looks at every frame: no longer than the MTU
 * allows, nothing written behind its room, all sums right. 10.79.0.1 and .2, fd79::1 and ::2.
 */
#ifndef SD_TESTS_DRIVERS_TWO_KERNELS_H
#define SD_TESTS_DRIVERS_TWO_KERNELS_H

#include <sys/socket.h>

#include "drivers/miniport.h"

#define TWO_KERNELS_NAME "san0"

/* Makes the namespaces; they go with the process, which has no other threads yet. NULL: done; else why not.
 */
const char *two_kernels_begin(void);
/* Moves the calling thread to host 0 or 1, for the sockets that it makes from then on. */
void two_kernels_enter(unsigned host);
/* Runs ip(8) with these arguments on a host; true: it went well. */
bool two_kernels_ip(unsigned host, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* How a miniport of host is opened; to be adjusted. */
struct miniport_config two_kernels_config(unsigned host);

/* Opens a miniport on each host, gives them addresses, waits until they reach each other. */
void two_kernels_open(uint16_t mtu, uint32_t offloads, uint32_t port_caps);
/* Also when there is nothing to close. */
void two_kernels_close(void);
/* Of host's miniport; only to be used while the wire is stopped. */
struct miniport *two_kernels_port(unsigned host);
/* Stops the wire's thread and says what it has found fault with, or NULL. */
const char *two_kernels_stop(void);
void two_kernels_start(void);

/* The address of host and family (4 or 6) with port; its length. */
socklen_t two_kernels_addr(unsigned host, unsigned family, uint16_t port, struct sockaddr_storage *out);
/* One echo request of len bytes from host 0 to host 1; true: the answer has come in time and is the same. */
bool two_kernels_ping(unsigned family, size_t len, unsigned timeout_ms);

#endif
