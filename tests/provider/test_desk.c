/* SPDX-License-Identifier: BSD-3-Clause */
/* The desk between a broker and bridges that are made of what the test says: who gets which letter, and what
 * becomes of those that cross. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "provider/desk.h"

#define ENGINES 3

static const struct desk_config config = {.size = sizeof config, .n_engines = ENGINES, .bell = true};
static struct desk *d;
static struct post bridge[ENGINES];

/* --- a broker --- */

struct broker_call {
	int is;
};

static struct broker_call calls[8];
static const struct broker_call *connected, *was_refused;
static int connect_result, incoming_result, refused_with;

int broker_connected(struct broker *b, struct broker_call *call, struct pv_shm_end *end)
{
	connected = call;
	return connect_result;
}

void broker_refuse(struct broker *b, struct broker_call *call, int error, enum sd_reason reason)
{
	was_refused = call;
	refused_with = error;
}

int broker_incoming(struct broker *b, const struct sd_addr *local, const struct sd_addr *peer, uint64_t now,
	struct pv_shm_end *end)
{
	return incoming_result;
}

struct broker_call *broker_call_named(struct broker *b, uint64_t name, void *user)
{
	for (unsigned i = 0; i < 8; i++) {
		if (broker_call_name(&calls[i]) == name)
			return &calls[i];
	}
	return NULL;
}

static unsigned parted;

void broker_end_closed(struct broker *b)
{
	parted++;
}

void pv_shm_end_close(const struct pv_shm_end *end)
{
}

/* --- bridges --- */

static const struct sd_addr here = {.family = 4, .ip = {10, 77, 0, 1}, .port = 80};
static const struct sd_addr there = {.family = 4, .ip = {10, 77, 0, 2}, .port = 4711};

static int start(void **state)
{
	connected = was_refused = NULL;
	connect_result = incoming_result = 0;
	assert_int_equal(desk_open(&config, &d), 0);
	for (unsigned i = 0; i < ENGINES; i++) {
		assert_int_equal(post_open(&bridge[i], true), 0);
		desk_set_bridge(d, i, &bridge[i]);
	}
	return 0;
}

static int stop(void **state)
{
	for (unsigned i = 0; i < ENGINES; i++)
		post_close(&bridge[i]);
	desk_close(d);
	return 0;
}

/* The next letter, which has to be of this kind. */
static struct letter *read_one(unsigned engine, enum letter_kind kind)
{
	struct letter *l = post_take(&bridge[engine]);

	assert_non_null(l);
	assert_int_equal(l->kind, kind);
	return l;
}

static void expect(unsigned engine, enum letter_kind kind)
{
	free(read_one(engine, kind));
}

static void answer(struct letter *l, unsigned engine, enum letter_kind kind)
{
	l->kind = kind;
	l->engine = engine;
	post_send(desk_post(d), l);
}

static void *want(struct broker_call *call)
{
	const struct broker_outside *o = desk_outside(d);
	enum sd_reason reason;
	void *user;

	assert_int_equal(o->connect(o->ctx, call, &here, &there, &reason, &user), 0);
	return user;
}

static void forget(void *user)
{
	desk_outside(d)->forget(desk_outside(d)->ctx, user);
}

/* --- tests --- */

static void calls_go_round(void **state)
{
	for (unsigned i = 0; i < 2 * ENGINES; i++) {
		struct letter *l;

		want(&calls[0]);
		l = read_one(i % ENGINES, LETTER_CONNECT);
		assert_true(sd_addr_equal(&l->local, &here) && sd_addr_equal(&l->peer, &there));
		l->error = -ETIMEDOUT;
		answer(l, i % ENGINES, LETTER_REFUSED);
		assert_int_equal(desk_progress(d, NULL), 1);
		assert_ptr_equal(was_refused, &calls[0]);
		assert_int_equal(refused_with, -ETIMEDOUT);
	}
}

static void connected_is_coupled(void **state)
{
	struct wire *wire = (struct wire *)&calls[3];
	struct letter *l;

	want(&calls[1]);
	l = read_one(0, LETTER_CONNECT);
	l->wire = wire;
	answer(l, 0, LETTER_CONNECTED);
	desk_progress(d, NULL);
	assert_ptr_equal(connected, &calls[1]);
	l = read_one(0, LETTER_COUPLE);
	assert_ptr_equal(l->wire, wire);
	free(l);
	/* The program has not read its answer. */
	connect_result = -EPIPE;
	want(&calls[2]);
	answer(read_one(1, LETTER_CONNECT), 1, LETTER_CONNECTED);
	desk_progress(d, NULL);
	expect(1, LETTER_DROP);
}

/* The program is gone while the engine's answer is on its way: nobody is told of it. */
static void answers_that_cross_a_forget(void **state)
{
	static const enum letter_kind kinds[] = {LETTER_CONNECTED, LETTER_REFUSED};

	for (unsigned i = 0; i < 2; i++) {
		struct letter *l;
		void *user = want(&calls[i]);

		l = read_one(i, LETTER_CONNECT);
		answer(l, i, kinds[i]);
		forget(user);
		desk_progress(d, NULL);
		assert_null(connected);
		assert_null(was_refused);
		answer(read_one(i, LETTER_FORGET), i, LETTER_FORGOTTEN);
		desk_progress(d, NULL);
		assert_null(post_take(&bridge[i]));
	}
}

static void the_broker_hears_that_ends_are_closed(void **state)
{
	answer(letter_new(LETTER_PARTED), 1, LETTER_PARTED);
	parted = 0;
	desk_progress(d, NULL);
	assert_int_equal(parted, 1);
}

static void all_hear_who_listens(void **state)
{
	const struct broker_outside *o = desk_outside(d);

	o->listen(o->ctx, &here, 7);
	o->unlisten(o->ctx, &here);
	for (unsigned i = 0; i < ENGINES; i++) {
		struct letter *l = read_one(i, LETTER_LISTEN);

		assert_int_equal(l->backlog, 7);
		assert_true(sd_addr_equal(&l->local, &here));
		free(l);
		expect(i, LETTER_UNLISTEN);
	}
}

/* Who has found no room is told when there is some, once; others are not bothered. */
static void comes(unsigned engine, const struct sd_addr *at, int result, enum letter_kind then)
{
	struct letter *l = letter_new(LETTER_INCOMING);

	l->local = here;
	l->at = *at;
	incoming_result = result;
	answer(l, engine, LETTER_INCOMING);
	desk_progress(d, NULL);
	if (result == -ECONNREFUSED || result == -EPERM) {
		for (unsigned i = 0; i < ENGINES; i++)
			expect(i, LETTER_UNLISTEN);
	}
	expect(engine, then);
}

static void expect_room(unsigned engine, const struct sd_addr *at)
{
	struct letter *l = read_one(engine, LETTER_ROOM);

	assert_true(sd_addr_equal(&l->local, at));
	free(l);
}

static void expect_silence(void)
{
	for (unsigned i = 0; i < ENGINES; i++)
		assert_null(post_take(&bridge[i]));
}

static void room(void **state)
{
	const struct broker_outside *o = desk_outside(d);

	comes(2, &here, -EAGAIN, LETTER_FULL);
	comes(2, &here, -EAGAIN, LETTER_FULL);
	o->room(o->ctx, &here);
	o->room(o->ctx, &here);
	expect_room(2, &here);
	expect_silence();
	comes(2, &here, 0, LETTER_COUPLE);
}

/* Others accept all the time. */
static void room_at_one_of_several(void **state)
{
	const struct broker_outside *o = desk_outside(d);
	const struct sd_addr any = {.family = 4, .port = here.port};
	struct sd_addr other = here;

	other.port++;
	comes(1, &here, -EAGAIN, LETTER_FULL);
	comes(1, &any, -EAGAIN, LETTER_FULL);
	o->room(o->ctx, &other);
	expect_silence();
	comes(1, &other, -EAGAIN, LETTER_FULL);
	o->room(o->ctx, &other);
	expect_room(1, &other);
	/* One of any address may take what was for a certain one. */
	o->room(o->ctx, &any);
	expect_room(1, &here);
	expect_room(1, &any);
	expect_silence();
}

/* What a user may have, or the daemon: it is not this connection's fault. */
static void room_is_short(void **state)
{
	static const int errors[] = {-EDQUOT, -ENOMEM, -EMFILE, -ENFILE};
	const struct broker_outside *o = desk_outside(d);

	for (unsigned i = 0; i < 4; i++) {
		comes(0, &here, errors[i], LETTER_FULL);
		o->room(o->ctx, NULL);
		expect_room(0, &here);
	}
	expect_silence();
}

/* Nobody is to come again until somebody listens again. */
static void not_to_be_connected_to(void **state)
{
	comes(0, &here, -ECONNREFUSED, LETTER_DROP);
	comes(1, &here, -EPERM, LETTER_DROP);
	expect_silence();
}

static bool rings(const struct post *p)
{
	struct pollfd fd = {.fd = p->bell, .events = POLLIN};

	return poll(&fd, 1, 0) == 1;
}

static void bells(void **state)
{
	assert_false(rings(&bridge[0]));
	want(&calls[0]);
	want(&calls[1]);
	want(&calls[2]);
	want(&calls[3]);
	assert_true(rings(&bridge[0]));
	expect(0, LETTER_CONNECT);
	assert_true(rings(&bridge[0])); /* there is another one */
	expect(0, LETTER_CONNECT);
	assert_false(rings(&bridge[0]));
	assert_true(post_is_empty(&bridge[0]));
	post_ring(&bridge[0]);
	assert_true(rings(&bridge[0]));
	assert_null(post_take(&bridge[0]));
	post_heed(&bridge[0]);
	assert_false(rings(&bridge[0]));
}

/* Another process's desk goes on: a call keeps its number, and its engine. */
static void handed_over(void **state)
{
	struct desk *old = d;
	struct sd_pack saved = {0};
	struct sd_unpack u;
	struct letter *l;

	want(&calls[4]);
	want(&calls[5]);
	expect(0, LETTER_CONNECT);
	l = read_one(1, LETTER_CONNECT);
	desk_save(d, &saved);
	assert_false(saved.failed);
	assert_int_equal(desk_open(&config, &d), 0);
	u = (struct sd_unpack){saved.data, saved.data + saved.len};
	assert_int_equal(desk_restore(d, NULL, &u), 0);
	for (unsigned i = 0; i < ENGINES; i++)
		desk_set_bridge(d, i, &bridge[i]);
	answer(l, 1, LETTER_CONNECTED);
	desk_progress(d, NULL);
	assert_ptr_equal(connected, &calls[5]);
	expect(1, LETTER_COUPLE);
	/* A new one is not taken for the other. */
	want(&calls[6]);
	l = read_one(0, LETTER_CONNECT);
	answer(l, 0, LETTER_REFUSED);
	desk_progress(d, NULL);
	assert_ptr_equal(was_refused, &calls[6]);
	/* Anything that was cut off. */
	for (size_t n = 0; n < saved.len; n++) {
		struct desk *cut;

		assert_int_equal(desk_open(&config, &cut), 0);
		u = (struct sd_unpack){saved.data, saved.data + n};
		assert_int_equal(desk_restore(cut, NULL, &u), -EPROTO);
		desk_close(cut);
	}
	sd_pack_free(&saved);
	desk_close(old);
}

/* --- threads --- */

#define MANY 20000

static void *bridge_thread(void *arg)
{
	unsigned engine = (unsigned)(uintptr_t)arg;
	struct pollfd fd = {.fd = bridge[engine].bell, .events = POLLIN};

	for (unsigned n = 0; n < MANY;) {
		struct letter *l = post_take(&bridge[engine]);

		if (!l) {
			poll(&fd, 1, 1000);
			continue;
		}
		n++;
		answer(l, engine, LETTER_REFUSED);
	}
	return NULL;
}

/* None is lost, and nobody sleeps on one. */
static void threads(void **state)
{
	struct pollfd fd = {.fd = desk_post(d)->bell, .events = POLLIN};
	pthread_t thread[ENGINES];
	unsigned answered = 0;

	for (uintptr_t i = 0; i < ENGINES; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, bridge_thread, (void *)i), 0);
	for (unsigned i = 0; i < ENGINES * MANY; i++) {
		want(&calls[0]);
		answered += desk_progress(d, NULL);
	}
	while (answered < ENGINES * MANY) {
		assert_int_equal(poll(&fd, 1, 5000), 1);
		answered += desk_progress(d, NULL);
		post_heed(desk_post(d));
		answered += desk_progress(d, NULL);
	}
	for (unsigned i = 0; i < ENGINES; i++)
		pthread_join(thread[i], NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(calls_go_round, start, stop),
		cmocka_unit_test_setup_teardown(connected_is_coupled, start, stop),
		cmocka_unit_test_setup_teardown(answers_that_cross_a_forget, start, stop),
		cmocka_unit_test_setup_teardown(the_broker_hears_that_ends_are_closed, start, stop),
		cmocka_unit_test_setup_teardown(all_hear_who_listens, start, stop),
		cmocka_unit_test_setup_teardown(room, start, stop),
		cmocka_unit_test_setup_teardown(room_at_one_of_several, start, stop),
		cmocka_unit_test_setup_teardown(room_is_short, start, stop),
		cmocka_unit_test_setup_teardown(not_to_be_connected_to, start, stop),
		cmocka_unit_test_setup_teardown(bells, start, stop),
		cmocka_unit_test_setup_teardown(handed_over, start, stop),
		cmocka_unit_test_setup_teardown(threads, start, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
