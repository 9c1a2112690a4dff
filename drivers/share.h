/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * share: one port for several users, each with a thread of its own. Each gets a port that behaves as the one
 * behind it.
 *
 * If the port has a pair of queues for each of them, user i has the i-th: it sends there, and receives what
 * the NIC puts there. Else all send through the only one, and user 0 receives for all, so it has to look
 * often, or sleep on its port as ever; from when user 0 sees that the port has so many now, as one whose
 * device comes late may, each has its own. Whoever receives asks for each frame whom it is for, and hands it
 * over to that user's lane (lane.h); what finds that full is lost, as with a NIC's queue. Those who are
 * handed frames are woken by a bell.
 */
#ifndef SD_DRIVERS_SHARE_H
#define SD_DRIVERS_SHARE_H

#include "drivers/port.h"

#define PORT_SHARE_MAX 16 /* users */

/* Whom a frame that has arrived is for: a bit for each user; at least one. Several get copies, of up to 512
 * bytes. Called by the threads that receive, with no lock held. */
typedef uint32_t port_share_steer(void *ctx, const struct port_frame *f);

/* out[0..n): the users' ports. The port behind, the first of its queues, is theirs from then on, and closed
 * with the last of them. Its link is user 0's to look after. -EINVAL, -ENOMEM, -EMFILE: it stays the
 * caller's. */
int port_share_open(struct port *inner, unsigned n, port_share_steer *steer, void *ctx, struct port *out[]);
/* How many frames this user has handed over. Any thread. */
uint64_t port_share_handed(const struct port *user);

#endif
