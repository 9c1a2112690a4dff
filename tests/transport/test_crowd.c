/* SPDX-License-Identifier: BSD-3-Clause */
/* In a crowd a connection has its rings only while something is in them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "puppet.h"

#define MANY 16u

static struct puppet p;
static struct peer q;
static uint8_t bytes[1 << 17];

static int start(void **state)
{
	puppet_init(&p);
	p.cfg.crowd = 1;
	puppet_open(&p, &q);
	puppet_pattern(bytes, sizeof bytes);
	return 0;
}

static int stop(void **state)
{
	assert_true(puppet_stop(&p));
	return 0;
}

static void piece(unsigned n, uint64_t off, size_t len)
{
	peer_data(&p, &q, q.isn + n, off, bytes + off, len, WIRE_F_ACKREQ);
}

static void expect_read(uint64_t off, size_t len)
{
	static uint8_t buf[sizeof bytes];

	assert_int_equal(tp_read(q.c, buf, sizeof buf), len);
	assert_memory_equal(buf, bytes + off, len);
}

static void acknowledge(uint32_t n)
{
	peer_ack(&p, &q, q.their_isn + n, NULL, 0, 0);
}

static void a_ring_for_what_is_unacknowledged(void **state)
{
	struct tp_info info;

	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(tp_write(q.c, bytes + 200 * i, 100), 100);
		assert_non_null(q.c->snd.data);
		assert_true(puppet_output(&p));
		assert_int_equal(tp_write(q.c, bytes + 200 * i + 100, 100), 100);
		assert_true(puppet_output(&p));
		acknowledge(2 * i + 1);
		assert_non_null(q.c->snd.data);
		assert_memory_equal(p.w.payload, bytes + 200 * i + 100, 100);
		acknowledge(2 * i + 2);
		assert_null(q.c->snd.data);
	}
	assert_true(tp_is_writable(q.c));
	tp_info(q.c, &info);
	assert_int_equal(info.send_ring, p.tp->cfg.ring_min);
}

static void a_ring_for_what_is_unread(void **state)
{
	uint32_t size = q.c->rcv.size;

	piece(0, 0, 1000);
	assert_non_null(q.c->rcv.data);
	assert_true(puppet_output(&p));
	assert_int_equal(p.w.window, size);
	piece(1, 1000, 1000);
	expect_read(0, 2000);
	assert_null(q.c->rcv.data);
	assert_int_equal(q.c->rcv.size, size);
	piece(2, 2000, 1000);
	expect_read(2000, 1000);
	assert_null(q.c->rcv.data);
}

/* What came too early is in it, too. */
static void a_ring_for_what_is_behind_a_gap(void **state)
{
	piece(1, 1000, 500);
	assert_non_null(q.c->rcv.data);
	piece(0, 0, 1000);
	piece(3, 2000, 500);
	expect_read(0, 1500);
	assert_non_null(q.c->rcv.data);
	piece(2, 1500, 500);
	expect_read(1500, 1000);
	assert_null(q.c->rcv.data);
}

static void none_for_a_fin(void **state)
{
	piece(0, 0, 1000);
	expect_read(0, 1000);
	peer_data(&p, &q, q.isn + 1, 1000, bytes, 0, WIRE_F_FIN);
	assert_null(q.c->rcv.data);
	assert_int_equal(tp_read(q.c, bytes, 1), 0);
}

static void none_for_what_nobody_will_read(void **state)
{
	piece(0, 0, 1000);
	tp_stop_reading(q.c, false);
	assert_null(q.c->rcv.data);
	piece(1, 1000, 1000);
	assert_null(q.c->rcv.data);
	puppet_flush(&p);
	assert_int_equal(p.w.ack, q.isn + 2);
}

static void none_once_a_landing_has_it_all(void **state)
{
	uint8_t to[1000];

	assert_int_equal(tp_land(q.c, to, sizeof to, sizeof to), 0);
	piece(0, 0, 1000);
	assert_int_equal(tp_land_end(q.c), 1000);
	assert_memory_equal(to, bytes, 1000);
	assert_null(q.c->rcv.data);
	assert_int_equal(tp_land(q.c, to, sizeof to, sizeof to), 0);
	piece(1, 1000, 1400); /* more than it takes */
	assert_int_equal(tp_land_end(q.c), 1000);
	assert_memory_equal(to, bytes + 1000, 1000);
	expect_read(2000, 400);
	assert_null(q.c->rcv.data);
}

/* As if they were lost. */
static void packets_that_find_no_ring_come_again(void **state)
{
	struct tp_ring ring[64];
	unsigned n = 0;

	piece(0, 0, 1000);
	expect_read(0, 1000);
	puppet_flush(&p);
	while (tp_pool_ring(p.tp, &ring[n]))
		assert_true(++n < 64);
	piece(1, 1000, 1000);
	piece(2, 2000, 1000);
	assert_int_equal(tp_stats(p.tp)->pool_empty, 2);
	assert_int_equal(tp_readable(q.c), 0);
	assert_false(puppet_output(&p));
	while (n)
		tp_pool_ring_put(p.tp, &ring[--n]);
	piece(2, 2000, 1000);
	piece(1, 1000, 1000);
	expect_read(1000, 2000);
}

/* Without memory there is nothing to promise with: the next call that may ask for it does. */
static void a_refill_brings_rings(void **state)
{
	struct tp_ring ring[64];
	unsigned n = 0;

	piece(0, 0, 1000);
	expect_read(0, 1000);
	while (tp_pool_ring(p.tp, &ring[n]))
		assert_true(++n < 64);
	tp_refill(p.tp);
	piece(1, 1000, 1000);
	expect_read(1000, 1000);
	while (n)
		tp_pool_ring_put(p.tp, &ring[--n]);
}

static void exchange(struct peer *o, unsigned round)
{
	uint8_t buf[100];

	peer_data(&p, o, o->isn + round, 100 * round, bytes, 100, 0);
	assert_int_equal(tp_read(o->c, buf, sizeof buf), 100);
	assert_memory_equal(buf, bytes, 100);
	assert_int_equal(tp_write(o->c, buf, sizeof buf), 100);
	assert_true(puppet_output(&p));
	peer_ack(&p, o, o->their_isn + round + 1, NULL, 0, 0);
	assert_null(o->c->snd.data);
	assert_null(o->c->rcv.data);
}

static struct peer other[MANY];

static void connect_others(void)
{
	for (unsigned i = 0; i < MANY; i++) {
		tp_refill(p.tp);
		assert_true(peer_connect(&p, &other[i], 2 + i));
	}
	puppet_flush(&p);
}

/* When there are some for packets, and a few more. */
static void many_use_the_same(void **state)
{
	size_t blocks = 0;

	connect_others();
	for (unsigned round = 0; round < 10; round++) {
		for (unsigned i = 0; i < MANY; i++)
			exchange(&other[i], round);
		if (round == 5)
			blocks = p.blocks;
	}
	assert_int_equal(p.blocks, blocks);
	assert_true(p.tp->pool.ring_count <= 66);
}

/* What arrives cannot ask for memory. */
static void who_sends_leaves_some_to_packets(void **state)
{
	size_t blocks;

	connect_others();
	piece(0, 0, 1000);
	expect_read(0, 1000);
	tp_refill(p.tp);
	blocks = p.blocks;
	for (unsigned i = 0; i < MANY; i++)
		assert_int_equal(tp_write(other[i].c, bytes, 100), 100);
	assert_int_equal(p.blocks, blocks + MANY);
	puppet_flush(&p);
	p.no_memory = true; /* then it takes what there is */
	assert_int_equal(tp_write(q.c, bytes, 100), 100);
	p.no_memory = false;
}

static void what_nobody_needs_any_more_goes(void **state)
{
	unsigned most, rests;

	connect_others();
	for (unsigned round = 0; round < 6; round++) {
		for (unsigned i = 0; i < MANY; i++)
			exchange(&other[i], round);
	}
	most = p.tp->pool.ring_count;
	rests = p.rests;
	for (unsigned i = 0; i < 120; i++) {
		puppet_wait(&p, 100 * SD_MS);
		for (unsigned k = 0; k < MANY; k++) /* they live */
			peer_ack(&p, &other[k], other[k].their_isn + 6, NULL, 0, 0);
		peer_ack(&p, &q, q.their_isn, NULL, 0, 0);
		tp_refill(p.tp);
		puppet_flush(&p);
	}
	assert_true(p.tp->pool.ring_count < most);
	assert_in_range(p.tp->pool.ring_count, MANY, 2 * MANY);
	assert_true(p.rests - rests >= most - p.tp->pool.ring_count);
}

/* What has grown is the connection's, as its size is what the peer has been told. */
static void larger_ones_are_kept(void **state)
{
	size_t most = q.c->rcv.size;

	assert_int_equal(tp_write(q.c, bytes, sizeof bytes), sizeof bytes);
	assert_true(q.c->snd.size > most);
	while (q.c->snd_acked != q.c->snd_end) {
		assert_true(puppet_flush(&p));
		acknowledge((uint32_t)(q.c->snd_nxt - q.their_isn));
	}
	assert_non_null(q.c->snd.data);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(a_ring_for_what_is_unacknowledged),
		CASE(a_ring_for_what_is_unread),
		CASE(a_ring_for_what_is_behind_a_gap),
		CASE(none_for_a_fin),
		CASE(none_for_what_nobody_will_read),
		CASE(none_once_a_landing_has_it_all),
		CASE(packets_that_find_no_ring_come_again),
		CASE(a_refill_brings_rings),
		CASE(many_use_the_same),
		CASE(who_sends_leaves_some_to_packets),
		CASE(what_nobody_needs_any_more_goes),
		CASE(larger_ones_are_kept),
	};

	return cmocka_run_group_tests_name("crowd", tests, NULL, NULL);
}
