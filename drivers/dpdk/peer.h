/* SPDX-License-Identifier: BSD-3-Clause */
/* peer: the other process of a pair of ports that meet at a socket. */
#ifndef SD_DRIVERS_DPDK_PEER_H
#define SD_DRIVERS_DPDK_PEER_H

#include <stdbool.h>
#include <stddef.h>

/* Where device is going to listen: removes a socket that a killed process left behind, and refuses one on
 * which somebody listens (-EBUSY); -EINVAL, -EPERM; one line in err. */
int peer_make_way(const char *device, char *err, size_t err_len);
/* Does device connect to its peer, which its driver tries but once? */
bool peer_is_sought(const char *device);
/* Does somebody listen where device is going to connect? True where it is not. */
bool peer_is_there(const char *device);

#endif
