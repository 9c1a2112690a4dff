/* SPDX-License-Identifier: BSD-3-Clause */
/* The contract suite over each provider there is, chosen by the program's argument. */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "contract.h"
#include "hosts.h"
#include "provider/bridge.h"
#include "provider/broker.h"
#include "provider/desk.h"
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

/* --- two daemons --- */

/* A host's daemon in a thread of its own, with a UDP port, and its programs' provider. */
static struct daemon_host {
	unsigned host;
	char path[64];
	pthread_t thread;
	_Atomic int state; /* 1: serves, -1: failed, 2: is to end */
	struct desk *desk;
	struct pv *programs;
	struct pv_ops ops; /* those of programs, on this host */
	const struct pv_ops *inner;
} daemons[2] = {{.host = 0}, {.host = 1}};

static struct daemon_host *daemon_of(const struct pv *p)
{
	return p == daemons[0].programs ? &daemons[0] : &daemons[1];
}

static int daemon_open(struct daemon_host *h, struct pv_domain **d, struct bridge **bridge, struct broker **b)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	const struct pv_domain_config dc = {.size = sizeof dc};
	struct broker_config bc = {.size = sizeof bc};
	struct pv_ether_port port = {.port = {.size = sizeof port.port,
					     .name = "udp",
					     .device = "udp",
					     .udp_bind = hosts_addr(h->host, 4, 7747)},
		.netdev = HOSTS_NETDEV};
	const struct pv_ether_config ec = {.size = sizeof ec,
		.n_ports = 1,
		.ports = &port,
		.find_timeout_ns = SD_S,
		.connect_timeout_ns = 4 * SD_S,
		.dead_timeout_ns = 10 * SD_S};
	const struct desk_config desk = {.size = sizeof desk, .n_engines = 1};
	struct bridge_config bridging = {.size = sizeof bridging};
	struct pv *ether, *shm;
	int fd;

	hosts_enter(h->host);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	strcpy(a.sun_path, h->path);
	if (pv_domain_open(&dc, d) || !pv_enter(*d) || pv_ether_open(&ec, pv_upcall, &ether) ||
		pv_shm_open("", pv_upcall, &shm) || pv_domain_add(*d, shm) || pv_domain_add(*d, ether) ||
		ether->ops->start(ether) != SD_REASON_SAN || desk_open(&desk, &h->desk))
		return -1;
	bridging.san = ether;
	bridging.shm = shm;
	bridging.desk = desk_post(h->desk);
	if (bridge_open(&bridging, bridge))
		return -1;
	desk_set_bridge(h->desk, 0, bridge_post(*bridge));
	bc.outside = desk_outside(h->desk);
	return bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 16) || broker_open(&bc, fd, b);
}

static void *run_daemon(void *arg)
{
	struct daemon_host *h = arg;
	struct pv_domain *d;
	struct bridge *bridge;
	struct broker *b;
	struct pollfd p;

	h->state = daemon_open(h, &d, &bridge, &b) ? -1 : 1;
	while (h->state == 1) {
		unsigned n = pv_progress(d) + broker_progress(b, sd_clock_ns()) + bridge_progress(bridge) +
			     desk_progress(h->desk, b);

		p = (struct pollfd){.fd = broker_fd(b), .events = POLLIN};
		if (!n)
			pv_sleep(d, pv_waiter_self(d), &p, 1, sd_clock_ns() + 10 * SD_MS, NULL);
	}
	if (h->state < 0)
		return NULL;
	broker_close(b);
	bridge_close(bridge);
	desk_close(h->desk);
	pv_leave(d);
	pv_domain_drain(d, 0);
	return NULL;
}

/* That of the test before. */
static void end_daemon(struct daemon_host *h)
{
	if (h->state != 1)
		return;
	h->state = 2;
	pthread_join(h->thread, NULL);
	h->state = 0;
}

static int connect_on_host(struct pv *p, int socket, const struct sd_addr *local, const struct sd_addr *peer,
	void *user, struct pv_ep **out)
{
	hosts_enter(daemon_of(p)->host);
	return daemon_of(p)->inner->connect(p, socket, local, peer, user, out);
}

static int listen_on_host(struct pv *p, int socket, const struct sd_addr *local, unsigned backlog, void *user,
	struct pv_ep **out)
{
	hosts_enter(daemon_of(p)->host);
	return daemon_of(p)->inner->listen(p, socket, local, backlog, user, out);
}

static enum sd_reason route_on_host(struct pv *p, const struct sd_addr *peer, struct sd_addr *local)
{
	hosts_enter(daemon_of(p)->host);
	return daemon_of(p)->inner->route(p, peer, local);
}

static int open_daemon_host(struct world *w, struct daemon_host *h, const char *dir, pv_ready_fn *ready)
{
	snprintf(h->path, sizeof h->path, "%s/%u", dir, h->host);
	if (pthread_create(&h->thread, NULL, run_daemon, h))
		return -1;
	while (!h->state)
		usleep(1000);
	if (h->state < 0 || pv_shm_open(h->path, ready, &h->programs) ||
		pv_domain_add(w->domain, h->programs))
		return -1;
	h->inner = h->programs->ops;
	h->ops = *h->inner;
	h->ops.connect = connect_on_host;
	h->ops.listen = listen_on_host;
	h->ops.route = route_on_host;
	h->programs->ops = &h->ops;
	hosts_enter(h->host);
	if (h->programs->ops->start(h->programs) != SD_REASON_SAN)
		return -1;
	return unlink(h->path);
}

static int open_daemons(struct world *w, pv_ready_fn *ready)
{
	char dir[] = "/tmp/sandirect-daemons-XXXXXX";

	set_addresses(w, 0, 1);
	end_daemon(&daemons[0]);
	end_daemon(&daemons[1]);
	if (!mkdtemp(dir) || open_daemon_host(w, &daemons[0], dir, ready) ||
		open_daemon_host(w, &daemons[1], dir, ready))
		return -1;
	w->client = daemons[0].programs;
	w->server = daemons[1].programs;
	return rmdir(dir);
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
	{.name = "daemons",
		.open = open_daemons,
		.in_process = true, /* so it is for the programs: nothing to hold back, no packets */
		.keeps_backlog = true,
		.families = V4,
		.no_listener = SD_REASON_PEER_NO_LISTENER},
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

/* Both programs, and daemons, are in this process. */
static void want_files(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l))
		return;
	l.rlim_cur = l.rlim_max;
	setrlimit(RLIMIT_NOFILE, &l);
}

int main(int argc, char **argv)
{
	want_files();
	alarm(150); /* a hang is a failure too */
	if (!hosts_open()) {
		printf("1..0 # skip no network namespaces here\n");
		return 77;
	}
	for (unsigned i = 0; i < sizeof worlds / sizeof *worlds; i++) {
		if (argc == 2 && !strcmp(worlds[i].name, argv[1]))
			return contract_run(&worlds[i]);
	}
	fprintf(stderr, "usage: %s tcp|loop|shm|daemons|sim|lossy|udp4|udp6\n", argv[0]);
	return 2;
}
