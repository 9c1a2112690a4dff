/* SPDX-License-Identifier: BSD-3-Clause */
/* A port with a pair of queues for each of its users: each receives from its own, and what is not for it
 * reaches whom it is for. The port behind is two simulated ones under one name. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "drivers/share.h"

enum { QUEUES = 2, MTU = 1500 };

static struct port_ops ops;
static const struct port_ops *sim;
static struct port *near[QUEUES], *far[QUEUES], *user[QUEUES];
static int interrupt[QUEUES];
static bool no_interrupts;
static atomic_bool absent, plugged; /* the device, which link_poll finds */
static atomic_bool polling, inside[QUEUES];

/* --- the port behind --- */

static unsigned index_of(struct port *p)
{
	return p == near[1];
}

static struct port *queue(struct port *p, unsigned i)
{
	return near[i];
}

static void info(struct port *p, struct port_info *out)
{
	sim->info(p, out);
	out->queues = absent ? 1 : QUEUES;
}

/* Of a device that is not there yet. */
static unsigned tx_get(struct port *p, struct port_frame *frames, unsigned n)
{
	return absent ? 0 : sim->tx_get(p, frames, n);
}

static unsigned rx(struct port *p, struct port_frame *frames, unsigned max)
{
	unsigned n;

	inside[index_of(p)] = true;
	assert_false(polling);
	n = sim->rx(p, frames, max);
	inside[index_of(p)] = false;
	return n;
}

static bool link_poll(struct port *p)
{
	assert_ptr_equal(p, near[0]);
	polling = true;
	for (unsigned i = 0; i < QUEUES; i++)
		assert_false(inside[i]);
	absent = absent && !plugged;
	polling = false;
	return sim->link_poll(p);
}

static int wait_fd(struct port *p)
{
	return no_interrupts ? -ENOTSUP : interrupt[index_of(p)];
}

static int arm(struct port *p)
{
	return no_interrupts ? -ENOTSUP : 0;
}

static void disarm(struct port *p)
{
	eventfd_t n;

	eventfd_read(interrupt[index_of(p)], &n);
}

static void close_both(struct port *p)
{
	assert_ptr_equal(p, near[0]);
	sim->close(near[0]);
	sim->close(near[1]);
}

/* The first byte says for whom it is. */
static uint32_t by_first_byte(void *ctx, const struct port_frame *f)
{
	return f->data[0];
}

static int begin(bool late)
{
	absent = late;
	plugged = false;
	for (unsigned i = 0; i < QUEUES; i++) {
		assert_int_equal(port_sim_open_pair(NULL, MTU, NULL, &near[i], &far[i]), 0);
		sim = far[i]->ops;
		near[i]->ops = &ops;
		interrupt[i] = eventfd(0, EFD_NONBLOCK);
	}
	ops = *sim;
	ops.queue = queue;
	ops.info = info;
	ops.tx_get = tx_get;
	ops.rx = rx;
	ops.link_poll = link_poll;
	ops.wait_fd = wait_fd;
	ops.arm = arm;
	ops.disarm = disarm;
	ops.close = close_both;
	no_interrupts = false;
	assert_int_equal(port_share_open(near[0], QUEUES, by_first_byte, NULL, user), 0);
	return 0;
}

static int start(void **state)
{
	return begin(false);
}

static int start_late(void **state)
{
	return begin(true);
}

static int stop(void **state)
{
	for (unsigned i = 0; i < QUEUES; i++)
		port_close(user[i]);
	for (unsigned i = 0; i < QUEUES; i++) {
		port_close(far[i]);
		close(interrupt[i]);
	}
	return 0;
}

/* --- traffic --- */

static bool send_from(struct port *p, uint8_t mask, uint32_t number)
{
	struct port_frame f;

	if (!p->ops->tx_get(p, &f, 1))
		return false;
	memset(f.data, 0, 64);
	f.data[0] = mask;
	f.data[1] = p == far[1];
	memcpy(f.data + 4, &number, sizeof number);
	f.len = 64;
	if (p->ops->tx(p, &f, 1))
		return true;
	p->ops->tx_put(p, &f, 1);
	return false;
}

/* How many there are; of the last one its number, and whether it was handed over. */
static unsigned receive(struct port *p, uint32_t *number, bool *handed)
{
	struct port_frame f[8];
	unsigned n = p->ops->rx(p, f, 8);

	if (n) {
		memcpy(number, f[n - 1].data + 4, sizeof *number);
		*handed = f[n - 1].flags & PORT_RX_HANDED;
	}
	p->ops->rx_done(p, f, n);
	return n;
}

static void each_has_its_queue(void **state)
{
	uint32_t number;
	bool handed;

	for (unsigned i = 0; i < QUEUES; i++) {
		uint64_t before = port_share_handed(user[i]);

		assert_true(send_from(far[i], (uint8_t)(1 << i), 10 + i));
		assert_int_equal(receive(user[i], &number, &handed), 1);
		assert_int_equal(number, 10 + i);
		assert_false(handed);
		assert_true(send_from(user[i], 0, 20 + i));
		assert_int_equal(receive(far[i], &number, &handed), 1);
		assert_int_equal(number, 20 + i);
		assert_int_equal(port_share_handed(user[i]), before);
	}
}

static void astray(void **state)
{
	uint32_t number;
	bool handed;

	for (unsigned i = 0; i < QUEUES; i++) {
		struct port *mine = user[i], *other = user[!i];

		assert_true(send_from(far[i], (uint8_t)(1 << !i), i));
		assert_int_equal(receive(other, &number, &handed), 0);
		assert_int_equal(receive(mine, &number, &handed), 0);
		assert_int_equal(receive(other, &number, &handed), 1);
		assert_int_equal(number, i);
		assert_true(handed);
		assert_int_equal(port_share_handed(mine), 1);
	}
	/* For both: one has the frame, the other a copy. */
	assert_true(send_from(far[1], 3, 99));
	assert_int_equal(receive(user[1], &number, &handed), 1);
	assert_int_equal(receive(user[0], &number, &handed), 1);
	assert_int_equal(number, 99);
	assert_int_equal(port_share_handed(user[1]), 2);
}

static bool rings_at(int fd)
{
	struct pollfd f = {.fd = fd, .events = POLLIN};

	assert_true(fd >= 0);
	return poll(&f, 1, 0) == 1;
}

static bool rings(struct port *p)
{
	return rings_at(p->ops->wait_fd(p));
}

static void woken_by_queue_and_by_bell(void **state)
{
	uint32_t number;
	bool handed;

	for (unsigned i = 0; i < QUEUES; i++) {
		assert_int_equal(user[i]->ops->arm(user[i]), 0);
		assert_false(rings(user[i]));
		eventfd_write(interrupt[i], 1);
		assert_true(rings(user[i]));
		user[i]->ops->disarm(user[i]);
		assert_false(rings(user[i]));

		assert_int_equal(user[i]->ops->arm(user[i]), 0);
		send_from(far[!i], (uint8_t)(1 << i), 1);
		assert_int_equal(receive(user[!i], &number, &handed), 0);
		assert_true(rings(user[i]));
		user[i]->ops->disarm(user[i]);
		assert_false(rings(user[i]));
		assert_int_equal(receive(user[i], &number, &handed), 1);
	}
	no_interrupts = true; /* by a timer then */
	assert_int_equal(user[0]->ops->wait_fd(user[0]), -ENOTSUP);
	assert_int_equal(user[0]->ops->arm(user[0]), -ENOTSUP);
	user[0]->ops->disarm(user[0]);
}

/* It is asked for as many frames as its own queue has, again and again. */
static void a_busy_queue_hides_nothing(void **state)
{
	unsigned got_handed = 0;
	uint32_t number;
	bool handed;

	for (uint32_t i = 0; i < 20; i++)
		assert_true(send_from(far[1], 1, 1000 + i));
	for (unsigned i = 0; i < 3; i++)
		receive(user[1], &number, &handed);
	for (uint32_t i = 0; i < 10; i++) {
		struct port_frame f[8];
		unsigned n;

		for (unsigned k = 0; k < 16; k++)
			send_from(far[0], 1, i);
		n = user[0]->ops->rx(user[0], f, 8);
		for (unsigned k = 0; k < n; k++)
			got_handed += !!(f[k].flags & PORT_RX_HANDED);
		user[0]->ops->rx_done(user[0], f, n);
		assert_true(n > got_handed || i); /* and its own */
	}
	assert_int_equal(got_handed, 20);
}

/* What comes to the queue of one who has gone. */
static void after_the_others_have_closed(void **state)
{
	uint32_t number;
	bool handed;

	port_close(user[1]);
	assert_true(send_from(far[1], 1, 5) && send_from(far[1], 2, 6) && send_from(far[1], 3, 7));
	for (unsigned i = 0, got = 0; i < 3; i++) {
		got += receive(user[0], &number, &handed);
		assert_int_equal(got, i ? 2 : got);
	}
	assert_int_equal(number, 7);
	port_close(user[0]);
	assert_int_equal(port_sim_open_pair(NULL, MTU, NULL, &near[0], &user[0]), 0); /* for stop to close */
	user[1] = near[0];
}

static void closed_with_frames_under_way(void **state)
{
	uint32_t number;
	bool handed;

	for (uint32_t i = 0; i < 50; i++)
		send_from(far[i % 2], (uint8_t)(1 + i % 3), i);
	for (unsigned i = 0; i < 3; i++)
		receive(user[i % 2], &number, &handed);
}

/* --- a device that comes late --- */

static void come(void)
{
	plugged = true;
	user[0]->ops->link_poll(user[0]);
}

static void each_has_its_queue_when_the_device_has_come(void **state)
{
	uint32_t number;
	bool handed;
	int bell;

	/* Without it: all that user 1 can be woken by is what user 0 hands over. */
	assert_false(send_from(user[1], 0, 1));
	assert_true(send_from(far[0], 2, 7));
	assert_int_equal(user[1]->ops->arm(user[1]), 0);
	assert_int_equal(receive(user[0], &number, &handed), 0);
	assert_true(rings(user[1]));
	user[1]->ops->disarm(user[1]);
	assert_int_equal(receive(user[1], &number, &handed), 1);
	assert_false(handed); /* there is no queue that would be the right one */
	eventfd_write(interrupt[1], 1);
	assert_int_equal(user[1]->ops->arm(user[1]), 0);
	bell = user[1]->ops->wait_fd(user[1]);
	assert_false(rings_at(bell));
	come();
	assert_true(rings_at(bell)); /* to look what there is to sleep on now */
	user[1]->ops->disarm(user[1]);
	assert_false(rings_at(bell));
	user[1]->ops->disarm(user[1]);
	each_has_its_queue(state);
	for (unsigned i = 0; i < QUEUES; i++)
		user[i]->ops->wait_fd(user[i]);
	woken_by_queue_and_by_bell(state);
}

/* It has asked for what to sleep on, and goes to sleep when that is not all any more. */
static void the_device_comes_while_one_lies_down(void **state)
{
	int bell = user[1]->ops->wait_fd(user[1]);

	come();
	assert_int_equal(user[1]->ops->arm(user[1]), 0);
	assert_true(rings_at(bell));
	user[1]->ops->disarm(user[1]);
	assert_false(rings(user[1]));
	assert_int_equal(user[1]->ops->arm(user[1]), 0);
	assert_false(rings_at(bell));
	user[1]->ops->disarm(user[1]);
}

/* Whose queue there was not then. */
static void one_has_closed_before_the_device_comes(void **state)
{
	uint32_t number;
	bool handed;

	port_close(user[1]);
	assert_int_equal(receive(user[0], &number, &handed), 0);
	come();
	assert_true(send_from(far[1], 1, 5));
	assert_int_equal(receive(user[0], &number, &handed) + receive(user[0], &number, &handed), 1);
	assert_int_equal(number, 5);
	port_close(user[0]);
	assert_int_equal(port_sim_open_pair(NULL, MTU, NULL, &near[0], &user[0]), 0); /* for stop to close */
	user[1] = near[0];
}

/* --- threads --- */

static atomic_bool done;

struct worker {
	pthread_t thread;
	unsigned index;
	uint64_t got, handed, sent;
	uint32_t last[QUEUES]; /* by the queue it came from */
	bool out_of_order;
};

static unsigned take_all(struct worker *w)
{
	struct port *p = user[w->index];
	struct port_frame f[8];
	unsigned n = p->ops->rx(p, f, 8);

	for (unsigned i = 0; i < n; i++) {
		bool handed = f[i].flags & PORT_RX_HANDED;
		uint32_t *last = &w->last[f[i].data[1]], number;

		memcpy(&number, f[i].data + 4, sizeof number);
		w->out_of_order |= number <= *last || !(f[i].data[0] & 1 << w->index);
		*last = number;
		w->got++;
		w->handed += handed;
	}
	p->ops->rx_done(p, f, n);
	return n;
}

static void *work(void *arg)
{
	struct worker *w = arg;

	for (uint32_t i = 1; !done; i++) {
		take_all(w);
		w->sent += send_from(user[w->index], 0, i);
		if (!w->index && !(i % 64))
			user[0]->ops->link_poll(user[0]);
	}
	return NULL;
}

static uint64_t missed(struct port *p)
{
	struct port_stats s;

	p->ops->stats(p, &s);
	return s.rx_missed;
}

/* Nobody is in a queue while user 0 looks after the link, and no frame is lost but by count. */
static void traffic(bool comes)
{
	struct worker w[QUEUES] = {{.index = 0}, {.index = 1}};
	uint64_t end = sd_clock_ns() + SD_S, sent = 0, back = 0;
	uint32_t number;
	bool handed;

	done = false;
	for (unsigned i = 0; i < QUEUES; i++)
		assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
	for (uint32_t i = 1; sd_clock_ns() < end; i++) {
		for (unsigned k = 0; k < QUEUES; k++) {
			sent += (!absent || !k) && send_from(far[k], (uint8_t)(1 + (i + k) % 2), i);
			back += receive(far[k], &number, &handed);
		}
		if (comes && end - sd_clock_ns() < SD_S / 2)
			plugged = true;
	}
	done = true;
	for (unsigned i = 0; i < QUEUES; i++)
		pthread_join(w[i].thread, NULL);
	for (unsigned quiet = 0; quiet < 100; quiet++)
		for (unsigned i = 0; i < QUEUES; i++)
			quiet = take_all(&w[i]) ? 0 : quiet;
	for (unsigned i = 0; i < QUEUES; i++) {
		assert_false(w[i].out_of_order);
		assert_true(w[i].handed && w[i].handed < w[i].got);
		for (unsigned n; (n = receive(far[i], &number, &handed));)
			back += n;
	}
	assert_int_equal(w[0].got + w[1].got + missed(user[0]) + missed(user[1]), sent);
	assert_int_equal(back, w[0].sent + w[1].sent);
	assert_true(w[0].sent && w[1].sent);
	assert_true(w[0].handed + w[1].handed <= port_share_handed(user[0]) + port_share_handed(user[1]));
}

static void threads(void **state)
{
	traffic(false);
}

static void threads_when_the_device_comes(void **state)
{
	traffic(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(each_has_its_queue, start, stop),
		cmocka_unit_test_setup_teardown(astray, start, stop),
		cmocka_unit_test_setup_teardown(woken_by_queue_and_by_bell, start, stop),
		cmocka_unit_test_setup_teardown(a_busy_queue_hides_nothing, start, stop),
		cmocka_unit_test_setup_teardown(after_the_others_have_closed, start, stop),
		cmocka_unit_test_setup_teardown(closed_with_frames_under_way, start, stop),
		cmocka_unit_test_setup_teardown(
			each_has_its_queue_when_the_device_has_come, start_late, stop),
		cmocka_unit_test_setup_teardown(the_device_comes_while_one_lies_down, start_late, stop),
		cmocka_unit_test_setup_teardown(one_has_closed_before_the_device_comes, start_late, stop),
		cmocka_unit_test_setup_teardown(threads, start, stop),
		cmocka_unit_test_setup_teardown(threads_when_the_device_comes, start_late, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
