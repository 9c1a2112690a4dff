/* SPDX-License-Identifier: BSD-3-Clause */
/* When a connection goes another way: congestion that stays, and silence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "puppet.h"

#define RTT (100 * SD_US)

static struct puppet p;
static struct peer q;
static uint32_t sent;
static uint16_t marks;
static bool astray;   /* as the peer finds our packets */
static bool wordless; /* it says nothing of that, nor of its window */

static int open_conn(void **state)
{
	puppet_init(&p);
	puppet_open(&p, &q);
	sent = marks = 0;
	astray = wordless = false;
	return 0;
}

static int stop(void **state)
{
	assert_true(puppet_stop(&p));
	return 0;
}

/* Now, or later: the window may be below a packet. */
static bool next_packet(void)
{
	return puppet_output(&p) || (puppet_wait_output(&p, SD_S) && puppet_output(&p));
}

static void send(unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(tp_write(q.c, "x", 1), 1);
		assert_true(next_packet());
		sent++;
	}
}

/* All that has been sent has arrived, so many of it marked. */
static void acknowledge(uint32_t received, uint16_t marked)
{
	struct wire_packet w = {.psn = q.psn, .ack = q.their_isn + received, .ts = 1};
	uint8_t buf[256];
	size_t ext;

	marks = (uint16_t)(marks + marked);
	w.ce_count = marks;
	p.now += RTT;
	w.echo = tp_timestamp(p.now - RTT);
	ext = wordless ? 0 : tp_wire_put_ack(buf + WIRE_BASE_LEN, q.window, 0);
	if (!wordless)
		tp_wire_put_queue(buf + WIRE_BASE_LEN, 0, astray);
	tp_wire_put_base(buf, WIRE_ACK, 0, WIRE_OP_NONE, ext, &w, q.their_cid);
	puppet_input(&p, buf, tp_wire_seal(buf, WIRE_BASE_LEN + ext));
}

static void round_trip(uint16_t marked)
{
	send(1);
	acknowledge(sent, marked);
}

static void congestion_that_stays_is_left(void **state)
{
	for (unsigned i = 0; i < 3; i++)
		round_trip(1);
	assert_int_equal(p.repaths, 0); /* nothing is in flight: the next one decides */
	round_trip(1);
	assert_int_equal(p.repaths, 1);
	assert_int_equal(tp_stats(p.tp)->repaths, 1);
	assert_int_equal(q.c->bad_rounds, 1); /* they count anew */
}

static void marks_are_counted_beyond_the_wrap(void **state)
{
	marks = q.c->peer_ce = UINT16_MAX - 1;
	for (unsigned i = 0; i < 4; i++)
		round_trip(1);
	assert_int_equal(q.c->peer_ce, 2);
	assert_int_equal(p.repaths, 1);
}

static void congestion_that_goes_is_borne(void **state)
{
	for (unsigned i = 0; i < 40; i++)
		round_trip(i % 3 != 2);
	assert_int_equal(p.repaths, 0);
}

/* While something is always in flight it takes longer: to go elsewhere reorders. */
static void a_busy_connection_waits_longer(void **state)
{
	unsigned rounds = 0;

	send(1);
	for (unsigned i = 0; i < 40 && !p.repaths; i++) {
		q.c->cwnd = 8;
		send(1);
		acknowledge(sent - 1, 1); /* a round trip is two of these */
		rounds += i % 2;
	}
	assert_int_equal(p.repaths, 1);
	assert_in_range(rounds, 11, 12);
}

/* What is measured of the path begins anew. */
static void another_path_is_measured_anew(void **state)
{
	struct tp_info info;

	for (unsigned i = 0; i < 4; i++)
		round_trip(1);
	tp_info(q.c, &info);
	assert_in_range(info.min_rtt_ns, RTT, 2 * RTT);
	send(1);
	p.now += 3 * RTT;
	acknowledge(sent, 1); /* slower than the old path ever was */
	send(1);
	assert_int_equal(p.repaths, 1);
}

/* One port in each round trip, until the peer has the packets where it wants them. */
static void another_queue_is_looked_for(void **state)
{
	astray = true;
	for (unsigned i = 1; i < 4; i++) {
		round_trip(0);
		assert_int_equal(p.repaths, i);
	}
	astray = false;
	for (unsigned i = 0; i < 4; i++)
		round_trip(0);
	assert_int_equal(p.repaths, 3);
}

/* What was said of the port before is not held against the next one. */
static void a_word_counts_once(void **state)
{
	astray = true;
	round_trip(0);
	assert_int_equal(p.repaths, 1);
	wordless = true;
	for (unsigned i = 0; i < 4; i++)
		round_trip(0);
	assert_int_equal(p.repaths, 1);
}

static void but_not_for_ever(void **state)
{
	astray = true;
	for (unsigned i = 0; i < 100; i++)
		round_trip(0);
	assert_int_equal(p.repaths, 32);
}

/* Each time that it has been found, and was lost again for other reasons. */
static void tries_are_counted_from_the_last_success(void **state)
{
	unsigned before;

	for (unsigned i = 0; i < 4; i++) {
		astray = true;
		for (unsigned k = 0; k < 30; k++)
			round_trip(0);
		assert_int_equal(p.repaths, (i + 1) * 30);
		astray = false;
		for (unsigned k = 0; k < 9; k++)
			round_trip(0);
	}
	/* Nor does silence. */
	before = p.repaths;
	for (unsigned i = 0; i < 40; i++) {
		wordless = i % 20;
		astray = true;
		round_trip(0);
	}
	wordless = false;
	assert_int_equal(p.repaths, before + 2);
	astray = false;
	for (unsigned k = 0; k < 9; k++)
		round_trip(0);
	/* By chance does not count. */
	before = p.repaths;
	for (unsigned i = 0; i < 100; i++) {
		astray = i % 4 == 3;
		round_trip(0);
	}
	assert_int_equal(p.repaths, before + 25);
	for (unsigned i = 0; i < 100; i++) {
		astray = i % 4 == 3;
		round_trip(0);
	}
	assert_int_equal(p.repaths, before + 32);
}

/* What comes astray is said, in ACKs and with windows. */
static void and_asked_for(void **state)
{
	for (unsigned i = 0; i < 4; i++) {
		p.astray = i % 2;
		peer_data(&p, &q, q.psn + i, i, "x", 1, WIRE_F_ACKREQ);
		assert_true(puppet_output(&p));
		assert_true(p.w.has_window && p.w.astray == p.astray);
	}
}

static void silence_is_left(void **state)
{
	send(2);
	assert_true(next_packet());
	assert_int_equal(tp_stats(p.tp)->tail_probes, 1);
	assert_int_equal(p.repaths, 0);
	for (unsigned i = 1; i < 4; i++) {
		assert_true(next_packet());
		assert_int_equal(p.repaths, i);
	}
	p.now += RTT;
	acknowledge(sent, 0);
	assert_int_equal(tp_error(q.c), 0);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, open_conn, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(congestion_that_stays_is_left),
		CASE(marks_are_counted_beyond_the_wrap),
		CASE(congestion_that_goes_is_borne),
		CASE(a_busy_connection_waits_longer),
		CASE(another_path_is_measured_anew),
		CASE(another_queue_is_looked_for),
		CASE(a_word_counts_once),
		CASE(but_not_for_ever),
		CASE(tries_are_counted_from_the_last_success),
		CASE(and_asked_for),
		CASE(silence_is_left),
	};

	return cmocka_run_group_tests_name("transport_repath", tests, NULL, NULL);
}
