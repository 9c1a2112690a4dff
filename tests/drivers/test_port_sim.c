/* SPDX-License-Identifier: BSD-3-Clause */
/* The port contract over the simulated wire, over the fault injector with nothing but delay to inject, over
 * two wires as one, and as one of several users. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "drivers/share.h"
#include "port_contract.h"
#include "probe.h"

#define USERS 3

struct sim_link {
	struct contract_link base;
	bool faulty, bonded;
	int user; /* of a shared port, which is under test; -1: it is not shared */
	struct port *far, *users[USERS];
	pthread_t thread, pump;
	atomic_bool stop;
};

static void *run_far_end(void *arg)
{
	struct sim_link *l = arg;

	probe_answer(l->far, &l->stop);
	return NULL;
}

static uint32_t for_user(void *ctx, const struct port_frame *f)
{
	const struct sim_link *l = ctx;

	return 1u << l->user;
}

/* User 0, while another one is under test. */
static void *pump(void *arg)
{
	struct port_frame frames[32];
	struct sim_link *l = arg;

	while (!l->stop) {
		unsigned n = l->users[0]->ops->rx(l->users[0], frames, 32);

		if (n)
			abort();
		l->users[0]->ops->link_poll(l->users[0]);
	}
	return NULL;
}

static int share(struct sim_link *l, struct port **port)
{
	int e = port_share_open(*port, USERS, for_user, l, l->users);

	if (e)
		return e;
	*port = l->users[l->user];
	return l->user ? -pthread_create(&l->pump, NULL, pump, l) : 0;
}

/* With another wire, at both ends. */
static int bond(struct sim_link *l, struct port **port)
{
	struct port *near, *far;
	int e = port_sim_open_pair(NULL, l->base.mtu, NULL, &near, &far);

	if (!e)
		e = port_bond_open(*port, near, port);
	return e ? e : port_bond_open(l->far, far, &l->far);
}

static int open_link(struct contract_link *base, struct port **out)
{
	static const struct port_faults delay = {.delay_ns = 50 * SD_US, .seed = 1};
	struct sim_link *l = (struct sim_link *)base;
	int e = port_sim_open_pair(NULL, l->base.mtu, NULL, out, &l->far);

	if (!e && l->faulty)
		e = port_fault_open(*out, &delay, out);
	if (!e && l->faulty)
		e = port_fault_open(l->far, &delay, &l->far);
	if (!e && l->bonded)
		e = bond(l, out);
	if (e)
		return e;
	l->stop = false;
	if (l->user >= 0)
		e = share(l, out);
	return e ? e : -pthread_create(&l->thread, NULL, run_far_end, l);
}

static void close_link(struct contract_link *base, struct port *p)
{
	struct sim_link *l = (struct sim_link *)base;

	l->stop = true;
	pthread_join(l->thread, NULL);
	if (l->user > 0)
		pthread_join(l->pump, NULL);
	for (int i = 0; i < USERS && l->user >= 0; i++) {
		if (i != l->user)
			port_close(l->users[i]);
	}
	port_close(p);
	port_close(l->far);
}

int main(int argc, char **argv)
{
	struct sim_link l = {.base = {open_link, close_link, 1500}, .user = -1};

	if (argc > 1)
		l.base.mtu = (uint16_t)atoi(argv[1]);
	l.faulty = argc > 2 && !strcmp(argv[2], "faulty");
	l.bonded = argc > 2 && !strcmp(argv[2], "bonded");
	if (argc > 2 && !strncmp(argv[2], "user", 4))
		l.user = atoi(argv[2] + 4);
	return port_contract_run(l.faulty      ? "port_fault"
				 : l.bonded    ? "port_bond"
				 : l.user >= 0 ? "port_share"
					       : "port_sim",
		&l.base);
}
