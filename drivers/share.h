/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * share: one port for several users, each with a thread of its own. Each gets a port that behaves as the one
 * behind it.
 *
 * User 0 receives for all: its rx() asks for each frame whom it is for, and hands it over. So user 0 has to
 * look often, or sleep on its port as ever; the others sleep on a bell that it rings. Frames of others go
 * through a ring of each user's; what finds it full is lost, as with a NIC's queue. All may send: the port
 * behind is used under a lock.
 */
#ifndef SD_DRIVERS_SHARE_H
#define SD_DRIVERS_SHARE_H

#include "drivers/port.h"

#define PORT_SHARE_MAX 16 /* users */

/* Whom a frame that has arrived is for: a bit for each user; at least one. Several get copies, of up to 512
 * bytes. Called by user 0's thread, with the lock free. */
typedef uint32_t port_share_steer(void *ctx, const struct port_frame *f);

/* out[0..n): the users' ports. The port behind is theirs from then on, and closed with the last of them.
 * -EINVAL, -ENOMEM, -EMFILE: it stays the
 * caller's. */
int port_share_open(struct port *inner, unsigned n, port_share_steer *steer, void *ctx, struct port *out[]);
/* How many frames user 0 has handed over in all. */
uint64_t port_share_handed(const struct port *user0);

#endif
