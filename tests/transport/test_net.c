/* SPDX-License-Identifier: BSD-3-Clause */
/* The simulator's network itself: what it measures has to be right before anything is measured with it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sim.h"

#define LEN   954u /* and framing: 1000 bytes */
#define WIRE  1000u
#define HOSTS 65

static struct sim sim;
static unsigned arrivals[HOSTS];
static uint64_t arrived_at[HOSTS][64];

/* Hosts without a transport run whenever something has come. */
static uint64_t run(struct sim_host *h)
{
	arrived_at[h->index][arrivals[h->index]++ % 64] = h->sim->now - h->sim->begin;
	return SIM_NEVER;
}

static const struct sim_app app = {.run = run};

static void begin(unsigned hosts)
{
	memset(arrivals, 0, sizeof arrivals);
	sim_open(&sim, 1, hosts, 4, &app, NULL);
}

static void put(unsigned from, unsigned to, size_t len)
{
	uint8_t data[2000] = {0};
	struct tp_path path;

	sim_path(&sim.hosts[from], &sim.hosts[to], 1, 2, &path);
	sim_send(&sim, from, &path, data, len);
}

static void queues_are_shared(void **state)
{
	struct sim_queue q = {.rate = 1000000000, .capacity = 4 * WIRE, .mark = 2 * WIRE};

	begin(HOSTS);
	for (unsigned i = 1; i < HOSTS; i++)
		sim.links[i][0] = (struct sim_link){.delay = 5 * SD_US, .via = {&q}};
	sim_queue_watch(&sim, &q);
	for (unsigned i = 1; i < HOSTS; i++)
		put(i, 0, LEN);
	assert_int_equal(q.bytes, 4 * WIRE);
	sim_run(&sim, sim.now + 8 * SD_US);
	/* 1 us each, then the delay */
	assert_int_equal(arrivals[0], 3);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(arrived_at[0][i], (6 + i) * SD_US);
	sim_run(&sim, sim.now + SD_US);
	assert_int_equal(arrivals[0], 4);
	assert_int_equal(q.packets, 64);
	assert_int_equal(q.drops, 60);
	assert_int_equal(sim.lost, 60);
	/* the fourth found 3000 bytes, the third 2000 */
	assert_int_equal(q.marks, 1);
	assert_int_equal(q.peak, 4 * WIRE);
	assert_int_equal(q.served, 4 * WIRE);
	sim_run(&sim, sim.begin + 10 * SD_US);
	/* 4000 bytes for a microsecond, 3000 for one, 2000 for one, 1000 for one: in ten */
	assert_float_equal(sim_queue_mean(&sim, &q), 1000, 1e-6);
	assert_float_equal(sim_queue_utilisation(&sim, &q), 0.4, 1e-9);
	sim_queue_watch(&sim, &q);
	assert_int_equal(q.served + q.drops + q.peak, 0);
	sim_close(&sim);
	assert_string_equal(sim.failure, "");
}

static void queues_follow_each_other(void **state)
{
	struct sim_queue fast = {.rate = 2000000000}, slow = {.rate = 500000000};

	begin(3);
	sim.links[0][2] = (struct sim_link){.delay = SD_US, .via = {&fast, &slow}};
	sim.links[1][2] = (struct sim_link){.via = {&slow}};
	put(0, 2, LEN);
	put(0, 2, LEN);
	put(1, 2, LEN);
	sim_run(&sim, sim.now + SD_MS);
	assert_int_equal(arrivals[2], 3);
	assert_int_equal(arrived_at[2][0], 2 * SD_US); /* host 1's: it was first at the slow one */
	assert_int_equal(arrived_at[2][1], 5 * SD_US);
	assert_int_equal(arrived_at[2][2], 7 * SD_US);
	sim_close(&sim);
}

/* The rates of links come out right although a packet's time is no whole number of nanoseconds. */
static void rates_are_exact(void **state)
{
	struct sim_queue q = {.rate = 3000000000};

	begin(2);
	sim.links[0][1] = (struct sim_link){.via = {&q}};
	for (unsigned i = 0; i < 3000; i++)
		put(0, 1, LEN);
	sim_run(&sim, sim.now + 999999);
	assert_int_equal(q.served, 2999 * WIRE);
	sim_run(&sim, sim.now + 1);
	assert_int_equal(q.served, 3000 * WIRE);
	sim_close(&sim);
}

static void slower(struct sim *s, void *link)
{
	struct sim_link *l = link;

	l->delay = 40 * SD_US;
}

static void faster(struct sim *s, void *link)
{
	struct sim_link *l = link;

	l->delay = SD_US;
	l->last_arrival = 0;
}

static void paths_change(void **state)
{
	begin(2);
	sim.links[0][1].delay = 10 * SD_US;
	sim_at(&sim, sim.begin + 5 * SD_US, slower, &sim.links[0][1]);
	sim_at(&sim, sim.begin + 20 * SD_US, faster, &sim.links[0][1]);
	put(0, 1, LEN);
	sim_run(&sim, sim.begin + 15 * SD_US);
	assert_int_equal(arrivals[1], 1);
	assert_int_equal(arrived_at[1][0], 10 * SD_US);
	put(0, 1, LEN);
	sim_run(&sim, sim.begin + 25 * SD_US);
	put(0, 1, LEN); /* overtakes */
	sim_run(&sim, sim.begin + SD_MS);
	assert_int_equal(arrivals[1], 3);
	assert_int_equal(arrived_at[1][1], 26 * SD_US);
	assert_int_equal(arrived_at[1][2], 55 * SD_US);
	sim_close(&sim);
}

static void large_packets_vanish(void **state)
{
	begin(2);
	sim.links[0][1] = (struct sim_link){.delay = SD_US, .mtu = LEN};
	put(0, 1, LEN);
	put(0, 1, LEN + 1);
	sim_run(&sim, sim.now + SD_MS);
	assert_int_equal(arrivals[1], 1);
	assert_int_equal(sim.lost, 1);
	sim_close(&sim);
}

static struct sim_link two_ways[2];

static struct sim_link *by_port(struct sim *s, unsigned from, const struct tp_path *path)
{
	return &two_ways[path->local.port & 1];
}

static void paths_choose_links(void **state)
{
	uint8_t data[LEN] = {0};
	struct tp_path path;

	begin(2);
	sim.route = by_port;
	two_ways[0] = (struct sim_link){.delay = SD_US};
	two_ways[1] = (struct sim_link){.delay = 2 * SD_US};
	for (uint16_t port = 10; port < 12; port++) {
		sim_path(&sim.hosts[0], &sim.hosts[1], port, 80, &path);
		sim_send(&sim, 0, &path, data, sizeof data);
	}
	sim_run(&sim, sim.now + SD_MS);
	assert_int_equal(arrivals[1], 2);
	assert_int_equal(arrived_at[1][0], SD_US);
	assert_int_equal(arrived_at[1][1], 2 * SD_US);
	sim_close(&sim);
}

static void clocks_differ(void **state)
{
	struct sim_host *h;

	begin(2);
	h = &sim.hosts[1];
	h->clock_behind = 1000;
	h->clock_ppm = -200;
	assert_int_equal(sim_clock(h), sim.begin - 1000);
	sim_run(&sim, sim.begin + 10 * SD_S);
	assert_int_equal(sim_clock(&sim.hosts[0]), sim.begin + 10 * SD_S);
	assert_int_equal(sim_clock(h), sim.begin - 1000 + 9998 * SD_MS);
	sim_close(&sim);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(queues_are_shared),
		cmocka_unit_test(queues_follow_each_other),
		cmocka_unit_test(rates_are_exact),
		cmocka_unit_test(paths_change),
		cmocka_unit_test(large_packets_vanish),
		cmocka_unit_test(paths_choose_links),
		cmocka_unit_test(clocks_differ),
	};

	return cmocka_run_group_tests_name("transport_net", tests, NULL, NULL);
}
