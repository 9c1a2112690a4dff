/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the transport alone costs: two endpoints in one thread, packets handed over in memory, real time.
 *   bench_transport [messages [row [on|off]]]
 * Prints nanoseconds and cycles for each message of a ping-pong, each packet of a stream, and the same of a
 * queue pair, with one reading of the clock for each round. The engine's way of driving is imitated: input,
 * timers, output until nothing is due.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#include "base/clock.h"
#include "transport/cc.h"
#include "transport/transport.h"
#include "transport/verbs.h"

#define PAYLOAD 1472
#define SLOTS	64
#define RUNS	10
#define BATCH	32   /* requests posted before they are sent */
#define DEPTH	256  /* of the queues */
#define WRITTEN 1416 /* bytes of a WRITE that fills a packet */

struct end {
	struct tp *tp;
	struct tp_conn *c;
	struct tp_listener *listener;
	struct sd_addr addr;
	bool readable;
	struct tp_pd *pd;
	struct tp_mr *mr;
	struct tp_cq *scq, *rcq;
	struct tp_qp *qp;
	uint8_t memory[4096] __attribute__((aligned(64)));
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

static void on_qp_event(void *ctx, struct tp_qp *qp, void *user, unsigned events)
{
	if (events & TP_EV_FAILED)
		fail("the queue pair failed");
}

static void on_completion(void *ctx, struct tp_cq *cq, void *user)
{
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
	.qp_event = on_qp_event,
	.completion = on_completion,
};

/* Everything that from has to send arrives at to. Returns the packets. */
static unsigned carry(struct end *from, struct end *to, uint64_t now)
{
	static uint8_t bufs[SLOTS][2048] __attribute__((aligned(64)));
	size_t lens[SLOTS];
	struct tp_rx rx = {.local = &to->addr, .peer = &from->addr};
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

static void open_ends(bool crc, struct tp_path *path)
{
	struct tp_config cfg = {.size = sizeof cfg, .crc = crc, .ring_min = 1 << 20};

	for (int i = 0; i < 2; i++) {
		cfg.seed[0] = (uint64_t)i + 1;
		ends[i].addr = (struct sd_addr){.family = 4, .ip = {10, 0, 0, (uint8_t)(i + 1)}};
		if (tp_create(&cfg, &ops, &ends[i], sd_clock_ns(), &ends[i].tp))
			fail("tp_create");
	}
	*path = (struct tp_path){.local = ends[0].addr, .peer = ends[1].addr, .max_payload = PAYLOAD};
	path->peer.port = 80;
}

static void set_up(bool crc)
{
	struct tp_path path;

	open_ends(crc, &path);
	if (tp_listen(ends[1].tp, &path.peer, 8, NULL, &ends[1].listener) ||
		tp_connect(ends[0].tp, sd_clock_ns(), &path, NULL, &ends[0].c))
		fail("tp_listen or tp_connect");
	while (!(ends[1].c = tp_accept(ends[1].listener, NULL))) {
		carry(&ends[0], &ends[1], sd_clock_ns());
		carry(&ends[1], &ends[0], sd_clock_ns());
	}
	carry(&ends[1], &ends[0], sd_clock_ns());
}

static void make_qp(struct end *e)
{
	struct tp_qp_attr attr = {.size = sizeof attr,
		.max_send_wr = DEPTH,
		.max_recv_wr = DEPTH,
		.max_inline = 64,
		.max_sge = 1};

	if (tp_pd_create(e->tp, &e->pd) || tp_cq_create(e->tp, DEPTH, NULL, &e->scq) ||
		tp_cq_create(e->tp, DEPTH, NULL, &e->rcq) ||
		tp_mr_register(e->pd, e->memory, sizeof e->memory, TP_LOCAL_WRITE | TP_REMOTE_WRITE, &e->mr))
		fail("out of memory");
	attr.pd = e->pd;
	attr.send_cq = e->scq;
	attr.recv_cq = e->rcq;
	if (tp_qp_create(e->tp, &attr, &e->qp))
		fail("tp_qp_create");
}

static void post_receives(struct end *e, unsigned n)
{
	const struct tp_sge piece = {.mr = e->mr, .len = 64};

	while (n--) {
		if (tp_post_recv(e->qp, &(struct tp_recv_wr){.sg = &piece, .n_sg = 1}))
			fail("tp_post_recv");
	}
}

static void set_up_qp(bool crc)
{
	struct tp_path path;

	open_ends(crc, &path);
	for (int i = 0; i < 2; i++)
		make_qp(&ends[i]);
	if (tp_qp_listen(ends[1].tp, &path.peer, 8, 0, NULL, &ends[1].listener) ||
		tp_qp_connect(ends[0].qp, sd_clock_ns(), &path))
		fail("tp_qp_listen or tp_qp_connect");
	while (tp_qp_accept(ends[1].qp, ends[1].listener)) {
		carry(&ends[0], &ends[1], sd_clock_ns());
		carry(&ends[1], &ends[0], sd_clock_ns());
	}
	post_receives(&ends[1], DEPTH);
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

/* Each message is written and sent by one and received and read by the other. */
static void ping_pong(unsigned long n, size_t size)
{
	for (unsigned long i = 0; i < n / 2; i++) {
		half(&ends[0], &ends[1], size);
		half(&ends[1], &ends[0], size);
	}
}

/* The few ACKs included. */
static void stream(unsigned long packets, size_t size)
{
	static uint8_t buf[1 << 18];
	unsigned long sent = 0;

	while (sent < packets) {
		uint64_t now = sd_clock_ns();

		tp_write(ends[0].c, buf, size);
		sent += carry(&ends[0], &ends[1], now);
		while (tp_read(ends[1].c, buf, sizeof buf) > 0)
			;
		carry(&ends[1], &ends[0], now);
		time_out(now);
	}
}

static void write_to(struct end *from, struct end *to, uint32_t len, unsigned flags)
{
	const struct tp_sge piece = {.mr = from->mr, .len = len};
	struct tp_send_wr wr = {
		.opcode = TP_WRITE, .flags = flags, .sg = &piece, .n_sg = 1, .rkey = tp_mr_rkey(to->mr)};

	if (flags & TP_INLINE) {
		wr.data = from->memory + 2048;
		wr.len = len;
	}
	if (tp_post_send(from->qp, &wr))
		fail("tp_post_send");
}

static void write_half(struct end *from, struct end *to, uint8_t value)
{
	uint64_t now = sd_clock_ns();

	from->memory[2048 + 63] = value;
	write_to(from, to, 64, TP_INLINE);
	carry(from, to, now);
	if (to->memory[63] != value)
		fail("the WRITE has not arrived");
	time_out(now);
}

/* A WRITE each way, which the other side finds in its memory. */
static void write_ping_pong(unsigned long n, size_t size)
{
	for (unsigned long i = 0; i < n / 2; i++) {
		write_half(&ends[0], &ends[1], (uint8_t)(2 * i + 1));
		write_half(&ends[1], &ends[0], (uint8_t)(2 * i + 2));
	}
}

/* Batches one way, of which the last request is signalled, and the ACKs back. */
static void one_way(unsigned long n, bool sends)
{
	struct tp_wc wc[BATCH];

	for (unsigned long done = 0; done < n; done += BATCH) {
		uint64_t now = sd_clock_ns();
		struct tp_send_wr wr = {
			.opcode = TP_SEND, .flags = TP_INLINE, .data = ends[0].memory + 2048, .len = 64};

		for (int i = 0; i < BATCH; i++) {
			unsigned signal = i == BATCH - 1 ? TP_SIGNALED : 0;

			wr.flags = TP_INLINE | signal;
			if (!sends)
				write_to(&ends[0], &ends[1], WRITTEN, signal);
			else if (tp_post_send(ends[0].qp, &wr))
				fail("tp_post_send");
		}
		carry(&ends[0], &ends[1], now);
		if (sends)
			post_receives(&ends[1], tp_cq_poll(ends[1].rcq, wc, BATCH));
		carry(&ends[1], &ends[0], now);
		tp_cq_poll(ends[0].scq, wc, BATCH);
		time_out(now);
	}
}

static void sends(unsigned long n, size_t size)
{
	one_way(n, true);
}

static void writes(unsigned long n, size_t size)
{
	one_way(n, false);
}

static const struct row {
	const char *what;
	void (*set_up)(bool crc);
	void (*run)(unsigned long n, size_t size);
	size_t size;
} rows[] = {
	{"ping-pong of 64 bytes", set_up, ping_pong, 64},
	{"ping-pong of 1024 bytes", set_up, ping_pong, 1024},
	{"full packet of a stream", set_up, stream, 1 << 18},
	{"WRITE ping-pong of 64 bytes", set_up_qp, write_ping_pong, 64},
	{"SEND of 64 bytes", set_up_qp, sends, 64},
	{"full packet of a WRITE", set_up_qp, writes, WRITTEN},
};

static uint64_t cycles(void)
{
#if defined(__x86_64__)
	return __rdtsc();
#else
	return 0;
#endif
}

/* The best of several runs: the machine may have other things to do. */
static void measure(const struct row *row, bool crc, unsigned long n)
{
	double best = 1e9, best_cycles = 1e9;

	row->set_up(crc);
	for (int i = 0; i < RUNS; i++) {
		uint64_t begin = sd_clock_ns(), c = cycles();
		double ns;

		row->run(n / RUNS, row->size);
		c = cycles() - c;
		ns = (double)(sd_clock_ns() - begin) / (double)(n / RUNS);
		if (ns >= best)
			continue;
		best = ns;
		best_cycles = (double)c / (double)(n / RUNS);
	}
	tear_down();
	printf("%-30s crc %-3s %8.1f ns %8.0f cycles, both sides together\n", row->what, crc ? "on" : "off",
		best, best_cycles);
}

int main(int argc, char **argv)
{
	unsigned long n = argc > 1 ? strtoul(argv[1], NULL, 10) : 2000000;

	for (int crc = 1; crc >= 0; crc--) {
		for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
			if ((argc > 2 && strcmp(argv[2], rows[i].what)) ||
				(argc > 3 && strcmp(argv[3], crc ? "on" : "off")))
				continue;
			measure(&rows[i], crc, n);
		}
	}
	return 0;
}
