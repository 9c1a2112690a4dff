/* SPDX-License-Identifier: BSD-3-Clause */
/* Between struct sd_addr and the kernel's socket addresses. */
#ifndef SD_BASE_SOCKADDR_H
#define SD_BASE_SOCKADDR_H

#include <netinet/in.h>
#include <sys/socket.h>

#include "base/addr.h"

union sd_sockaddr {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

/* All of out is set; returns its length. An address of no family is [::]. */
socklen_t sd_sockaddr_from(union sd_sockaddr *out, const struct sd_addr *a);
/* An IPv4-mapped address stays one. False, and out is none: it is of another family or too short. */
bool sd_sockaddr_to(const struct sockaddr *sa, socklen_t len, struct sd_addr *out);
/* What a socket is bound to. -errno, and out is none. */
int sd_sockaddr_bound(int fd, struct sd_addr *out);
/* The address, without a port, from where the kernel would send to peer. -errno: it would not, and out is
 * none. Three system calls.
 */
int sd_sockaddr_source(const struct sd_addr *peer, struct sd_addr *out);

#endif
