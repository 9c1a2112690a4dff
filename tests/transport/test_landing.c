/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What goes by the rings: bytes that land in the memory of a reader who waits, and bytes that are sent from
 * the memory of a writer who waits. Memory that has been given back is filled with garbage, so that whoever
 * still reads it is found out.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/pack.h"
#include "base/rng.h"
#include "puppet.h"

#define RTT    (100 * SD_US)
#define MSS    (1472 - WIRE_BASE_LEN - WIRE_STREAM_LEN - WIRE_CRC_LEN)
#define RING   (16u << 10) /* of a new connection */
#define CANARY 0xa5

#define ALL_AT_ONCE 64 /* packets: a congestion window that no test fills */

static struct puppet p;
static struct peer q;
static uint8_t bytes[1 << 20], memory[1 << 20];

static int open_conn(void **state)
{
	puppet_init(&p);
	puppet_open(&p, &q);
	puppet_pattern(bytes, sizeof bytes);
	memset(memory, CANARY, sizeof memory);
	return 0;
}

static int stop(void **state)
{
	assert_true(puppet_stop(&p));
	return 0;
}

/* Sends [off, off + len) of bytes with the PSN that is n packets after the peer's first. */
static void piece(unsigned n, uint64_t off, size_t len, unsigned flags)
{
	peer_data(&p, &q, q.isn + n, off, bytes + off, len, flags);
}

static void land(size_t len, size_t low)
{
	assert_int_equal(tp_land(q.c, memory, len, low), 0);
}

/* The landing ends with len bytes, which are those from off on, and nothing was written behind them. */
static void expect_landed(uint64_t off, size_t len)
{
	assert_int_equal(tp_land_end(q.c), len);
	assert_memory_equal(memory, bytes + off, len);
	assert_int_equal(memory[len], CANARY);
	memset(memory, CANARY, len);
}

static void expect_read(uint64_t off, size_t len)
{
	static uint8_t buf[sizeof bytes];

	assert_int_equal(tp_read(q.c, buf, sizeof buf), len);
	assert_memory_equal(buf, bytes + off, len);
}

/* --- landings --- */

static void what_comes_lands(void **state)
{
	land(1000, 1);
	piece(0, 0, 400, 0);
	assert_true(p.events & TP_EV_READABLE);
	assert_int_equal(tp_readable(q.c), 0);
	piece(1, 400, 300, 0);
	expect_landed(0, 700);
	piece(2, 700, 100, 0); /* it is over */
	assert_int_equal(memory[0], CANARY);
	expect_read(700, 100);
	assert_int_equal(tp_land_end(q.c), 0);
}

/* Where it is, is kept where INIT's cookie was. */
static void a_repeated_init_is_not_told_where(void **state)
{
	static const uint8_t none[16];
	struct wire_init i;
	uint8_t buf[WIRE_CONTROL_MAX];

	land(1000, 1);
	puppet_input(&p, buf, peer_put_init(&p, &q, NULL, buf));
	assert_true(puppet_output(&p));
	assert_true(tp_wire_get_init(p.out, p.out_len, &i));
	assert_memory_equal(i.cookie, none, sizeof none);
	piece(0, 0, 400, 0);
	expect_landed(0, 400);
}

static void what_does_not_fit_is_in_the_ring(void **state)
{
	land(500, 1);
	piece(0, 0, 400, 0);
	piece(1, 400, 400, 0);
	piece(2, 800, 400, 0);
	assert_int_equal(tp_readable(q.c), 700);
	expect_landed(0, 500);
	expect_read(500, 700);
}

static void a_full_landing_ends_where_a_packet_does(void **state)
{
	land(800, 1);
	piece(0, 0, 400, 0);
	piece(1, 400, 400, 0);
	piece(2, 800, 100, 0);
	expect_landed(0, 800);
	expect_read(800, 100);
}

static void the_reader_is_not_woken_for_less_than_it_wants(void **state)
{
	land(4000, 1000);
	piece(0, 0, 400, 0);
	piece(1, 400, 599, 0);
	assert_false(p.events & TP_EV_READABLE);
	piece(2, 999, 1, 0);
	assert_true(p.events & TP_EV_READABLE);
	expect_landed(0, 1000);
}

static void no_more_will_come(void **state)
{
	land(4000, 4000);
	piece(0, 0, 400, 0);
	assert_false(p.events & TP_EV_READABLE);
	piece(1, 400, 100, WIRE_F_FIN);
	assert_true(p.events & TP_EV_READABLE);
	expect_landed(0, 500);
	assert_true(tp_at_eof(q.c));
	assert_int_equal(tp_land(q.c, memory, 100, 1), -EBUSY);
}

/* It gets a larger ring by coming back. */
static void the_reader_is_woken_if_the_window_is_the_limit(void **state)
{
	land(4000, 4000);
	piece(0, 0, 400, 0);
	assert_false(p.events & TP_EV_READABLE);
	piece(1, 400, 400, WIRE_F_LIMITED);
	assert_true(p.events & TP_EV_READABLE);
	expect_landed(0, 800);
	assert_true(q.c->rcv.size > RING);
}

static void an_early_packet_ends_it(void **state)
{
	land(4000, 4000);
	piece(0, 0, 400, 0);
	piece(2, 600, 400, 0);
	assert_false(p.events & TP_EV_READABLE);
	piece(1, 400, 200, 0);
	assert_true(p.events & TP_EV_READABLE); /* it has to come for it */
	piece(3, 1000, 100, 0);
	expect_landed(0, 400);
	expect_read(400, 700);
	land(4000, 1);
	piece(4, 1100, 100, 0);
	expect_landed(1100, 100);
}

static void an_early_packet_beyond_it_ends_it_too(void **state)
{
	land(600, 600);
	piece(0, 0, 400, 0);
	piece(2, 600, 400, 0);
	piece(1, 400, 200, 0);
	expect_landed(0, 400);
	expect_read(400, 600);
}

static void nothing_lands_while_packets_are_missing(void **state)
{
	piece(1, 100, 100, 0);
	assert_int_equal(tp_land(q.c, memory, 1000, 1), -EBUSY);
	piece(0, 0, 100, 0);
	assert_int_equal(tp_land(q.c, memory, 1000, 1), -EBUSY); /* there is something to read */
	expect_read(0, 200);
	land(1000, 1);
	expect_landed(200, 0);
}

static void duplicates_do_not_land(void **state)
{
	piece(0, 0, 400, 0);
	expect_read(0, 400);
	land(1000, 1);
	piece(0, 0, 400, 0);
	piece(1, 400, 100, 0);
	piece(1, 400, 100, 0);
	expect_landed(400, 100);
}

static void one_reader_at_a_time(void **state)
{
	static uint8_t other[1000];

	land(400, 1);
	assert_int_equal(tp_land(q.c, other, sizeof other, 1), -EBUSY);
	piece(0, 0, 400, 0);
	assert_int_equal(tp_land(q.c, other, sizeof other, 1), -EBUSY); /* also when it is full */
	expect_landed(0, 400);
	assert_int_equal(tp_land(q.c, other, sizeof other, 1), 0);
	assert_int_equal(tp_land_end(q.c), 0);
}

/* Another thread's. */
static void peeks_and_reads_meanwhile(void **state)
{
	uint8_t buf[1000];

	land(500, 500);
	piece(0, 0, 400, 0);
	assert_int_equal(tp_peek(q.c, buf, sizeof buf, 0), 0);
	assert_int_equal(tp_read(q.c, buf, sizeof buf), 0);
	piece(1, 400, 400, 0);
	assert_int_equal(tp_peek(q.c, buf, sizeof buf, 0), 300);
	assert_memory_equal(buf, bytes + 500, 300);
	expect_read(500, 300);
	expect_landed(0, 500);
}

/* The peer may send as if the reader had read what has landed; what it was told then holds afterwards. */
static void the_window_goes_with_the_landing(void **state)
{
	size_t at = 0;
	unsigned n = 0;

	land(sizeof memory - 1, 1);
	while (at < 4 * RING) {
		assert_true(at + MSS <= q.c->rcv_limit);
		piece(n, at, MSS, n % 8 ? 0 : WIRE_F_ACKREQ);
		n++;
		at += MSS;
		puppet_flush(&p);
	}
	puppet_wait(&p, SD_MS);
	puppet_flush(&p);
	assert_int_equal(q.c->rcv_limit, at + RING);
	expect_landed(0, at);
	for (size_t left = RING; left; n++) {
		size_t len = left < MSS ? left : MSS;

		piece(n, at + RING - left, len, 0);
		left -= len;
	}
	assert_int_equal(tp_error(q.c), 0);
	expect_read(at, RING);
}

/* Also if it all comes in the wrong order: out of order bytes are in the ring, which has room for them. */
static void a_whole_window_comes_backwards(void **state)
{
	unsigned n = RING / 1024;

	land(sizeof memory - 1, 1);
	piece(0, 0, 1000, WIRE_F_ACKREQ);
	puppet_flush(&p);
	piece(1, 1000, 24, 0);
	for (unsigned i = n - 1; i >= 1; i--)
		piece(i + 1, i * 1024, 1024, 0);
	expect_landed(0, 1024);
	expect_read(1024, RING - 1024);
}

static void a_reset_leaves_what_has_landed(void **state)
{
	uint8_t buf[100];

	land(1000, 1000);
	piece(0, 0, 400, 0);
	peer_reset(&p, &q, WIRE_RESET_ABORT, q.token);
	assert_true(p.events & TP_EV_FAILED);
	expect_landed(0, 400);
	assert_int_equal(tp_read(q.c, buf, sizeof buf), -ECONNRESET);
	assert_int_equal(tp_land(q.c, memory, 100, 1), -EBUSY);
}

static void closing_with_landed_bytes_is_a_reset(void **state)
{
	land(1000, 1000);
	piece(0, 0, 400, 0);
	puppet_flush(&p);
	tp_close(q.c, p.now, false);
	assert_true(puppet_output(&p));
	assert_int_equal(tp_wire_type(p.out), WIRE_RESET);
}

static void nothing_lands_after_the_close(void **state)
{
	land(1000, 1000);
	tp_close(q.c, p.now, false);
	puppet_flush(&p);
	piece(0, 0, 400, 0);
	assert_int_equal(memory[0], CANARY);
}

static void nothing_lands_once_nobody_reads(void **state)
{
	land(1000, 1000);
	tp_stop_reading(q.c, false);
	piece(0, 0, 400, 0);
	assert_int_equal(memory[0], CANARY);
	assert_int_equal(tp_land_end(q.c), 0);
	assert_int_equal(tp_land(q.c, memory, 1000, 1000), -EBUSY);
	piece(1, 400, 400, 0);
	assert_int_equal(tp_readable(q.c), 0);
}

/* Nor does a FIN look for the ring, which has been given back. */
static void the_peer_ends_after_the_close(void **state)
{
	land(1000, 1000);
	tp_close(q.c, p.now, false);
	puppet_flush(&p);
	piece(0, 0, 0, WIRE_F_FIN);
	assert_true(puppet_output(&p));
	assert_int_equal(p.w.ack, q.isn + 1);
}

static void the_reader_comes_and_goes(void **state)
{
	struct sd_rng rng;
	uint64_t at = 0, read = 0;

	sd_rng_seed(&rng, 7);
	for (unsigned n = 0; n < 3000; n++) {
		size_t len = 1 + sd_rng_below(&rng, 300), size = 1 + sd_rng_below(&rng, 600);
		bool lands = !tp_land(q.c, memory, size, 1);

		if (at + len > sizeof bytes)
			break;
		piece(n, at, len, 0);
		at += len;
		puppet_flush(&p);
		if (lands) {
			size_t landed = len < size ? len : size;

			expect_landed(read, landed);
			read += landed;
		}
		if (tp_readable(q.c)) {
			expect_read(read, at - read);
			read = at;
		}
	}
	assert_int_equal(read, at);
}

/* --- loans --- */

static void expect_data(uint64_t off, size_t len)
{
	assert_true(puppet_output(&p));
	assert_int_equal(p.w.type, WIRE_DATA);
	assert_int_equal(p.w.offset, off);
	assert_int_equal(p.w.payload_len, len);
	assert_memory_equal(p.w.payload, bytes + off, len);
}

/* Packets with all bytes from off up to end. */
static void expect_up_to(uint64_t off, uint64_t end)
{
	for (; off < end; off += p.w.payload_len)
		expect_data(off, end - off < MSS ? end - off : MSS);
}

/* The peer has received n packets in order. */
static void acknowledge(uint32_t n)
{
	p.now += RTT;
	q.their_ts = tp_timestamp(p.now - RTT);
	peer_ack(&p, &q, q.their_isn + n, NULL, 0, 0);
}

/* Lends [off, off + len) of bytes as a copy in memory, at the same place. */
static void lend(uint64_t off, size_t len)
{
	memcpy(memory + off, bytes + off, len);
	assert_int_equal(tp_lend(q.c, memory + off, len), len);
}

static void settle(void)
{
	tp_settle(q.c);
	memset(memory, CANARY, sizeof memory);
}

/* The peer wants everything again, from packet n on; in flight are packets of len bytes. */
static void expect_again(unsigned n, uint64_t off, size_t len, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		assert_true(puppet_wait_output(&p, 10 * SD_S));
		while (puppet_output(&p)) {
			uint64_t at = p.w.offset;

			assert_true(at >= off && at + p.w.payload_len <= off + count * len);
			assert_memory_equal(p.w.payload, bytes + at, p.w.payload_len);
		}
		acknowledge(++n);
	}
	puppet_flush(&p);
	assert_int_equal(tp_unacked(q.c), 0);
}

static void what_is_lent_is_sent(void **state)
{
	lend(0, 3 * MSS);
	assert_int_equal(tp_unacked(q.c), 3 * MSS);
	expect_up_to(0, 3 * MSS);
	acknowledge(3);
	assert_true(p.events & TP_EV_DRAINED);
	settle();
	assert_false(puppet_output(&p));
}

static void what_was_not_sent_is_kept(void **state)
{
	lend(0, 3 * MSS);
	settle();
	expect_up_to(0, 3 * MSS);
}

static void it_is_sent_again_from_the_loan(void **state)
{
	lend(0, 4 * MSS);
	puppet_flush(&p);
	acknowledge(1);
	expect_again(1, MSS, MSS, 3);
	settle();
}

static void it_is_sent_again_after_the_loan(void **state)
{
	lend(0, 4 * MSS);
	puppet_flush(&p);
	acknowledge(1);
	settle();
	expect_again(1, MSS, MSS, 3);
}

/* A packet's bytes may be in the ring, in the loan, and in the ring again. */
static void a_packet_from_three_places(void **state)
{
	q.window = 100;
	peer_ack(&p, &q, q.their_isn, NULL, 0, 0);
	q.c->snd_limit = 0;
	assert_int_equal(tp_write(q.c, bytes, 200), 200);
	lend(200, 500);
	assert_int_equal(tp_write(q.c, bytes + 700, 300), 300);
	assert_false(puppet_output(&p));
	q.window = 1 << 20;
	peer_ack(&p, &q, q.their_isn, NULL, 0, 0);
	expect_data(0, 1000);
	settle();
	expect_again(0, 0, 1000, 1);
}

/* Packets in parts: the payload of the next one, from n pieces; 0: all of it is in the buffer. The pieces
 * cannot be held. */
static const uint8_t *expect_parts(uint64_t off, size_t len, unsigned n)
{
	static uint8_t buf[TP_MAX_HEAD];
	const struct tp_path *path;
	struct tp_parts parts;

	assert_true(tp_output_parts(p.tp, p.now, buf, &parts, &path));
	assert_int_equal(parts.n, n);
	assert_int_equal(tp_hold(p.tp, &parts), 0);
	if (!n)
		assert_memory_equal(buf + WIRE_BASE_LEN + WIRE_STREAM_LEN, bytes + off, len);
	for (unsigned i = 0; i < n; i++) {
		assert_memory_equal(parts.piece[i].at, bytes + off, parts.piece[i].len);
		off += parts.piece[i].len;
		len -= parts.piece[i].len;
	}
	assert_true(!n || !len);
	return n ? parts.piece[0].at : buf;
}

static bool is_lent(const uint8_t *at)
{
	return at >= memory && at < memory + sizeof memory;
}

static void pieces_of_it_are_where_it_is(void **state)
{
	lend(0, 2 * MSS);
	assert_ptr_equal(expect_parts(0, MSS, 1), memory);
	assert_ptr_equal(expect_parts(MSS, MSS, 1), memory + MSS);
	assert_false(tp_output_pending(p.tp));
	assert_true(puppet_wait_output(&p, 10 * SD_S));
	assert_true(is_lent(expect_parts(MSS, MSS, 1)));
}

static void pieces_are_in_the_ring_after_it(void **state)
{
	lend(0, 2 * MSS);
	assert_true(is_lent(expect_parts(0, MSS, 1)));
	settle();
	assert_false(is_lent(expect_parts(MSS, MSS, 1)));
	assert_true(puppet_wait_output(&p, 10 * SD_S));
	assert_false(is_lent(expect_parts(MSS, MSS, 1)));
}

static void pieces_from_three_places(void **state)
{
	q.c->snd_limit = 0;
	assert_int_equal(tp_write(q.c, bytes, 200), 200);
	lend(200, 500);
	assert_int_equal(tp_write(q.c, bytes + 700, 300), 300);
	q.window = 1 << 20;
	peer_ack(&p, &q, q.their_isn, NULL, 0, 0);
	expect_parts(0, 1000, 3);
}

static void short_ones_are_copied(void **state)
{
	lend(0, 100);
	expect_parts(0, 100, 0);
}

static void loans_that_go_on_are_one(void **state)
{
	lend(0, 1000);
	lend(1000, 1000);
	assert_int_equal(q.c->flight->loan.from, 0);
	assert_int_equal(q.c->flight->loan.to, 2000);
	settle();
	expect_up_to(0, 2000);
}

static void a_second_loan_settles_the_first(void **state)
{
	lend(0, 1000);
	memcpy(memory + 5000, bytes + 1000, 500);
	assert_int_equal(tp_lend(q.c, memory + 5000, 500), 500);
	memset(memory, CANARY, 5000);
	lend(1500, 500); /* memory that does not follow */
	memset(memory + 5000, CANARY, 500);
	expect_up_to(0, 2000);
	settle();
}

static void others_write_in_between(void **state)
{
	lend(0, 1000);
	assert_int_equal(tp_write(q.c, bytes + 1000, 100), 100);
	memcpy(memory + 1000, bytes + 1100, 900); /* goes on in memory, but not in the stream */
	assert_int_equal(tp_lend(q.c, memory + 1000, 900), 900);
	assert_int_equal(q.c->flight->loan.from, 1100);
	memset(memory, CANARY, 1000);
	puppet_flush(&p);
	settle();
	expect_again(0, 0, 1000, 2);
}

/* However much there is, no more is lent than the ring could take, so that it can be settled at any time. */
static void the_ring_has_room_for_it(void **state)
{
	size_t at = 0, total = sizeof bytes;
	uint32_t n = 0;

	memcpy(memory, bytes, total);
	while (at < total) {
		ptrdiff_t took = tp_lend(q.c, memory + at, total - at);

		assert_true(took >= 0);
		at += (size_t)took;
		assert_true(tp_unacked(q.c) <= q.c->snd.size);
		if (at < total)
			assert_int_equal(tp_unacked(q.c), q.c->snd.size);
		while (puppet_output(&p)) {
			assert_memory_equal(p.w.payload, bytes + p.w.offset, p.w.payload_len);
			n++;
		}
		q.window = at + total;
		if (at < total)
			acknowledge(n);
	}
	assert_int_equal(q.c->flight->loan.from, 0); /* all that time it was one */
	settle();
	while (tp_unacked(q.c)) {
		acknowledge(n);
		while (puppet_output(&p)) {
			assert_memory_equal(p.w.payload, bytes + p.w.offset, p.w.payload_len);
			n++;
		}
	}
	assert_int_equal(q.c->snd_acked, total);
}

static void a_full_ring_is_told_of(void **state)
{
	size_t at = 0;
	ptrdiff_t took;

	q.c->snd_max = RING;
	memcpy(memory, bytes, sizeof bytes);
	while ((took = tp_lend(q.c, memory + at, sizeof memory - at)) > 0)
		at += (size_t)took;
	assert_int_equal(at, RING);
	puppet_flush(&p);
	acknowledge(2);
	assert_false(p.events & TP_EV_WRITABLE);
	acknowledge(5);
	assert_true(p.events & TP_EV_WRITABLE);
	settle();
}

static void settling_wraps(void **state)
{
	assert_int_equal(tp_write(q.c, bytes, 10000), 10000);
	acknowledge(puppet_flush(&p));
	q.c->cwnd = ALL_AT_ONCE;
	lend(10000, RING - 100);
	settle();
	expect_up_to(10000, 10000 + RING - 100);
}

static void the_ring_grows_under_it(void **state)
{
	q.c->cwnd = ALL_AT_ONCE;
	lend(0, RING);
	assert_int_equal(q.c->snd.size, RING);
	lend(RING, RING);
	assert_true(q.c->snd.size > RING);
	settle();
	expect_up_to(0, 2 * RING);
}

static void the_end_comes_after_it(void **state)
{
	lend(0, 1000);
	tp_shutdown(q.c);
	settle();
	expect_data(0, 1000);
	assert_true(p.w.flags & WIRE_F_FIN);
	assert_int_equal(tp_lend(q.c, memory, 1), -EPIPE);
}

static void closing_settles(void **state)
{
	lend(0, 2 * MSS);
	expect_data(0, MSS);
	tp_close(q.c, p.now, false);
	memset(memory, CANARY, sizeof memory);
	expect_data(MSS, MSS);
}

static void nothing_is_owed_after_a_failure(void **state)
{
	lend(0, 2 * MSS);
	puppet_flush(&p);
	peer_reset(&p, &q, WIRE_RESET_ABORT, q.token);
	settle();
	assert_int_equal(tp_lend(q.c, memory, 10), -ECONNRESET);
}

static void an_abort_forgets_it(void **state)
{
	lend(0, 2 * MSS);
	tp_close(q.c, p.now, true);
	memset(memory, CANARY, sizeof memory);
	assert_true(puppet_output(&p));
	assert_int_equal(tp_wire_type(p.out), WIRE_RESET);
}

static void before_it_is_open(void **state)
{
	struct tp_path path = {.max_payload = p.max_payload, .local = p.local, .peer = p.peer};
	struct tp_conn *c;

	path.local.port = 30000;
	path.peer.port = PUPPET_PORT;
	assert_int_equal(tp_connect(p.tp, p.now, &path, NULL, &c), 0);
	memcpy(memory, bytes, 1000);
	assert_int_equal(tp_lend(c, memory, 1000), 1000);
	tp_settle(c);
	assert_int_equal(tp_unacked(c), 1000);
	tp_close(c, p.now, true);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, open_conn, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(what_comes_lands),
		CASE(a_repeated_init_is_not_told_where),
		CASE(what_does_not_fit_is_in_the_ring),
		CASE(a_full_landing_ends_where_a_packet_does),
		CASE(the_reader_is_not_woken_for_less_than_it_wants),
		CASE(no_more_will_come),
		CASE(the_reader_is_woken_if_the_window_is_the_limit),
		CASE(an_early_packet_ends_it),
		CASE(an_early_packet_beyond_it_ends_it_too),
		CASE(nothing_lands_while_packets_are_missing),
		CASE(duplicates_do_not_land),
		CASE(one_reader_at_a_time),
		CASE(peeks_and_reads_meanwhile),
		CASE(the_window_goes_with_the_landing),
		CASE(a_whole_window_comes_backwards),
		CASE(a_reset_leaves_what_has_landed),
		CASE(closing_with_landed_bytes_is_a_reset),
		CASE(nothing_lands_after_the_close),
		CASE(nothing_lands_once_nobody_reads),
		CASE(the_peer_ends_after_the_close),
		CASE(the_reader_comes_and_goes),
		CASE(what_is_lent_is_sent),
		CASE(what_was_not_sent_is_kept),
		CASE(it_is_sent_again_from_the_loan),
		CASE(it_is_sent_again_after_the_loan),
		CASE(a_packet_from_three_places),
		CASE(pieces_of_it_are_where_it_is),
		CASE(pieces_are_in_the_ring_after_it),
		CASE(pieces_from_three_places),
		CASE(short_ones_are_copied),
		CASE(loans_that_go_on_are_one),
		CASE(a_second_loan_settles_the_first),
		CASE(others_write_in_between),
		CASE(the_ring_has_room_for_it),
		CASE(a_full_ring_is_told_of),
		CASE(settling_wraps),
		CASE(the_ring_grows_under_it),
		CASE(the_end_comes_after_it),
		CASE(closing_settles),
		CASE(nothing_is_owed_after_a_failure),
		CASE(an_abort_forgets_it),
		CASE(before_it_is_open),
	};

	return cmocka_run_group_tests_name("transport_landing", tests, NULL, NULL);
}
