/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What was saved and is restored: by hand here, in simulated traffic in test_sim.c. And what was not saved
 * whole, or not by this transport, is refused and harms nobody.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "puppet.h"

#define CONNS 16

static struct puppet before, after;
static struct sd_pack saved;
static struct tp_conn *conns[CONNS];
static uint64_t names[CONNS];
static unsigned n_conns;
static size_t n_left; /* bytes that a restore did not want */

static void on_owned(void *ctx, uint64_t name, struct tp_conn *c)
{
	assert_true(n_conns < CONNS);
	names[n_conns] = name;
	conns[n_conns++] = c;
	tp_set_user(c, &after);
}

static int restore(struct puppet *p, const void *bytes, size_t len)
{
	struct sd_unpack u = {bytes, (const uint8_t *)bytes + len};
	int r;

	n_conns = 0;
	r = tp_restore(p->tp, p->now, &u, on_owned, NULL);
	n_left = (size_t)(u.end - u.at);
	return r;
}

static struct tp_conn *restored(const struct tp_conn *old)
{
	for (unsigned i = 0; i < n_conns; i++) {
		if (names[i] == tp_saved_name(old))
			return conns[i];
	}
	fail_msg("it was not restored");
	return NULL;
}

static bool stop(struct puppet *p)
{
	bool clean = !p->tp || puppet_stop(p);

	p->tp = NULL;
	return clean;
}

static void fresh(struct puppet *p)
{
	puppet_init(p);
	p->cfg.max_conns = CONNS;
	p->cfg.seed[0] ^= (uintptr_t)p;
	puppet_start(p);
	puppet_listen(p, 4);
}

/* Another process. */
static void hand_over(void)
{
	sd_pack_free(&saved);
	tp_save(before.tp, before.now, &saved);
	assert_false(saved.failed);
	assert_true(stop(&before));
	fresh(&after);
	after.now = before.now;
	assert_int_equal(restore(&after, saved.data, saved.len), 0);
	assert_int_equal(n_left, 0);
}

static int setup(void **state)
{
	fresh(&before);
	return 0;
}

static int teardown(void **state)
{
	bool clean = stop(&before);

	clean = stop(&after) && clean;
	sd_pack_free(&saved);
	return !clean;
}

static void every_field_is_saved_or_left_out(void **state)
{
	size_t gap = 0;

	/* What is in between is padding, shorter than what it aligns. */
	for (size_t at = 0; at < sizeof(struct tp_conn); at++) {
		gap = tp_save_covers(at) ? 0 : gap + 1;
		if (gap >= 8)
			fail_msg("a field near offset %zu of struct tp_conn is not named in save.c", at);
	}
}

static void bytes_of_both_directions(void **state)
{
	struct peer q;
	struct tp_conn *c;
	char buf[64];

	assert_true(peer_connect(&before, &q, 1));
	peer_send(&before, &q, "one ", 4, 0);
	peer_data(&before, &q, q.psn + 1, q.off + 4, "three", 5, 0); /* early */
	assert_int_equal(tp_write(q.c, "hello", 5), 5);
	puppet_flush(&before);
	c = q.c;
	hand_over();
	q.c = restored(c);
	assert_int_equal(tp_readable(q.c), 4);
	assert_int_equal(tp_unacked(q.c), 5);
	peer_send(&after, &q, "two ", 4, 0);
	assert_int_equal(tp_read(q.c, buf, sizeof buf), 13);
	assert_memory_equal(buf, "one two three", 13);
	/* What was sent is repeated until it is acknowledged. */
	puppet_flush(&after);
	assert_true(puppet_wait_output(&after, 100 * SD_MS));
	assert_true(puppet_output(&after));
	assert_memory_equal(after.w.payload, "hello", 5);
}

/* Its application has not looked yet; it never knew what the peer takes. */
static void a_connection_that_was_refused(void **state)
{
	struct tp_path path = {.max_payload = 1472, .local = before.local, .peer = before.peer};
	struct tp_conn *c;
	struct peer q;
	struct wire_nak nak = {.code = TP_REFUSED};
	uint8_t buf[WIRE_CONTROL_MAX];

	peer_init(&before, &q, 1);
	assert_int_equal(tp_connect(before.tp, before.now, &path, NULL, &c), 0);
	assert_true(puppet_output(&before) && peer_learn(&before, &q));
	nak.dst_cid = q.their_cid;
	nak.nonce = q.nonce;
	puppet_input(&before, buf, tp_wire_put_nak(buf, &nak));
	assert_int_equal(tp_error(c), -ECONNREFUSED);
	hand_over();
	assert_int_equal(tp_error(restored(c)), -ECONNREFUSED);
}

/* What a peer has sent may not fit together. That ends its connection when it is found out, and is nobody
 * else's matter. */
static void an_early_packet_that_does_not_fit(void **state)
{
	struct peer liar, other;
	struct tp_conn *c, *d;
	char bytes[200] = {0};

	assert_true(peer_connect(&before, &liar, 1));
	assert_true(peer_connect(&before, &other, 2));
	peer_data(&before, &liar, liar.psn + 9, liar.off + 11, bytes, sizeof bytes, 0);
	peer_send(&before, &liar, bytes, 128, 0);
	peer_send(&before, &other, "one", 3, 0);
	puppet_flush(&before);
	c = liar.c;
	d = other.c;
	hand_over();
	liar.c = restored(c);
	assert_int_equal(tp_readable(restored(d)), 3);
	assert_int_equal(tp_readable(liar.c), 128);
	for (unsigned i = 0; i < 8; i++) {
		assert_int_equal(tp_error(liar.c), 0);
		peer_send(&after, &liar, bytes, 1, 0);
	}
	assert_int_equal(tp_error(liar.c), -ECONNRESET);
}

static void a_half_open_and_an_unaccepted_one(void **state)
{
	uint8_t buf[WIRE_CONTROL_MAX];
	struct peer half, ready;
	struct tp_conn *c;

	peer_init(&before, &half, 1);
	puppet_input(&before, buf, peer_put_init(&before, &half, NULL, buf));
	assert_true(puppet_output(&before));
	assert_true(peer_learn(&before, &half));
	peer_init(&before, &ready, 2);
	puppet_input(&before, buf, peer_put_init(&before, &ready, NULL, buf));
	assert_true(puppet_output(&before));
	assert_true(peer_learn(&before, &ready));
	peer_send(&before, &ready, "2", 1, 0);
	hand_over();
	assert_int_equal(n_conns, 0);
	assert_true(tp_acceptable(after.listener));
	peer_send(&after, &half, "1", 1, 0);
	c = tp_accept(after.listener, &after);
	assert_int_equal(tp_read(c, buf, 1), 1);
	assert_int_equal(*buf, '2');
	c = tp_accept(after.listener, &after);
	assert_non_null(c);
	assert_int_equal(tp_read(c, buf, 1), 1);
	assert_int_equal(*buf, '1');
}

static void a_failed_one_tells_why(void **state)
{
	struct peer q;
	struct tp_conn *c;

	assert_true(peer_connect(&before, &q, 1));
	c = q.c;
	peer_send(&before, &q, "last", 4, 0);
	peer_reset(&before, &q, WIRE_RESET_ABORT, q.token);
	assert_int_equal(tp_error(c), -ECONNRESET);
	hand_over();
	c = restored(c);
	assert_int_equal(tp_error(c), -ECONNRESET);
	assert_int_equal(tp_readable(c), 4);
	tp_close(c, after.now, false);
	assert_int_equal(after.tp->conn_count, 0);
}

/* It never learnt how large packets are. */
static void one_that_was_refused(void **state)
{
	struct tp_path path = {.max_payload = before.max_payload, .local = before.local, .peer = before.peer};
	struct tp_conn *c;

	assert_int_equal(tp_connect(before.tp, before.now, &path, &before, &c), 0);
	puppet_flush(&before);
	puppet_wait(&before, SD_S);
	assert_int_equal(tp_error(c), -ETIMEDOUT);
	hand_over();
	c = restored(c);
	assert_int_equal(tp_error(c), -ETIMEDOUT);
	tp_close(c, after.now, false);
}

static void one_that_lingers_delivers(void **state)
{
	struct peer q;

	assert_true(peer_connect(&before, &q, 1));
	tp_write(q.c, "rest", 4);
	tp_close(q.c, before.now, false);
	puppet_flush(&before);
	hand_over();
	assert_int_equal(n_conns, 0);
	assert_int_equal(tp_lingering(after.tp), 1);
	puppet_flush(&after);
	assert_true(puppet_wait_output(&after, 100 * SD_MS));
	assert_true(puppet_output(&after));
	assert_memory_equal(after.w.payload, "rest", 4);
	peer_ack(&after, &q, after.w.psn + 1, NULL, 0, 0);
	peer_send(&after, &q, NULL, 0, WIRE_F_FIN);
	puppet_flush(&after);
	assert_int_equal(tp_lingering(after.tp), 0);
}

static void without_its_listener_it_is_reset(void **state)
{
	uint8_t buf[WIRE_CONTROL_MAX];
	struct peer q;

	peer_init(&before, &q, 1);
	puppet_input(&before, buf, peer_put_init(&before, &q, NULL, buf));
	assert_true(puppet_output(&before));
	assert_true(peer_learn(&before, &q));
	peer_send(&before, &q, "x", 1, 0);
	tp_save(before.tp, before.now, &saved);
	puppet_init(&after);
	after.cfg.max_conns = CONNS;
	puppet_start(&after);
	assert_int_equal(restore(&after, saved.data, saved.len), 0);
	assert_int_equal(after.tp->conn_count, 0);
	assert_true(puppet_output(&after));
	assert_int_equal(after.out[0] & 0x0f, WIRE_RESET);
}

/* --- what is no good --- */

static void make_traffic(void)
{
	struct peer q[3];

	for (unsigned i = 0; i < 3; i++) {
		assert_true(peer_connect(&before, &q[i], i + 1));
		peer_send(&before, &q[i], "abcdef", 6, 0);
		peer_data(&before, &q[i], q[i].psn + 2, q[i].off + 40, "later", 5, 0);
		tp_write(q[i].c, "0123456789", 10);
		puppet_flush(&before);
	}
	tp_save(before.tp, before.now, &saved);
}

static void cut_short(void **state)
{
	make_traffic();
	for (size_t len = 0; len < saved.len; len += len < 200 ? 1 : 13) {
		fresh(&after);
		assert_true(restore(&after, saved.data, len) < 0);
		assert_true(stop(&after));
	}
}

static void of_another_version(void **state)
{
	make_traffic();
	saved.data[0] ^= 1;
	fresh(&after);
	assert_int_equal(restore(&after, saved.data, saved.len), -EPROTONOSUPPORT);
}

static void of_another_size(void **state)
{
	make_traffic();
	puppet_init(&after);
	after.cfg.max_conns = 2 * CONNS;
	puppet_start(&after);
	assert_int_equal(restore(&after, saved.data, saved.len), -EPROTONOSUPPORT);
}

static void damaged(void **state)
{
	struct sd_rng rng;
	uint8_t *bytes;

	make_traffic();
	bytes = malloc(saved.len);
	for (unsigned i = 0; i < 3000; i++) {
		sd_rng_seed(&rng, i);
		memcpy(bytes, saved.data, saved.len);
		for (uint64_t n = 1 + sd_rng_below(&rng, 4); n; n--)
			bytes[8 + sd_rng_below(&rng, saved.len - 8)] ^=
				(uint8_t)(1u << sd_rng_below(&rng, 8));
		fresh(&after);
		restore(&after, bytes, saved.len);
		assert_true(stop(&after));
	}
	free(bytes);
}

/* Packets are built into buffers that are as large as the port takes. */
static void packets_of_no_size(void **state)
{
	struct tp_peer *host;
	struct peer q;
	uint16_t mss;

	assert_true(peer_connect(&before, &q, 1));
	host = tp_peer_of(q.c);
	for (unsigned i = 0; i < 4; i++) {
		mss = q.c->mss;
		q.c->mss += i == 1 ? 1 : 0;
		host->payload = i == 2 ? 10 : 0;
		host->probed = i == 3 ? 10 : 0;
		sd_pack_free(&saved);
		tp_save(before.tp, before.now, &saved);
		q.c->mss = mss;
		fresh(&after);
		assert_int_equal(restore(&after, saved.data, saved.len), i ? -EPROTO : 0);
		assert_true(stop(&after));
	}
}

static void no_memory(void **state)
{
	int r = -ENOMEM;

	make_traffic();
	for (unsigned n = 1; r; n++) {
		fresh(&after);
		after.allocs_left = n;
		r = restore(&after, saved.data, saved.len);
		assert_true(!r || r == -ENOMEM);
		after.allocs_left = 0;
		assert_true(n < 1000);
		assert_true(stop(&after));
	}
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(every_field_is_saved_or_left_out),
		CASE(bytes_of_both_directions),
		CASE(a_connection_that_was_refused),
		CASE(an_early_packet_that_does_not_fit),
		CASE(a_half_open_and_an_unaccepted_one),
		CASE(a_failed_one_tells_why),
		CASE(one_that_was_refused),
		CASE(one_that_lingers_delivers),
		CASE(without_its_listener_it_is_reset),
		CASE(cut_short),
		CASE(of_another_version),
		CASE(of_another_size),
		CASE(damaged),
		CASE(packets_of_no_size),
		CASE(no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
