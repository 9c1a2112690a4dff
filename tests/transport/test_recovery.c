/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How well a stream gets through a link that loses, reorders or is too narrow: goodput against what the link
 * could carry, and retransmissions against losses. The simulator's seed makes each figure the same every
 * time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sim.h"

#define STREAMS_MAX 8
#define PAYLOAD	    1472
#define HEADERS	    (WIRE_BASE_LEN + WIRE_STREAM_LEN + WIRE_CRC_LEN)

struct stream {
	struct tp_conn *from, *to;
	uint64_t received;
};

struct world {
	struct sim sim;
	struct tp_listener *listener;
	struct stream streams[STREAMS_MAX];
	unsigned n;
	uint64_t bytes; /* of each stream */
};

static void on_event(struct sim_host *h, struct tp_conn *c, void *user, unsigned events)
{
	if (events & TP_EV_FAILED)
		sim_fail(h->sim, "a stream failed: %d", tp_error(c));
}

static void on_acceptable(struct sim_host *h, struct tp_listener *l, void *user)
{
}

/* Keeps sending: each stream competes until the last has what it should. */
static void send_some(struct stream *x)
{
	static const uint8_t data[65536];

	while (tp_unsent(x->from) < sizeof data && tp_write(x->from, data, sizeof data) > 0)
		;
}

static void receive_all(struct stream *x)
{
	static uint8_t buf[1 << 20];
	ptrdiff_t n;

	while ((n = tp_read(x->to, buf, sizeof buf)) > 0)
		x->received += (uint64_t)n;
}

static uint64_t run(struct sim_host *h)
{
	struct world *w = h->sim->ctx;
	struct tp_conn *c;

	for (unsigned i = 0; i < w->n; i++) {
		if (h->index == 0 && w->streams[i].from)
			send_some(&w->streams[i]);
		if (h->index == 1 && w->streams[i].to)
			receive_all(&w->streams[i]);
	}
	while (h->index == 1 && w->listener && (c = tp_accept(w->listener, w))) {
		struct tp_info info;

		tp_info(c, &info);
		w->streams[info.peer.port - 1].to = c;
		receive_all(&w->streams[info.peer.port - 1]);
	}
	return SIM_NEVER;
}

static const struct sim_app app = {.event = on_event, .acceptable = on_acceptable, .run = run};

static void open_world(struct world *w, unsigned streams, uint64_t bytes, uint64_t rate, uint64_t delay)
{
	memset(w, 0, sizeof *w);
	sim_open(&w->sim, 7, 2, 4, &app, w);
	w->n = streams;
	w->bytes = bytes;
	for (unsigned i = 0; i < 2; i++) {
		w->sim.links[i][1 - i] = (struct sim_link){.rate = rate, .delay = delay};
		w->sim.hosts[i].max_payload = PAYLOAD;
	}
}

/* Until every stream has got its bytes. Returns how long that took. */
static uint64_t play(struct world *w)
{
	struct sd_addr any = {.family = 4, .port = 80};
	uint64_t begin = w->sim.now;
	struct tp_path path;

	for (unsigned i = 0; i < 2; i++)
		sim_boot(&w->sim.hosts[i]);
	assert_int_equal(tp_listen(w->sim.hosts[1].tp, &any, 64, w, &w->listener), 0);
	for (unsigned i = 0; i < w->n; i++) {
		sim_path(&w->sim.hosts[0], &w->sim.hosts[1], (uint16_t)(i + 1), 80, &path);
		assert_int_equal(tp_connect(w->sim.hosts[0].tp, begin, &path, w, &w->streams[i].from), 0);
	}
	for (unsigned i = 0; i < w->n; i++)
		while (w->streams[i].received < w->bytes && !w->sim.failure[0] &&
			w->sim.now < begin + 100 * SD_S)
			sim_run(&w->sim, w->sim.now + 100 * SD_US);
	assert_string_equal(w->sim.failure, "");
	return w->sim.now - begin;
}

struct outcome {
	double goodput;	      /* of all streams, of what the link can carry */
	double least;	      /* stream's share of an equal part */
	double retransmitted; /* of the packets sent */
};

static struct outcome measure(struct world *w, const char *what)
{
	double took = (double)play(w) / 1e9, rate = (double)w->sim.links[0][1].rate;
	double most = rate * took * (PAYLOAD - HEADERS) / (PAYLOAD + SIM_FRAMING);
	struct outcome o = {.least = 1e9};
	struct tp_stats st;

	for (unsigned i = 0; i < w->n; i++) {
		double got = (double)w->streams[i].received / most;

		o.goodput += got;
		if (got * w->n < o.least)
			o.least = got * w->n;
	}
	sim_stats(&w->sim.hosts[0], &st);
	o.retransmitted = (double)st.retransmits / (double)st.tx_packets;
	printf("# %-40s goodput %5.1f %%, least share %5.1f %%, retransmitted %5.2f %%, probes %llu, "
	       "timeouts %llu\n",
		what, 100 * o.goodput, 100 * o.least, 100 * o.retransmitted,
		(unsigned long long)st.tail_probes, (unsigned long long)st.timeouts);
	sim_close(&w->sim);
	assert_string_equal(w->sim.failure, "");
	return o;
}

static void fills_a_clean_link(void **state)
{
	static struct world w;
	struct outcome o;

	open_world(&w, 1, 20 << 20, 1250000000, 10 * SD_US);
	o = measure(&w, "10 Gbit/s, 20 us");
	assert_true(o.goodput > 0.9 && o.retransmitted == 0);
	open_world(&w, 1, 20 << 20, 12500000000, 10 * SD_US);
	o = measure(&w, "100 Gbit/s, 20 us");
	assert_true(o.goodput > 0.8 && o.retransmitted == 0);
	open_world(&w, 1, 20 << 20, 1250000000, 250 * SD_US);
	o = measure(&w, "10 Gbit/s, 500 us");
	assert_true(o.goodput > 0.7 && o.retransmitted == 0);
}

static void survives_loss(void **state)
{
	static const struct {
		double loss, goodput;
	} cases[] = {{0.0001, 0.9}, {0.001, 0.85}, {0.01, 0.7}, {0.05, 0.4}, {0.2, 0.01}};
	static struct world w;

	for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
		char what[64];
		struct outcome o;

		open_world(&w, 1, 20 << 20, 1250000000, 10 * SD_US);
		w.sim.links[0][1].loss = w.sim.links[1][0].loss = cases[i].loss;
		snprintf(what, sizeof what, "10 Gbit/s, 20 us, loss %.2f %%", 100 * cases[i].loss);
		o = measure(&w, what);
		assert_true(o.goodput > cases[i].goodput);
		assert_true(o.retransmitted < 1.3 * cases[i].loss + 0.001);
	}
}

static void bears_reordering(void **state)
{
	static struct world w;
	struct outcome o;

	open_world(&w, 1, 20 << 20, 1250000000, 10 * SD_US);
	w.sim.links[0][1].reorder = 0.05;
	w.sim.links[0][1].reorder_delay = 20 * SD_US;
	o = measure(&w, "10 Gbit/s, 5 % late by up to 20 us");
	assert_true(o.goodput > 0.85 && o.retransmitted < 0.01);
}

static void shares_a_bottleneck(void **state)
{
	static struct world w;
	struct outcome o;

	open_world(&w, 8, 10 << 20, 1250000000, 10 * SD_US);
	w.sim.links[0][1].queue = 400 * SD_US;
	w.sim.links[0][1].mark = 65 * SD_US;
	o = measure(&w, "8 streams, 10 Gbit/s, marking queue");
	assert_true(o.goodput > 0.9 && o.least > 0.7 && o.retransmitted < 0.01);
	open_world(&w, 8, 10 << 20, 1250000000, 10 * SD_US);
	w.sim.links[0][1].queue = 400 * SD_US;
	o = measure(&w, "8 streams, 10 Gbit/s, queue of 400 us");
	assert_true(o.goodput > 0.9 && o.least > 0.7 && o.retransmitted < 0.02);
	open_world(&w, 8, 10 << 20, 125000000, 10 * SD_US);
	w.sim.links[0][1].queue = 400 * SD_US;
	o = measure(&w, "8 streams, 1 Gbit/s, queue of 400 us");
	assert_true(o.goodput > 0.9 && o.least > 0.5 && o.retransmitted < 0.1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fills_a_clean_link),
		cmocka_unit_test(survives_loss),
		cmocka_unit_test(bears_reordering),
		cmocka_unit_test(shares_a_bottleneck),
	};

	return cmocka_run_group_tests_name("transport_recovery", tests, NULL, NULL);
}
