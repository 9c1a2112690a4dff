/* SPDX-License-Identifier: BSD-3-Clause */
/* Finding peers: two engines on a simulated wire, in virtual time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "provider/engine.h"

#define TIMEOUT	 (30 * SD_MS)
#define NEGATIVE (10 * SD_S)
#define POSITIVE (60 * SD_S)

struct host {
	struct engine engine;
	struct sd_addr addr;
};

struct wait {
	struct resolver_wait wait;
	unsigned calls;
	enum resolver_result result;
	struct tp_path path;
};

static uint64_t now;
static struct host a, b;

static void on_event(void *ctx, struct tp_conn *c, void *user, unsigned events)
{
}

static void on_acceptable(void *ctx, void *user)
{
}

static void on_resolved(
	void *ctx, struct resolver_wait *w, enum resolver_result result, const struct tp_path *path)
{
	struct wait *x = container_of(w, struct wait, wait);

	x->calls++;
	x->result = result;
	x->path = *path;
}

static struct sd_addr address(uint8_t host, uint16_t port)
{
	return (struct sd_addr){.family = 4, .port = port, .ip = {10, 77, 0, host}};
}

static void host_open(struct host *h, uint8_t number, struct port *port)
{
	struct tp_config tc = {.size = sizeof tc, .crc = true, .max_conns = 64, .seed = {number}};
	struct resolver_config rc = {TIMEOUT, NEGATIVE, POSITIVE};
	struct engine_ops ops = {on_event, on_acceptable, on_resolved, h};

	assert_int_equal(engine_open(&h->engine, &tc, &rc, &ops, now), 0);
	assert_int_equal(engine_add_port(&h->engine, port), 0);
	h->addr = address(number, 0);
}

static void appear(struct host *h)
{
	engine_set_addrs(&h->engine, 0, &h->addr, 1);
}

static void vanish(struct host *h)
{
	engine_set_addrs(&h->engine, 0, NULL, 0);
}

static void run(uint64_t ns)
{
	for (uint64_t end = now + ns; now < end; now += 10 * SD_US) {
		engine_progress(&a.engine, now);
		engine_progress(&b.engine, now);
	}
}

/* Long times, of which nothing much happens. */
static void pass(uint64_t ns)
{
	now += ns;
	run(SD_MS);
}

static int setup(void **state)
{
	struct port *pa, *pb;

	now = SD_S;
	if (port_sim_open_pair(NULL, 1500, &now, &pa, &pb))
		return -1;
	host_open(&a, 1, pa);
	host_open(&b, 2, pb);
	appear(&a);
	appear(&b);
	run(SD_MS);
	return 0;
}

static int teardown(void **state)
{
	engine_close(&a.engine);
	engine_close(&b.engine);
	return 0;
}

static enum resolver_result ask(struct wait *w, uint16_t from, uint8_t host, uint16_t port)
{
	struct sd_addr local = address(1, from), target = address(host, port);

	*w = (struct wait){0};
	list_init(&w->wait.node);
	return resolver_ask(&a.engine.resolver, now, 0, &local, &target, &w->wait, &w->path);
}

static uint64_t frames_out(void)
{
	struct port_stats s;

	a.engine.ports[0].port->ops->stats(a.engine.ports[0].port, &s);
	return s.tx_frames;
}

/* How many questions it takes to fail in vain. */
static void expect_silence(struct wait *w)
{
	uint64_t asked = now;

	while (!w->calls) {
		run(10 * SD_US);
		assert_true(now - asked < 10 * TIMEOUT);
	}
	assert_int_equal(w->result, RESOLVER_SILENT);
	assert_in_range(now - asked, TIMEOUT, TIMEOUT + SD_MS);
}

static struct tp_listener *listen_at(uint16_t port)
{
	struct sd_addr local = address(2, port);
	struct tp_listener *l;

	assert_int_equal(tp_listen(b.engine.tp, &local, 8, NULL, &l), 0);
	return l;
}

/* --- positive answers --- */

static void found__and_remembered(void **state)
{
	struct wait w;
	uint64_t frames;

	listen_at(80);
	assert_int_equal(ask(&w, 1000, 2, 80), RESOLVER_PENDING);
	run(SD_MS);
	assert_int_equal(w.calls, 1);
	assert_int_equal(w.result, RESOLVER_FOUND);
	assert_memory_equal(w.path.hdr, b.engine.ports[0].info.mac, 6);
	assert_memory_equal(w.path.hdr + 6, a.engine.ports[0].info.mac, 6);
	run(TIMEOUT);
	frames = frames_out();
	assert_int_equal(ask(&w, 2000, 2, 80), RESOLVER_FOUND);
	assert_int_equal(w.path.local.port, 2000);
	assert_int_equal(w.path.peer.port, 80);
	assert_memory_equal(w.path.hdr, b.engine.ports[0].info.mac, 6);
	run(TIMEOUT);
	assert_int_equal(frames_out(), frames);
	assert_int_equal(w.calls, 0);
}

static void found__one_question_for_all_who_wait(void **state)
{
	uint64_t frames = frames_out();
	struct wait w[5];

	listen_at(80);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(ask(&w[i], 1000 + i, 2, 80), RESOLVER_PENDING);
	list_remove(&w[2].wait.node); /* closed meanwhile */
	run(SD_MS);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(w[i].calls, i != 2);
	assert_int_equal(frames_out(), frames + 1);
}

static void found__refreshed_while_it_serves(void **state)
{
	uint64_t frames;
	struct wait w;

	listen_at(80);
	ask(&w, 1000, 2, 80);
	run(SD_MS);
	pass(POSITIVE);
	frames = frames_out();
	assert_int_equal(ask(&w, 1000, 2, 80), RESOLVER_FOUND);
	run(SD_MS);
	assert_int_equal(frames_out(), frames + 1);
	pass(POSITIVE / 2);
	frames = frames_out();
	assert_int_equal(ask(&w, 1000, 2, 80), RESOLVER_FOUND);
	run(SD_MS);
	assert_int_equal(frames_out(), frames);
	/* Gone meanwhile: the stale answer serves once more. */
	pass(POSITIVE);
	vanish(&b);
	assert_int_equal(ask(&w, 1000, 2, 80), RESOLVER_FOUND);
	run(2 * TIMEOUT);
	assert_int_equal(ask(&w, 1000, 2, 80), RESOLVER_SILENT);
}

static void found__not_after_distrust(void **state)
{
	struct sd_addr target = address(2, 80);
	struct wait w;

	listen_at(80);
	ask(&w, 1000, 2, 80);
	run(SD_MS);
	resolver_distrust(&a.engine.resolver, &target);
	assert_int_equal(ask(&w, 1000, 2, 80), RESOLVER_PENDING);
	run(SD_MS);
	assert_int_equal(w.result, RESOLVER_FOUND);
}

/* The peer's port has another native address than before. */
static void found__until_the_host_moves(void **state)
{
	struct wait w;

	listen_at(80);
	ask(&w, 1000, 2, 80);
	run(SD_MS);
	vanish(&b);
	b.engine.ports[0].info.mac[5] ^= 0x55;
	appear(&b);
	run(SD_MS);
	assert_int_equal(ask(&w, 1000, 2, 80), RESOLVER_PENDING);
	run(SD_MS);
	assert_int_equal(w.result, RESOLVER_FOUND);
	assert_memory_equal(w.path.hdr, b.engine.ports[0].info.mac, 6);
}

static void found__although_late(void **state)
{
	struct wait w;

	listen_at(80);
	assert_int_equal(ask(&w, 1000, 2, 80), RESOLVER_PENDING);
	for (uint64_t end = now + 2 * TIMEOUT; now < end; now += 10 * SD_US)
		engine_progress(&a.engine, now);
	assert_int_equal(w.result, RESOLVER_SILENT);
	run(SD_MS);
	assert_int_equal(ask(&w, 1000, 2, 80), RESOLVER_FOUND);
}

/* --- negative answers --- */

static void no_listener__known_after_a_grace(void **state)
{
	uint64_t asked = now;
	struct wait w;

	assert_int_equal(ask(&w, 1000, 2, 80), RESOLVER_PENDING);
	while (!w.calls) {
		run(10 * SD_US);
		assert_true(now - asked < TIMEOUT);
	}
	assert_int_equal(w.result, RESOLVER_NO_LISTENER);
	assert_in_range(now - asked, 100 * SD_US, SD_MS);
	assert_int_equal(ask(&w, 1000, 2, 80), RESOLVER_NO_LISTENER);
}

static void no_listener__believed_for_a_second(void **state)
{
	struct wait w;

	ask(&w, 1000, 2, 80);
	run(SD_MS);
	listen_at(80);
	pass(SD_S / 2);
	assert_int_equal(ask(&w, 1000, 2, 80), RESOLVER_NO_LISTENER);
	pass(SD_S);
	/* Then the host is asked, and the caller waits. */
	assert_int_equal(ask(&w, 1000, 2, 80), RESOLVER_PENDING);
	run(SD_MS);
	assert_int_equal(w.result, RESOLVER_FOUND);
}

static void no_listener__until_one_is_announced(void **state)
{
	struct wait w;

	ask(&w, 1000, 2, 80);
	run(SD_MS);
	assert_int_equal(ask(&w, 1000, 2, 80), RESOLVER_NO_LISTENER);
	listen_at(80);
	engine_announce(&b.engine);
	engine_flush(&b.engine, now);
	run(SD_MS);
	assert_int_equal(ask(&w, 1000, 2, 80), RESOLVER_PENDING);
	run(SD_MS);
	assert_int_equal(w.result, RESOLVER_FOUND);
}

static void silence__costs_one_wait(void **state)
{
	uint64_t frames = frames_out(), asked;
	struct wait w;

	assert_int_equal(ask(&w, 1000, 9, 80), RESOLVER_PENDING);
	expect_silence(&w);
	assert_in_range(frames_out() - frames, 3, 8);
	frames = frames_out();
	assert_int_equal(ask(&w, 1000, 9, 80), RESOLVER_SILENT);
	assert_int_equal(ask(&w, 1000, 9, 81), RESOLVER_SILENT); /* the whole host is silent */
	run(SD_MS);
	assert_int_equal(frames_out(), frames);
	/* Nor does it cost another one when it is stale, whatever the port. */
	pass(NEGATIVE);
	assert_int_equal(ask(&w, 1000, 9, 80), RESOLVER_SILENT);
	assert_int_equal(ask(&w, 1000, 9, 82), RESOLVER_SILENT);
	run(SD_MS);
	asked = frames_out();
	assert_true(asked > frames);
	run(2 * TIMEOUT);
	assert_int_equal(w.calls, 0);
}

static void silence__asked_ever_more_seldom(void **state)
{
	uint64_t frames;
	struct wait w;

	ask(&w, 1000, 9, 80);
	expect_silence(&w);
	for (uint64_t ttl = NEGATIVE, i = 0; i < 5; i++, ttl = ttl < 30 * SD_S ? 2 * ttl : 60 * SD_S) {
		pass(ttl - SD_S);
		frames = frames_out();
		assert_int_equal(ask(&w, 1000, 9, 80), RESOLVER_SILENT);
		run(SD_MS);
		assert_int_equal(frames_out(), frames);
		pass(2 * SD_S);
		assert_int_equal(ask(&w, 1000, 9, 80), RESOLVER_SILENT);
		run(2 * TIMEOUT);
		assert_true(frames_out() > frames);
	}
}

static void silence__never_asked_sooner_than_was_said(void **state)
{
	uint64_t frames;
	struct wait w;

	a.engine.resolver.cfg.negative_ttl_ns = 600 * SD_S;
	ask(&w, 1000, 9, 80);
	expect_silence(&w);
	for (unsigned i = 0; i < 3; i++) {
		pass(598 * SD_S);
		frames = frames_out();
		assert_int_equal(ask(&w, 1000, 9, 80), RESOLVER_SILENT);
		run(SD_MS);
		assert_int_equal(frames_out(), frames);
		pass(4 * SD_S);
		assert_int_equal(ask(&w, 1000, 9, 80), RESOLVER_SILENT);
		run(2 * TIMEOUT);
		assert_true(frames_out() > frames);
	}
}

static void silence__until_the_host_appears(void **state)
{
	struct wait w;

	vanish(&b);
	listen_at(80);
	ask(&w, 1000, 2, 80);
	expect_silence(&w);
	assert_int_equal(ask(&w, 1000, 2, 81), RESOLVER_SILENT);
	appear(&b);
	run(SD_MS);
	assert_int_equal(ask(&w, 1000, 2, 80), RESOLVER_PENDING);
	run(SD_MS);
	assert_int_equal(w.result, RESOLVER_FOUND);
	assert_int_equal(ask(&w, 1000, 2, 81), RESOLVER_PENDING);
	run(SD_MS);
	assert_int_equal(w.result, RESOLVER_NO_LISTENER);
}

/* --- limits --- */

static void link_down__is_known_at_once(void **state)
{
	struct wait w;

	a.engine.ports[0].info.caps |= PORT_CAP_LINK;
	a.engine.ports[0].info.link_up = false;
	assert_int_equal(ask(&w, 1000, 2, 80), RESOLVER_LINK_DOWN);
}

static void full__of_questions(void **state)
{
	static struct wait w[RESOLVER_MAX];
	struct wait more;

	for (unsigned i = 0; i < RESOLVER_MAX; i++)
		assert_int_equal(ask(&w[i], 1000, 9, 1 + i), RESOLVER_PENDING);
	assert_int_equal(ask(&more, 1000, 9, 60000), RESOLVER_FULL);
	run(2 * TIMEOUT);
	for (unsigned i = 0; i < RESOLVER_MAX; i++) {
		assert_int_equal(w[i].calls, 1);
		assert_int_equal(w[i].result, RESOLVER_SILENT);
	}
	/* What nobody waits for makes room. */
	listen_at(60000);
	assert_int_equal(ask(&more, 1000, 2, 60000), RESOLVER_PENDING);
	run(SD_MS);
	assert_int_equal(more.result, RESOLVER_FOUND);
	assert_true(a.engine.resolver.n_entries <= RESOLVER_MAX);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(found__and_remembered),
		CASE(found__one_question_for_all_who_wait),
		CASE(found__refreshed_while_it_serves),
		CASE(found__not_after_distrust),
		CASE(found__until_the_host_moves),
		CASE(found__although_late),
		CASE(no_listener__known_after_a_grace),
		CASE(no_listener__believed_for_a_second),
		CASE(no_listener__until_one_is_announced),
		CASE(silence__costs_one_wait),
		CASE(silence__asked_ever_more_seldom),
		CASE(silence__never_asked_sooner_than_was_said),
		CASE(silence__until_the_host_appears),
		CASE(link_down__is_known_at_once),
		CASE(full__of_questions),
	};

	return cmocka_run_group_tests_name("resolver", tests, NULL, NULL);
}
