/* SPDX-License-Identifier: BSD-3-Clause */
/* The port contract over the simulated wire, and over the fault injector with nothing but delay to inject. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "port_contract.h"
#include "probe.h"

struct sim_link {
	struct contract_link base;
	bool faulty;
	struct port *far;
	pthread_t thread;
	atomic_bool stop;
};

static void *run_far_end(void *arg)
{
	struct sim_link *l = arg;

	probe_answer(l->far, &l->stop);
	return NULL;
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
	if (e)
		return e;
	l->stop = false;
	return -pthread_create(&l->thread, NULL, run_far_end, l);
}

static void close_link(struct contract_link *base, struct port *p)
{
	struct sim_link *l = (struct sim_link *)base;

	l->stop = true;
	pthread_join(l->thread, NULL);
	port_close(p);
	port_close(l->far);
}

int main(int argc, char **argv)
{
	struct sim_link l = {.base = {open_link, close_link, 1500}};

	if (argc > 1)
		l.base.mtu = (uint16_t)atoi(argv[1]);
	l.faulty = argc > 2 && !strcmp(argv[2], "faulty");
	return port_contract_run(l.faulty ? "port_fault" : "port_sim", &l.base);
}
