/* SPDX-License-Identifier: BSD-3-Clause */
/* The port contract over the kernel's UDP, between two loopback addresses. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "port_contract.h"
#include "probe.h"
#include "tests/isolate.h"

struct udp_link {
	struct contract_link base;
	struct port *far;
	pthread_t thread;
	atomic_bool stop;
};

static int open_end(const char *address, uint16_t mtu, struct port **out)
{
	struct port_config cfg = {.size = sizeof cfg, .name = address, .device = "udp", .mtu = mtu};
	char err[256];
	int e = sd_addr_parse(address, &cfg.udp_bind);

	if (!e)
		e = port_open(&cfg, out, err, sizeof err);
	if (e)
		fprintf(stderr, "%s\n", err);
	return e;
}

static void *run_far_end(void *arg)
{
	struct udp_link *l = arg;

	probe_answer(l->far, &l->stop);
	return NULL;
}

static int open_link(struct contract_link *base, struct port **out)
{
	struct udp_link *l = (struct udp_link *)base;
	int e = open_end("127.0.77.1", l->base.mtu, out);

	if (!e)
		e = open_end("127.0.77.2", l->base.mtu, &l->far);
	if (e)
		return e;
	l->stop = false;
	return -pthread_create(&l->thread, NULL, run_far_end, l);
}

static void close_link(struct contract_link *base, struct port *p)
{
	struct udp_link *l = (struct udp_link *)base;

	l->stop = true;
	pthread_join(l->thread, NULL);
	port_close(p);
	port_close(l->far);
}

int main(int argc, char **argv)
{
	struct udp_link l = {.base = {open_link, close_link, (uint16_t)(argc > 1 ? atoi(argv[1]) : 1500)}};

	isolate_network();
	return port_contract_run("port_udp", &l.base);
}
