/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What hostile peers and strangers send: acknowledgements of what was not sent, bytes where none may be,
 * numbers that go back, floods. A stranger gets nothing and moves nothing; a peer that breaks the protocol
 * loses its own connection and nothing else.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "puppet.h"

static struct puppet p;
static struct peer q, bystander;

static int open_conns(void **state)
{
	puppet_init(&p);
	puppet_start(&p);
	puppet_listen(&p, 8);
	assert_true(peer_connect(&p, &bystander, 1));
	assert_true(peer_connect(&p, &q, 2));
	puppet_flush(&p);
	p.events = 0;
	return 0;
}

/* Whatever has happened, the other connection has noticed nothing. */
static int stop(void **state)
{
	char buf[8];

	peer_send(&p, &bystander, "fine", 4, WIRE_F_ACKREQ);
	assert_int_equal(tp_read(bystander.c, buf, sizeof buf), 4);
	assert_memory_equal(buf, "fine", 4);
	assert_int_equal(tp_write(bystander.c, "fine", 4), 4);
	assert_true(puppet_flush(&p) > 0);
	assert_true(puppet_stop(&p));
	return 0;
}

static void expect_violation(void)
{
	struct wire_reset_packet r;

	assert_int_equal(tp_error(q.c), -ECONNRESET);
	assert_int_equal(p.events & TP_EV_FAILED, TP_EV_FAILED);
	assert_true(puppet_flush(&p) > 0);
	assert_true(tp_wire_get_reset(p.out, p.out_len, &r));
	assert_int_equal(r.reason, WIRE_RESET_PROTOCOL);
}

static void expect_ignored(void)
{
	assert_int_equal(tp_error(q.c), 0);
	assert_int_equal(p.events, 0);
	assert_true(tp_stats(p.tp)->rx_out_of_window > 0);
}

static void in_flight(unsigned n)
{
	q.c->cwnd = n;
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(tp_write(q.c, "x", 1), 1);
		assert_true(puppet_output(&p));
	}
	p.events = 0;
}

static void ack_of_unsent(void **state)
{
	in_flight(3);
	peer_ack(&p, &q, q.their_isn + 4, NULL, 0, 0);
	peer_ack(&p, &q, q.their_isn + 1000, NULL, 0, 0);
	peer_ack(&p, &q, q.their_isn + 0x7fffffff, NULL, 0, 0);
	expect_ignored();
	assert_int_equal(tp_unacked(q.c), 3);
}

static void sack_of_unsent(void **state)
{
	static const uint64_t words[WIRE_SACK_WORDS] = {[WIRE_SACK_WORDS - 1] = 1ull << 63};

	in_flight(3);
	peer_ack(&p, &q, q.their_isn, &(uint64_t){1 << 2}, 1,
		0); /* three bits: packets 1, 2 and one too many */
	peer_ack(&p, &q, q.their_isn, &(uint64_t){UINT64_MAX}, 1, 0);
	peer_ack(&p, &q, q.their_isn, words, WIRE_SACK_WORDS, 0);
	peer_ack(&p, &q, q.their_isn + 3, &(uint64_t){1}, 1, 0);
	expect_ignored();
	assert_int_equal(q.c->sacked, 0);
	assert_int_equal(tp_unacked(q.c), 3);
	peer_ack(&p, &q, q.their_isn, &(uint64_t){1 << 1}, 1, 0);
	assert_int_equal(q.c->sacked, 1);
}

static void ack_that_goes_back(void **state)
{
	in_flight(5);
	peer_ack(&p, &q, q.their_isn + 4, NULL, 0, 0);
	p.events = 0;
	peer_ack(&p, &q, q.their_isn + 1, &(uint64_t){UINT64_MAX}, 1, 0);
	peer_ack(&p, &q, q.their_isn - 1000000, NULL, 0, 0);
	assert_int_equal(q.c->snd_una, q.their_isn + 4);
	assert_int_equal(tp_error(q.c), 0);
}

static void window_beyond_any_ring(void **state)
{
	uint64_t before = q.c->snd_limit;

	q.window = UINT64_MAX;
	peer_ack(&p, &q, q.their_isn, NULL, 0, 0);
	q.window = (1ull << 30) + 1;
	peer_ack(&p, &q, q.their_isn, NULL, 0, 0);
	expect_ignored();
	assert_int_equal(q.c->snd_limit, before);
}

static void window_that_shrinks(void **state)
{
	uint64_t before = q.c->snd_limit;

	q.window = 1;
	peer_ack(&p, &q, q.their_isn, NULL, 0, 0);
	assert_int_equal(q.c->snd_limit, before);
	in_flight(3);
	assert_int_equal(tp_unsent(q.c), 0);
}

static void bytes_in_the_wrong_place(void **state)
{
	peer_data(&p, &q, q.isn, 1, "x", 1, 0);
	expect_violation();
}

static void bytes_of_the_past_in_a_new_packet(void **state)
{
	char buf[8];

	peer_send(&p, &q, "abc", 3, 0);
	assert_int_equal(tp_read(q.c, buf, sizeof buf), 3);
	p.events = 0;
	peer_data(&p, &q, q.psn, 2, "x", 1, 0);
	expect_violation();
}

static void bytes_beyond_the_window(void **state)
{
	peer_data(&p, &q, q.isn + 2, q.c->rcv_limit - 1, "xy", 2, 0);
	expect_violation();
}

static void an_offset_that_wraps(void **state)
{
	peer_data(&p, &q, q.isn + 2, UINT64_MAX, "xy", 2, 0);
	expect_violation();
}

static void early_bytes_too_near(void **state)
{
	peer_data(
		&p, &q, q.isn + 10, 9, "x", 1, 0); /* ten packets come before it, with a byte each at least */
	expect_violation();
}

/* Two early packets for the same bytes: one of them lies. */
static void early_packets_that_overlap(void **state)
{
	peer_data(&p, &q, q.isn + 1, 10, "aaaaaaaaaa", 10, 0);
	peer_data(&p, &q, q.isn + 2, 15, "bbbbbbbbbb", 10, 0);
	assert_int_equal(tp_error(q.c), 0);
	peer_data(&p, &q, q.isn, 0, "0123456789", 10, 0);
	expect_violation();
}

static void a_gap_between_neighbours(void **state)
{
	peer_data(&p, &q, q.isn + 1, 11, "x", 1, 0);
	peer_data(&p, &q, q.isn, 0, "0123456789", 10, 0);
	expect_violation();
}

static void bytes_after_the_end(void **state)
{
	peer_send(&p, &q, "x", 1, WIRE_F_FIN);
	puppet_flush(&p);
	peer_data(&p, &q, q.psn, 1, "y", 1, 0);
	expect_violation();
}

static void early_bytes_after_the_end(void **state)
{
	peer_data(&p, &q, q.isn + 1, 1, "y", 1, 0);
	peer_data(&p, &q, q.isn, 0, "x", 1, WIRE_F_FIN);
	expect_violation();
}

static void two_ends(void **state)
{
	peer_data(&p, &q, q.isn + 1, 5, NULL, 0, WIRE_F_FIN);
	peer_data(&p, &q, q.isn + 2, 5, NULL, 0, WIRE_F_FIN);
	assert_int_equal(tp_error(q.c), 0);
	peer_data(&p, &q, q.isn, 0, "01234", 5, 0);
	expect_violation();
}

/* Packet numbers further ahead than the window: dropped, as if lost. */
static void numbers_beyond_the_window(void **state)
{
	uint32_t window = q.c->rcv_window;

	peer_data(&p, &q, q.isn + window, window, "x", 1, 0);
	peer_data(&p, &q, q.isn + 5000, 5000, "x", 1, 0);
	expect_ignored();
	assert_null(q.c->reorder);
	peer_data(&p, &q, q.isn + window - 1, window - 1, "x", 1, 0);
	assert_non_null(q.c->reorder);
	puppet_flush(&p);
	assert_int_equal(p.w.sack_words, 8);
}

/* With the largest window the last numbers do not fit into the SACK words. */
static void the_widest_gap(void **state)
{
	puppet_stop(&p);
	puppet_init(&p);
	p.cfg.window_packets = 1024;
	puppet_start(&p);
	puppet_listen(&p, 8);
	assert_true(peer_connect(&p, &bystander, 1));
	assert_true(peer_connect(&p, &q, 2));
	puppet_flush(&p);
	for (unsigned i = 1023; i; i--) {
		peer_data(&p, &q, q.isn + i, i, "x", 1, 0);
		puppet_flush(&p);
		assert_true(p.out_len <= TP_MAX_HEADER);
	}
	assert_int_equal(p.w.sack_words, WIRE_SACK_WORDS);
	peer_data(&p, &q, q.isn, 0, "x", 1, 0);
	assert_int_equal(tp_readable(q.c), 1024);
}

static void wild_echoes(void **state)
{
	uint64_t rto;
	struct tp_info info;

	in_flight(20);
	p.now += 100 * SD_US;
	q.their_ts = tp_timestamp(p.now - 100 * SD_US);
	peer_ack(&p, &q, q.their_isn + 1, NULL, 0, 0);
	tp_info(q.c, &info);
	rto = info.rto_ns;
	for (uint32_t i = 2; i < 20; i++) {
		q.their_ts = tp_timestamp(p.now) + i; /* of the future */
		peer_ack(&p, &q, q.their_isn + i, NULL, 0, 0);
	}
	tp_info(q.c, &info);
	assert_int_equal(info.rto_ns, rto);
}

static void marks_that_go_back(void **state)
{
	struct wire_packet w = {.ce_count = 0xfff0};
	uint8_t buf[256];
	uint32_t cwnd;
	size_t ext;

	in_flight(5);
	cwnd = q.c->cwnd;
	ext = tp_wire_put_ack(buf + WIRE_BASE_LEN, q.window, 0);
	w.psn = q.psn;
	w.ack = q.their_isn + 3;
	tp_wire_put_base(buf, WIRE_ACK, 0, WIRE_OP_NONE, ext, &w, q.their_cid);
	puppet_input(&p, buf, tp_wire_seal(buf, WIRE_BASE_LEN + ext));
	assert_true(q.c->cwnd >= cwnd);
	assert_int_equal(q.c->peer_ce, 0);
}

/* A packet of somebody who knows all about a connection but its id. */
static void wrong_ids(void **state)
{
	struct peer guess = q;
	struct sd_rng r;

	sd_rng_seed(&r, 5);
	p.tp->reset_tokens = 0;
	for (int i = 0; i < 10000; i++) {
		guess.their_cid = q.their_cid ^ (1 + sd_rng_below(&r, (1ull << 44) - 1)) << TP_CID_BITS;
		peer_data(&p, &guess, q.psn, q.off, "x", 1, 0);
		guess.their_cid = sd_rng_next(&r);
		peer_data(&p, &guess, q.psn, q.off, "x", 1, 0);
	}
	assert_int_equal(tp_readable(q.c), 0);
	assert_int_equal(tp_stats(p.tp)->rx_unknown_cid, 20000);
	puppet_flush(&p);
}

/* Answers are never longer than what they answer, and a RESET, a refusal or an answer gets none. */
static void no_amplification(void **state)
{
	struct sd_rng r;
	uint8_t buf[2048];

	sd_rng_seed(&r, 6);
	for (int i = 0; i < 100000; i++) {
		size_t len = WIRE_BASE_LEN + sd_rng_below(&r, 120);
		size_t sent = 0;

		for (size_t k = 0; k < len; k++)
			buf[k] = (uint8_t)(sd_rng_below(&r, 4) ? 0 : sd_rng_next(&r));
		buf[0] = (uint8_t)(WIRE_VERSION << 4 | sd_rng_below(&r, 16));
		buf[3] = (uint8_t)(len / 4);
		if (sd_rng_below(&r, 2))
			be16_put(buf + 6, PUPPET_PORT);
		if (sd_rng_below(&r, 2))
			be16_put(buf + 56, 1472);
		if (tp_wire_type(buf) == WIRE_FIND) {
			buf[6] = 4;
			memcpy(buf + 16, p.local.ip, 16);
		}
		len = tp_wire_seal(buf, len);
		puppet_input(&p, buf, len);
		while (puppet_output(&p))
			sent += p.out_len;
		assert_true(sent <= len);
		if (tp_wire_type(buf) == WIRE_RESET || tp_wire_type(buf) == WIRE_FIND_REPLY ||
			tp_wire_type(buf) == WIRE_INIT_NAK || tp_wire_type(buf) == WIRE_COOKIE)
			assert_int_equal(sent, 0);
		if (i % 100 == 0)
			tp_refill(p.tp);
	}
	assert_int_equal(p.events, 0);
	assert_true(tp_stats(p.tp)->cookies_sent > 100);
	puppet_wait(&p, 2 * SD_S);
	puppet_flush(&p);
}

/* However many INITs come from made-up addresses, memory stays bounded and an honest host gets in. */
static void init_flood(void **state)
{
	uint8_t buf[WIRE_CONTROL_MAX];
	struct wire_cookie k;
	struct peer f;
	size_t blocks;

	tp_listener_set_backlog(p.listener, 4096);
	for (unsigned i = 0; i < 1000; i++) {
		peer_init(&p, &f, 100 + i);
		puppet_input(&p, buf, peer_put_init(&p, &f, NULL, buf));
		tp_refill(p.tp);
		puppet_flush(&p);
	}
	blocks = p.blocks;
	for (unsigned i = 0; i < 20000; i++) {
		peer_init(&p, &f, 10000 + i);
		p.peer.ip[2] = (uint8_t)i;
		puppet_input(&p, buf, peer_put_init(&p, &f, NULL, buf));
		tp_refill(p.tp);
		puppet_flush(&p);
	}
	assert_int_equal(p.blocks, blocks);
	p.peer.ip[2] = 0;
	peer_init(&p, &f, 7);
	puppet_input(&p, buf, peer_put_init(&p, &f, NULL, buf));
	assert_true(puppet_output(&p));
	assert_true(tp_wire_get_cookie(p.out, p.out_len, &k));
	puppet_input(&p, buf, peer_put_init(&p, &f, k.cookie, buf));
	assert_true(puppet_output(&p));
	assert_true(peer_learn(&p, &f));
	peer_send(&p, &f, "in", 2, 0);
	f.c = tp_accept(p.listener, NULL);
	assert_non_null(f.c);
	assert_int_equal(tp_readable(f.c), 2);
}

/* A receiver that acknowledges all the time makes us send nothing but what we have. */
static void ack_flood(void **state)
{
	in_flight(10);
	for (int i = 0; i < 10000; i++) {
		peer_ack(&p, &q, q.their_isn + 5, NULL, 0, 0);
		assert_false(puppet_output(&p));
	}
}

/* One packet asks, one answers: a flood of questions is not multiplied. */
static void question_flood(void **state)
{
	unsigned n = 0;

	for (int i = 0; i < 10000; i++) {
		peer_ack(&p, &q, q.their_isn, NULL, 0, WIRE_F_ACKREQ);
		n += puppet_flush(&p);
	}
	assert_true(n <= 10000);
}

static void every_reorder_block_is_taken(void **state)
{
	struct peer many[64];
	unsigned opened = 0;

	tp_listener_set_backlog(p.listener, 64);
	for (unsigned i = 0; i < 64; i++) {
		tp_refill(p.tp);
		puppet_flush(&p);
		if (!peer_connect(&p, &many[i], 100 + i))
			break;
		opened++;
		peer_data(&p, &many[i], many[i].isn + 1, 1, "y", 1, 0);
	}
	assert_int_equal(opened, 64);
	assert_true(tp_stats(p.tp)->pool_empty > 0);
	for (unsigned i = 0; i < 64; i++) { /* those who found none are as if it had been lost */
		peer_data(&p, &many[i], many[i].isn, 0, "x", 1, 0);
		assert_in_range(tp_readable(many[i].c), 1, 2);
		peer_data(&p, &many[i], many[i].isn + 1, 1, "y", 1, 0);
		assert_int_equal(tp_readable(many[i].c), 2);
	}
	puppet_flush(&p);
}

/* A peer whose packets come but who never acknowledges is dead all the same. */
static void a_peer_that_never_acknowledges(void **state)
{
	in_flight(1);
	for (int i = 0; i < 60; i++) {
		peer_ack(&p, &q, q.their_isn, NULL, 0, 0);
		puppet_wait(&p, 100 * SD_MS);
		puppet_flush(&p);
	}
	assert_int_equal(tp_error(q.c), -ETIMEDOUT);
}

static void init_ack_for_an_open_connection(void **state)
{
	struct wire_init i = {
		.src_cid = 666, .nonce = q.nonce, .max_payload = 256, .window_packets = 1, .isn = 5};
	uint8_t buf[WIRE_CONTROL_MAX];

	i.dst_cid = q.their_cid;
	puppet_input(&p, buf, tp_wire_put_init(buf, WIRE_INIT_ACK, &i));
	assert_false(puppet_output(&p));
	assert_int_equal(q.c->peer_cid, q.cid);
	assert_int_equal(q.c->path.max_payload, 1472);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, open_conns, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(ack_of_unsent),
		CASE(sack_of_unsent),
		CASE(ack_that_goes_back),
		CASE(window_beyond_any_ring),
		CASE(window_that_shrinks),
		CASE(bytes_in_the_wrong_place),
		CASE(bytes_of_the_past_in_a_new_packet),
		CASE(bytes_beyond_the_window),
		CASE(an_offset_that_wraps),
		CASE(early_bytes_too_near),
		CASE(early_packets_that_overlap),
		CASE(a_gap_between_neighbours),
		CASE(bytes_after_the_end),
		CASE(early_bytes_after_the_end),
		CASE(two_ends),
		CASE(numbers_beyond_the_window),
		CASE(the_widest_gap),
		CASE(wild_echoes),
		CASE(marks_that_go_back),
		CASE(wrong_ids),
		CASE(no_amplification),
		CASE(init_flood),
		CASE(ack_flood),
		CASE(question_flood),
		CASE(every_reorder_block_is_taken),
		CASE(a_peer_that_never_acknowledges),
		CASE(init_ack_for_an_open_connection),
	};

	return cmocka_run_group_tests_name("transport_attack", tests, NULL, NULL);
}
