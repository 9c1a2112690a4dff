/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the transport alone costs: two endpoints in one thread, packets handed over in memory, real time.
 *   bench_transport [messages]
 * Prints nanoseconds per message of a ping-pong and per packet of a stream, with one reading of the clock
 * each. The engine's way of driving is imitated: input, timers, output until nothing is due.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "transport/cc.h"
#include "transport/transport.h"

#define PAYLOAD 1472
#define SLOTS	64
#define RUNS	10

struct end {
	struct tp *tp;
	struct tp_conn *c;
	struct tp_listener *listener;
	struct sd_addr addr;
	bool readable;
};

static struct end ends[2];

static void fail(const char *what)
{
	fprintf(stderr, "bench_transport: %s\n", what);
	exit(1);
}

static void on_event(void *ctx, struct tp_conn *c, void *user, unsigned events)
{
	struct end *e = ctx;

	e->readable |= (events & TP_EV_READABLE) != 0;
	if (events & TP_EV_FAILED)
		fail("the connection failed");
}

static void on_acceptable(void *ctx, struct tp_listener *l, void *user)
{
}

static bool on_reverse(void *ctx, const struct tp_rx *rx, struct tp_path *out)
{
	out->max_payload = PAYLOAD;
	return true;
}

static void *give(void *ctx, size_t size)
{
	return calloc(1, size);
}

static void take(void *ctx, void *p, size_t size)
{
	free(p);
}

static const struct tp_ops ops = {
	.size = sizeof ops,
	.event = on_event,
	.acceptable = on_acceptable,
	.reverse = on_reverse,
	.alloc = give,
	.free = take,
};

/* Everything that from has to send arrives at to. Returns the packets. */
static unsigned carry(struct end *from, struct end *to, uint64_t now)
{
	static uint8_t bufs[SLOTS][2048] __attribute__((aligned(64)));
	size_t lens[SLOTS];
	struct tp_rx rx = {.local = to->addr, .peer = from->addr};
	const struct tp_path *path;
	unsigned total = 0, n;

	do {
		for (n = 0; n < SLOTS && (lens[n] = tp_output(from->tp, now, bufs[n], PAYLOAD, &path)); n++)
			;
		for (unsigned i = 0; i < n; i++)
			tp_input(to->tp, now, bufs[i], lens[i], &rx);
		total += n;
	} while (n == SLOTS);
	return total;
}

static void time_out(uint64_t now)
{
	for (int i = 0; i < 2; i++)
		if (now >= tp_next_timeout(ends[i].tp))
			tp_timeout(ends[i].tp, now);
}

static void set_up(bool crc)
{
	struct tp_path path = {.max_payload = PAYLOAD};
	struct tp_config cfg = {.size = sizeof cfg, .crc = crc, .ring_min = 1 << 20};

	for (int i = 0; i < 2; i++) {
		cfg.seed[0] = (uint64_t)i + 1;
		ends[i].addr = (struct sd_addr){.family = 4, .ip = {10, 0, 0, (uint8_t)(i + 1)}};
		if (tp_create(&cfg, &ops, &ends[i], sd_clock_ns(), &ends[i].tp))
			fail("tp_create");
	}
	path.local = ends[0].addr;
	path.peer = ends[1].addr;
	path.peer.port = 80;
	if (tp_listen(ends[1].tp, &path.peer, 8, NULL, &ends[1].listener) ||
		tp_connect(ends[0].tp, sd_clock_ns(), &path, NULL, &ends[0].c))
		fail("tp_listen or tp_connect");
	while (!(ends[1].c = tp_accept(ends[1].listener, NULL))) {
		carry(&ends[0], &ends[1], sd_clock_ns());
		carry(&ends[1], &ends[0], sd_clock_ns());
	}
	carry(&ends[1], &ends[0], sd_clock_ns());
}

static void tear_down(void)
{
	for (int i = 0; i < 2; i++)
		tp_destroy(ends[i].tp);
}

static void half(struct end *from, struct end *to, size_t size)
{
	static uint8_t buf[2048];
	uint64_t now = sd_clock_ns();

	if (tp_write(from->c, buf, size) != (ptrdiff_t)size)
		fail("a short write");
	carry(from, to, now);
	if (!to->readable || tp_read(to->c, buf, sizeof buf) != (ptrdiff_t)size)
		fail("the message has not arrived");
	to->readable = false;
	time_out(now);
}

/* ns per message, both sides: each is written and sent by one and received and read by the other. */
static double ping_pong(size_t size, unsigned long n)
{
	uint64_t begin = sd_clock_ns();

	for (unsigned long i = 0; i < n; i++) {
		half(&ends[0], &ends[1], size);
		half(&ends[1], &ends[0], size);
	}
	return (double)(sd_clock_ns() - begin) / (2.0 * (double)n);
}

/* ns per packet, both sides; the few ACKs included. */
static double stream(unsigned long packets)
{
	static uint8_t buf[1 << 18];
	uint64_t begin = sd_clock_ns();
	unsigned long sent = 0;

	while (sent < packets) {
		uint64_t now = sd_clock_ns();

		tp_write(ends[0].c, buf, sizeof buf);
		sent += carry(&ends[0], &ends[1], now);
		while (tp_read(ends[1].c, buf, sizeof buf) > 0)
			;
		carry(&ends[1], &ends[0], now);
		time_out(now);
	}
	return (double)(sd_clock_ns() - begin) / (double)sent;
}

/* The best of several runs: the machine may have other things to do. */
static void measure(const char *what, bool crc, size_t size, unsigned long n)
{
	double best = 1e9;

	set_up(crc);
	for (int i = 0; i < RUNS; i++) {
		double ns = size ? ping_pong(size, n / RUNS) : stream(n / RUNS);

		best = ns < best ? ns : best;
	}
	tear_down();
	printf("%-30s crc %-3s %8.1f ns, both sides together\n", what, crc ? "on" : "off", best);
}

int main(int argc, char **argv)
{
	unsigned long n = argc > 1 ? strtoul(argv[1], NULL, 10) : 2000000;

	for (int crc = 1; crc >= 0; crc--) {
		measure("message of 64 bytes", crc, 64, n);
		measure("message of 1024 bytes", crc, 1024, n);
		measure("full packet of a stream", crc, 0, n);
	}
	return 0;
}
