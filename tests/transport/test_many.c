/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Very many connections at once: four hosts open 25,000 each to a fifth, every one asks and is answered, all
 * rest for long enough to be asked whether they live, ask again, and end in good order. Says what one of them
 * costs. `test_many N` opens N.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "sim.h"

#define CLIENTS	  4
#define PORT	  80
#define AT_ONCE	  200 /* handshakes of one host */
#define QUESTION  100 /* bytes, and of the answer */
#define REST	  (30 * SD_S)
#define RING	  4096u
#define STATE_MAX 1024 /* bytes of a connection beside its rings */

struct end {
	struct tp_conn *c;
	struct end *next; /* of those with news */
	bool ready;
	unsigned heard; /* bytes of this question or answer */
};

static struct sim sim;
static unsigned each, many; /* connections of a client, of all */
static struct end *near, *far;
static struct end *news[CLIENTS + 1];
static struct tp_listener *listener;
static unsigned begun[CLIENTS + 1], opened[CLIENTS + 1], accepted, answers, ended;
static bool ending;

static void tell(struct sim_host *h, struct end *e)
{
	if (e->ready)
		return;
	e->ready = true;
	e->next = news[h->index];
	news[h->index] = e;
}

static void on_event(struct sim_host *h, struct tp_conn *c, void *user, unsigned events)
{
	struct end *e = user;

	if (events & TP_EV_FAILED)
		sim_fail(&sim, "a connection failed: %d", tp_error(c));
	opened[h->index] += (events & TP_EV_OPEN) != 0;
	tell(h, e);
}

static void on_acceptable(struct sim_host *h, struct tp_listener *l, void *user)
{
}

static void put(struct end *e)
{
	static const uint8_t data[QUESTION];

	if (tp_write(e->c, data, sizeof data) != sizeof data)
		sim_fail(&sim, "a question does not fit");
}

/* Of a client: asks once. Of the server: answers. */
static void act(struct sim_host *h, struct end *e)
{
	uint8_t buf[2 * QUESTION];
	ptrdiff_t n;

	while ((n = tp_read(e->c, buf, sizeof buf)) > 0)
		e->heard += (unsigned)n;
	if (e->heard == QUESTION && h->index == CLIENTS)
		put(e);
	answers += e->heard == QUESTION && h->index != CLIENTS;
	e->heard %= QUESTION;
	if (!tp_at_eof(e->c))
		return;
	ended += h->index == CLIENTS;
	tp_close(e->c, sim_clock(h), false);
	e->c = NULL;
}

static void connect_some(struct sim_host *h)
{
	struct tp_path path;

	while (begun[h->index] < each && begun[h->index] - opened[h->index] < AT_ONCE) {
		unsigned i = begun[h->index]++;
		struct end *e = &near[h->index * each + i];

		sim_path(h, &sim.hosts[CLIENTS], (uint16_t)(1024 + i), PORT, &path);
		if (tp_connect(h->tp, sim_clock(h), &path, e, &e->c))
			sim_fail(&sim, "no connection");
		put(e);
	}
}

/* Some of its connections do something new, each time. */
static bool ask_some(struct sim_host *h)
{
	static unsigned next[CLIENTS];
	unsigned *k = &next[h->index];

	for (unsigned n = AT_ONCE; n && *k < each; n--, ++*k) {
		struct end *e = &near[h->index * each + *k];

		if (ending)
			tp_shutdown(e->c);
		else
			put(e);
	}
	if (*k < each)
		return true;
	*k = 0;
	return false;
}

static void accept_all(void)
{
	struct tp_conn *c;

	while ((c = tp_accept(listener, NULL))) {
		struct end *e = &far[accepted++];

		e->c = c;
		tp_set_user(c, e);
		tell(&sim.hosts[CLIENTS], e);
	}
}

static bool busy[CLIENTS];

static uint64_t run(struct sim_host *h)
{
	struct end *e;

	if (h->index == CLIENTS)
		accept_all();
	else
		connect_some(h);
	while ((e = news[h->index])) {
		news[h->index] = e->next;
		e->ready = false;
		if (e->c)
			act(h, e);
	}
	if (h->index < CLIENTS && busy[h->index])
		busy[h->index] = ask_some(h);
	return h->index < CLIENTS && busy[h->index] ? sim.now + 50 * SD_US : SIM_NEVER;
}

static const struct sim_app app = {.event = on_event, .acceptable = on_acceptable, .run = run};

static void run_until_all(const unsigned *count, const char *what)
{
	uint64_t end = sim.now + 60 * SD_S;

	while (*count < many && sim.now < end && !sim.failure[0])
		sim_run(&sim, sim.now + SD_MS);
	if (*count < many)
		sim_fail(&sim, "%u of %u %s", *count, many, what);
	assert_string_equal(sim.failure, "");
	printf("# %-24s %8.3f s of virtual time, %llu packets, %.1f s of CPU\n", what,
		(double)(sim.now - sim.begin) / 1e9, (unsigned long long)sim.packets,
		(double)clock() / CLOCKS_PER_SEC);
}

static void again(void)
{
	for (unsigned i = 0; i < CLIENTS; i++) {
		busy[i] = true;
		sim_wake(&sim.hosts[i]);
	}
}

static size_t measure(const char *when)
{
	const struct sim_host *h = &sim.hosts[CLIENTS];
	const struct tp_pool *pool = &h->tp->pool;
	size_t state, rings = 0, stored, early;

	for (unsigned i = 0; i < many; i++) {
		const struct tp_conn *c = far[i].c;

		rings += (c->snd.data ? c->snd.size : 0) + (c->rcv.data ? c->rcv.size : 0);
	}
	/* For all of them together. */
	stored = pool->ring_count * h->tp->cfg.ring_min;
	early = pool->reorder_total * sizeof(struct tp_reorder);
	assert_true(rings + stored + early <= h->bytes);
	state = (h->bytes - rings - stored - early) / many;
	printf("# %s: the server has %.0f bytes of rings for each connection and %zu of state, of which "
	       "struct tp_conn has %zu; %zu KB of rings in store, and %zu KB for packets out of order\n",
		when, (double)rings / many, state, sizeof(struct tp_conn), stored / 1024, early / 1024);
	return state;
}

static void open_hosts(void)
{
	struct sd_addr any = {.family = 4, .port = PORT};

	sim_open(&sim, 1, CLIENTS + 1, 4, &app, NULL);
	for (unsigned i = 0; i <= CLIENTS; i++) {
		struct sim_host *h = &sim.hosts[i];

		h->cfg.max_conns = i == CLIENTS ? many : each;
		h->cfg.ring_min = RING;
		h->cfg.rest_ns = SD_S;
		for (unsigned k = 0; k <= CLIENTS; k++)
			sim.links[i][k] = (struct sim_link){.delay = 10 * SD_US, .rate = 12500000000};
		sim_boot(h);
	}
	assert_int_equal(tp_listen(sim.hosts[CLIENTS].tp, &any, 4096, NULL, &listener), 0);
}

static void many_connections(void **state)
{
	struct tp_stats st;

	near = calloc(many, sizeof *near);
	far = calloc(many, sizeof *far);
	assert_true(near && far);
	open_hosts();
	run_until_all(&answers, "answered");
	assert_int_equal(accepted, many);
	assert_int_equal(sim.hosts[CLIENTS].tp->conn_count, many);
	measure("open");
	sim_run(&sim, sim.now + REST);
	assert_string_equal(sim.failure, "");
	assert_int_equal(sim.hosts[CLIENTS].tp->conn_count, many);
	assert_true(measure("at rest") <= STATE_MAX);
	answers = 0;
	again();
	run_until_all(&answers, "answered again");
	ending = true;
	again();
	run_until_all(&ended, "ended");
	sim_run(&sim, sim.now + SD_S);
	for (unsigned i = 0; i < CLIENTS; i++)
		for (unsigned k = 0; k < each; k++)
			if (near[i * each + k].c)
				tp_close(near[i * each + k].c, sim_clock(&sim.hosts[i]), false);
	sim_run(&sim, sim.now + SD_S);
	sim_stats(&sim.hosts[CLIENTS], &st);
	assert_int_equal(st.conns_accepted, many);
	assert_int_equal(st.conns_failed + st.rx_unknown_cid + st.resets_sent, 0);
	assert_int_equal(sim.hosts[CLIENTS].tp->conn_count, 0);
	sim_close(&sim);
	assert_string_equal(sim.failure, "");
	free(near);
	free(far);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(many_connections),
	};

	each = (argc > 1 ? (unsigned)atoi(argv[1]) : 100000) / CLIENTS;
	many = each * CLIENTS;
	setvbuf(stdout, NULL, _IOLBF, 0);
	return cmocka_run_group_tests_name("transport_many", tests, NULL, NULL);
}
