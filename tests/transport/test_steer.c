/* SPDX-License-Identifier: BSD-3-Clause */
/* Several engines of one host: each is found by the ids it gives out, and to peers all of them are one. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "puppet.h"

static struct puppet p[TP_ENGINES];

static int start(void **state)
{
	for (unsigned i = 0; i < TP_ENGINES; i++) {
		puppet_init(&p[i]);
		p[i].cfg.engine = (uint8_t)i;
		puppet_start(&p[i]);
		puppet_listen(&p[i], 8);
	}
	return 0;
}

static int stop(void **state)
{
	for (unsigned i = 0; i < TP_ENGINES; i++)
		assert_true(puppet_stop(&p[i]));
	return 0;
}

static int steer_out(const struct puppet *q)
{
	return tp_steer(q->out, q->out_len, TP_ENGINES);
}

static void packets_find_the_engine_of_their_connection(void **state)
{
	struct peer q;

	for (unsigned i = 0; i < TP_ENGINES; i++) {
		for (unsigned n = 1; n < 5; n++) {
			uint8_t pkt[64] = {WIRE_VERSION << 4};

			assert_true(peer_connect(&p[i], &q, n));
			be64_put(pkt + 8, q.their_cid);
			for (unsigned type = WIRE_DATA; type <= WIRE_COOKIE; type++) {
				pkt[0] = (uint8_t)(WIRE_VERSION << 4 | type);
				if (type != WIRE_INIT)
					assert_int_equal(tp_steer(pkt, sizeof pkt, TP_ENGINES), i);
			}
		}
	}
}

/* They are shared out, and a repeated one goes where the first one went. */
static void connections_begin_anywhere(void **state)
{
	struct tp_path path = {.local = p[3].local, .peer = p[3].peer, .max_payload = p[3].max_payload};
	unsigned count[4] = {0};
	struct tp_conn *c;

	path.local.port = 30000;
	path.peer.port = 80;
	for (unsigned i = 0; i < 4000; i++) {
		int to;

		assert_int_equal(tp_connect(p[3].tp, p[3].now, &path, &p[3], &c), 0);
		assert_true(puppet_output(&p[3]));
		assert_int_equal(tp_wire_type(p[3].out), WIRE_INIT);
		to = tp_steer(p[3].out, p[3].out_len, 4);
		assert_in_range(to, 0, 3);
		count[to]++;
		assert_true(i % 100 || puppet_wait_output(&p[3], 10 * SD_MS));
		if (i % 100 == 0) {
			assert_true(puppet_output(&p[3]) && tp_wire_type(p[3].out) == WIRE_INIT);
			assert_int_equal(tp_steer(p[3].out, p[3].out_len, 4), to);
		}
		tp_close(c, p[3].now, true);
		puppet_flush(&p[3]);
	}
	for (unsigned i = 0; i < 4; i++)
		assert_in_range(count[i], 850, 1150);
}

static void questions_and_answers(void **state)
{
	struct tp_path path = {.local = p[3].local, .peer = p[3].peer, .max_payload = p[3].max_payload};

	path.peer.port = 80;
	assert_int_equal(tp_find(p[3].tp, &path, &path.peer), 0);
	assert_true(puppet_output(&p[3]));
	assert_true(steer_out(&p[3]) >= 0);
	assert_int_equal(tp_hello(p[3].tp, &path), 0);
	assert_true(puppet_output(&p[3]));
	assert_int_equal(steer_out(&p[3]), TP_FOR_ALL);
}

static void resets_are_for_all(void **state)
{
	struct peer q;

	assert_true(peer_connect(&p[2], &q, 1));
	tp_close(q.c, p[2].now, true);
	assert_true(puppet_output(&p[2]));
	assert_int_equal(tp_wire_type(p[2].out), WIRE_RESET);
	assert_int_equal(steer_out(&p[2]), TP_FOR_ALL);
}

static void any_bytes(void **state)
{
	uint8_t pkt[32];

	for (unsigned i = 0; i < 256; i++) {
		memset(pkt, (int)i, sizeof pkt);
		for (size_t len = 0; len <= sizeof pkt; len++) {
			for (unsigned n = 1; n <= TP_ENGINES; n++)
				assert_true(tp_steer(pkt, len, n) >= TP_FOR_ALL &&
					    tp_steer(pkt, len, n) < (int)n);
		}
	}
}

/* One host has one epoch, or each new connection would make its peers doubt all others. Its engines choose
 * ids and numbers that tell nothing of each other's. */
static void one_host_and_many_secrets(void **state)
{
	for (unsigned i = 1; i < TP_ENGINES; i++) {
		uint8_t a[16], b[16];

		assert_true(p[i].tp->epoch == p[0].tp->epoch);
		tp_control_token(p[0].tp, 4711, a);
		tp_control_token(p[i].tp, 4711, b);
		assert_memory_equal(a, b, sizeof a);
		assert_true(tp_random_id(p[i].tp) != tp_random_id(p[0].tp));
		assert_true(memcmp(&p[i].tp->key_cookie, &p[0].tp->key_cookie, sizeof(struct sd_sipkey)));
		assert_true(memcmp(&p[i].tp->key_find, &p[0].tp->key_find, sizeof(struct sd_sipkey)));
	}
}

static void no_such_engine(void **state)
{
	struct puppet other;

	puppet_init(&other);
	other.cfg.engine = TP_ENGINES;
	assert_int_equal(puppet_create(&other), -EINVAL);
}

/* What one engine has saved another one does not take: packets would not find it. */
static void saved_by_another(void **state)
{
	struct sd_pack saved = {0};
	struct sd_unpack u;
	struct peer q;

	assert_true(peer_connect(&p[1], &q, 1));
	tp_save(p[1].tp, p[1].now, &saved);
	assert_false(saved.failed);
	u = (struct sd_unpack){saved.data, saved.data + saved.len};
	assert_int_equal(tp_restore(p[4].tp, p[4].now, &u, NULL, NULL), -EPROTONOSUPPORT);
	sd_pack_free(&saved);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(packets_find_the_engine_of_their_connection, start, stop),
		cmocka_unit_test_setup_teardown(connections_begin_anywhere, start, stop),
		cmocka_unit_test_setup_teardown(questions_and_answers, start, stop),
		cmocka_unit_test_setup_teardown(resets_are_for_all, start, stop),
		cmocka_unit_test_setup_teardown(any_bytes, start, stop),
		cmocka_unit_test_setup_teardown(one_host_and_many_secrets, start, stop),
		cmocka_unit_test_setup_teardown(no_such_engine, start, stop),
		cmocka_unit_test_setup_teardown(saved_by_another, start, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
