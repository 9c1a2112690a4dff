/* SPDX-License-Identifier: BSD-3-Clause */
/* Packets that come and go in pieces (docs/protocol.md, 3.3 and 7.8), one by one. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "puppet.h"

#define JUMBO 8972

static struct puppet p;
static struct peer q;
static uint8_t bytes[16384];

static int start(void **state)
{
	puppet_init(&p);
	p.max_payload = JUMBO;
	puppet_open(&p, &q);
	puppet_pattern(bytes, sizeof bytes);
	return 0;
}

static int stop(void **state)
{
	assert_true(puppet_stop(&p));
	return 0;
}

/* --- receiving --- */

/* [from, to) of the first packet. */
static void piece(size_t from, size_t to, bool more)
{
	peer_piece(&p, &q, q.isn, from, more, from, bytes + from, to - from, WIRE_F_ACKREQ);
}

/* Acknowledged at once, with so many packets, and bytes of the next one. */
static void expect_ack(unsigned packets, size_t of_next)
{
	assert_true(puppet_output(&p));
	assert_int_equal(p.w.type, WIRE_ACK);
	assert_int_equal(p.w.ack, q.isn + packets);
	assert_int_equal(p.w.piece, of_next != 0);
	if (of_next)
		assert_int_equal(p.w.piece_off, of_next);
	assert_false(puppet_output(&p));
}

static void expect_read(size_t len)
{
	static uint8_t buf[sizeof bytes];

	assert_int_equal(tp_read(q.c, buf, sizeof buf), len);
	assert_memory_equal(buf, bytes, len);
}

static void expect_violation(void)
{
	assert_int_equal(tp_error(q.c), -ECONNRESET);
	assert_true(puppet_flush(&p) > 0);
}

static void pieces_are_taken_in_their_order(void **state)
{
	piece(400, 800, true); /* too early */
	expect_ack(0, 0);
	piece(0, 400, true);
	expect_ack(0, 400);
	piece(0, 400, true); /* again */
	expect_ack(0, 400);
	piece(300, 700, true); /* cut anew */
	expect_ack(0, 700);
	piece(900, 1000, false);
	expect_ack(0, 700);
	piece(650, 1000, false);
	expect_ack(1, 0);
	piece(650, 1000, false); /* a duplicate */
	expect_ack(1, 0);
	expect_read(1000);
}

static void the_whole_packet_comes_after_all(void **state)
{
	piece(0, 400, true);
	expect_ack(0, 400);
	peer_data(&p, &q, q.isn, 0, bytes, 1000, WIRE_F_ACKREQ);
	expect_ack(1, 0);
	peer_data(&p, &q, q.isn + 1, 1000, bytes + 1000, 500, WIRE_F_ACKREQ | WIRE_F_FIN);
	expect_ack(2, 0);
	expect_read(1500);
	assert_true(tp_at_eof(q.c));
}

static void later_packets_wait_for_its_end(void **state)
{
	piece(0, 400, true);
	expect_ack(0, 400);
	peer_data(&p, &q, q.isn + 1, 1000, bytes + 1000, 500, 0);
	expect_ack(0, 400);
	peer_piece(&p, &q, q.isn + 2, 0, true, 1500, bytes + 1500, 500, 0); /* not its turn */
	assert_int_equal(tp_readable(q.c), 400);
	piece(400, 1000, false);
	puppet_flush(&p);
	assert_int_equal(p.w.ack, q.isn + 2);
	assert_false(p.w.piece);
	expect_read(1500);
}

static void pieces_land(void **state)
{
	static uint8_t memory[900];

	assert_int_equal(tp_land(q.c, memory, sizeof memory, sizeof memory), 0);
	piece(0, 400, true);
	piece(200, 800, true);
	piece(700, 1000, false);
	assert_int_equal(tp_land_end(q.c), sizeof memory);
	assert_memory_equal(memory, bytes, sizeof memory);
	assert_int_equal(tp_readable(q.c), 100);
}

static void a_packet_ends_after_its_pieces(void **state)
{
	piece(0, 400, true);
	piece(0, 400, false);
	expect_violation();
}

static void a_whole_packet_is_no_shorter_than_its_pieces(void **state)
{
	piece(0, 400, true);
	peer_data(&p, &q, q.isn, 0, bytes, 300, 0);
	expect_violation();
}

static void a_piece_is_where_the_packet_is(void **state)
{
	piece(0, 400, true);
	peer_piece(&p, &q, q.isn, 400, true, 401, bytes + 401, 100, 0);
	expect_violation();
}

/* --- sending --- */

static void put(size_t len)
{
	q.c->cwnd = 64;
	assert_int_equal(tp_write(q.c, bytes, len), len);
	assert_true(puppet_output(&p));
}

/* Three small ones follow and arrive, and all before them but the acknowledged ones are lost. */
static void lose(unsigned sent)
{
	uint64_t sack = 7ull << (sent - 1);

	for (unsigned i = 0; i < 3; i++)
		put(10);
	puppet_wait(&p, 200 * SD_US);
	peer_ack(&p, &q, q.their_isn, &sack, 1, 0);
	q.c->cwnd = 64;
}

/* A packet that is not the oldest turns out to be too large for the path. */
static void the_oldest_goes_first(void **state)
{
	uint32_t first = q.their_isn, large = first + 1;
	struct tp_sent *s;

	q.c->mss = JUMBO - WIRE_BASE_LEN - WIRE_STREAM_LEN - WIRE_CRC_LEN;
	put(100);
	put(8000);
	assert_int_equal(p.w.payload_len, 8000);
	s = &q.c->sent[large & q.c->sent_mask];
	lose(2);
	assert_int_equal(puppet_flush(&p), 2);
	s->sends = 5;
	puppet_wait(&p, 100 * SD_US);
	lose(5);
	assert_true(puppet_output(&p));
	assert_int_equal(p.w.psn, first);
	assert_true(puppet_output(&p));
	assert_int_equal(tp_stats(p.tp)->black_holes, 1);
	assert_int_equal(p.w.psn, first);
	assert_int_equal(p.w.payload_len, 100);
	assert_false(p.w.piece);
	assert_false(puppet_output(&p));
	peer_ack(&p, &q, large, NULL, 0, 0);
	assert_true(puppet_output(&p));
	assert_int_equal(p.w.psn, large);
	assert_true(p.w.piece && p.w.more);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(pieces_are_taken_in_their_order),
		CASE(the_whole_packet_comes_after_all),
		CASE(later_packets_wait_for_its_end),
		CASE(pieces_land),
		CASE(a_packet_ends_after_its_pieces),
		CASE(a_whole_packet_is_no_shorter_than_its_pieces),
		CASE(a_piece_is_where_the_packet_is),
		CASE(the_oldest_goes_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
