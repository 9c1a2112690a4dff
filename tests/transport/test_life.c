/* SPDX-License-Identifier: BSD-3-Clause */
/* How connections live in silence and how they end, packet by packet. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "puppet.h"

static struct puppet p;
static struct peer q;

static int open_conn(void **state)
{
	puppet_init(&p);
	puppet_open(&p, &q);
	return 0;
}

static int stop(void **state)
{
	assert_true(puppet_stop(&p));
	return 0;
}

static void answer(void)
{
	peer_ack(&p, &q, q.ack, NULL, 0, 0);
}

/* The next packet, which has to be of type; flags that it must have. */
static void expect(enum wire_type type, unsigned flags)
{
	assert_true(puppet_output(&p));
	assert_int_equal(tp_wire_type(p.out), type);
	assert_int_equal(p.w.flags & flags, flags);
	if (type == WIRE_DATA)
		q.ack = p.w.psn + 1;
}

static void expect_reset(enum wire_reset why)
{
	struct wire_reset_packet r;

	expect(WIRE_RESET, 0);
	assert_true(tp_wire_get_reset(p.out, p.out_len, &r));
	assert_int_equal(r.reason, why);
	assert_int_equal(r.src_cid, q.their_cid);
}

static void expect_gone(void)
{
	assert_int_equal(p.tp->conn_count, 0);
	assert_int_equal(tp_lingering(p.tp), 0);
}

/* --- silence --- */

static void an_answered_keepalive(void **state)
{
	for (int i = 0; i < 10; i++) {
		uint64_t begin = p.now;

		assert_true(puppet_wait_output(&p, 10 * SD_S));
		assert_in_range(p.now - begin, 2 * SD_S - SD_MS, 2250 * SD_MS + SD_MS);
		expect(WIRE_ACK, WIRE_F_ACKREQ);
		answer();
	}
	assert_int_equal(tp_error(q.c), 0);
}

static void an_unanswered_keepalive(void **state)
{
	uint64_t begin = p.now;

	for (int i = 0; i < 5; i++) {
		assert_true(puppet_wait_output(&p, 3 * SD_S));
		expect(WIRE_ACK, WIRE_F_ACKREQ);
	}
	assert_int_equal(p.events, 0);
	assert_true(puppet_wait_output(&p, 3 * SD_S));
	assert_in_range(p.now - begin, 7 * SD_S, 7260 * SD_MS); /* idle, then the dead timeout */
	assert_int_equal(p.events, TP_EV_FAILED);
	assert_int_equal(tp_error(q.c), -ETIMEDOUT);
	expect_reset(WIRE_RESET_TIMEOUT);
}

static void keepalive_as_set(void **state)
{
	uint64_t begin = p.now;

	tp_set_keepalive(q.c, p.now, 100 * SD_MS, 10 * SD_MS, 2);
	puppet_wait(&p, 99 * SD_MS);
	assert_false(puppet_output(&p));
	puppet_wait(&p, 36 * SD_MS);
	assert_int_equal(tp_error(q.c), -ETIMEDOUT);
	assert_true(p.now - begin < 140 * SD_MS);
}

/* Whoever sleeps is woken once for all that are silent, but not for more at once than a queue holds. */
static void silent_ones_are_asked_together(void **state)
{
	static struct peer many[600];
	unsigned asked = 0, times = 0, n, most = 0;

	for (unsigned i = 0; i < 600; i++) {
		assert_true(peer_connect(&p, &many[i], 2 + i));
		puppet_wait(&p, SD_MS);
	}
	puppet_flush(&p);
	while (asked < 601) {
		assert_true(puppet_wait_output(&p, 3 * SD_S));
		n = puppet_flush(&p);
		most = n > most ? n : most;
		asked += n;
		times++;
	}
	assert_in_range(times, 4, 16);
	assert_in_range(most, 100, 128);
}

static void keepalive_off(void **state)
{
	tp_set_keepalive(q.c, p.now, 0, 0, 0);
	assert_false(puppet_wait_output(&p, 1000 * SD_S));
	assert_int_equal(tp_error(q.c), 0);
}

/* The peer has nothing more to say, so nobody waits for it. */
static void no_keepalive_after_the_peers_end(void **state)
{
	peer_send(&p, &q, NULL, 0, WIRE_F_FIN);
	expect(WIRE_ACK, 0);
	assert_false(puppet_wait_output(&p, 1000 * SD_S));
	assert_int_equal(tp_error(q.c), 0);
}

static void unacknowledged_bytes(void **state)
{
	uint64_t begin = p.now;

	tp_write(q.c, "hello", 5);
	puppet_flush(&p);
	puppet_wait(&p, 4990 * SD_MS);
	assert_int_equal(tp_error(q.c), 0);
	puppet_flush(&p);
	puppet_wait(&p, 20 * SD_MS);
	assert_in_range(p.now - begin, 5 * SD_S, 5011 * SD_MS);
	assert_int_equal(tp_error(q.c), -ETIMEDOUT);
	assert_int_equal(p.events, TP_EV_FAILED);
	expect_reset(WIRE_RESET_TIMEOUT);
	assert_int_equal(tp_unacked(q.c), 0); /* nothing will come of them */
}

static void user_timeout(void **state)
{
	tp_set_user_timeout(q.c, 300 * SD_MS);
	tp_write(q.c, "hello", 5);
	puppet_flush(&p);
	puppet_wait(&p, 290 * SD_MS);
	assert_int_equal(tp_error(q.c), 0);
	puppet_wait(&p, 20 * SD_MS);
	assert_int_equal(tp_error(q.c), -ETIMEDOUT);
}

/* A host that was suspended asks at least three times before it takes its peer for dead. */
static void time_that_jumps(void **state)
{
	tp_write(q.c, "hello", 5);
	puppet_flush(&p);
	p.now += 1000 * SD_S;
	tp_timeout(p.tp, p.now);
	assert_int_equal(tp_error(q.c), 0);
	expect(WIRE_DATA, WIRE_F_ACKREQ);
	answer();
	assert_int_equal(tp_unacked(q.c), 0);
	assert_false(puppet_wait_output(&p, SD_S));
}

/* --- ends --- */

static void both_sides_end(void **state)
{
	tp_write(q.c, "bye", 3);
	tp_shutdown(q.c);
	expect(WIRE_DATA, WIRE_F_FIN);
	answer();
	assert_int_equal(p.events, TP_EV_DRAINED);
	peer_send(&p, &q, "bye", 3, WIRE_F_FIN);
	assert_true(p.events & TP_EV_READABLE);
	assert_true(tp_peer_fin(q.c));
	assert_false(tp_at_eof(q.c));
	expect(WIRE_ACK, 0);
	{
		char buf[10];

		assert_int_equal(tp_read(q.c, buf, sizeof buf), 3);
	}
	assert_true(tp_at_eof(q.c));
	tp_close(q.c, p.now, false);
	expect_gone();
	assert_false(puppet_output(&p));
}

static void closing_delivers_in_the_background(void **state)
{
	tp_write(q.c, "bye", 3);
	tp_close(q.c, p.now, false);
	assert_int_equal(tp_lingering(p.tp), 1);
	expect(WIRE_DATA, WIRE_F_FIN | WIRE_F_BYE);
	assert_true(puppet_wait_output(&p, SD_S)); /* lost: again */
	expect(WIRE_DATA, WIRE_F_FIN | WIRE_F_BYE | WIRE_F_RETX);
	answer();
	assert_int_equal(tp_lingering(p.tp), 0);
	assert_int_equal(p.tp->conn_count, 1); /* the peer may take its time */
	peer_send(&p, &q, NULL, 0, WIRE_F_FIN);
	expect(WIRE_ACK, WIRE_F_BYE);
	expect_gone();
}

static void a_forgotten_connection_is_remembered(void **state)
{
	closing_delivers_in_the_background(state);
	peer_data(&p, &q, q.psn - 1, 0, NULL, 0, WIRE_F_FIN); /* our ACK was lost */
	expect_reset(WIRE_RESET_FINISHED);
	peer_ack(&p, &q, q.ack, NULL, 0, 0);
	assert_false(puppet_output(&p)); /* asks for nothing */
}

static void finished_says_the_peer(void **state)
{
	peer_send(&p, &q, NULL, 0, WIRE_F_FIN);
	expect(WIRE_ACK, 0);
	tp_write(q.c, "bye", 3);
	tp_shutdown(q.c);
	expect(WIRE_DATA, WIRE_F_FIN);
	peer_reset(&p, &q, WIRE_RESET_FINISHED, q.token); /* all has arrived, only its ACK has not */
	assert_int_equal(tp_error(q.c), 0);
	assert_int_equal(tp_unacked(q.c), 0);
	assert_true(p.events & TP_EV_DRAINED);
	assert_true(tp_at_eof(q.c));
	assert_false(puppet_wait_output(&p, 100 * SD_S));
	tp_close(q.c, p.now, false);
	expect_gone();
}

/* Any other RESET while our bytes are in doubt is an error. */
static void unknown_says_the_peer(void **state)
{
	peer_send(&p, &q, NULL, 0, WIRE_F_FIN);
	expect(WIRE_ACK, 0);
	tp_write(q.c, "bye", 3);
	tp_shutdown(q.c);
	expect(WIRE_DATA, WIRE_F_FIN);
	peer_reset(&p, &q, WIRE_RESET_UNKNOWN, q.token);
	assert_int_equal(tp_error(q.c), -ECONNRESET);
}

static void unread_bytes_make_an_abort(void **state)
{
	peer_send(&p, &q, "hello", 5, 0);
	tp_close(q.c, p.now, false);
	expect_reset(WIRE_RESET_ABORT);
	expect_gone();
}

static void bytes_for_nobody(void **state)
{
	tp_close(q.c, p.now, false);
	expect(WIRE_DATA, WIRE_F_FIN | WIRE_F_BYE);
	peer_send(&p, &q, "hello", 5, 0);
	expect_reset(WIRE_RESET_CLOSED);
	expect_gone();
}

static void half_close_then_close(void **state)
{
	tp_shutdown(q.c);
	expect(WIRE_DATA, WIRE_F_FIN);
	answer();
	tp_close(q.c, p.now, false);
	expect(WIRE_ACK, WIRE_F_BYE); /* the FIN had no BYE */
	peer_send(&p, &q, NULL, 0, WIRE_F_FIN);
	expect(WIRE_ACK, WIRE_F_BYE);
	expect_gone();
}

static void reading_stopped(void **state)
{
	tp_stop_reading(q.c, false);
	peer_send(&p, &q, "hello", 5, WIRE_F_ACKREQ);
	expect(WIRE_ACK, 0);
	assert_int_equal(p.w.ack, q.psn);
	assert_int_equal(tp_readable(q.c), 0);
	tp_stop_reading(q.c, true);
	peer_send(&p, &q, "hello", 5, 0);
	expect_reset(WIRE_RESET_CLOSED);
	assert_int_equal(tp_error(q.c), -ECONNRESET);
}

/* The window keeps opening for a peer whose bytes nobody reads. */
static void reading_stopped_for_long(void **state)
{
	static char data[1024];
	uint64_t most = 10 * q.c->rcv.size, sent = 0;

	q.window = 1 << 20;
	tp_stop_reading(q.c, false);
	while (sent < most) {
		peer_send(&p, &q, data, sizeof data, WIRE_F_ACKREQ);
		sent += sizeof data;
		puppet_flush(&p);
		assert_int_equal(tp_error(q.c), 0);
	}
	assert_true(p.w.window > sent);
}

static void the_peer_never_ends(void **state)
{
	tp_close(q.c, p.now, false);
	expect(WIRE_DATA, WIRE_F_FIN | WIRE_F_BYE);
	answer();
	assert_int_equal(p.tp->conn_count, 1);
	puppet_wait(&p, 4900 * SD_MS);
	assert_int_equal(p.tp->conn_count, 1);
	puppet_wait(&p, 200 * SD_MS);
	expect_gone();
}

static void simultaneous_close(void **state)
{
	tp_close(q.c, p.now, false);
	expect(WIRE_DATA, WIRE_F_FIN | WIRE_F_BYE);
	q.ack--; /* theirs left before ours came */
	peer_send(&p, &q, NULL, 0, WIRE_F_FIN | WIRE_F_BYE);
	expect(WIRE_ACK, WIRE_F_BYE);
	expect_gone(); /* the peer reads nothing more either way */
}

static void closing_before_it_is_open(void **state)
{
	struct tp_path path = {.local = p.local, .peer = p.peer, .max_payload = 1472};
	struct tp_conn *c;

	tp_close(q.c, p.now, true);
	puppet_flush(&p);
	assert_int_equal(tp_connect(p.tp, p.now, &path, NULL, &c), 0);
	tp_close(c, p.now, false); /* nothing was written: nothing is left to do */
	expect_gone();
	assert_int_equal(tp_connect(p.tp, p.now, &path, NULL, &c), 0);
	tp_write(c, "hello", 5);
	tp_close(c, p.now, false);
	assert_int_equal(tp_lingering(p.tp), 1);
	expect(WIRE_INIT, 0);
	puppet_wait(&p, 300 * SD_MS);
	expect_gone();
}

static void written_then_closed_then_opened(void **state)
{
	struct tp_path path = {.local = p.local, .peer = p.peer, .max_payload = 1472};
	struct wire_init i = {.src_cid = 99, .max_payload = 1472, .window_packets = 64, .window = 65536};
	uint8_t buf[WIRE_CONTROL_MAX];
	struct tp_conn *c;
	struct peer r = {.cid = 99};

	assert_int_equal(tp_connect(p.tp, p.now, &path, NULL, &c), 0);
	tp_write(c, "hello", 5);
	tp_close(c, p.now, false);
	expect(WIRE_INIT, 0);
	peer_learn(&p, &r);
	i.dst_cid = r.their_cid;
	i.nonce = r.nonce;
	puppet_input(&p, buf, tp_wire_put_init(buf, WIRE_INIT_ACK, &i));
	expect(WIRE_DATA, WIRE_F_FIN | WIRE_F_BYE);
	assert_int_equal(p.w.payload_len, 5);
	assert_memory_equal(p.w.payload, "hello", 5);
}

static void a_failed_connection_keeps_what_it_received(void **state)
{
	char buf[10];

	peer_send(&p, &q, "hello", 5, 0);
	peer_reset(&p, &q, WIRE_RESET_ABORT, q.token);
	assert_true(p.events & TP_EV_FAILED);
	assert_int_equal(tp_read(q.c, buf, sizeof buf), 5);
	assert_int_equal(tp_read(q.c, buf, sizeof buf), -ECONNRESET);
	assert_int_equal(tp_peek(q.c, buf, sizeof buf, 0), -ECONNRESET);
	assert_int_equal(tp_write(q.c, "x", 1), -ECONNRESET);
	assert_false(puppet_output(&p));
	tp_close(q.c, p.now, false);
}

/* Its application may not know yet, or not care. */
static void a_failed_connection_sends_nothing(void **state)
{
	tp_write(q.c, "hello", 5);
	puppet_flush(&p);
	puppet_wait(&p, 6 * SD_S);
	assert_int_equal(tp_error(q.c), -ETIMEDOUT);
	expect_reset(WIRE_RESET_TIMEOUT);
	tp_set_cork(q.c, p.now, true);
	tp_set_cork(q.c, p.now, false);
	tp_set_nagle(q.c, false);
	tp_stop_reading(q.c, true);
	tp_set_keepalive(q.c, p.now, SD_MS, SD_MS, 1);
	tp_shutdown(q.c);
	tp_grow(q.c);
	assert_false(puppet_wait_output(&p, 10 * SD_S));
	assert_false(puppet_output(&p));
	tp_close(q.c, p.now, false);
}

static void destroyed_with_everything_in_it(void **state)
{
	struct peer r;

	assert_true(peer_connect(&p, &r, 2));
	tp_write(r.c, "hello", 5);
	peer_send(&p, &q, "x", 1, 0);
	peer_data(&p, &q, q.psn + 3, 10, "x", 1, 0);
	peer_reset(&p, &q, WIRE_RESET_ABORT, q.token); /* failed, and not closed by its application */
	assert_int_equal(tp_error(q.c), -ECONNRESET);
} /* stop() counts the memory */

#define CASE(f) cmocka_unit_test_setup_teardown(f, open_conn, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(an_answered_keepalive),
		CASE(an_unanswered_keepalive),
		CASE(keepalive_as_set),
		CASE(silent_ones_are_asked_together),
		CASE(keepalive_off),
		CASE(no_keepalive_after_the_peers_end),
		CASE(unacknowledged_bytes),
		CASE(user_timeout),
		CASE(time_that_jumps),
		CASE(both_sides_end),
		CASE(closing_delivers_in_the_background),
		CASE(a_forgotten_connection_is_remembered),
		CASE(finished_says_the_peer),
		CASE(unknown_says_the_peer),
		CASE(unread_bytes_make_an_abort),
		CASE(bytes_for_nobody),
		CASE(half_close_then_close),
		CASE(reading_stopped),
		CASE(reading_stopped_for_long),
		CASE(the_peer_never_ends),
		CASE(simultaneous_close),
		CASE(closing_before_it_is_open),
		CASE(written_then_closed_then_opened),
		CASE(a_failed_connection_keeps_what_it_received),
		CASE(a_failed_connection_sends_nothing),
		CASE(destroyed_with_everything_in_it),
	};

	return cmocka_run_group_tests_name("transport_life", tests, NULL, NULL);
}
