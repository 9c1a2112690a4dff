/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One open connection, packet by packet: what is received in whatever order, when it is acknowledged, how
 * windows open and shut, when small writes wait, and what happens to a packet that is late or lost.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "puppet.h"

#define RTT	(100 * SD_US)
#define INITIAL 8 /* packets: the window of a new connection */
#define MSS	(1472 - WIRE_BASE_LEN - WIRE_STREAM_LEN - WIRE_CRC_LEN)

static struct puppet p;
static struct peer q;
static uint8_t bytes[1 << 17];

static int open_conn(void **state)
{
	puppet_init(&p);
	puppet_open(&p, &q);
	puppet_pattern(bytes, sizeof bytes);
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

static void expect_read(size_t len)
{
	static uint8_t buf[sizeof bytes];
	static uint64_t at;

	if (!q.c->rcv_read)
		at = 0;
	assert_int_equal(tp_read(q.c, buf, sizeof buf), len);
	assert_memory_equal(buf, bytes + at, len);
	at += len;
}

/* Takes the next packet out, which has to be an ACK. */
static void expect_ack(uint32_t received, unsigned words)
{
	assert_true(puppet_output(&p));
	assert_int_equal(p.w.type, WIRE_ACK);
	assert_int_equal(p.w.ack, q.isn + received);
	assert_int_equal(p.w.sack_words, words);
}

static void expect_data(uint64_t off, size_t len)
{
	assert_true(puppet_output(&p));
	assert_int_equal(p.w.type, WIRE_DATA);
	assert_int_equal(p.w.offset, off);
	assert_int_equal(p.w.payload_len, len);
	assert_memory_equal(p.w.payload, bytes + off, len);
}

static void write_bytes(uint64_t off, size_t len)
{
	assert_int_equal(tp_write(q.c, bytes + off, len), len);
}

/* The peer has received n packets in order, and says so with a round trip of RTT. */
static void acknowledge(uint32_t n)
{
	p.now += RTT;
	q.their_ts = tp_timestamp(p.now - RTT);
	peer_ack(&p, &q, q.their_isn + n, NULL, 0, 0);
}

/* Sends full packets for some rounds, each acknowledged after a delay that a queue would cause. The window in
 * the end. */
static uint32_t slow_rounds(unsigned flags)
{
	struct tp_info info;
	uint32_t sent = 0, n;

	tp_set_nagle(q.c, false);
	for (unsigned i = 0; i < 12; i++) {
		assert_true(tp_write(q.c, bytes, 8 * MSS) > 0);
		n = puppet_flush(&p);
		sent += n;
		p.now += i < 2 ? RTT : 4 * SD_MS;
		q.their_ts = tp_timestamp(p.now - (i < 2 ? RTT : 4 * SD_MS));
		q.window += n * MSS;
		peer_ack(&p, &q, q.their_isn + sent, NULL, 0, flags);
	}
	tp_info(q.c, &info);
	return info.cwnd;
}

static void delay_of_the_network_counts(void **state)
{
	assert_true(slow_rounds(0) <= 1);
}

static void delay_by_the_peers_scheduler_does_not(void **state)
{
	assert_true(slow_rounds(WIRE_F_LATE) >= INITIAL);
}

static void delay_by_our_scheduler_does_not(void **state)
{
	p.late = true;
	assert_true(slow_rounds(0) >= INITIAL);
}

/* What was found late is echoed with a word of warning, and the next not any more. */
static void lateness_is_told(void **state)
{
	p.late = true;
	piece(0, 0, 100, WIRE_F_ACKREQ);
	expect_ack(1, 0);
	assert_true(p.w.flags & WIRE_F_LATE);
	p.late = false;
	piece(1, 100, 100, WIRE_F_ACKREQ);
	expect_ack(2, 0);
	assert_false(p.w.flags & WIRE_F_LATE);
}

/* --- receiving --- */

static void in_order(void **state)
{
	piece(0, 0, 100, 0);
	assert_int_equal(p.events, TP_EV_READABLE);
	piece(1, 100, 50, 0);
	assert_int_equal(tp_readable(q.c), 150);
	expect_read(150);
	assert_int_equal(tp_read(q.c, bytes, 1), 0);
	assert_false(tp_at_eof(q.c));
}

static void out_of_order(void **state)
{
	piece(2, 200, 100, 0);
	assert_int_equal(p.events, 0);
	assert_int_equal(tp_readable(q.c), 0);
	expect_ack(0, 1);
	assert_int_equal(tp_wire_get_sack(&p.w, 0), 1 << 1);
	piece(1, 100, 100, 0);
	expect_ack(0, 1);
	assert_int_equal(tp_wire_get_sack(&p.w, 0), 1 << 1 | 1 << 0);
	piece(5, 500, 1, WIRE_F_FIN);
	expect_ack(0, 1);
	assert_int_equal(tp_wire_get_sack(&p.w, 0), 1 << 4 | 1 << 1 | 1 << 0);
	piece(0, 0, 100, 0);
	expect_ack(3, 1);
	assert_int_equal(tp_wire_get_sack(&p.w, 0), 1 << 1);
	expect_read(300);
	piece(4, 400, 100, 0);
	piece(3, 300, 100, 0);
	expect_ack(6, 0);
	expect_read(201);
	assert_true(tp_at_eof(q.c));
	assert_null(q.c->reorder);
}

static void duplicates(void **state)
{
	piece(0, 0, 10, 0);
	puppet_wait_output(&p, SD_MS);
	expect_ack(1, 0);
	piece(0, 0, 10, 0); /* of the past: acknowledged again, at once */
	expect_ack(1, 0);
	piece(2, 20, 10, 0);
	piece(2, 20, 10, 0); /* of the future */
	expect_ack(1, 1);
	assert_int_equal(tp_stats(p.tp)->rx_duplicate, 2);
	piece(1, 10, 10, 0);
	expect_read(30);
}

/* Every order of arrival, with every packet twice. */
static void any_order(void **state)
{
	struct sd_rng r;
	uint32_t base = 0;
	uint64_t off = 0;

	sd_rng_seed(&r, 3);
	for (unsigned round = 0; round < 300; round++) {
		unsigned n = 1 + (unsigned)sd_rng_below(&r, 200), order[400];

		if (off + n * 20 > sizeof bytes)
			break;
		for (unsigned i = 0; i < 2 * n; i++)
			order[i] = i % n;
		for (unsigned i = 2 * n - 1; i; i--) {
			unsigned k = (unsigned)sd_rng_below(&r, i + 1), swap = order[i];

			order[i] = order[k];
			order[k] = swap;
		}
		for (unsigned i = 0; i < 2 * n; i++)
			piece(base + order[i], off + order[i] * 20, 20, 0);
		base += n;
		off += n * 20;
		expect_read(n * 20);
		puppet_flush(&p);
		assert_int_equal(p.w.ack, q.isn + base);
	}
	assert_int_equal(tp_stats(p.tp)->rx_out_of_window, 0);
	assert_int_equal(tp_error(q.c), 0);
}

static void numbers_wrap(void **state)
{
	/* both packet numbers and the low half of offsets */
	q.c->rcv_nxt = 0xfffffffe;
	q.isn = 0xfffffffe;
	q.c->rcv_off = q.c->rcv_read = 0xffffff00;
	q.c->rcv_limit = q.c->rcv_off + q.c->rcv.size;
	for (unsigned i = 1; i < 100; i++)
		peer_data(&p, &q, q.isn + i, 0xffffff00ull + i * 64, bytes + i * 64, 64, 0);
	expect_ack(0, 2);
	assert_true(tp_wire_get_sack(&p.w, 0) == UINT64_MAX);
	peer_data(&p, &q, q.isn, 0xffffff00, bytes, 64, 0);
	assert_int_equal(tp_readable(q.c), 6400);
	expect_ack(100, 0);
	{
		static uint8_t buf[6400];

		assert_int_equal(tp_read(q.c, buf, sizeof buf), 6400);
		assert_memory_equal(buf, bytes, 6400);
	}
}

static void sending_wraps(void **state)
{
	struct tp_conn *c = q.c;

	c->snd_una = c->snd_nxt = c->recovery_end = c->round_end = c->ackreq_psn = 0xfffffff0;
	q.their_isn = 0xfffffff0;
	c->snd_acked = c->snd_sent = c->snd_end = 0xfffffff8;
	c->snd_limit = c->snd_end + 65536;
	q.window = c->snd_limit;
	c->cwnd = 64;
	for (unsigned i = 0; i < 30; i++) {
		write_bytes(i, 1);
		assert_true(puppet_output(&p));
		assert_int_equal(p.w.psn, 0xfffffff0u + i);
		assert_int_equal(p.w.offset, 0xfffffff8ull + i);
	}
	p.now += RTT;
	/* all but the one with PSN 0 */
	peer_ack(&p, &q, 0, &(uint64_t){(1 << 13) - 1}, 1, 0);
	assert_true(puppet_output(&p));
	assert_int_equal(p.w.psn, 0);
	assert_int_equal(p.w.offset, 0x100000008);
	assert_true(p.w.flags & WIRE_F_RETX);
	assert_memory_equal(p.w.payload, bytes + 16, 1);
	acknowledge(30);
	assert_int_equal(tp_unacked(c), 0);
	assert_true(p.events & TP_EV_DRAINED);
}

/* --- acknowledging --- */

static void acks_wait_a_little(void **state)
{
	piece(0, 0, 10, 0);
	assert_false(puppet_output(&p));
	assert_true(puppet_wait_output(&p, p.tp->cfg.ack_delay_ns));
	expect_ack(1, 0);
	assert_false(puppet_output(&p));
	piece(1, 10, 10, 0);
	write_bytes(0, 5);
	expect_data(0, 5); /* it rides on data */
	assert_int_equal(p.w.ack, q.isn + 2);
	assert_false(puppet_wait_output(&p, SD_MS / 2));
}

/* The first acknowledgement has ridden on data; the second one's time is its own. */
static void a_second_wait_after_a_ride(void **state)
{
	uint64_t delay = p.tp->cfg.ack_delay_ns;

	piece(0, 0, 10, 0);
	p.now += delay / 5;
	write_bytes(0, 5);
	expect_data(0, 5);
	p.now += delay / 5;
	piece(1, 10, 10, 0);
	assert_false(puppet_wait_output(&p, delay - 1));
	assert_true(puppet_wait_output(&p, 1));
	expect_ack(2, 0);
}

static void every_eighth_is_acknowledged_at_once(void **state)
{
	for (unsigned i = 0; i < 7; i++)
		piece(i, i, 1, 0);
	assert_false(puppet_output(&p));
	piece(7, 7, 1, 0);
	expect_ack(8, 0);
}

static void what_cannot_wait(void **state)
{
	piece(0, 0, 10, WIRE_F_ACKREQ);
	expect_ack(1, 0);
	p.ce = true;
	piece(1, 10, 10, 0);
	expect_ack(2, 0); /* the first mark */
	piece(2, 20, 10, 0);
	assert_false(puppet_output(&p));
	p.ce = false;
	piece(3, 30, 10, 0);
	expect_ack(4, 0); /* the last */
	assert_int_equal(p.w.ce_count, 2);
	piece(4, 40, 10, WIRE_F_FIN);
	expect_ack(5, 0);
	peer_ack(&p, &q, q.ack, NULL, 0, WIRE_F_ACKREQ);
	expect_ack(5, 0);
}

static void pure_acks_are_not_acknowledged(void **state)
{
	for (int i = 0; i < 100; i++)
		peer_ack(&p, &q, q.ack, NULL, 0, 0);
	assert_false(puppet_wait_output(&p, SD_S));
}

/* The echo is the timestamp of the newest packet plus the time it has waited here. */
static void echoed_timestamps(void **state)
{
	q.ts = 123456;
	piece(0, 0, 10, 0);
	p.now += 128 * 50;
	puppet_wait_output(&p, SD_MS);
	expect_ack(1, 0);
	assert_in_range(p.w.echo, 123456 + 50, 123456 + 50 + 500);
	assert_int_equal(p.w.ts, tp_timestamp(p.now));
}

/* --- windows --- */

static void the_window_follows_the_reader(void **state)
{
	uint32_t size = q.c->rcv.size;
	static uint8_t buf[1 << 16];
	unsigned n = 0;
	uint64_t off = 0;

	for (; off < size; off += 1024)
		piece(n++, off, 1024, 0);
	puppet_flush(&p);
	peer_ack(&p, &q, q.ack, NULL, 0, WIRE_F_ACKREQ);
	expect_ack(n, 0);
	assert_int_equal(p.w.window, size); /* shut */
	assert_int_equal(tp_read(q.c, buf, size / 4 - 1), size / 4 - 1);
	assert_false(puppet_output(&p));
	assert_int_equal(tp_read(q.c, buf, 1), 1); /* a quarter is worth a word */
	expect_ack(n, 0);
	assert_int_equal(p.w.window, size + size / 4);
}

/* An update that was due is not forgotten because a full packet acknowledged in its place. */
static void a_full_packet_does_not_hide_an_update(void **state)
{
	uint32_t size = q.c->rcv.size;
	static uint8_t buf[1 << 16];
	bool told = false;
	unsigned n = 0;

	write_bytes(0, 2 * MSS);
	expect_data(0, MSS);
	expect_data(MSS, MSS);
	for (uint64_t off = 0; off < size; off += 1024)
		piece(n++, off, 1024, 0);
	puppet_flush(&p);
	assert_int_equal(tp_read(q.c, buf, sizeof buf), size);
	p.now += RTT;
	q.c->probe_due = true; /* repeats a packet that has no room for the window */
	while (puppet_output(&p))
		told |= p.w.has_window && p.w.window == 2 * size;
	assert_true(told);
}

static void a_limited_sender_gets_a_larger_ring(void **state)
{
	uint32_t size = q.c->rcv.size;

	piece(0, 0, 1000, WIRE_F_LIMITED);
	expect_read(1000);
	assert_int_equal(q.c->rcv.size, 4 * size);
	puppet_flush(&p);
	/* bytes that wait in it move along */
	piece(1, 1000, 1000, 0);
	piece(3, 3000, 1000, WIRE_F_LIMITED);
	{
		static uint8_t buf[1000];

		assert_int_equal(tp_read(q.c, buf, 500), 500);
		assert_memory_equal(buf, bytes + 1000, 500);
	}
	assert_int_equal(q.c->rcv.size, 16 * size);
	piece(2, 2000, 1000, 0);
	assert_int_equal(tp_readable(q.c), 2500);
	{
		static uint8_t buf[2500];

		assert_int_equal(tp_read(q.c, buf, 2500), 2500);
		assert_memory_equal(buf, bytes + 1500, 2500);
	}
}

/* Short messages stay in the same few lines of the cache. */
static void an_empty_ring_begins_again(void **state)
{
	for (unsigned i = 0; i < 4; i++) {
		write_bytes(100 * i, 100);
		expect_data(100 * i, 100);
		assert_memory_equal(q.c->snd.data, bytes + 100 * i, 100);
		acknowledge(i + 1);
		piece(i, 100 * i, 100, 0);
		assert_memory_equal(q.c->rcv.data, bytes + 100 * i, 100);
		expect_read(100);
	}
}

/* From wherever the old one began. */
static void a_growing_send_ring_keeps_its_bytes(void **state)
{
	uint32_t size;

	write_bytes(0, 1000);
	expect_data(0, 1000);
	acknowledge(1);
	write_bytes(1000, 3000);
	size = q.c->snd.size;
	write_bytes(4000, size);
	assert_true(q.c->snd.size > size);
	for (uint64_t off = 1000; off < 4000; off += p.w.payload_len) {
		assert_true(puppet_output(&p));
		assert_int_equal(p.w.offset, off);
		assert_memory_equal(p.w.payload, bytes + off, p.w.payload_len);
	}
}

static void a_lazy_reader_gets_no_larger_ring(void **state)
{
	uint32_t size = q.c->rcv.size;
	uint8_t c;

	for (unsigned i = 0; i < size / 1024; i++)
		piece(i, i * 1024, 1024, WIRE_F_LIMITED);
	assert_int_equal(tp_read(q.c, &c, 1), 1);
	assert_int_equal(q.c->rcv.size, size);
}

static void rings_stay_in_their_bounds(void **state)
{
	uint32_t size = q.c->rcv.size;

	tp_set_buffers(q.c, size + 1, size + 1);
	for (unsigned i = 0; i < 8; i++) {
		piece(i, i * 100, 100, WIRE_F_LIMITED);
		expect_read(100);
	}
	assert_int_equal(q.c->rcv.size, 2 * size);
	assert_int_equal(tp_write(q.c, bytes, sizeof bytes), 2 * size);
	assert_int_equal(tp_write(q.c, bytes, 1), 0);
	assert_int_equal(tp_writable(q.c), 0);
}

/* Five seconds, and what a look at the connections takes. */
static void rest_for(uint64_t ns)
{
	for (uint64_t t = 0; t < ns; t += 100 * SD_MS) {
		puppet_wait(&p, 100 * SD_MS);
		peer_ack(&p, &q, q.their_isn, NULL, 0, 0); /* it lives */
		tp_refill(p.tp);
		puppet_flush(&p);
	}
}

static void empty_rings_are_given_back(void **state)
{
	piece(0, 0, 1000, 0);
	expect_read(1000);
	rest_for(4 * SD_S);
	assert_int_equal(p.rests, 0);
	rest_for(2 * SD_S);
	assert_int_equal(p.rests, 1); /* nothing was ever sent */
	rest_for(10 * SD_S);
	assert_int_equal(p.rests, 1);
	piece(1, 1000, 5000, 0);
	rest_for(10 * SD_S);
	assert_int_equal(p.rests, 1); /* not read yet */
	expect_read(5000);
	tp_refill(p.tp);
	assert_int_equal(p.rests, 1); /* read a moment ago, but silent for long: at the next look */
	rest_for(SD_S);
	assert_int_equal(p.rests, 2);
	/* With a gap there are bytes behind it. */
	piece(3, 6500, 500, 0);
	rest_for(10 * SD_S);
	assert_int_equal(p.rests, 2);
	piece(2, 6000, 500, 0);
	expect_read(1000);
	rest_for(10 * SD_S);
	assert_int_equal(p.rests, 3);
}

/* Who asks and waits for the answer needs no more room than for one packet, and whoever needed more gives it
 * back. */
static void room_for_packets_in_flight_is_given_back(void **state)
{
	size_t blocks;

	for (unsigned i = 0; i < 20; i++) {
		write_bytes(i, 1);
		assert_true(puppet_output(&p));
		acknowledge(i + 1);
	}
	assert_int_equal(q.c->sent_mask, 0);
	tp_refill(p.tp);
	blocks = p.blocks;
	write_bytes(20, 1);
	assert_true(puppet_output(&p));
	write_bytes(21, 1);
	assert_true(puppet_output(&p));
	assert_true(q.c->sent_mask > 0);
	rest_for(SD_S);
	assert_true(q.c->sent_mask > 0); /* not acknowledged yet */
	acknowledge(22);
	rest_for(12 * SD_S);
	assert_int_equal(q.c->sent_mask, 0);
	assert_int_equal(p.blocks, blocks);
	write_bytes(22, 1);
	assert_true(puppet_output(&p));
	assert_int_equal(p.w.psn, q.their_isn + 22);
}

static void a_fin_leaves_beside_a_lone_packet(void **state)
{
	write_bytes(0, 1);
	assert_true(puppet_output(&p));
	tp_shutdown(q.c);
	assert_true(puppet_output(&p));
	assert_true(p.w.flags & WIRE_F_FIN);
	assert_int_equal(p.w.psn, q.their_isn + 1);
}

static void without_memory_a_fin_waits(void **state)
{
	write_bytes(0, 1);
	assert_true(puppet_output(&p));
	p.no_memory = true;
	tp_shutdown(q.c);
	assert_false(puppet_output(&p));
	acknowledge(1);
	assert_true(puppet_output(&p));
	assert_true(p.w.flags & WIRE_F_FIN);
	p.no_memory = false;
}

static void unacknowledged_bytes_are_kept(void **state)
{
	write_bytes(0, 3000);
	puppet_flush(&p);
	puppet_wait(&p, 4 * SD_S);
	tp_refill(p.tp);
	puppet_flush(&p);
	assert_int_equal(p.rests, 0);
}

static void room_to_write_is_told(void **state)
{
	q.window = 4096;
	peer_ack(&p, &q, q.ack, NULL, 0, 0);
	tp_set_buffers(q.c, 16384, 0);
	assert_int_equal(tp_write(q.c, bytes, sizeof bytes), 16384);
	p.events = 0;
	puppet_flush(&p);
	q.window += 1 << 20;
	acknowledge(1);
	assert_false(p.events & TP_EV_WRITABLE); /* not for a packet's worth */
	puppet_flush(&p);
	acknowledge(5);
	assert_true(p.events & TP_EV_WRITABLE);
	p.events = 0;
	puppet_flush(&p);
	acknowledge((uint32_t)(q.c->snd_nxt - q.their_isn));
	assert_int_equal(p.events, TP_EV_DRAINED);
}

/* A window of the peer's making; the connection starts with 1 MiB. */
static void shut_window(uint64_t window)
{
	q.c->snd_limit = window;
	q.window = window;
}

static void a_shut_window_is_probed(void **state)
{
	unsigned probes = 0;

	shut_window(100);
	write_bytes(0, 100);
	expect_data(0, 100);
	acknowledge(1);
	puppet_flush(&p);
	write_bytes(100, 50); /* nothing is in flight that could bring news */
	assert_false(puppet_output(&p));
	for (uint64_t end = p.now + 60 * SD_S; p.now < end;) { /* for ever, as long as it answers */
		if (!puppet_wait_output(&p, end - p.now))
			break;
		assert_true(puppet_output(&p));
		assert_int_equal(p.w.type, WIRE_ACK);
		assert_true(p.w.flags & WIRE_F_ACKREQ);
		peer_ack(&p, &q, q.their_isn + 1, NULL, 0, 0);
		probes++;
	}
	assert_in_range(probes, 55, 75);
	assert_int_equal(tp_error(q.c), 0);
	q.window = 120;
	peer_ack(&p, &q, q.their_isn + 1, NULL, 0, 0);
	expect_data(100, 20); /* it is all there is, so it is used */
	assert_true(p.w.flags & WIRE_F_LIMITED);
	assert_true(p.w.flags & WIRE_F_ACKREQ);
}

static void no_silly_packets(void **state)
{
	shut_window(2 * MSS);
	write_bytes(0, 3 * MSS);
	expect_data(0, MSS);
	q.window = 2 * MSS + 10;
	acknowledge(1);
	expect_data(MSS, MSS);
	assert_false(
		puppet_output(&p)); /* ten bytes of window are not worth a packet while one is in flight */
	q.window = 3 * MSS;
	peer_ack(&p, &q, q.their_isn + 1, NULL, 0, 0);
	expect_data(2 * MSS, MSS);
}

/* --- small writes --- */

static void small_writes_leave_at_once(void **state)
{
	write_bytes(0, 1);
	expect_data(0, 1);
	write_bytes(1, 1);
	expect_data(1, 1);
}

static void cork(void **state)
{
	tp_set_cork(q.c, p.now, true);
	write_bytes(0, MSS + 10);
	expect_data(0, MSS); /* full packets go */
	assert_false(puppet_output(&p));
	write_bytes(MSS + 10, 10);
	assert_false(puppet_output(&p));
	tp_set_cork(q.c, p.now, false);
	expect_data(MSS, 20);
}

static void cork_ends_by_itself(void **state)
{
	uint64_t begin = p.now;

	tp_set_cork(q.c, p.now, true);
	write_bytes(0, 10);
	assert_true(puppet_wait_output(&p, SD_S));
	assert_in_range(p.now - begin, 200 * SD_MS, 201 * SD_MS);
	expect_data(0, 10);
	acknowledge(1);
	puppet_flush(&p);
	write_bytes(10, 10); /* the next one waits anew */
	assert_false(puppet_wait_output(&p, 199 * SD_MS));
	assert_true(puppet_wait_output(&p, 2 * SD_MS));
	expect_data(10, 10);
}

static void cork_ends_with_the_stream(void **state)
{
	tp_set_cork(q.c, p.now, true);
	write_bytes(0, 10);
	tp_shutdown(q.c);
	expect_data(0, 10);
	assert_true(p.w.flags & WIRE_F_FIN);
}

static void nagle(void **state)
{
	tp_set_nagle(q.c, true);
	write_bytes(0, 10);
	expect_data(0, 10);
	write_bytes(10, 10);
	write_bytes(20, 10);
	assert_false(puppet_output(&p));
	acknowledge(1);
	expect_data(10, 20);
	write_bytes(30, 10);
	tp_set_nagle(q.c, false);
	expect_data(30, 10);
}

static void bytes_after_the_end(void **state)
{
	tp_shutdown(q.c);
	assert_int_equal(tp_write(q.c, bytes, 1), -EPIPE);
	assert_int_equal(tp_writable(q.c), 0);
	expect_data(0, 0);
	assert_true(p.w.flags & WIRE_F_FIN);
	tp_shutdown(q.c);
	assert_false(puppet_output(&p));
	acknowledge(1);
	assert_int_equal(p.events, TP_EV_DRAINED);
	piece(0, 0, 10, 0); /* the other direction goes on */
	expect_read(10);
}

static void peeking(void **state)
{
	uint8_t buf[100];

	piece(0, 0, 100, 0);
	assert_int_equal(tp_peek(q.c, buf, 30, 0), 30);
	assert_memory_equal(buf, bytes, 30);
	assert_int_equal(tp_peek(q.c, buf, 30, 90), 10);
	assert_memory_equal(buf, bytes + 90, 10);
	assert_int_equal(tp_peek(q.c, buf, 30, 100), 0);
	assert_int_equal(tp_readable(q.c), 100);
}

static void counts(void **state)
{
	struct tp_info info;

	write_bytes(0, 100);
	assert_int_equal(tp_unsent(q.c), 100);
	assert_int_equal(tp_unacked(q.c), 100);
	expect_data(0, 100);
	assert_int_equal(tp_unsent(q.c), 0);
	assert_int_equal(tp_unacked(q.c), 100);
	tp_info(q.c, &info);
	assert_string_equal(info.state, "OPEN");
	assert_int_equal(info.bytes_sent, 100);
	assert_int_equal(info.bytes_acked, 0);
	assert_int_equal(info.in_flight, 1);
	acknowledge(1);
	tp_info(q.c, &info);
	assert_int_equal(info.bytes_acked, 100);
	assert_int_equal(info.in_flight, 0);
	assert_in_range(info.min_rtt_ns, 1, RTT + 256);
}

/* The clock of timestamps begins anew while a packet is under way. */
static void round_trips_across_the_wrap(void **state)
{
	uint64_t wrap = 3ull << (32 + 7); /* 2^32 units of 128 ns */
	struct tp_info info;

	assert_true(puppet_stop(&p));
	puppet_init(&p);
	p.now = wrap - RTT / 2;
	puppet_open(&p, &q);
	write_bytes(0, 1);
	assert_true(puppet_output(&p));
	assert_true(p.w.ts > UINT32_MAX - RTT / 128);
	acknowledge(1);
	assert_true(tp_timestamp(p.now) < RTT / 128);
	tp_info(q.c, &info);
	assert_in_range(info.srtt_ns, RTT / 8, RTT + 256);
	write_bytes(1, 1);
	assert_true(puppet_output(&p));
	assert_in_range(p.w.ts, 1, RTT / 128);
}

/* --- late and lost --- */

/* n packets of a byte each are in the network. */
static void in_flight(unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		write_bytes(i, 1);
		expect_data(i, 1);
	}
}

static void sack(uint32_t ack, uint64_t word)
{
	q.their_ts = tp_timestamp(p.now - RTT);
	peer_ack(&p, &q, q.their_isn + ack, &word, 1, 0);
}

static void measure(void)
{
	write_bytes(0, 1);
	assert_true(puppet_output(&p));
	acknowledge(1);
	puppet_flush(&p);
	q.their_isn++;
	q.c->snd_acked = q.c->snd_sent = q.c->snd_end = 0; /* so that the tests count from zero */
}

static void three_later_ones_say_lost(void **state)
{
	in_flight(5);
	p.now += RTT;
	sack(0, 1);
	sack(0, 3);
	assert_false(puppet_output(&p)); /* might be reordering */
	sack(0, 7);
	expect_data(0, 1);
	assert_true(p.w.flags & WIRE_F_RETX);
	assert_false(puppet_output(&p));
	assert_int_equal(tp_stats(p.tp)->retransmits, 1);
	acknowledge(5);
	assert_int_equal(q.c->sacked + q.c->lost + q.c->pipe, 0);
}

static void a_quarter_round_trip_says_lost(void **state)
{
	measure();
	in_flight(2);
	p.now += RTT;
	sack(0, 1);
	assert_false(puppet_output(&p));
	assert_true(puppet_wait_output(&p, RTT));
	expect_data(0, 1);
	assert_true(p.w.flags & WIRE_F_RETX);
}

static void late_is_not_lost(void **state)
{
	measure();
	in_flight(8);
	p.now += RTT;
	sack(0, 1);
	peer_ack(&p, &q, q.their_isn + 2, NULL, 0, 0); /* there it is */
	assert_false(puppet_wait_output(&p, RTT / 2));
	assert_int_equal(q.c->reorder_steps, 1);
	sack(2, 1 << 3 | 1 << 2 | 1 << 1); /* from now on three later ones are not enough */
	assert_false(puppet_output(&p));
}

static void mistakes_are_undone(void **state)
{
	uint32_t window;
	uint32_t first;

	measure();
	in_flight(7);
	window = q.c->cwnd;
	p.now += RTT;
	first = tp_timestamp(p.now - RTT);
	sack(0, 7);
	expect_data(0, 1);
	assert_true(q.c->cwnd < window);
	p.now += 10 * SD_US;
	q.their_ts = first; /* what arrived is the first transmission */
	peer_ack(&p, &q, q.their_isn + 4, NULL, 0, 0);
	assert_true(q.c->cwnd >= window);
	assert_int_equal(tp_stats(p.tp)->spurious_retransmits, 1);
}

static void a_lost_retransmission_is_noticed(void **state)
{
	measure();
	in_flight(6);
	p.now += RTT;
	sack(0, 7);
	expect_data(0, 1); /* and lost again */
	p.now += 10 * SD_US;
	write_bytes(6, 1);
	expect_data(6, 1);
	p.now += RTT;
	sack(0, 0x3f); /* what was sent after it has arrived */
	puppet_wait_output(&p, RTT);
	expect_data(0, 1);
}

static void the_tail_is_probed(void **state)
{
	uint64_t begin;

	measure();
	in_flight(3);
	begin = p.now;
	assert_true(puppet_wait_output(&p, SD_S));
	assert_in_range(p.now - begin, SD_MS / 8 * 7, SD_MS / 8 * 7 + 50 * SD_US); /* 1 ms, and one answer */
	expect_data(2, 1);							   /* the newest first */
	assert_true(p.w.flags & WIRE_F_ACKREQ);
	assert_int_equal(tp_stats(p.tp)->tail_probes, 1);
	p.now += RTT;
	sack(0, 3); /* it tells that one is missing */
	puppet_wait_output(&p, RTT);
	expect_data(0, 1);
	acknowledge(3);
	assert_false(puppet_wait_output(&p, SD_S));
}

static void probes_slow_down(void **state)
{
	uint64_t last, gap = 0;

	measure();
	in_flight(2);
	last = p.now;
	for (unsigned i = 0; i < 8; i++) {
		assert_true(puppet_wait_output(&p, 5 * SD_S));
		assert_true(i < 2 || (p.now - last > gap * 3 / 2 && p.now - last < gap * 5 / 2) ||
			    p.now - last > SD_S / 2);
		gap = p.now - last;
		last = p.now;
		if (i)
			expect_data(0, 1); /* the oldest, which frees most */
		else
			expect_data(1, 1);
	}
	assert_true(gap <= SD_S + SD_MS);
	assert_int_equal(tp_stats(p.tp)->timeouts, 7);
	assert_int_equal(q.c->lost, 0); /* timeouts conclude nothing */
}

/* A sender that the congestion window stops asks for an answer. */
static void a_full_window_asks(void **state)
{
	unsigned n = 0, asked = 0;

	q.c->cwnd = 16;
	for (unsigned i = 0; i < 30; i++) {
		write_bytes(i, 1);
		if (puppet_output(&p)) {
			asked += (p.w.flags & WIRE_F_ACKREQ) != 0;
			n++;
		}
	}
	assert_int_equal(n, 16);
	assert_in_range(asked, 1, 3);
	acknowledge(16);
	assert_true(puppet_output(&p));
	assert_int_equal(p.w.payload_len, 14); /* what has piled up leaves in one packet */
}

static void the_peers_memory_is_respected(void **state)
{
	unsigned n = 0;

	q.c->cwnd = 1000;
	q.c->snd_window = 7;
	for (unsigned i = 0; i < 30; i++) {
		write_bytes(i, 1);
		n += puppet_output(&p);
	}
	assert_int_equal(n, 7);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, open_conn, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(delay_of_the_network_counts),
		CASE(delay_by_the_peers_scheduler_does_not),
		CASE(delay_by_our_scheduler_does_not),
		CASE(lateness_is_told),
		CASE(in_order),
		CASE(out_of_order),
		CASE(duplicates),
		CASE(any_order),
		CASE(numbers_wrap),
		CASE(sending_wraps),
		CASE(round_trips_across_the_wrap),
		CASE(acks_wait_a_little),
		CASE(a_second_wait_after_a_ride),
		CASE(every_eighth_is_acknowledged_at_once),
		CASE(what_cannot_wait),
		CASE(pure_acks_are_not_acknowledged),
		CASE(echoed_timestamps),
		CASE(the_window_follows_the_reader),
		CASE(a_full_packet_does_not_hide_an_update),
		CASE(a_limited_sender_gets_a_larger_ring),
		CASE(an_empty_ring_begins_again),
		CASE(a_growing_send_ring_keeps_its_bytes),
		CASE(a_lazy_reader_gets_no_larger_ring),
		CASE(rings_stay_in_their_bounds),
		CASE(empty_rings_are_given_back),
		CASE(room_for_packets_in_flight_is_given_back),
		CASE(a_fin_leaves_beside_a_lone_packet),
		CASE(without_memory_a_fin_waits),
		CASE(unacknowledged_bytes_are_kept),
		CASE(room_to_write_is_told),
		CASE(a_shut_window_is_probed),
		CASE(no_silly_packets),
		CASE(small_writes_leave_at_once),
		CASE(cork),
		CASE(cork_ends_by_itself),
		CASE(cork_ends_with_the_stream),
		CASE(nagle),
		CASE(bytes_after_the_end),
		CASE(peeking),
		CASE(counts),
		CASE(three_later_ones_say_lost),
		CASE(a_quarter_round_trip_says_lost),
		CASE(late_is_not_lost),
		CASE(mistakes_are_undone),
		CASE(a_lost_retransmission_is_noticed),
		CASE(the_tail_is_probed),
		CASE(probes_slow_down),
		CASE(a_full_window_asks),
		CASE(the_peers_memory_is_respected),
	};

	return cmocka_run_group_tests_name("transport_stream", tests, NULL, NULL);
}
