/* SPDX-License-Identifier: BSD-3-Clause */
/* The engine over several ports, good and bad ones: three hosts in a row, in virtual time. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/rng.h"
#include "provider/engine.h"

#define STEP	   (10 * SD_US)
#define CHOKED_MAX 1000

/* A port that takes what it is told to take. */
struct valve {
	struct port base;
	struct port *inner;
	struct port_ops ops;
	enum { OPEN, SHUT, STUTTERING, CHOKED } how;
	bool corrupts;
	unsigned backlog;
	struct sd_rng rng;
};

struct host {
	struct engine engine;
	unsigned opened, acceptable;
	struct tp_conn *failed;
};

/* In the middle sits host 0, with port 0 to host 1 and port 1 to host 2. */
static uint64_t now;
static struct host hosts[3];
static struct valve valves[2]; /* of host 0's ports */

static struct valve *valve_of(struct port *p)
{
	return container_of(p, struct valve, base);
}

static unsigned valve_rx(struct port *p, struct port_frame *frames, unsigned max)
{
	return valve_of(p)->inner->ops->rx(valve_of(p)->inner, frames, max);
}

static void valve_rx_done(struct port *p, struct port_frame *frames, unsigned n)
{
	valve_of(p)->inner->ops->rx_done(valve_of(p)->inner, frames, n);
}

static unsigned valve_tx_get(struct port *p, struct port_frame *frames, unsigned n)
{
	return valve_of(p)->inner->ops->tx_get(valve_of(p)->inner, frames, n);
}

static void valve_tx_put(struct port *p, struct port_frame *frames, unsigned n)
{
	valve_of(p)->inner->ops->tx_put(valve_of(p)->inner, frames, n);
}

static unsigned valve_tx(struct port *p, struct port_frame *frames, unsigned n)
{
	struct valve *v = valve_of(p);

	if (v->how == SHUT)
		return 0;
	for (unsigned i = 0; i < n && v->how == CHOKED; i++)
		if (frames[i].len > CHOKED_MAX)
			n = i;
	if (v->how == STUTTERING)
		n = sd_rng_below(&v->rng, n + 1);
	for (unsigned i = 0; i < n && v->corrupts; i++)
		frames[i].data[frames[i].len - 1] ^= 1;
	return v->inner->ops->tx(v->inner, frames, n);
}

static void valve_info(struct port *p, struct port_info *out)
{
	valve_of(p)->inner->ops->info(valve_of(p)->inner, out);
}

static unsigned valve_backlog(struct port *p)
{
	return valve_of(p)->backlog;
}

static void valve_close(struct port *p)
{
	port_close(valve_of(p)->inner);
}

static struct port *valve_open(struct valve *v, struct port *inner)
{
	*v = (struct valve){.inner = inner, .ops = *inner->ops};
	sd_rng_seed(&v->rng, 1);
	v->ops.rx = valve_rx;
	v->ops.rx_done = valve_rx_done;
	v->ops.tx_get = valve_tx_get;
	v->ops.tx_put = valve_tx_put;
	v->ops.tx = valve_tx;
	v->ops.info = valve_info;
	v->ops.backlog = valve_backlog;
	v->ops.close = valve_close;
	v->base.ops = &v->ops;
	return &v->base;
}

static void on_event(void *ctx, struct tp_conn *c, void *user, unsigned events)
{
	struct host *h = ctx;

	if (events & TP_EV_OPEN)
		h->opened++;
	if (events & TP_EV_FAILED)
		h->failed = c;
}

static void on_acceptable(void *ctx, void *user)
{
	((struct host *)ctx)->acceptable++;
}

static void on_resolved(
	void *ctx, struct resolver_wait *w, enum resolver_result result, const struct tp_path *path)
{
}

static struct sd_addr address(unsigned host, unsigned net, uint16_t port)
{
	return (struct sd_addr){.family = 4, .port = port, .ip = {10, 77, net, host + 1}};
}

static void host_open(struct host *h, bool crc)
{
	struct tp_config tc = {.size = sizeof tc,
		.crc = crc,
		.max_conns = 64,
		.dead_timeout_ns = 2 * SD_S,
		.seed = {(uintptr_t)h}};
	struct resolver_config rc = {0};
	struct engine_ops ops = {on_event, on_acceptable, on_resolved, h};

	*h = (struct host){0};
	assert_int_equal(engine_open(&h->engine, &tc, &rc, &ops, now), 0);
}

static void add_port(unsigned host, unsigned net, struct port *port)
{
	struct engine *e = &hosts[host].engine;
	struct sd_addr a = address(host, net, 0);

	assert_int_equal(engine_add_port(e, port), 0);
	engine_set_addrs(e, e->n_ports - 1, &a, 1);
}

static void open_all(unsigned mtu0, unsigned mtu1, bool crc)
{
	struct port *p[2][2];

	now = SD_S;
	for (unsigned i = 0; i < 3; i++)
		host_open(&hosts[i], crc);
	assert_int_equal(port_sim_open_pair(NULL, mtu0, &now, &p[0][0], &p[0][1]), 0);
	assert_int_equal(port_sim_open_pair(NULL, mtu1, &now, &p[1][0], &p[1][1]), 0);
	for (unsigned i = 0; i < 2; i++) {
		add_port(0, i, valve_open(&valves[i], p[i][0]));
		add_port(1 + i, i, p[i][1]);
	}
}

static int teardown(void **state)
{
	for (unsigned i = 0; i < 3; i++)
		engine_close(&hosts[i].engine);
	return 0;
}

static void run(uint64_t ns)
{
	for (uint64_t end = now + ns; now < end; now += STEP) {
		for (unsigned i = 0; i < 3; i++)
			engine_progress(&hosts[i].engine, now);
	}
}

/* A connection from host 0 to host 1 + net. */
struct pair {
	struct tp_conn *c, *s;
	uint64_t sent, received;
};

static void pair_begin(struct pair *p, unsigned net, struct tp_listener **l)
{
	struct engine *e = &hosts[0].engine;
	struct sd_addr local = address(0, net, 1000), peer = address(1 + net, net, 80);
	struct port_info far;
	struct tp_path path;

	*p = (struct pair){0};
	hosts[1 + net].engine.ports[0].port->ops->info(hosts[1 + net].engine.ports[0].port, &far);
	assert_int_equal(tp_listen(hosts[1 + net].engine.tp, &peer, 8, NULL, l), 0);
	engine_path(e, net, &local, &peer, far.mac, &path);
	assert_int_equal(tp_connect(e->tp, now, &path, p, &p->c), 0);
}

static void pair_open(struct pair *p, unsigned net)
{
	struct tp_listener *l;

	pair_begin(p, net, &l);
	run(5 * SD_MS);
	p->s = tp_accept(l, p);
	assert_non_null(p->s);
	assert_true(tp_is_open(p->c));
}

static uint8_t byte_at(uint64_t off)
{
	return off * 31 + (off >> 8);
}

/* Writes and reads what goes, for a while. */
static void pump(struct pair *p, unsigned n, uint64_t ns)
{
	uint8_t buf[4096];
	ptrdiff_t got;

	for (uint64_t end = now + ns; now < end;) {
		for (unsigned i = 0; i < n; i++) {
			for (unsigned k = 0; k < sizeof buf; k++)
				buf[k] = byte_at(p[i].sent + k);
			p[i].sent += tp_write(p[i].c, buf, sizeof buf);
			while ((got = tp_read(p[i].s, buf, sizeof buf)) > 0) {
				for (ptrdiff_t k = 0; k < got; k++)
					assert_int_equal(buf[k], byte_at(p[i].received + k));
				p[i].received += got;
			}
		}
		run(STEP);
	}
}

/* --- several ports --- */

static void check_both(unsigned mtu0, unsigned mtu1)
{
	struct tp_info info;
	struct pair p[2];

	open_all(mtu0, mtu1, true);
	pair_open(&p[0], 0);
	pair_open(&p[1], 1);
	pump(p, 2, 50 * SD_MS);
	for (unsigned i = 0; i < 2; i++) {
		tp_info(p[i].c, &info);
		assert_true(p[i].received > 1 << 20);
		assert_int_equal(info.retransmits, 0);
		/* Full packets of this port's size. */
		assert_in_range(info.bytes_sent / info.packets_sent, (i ? mtu1 : mtu0) / 4, i ? mtu1 : mtu0);
	}
}

static void ports__larger_frames_on_the_second(void **state)
{
	check_both(1500, 9000);
}

static void ports__larger_frames_on_the_first(void **state)
{
	check_both(9000, 1500);
}

static void ports__one_that_is_stuck(void **state)
{
	struct pair p[2];
	uint64_t before;

	open_all(1500, 1500, true);
	pair_open(&p[0], 0);
	pair_open(&p[1], 1);
	valves[0].how = SHUT;
	pump(p, 2, 30 * SD_MS); /* has to be noticed first */
	before = p[1].received;
	pump(p, 2, 50 * SD_MS);
	assert_true(p[1].received - before > 1 << 20);
	assert_true(hosts[0].engine.stats.tx_stuck > 0);
	valves[0].how = OPEN;
	before = p[0].received;
	pump(p, 2, SD_S);
	assert_true(p[0].received - before > 1 << 20);
}

static int never(void *ctx, unsigned index, const struct port_config *cfg, struct port **out, char *err,
	size_t err_len)
{
	return -ENODEV;
}

/* What it has to say, when all others say hello, must not be waited for. */
static void ports__one_that_has_no_device(void **state)
{
	struct port_config c = {.size = sizeof c, .name = "late", .mtu = 1500};
	struct engine *e = &hosts[0].engine;
	struct sd_addr a = address(0, 2, 0), peer = address(1, 2, 80);
	static const uint8_t mac[6] = {2};
	struct tp_conn *lost;
	struct tp_path path;
	struct port *late;
	struct pair p;

	open_all(1500, 1500, true);
	assert_int_equal(port_late_open(&c, never, NULL, 2, &late), 0);
	assert_int_equal(engine_add_port(e, late), 0);
	engine_set_addrs(e, 2, &a, 1);
	engine_announce(e);
	pair_open(&p, 0);
	pump(&p, 1, 50 * SD_MS);
	assert_true(p.received > 1 << 20);
	/* A connection by it, which somebody else has begun. */
	engine_path(e, 2, &a, &peer, mac, &path);
	assert_int_equal(tp_connect(e->tp, now, &path, NULL, &lost), 0);
	pump(&p, 1, 50 * SD_MS);
	assert_true(p.received > 2 << 20);
	assert_true(e->stats.tx_link_down > 0);
}

/* The only port never takes a frame of some size: those behind it, such as acknowledgments, must not wait for
 * ever. */
static void ports__one_that_chokes(void **state)
{
	static const uint8_t bytes[4096];
	static struct valve only;
	struct engine *e = &hosts[1].engine;
	uint64_t before;
	struct pair p;

	open_all(1500, 1500, true);
	pair_open(&p, 0);
	e->ports[0].port = valve_open(&only, e->ports[0].port);
	only.how = CHOKED;
	assert_int_equal(tp_write(p.s, bytes, sizeof bytes), sizeof bytes);
	pump(&p, 1, 500 * SD_MS);
	assert_true(e->stats.tx_stuck > 0);
	before = p.received;
	pump(&p, 1, SD_S);
	assert_true(p.received - before > 1 << 20);
}

/* A port may take its time: nothing is dropped. */
static void ports__one_that_is_slow(void **state)
{
	struct tp_info info;
	struct pair p;

	open_all(1500, 1500, true);
	pair_open(&p, 1);
	valves[1].how = STUTTERING;
	pump(&p, 1, 100 * SD_MS);
	tp_info(p.c, &info);
	assert_true(p.received > 1 << 20);
	assert_int_equal(info.retransmits, 0);
	assert_int_equal(hosts[0].engine.stats.tx_stuck, 0);
}

/* As much as goes, for a while; the window in the end. */
static uint32_t flood(struct tp_conn *from, struct tp_conn *to, uint64_t ns)
{
	static uint8_t buf[65536];
	struct tp_info info;

	for (uint64_t end = now + ns; now < end;) {
		while (tp_write(from, buf, sizeof buf) > 0)
			;
		while (tp_read(to, buf, sizeof buf) > 0)
			;
		run(STEP);
	}
	tp_info(from, &info);
	return info.cwnd;
}

/* Who sends to it holds back until it finds less than a burst. */
static void ports__one_whose_queue_is_full(void **state)
{
	struct pair p;

	open_all(1500, 1500, true);
	pair_open(&p, 0);
	assert_true(flood(p.s, p.c, 50 * SD_MS) > 2 * ENGINE_BURST);
	valves[0].backlog = 255;
	assert_in_range(flood(p.s, p.c, 50 * SD_MS), 1, ENGINE_BURST + 8);
}

/* --- links --- */

static void link__down_drops_like_a_cable(void **state)
{
	struct engine_port *port;
	struct pair p;
	uint64_t before;

	open_all(1500, 1500, true);
	pair_open(&p, 0);
	port = &hosts[0].engine.ports[0];
	port->info.caps |= PORT_CAP_LINK;
	port->info.link_up = false;
	valves[0].how = SHUT;
	pump(&p, 1, 50 * SD_MS);
	assert_true(hosts[0].engine.stats.tx_link_down > 0);
	valves[0].how = OPEN;
	port->info.link_up = true;
	before = p.received;
	pump(&p, 1, SD_S);
	assert_true(p.received - before > 1 << 20);
}

static void link__dead_for_too_long(void **state)
{
	struct pair p;

	open_all(1500, 1500, true);
	pair_open(&p, 0);
	valves[0].how = SHUT;
	assert_int_equal(tp_write(p.c, "x", 1), 1);
	run(5 * SD_S);
	assert_ptr_equal(hosts[0].failed, p.c);
	assert_int_equal(tp_error(p.c), -ETIMEDOUT);
}

/* --- what is not for us, or not right --- */

static void frames__for_others_are_counted_and_dropped(void **state)
{
	struct tp_listener *l;
	struct pair p;

	open_all(1500, 1500, true);
	engine_set_addrs(&hosts[1].engine, 0, NULL, 0);
	pair_begin(&p, 0, &l);
	run(500 * SD_MS);
	assert_true(hosts[1].engine.stats.rx_foreign > 0);
	assert_ptr_equal(hosts[0].failed, p.c);
	assert_int_equal(hosts[1].acceptable, 0);
}

/* Those of a flow that has been ours until now, too. */
static void frames__for_an_address_that_has_gone(void **state)
{
	struct engine_stats *stats = &hosts[1].engine.stats;
	uint64_t before;
	struct pair p;

	open_all(1500, 1500, true);
	pair_open(&p, 0);
	pump(&p, 1, 5 * SD_MS);
	assert_int_equal(stats->rx_foreign, 0);
	before = p.received;
	engine_set_addrs(&hosts[1].engine, 0, NULL, 0);
	run(2 * SD_MS);
	pump(&p, 1, 20 * SD_MS);
	assert_true(stats->rx_foreign > 0);
	assert_true(p.received - before < 1 << 20); /* what was in the ring */
	before = p.received;
	pump(&p, 1, 20 * SD_MS);
	assert_int_equal(p.received, before);
}

/* With a CRC the transport finds out, without one the UDP checksum is all there is. */
static void check_corruption(bool crc)
{
	struct tp_listener *l;
	struct pair p;

	open_all(1500, 1500, crc);
	valves[0].corrupts = true;
	pair_begin(&p, 0, &l);
	run(500 * SD_MS);
	assert_ptr_equal(hosts[0].failed, p.c);
	assert_int_equal(tp_stats(hosts[1].engine.tp)->rx_bad_crc > 0, crc);
	assert_int_equal(hosts[1].acceptable, 0);
}

static void frames__corrupt_with_crc(void **state)
{
	check_corruption(true);
}

static void frames__corrupt_without_crc(void **state)
{
	check_corruption(false);
}

#define CASE(name) cmocka_unit_test_teardown(name, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(ports__larger_frames_on_the_second),
		CASE(ports__larger_frames_on_the_first),
		CASE(ports__one_that_is_stuck),
		CASE(ports__one_that_has_no_device),
		CASE(ports__one_that_is_slow),
		CASE(ports__one_that_chokes),
		CASE(ports__one_whose_queue_is_full),
		CASE(link__down_drops_like_a_cable),
		CASE(link__dead_for_too_long),
		CASE(frames__for_others_are_counted_and_dropped),
		CASE(frames__for_an_address_that_has_gone),
		CASE(frames__corrupt_with_crc),
		CASE(frames__corrupt_without_crc),
	};

	alarm(100); /* a hang is a failure too */
	return cmocka_run_group_tests_name("engine", tests, NULL, NULL);
}
