/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Either end of a pair of DPDK ports is killed and started again, in turn; traffic has to come back each
 * time. Also: a second process that wants a port in use gets a clear refusal, and the first one notices
 * nothing.
 *
 * test_port_restart NEAR-DEVICE FAR-DEVICE ("%s" in them is a directory for sockets)
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "probe.h"

enum {
	RESTARTS = 10,
	ENOUGH = 5000, /* answers that count as traffic */
	BURST = 32,
	WINDOW = 128,
	TIMEOUT = 15, /* s */
	RETRY = 20,   /* ms without an answer until probes count as lost */
};

static char devices[2][256], dir[] = "/tmp/sandirect-test-XXXXXX";
/* With the near end. */
struct shared {
	_Atomic uint64_t answers;
	atomic_bool link_up;
};

static struct shared *shared;
static pid_t ends[2];

static int open_end(unsigned which, struct port **out, char *err, size_t err_len)
{
	struct port_config cfg = {.size = sizeof cfg,
		.name = which ? "far" : "near",
		.device = devices[which],
		.own_process = true};

	return port_open(&cfg, out, err, err_len);
}

/* Takes answers; returns how many came. */
static unsigned take(struct probe_end *e, uint32_t session)
{
	struct port *p = e->port;
	struct port_frame frames[BURST];
	unsigned n = p->ops->rx(p, frames, BURST), got = 0;

	for (unsigned i = 0; i < n; i++) {
		struct probe probe;

		got += !probe_parse(e, &frames[i], &probe, e->peer_mac) && probe.session == session;
	}
	p->ops->rx_done(p, frames, n);
	return got;
}

static unsigned send(struct probe_end *e, uint32_t session, uint32_t seq, unsigned n)
{
	struct port *p = e->port;
	struct port_frame frames[BURST];
	unsigned sent;

	n = p->ops->tx_get(p, frames, n < BURST ? n : BURST);
	for (unsigned i = 0; i < n; i++) {
		struct probe probe = {session, seq + i, 1000, PROBE_ECHO};

		probe_build(e, &probe, true, &frames[i]);
	}
	sent = p->ops->tx(p, frames, n);
	p->ops->tx_put(p, frames + sent, n - sent);
	return sent;
}

/* Keeps probes on their way for ever, so that a kill finds the rings in use. */
static void ask(struct port *p)
{
	uint64_t link_due = 0, give_up = 0;
	uint32_t seq = 0, session = (uint32_t)getpid(), open = 0;
	struct port_info info;
	struct probe_end e;

	probe_end_init(&e, p, false);
	for (;;) {
		uint64_t now = sd_clock_ns();
		unsigned got = take(&e, session);

		atomic_fetch_add(&shared->answers, got);
		open -= got < open ? got : open;
		if (got)
			give_up = now + RETRY * SD_MS;
		else if (now >= give_up)
			open = 0;
		if (now >= link_due) {
			p->ops->link_poll(p);
			p->ops->info(p, &info);
			shared->link_up = info.link_up;
			link_due = now + 5 * SD_MS;
		}
		if (open < WINDOW) {
			unsigned sent = send(&e, session, seq, WINDOW - open);

			if (!open && sent)
				give_up = now + RETRY * SD_MS;
			seq += sent;
			open += sent;
		}
	}
}

static void start(unsigned which)
{
	static const atomic_bool never;
	char err[256];
	struct port *p;

	ends[which] = fork();
	if (ends[which])
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (open_end(which, &p, err, sizeof err)) {
		fprintf(stderr, "%s\n", err);
		usleep(100000);
	}
	if (which)
		probe_answer(p, &never);
	ask(p);
}

static void stop(unsigned which)
{
	int status;

	kill(ends[which], SIGKILL);
	waitpid(ends[which], &status, 0);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGKILL); /* it lived until now */
}

static void assert_traffic(const char *after)
{
	uint64_t from = atomic_load(&shared->answers), begin = sd_clock_ns();

	while (atomic_load(&shared->answers) < from + ENOUGH) {
		if (sd_clock_ns() - begin > TIMEOUT * SD_S)
			fail_msg("no traffic %d s after %s: %llu answers", TIMEOUT, after,
				(unsigned long long)(atomic_load(&shared->answers) - from));
		usleep(1000);
	}
	print_message("%s: %d answers after %llu ms\n", after, ENOUGH,
		(unsigned long long)((sd_clock_ns() - begin) / SD_MS));
}

static void assert_link(bool up)
{
	uint64_t give_up = sd_clock_ns() + TIMEOUT * SD_S;

	while (shared->link_up != up) {
		if (sd_clock_ns() > give_up)
			fail_msg("the link is still %s", up ? "down" : "up");
		usleep(1000);
	}
}

static void notices_the_end(void **state)
{
	for (unsigned i = 0; i < 3; i++) {
		assert_link(true);
		stop(1);
		assert_link(false);
		usleep(i * 200000);
		start(1);
		assert_link(true);
		assert_traffic("far end killed");
	}
}

static void restart_near(void **state)
{
	for (unsigned i = 0; i < RESTARTS / 2; i++) {
		stop(0);
		start(0);
		assert_traffic("near end killed");
	}
}

static void restart_far(void **state)
{
	for (unsigned i = 0; i < RESTARTS / 2; i++) {
		stop(1);
		start(1);
		assert_traffic("far end killed");
	}
}

static void restart_in_turn(void **state)
{
	for (unsigned i = 0; i < RESTARTS; i++) {
		stop(i % 2);
		usleep(i % 3 * 100000);
		start(i % 2);
		assert_traffic(i % 2 ? "far end killed" : "near end killed");
	}
}

static void restart_both(void **state)
{
	for (unsigned i = 0; i < 4; i++) {
		stop(i % 2);
		stop(!(i % 2));
		start(i % 2);
		usleep(i / 2 * 300000);
		start(!(i % 2));
		assert_traffic("both killed");
	}
}

/* The end that listens refuses a second process; a second one that connects waits in vain. Neither disturbs.
 */
static void keeps_a_second_process_out(void **state)
{
	pid_t pid;
	int status;

	for (unsigned i = 0; i < 2; i++)
		if (strstr(devices[i], "net_vhost") && !strstr(devices[i], "client=1"))
			skip(); /* it lets everybody in */
	pid = fork();
	if (!pid) {
		bool listens = strstr(devices[0], "server");
		struct port_info info = {0};
		char err[256] = "";
		struct port *p;
		int e = open_end(0, &p, err, sizeof err);

		if (listens)
			_exit(e == -EBUSY && strstr(err, "another process") ? 0 : 1);
		for (unsigned i = 0; !e && i < 50; i++) {
			p->ops->link_poll(p);
			usleep(10000);
		}
		if (!e)
			p->ops->info(p, &info);
		_exit(!e && !info.link_up ? 0 : 1);
	}
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
	assert_traffic("a second process");
}

static int set_up(void **state)
{
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return -1;
	start(0);
	start(1);
	assert_traffic("start");
	return 0;
}

static int tear_down(void **state)
{
	char path[64];

	stop(0);
	stop(1);
	snprintf(path, sizeof path, "%s/s", dir);
	unlink(path);
	return rmdir(dir);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest cases[] = {
		cmocka_unit_test(notices_the_end),
		cmocka_unit_test(restart_near),
		cmocka_unit_test(restart_far),
		cmocka_unit_test(restart_in_turn),
		cmocka_unit_test(restart_both),
		cmocka_unit_test(keeps_a_second_process_out),
	};

	if (argc < 3 || !mkdtemp(dir))
		return 2;
	for (unsigned i = 0; i < 2; i++)
		probe_device(devices[i], sizeof devices[i], argv[1 + i], dir);
	if (getenv("SANDIRECT_LOG"))
		sd_log_open(SD_LOG_DEBUG, NULL, NULL);
	return cmocka_run_group_tests_name("port_restart", cases, set_up, tear_down);
}
