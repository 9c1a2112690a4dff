/* SPDX-License-Identifier: BSD-3-Clause */
/* How large packets become, and what happens where the path does not take them: simulated, with exact times.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "flows.h"
#include "transport/conn.h"

#define JUMBO 8972 /* UDP payload at an MTU of 9000, */
#define USUAL 1472 /* and of 1500 */
#define BASE  1200

static struct sim_change change[2][2];

/* n senders to host 0, all of which believe in an MTU of 9000. */
static void open_flows(unsigned n, uint64_t spread)
{
	flows_open(BULK, n, 9000, spread);
}

/* Nothing larger goes either way between host 0 and the first sender, from some time on. */
static void narrow(unsigned which, uint64_t at, uint16_t payload)
{
	for (unsigned i = 0; i < 2; i++) {
		struct sim_change *c = &change[which][i];

		c->link = &world.sim.links[i][!i];
		c->now = *c->link;
		c->now.mtu = payload;
		if (at)
			sim_change_at(&world.sim, world.sim.now + at, c);
		else
			c->link->mtu = payload;
	}
}

static unsigned payload_of(unsigned flow)
{
	struct tp_info info;

	tp_info(world.flows[flow].near, &info);
	return info.payload;
}

static const struct tp_stats *stats_of(unsigned flow)
{
	return tp_stats(world.flows[flow].from->tp);
}

static struct tp_peer *peer_of(unsigned flow)
{
	return tp_peer_of(world.flows[flow].near);
}

static double goodput(unsigned flow, uint64_t from, uint64_t to)
{
	uint64_t before;

	flows_run(from);
	before = world.flows[flow].received;
	flows_run(to);
	return (double)(world.flows[flow].received - before) / (double)(to - from) * (double)SD_S /
	       (double)RATE;
}

static int end(void **state)
{
	sim_close(&world.sim);
	return 0;
}

static void a_wide_path_is_used_after_a_round_trip(void **state)
{
	open_flows(1, 1);
	flows_start();
	flows_run(100 * SD_US);
	assert_int_equal(payload_of(0), JUMBO);
	assert_true(goodput(0, 2 * SD_MS, 12 * SD_MS) > 0.9);
	assert_int_equal(stats_of(0)->black_holes, 0);
	assert_int_equal(stats_of(0)->retransmits, 0);
}

static void a_narrow_path_is_found_out(void **state)
{
	static const unsigned mtus[] = {8950, 4096, 1500};

	for (unsigned i = 0; i < sizeof mtus / sizeof *mtus; i++) {
		open_flows(1, 1);
		narrow(0, 0, (uint16_t)(mtus[i] - 28));
		flows_start();
		assert_true(goodput(0, 300 * SD_MS, 320 * SD_MS) > 0.85);
		assert_int_equal(payload_of(0), mtus[i] - 28);
		assert_int_equal(stats_of(0)->black_holes, 0);
		assert_in_range(stats_of(0)->retransmits, 3, 80);
		end(NULL);
	}
	open_flows(1, 1);
}

/* The search begins where nothing is known to arrive but what every path carries. */
static void less_than_usual_is_a_black_hole(void **state)
{
	open_flows(1, 1);
	narrow(0, 0, 1372);
	flows_start();
	flows_run(SD_S);
	assert_int_equal(stats_of(0)->black_holes, 1);
	assert_int_equal(payload_of(0), 1372);
	assert_true(goodput(0, SD_S, SD_S + 20 * SD_MS) > 0.8);
}

static void a_path_that_becomes_narrow_is_survived(void **state)
{
	uint64_t began = 5 * SD_MS;
	struct tp_peer *p;

	open_flows(1, 1);
	narrow(0, began, USUAL);
	narrow(1, began + 1100 * SD_MS, JUMBO);
	flows_start();
	assert_true(goodput(0, began + 100 * SD_MS, began + 150 * SD_MS) > 0.3);
	assert_int_equal(stats_of(0)->black_holes, 1);
	assert_true(goodput(0, began + SD_S, began + SD_S + 20 * SD_MS) > 0.85);
	assert_int_equal(payload_of(0), USUAL);
	/* When it is as it was, that is found out in the end. */
	flows_run(began + 1200 * SD_MS);
	p = peer_of(0);
	assert_true(p->probe_at > world.sim.now + 598 * SD_S);
	p->probe_at = 0;
	flows_run(began + 1300 * SD_MS);
	assert_int_equal(payload_of(0), JUMBO);
}

/* A host whose process sleeps tells nothing of the path. */
static void silence_is_no_black_hole(void **state)
{
	open_flows(1, 1);
	flows_start();
	flows_run(5 * SD_MS);
	world.sim.hosts[0].asleep = world.sim.now + 300 * SD_MS;
	flows_run(600 * SD_MS);
	assert_int_equal(stats_of(0)->black_holes, 0);
	assert_int_equal(payload_of(0), JUMBO);
	assert_true(goodput(0, 600 * SD_MS, 620 * SD_MS) > 0.9);
}

static void random_loss_is_no_black_hole(void **state)
{
	open_flows(1, 1);
	world.sim.links[1][0].loss = world.sim.links[0][1].loss = 0.05;
	flows_start();
	flows_run(2 * SD_S);
	assert_int_equal(stats_of(0)->black_holes, 0);
	assert_int_equal(payload_of(0), JUMBO);
}

/* Another connection of the same sender: the second flow, of which only the receiving end does anything. */
static void write_all(struct tp_conn *c, const uint8_t *data, size_t len)
{
	assert_int_equal(tp_write(c, data, len), len);
	sim_wake(world.flows[0].from);
}

static struct tp_conn *beside(void)
{
	struct flow *f = &world.flows[1];
	struct tp_path path;

	f->from = world.flows[0].from;
	sim_path(f->from, &world.sim.hosts[0], 2, PORT, &path);
	assert_int_equal(tp_connect(f->from->tp, world.sim.now, &path, f, &f->near), 0);
	sim_wake(f->from);
	world.n = 2;
	return f->near;
}

/* Who comes later probes no more; one probe at a time. */
static void a_host_is_probed_once(void **state)
{
	struct tp_conn *second;
	struct tp_info info;

	open_flows(1, 1);
	flows_start();
	flows_run(SD_MS);
	second = beside();
	flows_run(2 * SD_MS);
	tp_info(second, &info);
	assert_int_equal(info.payload, JUMBO);
}

/* It has rested while the path became narrow, and another one has found out how narrow. */
static void others_need_not_search_again(void **state)
{
	static const uint8_t data[16000];
	struct tp_conn *late;
	struct tp_info info;

	open_flows(1, 1);
	flows_start();
	flows_run(SD_MS);
	late = beside();
	flows_run(2 * SD_MS);
	narrow(0, SD_MS, 4068);
	flows_run(SD_S);
	assert_int_equal(payload_of(0), 4068);
	write_all(late, data, sizeof data);
	flows_run(1100 * SD_MS);
	tp_info(late, &info);
	assert_int_equal(info.bytes_acked, sizeof data);
	assert_int_equal(info.payload, 4068);
	assert_int_equal(peer_of(0)->payload, 4068);
	assert_int_equal(stats_of(0)->black_holes, 2);
}

/* Who never has enough for the largest packet at once tries what there is. */
static void small_writes_are_probes_too(void **state)
{
	static const uint8_t data[8000];
	struct tp_conn *c;

	open_flows(1, 1);
	world.flows[0].start = SIM_NEVER;
	flows_start();
	c = beside();
	for (unsigned i = 1; i < 10; i++) {
		flows_run(i * SD_MS);
		write_all(c, data, sizeof data);
	}
	flows_run(10 * SD_MS);
	assert_in_range(payload_of(1), sizeof data, JUMBO);
	assert_in_range(c->packets_sent, 9, 20);
	/* One that has more to send goes on from there. */
	world.flows[0].start = 0;
	sim_wake(world.flows[0].from);
	flows_run(20 * SD_MS);
	assert_int_equal(payload_of(0), JUMBO);
}

/* One flow, which has found out that its path is narrow. It is not any more. */
static void open_widened(void)
{
	open_flows(1, 1);
	narrow(0, 0, USUAL);
	narrow(1, 400 * SD_MS, JUMBO);
	flows_start();
	flows_run(450 * SD_MS);
	assert_int_equal(payload_of(0), USUAL);
}

/* The window has been cut, in packets: those are not made larger at the same time. */
static void what_is_lost_comes_first(void **state)
{
	struct tp_conn *c;

	open_widened();
	c = world.flows[0].near;
	c->recovering = true;
	c->recovery_end = c->snd_nxt + 100000;
	peer_of(0)->payload = JUMBO;
	flows_run(455 * SD_MS);
	assert_int_equal(payload_of(0), USUAL);
	c->recovery_end = c->snd_nxt;
	flows_run(460 * SD_MS);
	assert_int_equal(payload_of(0), JUMBO);
}

/* Larger packets bring a large window with them: not beyond a pause. */
static void a_pause_ends_a_window_of_large_packets(void **state)
{
	static const uint8_t data[JUMBO];
	struct tp_conn *c;

	open_widened();
	peer_of(0)->payload = JUMBO;
	flows_run(455 * SD_MS);
	c = world.flows[0].near;
	assert_true(c->cwnd > 4);
	world.rounds = world.in_round = 100;
	world.work = INCAST; /* of which this is not asked for anything */
	flows_run(2 * SD_S);
	assert_int_equal(tp_unacked(c), 0);
	write_all(c, data, sizeof data);
	flows_run(3 * SD_S);
	assert_int_equal(tp_unacked(c), 0);
	assert_in_range(c->cwnd, 2, 4);
}

/* As many hosts as are near each other. */
static void every_host_is_remembered(void **state)
{
	struct tp *t;

	open_flows(1, 1);
	flows_start();
	flows_run(SD_MS);
	t = world.flows[0].from->tp;
	for (unsigned round = 0; round < 2; round++) {
		for (uint8_t i = 0; i < 100; i++) {
			const struct tp_conn to = {.tp = t, .path.peer = {.family = 4, .ip = {10, 1, 1, i}}};
			struct tp_peer *p = tp_peer_of(&to);

			assert_int_equal(p->payload, round ? 1000 + i : 0);
			p->payload = 1000 + i;
		}
	}
	assert_int_equal(peer_of(0)->payload, JUMBO);
}

#define CASE(name) cmocka_unit_test_teardown(name, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(a_wide_path_is_used_after_a_round_trip),
		CASE(a_narrow_path_is_found_out),
		CASE(less_than_usual_is_a_black_hole),
		CASE(a_path_that_becomes_narrow_is_survived),
		CASE(silence_is_no_black_hole),
		CASE(random_loss_is_no_black_hole),
		CASE(a_host_is_probed_once),
		CASE(others_need_not_search_again),
		CASE(small_writes_are_probes_too),
		CASE(what_is_lost_comes_first),
		CASE(a_pause_ends_a_window_of_large_packets),
		CASE(every_host_is_remembered),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
