/* SPDX-License-Identifier: BSD-3-Clause */
/* Two ports as one: which of them carries what, and when that changes. That it is a port, test_port_sim
 * shows. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/list.h"
#include "drivers/port.h"

#define MTU 1500

/* A simulated port whose link can be pulled. */
struct cable {
	struct port base;
	struct port_ops ops;
	struct port *inner, *far;
	bool up, told;
	uint16_t mtu; /* 0: the simulated wire's */
};

static struct cable cable[2];
static struct port *bond;

static struct cable *cable_of(struct port *p)
{
	return container_of(p, struct cable, base);
}

static unsigned cable_rx(struct port *p, struct port_frame *f, unsigned max)
{
	return cable_of(p)->inner->ops->rx(cable_of(p)->inner, f, max);
}

static void cable_rx_done(struct port *p, struct port_frame *f, unsigned n)
{
	cable_of(p)->inner->ops->rx_done(cable_of(p)->inner, f, n);
}

static unsigned cable_tx_get(struct port *p, struct port_frame *f, unsigned n)
{
	return cable_of(p)->inner->ops->tx_get(cable_of(p)->inner, f, n);
}

static void cable_tx_put(struct port *p, struct port_frame *f, unsigned n)
{
	cable_of(p)->inner->ops->tx_put(cable_of(p)->inner, f, n);
}

static unsigned cable_tx(struct port *p, struct port_frame *f, unsigned n)
{
	return cable_of(p)->inner->ops->tx(cable_of(p)->inner, f, n);
}

static bool cable_link_poll(struct port *p)
{
	struct cable *c = cable_of(p);
	bool changed = c->told != c->up;

	c->told = c->up;
	return changed;
}

static void cable_info(struct port *p, struct port_info *out)
{
	struct cable *c = cable_of(p);

	c->inner->ops->info(c->inner, out);
	out->caps |= PORT_CAP_LINK;
	out->link_up = c->up;
	out->mtu = c->mtu ? c->mtu : out->mtu;
}

static void cable_close(struct port *p)
{
	port_close(cable_of(p)->inner);
}

static int start(void **state)
{
	for (unsigned i = 0; i < 2; i++) {
		struct cable *c = &cable[i];

		*c = (struct cable){.up = true, .told = true};
		assert_int_equal(port_sim_open_pair(NULL, MTU, NULL, &c->inner, &c->far), 0);
		c->ops = *c->inner->ops;
		c->ops.rx = cable_rx;
		c->ops.rx_done = cable_rx_done;
		c->ops.tx_get = cable_tx_get;
		c->ops.tx_put = cable_tx_put;
		c->ops.tx = cable_tx;
		c->ops.link_poll = cable_link_poll;
		c->ops.info = cable_info;
		c->ops.close = cable_close;
		c->base.ops = &c->ops;
	}
	return port_bond_open(&cable[0].base, &cable[1].base, &bond);
}

static int stop(void **state)
{
	port_close(bond);
	for (unsigned i = 0; i < 2; i++)
		port_close(cable[i].far);
	return 0;
}

/* --- what goes --- */

static void fill(struct port_frame *f, uint8_t to, uint8_t mark)
{
	memset(f->data, mark, 60);
	f->data[0] = to;
	f->len = 60;
	f->flags = 0;
}

static bool send_by(struct port *p, uint8_t to, uint8_t mark)
{
	struct port_frame f;

	assert_int_equal(p->ops->tx_get(p, &f, 1), 1);
	fill(&f, to, mark);
	if (p->ops->tx(p, &f, 1))
		return true;
	p->ops->tx_put(p, &f, 1);
	return false;
}

/* The mark of the one frame that p has received, or 0. */
static uint8_t heard_by(struct port *p)
{
	struct port_frame f[4];
	unsigned n = p->ops->rx(p, f, 4);
	uint8_t mark = n ? f[0].data[20] : 0;

	assert_true(n < 2);
	p->ops->rx_done(p, f, n);
	return mark;
}

#define UNICAST	  0x02
#define BROADCAST 0xff

static void goes_by(unsigned i)
{
	static uint8_t mark;

	mark = mark % 100 + 1;
	assert_true(send_by(bond, UNICAST, mark));
	assert_int_equal(heard_by(cable[i].far), mark);
	assert_int_equal(heard_by(cable[!i].far), 0);
}

static bool is_up(void)
{
	struct port_info i;

	bond->ops->info(bond, &i);
	return i.link_up;
}

/* Polls the links a moment later than last time. */
static bool look(void)
{
	const struct timespec moment = {0, 101000000};

	nanosleep(&moment, NULL);
	return bond->ops->link_poll(bond);
}

static void first_carries_all(void **state)
{
	goes_by(0);
	goes_by(0);
	assert_false(bond->ops->link_poll(bond));
	goes_by(0);
}

static void second_when_the_link_is_down(void **state)
{
	cable[0].up = false;
	assert_true(bond->ops->link_poll(bond));
	assert_true(is_up());
	goes_by(1);
	/* It stays there, when the first is back, until it goes itself. */
	cable[0].up = true;
	assert_true(bond->ops->link_poll(bond));
	goes_by(1);
	cable[1].up = false;
	assert_true(bond->ops->link_poll(bond));
	goes_by(0);
	cable[0].up = false;
	assert_true(bond->ops->link_poll(bond));
	assert_false(is_up());
	cable[1].up = true;
	assert_true(bond->ops->link_poll(bond));
	assert_true(is_up());
	goes_by(1);
}

static void frames_from_before_go_as_copies(void **state)
{
	struct port_frame f[6], more[2];

	assert_int_equal(bond->ops->tx_get(bond, f, 4), 4);
	cable[0].up = false;
	bond->ops->link_poll(bond);
	assert_int_equal(bond->ops->tx_get(bond, more, 2), 2);
	/* Some of either, in turn. */
	f[4] = f[2];
	f[5] = f[3];
	f[2] = more[0];
	f[3] = more[1];
	for (unsigned i = 0; i < 6; i++)
		fill(&f[i], UNICAST, (uint8_t)(i + 1));
	assert_int_equal(bond->ops->tx(bond, f, 6), 6);
	for (unsigned i = 0; i < 6; i++) {
		struct port_frame got;

		assert_int_equal(cable[1].far->ops->rx(cable[1].far, &got, 1), 1);
		assert_int_equal(got.data[20], i + 1);
		cable[1].far->ops->rx_done(cable[1].far, &got, 1);
	}
	assert_int_equal(heard_by(cable[0].far), 0);
}

/* Nothing is lost of what a port has to give, however often it is taken and by whichever way it goes back. */
static void no_frame_leaks(void **state)
{
	struct port_frame f[32];
	unsigned most = bond->ops->tx_get(bond, f, 32);

	bond->ops->tx_put(bond, f, most);
	for (unsigned i = 0; i < 3000; i++) {
		unsigned n = bond->ops->tx_get(bond, f, most), sent;

		assert_int_equal(n, most);
		cable[i & 1].up = i % 5 != 0;
		cable[!(i & 1)].up = true;
		bond->ops->link_poll(bond);
		for (unsigned k = 0; k < n; k++)
			fill(&f[k], UNICAST, 1);
		sent = bond->ops->tx(bond, f, n / 2);
		bond->ops->tx_put(bond, f + sent, n - sent);
		for (unsigned k = 0; k < 2; k++) {
			struct port_frame got[32];

			n = cable[k].far->ops->rx(cable[k].far, got, 32);
			cable[k].far->ops->rx_done(cable[k].far, got, n);
		}
	}
}

/* --- what comes --- */

static void both_are_heard(void **state)
{
	struct port_frame f[8];

	for (uint8_t i = 0; i < 2; i++) {
		assert_true(send_by(cable[i].far, UNICAST, 10 + i));
		assert_true(send_by(cable[i].far, UNICAST, 20 + i));
	}
	assert_int_equal(bond->ops->rx(bond, f, 8), 4);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(f[i].data[20], 10 * (i % 2 + 1) + i / 2);
	/* In any order. */
	bond->ops->rx_done(bond, f + 1, 3);
	bond->ops->rx_done(bond, f, 1);
}

static void copies_are_dropped(void **state)
{
	for (unsigned i = 0; i < 2; i++)
		assert_true(send_by(cable[i].far, BROADCAST, 7));
	assert_int_equal(heard_by(bond), 7);
	assert_int_equal(heard_by(bond), 0);
}

static void a_wire_that_has_gone_silent(void **state)
{
	/* Both are silent: no reason to change. */
	for (unsigned i = 0; i < 5; i++)
		assert_false(look());
	/* Copies of one frame that are counted in different intervals. */
	for (unsigned i = 0; i < 5; i++) {
		send_by(cable[1].far, BROADCAST, 1);
		heard_by(bond);
		assert_false(look());
		send_by(cable[0].far, BROADCAST, 1);
		heard_by(bond);
		assert_false(look());
	}
	goes_by(0);
	/* What only the second hears. */
	send_by(cable[1].far, BROADCAST, 1);
	heard_by(bond);
	assert_false(look());
	assert_true(look());
	goes_by(1);
}

/* A switch gives back to the second what the first has sent to all. */
static void its_own_words_are_none(void **state)
{
	struct port_info i;
	struct port_frame f;

	bond->ops->info(bond, &i);
	for (unsigned n = 0; n < 5; n++) {
		assert_int_equal(cable[1].far->ops->tx_get(cable[1].far, &f, 1), 1);
		fill(&f, BROADCAST, 9);
		memcpy(f.data + 6, i.mac, 6);
		assert_int_equal(cable[1].far->ops->tx(cable[1].far, &f, 1), 1);
		assert_int_equal(heard_by(bond), 0);
		assert_false(look());
	}
	goes_by(0);
}

static void one_that_carries_less_is_not_used(void **state)
{
	struct port_info i;

	cable[1].up = false;
	look();
	cable[1].mtu = 1400;
	cable[1].up = true;
	look();
	cable[0].up = false;
	look();
	assert_false(is_up());
	bond->ops->info(bond, &i);
	assert_int_equal(i.mtu, MTU);
}

/* More copies than a burst, and then something for us: who asks once gets that. */
static void copies_hide_nothing(void **state)
{
	send_by(cable[0].far, UNICAST, 1);
	assert_int_equal(heard_by(bond), 1);
	for (unsigned i = 0; i < 10; i++)
		send_by(cable[1].far, BROADCAST, 1);
	send_by(cable[1].far, UNICAST, 5);
	assert_int_equal(heard_by(bond), 5);
}

/* The far host's active wire is our second one: what it says to all comes by no other. */
static void a_host_on_the_other_wire_is_heard(void **state)
{
	send_by(cable[1].far, BROADCAST, 1);
	assert_int_equal(heard_by(bond), 1);
}

static void not_again_at_once(void **state)
{
	const struct timespec second = {1, 100000000};

	a_wire_that_has_gone_silent(state);
	send_by(cable[0].far, UNICAST, 1);
	assert_int_equal(heard_by(bond), 1);
	assert_false(look());
	goes_by(1);
	nanosleep(&second, NULL);
	send_by(cable[0].far, UNICAST, 1);
	heard_by(bond);
	assert_true(look());
	goes_by(0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(first_carries_all),
		CASE(second_when_the_link_is_down),
		CASE(frames_from_before_go_as_copies),
		CASE(no_frame_leaks),
		CASE(both_are_heard),
		CASE(copies_are_dropped),
		CASE(a_wire_that_has_gone_silent),
		CASE(not_again_at_once),
		CASE(its_own_words_are_none),
		CASE(one_that_carries_less_is_not_used),
		CASE(copies_hide_nothing),
		CASE(a_host_on_the_other_wire_is_heard),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
