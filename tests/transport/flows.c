/* SPDX-License-Identifier: BSD-3-Clause */
/* What the hosts' programs do, and the links between them. */
#include "flows.h"

#include <stdlib.h>
#include <string.h>

struct world world;

/* --- applications --- */

static struct flow *flow_of(struct sim_host *h)
{
	return &world.flows[h->index - 1];
}

static void on_event(struct sim_host *h, struct tp_conn *c, void *user, unsigned events)
{
	struct flow *f = user;

	if (events & TP_EV_FAILED)
		sim_fail(h->sim, "a flow failed: %d", tp_error(c));
	if (events & TP_EV_READABLE)
		f->readable |= h->index == 0 || world.work != BULK;
	if (events & (TP_EV_WRITABLE | TP_EV_OPEN))
		f->writable = true;
}

static void on_acceptable(struct sim_host *h, struct tp_listener *l, void *user)
{
}

static uint64_t receive(struct tp_conn *c)
{
	static uint8_t buf[1 << 20];
	uint64_t got = 0;
	ptrdiff_t n;

	while (c && (n = tp_read(c, buf, sizeof buf)) > 0)
		got += (uint64_t)n;
	return got;
}

static void put(struct tp_conn *c, size_t len)
{
	static const uint8_t data[ANSWER];

	if (tp_write(c, data, len) != (ptrdiff_t)len)
		sim_fail(&world.sim, "a request does not fit");
}

static void send_bulk(struct flow *f)
{
	static const uint8_t data[65536];

	while (f->writable && tp_unsent(f->near) < 4 * sizeof data)
		f->writable = tp_write(f->near, data, sizeof data) == sizeof data;
}

static void send_answer(struct flow *f)
{
	static const uint8_t data[ANSWER];
	ptrdiff_t n;

	f->to_send += receive(f->near) * ANSWER;
	while (f->to_send && (n = tp_write(f->near, data, f->to_send < ANSWER ? f->to_send : ANSWER)) > 0)
		f->to_send -= (uint64_t)n;
}

static void ask(struct flow *f)
{
	uint64_t now = world.sim.now;

	f->received += receive(f->near);
	if (f->received < EXCHANGE && f->asked_at)
		return;
	if (f->asked_at && world.n_samples < SAMPLES)
		world.samples[world.n_samples++] = (uint32_t)(now - f->asked_at);
	f->received = 0;
	f->asked_at = now;
	put(f->near, EXCHANGE);
}

static void connect_flow(struct flow *f)
{
	struct tp_path path;

	sim_path(f->from, &world.sim.hosts[0], (uint16_t)f->from->index, PORT, &path);
	if (tp_connect(f->from->tp, sim_clock(f->from), &path, f, &f->near))
		sim_fail(&world.sim, "no connection");
}

static uint64_t run_sender(struct sim_host *h)
{
	struct flow *f = flow_of(h);

	if (!f->near) {
		if (h->sim->now < f->start)
			return f->start;
		connect_flow(f);
	} else if (!tp_is_open(f->near)) {
		return SIM_NEVER;
	} else if (world.work == BULK) {
		send_bulk(f);
	} else if (world.work == INCAST) {
		send_answer(f);
	} else {
		ask(f);
	}
	return SIM_NEVER;
}

static void begin_round(void)
{
	world.rounds++;
	world.in_round = 0;
	world.round_at = world.sim.now;
	for (unsigned i = 0; i < world.n; i++)
		put(world.flows[i].far, 1);
}

static void hear(struct flow *f)
{
	uint64_t was = f->received / ANSWER, before = f->received;

	f->readable = false;
	f->received += receive(f->far);
	if (world.work == EXCHANGES) {
		f->to_send += f->received - before;
		f->received = before;
		for (; f->to_send >= EXCHANGE; f->to_send -= EXCHANGE)
			put(f->far, EXCHANGE);
	} else if (world.work == INCAST && f->received / ANSWER != was && ++world.in_round == world.n) {
		begin_round();
	}
}

static void take(struct tp_conn *c)
{
	struct tp_info info;

	tp_info(c, &info);
	world.flows[info.peer.port - 1].far = c;
	world.flows[info.peer.port - 1].readable = true;
	tp_set_user(c, &world.flows[info.peer.port - 1]);
}

static uint64_t run_receiver(struct sim_host *h)
{
	struct tp_conn *c;
	unsigned there = 0;

	while ((c = tp_accept(world.listener, &world)))
		take(c);
	for (unsigned i = 0; i < world.n; i++) {
		if (world.flows[i].readable)
			hear(&world.flows[i]);
		there += world.flows[i].far != NULL;
	}
	if (world.work == INCAST && !world.rounds && there == world.n)
		begin_round();
	return SIM_NEVER;
}

static uint64_t run(struct sim_host *h)
{
	return h->index ? run_sender(h) : run_receiver(h);
}

static const struct sim_app app = {.event = on_event, .acceptable = on_acceptable, .run = run};

/* --- worlds --- */

void flows_open(enum work work, unsigned n, unsigned mtu, uint64_t spread)
{
	struct sim *s = &world.sim;

	memset(&world, 0, sizeof world);
	sim_open(s, 7, n + 1, 4, &app, NULL);
	monitor_free(s->monitor); /* others look at the packets */
	s->monitor = NULL;
	world.work = work;
	world.n = n;
	world.out = (struct sim_queue){.rate = RATE, .capacity = BUFFER, .mark = MARK};
	for (unsigned i = 0; i < n; i++) {
		world.flows[i].from = &s->hosts[i + 1];
		world.flows[i].start = s->now + sd_rng_below(&s->rng, spread + 1);
		s->links[i + 1][0] =
			(struct sim_link){.rate = NIC_RATE, .delay = RTT / 2, .via = {&world.out}};
		s->links[0][i + 1] = (struct sim_link){.rate = RATE, .delay = RTT / 2};
	}
	for (unsigned i = 0; i <= n; i++)
		s->hosts[i].max_payload = (uint16_t)(mtu - 28);
}

void flows_start(void)
{
	struct sd_addr any = {.family = 4, .port = PORT};

	for (unsigned i = 0; i <= world.n; i++)
		sim_boot(&world.sim.hosts[i]);
	if (tp_listen(world.sim.hosts[0].tp, &any, 2 * FLOWS_MAX, &world, &world.listener))
		abort();
	sim_queue_watch(&world.sim, &world.out);
}

void flows_run(uint64_t t)
{
	sim_run(&world.sim, world.sim.begin + t);
}
