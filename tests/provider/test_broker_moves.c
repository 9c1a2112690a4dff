/* SPDX-License-Identifier: BSD-3-Clause */
/* The daemon's broker, when another process goes on, and when anything happens to it. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rng.h"
#include "tests/provider/broker_rig.h"
#include "tests/provider/fds.h"

/* --- another process goes on --- */

static void hand_over__all_there_is(void **state)
{
	int p = program(), z = program(), socket = listening(lo), late;
	struct queue q = listen_at(z, socket, lo, 5);
	struct half c = connect_to(p, lo, at(lo, port_of(socket))), s = accept_from(&q),
		    waits = connect_to(p, lo, at(lo, port_of(socket))), d, t;
	struct broker_stats before = stats(), after;
	struct channel_message m;

	hand_over(0);
	after = stats();
	assert_memory_equal(&before, &after, sizeof before);
	turn();
	assert_false(
		is_hung_up(p) || is_hung_up(z) || is_hung_up(c.end) || is_hung_up(s.end) || is_hung_up(q.fd));
	/* An end of before is still one, who waits is still there, and the listener is known. */
	m = ask(p, (struct channel_message){.type = CHANNEL_ADOPT, .n_fds = 1, .fds = {s.end}});
	assert_int_equal(m.type, CHANNEL_ADOPTED);
	channel_close_fds(&m);
	t = accept_from(&q);
	assert_true(sd_addr_equal(&t.peer, &waits.local));
	drop(&t);
	drop(&waits);
	d = connect_to(p, lo, at(lo, port_of(socket)));
	t = accept_from(&q);
	drop(&d);
	drop(&t);
	/* Ends are noticed. */
	drop(&c);
	turn();
	assert_true(is_hung_up(s.end));
	late = program();
	close(late);
	drop(&s);
	all_leave(&q, socket, p, z);
	nothing_left();
}

/* What one end is left of, and what was not accepted yet. */
static void hand_over__of_ends_that_are_gone(void **state)
{
	enum { N = 4 };
	int p = program(), z = program(), socket = listening(lo);
	struct queue q = listen_at(z, socket, lo, 5);
	struct channel_message m;
	struct half c[N], s[N];

	for (unsigned i = 0; i < N; i++)
		c[i] = connect_to(p, lo, at(lo, port_of(socket)));
	for (unsigned i = 0; i < 2; i++)
		s[i] = accept_from(&q);
	s[2] = take(&q); /* and is not said to be accepted */
	drop(&c[0]);
	drop(&s[1]);
	drop(&c[3]);
	notice();
	assert_int_equal(stats().streams, N);
	hand_over(0);
	assert_int_equal(stats().streams, N);
	drop(&c[2]);
	hand_over(0);
	notice();
	assert_int_equal(stats().streams, N);
	m = ask(p, (struct channel_message){.type = CHANNEL_ADOPT, .n_fds = 1, .fds = {s[0].end}});
	assert_int_equal(m.type, CHANNEL_ADOPTED);
	assert_true(m.stream.cookie == s[0].cookie && inode(m.fds[0]) == inode(s[0].memory));
	channel_close_fds(&m);
	s[3] = accept_from(&q);
	assert_true(is_hung_up(s[3].end) && sd_addr_equal(&s[3].peer, &c[3].local));
	drop(&s[2]);
	/* It was offered, by the daemon of before. */
	pass(1100 * SD_MS);
	s[2] = accept_from(&q);
	assert_true(sd_addr_equal(&s[2].peer, &c[2].local));
	drop(&s[0]);
	drop(&c[1]);
	notice();
	assert_int_equal(stats().streams, 2);
	drop(&s[2]);
	drop(&s[3]);
	all_leave(&q, socket, p, z);
	nothing_left();
}

static void hand_over__who_has_more_than_is_allowed_keeps_it(void **state)
{
	int p = program(), z = program(), socket = listening(lo);
	struct queue q = listen_at(z, socket, lo, 5);
	struct half c[3];

	for (unsigned i = 0; i < 3; i++)
		c[i] = connect_to(p, lo, at(lo, port_of(socket)));
	hand_over(4);
	assert_int_equal(stats().streams, 3);
	refused(try_connect(p, lo, at(lo, port_of(socket))), ECONNREFUSED, SD_REASON_LIMIT_USER);
	for (unsigned i = 0; i < 3; i++)
		drop(&c[i]);
	all_leave(&q, socket, p, z);
	pass(2 * SD_S);
	nothing_left();
}

static void hand_over__of_what_makes_no_sense(void **state)
{
	int p = program(), z = program(), socket = listening(lo);
	struct queue q = listen_at(z, socket, lo, 5);
	struct half c = connect_to(p, lo, at(lo, port_of(socket))), s = accept_from(&q),
		    waits = connect_to(p, lo, at(lo, port_of(socket)));
	struct sd_pack whole = {0};
	unsigned open = fds_open();
	struct broker *other;
	struct sd_rng rng;

	broker_save(b, &whole);
	for (size_t len = 0; len < whole.len; len++) {
		assert_true(restore(&whole, len, broker_door(b), 0, &other) < 0);
		broker_close(other);
		assert_int_equal(fds_open(), open);
	}
	for (unsigned i = 0; i < 500; i++) {
		uint64_t at;

		sd_rng_seed(&rng, i);
		at = sd_rng_below(&rng, whole.len);
		whole.data[at] ^= 1u << i % 8;
		restore(&whole, whole.len, broker_door(b), 0, &other);
		broker_close(other);
		whole.data[at] ^= 1u << i % 8;
	}
	sd_pack_free(&whole);
	/* The one that has it goes on. */
	drop(&c);
	drop(&s);
	drop(&waits);
	all_leave(&q, socket, p, z);
	pass(2 * SD_S);
	nothing_left();
}

/* --- anything --- */

enum { N_PROGRAMS = 8, N_HELD = 96, N_LISTENERS = 5 };

struct world {
	struct sd_rng rng;
	uint64_t cookie; /* of some end */
	int programs[N_PROGRAMS], held[N_HELD], listeners[N_LISTENERS];
	struct sd_addr names[N_LISTENERS];
};

static unsigned below(struct world *w, unsigned n)
{
	return (unsigned)sd_rng_below(&w->rng, n);
}

static void hold(struct world *w, int fd)
{
	int *place = &w->held[below(w, N_HELD)];

	if (*place >= 0)
		close(*place);
	*place = fd;
}

/* Answers and offers: some are accepted, some ends adopted or closed at once. */
static void listen_to(struct world *w, int fd)
{
	struct channel_message m, said;

	if (fd < 0)
		return;
	while (!channel_recv(fd, &m)) {
		if (m.type == CHANNEL_INCOMING && below(w, 3)) {
			said = (struct channel_message){
				.type = CHANNEL_ACCEPTED, .end = {m.stream.cookie + !below(w, 9)}};
			channel_send(fd, &said);
		}
		if (m.type >= CHANNEL_CONNECTED && below(w, 3))
			w->cookie = m.stream.cookie;
		for (unsigned i = 0; i < m.n_fds; i++)
			if (below(w, 4))
				hold(w, m.fds[i]);
			else
				close(m.fds[i]);
	}
}

static void any_request(struct world *w, int p)
{
	struct channel_message m = {.id = below(w, 1000), .n_fds = 1};
	unsigned i = below(w, N_LISTENERS);
	int own = -1;

	switch (below(w, 6)) {
	case 0:
		m.type = CHANNEL_LISTEN;
		m.fds[0] = w->listeners[i];
		m.listen = (struct channel_listen){.local = w->names[i], .backlog = below(w, 9)};
		break;
	case 1:
	case 2:
		own = bound(w->names[i].family == 4 ? lo : lo6);
		m.type = CHANNEL_CONNECT;
		m.fds[0] = own;
		m.connect.local = at(w->names[i].family == 4 ? lo : lo6, port_of(own));
		m.connect.peer = at(m.connect.local, w->names[i].port);
		break;
	case 3:
		m.type = CHANNEL_ADOPT;
		m.fds[0] = w->held[below(w, N_HELD)];
		break;
	case 4:
		m = (struct channel_message){.type = CHANNEL_BACKLOG, .backlog = {below(w, 9)}};
		break;
	case 5:
		m = (struct channel_message){
			.type = below(w, 2) ? CHANNEL_CLOSED : CHANNEL_ACCEPTED, .end = {w->cookie}};
		break;
	}
	if (m.n_fds == 0 || m.fds[0] >= 0)
		channel_send(p, &m);
	if (own >= 0)
		close(own);
}

/* Descriptors that lie in an end of a connection which waits in a queue may be what keeps the queue. It costs
 * only their maker, and the broker does not look for such circles. */
static bool takes_messages(int fd)
{
	int type = 0;
	socklen_t len = sizeof type;

	getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len);
	return type == SOCK_SEQPACKET;
}

static void any_step(struct world *w)
{
	int *p = &w->programs[below(w, N_PROGRAMS)], *h = &w->held[below(w, N_HELD)];
	struct channel_message m = {.type = CHANNEL_HELLO, .hello = {.version = CHANNEL_VERSION}};

	if (*p < 0) {
		*p = call();
		channel_send(*p, &m);
	}
	switch (below(w, 16)) {
	default:
		any_request(w, *p);
		break;
	case 8:
	case 9:
		listen_to(w, *p);
		break;
	case 10:
	case 11:
		listen_to(w, *h);
		break;
	case 12:
		close(*p);
		*p = -1;
		break;
	case 13:
		if (*h >= 0)
			close(*h);
		*h = -1;
		break;
	case 14:
		if (*h >= 0 && !below(w, 3))
			shutdown(*h, (int)below(w, 3));
		else if (*h >= 0 && takes_messages(*h))
			any_request(w, *h);
		break;
	case 15:
		send(below(w, 2) ? *p : *h, &w->rng, below(w, 64), MSG_NOSIGNAL | MSG_DONTWAIT);
		break;
	}
	if (below(w, 2))
		broker_progress(b, now);
	now += below(w, 8) ? SD_MS : 5 * SD_S;
}

static void end_world(struct world *w)
{
	for (unsigned i = 0; i < N_PROGRAMS; i++)
		if (w->programs[i] >= 0)
			close(w->programs[i]);
	for (unsigned i = 0; i < N_HELD; i++)
		if (w->held[i] >= 0)
			close(w->held[i]);
	for (unsigned i = 0; i < N_LISTENERS; i++)
		close(w->listeners[i]);
}

static void anything(bool handed_over)
{
	const char *given = getenv("SEED");
	uint64_t seed = given ? strtoull(given, NULL, 0) : sd_clock_ns();
	struct world w;

	print_message("SEED=%lu\n", seed);
	sd_rng_seed(&w.rng, seed);
	memset(w.programs, 0xff, sizeof w.programs);
	memset(w.held, 0xff, sizeof w.held);
	w.names[0] = lo;
	w.names[1] = any4;
	w.names[2] = any6;
	w.names[3] = lo6;
	for (unsigned i = 0; i < N_LISTENERS; i++) {
		if (i == 4)
			w.names[i] = w.names[0];
		w.listeners[i] = listening(w.names[i]);
		w.names[i].port = port_of(w.listeners[i]);
	}
	for (unsigned i = 0; i < 8000; i++) {
		any_step(&w);
		if (handed_over && !below(&w, 100))
			hand_over(0);
	}
	assert_true(stats().joined > 50);
	end_world(&w);
	turn();
	/* One that found all queues full looks again after a while, and sees that there are none. */
	pass(2 * SD_S);
	nothing_left();
}

static void anything__leaves_nothing(void **state)
{
	anything(false);
}

static void anything__handed_over_in_the_middle(void **state)
{
	anything(true);
}

/* It may be closed at any time, whatever there is. */
static void anything__closed_in_the_middle(void **state)
{
	int p = program(), z = program(), one = listening(lo), two = listening(at(lo, port_of(one)));
	struct queue q = listen_at(z, one, lo, 5), r = listen_at(z, two, lo, 5);
	struct half c = connect_to(p, lo, at(lo, port_of(one))), d = connect_to(p, lo, at(lo, port_of(one)));
	struct half s = accept_from(&q);

	broker_close(b);
	assert_true(is_hung_up(p) && is_hung_up(q.fd));
	drop(&c);
	drop(&d);
	drop(&s);
	leave(&q);
	leave(&r);
	close(one);
	close(two);
	close(p);
	close(z);
	assert_true(fds_open() < n_open);
	open_broker(0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(hand_over__all_there_is),
		CASE(hand_over__of_ends_that_are_gone),
		CASE(hand_over__who_has_more_than_is_allowed_keeps_it),
		CASE(hand_over__of_what_makes_no_sense),
		CASE(anything__handed_over_in_the_middle),
		CASE(anything__leaves_nothing),
		CASE(anything__closed_in_the_middle),
	};

	alarm(100); /* a hang is a failure too */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
