/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * crew: providers of this process that have the same ports, each with an engine and a thread of its own. To
 * other hosts they are one. Member 0 opens the ports, receives for all and serves the kernel's side of them.
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
	/* Member 0's, and those that the others have not fetched yet. */
	struct port *first[ENGINE_MAX_PORTS];
	struct port *waiting[ENGINE_MAX_PORTS][PORT_SHARE_MAX];
};

/* Member 0 has opened port index. *port: as all of them use it, its own from now on. -ENOMEM, -EMFILE: it
 * stays as it was. */
int crew_share(struct pv_ether_crew *c, unsigned index, struct port **port);
/* Port index for another member; -EAGAIN: member 0 has not opened it. */
int crew_fetch(struct pv_ether_crew *c, unsigned index, unsigned member, struct port **port);
/* Member 0 closes its ports: what was not fetched is closed. */
void crew_close_ports(struct pv_ether_crew *c);
/* Fresh ones, for a crew or for a transport that is alone. -EIO. */
int crew_draw_secrets(uint64_t seed[4], uint8_t node_key[16]);

#endif
