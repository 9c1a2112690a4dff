/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * crew: providers of this process that have the same ports, each with an engine and a thread of its own. To
 * other hosts they are one. Member 0 opens the ports and serves the kernel's side of them; what members
 * receive for each other they hand over (drivers/share.h).
 *
 * Members start one after the other, member 0 first, and stop while no other one runs.
 */
#ifndef SD_PROVIDER_CREW_H
#define SD_PROVIDER_CREW_H

#include "drivers/share.h"
#include "provider/engine.h"

struct pv_ether_crew {
	unsigned n;
	uint64_t seed[4];
	uint8_t node_key[16];
	/* Open ones, and which of them their members have not fetched yet. */
	struct port *ports[ENGINE_MAX_PORTS][PORT_SHARE_MAX];
	bool waiting[ENGINE_MAX_PORTS][PORT_SHARE_MAX];
};

/* Member 0 has opened port index. *port: as all of them use it, its own from now on. -ENOMEM, -EMFILE: it
 * stays as it was. */
int crew_share(struct pv_ether_crew *c, unsigned index, struct port **port);
/* Port index for another member; -EAGAIN: member 0 has not opened it. */
int crew_fetch(struct pv_ether_crew *c, unsigned index, unsigned member, struct port **port);
/* Member 0 closes its ports: what was not fetched is closed. */
void crew_close_ports(struct pv_ether_crew *c);
/* Frames that this member has handed over. */
uint64_t crew_handed_by(const struct pv_ether_crew *c, unsigned member);
/* Fresh ones, for a crew or for a transport that is alone. -EIO. */
int crew_draw_secrets(uint64_t seed[4], uint8_t node_key[16]);

#endif
