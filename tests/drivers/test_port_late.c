/* SPDX-License-Identifier: BSD-3-Clause */
/* A port before it has its device, when it gets it, and after. That it is one then, test_port_sim shows. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "drivers/port.h"

#define MTU 1500

static struct port *far;
static unsigned tries, warnings;
static int outcome; /* of the next try */
static const char *reason;
static struct port_config tried;

static int opener(void *ctx, unsigned index, const struct port_config *cfg, struct port **out, char *err,
	size_t err_len)
{
	assert_ptr_equal(ctx, &outcome);
	assert_int_equal(index, 3);
	tries++;
	tried = *cfg;
	if (!outcome)
		return port_sim_open_pair(NULL, MTU, NULL, out, &far);
	snprintf(err, err_len, "%s", reason);
	return outcome;
}

static void count(void *ctx, enum sd_log_level level, const char *line)
{
	warnings += level == SD_LOG_WARN;
}

static struct port *open_late(void)
{
	struct port_config c = {.size = sizeof c,
		.name = "p",
		.device = "d",
		.mtu = MTU,
		.queues = 4,
		.ext_tx = true,
		.needs_mac = true};
	struct port *p;

	tries = warnings = 0;
	reason = "it is not there";
	assert_int_equal(port_late_open(&c, opener, &outcome, 3, &p), 0);
	return p;
}

static void seconds(unsigned n)
{
	const struct timespec t = {n, 50000000};

	nanosleep(&t, NULL);
}

static void nothing_goes_before(void **state)
{
	struct port *p = open_late();
	struct port_frame f[4];
	struct port_stats s;
	struct port_info i;

	p->ops->info(p, &i);
	assert_false(i.link_up);
	assert_true(i.caps & PORT_CAP_LINK);
	assert_int_equal(i.queues, 1);
	assert_int_equal(i.mtu, MTU);
	assert_int_equal(i.mac[0], 0x02); /* as it was wanted */
	assert_int_equal(p->ops->rx(p, f, 4), 0);
	assert_int_equal(p->ops->tx_get(p, f, 4), 0);
	assert_int_equal(p->ops->tx(p, f, 0), 0);
	p->ops->rx_done(p, f, 0);
	p->ops->tx_put(p, f, 0);
	assert_int_equal(p->ops->wait_fd(p), -EAGAIN);
	assert_int_equal(p->ops->arm(p), 0);
	p->ops->disarm(p);
	p->ops->stats(p, &s);
	assert_int_equal(s.rx_frames + s.tx_frames, 0);
	assert_int_equal(tries, 0);
	port_close(p);
}

static void it_is_tried_each_second(void **state)
{
	struct port *p;
	struct port_info before, after;
	struct port_frame f;

	outcome = -ENODEV;
	p = open_late();
	p->ops->info(p, &before);
	for (unsigned i = 0; i < 100; i++)
		assert_false(p->ops->link_poll(p));
	assert_int_equal(tries, 0);
	for (unsigned i = 1; i <= 3; i++) {
		seconds(1);
		if (i == 3)
			reason = "another process has it";
		for (unsigned k = 0; k < 100; k++)
			assert_false(p->ops->link_poll(p));
		assert_int_equal(tries, i);
	}
	assert_int_equal(warnings, 2); /* one for each reason */
	outcome = 0;
	seconds(1);
	assert_true(p->ops->link_poll(p));
	assert_memory_equal(tried.mac, before.mac, 6);
	assert_string_equal(tried.device, "d");
	assert_int_equal(tried.queues, 4);
	assert_ptr_equal(p->ops->queue(p, 0), p);
	assert_false(tried.ext_tx);
	p->ops->info(p, &after);
	assert_string_equal(after.driver, "sim");
	assert_int_equal(p->ops->tx_get(p, &f, 1), 1);
	memset(f.data, 1, 60);
	f.len = 60;
	assert_int_equal(p->ops->tx(p, &f, 1), 1);
	assert_int_equal(far->ops->rx(far, &f, 1), 1);
	far->ops->rx_done(far, &f, 1);
	assert_false(p->ops->link_poll(p));
	assert_int_equal(tries, 4);
	port_close(p);
	port_close(far);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_goes_before), cmocka_unit_test(it_is_tried_each_second)};

	sd_log_open(SD_LOG_WARN, count, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
