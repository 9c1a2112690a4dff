/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the ether provider costs without sockets above it: two processes, each on a host and a CPU of its own,
 * that never sleep. "ping": 64 bytes there and back; "msgs": 64-byte sends one way; "bulk": one stream;
 * "many": exchanges of 1 KiB, 64 at a time, by turns over a few of many connections and over all of them.
 *
 * bench_engine [-m MTU] [-t SECONDS] [-c] [-w SEND-SIZE] [-n CONNECTIONS] ping|msgs|bulk|many NEAR-DEVICE
 * FAR-DEVICE
 * ("%s" in a device is a directory for sockets; -c: without the CRC trailer)
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "hosts.h"
#include "provider/domain.h"

enum {
	MESSAGE = 64,
	PORT = 7000,
	WARM_UP = 20000,
	SAMPLES_MAX = 4000000,
	CHUNK = 1 << 20,
	MANY_MAX = 60000,
	FEW = 64,     /* connections in use, */
	AT_ONCE = 64, /* and exchanges under way */
	ROUNDS = 5,
};

struct options {
	const char *mode, *devices[2];
	uint16_t mtu;
	uint64_t seconds;
	size_t send_size;
	unsigned connections;
	bool crc;
};

/* One of many connections. */
struct end {
	struct pv_ep *ep;
	size_t got; /* of this exchange */
	bool busy, ready;
};

struct host {
	struct pv_domain *domain;
	struct pv *pv;
	const struct options *o;
};

static char chunk[CHUNK];
static uint32_t samples[SAMPLES_MAX];

static void die(const char *what)
{
	fprintf(stderr, "%s\n", what);
	exit(1);
}

static struct end ends[MANY_MAX];
static struct end *ready[MANY_MAX]; /* those with something to read */
static unsigned n_ready;

static void on_ready(void *user, unsigned events)
{
	struct end *x = user;

	if (!x || !(events & PV_IN) || x->ready)
		return;
	x->ready = true;
	ready[n_ready++] = x;
}

static void pin(unsigned cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof set, &set);
}

static void host_open(struct host *h, unsigned index, const struct options *o)
{
	static char names[2][8] = {"near", "far"};
	const struct pv_domain_config dc = {.size = sizeof dc};
	struct pv_ether_port port = {.port = {.size = sizeof port.port,
					     .name = names[index],
					     .device = o->devices[index],
					     .mtu = o->mtu},
		.netdev = HOSTS_NETDEV};
	struct pv_ether_config pc = {
		.size = sizeof pc, .n_ports = 1, .ports = &port, .crc = o->crc, .find_timeout_ns = 10 * SD_S};

	h->o = o;
	pin(index);
	hosts_enter(index);
	if (pv_domain_open(&dc, &h->domain) || pv_ether_open(&pc, on_ready, &h->pv) ||
		pv_domain_add(h->domain, h->pv))
		die("cannot open the provider");
	pv_enter(h->domain);
	if (h->pv->ops->start(h->pv) != SD_REASON_SAN)
		die("cannot start the provider");
	pv_leave(h->domain);
}

/* --- as a switch would: in, the operation, out --- */

static void send_all(struct host *h, struct pv_ep *e, const void *data, size_t len)
{
	struct iovec v = {(void *)data, len};
	ssize_t n;

	while (v.iov_len) {
		pv_enter(h->domain);
		n = e->ops->send(e, &v, 1, 0);
		if (n == -EAGAIN)
			pv_progress(h->domain);
		pv_leave(h->domain);
		if (n > 0) {
			v.iov_base = (char *)v.iov_base + n;
			v.iov_len -= n;
		} else if (n != -EAGAIN) {
			die("send failed");
		}
	}
}

/* Some bytes; 0 at the end. */
static size_t recv_some(struct host *h, struct pv_ep *e, void *data, size_t len)
{
	struct iovec v = {data, len};
	ssize_t n;

	pv_enter(h->domain);
	while ((n = e->ops->recv(e, &v, 1, 0)) == -EAGAIN) {
		do {
			pv_leave(h->domain);
			pv_enter(h->domain);
		} while (!pv_progress(h->domain));
	}
	pv_leave(h->domain);
	if (n < 0)
		die("recv failed");
	return n;
}

static bool recv_all(struct host *h, struct pv_ep *e, void *data, size_t len)
{
	for (size_t got = 0, n; got < len; got += n) {
		n = recv_some(h, e, (char *)data + got, len - got);
		if (!n)
			return false;
	}
	return true;
}

static void spin(struct host *h)
{
	pv_enter(h->domain);
	pv_progress(h->domain);
	if (pv_now(h->domain) % 64 == 0)
		h->pv->ops->slow(h->pv, pv_now(h->domain)); /* the link has to come up */
	pv_leave(h->domain);
}

/* --- many connections --- */

/* What has come on x; false: it has ended. */
static bool take(struct end *x)
{
	struct iovec v = {chunk, CHUNK};
	ssize_t n;

	x->ready = false;
	while ((n = x->ep->ops->recv(x->ep, &v, 1, 0)) > 0)
		x->got += (size_t)n;
	return n == -EAGAIN;
}

static void put(struct end *x, size_t len)
{
	struct iovec v = {chunk, len};

	x->got = 0;
	if (x->ep->ops->send(x->ep, &v, 1, 0) != (ssize_t)len)
		die("a message does not fit");
}

/* Until the first of them ends. */
static void answer_many(struct host *h, struct pv_ep *l)
{
	unsigned n = 0;

	for (;;) {
		spin(h);
		pv_enter(h->domain);
		while (n < MANY_MAX && !l->ops->accept(l, &ends[n], &ends[n].ep)) {
			on_ready(&ends[n], PV_IN);
			n++;
		}
		while (n_ready) {
			struct end *x = ready[--n_ready];

			if (!take(x))
				exit(0);
			if (x->got >= h->o->send_size)
				put(x, h->o->send_size);
		}
		pv_leave(h->domain);
	}
}

/* Exchanges a second over the first n. */
static double exchange(struct host *h, unsigned n, uint64_t ns)
{
	uint64_t begin = sd_clock_ns(), end = begin + ns, done = 0;
	unsigned next = 0, under_way = 0;

	do {
		pv_enter(h->domain);
		for (; under_way < AT_ONCE && under_way < n && sd_clock_ns() < end; under_way++, next++) {
			struct end *x = &ends[next % n];

			if (x->busy)
				break;
			x->busy = true;
			put(x, h->o->send_size);
		}
		pv_progress(h->domain);
		while (n_ready) {
			struct end *x = ready[--n_ready];

			if (!take(x))
				die("the far end has gone");
			if (x->got < h->o->send_size)
				continue;
			x->busy = false;
			under_way--;
			done++;
		}
		pv_leave(h->domain);
	} while (under_way || sd_clock_ns() < end);
	return (double)done / ((double)(sd_clock_ns() - begin) / 1e9);
}

/* --- the far end --- */

static void far_end(struct host *h)
{
	struct sd_addr local = hosts_addr(1, 4, PORT);
	struct pv_ep *l, *e;

	if (h->pv->ops->listen(h->pv, -1, &local, 1024, NULL, &l))
		die("cannot listen");
	if (!strcmp(h->o->mode, "many"))
		answer_many(h, l);
	while (l->ops->accept(l, NULL, &e))
		spin(h);
	if (!strcmp(h->o->mode, "ping")) {
		while (recv_all(h, e, chunk, MESSAGE))
			send_all(h, e, chunk, MESSAGE);
	} else {
		while (recv_some(h, e, chunk, sizeof chunk))
			;
		send_all(h, e, "", 1);
	}
	e->ops->close(e, PV_CLOSE_GRACEFUL);
	pv_domain_drain(h->domain, SD_S);
	exit(0);
}

/* --- the near end --- */

static struct pv_ep *try_connect(struct host *h, struct end *x, uint16_t port)
{
	struct sd_addr local = hosts_addr(0, 4, port), peer = hosts_addr(1, 4, PORT);
	enum sd_reason reason;
	struct pv_ep *e;

	if (h->pv->ops->connect(h->pv, -1, &local, &peer, x, &e))
		return NULL;
	while (e->ops->connect_result(e, &reason) == -EINPROGRESS)
		spin(h);
	if (!e->ops->connect_result(e, &reason))
		return e;
	e->ops->close(e, PV_CLOSE_GRACEFUL);
	return NULL;
}

static struct pv_ep *near_connect(struct host *h, struct end *x, uint16_t port)
{
	struct pv_ep *e;

	for (uint64_t end = sd_clock_ns() + 10 * SD_S; sd_clock_ns() < end;) {
		e = try_connect(h, x, port);
		if (e)
			return e;
		spin(h);
	}
	die("cannot connect");
	return NULL;
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void ping(struct host *h, struct pv_ep *e)
{
	uint64_t start = sd_clock_ns(), end = start + h->o->seconds * SD_S, now, then;
	unsigned n = 0;

	for (unsigned i = 0; i < WARM_UP; i++) {
		send_all(h, e, chunk, MESSAGE);
		recv_all(h, e, chunk, MESSAGE);
	}
	for (then = sd_clock_ns(); then < end && n < SAMPLES_MAX; then = now) {
		send_all(h, e, chunk, MESSAGE);
		recv_all(h, e, chunk, MESSAGE);
		now = sd_clock_ns();
		samples[n++] = now - then;
	}
	qsort(samples, n, sizeof *samples, by_value);
	printf("rtt of %u: p50 %.2f us, p90 %.2f, p99 %.2f, p99.9 %.2f\n", n, samples[n / 2] / 1e3,
		samples[n / 10 * 9] / 1e3, samples[n / 100 * 99] / 1e3, samples[n / 1000 * 999] / 1e3);
}

static void one_way(struct host *h, struct pv_ep *e)
{
	uint64_t start = sd_clock_ns(), end = start + h->o->seconds * SD_S, sends = 0;
	double s;

	do {
		for (unsigned i = 0; i < 64; i++, sends++)
			send_all(h, e, chunk, h->o->send_size);
	} while (sd_clock_ns() < end);
	e->ops->shutdown(e, SHUT_WR);
	if (!recv_all(h, e, chunk, 1))
		die("the far end has gone");
	s = (sd_clock_ns() - start) / 1e9;
	printf("%.2f M sends/s of %zu bytes, %.2f Gbit/s\n", sends / s / 1e6, h->o->send_size,
		sends * h->o->send_size * 8 / s / 1e9);
}

static void report(struct host *h, struct pv_ep *e)
{
	struct pv_info i;
	char ports[256];

	e->ops->info(e, &i);
	pv_ether_describe(h->pv, ports, sizeof ports);
	printf("%s; packets out %lu in %lu, retransmits %lu, srtt %lu ns, cwnd %u\n", ports, i.packets_out,
		i.packets_in, i.retransmits, i.srtt_ns, i.cwnd);
}

static void many(struct host *h)
{
	uint64_t ns = h->o->seconds * SD_S / ROUNDS;
	double few, all;

	for (unsigned i = 0; i < h->o->connections; i++)
		ends[i].ep = near_connect(h, &ends[i], (uint16_t)(1025 + i));
	exchange(h, h->o->connections, ns);
	for (unsigned i = 0; i < ROUNDS; i++) {
		few = exchange(h, FEW, ns);
		all = exchange(h, h->o->connections, ns);
		printf("%.0f exchanges/s of %zu bytes over %u connections, %.0f over %u: %.2f\n", few,
			h->o->send_size, FEW, all, h->o->connections, all / few);
	}
	exit(0);
}

static void near_end(struct host *h)
{
	struct pv_ep *e;

	if (!strcmp(h->o->mode, "many"))
		many(h);
	e = near_connect(h, NULL, 40000);
	if (!strcmp(h->o->mode, "ping"))
		ping(h, e);
	else
		one_way(h, e);
	report(h, e);
	e->ops->close(e, PV_CLOSE_GRACEFUL);
	pv_domain_drain(h->domain, SD_S);
}

static void parse(struct options *o, int argc, char **argv, const char *dir)
{
	static char devices[2][256];
	int c;

	while ((c = getopt(argc, argv, "m:t:w:n:c")) != -1) {
		switch (c) {
		case 'm':
			o->mtu = atoi(optarg);
			break;
		case 't':
			o->seconds = atoi(optarg);
			break;
		case 'w':
			o->send_size = atoi(optarg);
			break;
		case 'n':
			o->connections = atoi(optarg);
			break;
		case 'c':
			o->crc = false;
			break;
		default:
			exit(2);
		}
	}
	if (argc - optind != 3)
		die("usage: bench_engine [-m MTU] [-t SECONDS] [-c] [-w SEND-SIZE] [-n CONNECTIONS] "
		    "ping|msgs|bulk|many NEAR-DEVICE FAR-DEVICE");
	if (o->connections < FEW || o->connections > MANY_MAX)
		die("connections: 64 to 60000");
	o->mode = argv[optind];
	if (!o->send_size)
		o->send_size = !strcmp(o->mode, "bulk")	  ? 256 << 10
			       : !strcmp(o->mode, "many") ? 1024
							  : MESSAGE;
	for (unsigned i = 0; i < 2; i++) {
		const char *device = argv[optind + 1 + i], *at = strstr(device, "%s");
		int head = at ? at - device : (int)strlen(device);

		snprintf(devices[i], sizeof devices[i], "%.*s%s%s", head, device, at ? dir : "",
			at ? at + 2 : "");
		o->devices[i] = devices[i];
	}
}

int main(int argc, char **argv)
{
	struct options o = {.mtu = 1500, .seconds = 3, .connections = 10000, .crc = true};
	char dir[] = "/tmp/bench_engine.XXXXXX", command[64];
	struct host h = {0};
	pid_t child;
	int status;

	if (!mkdtemp(dir))
		die("cannot make a directory in /tmp");
	parse(&o, argc, argv, dir);
	if (!hosts_open())
		die("no network namespaces here");
	child = fork();
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		host_open(&h, 1, &o);
		far_end(&h);
	}
	host_open(&h, 0, &o);
	near_end(&h);
	waitpid(child, &status, 0);
	snprintf(command, sizeof command, "rm -rf %s", dir);
	return system(command) || status;
}
