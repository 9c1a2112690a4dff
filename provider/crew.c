/* SPDX-License-Identifier: BSD-3-Clause */
#include "provider/crew.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "provider/registry.h"

_Static_assert(TP_ENGINES == PORT_SHARE_MAX, "an engine for each user of a port");

int crew_draw_secrets(uint64_t seed[4], uint8_t node_key[16])
{
	return getrandom(seed, 32, 0) == 32 && getrandom(node_key, 16, 0) == 16 ? 0 : -EIO;
}

int pv_ether_crew_open(unsigned n, struct pv_ether_crew **out)
{
	struct pv_ether_crew *c;
	int r;

	if (!n || n > TP_ENGINES)
		return -EINVAL;
	c = calloc(1, sizeof *c);
	if (!c)
		return -ENOMEM;
	c->n = n;
	r = crew_draw_secrets(c->seed, c->node_key);
	if (r) {
		free(c);
		return r;
	}
	*out = c;
	return 0;
}

void pv_ether_crew_close(struct pv_ether_crew *c)
{
	free(c);
}

uint64_t crew_handed_by(const struct pv_ether_crew *c, unsigned member)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < ENGINE_MAX_PORTS && c->ports[i][member]; i++)
		n += port_share_handed(c->ports[i][member]);
	return n;
}

uint64_t pv_ether_crew_handed(const struct pv_ether_crew *c)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < c->n; i++)
		n += crew_handed_by(c, i);
	return n;
}

/* --- whom a frame is for --- */

/* The kernel's are member 0's, too. */
static uint32_t steer(void *ctx, const struct port_frame *f)
{
	const struct pv_ether_crew *c = ctx;
	struct encap_view v;
	int to;

	if (encap_parse(f->data, f->len, TP_UDP_PORT, false, &v))
		return 1;
	to = tp_steer(v.payload, v.payload_len, c->n);
	return to == TP_FOR_ALL ? (1u << c->n) - 1 : 1u << to;
}

/* --- ports --- */

int crew_share(struct pv_ether_crew *c, unsigned index, struct port **port)
{
	int r = port_share_open(*port, c->n, steer, c, c->ports[index]);

	if (r) {
		memset(c->ports[index], 0, sizeof c->ports[index]);
		return r;
	}
	*port = c->ports[index][0];
	for (unsigned m = 1; m < c->n; m++)
		c->waiting[index][m] = true;
	return 0;
}

int crew_fetch(struct pv_ether_crew *c, unsigned index, unsigned member, struct port **port)
{
	if (!c->waiting[index][member])
		return -EAGAIN;
	c->waiting[index][member] = false;
	*port = c->ports[index][member];
	return 0;
}

void crew_close_ports(struct pv_ether_crew *c)
{
	for (unsigned i = 0; i < ENGINE_MAX_PORTS; i++) {
		for (unsigned m = 0; m < c->n; m++) {
			if (c->waiting[i][m])
				port_close(c->ports[i][m]);
			c->waiting[i][m] = false;
			c->ports[i][m] = NULL;
		}
	}
}
