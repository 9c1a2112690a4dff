/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How connections begin and are refused, and what is asked and told without one: handshake, cookies, tokens,
 * FIND and HELLO; packet by packet.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "puppet.h"
#include "transport/verbs.h"

static struct puppet p;

static int start(void **state)
{
	puppet_init(&p);
	puppet_start(&p);
	return 0;
}

static int stop(void **state)
{
	assert_true(puppet_stop(&p));
	return 0;
}

static struct tp_path path_to(uint16_t port)
{
	struct tp_path path = {.local = p.local, .peer = p.peer, .max_payload = p.max_payload};

	path.local.port = 30000;
	path.peer.port = port;
	return path;
}

static struct tp_conn *begin_connect(void)
{
	struct tp_path path = path_to(PUPPET_PORT);
	struct tp_conn *c;

	assert_int_equal(tp_connect(p.tp, p.now, &path, &p, &c), 0);
	return c;
}

static void send_init(struct peer *q, const uint8_t cookie[16], uint8_t attempt)
{
	uint8_t buf[WIRE_CONTROL_MAX];

	peer_put_init(&p, q, cookie, buf);
	buf[2] = attempt;
	puppet_input(&p, buf, tp_wire_seal(buf, WIRE_INIT_LEN));
}

/* What the endpoint answers; 0: nothing. */
static unsigned answer(void)
{
	return puppet_output(&p) ? tp_wire_type(p.out) : 0;
}

static void impossible_configurations(void **state)
{
	static const struct tp_config bad[] = {{.max_conns = (1 << 20) + 1}, {.window_packets = 2048},
		{.window_packets = 100}, {.window_packets = 16}, {.ring_min = 5000}, {.ring_min = 2048},
		{.ring_max = 100000}, {.ring_min = 65536, .ring_max = 32768}, {.ring_max = 1u << 31}};
	struct puppet other;

	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
		puppet_init(&other);
		other.cfg = bad[i];
		other.cfg.size = sizeof other.cfg;
		assert_int_equal(puppet_create(&other), -EINVAL);
		assert_int_equal(other.blocks, 0);
	}
}

/* Memory runs out after each number of blocks: all that was taken is given back. */
static void creation_without_memory(void **state)
{
	struct sd_addr any = {.family = 4, .port = PUPPET_PORT};
	struct puppet other;
	struct peer q;
	unsigned n = 1;

	for (;; n++) {
		puppet_init(&other);
		other.allocs_left = n;
		if (!puppet_create(&other))
			break;
		assert_int_equal(other.blocks, 0);
	}
	assert_true(n > 4);
	for (n = 1;; n++) {
		size_t blocks = other.blocks;

		other.allocs_left = n;
		if (!tp_listen(other.tp, &any, 8, NULL, &other.listener))
			break;
		assert_null(tp_listener_find(other.tp, &any, false));
		assert_true(other.blocks >= blocks); /* what went into the store stays there */
	}
	other.allocs_left = 1;
	assert_true(peer_connect(&other, &q, 1)); /* from the store */
	assert_true(puppet_stop(&other));
}

static void a_path_too_narrow(void **state)
{
	struct tp_path path = path_to(PUPPET_PORT);
	struct tp_conn *c;
	struct peer q;

	path.max_payload = WIRE_MIN_PAYLOAD - 1;
	assert_int_equal(tp_connect(p.tp, p.now, &path, NULL, &c), -EINVAL);
	puppet_listen(&p, 8);
	peer_init(&p, &q, 1);
	send_init(&q, NULL, 0);
	assert_int_equal(answer(), WIRE_INIT_ACK);
	p.max_payload = WIRE_MIN_PAYLOAD - 1; /* the way back */
	q.cid++;
	{
		uint8_t buf[WIRE_CONTROL_MAX];

		peer_put_init(&p, &q, NULL, buf);
		be16_put(buf + 56, 1472);
		puppet_input(&p, buf, tp_wire_seal(buf, WIRE_INIT_LEN));
	}
	assert_false(tp_output_pending(p.tp));
}

static void responds_in_one_round_trip(void **state)
{
	struct peer q;

	puppet_listen(&p, 8);
	peer_init(&p, &q, 1);
	send_init(&q, NULL, 0);
	assert_int_equal(answer(), WIRE_INIT_ACK);
	assert_int_equal(p.out_len, WIRE_INIT_LEN + WIRE_CRC_LEN); /* as long as INIT */
	assert_true(peer_learn(&p, &q));
	assert_int_equal(p.acceptable, 0);
	assert_false(tp_acceptable(p.listener));
	peer_send(&p, &q, "hello", 5, 0);
	assert_int_equal(p.acceptable, 1);
	q.c = tp_accept(p.listener, &q);
	assert_non_null(q.c);
	assert_true(tp_is_open(q.c));
	assert_int_equal(tp_readable(q.c), 5);
	assert_int_equal(tp_stats(p.tp)->conns_accepted, 1);
}

static void initiates_in_one_round_trip(void **state)
{
	struct peer q;

	assert_true(peer_accept(&p, &q, 1));
	assert_true(p.events & TP_EV_OPEN);
	assert_int_equal(tp_wire_type(p.out), WIRE_ACK); /* at once, so that the responder knows */
	assert_int_equal(p.w.ack, q.isn);
	assert_int_equal(p.w.psn, q.ack);
}

static void bytes_written_before_it_is_open(void **state)
{
	struct tp_conn *c = begin_connect();
	struct wire_init i = {.src_cid = 99, .max_payload = 1472, .window_packets = 64, .window = 65536};
	uint8_t buf[WIRE_CONTROL_MAX];
	struct peer q = {.cid = 99};

	assert_int_equal(tp_write(c, "early", 5), 5);
	assert_int_equal(answer(), WIRE_INIT);
	assert_false(puppet_output(&p));
	peer_learn(&p, &q);
	i.dst_cid = q.their_cid;
	i.nonce = q.nonce;
	puppet_input(&p, buf, tp_wire_put_init(buf, WIRE_INIT_ACK, &i));
	assert_int_equal(answer(), WIRE_DATA);
	assert_int_equal(p.w.payload_len, 5);
}

static void asks_again_ever_more_slowly(void **state)
{
	static const unsigned ms[] = {2, 4, 8, 16, 32, 50, 50};
	uint64_t last = p.now;
	struct wire_init i;

	begin_connect();
	assert_int_equal(answer(), WIRE_INIT);
	for (unsigned k = 0; k < sizeof ms / sizeof *ms; k++) {
		assert_true(puppet_wait_output(&p, SD_S));
		assert_in_range(p.now - last, ms[k] * SD_MS, ms[k] * SD_MS + 100 * SD_US);
		last = p.now;
		assert_int_equal(answer(), WIRE_INIT);
		assert_true(tp_wire_get_init(p.out, p.out_len, &i));
		assert_int_equal(i.attempt, k + 1);
	}
}

static void gives_up_connecting(void **state)
{
	struct tp_conn *c = begin_connect();

	puppet_wait(&p, 199 * SD_MS);
	assert_int_equal(p.events, 0);
	puppet_wait(&p, 2 * SD_MS);
	assert_int_equal(p.events, TP_EV_FAILED);
	assert_int_equal(tp_error(c), -ETIMEDOUT);
	assert_int_equal(tp_write(c, "x", 1), -ETIMEDOUT);
	tp_close(c, p.now, false);
}

static void refuses_without_a_listener(void **state)
{
	struct wire_nak n;
	struct peer q;

	peer_init(&p, &q, 1);
	send_init(&q, NULL, 0);
	assert_int_equal(answer(), WIRE_INIT_NAK);
	assert_true(p.out_len < WIRE_INIT_LEN);
	assert_true(tp_wire_get_nak(p.out, p.out_len, &n));
	assert_int_equal(n.code, TP_NO_LISTENER);
	assert_int_equal(n.dst_cid, q.cid);
	assert_int_equal(n.nonce, q.nonce);
}

static void takes_a_refusal_only_with_the_nonce(void **state)
{
	struct tp_conn *c = begin_connect();
	struct wire_nak n = {.code = TP_REFUSED};
	uint8_t buf[WIRE_CONTROL_MAX];
	struct peer q = {0};

	assert_int_equal(answer(), WIRE_INIT);
	peer_learn(&p, &q);
	n.dst_cid = q.their_cid;
	n.nonce = q.nonce + 1;
	puppet_input(&p, buf, tp_wire_put_nak(buf, &n));
	assert_int_equal(p.events, 0);
	assert_int_equal(tp_stats(p.tp)->rx_bad_token, 1);
	n.nonce = q.nonce;
	puppet_input(&p, buf, tp_wire_put_nak(buf, &n));
	assert_int_equal(p.events, TP_EV_FAILED);
	assert_int_equal(tp_error(c), -ECONNREFUSED);
	assert_int_equal(tp_connect_code(c), TP_REFUSED);
}

static void takes_an_answer_only_with_the_nonce(void **state)
{
	struct tp_conn *c = begin_connect();
	struct wire_init i = {.src_cid = 99, .max_payload = 1472, .window_packets = 64};
	uint8_t buf[WIRE_CONTROL_MAX];
	struct peer q = {0};

	assert_int_equal(answer(), WIRE_INIT);
	peer_learn(&p, &q);
	i.dst_cid = q.their_cid;
	i.nonce = ~q.nonce;
	puppet_input(&p, buf, tp_wire_put_init(buf, WIRE_INIT_ACK, &i));
	assert_false(tp_is_open(c));
	assert_int_equal(tp_stats(p.tp)->rx_bad_token, 1);
}

static void full_backlog(void **state)
{
	struct wire_nak n;
	struct peer q, r;

	puppet_listen(&p, 1);
	peer_init(&p, &q, 1);
	send_init(&q, NULL, 0);
	assert_int_equal(answer(), WIRE_INIT_ACK);
	peer_learn(&p, &q);
	peer_ack(&p, &q, q.ack, NULL, 0, 0);
	peer_init(&p, &r, 2);
	for (uint8_t attempt = 0; attempt < 4; attempt++) { /* a little patience */
		send_init(&r, NULL, attempt);
		assert_int_equal(answer(), 0);
	}
	send_init(&r, NULL, 4);
	assert_int_equal(answer(), WIRE_INIT_NAK);
	assert_true(tp_wire_get_nak(p.out, p.out_len, &n));
	assert_int_equal(n.code, TP_REFUSED);
	assert_non_null(tp_accept(p.listener, NULL));
	send_init(&r, NULL, 5);
	assert_int_equal(answer(), WIRE_INIT_ACK);
}

static void repeated_init_is_the_same_connection(void **state)
{
	struct peer q, again;

	puppet_listen(&p, 8);
	peer_init(&p, &q, 1);
	send_init(&q, NULL, 0);
	assert_int_equal(answer(), WIRE_INIT_ACK);
	peer_learn(&p, &q);
	again = q;
	send_init(&q, NULL, 1);
	assert_int_equal(answer(), WIRE_INIT_ACK);
	peer_learn(&p, &again);
	assert_int_equal(again.their_cid, q.their_cid);
	peer_ack(&p, &q, q.ack, NULL, 0, 0);
	send_init(&q, NULL, 2); /* even when it is open */
	assert_int_equal(answer(), WIRE_INIT_ACK);
	assert_non_null(tp_accept(p.listener, NULL));
	assert_null(tp_accept(p.listener, NULL));
	/* another nonce is another connection */
	q.nonce++;
	send_init(&q, NULL, 0);
	assert_int_equal(answer(), WIRE_INIT_ACK);
	peer_learn(&p, &again);
	assert_int_not_equal(again.their_cid, q.their_cid);
}

static void repeated_answer_is_confirmed(void **state)
{
	struct wire_init i = {.max_payload = 1472, .window_packets = 64};
	uint8_t buf[WIRE_CONTROL_MAX];
	struct peer q;

	assert_true(peer_accept(&p, &q, 1));
	i.src_cid = q.cid;
	i.dst_cid = q.their_cid;
	i.nonce = q.nonce;
	puppet_input(&p, buf, tp_wire_put_init(buf, WIRE_INIT_ACK, &i));
	assert_int_equal(answer(), WIRE_ACK);
}

/* If our first packet is lost, the responder's application would never see the connection. */
static void silence_after_the_answer_is_probed(void **state)
{
	struct peer q;

	assert_true(peer_accept(&p, &q, 1));
	assert_true(puppet_wait_output(&p, 100 * SD_MS));
	assert_int_equal(answer(), WIRE_ACK);
	assert_true(p.w.flags & WIRE_F_ACKREQ);
	peer_ack(&p, &q, q.ack, NULL, 0, 0);
	assert_false(puppet_wait_output(&p, 100 * SD_MS));
}

static void other_versions(void **state)
{
	uint8_t buf[WIRE_CONTROL_MAX];
	struct wire_nak n;
	struct peer q;

	puppet_listen(&p, 8);
	peer_init(&p, &q, 1);
	peer_put_init(&p, &q, NULL, buf);
	buf[0] = 2 << 4 | WIRE_INIT;
	puppet_input(&p, buf, tp_wire_seal(buf, WIRE_INIT_LEN));
	assert_int_equal(answer(), WIRE_INIT_NAK);
	assert_true(tp_wire_get_nak(p.out, p.out_len, &n));
	assert_int_equal(n.code, TP_VERSION);
	buf[0] = 2 << 4 | WIRE_INIT_ACK; /* only INIT is answered */
	puppet_input(&p, buf, tp_wire_seal(buf, WIRE_INIT_LEN));
	assert_int_equal(answer(), 0);
}

static void half_open_ones_expire(void **state)
{
	struct peer q;

	puppet_listen(&p, 8);
	peer_init(&p, &q, 1);
	send_init(&q, NULL, 0);
	assert_int_equal(answer(), WIRE_INIT_ACK);
	peer_learn(&p, &q);
	puppet_wait(&p, SD_S);
	assert_int_equal(p.tp->half_open, 1);
	puppet_wait(&p, SD_S);
	assert_int_equal(p.tp->half_open, 0);
	assert_int_equal(p.tp->conn_count, 0);
	peer_ack(&p, &q, q.ack, NULL, 0, 0);
	assert_false(tp_acceptable(p.listener));
	assert_int_equal(answer(), WIRE_RESET);
}

static void no_more_than_max_conns(void **state)
{
	struct wire_nak n;
	struct peer q;

	puppet_stop(&p);
	p.cfg.max_conns = 1;
	puppet_start(&p);
	puppet_listen(&p, 8);
	assert_true(peer_connect(&p, &q, 1));
	puppet_flush(&p);
	peer_init(&p, &q, 2);
	send_init(&q, NULL, 0);
	assert_int_equal(answer(), WIRE_INIT_NAK);
	assert_true(tp_wire_get_nak(p.out, p.out_len, &n));
	assert_int_equal(n.code, TP_BUSY);
	assert_int_equal(
		tp_connect(p.tp, p.now, &(struct tp_path){.max_payload = 1472}, NULL, &q.c), -ENOBUFS);
}

static void no_memory(void **state)
{
	struct tp_path path = path_to(PUPPET_PORT);
	struct sd_addr any = {.family = 4, .port = 81};
	struct tp_listener *l;
	struct tp_ring ring[8];
	struct tp_conn *c;
	unsigned n = 0;

	p.no_memory = true;
	assert_int_equal(tp_connect(p.tp, p.now, &path, NULL, &c), -ENOMEM);
	assert_int_equal(tp_listen(p.tp, &any, 8, NULL, &l), -ENOMEM);
	p.no_memory = false;
	c = begin_connect();
	p.no_memory = true;
	while (tp_pool_ring(p.tp, &ring[n]))
		n++;
	assert_int_equal(tp_write(c, "x", 1), -ENOMEM);
	while (n)
		tp_pool_ring_put(p.tp, &ring[--n]);
	p.no_memory = false;
	assert_int_equal(tp_write(c, "x", 1), 1);
}

/* The smaller of both ends' limits counts. */
static void limits_are_negotiated(void **state)
{
	static uint8_t data[2000];
	struct peer q;

	puppet_listen(&p, 8);
	p.max_payload = 600; /* the peer says so; our own path is 1472 */
	peer_init(&p, &q, 1);
	{
		uint8_t buf[WIRE_CONTROL_MAX];
		size_t len = peer_put_init(&p, &q, NULL, buf);

		p.max_payload = 1472;
		puppet_input(&p, buf, len);
	}
	assert_int_equal(answer(), WIRE_INIT_ACK);
	peer_learn(&p, &q);
	peer_ack(&p, &q, q.ack, NULL, 0, 0);
	q.c = tp_accept(p.listener, &q);
	assert_int_equal(tp_write(q.c, data, sizeof data), sizeof data);
	assert_int_equal(answer(), WIRE_DATA);
	assert_int_equal(p.out_len, 600);
}

/* --- cookies --- */

static void take_cookie(const struct peer *q, uint8_t out[16])
{
	struct wire_cookie k;

	assert_int_equal(answer(), WIRE_COOKIE);
	assert_true(p.out_len < WIRE_INIT_LEN);
	assert_true(tp_wire_get_cookie(p.out, p.out_len, &k));
	assert_int_equal(k.dst_cid, q->cid);
	assert_int_equal(k.nonce, q->nonce);
	memcpy(out, k.cookie, 16);
}

/* n half-open connections that will never be more. */
static void flood(unsigned n)
{
	struct peer q;

	for (unsigned i = 0; i < n; i++) {
		peer_init(&p, &q, 1000 + i);
		send_init(&q, NULL, 0);
		assert_int_equal(answer(), WIRE_INIT_ACK);
		tp_refill(p.tp);
	}
}

static void a_flood_gets_cookies(void **state)
{
	uint8_t cookie[16], other[16];
	struct peer q;

	puppet_listen(&p, 4096);
	flood(TP_HALF_OPEN_MAX);
	peer_init(&p, &q, 1);
	send_init(&q, NULL, 0);
	take_cookie(&q, cookie);
	assert_int_equal(p.tp->half_open, TP_HALF_OPEN_MAX);
	cookie[3] ^= 1;
	send_init(&q, cookie, 1); /* wrong: another one */
	take_cookie(&q, other);
	cookie[3] ^= 1;
	assert_memory_equal(cookie, other, 16);
	p.peer.ip[3]++;
	send_init(&q, cookie, 1); /* not of this address */
	take_cookie(&q, other);
	p.peer.ip[3]--;
	puppet_wait(&p, 4 * SD_S);
	flood(TP_HALF_OPEN_MAX); /* the first ones have expired */
	send_init(&q, cookie, 2);
	assert_int_equal(answer(), WIRE_INIT_ACK);
	peer_learn(&p, &q);
	assert_false(tp_acceptable(p.listener)); /* a replayed INIT with cookie makes no connection */
	peer_ack(&p, &q, q.ack, NULL, 0, 0);
	assert_non_null(tp_accept(p.listener, NULL));
}

static void cookies_expire(void **state)
{
	uint8_t cookie[16], other[16];
	struct peer q;

	puppet_listen(&p, 4096);
	flood(TP_HALF_OPEN_MAX);
	peer_init(&p, &q, 1);
	send_init(&q, NULL, 0);
	take_cookie(&q, cookie);
	puppet_wait(&p, 9 * SD_S);
	flood(TP_HALF_OPEN_MAX);
	send_init(&q, cookie, 1);
	take_cookie(&q, other);
	assert_memory_not_equal(cookie, other, 16);
}

static void one_listener_cannot_be_filled_by_liars(void **state)
{
	uint8_t cookie[16];
	struct peer q;

	puppet_listen(&p, 2);
	flood(2);
	peer_init(&p, &q, 1);
	send_init(&q, NULL, 0);
	take_cookie(&q, cookie);
	send_init(&q, cookie, 1);
	assert_int_equal(answer(), WIRE_INIT_ACK);
	for (unsigned i = 0; i < 10; i++) { /* nor is it filled without end by those who tell the truth */
		peer_init(&p, &q, 10 + i);
		send_init(&q, NULL, 0);
		take_cookie(&q, cookie);
		send_init(&q, cookie, 1);
		answer();
		tp_refill(p.tp);
	}
	assert_int_equal(p.listener->half_count, 4);
}

static void brings_a_cookie_back(void **state)
{
	struct wire_cookie k = {.cookie = {1, 2, 3}};
	uint8_t buf[WIRE_CONTROL_MAX];
	struct wire_init i;
	struct peer q = {0};

	begin_connect();
	assert_int_equal(answer(), WIRE_INIT);
	peer_learn(&p, &q);
	k.dst_cid = q.their_cid;
	k.nonce = q.nonce + 1;
	puppet_input(&p, buf, tp_wire_put_cookie(buf, &k)); /* not to our INIT */
	assert_int_equal(answer(), 0);
	k.nonce = q.nonce;
	puppet_input(&p, buf, tp_wire_put_cookie(buf, &k));
	assert_int_equal(answer(), WIRE_INIT);
	assert_true(tp_wire_get_init(p.out, p.out_len, &i));
	assert_memory_equal(i.cookie, k.cookie, 16);
	puppet_input(&p, buf, tp_wire_put_cookie(buf, &k)); /* the same once more: its INIT is on its way */
	assert_int_equal(answer(), 0);
}

/* --- listeners --- */

static void the_most_specific_listener_takes_it(void **state)
{
	struct sd_addr any4 = {.family = 4, .port = 80}, any6 = {.family = 6, .port = 80}, own = p.local,
		       port = any6;
	struct tp_listener *l4, *l6, *lo;

	own.port = 80;
	port.port = 80 + TP_PORT_BUCKETS; /* the same bucket, another port */
	assert_int_equal(tp_listen(p.tp, &port, 1, NULL, &lo), 0);
	assert_null(tp_listener_find(p.tp, &own, false));
	assert_int_equal(tp_listen(p.tp, &any6, 1, NULL, &l6), 0);
	assert_ptr_equal(tp_listener_find(p.tp, &own, false), l6); /* a dual-stack wildcard */
	assert_int_equal(tp_listen(p.tp, &any4, 1, NULL, &l4), 0);
	assert_ptr_equal(tp_listener_find(p.tp, &own, false), l4);
	assert_int_equal(tp_listen(p.tp, &own, 1, NULL, &lo), 0);
	assert_ptr_equal(tp_listener_find(p.tp, &own, false), lo);
	assert_int_equal(tp_listen(p.tp, &own, 1, NULL, &lo), -EADDRINUSE);
	tp_listener_close(lo);
	assert_ptr_equal(tp_listener_find(p.tp, &own, false), l4);
	own.ip[3]++;
	assert_ptr_equal(tp_listener_find(p.tp, &own, false), l4);
	own.family = 6;
	assert_ptr_equal(tp_listener_find(p.tp, &own, false), l6);
}

static void closing_a_listener_resets_what_waits(void **state)
{
	struct peer q, half;

	puppet_listen(&p, 8);
	peer_init(&p, &q, 1);
	send_init(&q, NULL, 0);
	assert_int_equal(answer(), WIRE_INIT_ACK);
	peer_learn(&p, &q);
	peer_ack(&p, &q, q.ack, NULL, 0, 0);
	peer_init(&p, &half, 2);
	send_init(&half, NULL, 0);
	assert_int_equal(answer(), WIRE_INIT_ACK);
	puppet_flush(&p);
	tp_listener_close(p.listener);
	assert_int_equal(answer(), WIRE_RESET);
	assert_int_equal(answer(), WIRE_RESET);
	assert_int_equal(p.tp->conn_count, 0);
	assert_int_equal(p.tp->half_open, 0);
}

/* The peer gave up before anyone accepted. */
static void a_dead_connection_can_be_accepted(void **state)
{
	struct peer q;

	puppet_listen(&p, 8);
	peer_init(&p, &q, 1);
	send_init(&q, NULL, 0);
	answer();
	peer_learn(&p, &q);
	peer_send(&p, &q, "bye", 3, 0);
	peer_reset(&p, &q, WIRE_RESET_ABORT, q.token);
	q.c = tp_accept(p.listener, NULL);
	assert_non_null(q.c);
	assert_int_equal(tp_error(q.c), -ECONNRESET);
	assert_int_equal(tp_readable(q.c), 3);
	tp_close(q.c, p.now, false);
}

/* --- tokens --- */

static void reset_needs_the_token(void **state)
{
	uint8_t wrong[16];
	struct peer q;

	assert_true(peer_accept(&p, &q, 1));
	p.events = 0;
	for (int i = 0; i < 16; i++) {
		memcpy(wrong, q.token, 16);
		wrong[i] ^= 0x80;
		peer_reset(&p, &q, WIRE_RESET_ABORT, wrong);
	}
	assert_int_equal(p.events, 0);
	assert_int_equal(tp_stats(p.tp)->rx_bad_token, 16);
	peer_reset(&p, &q, WIRE_RESET_ABORT, q.token);
	assert_int_equal(p.events, TP_EV_FAILED);
	assert_int_equal(tp_error(q.c), -ECONNRESET);
	assert_false(puppet_output(&p)); /* RESET is never answered */
	peer_reset(&p, &q, WIRE_RESET_ABORT, q.token);
	assert_false(puppet_output(&p));
}

static void abort_tells_with_the_token(void **state)
{
	struct wire_reset_packet r;
	struct peer q;

	assert_true(peer_accept(&p, &q, 1));
	tp_close(q.c, p.now, true);
	assert_int_equal(answer(), WIRE_RESET);
	assert_true(tp_wire_get_reset(p.out, p.out_len, &r));
	assert_int_equal(r.reason, WIRE_RESET_ABORT);
	assert_int_equal(r.src_cid, q.their_cid);
	assert_memory_equal(r.token, q.their_token, 16);
	assert_int_equal(p.tp->conn_count, 0);
}

/* A restarted host knows none of its connections, but its node key makes the tokens it gave out. */
static void a_restarted_host_resets_with_the_old_token(void **state)
{
	struct wire_reset_packet r;
	struct peer q;

	assert_true(peer_accept(&p, &q, 1));
	puppet_stop(&p);
	p.cfg.seed[0] = 99;
	puppet_start(&p);
	peer_ack(&p, &q, q.ack, NULL, 0, 0);
	assert_int_equal(answer(), WIRE_RESET);
	assert_true(p.out_len < WIRE_BASE_LEN + WIRE_ACK_LEN + WIRE_CRC_LEN); /* shorter than its cause */
	assert_true(tp_wire_get_reset(p.out, p.out_len, &r));
	assert_int_equal(r.reason, WIRE_RESET_UNKNOWN);
	assert_int_equal(r.src_cid, q.their_cid);
	assert_memory_equal(r.token, q.their_token, 16);
}

static void unknown_connections_are_answered_at_a_limited_rate(void **state)
{
	struct peer q = {.their_cid = 0x1234567800000001, .crc = true};
	unsigned n = 0;

	for (int i = 0; i < 1000; i++) {
		peer_ack(&p, &q, 0, NULL, 0, 0);
		n += puppet_flush(&p);
	}
	assert_in_range(n, 1, 256);
	puppet_wait(&p, SD_MS); /* ten more in a millisecond */
	for (int i = 0; i < 1000; i++) {
		peer_ack(&p, &q, 0, NULL, 0, 0);
		n += puppet_flush(&p);
	}
	assert_in_range(n, 10, 270);
	assert_int_equal(tp_stats(p.tp)->rx_unknown_cid, 2000);
}

/* So that the answer is never longer. */
static void short_packets_of_nobody_are_not_answered(void **state)
{
	uint8_t buf[WIRE_BASE_LEN + WIRE_CRC_LEN + 1] = {WIRE_VERSION << 4 | WIRE_ACK};

	puppet_input(&p, buf, tp_wire_seal(buf, WIRE_BASE_LEN));
	assert_int_equal(answer(), 0);
	puppet_input(&p, buf, tp_wire_seal(buf, WIRE_BASE_LEN + 1));
	assert_int_equal(answer(), WIRE_RESET);
}

static void damaged_packets_of_nobody_are_not_answered(void **state)
{
	struct peer q = {.their_cid = 0x1234567800000001, .crc = false};

	peer_ack(&p, &q, 0, NULL, 0, 0);
	assert_int_equal(answer(), 0);
	assert_int_equal(tp_stats(p.tp)->rx_bad_crc, 1);
}

static void a_host_seen_again_with_another_epoch(void **state)
{
	struct peer q, r;
	uint8_t buf[WIRE_CONTROL_MAX];

	puppet_listen(&p, 8);
	assert_true(peer_connect(&p, &q, 1));
	puppet_wait(&p, 2 * SD_S - SD_MS); /* no keepalive yet */
	puppet_flush(&p);
	peer_init(&p, &r, 2);
	peer_put_init(&p, &r, NULL, buf);
	be64_put(buf + 32, 78); /* the boot epoch */
	puppet_input(&p, buf, tp_wire_seal(buf, WIRE_INIT_LEN));
	assert_int_equal(answer(), WIRE_INIT_ACK);
	peer_learn(&p, &r);
	peer_ack(&p, &r, r.ack, NULL, 0, 0);
	assert_int_equal(answer(), WIRE_ACK); /* does the old connection live? */
	assert_true(p.w.flags & WIRE_F_ACKREQ);
	assert_int_equal(tp_wire_cid(p.out), q.cid);
}

/* --- FIND and HELLO --- */

static void send_find(enum wire_type type, uint64_t nonce, const struct sd_addr *target, uint8_t code)
{
	struct wire_find f = {.code = code, .nonce = nonce, .target = *target};
	uint8_t buf[WIRE_CONTROL_MAX];

	puppet_input(&p, buf, tp_wire_put_find(buf, type, &f));
}

static void finds(void)
{
	struct sd_addr target = p.local;
	struct wire_find f;

	target.port = 81;
	send_find(WIRE_FIND, 5, &target, 0);
	assert_int_equal(answer(), WIRE_FIND_REPLY);
	assert_int_equal(p.out_len, WIRE_FIND_LEN + WIRE_CRC_LEN);
	assert_true(tp_wire_get_find(p.out, p.out_len, &f));
	assert_int_equal(f.code, TP_NO_LISTENER);
	assert_int_equal(f.nonce, 5);
	assert_true(sd_addr_equal(&f.target, &target));
	target.port = PUPPET_PORT;
	send_find(WIRE_FIND, 5, &target, 0);
	assert_int_equal(answer(), WIRE_FIND_REPLY);
	assert_true(tp_wire_get_find(p.out, p.out_len, &f));
	assert_int_equal(f.code, TP_OK);
	target.ip[1]++; /* not ours */
	send_find(WIRE_FIND, 5, &target, 0);
	assert_int_equal(answer(), 0);
}

static void find_is_answered(void **state)
{
	puppet_listen(&p, 8);
	finds();
}

/* Queue pairs are found as streams are. */
static void find_is_answered__for_messages(void **state)
{
	struct sd_addr local = p.local;
	struct tp_listener *l;
	struct wire_find f;

	local.port = PUPPET_PORT + 1;
	assert_int_equal(tp_qp_listen(p.tp, &local, 8, 0, NULL, &l), 0);
	send_find(WIRE_FIND, 5, &local, 0);
	assert_int_equal(answer(), WIRE_FIND_REPLY);
	assert_true(tp_wire_get_find(p.out, p.out_len, &f));
	assert_int_equal(f.code, TP_OK);
	tp_listener_close(l);
	send_find(WIRE_FIND, 5, &local, 0);
	assert_int_equal(answer(), WIRE_FIND_REPLY);
	assert_true(tp_wire_get_find(p.out, p.out_len, &f));
	assert_int_equal(f.code, TP_NO_LISTENER);
}

static void ask_and_be_told(void)
{
	struct tp_path path = path_to(0);
	struct sd_addr target = p.peer;
	struct wire_find f;

	target.port = 7;
	assert_int_equal(tp_find(p.tp, &path, &target), 0);
	assert_int_equal(answer(), WIRE_FIND);
	assert_true(tp_wire_get_find(p.out, p.out_len, &f));
	assert_true(sd_addr_equal(&f.target, &target));
	send_find(WIRE_FIND_REPLY, f.nonce + 2, &target, 0);
	assert_int_equal(p.found, 0);
	target.port = 8;
	send_find(WIRE_FIND_REPLY, f.nonce, &target, 0); /* an answer to another question */
	assert_int_equal(p.found, 0);
	assert_int_equal(tp_stats(p.tp)->rx_bad_token, 2);
	target.port = 7;
	send_find(WIRE_FIND_REPLY, f.nonce, &target, TP_NO_LISTENER);
	assert_int_equal(p.found, 1);
	assert_int_equal(p.last_found.code, TP_NO_LISTENER);
	assert_true(sd_addr_equal(&p.last_found.target, &target));
}

static void find_answers_need_the_nonce(void **state)
{
	ask_and_be_told();
}

static void hello(void **state)
{
	struct tp_path path = path_to(0);
	struct wire_find f;

	assert_int_equal(tp_hello(p.tp, &path), 0);
	assert_int_equal(answer(), WIRE_FIND_REPLY);
	assert_true(tp_wire_get_find(p.out, p.out_len, &f));
	assert_int_equal(f.nonce, 0);
	assert_int_equal(f.target.port, 0);
	assert_true(sd_addr_same_ip(&f.target, &p.local));
	send_find(WIRE_FIND_REPLY, 0, &f.target, 0);
	assert_int_equal(p.found, 1);
	f.target.port = 80; /* an announcement says nothing about ports */
	send_find(WIRE_FIND_REPLY, 0, &f.target, 0);
	assert_int_equal(p.found, 1);
}

static void a_full_queue(void **state)
{
	struct tp_path path = path_to(0);
	unsigned n = 0;

	while (!tp_hello(p.tp, &path))
		n++;
	assert_int_equal(n, TP_CONTROL_QUEUE);
	assert_int_equal(tp_find(p.tp, &path, &p.peer), -ENOBUFS);
	assert_int_equal(puppet_flush(&p), n);
}

static void ipv6(void **state)
{
	struct peer q;

	p.local = (struct sd_addr){.family = 6, .ip = {[0] = 0xfd, [15] = 1}};
	p.peer = (struct sd_addr){.family = 6, .ip = {[0] = 0xfd, [15] = 2}};
	puppet_listen(&p, 8);
	finds();
	ask_and_be_told();
	assert_true(peer_connect(&p, &q, 1));
	puppet_flush(&p);
	assert_true(peer_accept(&p, &q, 2));
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(impossible_configurations),
		CASE(creation_without_memory),
		CASE(a_path_too_narrow),
		CASE(responds_in_one_round_trip),
		CASE(initiates_in_one_round_trip),
		CASE(bytes_written_before_it_is_open),
		CASE(asks_again_ever_more_slowly),
		CASE(gives_up_connecting),
		CASE(refuses_without_a_listener),
		CASE(takes_a_refusal_only_with_the_nonce),
		CASE(takes_an_answer_only_with_the_nonce),
		CASE(full_backlog),
		CASE(repeated_init_is_the_same_connection),
		CASE(repeated_answer_is_confirmed),
		CASE(silence_after_the_answer_is_probed),
		CASE(other_versions),
		CASE(half_open_ones_expire),
		CASE(no_more_than_max_conns),
		CASE(no_memory),
		CASE(limits_are_negotiated),
		CASE(a_flood_gets_cookies),
		CASE(cookies_expire),
		CASE(one_listener_cannot_be_filled_by_liars),
		CASE(brings_a_cookie_back),
		CASE(the_most_specific_listener_takes_it),
		CASE(closing_a_listener_resets_what_waits),
		CASE(a_dead_connection_can_be_accepted),
		CASE(reset_needs_the_token),
		CASE(abort_tells_with_the_token),
		CASE(a_restarted_host_resets_with_the_old_token),
		CASE(unknown_connections_are_answered_at_a_limited_rate),
		CASE(short_packets_of_nobody_are_not_answered),
		CASE(damaged_packets_of_nobody_are_not_answered),
		CASE(a_host_seen_again_with_another_epoch),
		CASE(find_is_answered),
		CASE(find_is_answered__for_messages),
		CASE(find_answers_need_the_nonce),
		CASE(hello),
		CASE(a_full_queue),
		CASE(ipv6),
	};

	return cmocka_run_group_tests_name("transport_setup", tests, NULL, NULL);
}
