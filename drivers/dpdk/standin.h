/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * standin: a vhost-user back end that answers until the real one comes.
 *
 * net_virtio_user with server=1 waits in its probe until a back end connects, for ever. A program that
 * listens cannot wait for its first client's host. So where nobody has connected yet the driver is given one
 * end of a socket pair, and a thread at the other end agrees to everything; once the port has started it
 * hangs up, and the driver waits for the real back end as it does after a restart of one.
 */
#ifndef SD_DRIVERS_DPDK_STANDIN_H
#define SD_DRIVERS_DPDK_STANDIN_H

/* A connection to the stand-in, or -1 with errno. One at a time. */
int standin_connect(void);
/* Hangs up, if it is there. */
void standin_leave(void);

#endif
