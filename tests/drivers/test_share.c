/* SPDX-License-Identifier: BSD-3-Clause */
/* Who gets what of a port with several users. That each user's port is one, test_port_sim shows. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "drivers/share.h"

#define USERS 4
#define MTU   1500

static struct port *user[USERS], *far;

/* The first byte says for whom it is. */
static uint32_t by_first_byte(void *ctx, const struct port_frame *f)
{
	return f->data[0];
}

static int start(void **state)
{
	struct port *near;

	assert_int_equal(port_sim_open_pair(NULL, MTU, NULL, &near, &far), 0);
	assert_int_equal(port_share_open(near, USERS, by_first_byte, NULL, user), 0);
	return 0;
}

static int stop(void **state)
{
	for (unsigned i = 0; i < USERS; i++)
		port_close(user[i]);
	port_close(far);
	return 0;
}

static bool send_from(struct port *p, uint8_t mask, uint32_t number, uint32_t len)
{
	struct port_frame f;

	if (!p->ops->tx_get(p, &f, 1))
		return false;
	memset(f.data, (int)number, len);
	f.data[0] = mask;
	memcpy(f.data + 4, &number, sizeof number);
	f.len = len;
	if (p->ops->tx(p, &f, 1))
		return true;
	p->ops->tx_put(p, &f, 1);
	return false;
}

/* How many there are; the last one's number. */
static unsigned receive(struct port *p, uint32_t *number)
{
	struct port_frame f[8];
	unsigned n = p->ops->rx(p, f, 8);

	if (n) {
		memcpy(number, f[n - 1].data + 4, sizeof *number);
		/* There is one queue: no other one would have been better. */
		assert_false(f[n - 1].flags & PORT_RX_HANDED);
	}
	p->ops->rx_done(p, f, n);
	return n;
}

static void each_gets_its_own(void **state)
{
	uint32_t number;

	for (uint32_t i = 0; i < USERS; i++)
		assert_true(send_from(far, (uint8_t)(1 << i), 100 + i, 64));
	assert_int_equal(receive(user[1], &number), 0); /* nobody has looked yet */
	assert_int_equal(receive(user[0], &number), 1);
	assert_int_equal(number, 100);
	for (uint32_t i = 1; i < USERS; i++) {
		assert_int_equal(receive(user[i], &number), 1);
		assert_int_equal(number, 100 + i);
		assert_int_equal(receive(user[i], &number), 0);
	}
	assert_int_equal(port_share_handed(user[0]), USERS - 1);
}

static void several_get_copies(void **state)
{
	uint32_t number;

	for (uint32_t i = 0; i < 200; i++) { /* copies come back */
		assert_true(send_from(far, 0xf, i, 200));
		for (unsigned u = 0; u < USERS; u++) {
			assert_int_equal(receive(user[u], &number), 1);
			assert_int_equal(number, i);
		}
		assert_true(send_from(far, 0xa, i, 200));
		assert_int_equal(receive(user[0], &number), 0);
		assert_int_equal(
			receive(user[1], &number) + receive(user[2], &number) + receive(user[3], &number), 2);
	}
	/* What is for several is short; and whoever does not look loses. */
	assert_true(send_from(far, 0xf, 1, MTU));
	assert_int_equal(receive(user[0], &number), 1);
	assert_int_equal(receive(user[1], &number), 0);
}

static uint64_t missed(struct port *p)
{
	struct port_stats s;

	p->ops->stats(p, &s);
	return s.rx_missed;
}

/* One that does not look loses frames, and nobody else does. */
static void a_sleepy_user(void **state)
{
	unsigned got = 0;
	uint32_t number;

	for (uint32_t i = 0; i < 3000; i++) {
		assert_true(send_from(far, 2, i, 64) && send_from(far, 4, i, 64));
		assert_int_equal(receive(user[0], &number), 0);
		assert_int_equal(receive(user[2], &number), 1);
		assert_int_equal(number, i);
	}
	assert_int_equal(missed(user[2]), 0);
	assert_true(missed(user[1]) > 0);
	for (unsigned n; (n = receive(user[1], &number));)
		got += n;
	assert_int_equal(got + missed(user[1]), 3000);
	/* It is as good as new. */
	assert_true(send_from(far, 2, 7, 64));
	receive(user[0], &number);
	assert_int_equal(receive(user[1], &number), 1);
	assert_int_equal(number, 7);
}

static bool rings(struct port *p)
{
	struct pollfd fd = {.fd = p->ops->wait_fd(p), .events = POLLIN};

	return poll(&fd, 1, 0) == 1;
}

static void bells(void **state)
{
	uint32_t number;

	assert_int_equal(user[1]->ops->arm(user[1]), 0);
	assert_int_equal(user[2]->ops->arm(user[2]), 0);
	send_from(far, 2, 1, 64);
	receive(user[0], &number);
	assert_true(rings(user[1]));
	assert_false(rings(user[2]));
	user[1]->ops->disarm(user[1]);
	assert_false(rings(user[1]));
	assert_int_equal(receive(user[1], &number), 1);
	/* Nobody is rung for who is awake. */
	send_from(far, 2, 2, 64);
	receive(user[0], &number);
	assert_false(rings(user[1]));
	user[2]->ops->disarm(user[2]);
}

/* What is still under way when the users go comes back to the port behind, which checks. */
static void closed_with_frames_under_way(void **state)
{
	uint32_t number;

	for (uint32_t i = 0; i < 50; i++)
		send_from(far, (uint8_t)(i % 3 ? 6 : 2), i, 64);
	for (unsigned i = 0; i < 10; i++)
		receive(user[0], &number);
	receive(user[1], &number);
}

static void wrong_numbers(void **state)
{
	struct port *out[1];

	assert_int_equal(port_share_open(far, 0, by_first_byte, NULL, out), -EINVAL);
	assert_int_equal(port_share_open(far, PORT_SHARE_MAX + 1, by_first_byte, NULL, out), -EINVAL);
}

/* --- threads --- */

#define EACH 200000u

static atomic_bool done;

struct worker {
	pthread_t thread;
	unsigned user;
	uint32_t last, got;
	bool out_of_order;
};

static void take_all(struct worker *w, struct port *p)
{
	struct port_frame f[8];
	unsigned n = p->ops->rx(p, f, 8);

	for (unsigned i = 0; i < n; i++) {
		uint32_t number;

		memcpy(&number, f[i].data + 4, sizeof number);
		w->out_of_order |= number <= w->last || f[i].data[20] != (uint8_t)number;
		w->last = number;
		w->got++;
	}
	p->ops->rx_done(p, f, n);
}

/* Sleeps when there is nothing, receives, and sends. */
static void *work(void *arg)
{
	struct worker *w = arg;
	struct port *p = user[w->user];
	struct pollfd fd = {.fd = p->ops->wait_fd(p), .events = POLLIN};

	for (uint32_t i = 1; !done; i++) {
		take_all(w, p);
		send_from(p, (uint8_t)w->user, i, 64);
		if (i % 16)
			continue;
		p->ops->arm(p);
		take_all(w, p);
		poll(&fd, 1, 1);
		p->ops->disarm(p);
	}
	take_all(w, p);
	return NULL;
}

static void threads(void **state)
{
	struct worker w[USERS] = {{0}};
	uint64_t end = sd_clock_ns() + 2 * SD_S;
	uint32_t number, sent = 0;

	done = false;
	for (unsigned i = 1; i < USERS; i++) {
		w[i].user = i;
		assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
	}
	while (sent < EACH && sd_clock_ns() < end) {
		for (unsigned i = 0; i < 4; i++)
			sent += send_from(far, (uint8_t)(2 << sent % (USERS - 1)), sent + 1, 64);
		assert_int_equal(receive(user[0], &number), 0);
		receive(far, &number);
	}
	for (unsigned i = 0; i < 10000; i++)
		receive(user[0], &number);
	done = true;
	for (unsigned i = 1; i < USERS; i++) {
		pthread_join(w[i].thread, NULL);
		take_all(&w[i], user[i]);
		assert_false(w[i].out_of_order);
		assert_true(w[i].got > 0);
	}
	number = 0;
	for (unsigned i = 1; i < USERS; i++) {
		struct worker rest = w[i];

		for (uint32_t before = UINT32_MAX; before != rest.got;) {
			before = rest.got;
			take_all(&rest, user[i]);
		}
		number += rest.got + (uint32_t)missed(user[i]);
	}
	assert_int_equal(number, sent);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(each_gets_its_own, start, stop),
		cmocka_unit_test_setup_teardown(several_get_copies, start, stop),
		cmocka_unit_test_setup_teardown(a_sleepy_user, start, stop),
		cmocka_unit_test_setup_teardown(bells, start, stop),
		cmocka_unit_test_setup_teardown(closed_with_frames_under_way, start, stop),
		cmocka_unit_test_setup_teardown(wrong_numbers, start, stop),
		cmocka_unit_test_setup_teardown(threads, start, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
