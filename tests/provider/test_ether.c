/* SPDX-License-Identifier: BSD-3-Clause */
/* What is the ether provider's own: routes and addresses of the kernel, starting, and reasons. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "hosts.h"
#include "provider/domain.h"
#include "provider/ether_private.h"
#include "provider/portlock.h"

#define FIND_TIMEOUT (30 * SD_MS)
#define PATIENCE     (20 * SD_S)

static struct pv_domain *domain;
static struct pv *pv[2];
static unsigned upcalls;

static void on_ready(void *user, unsigned events)
{
	upcalls++;
}

static struct pv *provider(unsigned host, const struct pv_ether_port *port)
{
	struct pv_ether_config cfg = {
		.size = sizeof cfg,
		.n_ports = 1,
		.ports = port,
		.crc = true,
		.find_timeout_ns = FIND_TIMEOUT,
		.connect_timeout_ns = 5 * SD_S,
	};
	struct pv *p;

	hosts_enter(host);
	assert_int_equal(pv_ether_open(&cfg, on_ready, &p), 0);
	assert_int_equal(pv_domain_add(domain, p), 0);
	return p;
}

static struct pv_ether_port sim_port(void)
{
	return (struct pv_ether_port){
		.port = {.size = sizeof(struct port_config), .name = "sim", .device = "sim"},
		.netdev = HOSTS_NETDEV};
}

static int setup(void **state)
{
	const struct pv_domain_config dc = {.size = sizeof dc};
	struct pv_ether_port port = sim_port();
	struct port *ends[2];

	if (pv_domain_open(&dc, &domain) || !pv_enter(domain) ||
		port_sim_open_pair(NULL, 1500, NULL, &ends[0], &ends[1]))
		return -1;
	for (unsigned i = 0; i < 2; i++) {
		pv[i] = provider(i, &port);
		ether_give_port(pv[i], 0, ends[i]);
	}
	return 0;
}

static int teardown(void **state)
{
	pv_leave(domain);
	pv_domain_drain(domain, SD_S);
	return 0;
}

static enum sd_reason start(unsigned host)
{
	hosts_enter(host);
	return pv[host]->ops->start(pv[host]);
}

static void start_both(void)
{
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(start(i), SD_REASON_SAN);
}

/* Keeps both going. True when e is connected, or has failed. */
static bool settled(struct pv_ep *e, enum sd_reason *reason)
{
	pv_progress(domain);
	return e->ops->connect_result(e, reason) != -EINPROGRESS;
}

/* Tries to connect from host 0; 0 or the error. */
static int try_connect(struct sd_addr peer, enum sd_reason *reason, struct pv_ep **out)
{
	static uint16_t next_port = 40000;
	struct sd_addr local = hosts_addr(0, 4, next_port++);
	uint64_t end = sd_clock_ns() + PATIENCE;

	assert_int_equal(pv[0]->ops->connect(pv[0], -1, &local, &peer, &local, out), 0);
	while (!settled(*out, reason))
		assert_true(sd_clock_ns() < end);
	return (*out)->ops->connect_result(*out, reason);
}

static enum sd_reason reason_for(struct sd_addr peer)
{
	enum sd_reason reason;
	struct pv_ep *e;

	try_connect(peer, &reason, &e);
	e->ops->close(e, PV_CLOSE_GRACEFUL);
	return reason;
}

static struct pv_ep *listen_at(unsigned family, uint16_t port)
{
	struct sd_addr local = hosts_addr(1, family, port);
	struct pv_ep *l;

	assert_int_equal(pv[1]->ops->listen(pv[1], -1, &local, 8, &local, &l), 0);
	return l;
}

static struct sd_addr parse(const char *text)
{
	struct sd_addr a;

	assert_int_equal(sd_addr_parse(text, &a), 0);
	return a;
}

static void run(const char *command)
{
	assert_int_equal(system(command), 0);
}

/* --- routes and addresses --- */

static enum sd_reason route(const char *peer, const char *from, struct sd_addr *local)
{
	struct sd_addr p = parse(peer);

	*local = from ? parse(from) : (struct sd_addr){0};
	local->port = 5555;
	hosts_enter(0);
	return pv[0]->ops->route(pv[0], &p, local);
}

static void route__follows_the_kernel(void **state)
{
	struct sd_addr local, own4 = hosts_addr(0, 4, 5555), own6 = hosts_addr(0, 6, 5555);

	assert_int_equal(route("10.77.0.2:80", NULL, &local), SD_REASON_SAN);
	assert_true(sd_addr_equal(&local, &own4));
	assert_int_equal(route("[fd77::2]:80", NULL, &local), SD_REASON_SAN);
	assert_true(sd_addr_equal(&local, &own6));
	assert_int_equal(route("10.77.0.2:80", "10.77.0.1", &local), SD_REASON_SAN);
	assert_true(sd_addr_equal(&local, &own4));
	assert_int_equal(route("10.77.0.2:80", "127.0.0.1", &local), SD_REASON_NO_ROUTE);
	assert_int_equal(route("10.77.0.1:80", NULL, &local), SD_REASON_LOCAL);
	assert_int_equal(route("127.0.0.1:80", NULL, &local), SD_REASON_LOCAL);
	assert_int_equal(route("0.0.0.0:80", NULL, &local), SD_REASON_NO_ROUTE);
	assert_int_equal(route("192.0.2.1:80", NULL, &local), SD_REASON_NO_ROUTE);
}

static void route__not_through_a_gateway(void **state)
{
	struct sd_addr local;

	hosts_enter(0);
	run("ip route add 198.51.100.0/24 via 10.77.0.2");
	assert_int_equal(route("198.51.100.7:80", NULL, &local), SD_REASON_GATEWAY);
	run("ip route del 198.51.100.0/24");
}

static void address__serves_its_own(void **state)
{
	struct sd_addr any = {.family = 4};

	hosts_enter(1);
	for (unsigned f = 4; f <= 6; f += 2) {
		struct sd_addr own = hosts_addr(1, f, 80), other = hosts_addr(0, f, 80);

		assert_true(pv[1]->ops->serves(pv[1], &own));
		assert_false(pv[1]->ops->serves(pv[1], &other));
	}
	assert_true(pv[1]->ops->serves(pv[1], &any));
}

static void address__added_while_running(void **state)
{
	struct sd_addr added = parse("10.77.0.50"), local = parse("10.77.0.50:80");
	uint64_t end = sd_clock_ns() + PATIENCE;
	enum sd_reason reason;
	struct pv_ep *l, *e;

	start_both();
	assert_int_equal(pv[1]->ops->listen(pv[1], -1, &local, 8, NULL, &l), 0);
	assert_int_equal(reason_for(local), SD_REASON_PEER_SILENT);
	hosts_enter(1);
	run("ip addr add 10.77.0.50/24 dev " HOSTS_NETDEV);
	while (!pv[1]->ops->serves(pv[1], &added)) {
		usleep(20000);
		assert_true(sd_clock_ns() < end);
	}
	pv[1]->ops->slow(pv[1], sd_clock_ns());
	for (unsigned i = 0; i < 100; i++)
		pv_progress(domain);
	assert_int_equal(try_connect(local, &reason, &e), 0);
	e->ops->close(e, PV_CLOSE_ABORT);
	l->ops->close(l, PV_CLOSE_GRACEFUL);
	run("ip addr del 10.77.0.50/24 dev " HOSTS_NETDEV);
}

/* --- reasons --- */

static void silent_host__costs_one_wait(void **state)
{
	struct sd_addr peer = hosts_addr(8, 4, 80);
	uint64_t began;

	start_both();
	began = sd_clock_ns();
	assert_int_equal(reason_for(peer), SD_REASON_PEER_SILENT);
	assert_true(sd_clock_ns() - began >= FIND_TIMEOUT);
	for (unsigned i = 0; i < 100; i++) {
		enum sd_reason reason;
		struct pv_ep *e;

		assert_int_equal(pv[0]->ops->connect(pv[0], -1, &(struct sd_addr){0}, &peer, NULL, &e), 0);
		assert_int_equal(e->ops->connect_result(e, &reason), -ETIMEDOUT); /* at once */
		e->ops->close(e, PV_CLOSE_GRACEFUL);
	}
}

static void listener__clears_what_was_remembered(void **state)
{
	struct sd_addr peer = hosts_addr(1, 4, 80);
	enum sd_reason reason;
	struct pv_ep *l, *e;

	start_both();
	assert_int_equal(reason_for(peer), SD_REASON_PEER_NO_LISTENER);
	l = listen_at(4, 80);
	for (unsigned i = 0; i < 100; i++)
		pv_progress(domain);
	assert_int_equal(try_connect(peer, &reason, &e), 0);
	assert_int_equal(reason, SD_REASON_SAN);
	e->ops->close(e, PV_CLOSE_ABORT);
	l->ops->close(l, PV_CLOSE_GRACEFUL);
}

static void listener__from_before_the_start(void **state)
{
	struct pv_ep *l = listen_at(4, 80), *e;
	enum sd_reason reason;

	assert_int_equal(l->ops->state(l), 0);
	start_both();
	assert_int_equal(try_connect(hosts_addr(1, 4, 80), &reason, &e), 0);
	e->ops->close(e, PV_CLOSE_ABORT);
	l->ops->close(l, PV_CLOSE_GRACEFUL);
	assert_int_equal(reason_for(hosts_addr(1, 4, 80)), SD_REASON_PEER_NO_LISTENER);
}

/* A peer that has gone without a word: only host 0 goes on. */
static void dead_peer__is_noticed(void **state)
{
	struct pv_options o = PV_OPTIONS_NONE;
	char byte = 'x';
	struct iovec data = {&byte, 1};
	enum sd_reason reason;
	struct pv_ep *l, *e;
	uint64_t sent;

	start_both();
	l = listen_at(4, 80);
	assert_int_equal(try_connect(hosts_addr(1, 4, 80), &reason, &e), 0);
	o.user_timeout_ms = 300;
	assert_int_equal(e->ops->set_options(e, &o), 0);
	sent = sd_clock_ns();
	assert_int_equal(e->ops->send(e, &data, 1, 0), 1);
	upcalls = 0;
	while (!(e->ops->state(e) & PV_ERR)) {
		pv[0]->ops->progress(pv[0], sd_clock_ns());
		assert_true(sd_clock_ns() - sent < PATIENCE);
	}
	assert_true(sd_clock_ns() - sent >= 300 * SD_MS);
	assert_true(upcalls > 0);
	assert_int_equal(e->ops->recv(e, &data, 1, 0), -ETIMEDOUT);
	assert_int_equal(e->ops->send(e, &data, 1, 0), -ETIMEDOUT);
	e->ops->close(e, PV_CLOSE_GRACEFUL);
	l->ops->close(l, PV_CLOSE_GRACEFUL);
}

/* --- starting --- */

static void start__is_idempotent_and_described(void **state)
{
	char text[256];

	pv_ether_describe(pv[0], text, sizeof text);
	assert_string_equal(text, "not started");
	assert_int_equal(pv[0]->ops->progress(pv[0], sd_clock_ns()), 0);
	assert_int_equal(pv[0]->ops->deadline(pv[0]), UINT64_MAX);
	assert_int_equal(start(0), SD_REASON_SAN);
	assert_int_equal(start(0), SD_REASON_SAN);
	pv_ether_describe(pv[0], text, sizeof text);
	assert_string_equal(text, "sim sim up mtu 1500");
	pv_ether_describe(pv[0], text, 8);
	assert_string_equal(text, "sim sim");
}

static void start__without_ports(void **state)
{
	struct pv_ether_config cfg = {.size = sizeof cfg};
	struct sd_addr peer = hosts_addr(1, 4, 80), local = {0};
	struct pv *none;

	assert_int_equal(pv_ether_open(&cfg, on_ready, &none), 0);
	assert_int_equal(pv_domain_add(domain, none), 0);
	assert_int_equal(none->ops->route(none, &peer, &local), SD_REASON_NO_PORT);
	assert_false(none->ops->serves(none, &peer));
	assert_int_equal(none->ops->start(none), SD_REASON_NO_PORT);
}

static void start__fails_and_is_tried_again(void **state)
{
	struct pv_ether_port port = sim_port();
	struct port *ends[2];
	char text[256];
	struct pv *p;

	port.netdev = "nowhere0";
	p = provider(0, &port);
	assert_int_equal(p->ops->start(p), SD_REASON_START_FAILED);
	pv_ether_describe(p, text, sizeof text);
	assert_string_equal(text, sd_reason_text(SD_REASON_START_FAILED));
	run("ip link add nowhere0 type veth peer name nowhere1 && ip link set nowhere0 up");
	assert_int_equal(port_sim_open_pair(NULL, 1500, NULL, &ends[0], &ends[1]), 0);
	ether_give_port(p, 0, ends[0]);
	assert_int_equal(p->ops->start(p), SD_REASON_START_FAILED); /* remembered */
	for (uint64_t end = sd_clock_ns() + PATIENCE; p->ops->start(p) != SD_REASON_SAN;) {
		usleep(50000);
		assert_true(sd_clock_ns() < end);
	}
	port_close(ends[1]);
	run("ip link del nowhere0");
}

static void start__port_of_another_process(void **state)
{
	char dir[] = "/tmp/test_ether.XXXXXX", command[64];
	struct pv_ether_port port = sim_port();
	struct port *ends[2];
	int ready[2], over[2];
	struct pv *p;
	char c;

	assert_non_null(mkdtemp(dir));
	assert_true(!pipe(ready) && !pipe(over));
	hosts_enter(0);
	if (!fork()) {
		close(over[1]);
		if (portlock_take(dir, "sim") < 0 || write(ready[1], "x", 1) != 1)
			_exit(1);
		_exit(read(over[0], &c, 1));
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	port.lock_dir = dir;
	p = provider(0, &port);
	assert_int_equal(port_sim_open_pair(NULL, 1500, NULL, &ends[0], &ends[1]), 0);
	ether_give_port(p, 0, ends[0]);
	assert_int_equal(p->ops->start(p), SD_REASON_PORT_BUSY);
	close(over[1]);
	wait(NULL);
	for (uint64_t end = sd_clock_ns() + PATIENCE; p->ops->start(p) != SD_REASON_SAN;) {
		usleep(50000);
		assert_true(sd_clock_ns() < end);
	}
	port_close(ends[1]);
	close(ready[0]);
	close(ready[1]);
	close(over[0]);
	snprintf(command, sizeof command, "rm -rf %s", dir);
	run(command);
}

/* --- sleeping --- */

/* Nobody sleeps through what arrives, and the helper answers for a program that does something else. */
static void sleep__and_the_helper(void **state)
{
	uint64_t end = sd_clock_ns() + PATIENCE;
	char byte = 'x';
	struct pv_ep *l, *e;
	enum sd_reason reason;
	struct sd_addr local = hosts_addr(0, 4, 999), peer = hosts_addr(1, 4, 80);

	start_both();
	l = listen_at(4, 80);
	assert_int_equal(pv[0]->ops->connect(pv[0], -1, &local, &peer, NULL, &e), 0);
	while (e->ops->connect_result(e, &reason) == -EINPROGRESS) {
		pv_sleep(domain, pv_waiter_self(domain), NULL, 0, end, NULL);
		assert_true(sd_clock_ns() < end);
	}
	assert_int_equal(e->ops->connect_result(e, &reason), 0);
	assert_int_equal(e->ops->send(e, &(struct iovec){&byte, 1}, 1, 0), 1);
	for (struct pv_info i = {.send_queued = 1}; i.send_queued; e->ops->info(e, &i)) {
		pv_leave(domain);
		usleep(1000);
		pv_enter(domain);
		assert_true(sd_clock_ns() < end);
	}
	e->ops->close(e, PV_CLOSE_ABORT);
	l->ops->close(l, PV_CLOSE_GRACEFUL);
}

/* --- handing over --- */

static struct pv_ether_port udp_port(unsigned host)
{
	return (struct pv_ether_port){.port = {.size = sizeof(struct port_config),
					      .name = "udp",
					      .device = "udp",
					      .udp_bind = hosts_addr(host, 4, 7747)},
		.netdev = HOSTS_NETDEV};
}

static int setup_udp(void **state)
{
	const struct pv_domain_config dc = {.size = sizeof dc};

	if (pv_domain_open(&dc, &domain) || !pv_enter(domain))
		return -1;
	for (unsigned i = 0; i < 2; i++) {
		struct pv_ether_port port = udp_port(i);

		pv[i] = provider(i, &port);
	}
	return 0;
}

static void drive_until(bool (*is)(struct pv_ep *e), struct pv_ep *e)
{
	uint64_t end = sd_clock_ns() + PATIENCE;

	while (!is(e)) {
		assert_true(sd_clock_ns() < end);
		pv_progress(domain);
	}
}

static bool is_readable(struct pv_ep *e)
{
	return e->ops->state(e) & PV_IN;
}

static void send_word(struct pv_ep *from, const char *word)
{
	const struct iovec iov = {(char *)word, strlen(word)};

	assert_int_equal(from->ops->send(from, &iov, 1, 0), iov.iov_len);
}

static void receive_word(struct pv_ep *to, const char *word)
{
	char buf[64];
	const struct iovec iov = {buf, sizeof buf};

	drive_until(is_readable, to);
	assert_int_equal(to->ops->recv(to, &iov, 1, 0), strlen(word));
	assert_memory_equal(buf, word, strlen(word));
}

static void say(struct pv_ep *from, struct pv_ep *to, const char *word)
{
	send_word(from, word);
	receive_word(to, word);
}

static void join(struct pv_ep *l, uint16_t port, struct pv_ep *out[2])
{
	struct sd_addr peer = hosts_addr(1, 4, port);
	enum sd_reason reason;

	assert_int_equal(try_connect(peer, &reason, &out[0]), 0);
	drive_until(is_readable, l);
	assert_int_equal(l->ops->accept(l, &peer, &out[1]), 0);
}

static void drop(struct pv_ep *e)
{
	e->ops->close(e, PV_CLOSE_ABORT);
}

/* Another process has host 1's port from now on. What that had is dropped with it: nobody hears of it. The
 * sender is none the wiser. */
static void hand_over__connections_go_on(void **state)
{
	struct pv_ether_port port = udp_port(1);
	struct pv_ep *l, *old[2], *e[2], *late[2];
	struct sd_pack saved = {0};
	struct sd_unpack u;
	int user;

	start_both();
	l = listen_at(4, 80);
	join(l, 80, e);
	say(e[0], e[1], "before");
	assert_int_equal(pv_ether_suspend(pv[1], &saved), 0);
	pv_ether_save_ep(e[1], &saved);
	assert_false(saved.failed);
	send_word(e[0], "meanwhile");
	pv_progress(domain);
	old[0] = l;
	old[1] = e[1];

	pv[1] = provider(1, &port);
	assert_int_equal(pv_ether_prepare(pv[1]), SD_REASON_SAN);
	l = listen_at(4, 80);
	u = (struct sd_unpack){saved.data, saved.data + saved.len};
	assert_int_equal(pv_ether_restore(pv[1], &u), SD_REASON_SAN);
	assert_int_equal(pv_ether_restore_ep(pv[1], &u, &user, &e[1]), 0);
	assert_ptr_equal(u.at, u.end);
	pv_ether_restored(pv[1]);
	sd_pack_free(&saved);

	receive_word(e[1], "meanwhile");
	say(e[1], e[0], "after");
	join(l, 80, late);
	say(late[0], late[1], "new");
	for (unsigned i = 0; i < 2; i++) {
		drop(old[i]);
		drop(e[i]);
		drop(late[i]);
	}
	drop(l);
}

static void hand_over__nobody_took_over(void **state)
{
	struct sd_pack saved = {0};
	struct pv_ep *l, *e[2];

	start_both();
	l = listen_at(4, 80);
	join(l, 80, e);
	say(e[0], e[1], "before");
	assert_int_equal(pv_ether_suspend(pv[1], &saved), 0);
	pv_ether_save_ep(e[1], &saved);
	sd_pack_free(&saved);
	send_word(e[0], "meanwhile");
	hosts_enter(1);
	assert_int_equal(pv_ether_resume(pv[1]), SD_REASON_SAN);
	receive_word(e[1], "meanwhile");
	say(e[1], e[0], "after");
	drop(e[0]);
	drop(e[1]);
	drop(l);
}

static bool is_over(struct pv_ep *e)
{
	return e->ops->state(e) & PV_ERR;
}

static void hand_over__what_nobody_claims_is_reset(void **state)
{
	struct pv_ether_port port = udp_port(1);
	struct sd_pack saved = {0};
	struct pv_ep *l, *e[2];
	struct sd_unpack u;

	start_both();
	l = listen_at(4, 80);
	join(l, 80, e);
	assert_int_equal(pv_ether_suspend(pv[1], &saved), 0);
	pv[1] = provider(1, &port);
	u = (struct sd_unpack){saved.data, saved.data + saved.len};
	assert_int_equal(pv_ether_restore(pv[1], &u), SD_REASON_SAN);
	pv_ether_restored(pv[1]);
	sd_pack_free(&saved);
	drive_until(is_over, e[0]);
	assert_int_equal(e[0]->ops->recv(e[0], &(struct iovec){(char[1]){0}, 1}, 1, 0), -ECONNRESET);
	drop(e[0]);
	drop(e[1]);
	drop(l);
}

static void hand_over__not_with_other_ports(void **state)
{
	struct pv_ether_port port = udp_port(1);
	struct sd_pack saved = {0};
	struct sd_unpack u;

	assert_int_equal(pv_ether_suspend(pv[1], &saved), -EAGAIN);
	start_both();
	assert_int_equal(pv_ether_suspend(pv[1], &saved), 0);
	port.netdev = "lo";
	pv[1] = provider(1, &port);
	u = (struct sd_unpack){saved.data, saved.data + saved.len};
	assert_int_equal(pv_ether_restore(pv[1], &u), SD_REASON_START_FAILED);
	sd_pack_free(&saved);
}

#define CASE(name)     cmocka_unit_test_setup_teardown(name, setup, teardown)
#define UDP_CASE(name) cmocka_unit_test_setup_teardown(name, setup_udp, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(route__follows_the_kernel),
		CASE(route__not_through_a_gateway),
		CASE(address__serves_its_own),
		CASE(address__added_while_running),
		CASE(silent_host__costs_one_wait),
		CASE(listener__clears_what_was_remembered),
		CASE(listener__from_before_the_start),
		CASE(dead_peer__is_noticed),
		CASE(start__is_idempotent_and_described),
		CASE(start__without_ports),
		CASE(start__fails_and_is_tried_again),
		CASE(start__port_of_another_process),
		CASE(sleep__and_the_helper),
		UDP_CASE(hand_over__connections_go_on),
		UDP_CASE(hand_over__nobody_took_over),
		UDP_CASE(hand_over__what_nobody_claims_is_reset),
		UDP_CASE(hand_over__not_with_other_ports),
	};

	alarm(120); /* a hang is a failure too */
	sd_log_open(SD_LOG_ERROR, NULL, NULL);
	if (!hosts_open()) {
		printf("1..0 # skip no network namespaces here\n");
		return 77;
	}
	return cmocka_run_group_tests_name("ether", tests, NULL, NULL);
}
