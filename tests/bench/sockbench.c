/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sockbench: measures TCP sockets, whatever carries them.
 *
 *   pp      a message there and back: percentiles of the round trip
 *   stream  messages one way: rate at the receiver
 *   conn    connect, request, reply, close: how many a second, one after the other
 *
 * The client's first bytes tell the server what is measured, so that both ends wait in the same way.
 */
#include <argp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "histogram.h"
#include "link.h"

#define MAGIC	    0x736f636b
#define BUFFER_SIZE (256 << 10)
#define WARM_UP_NS  200000000ull
#define WARM_UP_N   1000 /* of a counted run: always the same number of calls */

enum mode { PING_PONG, STREAM, CONNECT };

/* First on every connection. */
struct hello {
	uint32_t magic, mode, wait, kernel_fd, size;
};

/* The receiver's answer at the end of a stream. */
struct received {
	uint64_t bytes, ns;
};

struct options {
	const char *role, *ip, *port, *congestion;
	uint64_t count; /* messages or connections; 0: until the time is over */
	uint64_t duration_ns;
	unsigned connections; /* server: ends after so many; 0: never */
	struct hello hello;
};

static char buffer[BUFFER_SIZE];

/* --- server --- */

static void serve_ping_pong(struct link *l, size_t size)
{
	while (link_recv_all(l, buffer, size))
		link_send_all(l, buffer, size);
}

static void serve_stream(struct link *l)
{
	struct received r = {0};
	uint64_t first = link_now(), last = first;
	size_t n;

	while ((n = link_recv(l, buffer, sizeof buffer))) {
		r.bytes += n;
		last = link_now();
	}
	r.ns = last - first;
	link_send_all(l, &r, sizeof r);
}

static void serve(int fd)
{
	struct hello h;
	struct link l;

	link_open(&l, fd, LINK_BLOCK, false);
	if (!link_recv_all(&l, &h, sizeof h) || h.magic != MAGIC || !h.size || h.size > BUFFER_SIZE) {
		link_close(&l);
		return;
	}
	if (h.wait == LINK_EPOLL)
		link_open(&l, fd, LINK_EPOLL, h.kernel_fd);
	l.wait = h.wait;
	switch (h.mode) {
	case PING_PONG:
		serve_ping_pong(&l, h.size);
		break;
	case STREAM:
		serve_stream(&l);
		break;
	case CONNECT: /* we close first: the client's ports would be used up by TIME_WAIT */
		if (link_recv_all(&l, buffer, h.size))
			link_send_all(&l, buffer, h.size);
		break;
	}
	link_close(&l);
}

static int server(const struct options *o)
{
	struct link_addr a;
	int listener;

	link_resolve(o->ip, o->port, &a);
	listener = link_listen(&a);
	puts("listening");
	fflush(stdout);
	for (unsigned n = 0; !o->connections || n < o->connections; n++) {
		int fd = accept(listener, NULL, NULL);

		if (fd < 0)
			link_die("accept:");
		serve(fd);
	}
	return 0;
}

/* --- client --- */

static void dial(const struct options *o, struct link *l)
{
	struct link_addr a;

	link_resolve(o->ip, o->port, &a);
	link_open(l, link_connect(&a, o->congestion), o->hello.wait, o->hello.kernel_fd);
	link_send_all(l, &o->hello, sizeof o->hello);
}

/* Has the run, of which n are done, reached its end at time now? */
static bool is_over(const struct options *o, uint64_t n, uint64_t start, uint64_t now)
{
	return o->count ? n >= o->count : now - start >= o->duration_ns;
}

static void exchange(struct link *l, size_t size)
{
	link_send_all(l, buffer, size);
	if (!link_recv_all(l, buffer, size))
		link_die("the server has ended");
}

static int ping_pong(const struct options *o)
{
	static struct histogram h;
	uint64_t start, last, now;
	struct link l;

	dial(o, &l);
	start = link_now();
	for (unsigned i = 0; o->count ? i < WARM_UP_N : link_now() - start < WARM_UP_NS; i++)
		exchange(&l, o->hello.size);
	start = last = link_now();
	do {
		exchange(&l, o->hello.size);
		now = link_now();
		histogram_add(&h, now - last);
		last = now;
	} while (!is_over(o, h.n, start, now));
	link_close(&l);
	printf("{\"mode\": \"pp\", \"size\": %u, \"count\": %llu, \"p50_us\": %.3f, \"p99_us\": %.3f, "
	       "\"p999_us\": %.3f, "
	       "\"mean_us\": %.3f, \"max_us\": %.3f}\n",
		o->hello.size, (unsigned long long)h.n, (double)histogram_quantile(&h, 0.5) / 1e3,
		(double)histogram_quantile(&h, 0.99) / 1e3, (double)histogram_quantile(&h, 0.999) / 1e3,
		histogram_mean(&h) / 1e3, (double)h.max / 1e3);
	return 0;
}

static int stream(const struct options *o)
{
	struct received r;
	uint64_t start, n = 0;
	struct link l;

	dial(o, &l);
	start = link_now();
	do {
		for (unsigned i = 0; i < 16 && !(o->count && n == o->count); i++, n++)
			link_send_all(&l, buffer, o->hello.size);
	} while (!is_over(o, n, start, link_now()));
	shutdown(l.fd, SHUT_WR);
	if (!link_recv_all(&l, &r, sizeof r) || r.bytes != n * o->hello.size || !r.ns)
		link_die("the server has not received everything");
	link_close(&l);
	printf("{\"mode\": \"stream\", \"size\": %u, \"count\": %llu, \"gbps\": %.4f, \"msg_per_s\": %.0f}\n",
		o->hello.size, (unsigned long long)n, (double)r.bytes * 8 / (double)r.ns,
		(double)r.bytes / o->hello.size / ((double)r.ns / 1e9));
	return 0;
}

static int connect_repeatedly(const struct options *o)
{
	uint64_t start = link_now(), now, n = 0;

	do {
		struct link l;
		char end;

		dial(o, &l);
		exchange(&l, o->hello.size);
		if (link_recv(&l, &end, 1))
			link_die("the server has sent too much");
		link_close(&l);
		n++;
		now = link_now();
	} while (!is_over(o, n, start, now));
	printf("{\"mode\": \"conn\", \"size\": %u, \"count\": %llu, \"conn_per_s\": %.0f}\n", o->hello.size,
		(unsigned long long)n, (double)n / ((double)(now - start) / 1e9));
	return 0;
}

/* --- command line --- */

enum { OPT_COUNT = 256, OPT_KERNEL_FD, OPT_CONNECTIONS };

static const struct argp_option options[] = {
	{"mode", 'm', "MODE", 0, "pp, stream or conn", 0},
	{"size", 'n', "BYTES", 0, "Size of a message (default 64)", 0},
	{"seconds", 't', "S", 0, "How long (default 1)", 0},
	{"count", OPT_COUNT, "N", 0, "So many messages or connections instead", 0},
	{"wait", 'w', "HOW", 0, "block, spin or epoll, at both ends", 0},
	{"kernel-fd", OPT_KERNEL_FD, NULL, 0, "With epoll: watch a pipe beside the socket, at both ends", 0},
	{"congestion", 'C', "NAME", 0, "TCP_CONGESTION of the client's socket", 0},
	{"connections", OPT_CONNECTIONS, "N", 0, "The server ends after so many", 0},
	{0},
};

static unsigned choose(struct argp_state *state, const char *arg, const char *const names[3])
{
	for (unsigned i = 0; i < 3; i++)
		if (!strcmp(arg, names[i]))
			return i;
	argp_error(state, "%s: must be %s, %s or %s", arg, names[0], names[1], names[2]);
	return 0;
}

static uint64_t number(struct argp_state *state, const char *arg, uint64_t max)
{
	char *end;
	uint64_t v = strtoull(arg, &end, 10);

	if (*end || !v || v > max)
		argp_error(state, "%s: must be a whole number up to %llu", arg, (unsigned long long)max);
	return v;
}

static void take_positional(struct options *o, struct argp_state *state, const char *arg)
{
	const char **const places[] = {&o->role, &o->ip, &o->port};

	if (state->arg_num >= 3)
		argp_usage(state);
	*places[state->arg_num] = arg;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
	static const char *const modes[] = {"pp", "stream", "conn"}, *const waits[] = {
									     "block", "spin", "epoll"};
	struct options *o = state->input;

	switch (key) {
	case 'm':
		o->hello.mode = choose(state, arg, modes);
		return 0;
	case 'n':
		o->hello.size = (uint32_t)number(state, arg, BUFFER_SIZE);
		return 0;
	case 't':
		o->duration_ns = (uint64_t)(atof(arg) * 1e9);
		return 0;
	case OPT_COUNT:
		o->count = number(state, arg, 1ull << 40);
		return 0;
	case 'w':
		o->hello.wait = choose(state, arg, waits);
		return 0;
	case OPT_KERNEL_FD:
		o->hello.kernel_fd = 1;
		return 0;
	case 'C':
		o->congestion = arg;
		return 0;
	case OPT_CONNECTIONS:
		o->connections = (unsigned)number(state, arg, 1u << 31);
		return 0;
	case ARGP_KEY_ARG:
		take_positional(o, state, arg);
		return 0;
	case ARGP_KEY_END:
		if (state->arg_num < 3)
			argp_usage(state);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

int main(int argc, char **argv)
{
	static const struct argp argp = {
		.options = options,
		.parser = parse_option,
		.args_doc = "server IP PORT\nclient IP PORT",
		.doc = "Measures TCP sockets, whatever carries them.",
	};
	struct options o = {.duration_ns = 1000000000, .hello = {.magic = MAGIC, .size = 64}};

	argp_parse(&argp, argc, argv, 0, NULL, &o);
	signal(SIGPIPE, SIG_IGN);
	memset(buffer, 7, sizeof buffer);
	if (!strcmp(o.role, "server"))
		return server(&o);
	switch ((enum mode)o.hello.mode) {
	case PING_PONG:
		return ping_pong(&o);
	case STREAM:
		return stream(&o);
	case CONNECT:
		return connect_repeatedly(&o);
	}
	return 1;
}
