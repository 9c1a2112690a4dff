/* SPDX-License-Identifier: BSD-3-Clause */
/* The contract suite over each provider there is, chosen by the program's argument. */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "contract.h"
#include "hosts.h"
#include "provider/broker.h"
#include "provider/ether_private.h"

#define V4 (1u << 4)
#define V6 (1u << 6)

static void set_addresses(struct world *w, unsigned client, unsigned server)
{
	for (unsigned f = 4; f <= 6; f += 2) {
		w->client_ip[f] = hosts_addr(client, f, 0);
		w->server_ip[f] = hosts_addr(server, f, 0);
	}
}

static int open_tcp(struct world *w, pv_ready_fn *ready)
{
	hosts_enter(0);
	set_addresses(w, 0, 0);
	if (pv_tcp_open(ready, &w->client))
		return -1;
	w->server = w->client;
	return pv_domain_add(w->domain, w->client);
}

static int ether(struct world *w, unsigned host, const struct pv_ether_port *port, struct port *ready_port,
	pv_ready_fn *ready, struct pv **out)
{
	struct pv_ether_config cfg = {
		.size = sizeof cfg,
		.n_ports = 1,
		.ports = port,
		.crc = true,
		/* The machine may be busy with other tests. */
		.find_timeout_ns = SD_S,
		.connect_timeout_ns = 4 * SD_S,
		.dead_timeout_ns = 10 * SD_S,
	};

	hosts_enter(host);
	if (pv_ether_open(&cfg, ready, out) || pv_domain_add(w->domain, *out))
		return -1;
	if (ready_port)
		ether_give_port(*out, 0, ready_port);
	return (*out)->ops->start(*out) == SD_REASON_SAN ? 0 : -1;
}

static int open_sim(struct world *w, pv_ready_fn *ready)
{
	struct pv_ether_port port = {
		.port = {.size = sizeof port.port, .name = "sim", .device = "sim"}, .netdev = HOSTS_NETDEV};
	struct port_faults faults = {
		.loss = 0.01, .duplicate = 0.002, .reorder = 0.01, .corrupt = 0.001, .seed = 7};
	struct port *ports[2];

	set_addresses(w, 0, 1);
	if (port_sim_open_pair(w->lossy ? &faults : NULL, 1500, NULL, &ports[0], &ports[1]))
		return -1;
	return ether(w, 0, &port, ports[0], ready, &w->client) ||
	       ether(w, 1, &port, ports[1], ready, &w->server);
}

static int open_udp(struct world *w, unsigned family, pv_ready_fn *ready)
{
	for (unsigned host = 0; host < 2; host++) {
		struct pv_ether_port port = {.port = {.size = sizeof port.port,
						     .name = "udp",
						     .device = "udp",
						     .udp_bind = hosts_addr(host, family, 7747)},
			.netdev = HOSTS_NETDEV};

		if (ether(w, host, &port, NULL, ready, host ? &w->server : &w->client))
			return -1;
	}
	set_addresses(w, 0, 1);
	return 0;
}

static int open_udp4(struct world *w, pv_ready_fn *ready)
{
	return open_udp(w, 4, ready);
}

static int open_udp6(struct world *w, pv_ready_fn *ready)
{
	return open_udp(w, 6, ready);
}

static int open_loop(struct world *w, pv_ready_fn *ready)
{
	struct port *ports[2];
	struct pv *san;
	struct pv_ether_port port = {
		.port = {.size = sizeof port.port, .name = "sim", .device = "sim"}, .netdev = HOSTS_NETDEV};

	set_addresses(w, 0, 0);
	if (port_sim_open_pair(NULL, 1500, NULL, &ports[0], &ports[1]))
		return -1;
	port_close(ports[1]);
	if (ether(w, 0, &port, ports[0], ready, &san) || pv_loop_open(san, ready, &w->client))
		return -1;
	w->server = w->client;
	return pv_domain_add(w->domain, w->client);
}

/* The daemon's part, in a thread of its own. */
static void *run_broker(void *arg)
{
	struct broker *b = arg;
	struct pollfd p = {.fd = broker_fd(b), .events = POLLIN};

	for (;;) {
		poll(&p, 1, 10);
		broker_progress(b, sd_clock_ns());
	}
	return NULL;
}

static int open_shm(struct world *w, pv_ready_fn *ready)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct broker_config bc = {.size = sizeof bc};
	char dir[] = "/tmp/sandirect-shm-XXXXXX";
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct broker *b;
	pthread_t thread;

	hosts_enter(0);
	set_addresses(w, 0, 0);
	if (!mkdtemp(dir))
		return -1;
	snprintf(a.sun_path, sizeof a.sun_path, "%s/s", dir);
	if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 16) || broker_open(&bc, fd, &b) ||
		pthread_create(&thread, NULL, run_broker, b))
		return -1;
	if (pv_shm_open(a.sun_path, ready, &w->client) || pv_domain_add(w->domain, w->client))
		return -1;
	w->server = w->client;
	if (w->client->ops->start(w->client) != SD_REASON_SAN)
		return -1;
	unlink(a.sun_path);
	rmdir(dir);
	return 0;
}

static struct world worlds[] = {
	{.name = "tcp", .open = open_tcp, .is_tcp = true, .families = V4 | V6, .no_listener = SD_REASON_SAN},
	{.name = "loop",
		.open = open_loop,
		.in_process = true,
		.keeps_backlog = true,
		.families = V4 | V6,
		.no_listener = SD_REASON_LOCAL},
	{.name = "shm",
		.open = open_shm,
		.in_process = true,
		.keeps_backlog = true,
		.families = V4 | V6,
		.no_listener = SD_REASON_LOCAL},
	{.name = "sim",
		.open = open_sim,
		.keeps_backlog = true,
		.families = V4 | V6,
		.no_listener = SD_REASON_PEER_NO_LISTENER},
	{.name = "lossy",
		.open = open_sim,
		.keeps_backlog = true,
		.lossy = true,
		.families = V4 | V6,
		.no_listener = SD_REASON_PEER_NO_LISTENER},
	{.name = "udp4",
		.open = open_udp4,
		.keeps_backlog = true,
		.families = V4,
		.no_listener = SD_REASON_PEER_NO_LISTENER},
	{.name = "udp6",
		.open = open_udp6,
		.keeps_backlog = true,
		.families = V6,
		.no_listener = SD_REASON_PEER_NO_LISTENER},
};

int main(int argc, char **argv)
{
	alarm(150); /* a hang is a failure too */
	if (!hosts_open()) {
		printf("1..0 # skip no network namespaces here\n");
		return 77;
	}
	for (unsigned i = 0; i < sizeof worlds / sizeof *worlds; i++) {
		if (argc == 2 && !strcmp(worlds[i].name, argv[1]))
			return contract_run(&worlds[i]);
	}
	fprintf(stderr, "usage: %s tcp|loop|shm|sim|lossy|udp4|udp6\n", argv[0]);
	return 2;
}
