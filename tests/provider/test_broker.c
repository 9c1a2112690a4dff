/* SPDX-License-Identifier: BSD-3-Clause */
/* The daemon's broker, spoken to by hand: what programs get, and what they are refused. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/provider/broker_rig.h"

#define ALICE 4001
#define BOB   4002

/* --- greetings --- */

static void hello__versions(void **state)
{
	int p = program(), newer = call(), early = call(), twice;
	struct channel_message m = {.type = CHANNEL_HELLO, .hello = {.version = CHANNEL_VERSION + 5}};

	m = ask(newer, m);
	assert_int_equal(m.welcome.version, CHANNEL_VERSION);
	assert_true(m.welcome.max_connections > 0);
	assert_int_equal(m.welcome.patience_ms, 1000);
	assert_int_equal(stats().clients, 3);
	/* A request before it. */
	twice = listening(lo);
	m = (struct channel_message){.type = CHANNEL_LISTEN, .n_fds = 1, .fds = {twice}};
	m.listen.local = at(lo, port_of(twice));
	channel_send(early, &m);
	turn();
	assert_true(is_hung_up(early));
	assert_int_equal(stats().clients, 2);
	assert_int_equal(stats().bad_messages, 1);
	/* An answer is no request. */
	m = (struct channel_message){
		.type = CHANNEL_REFUSED, .refused = {.error = 1, .reason = SD_REASON_RULE}};
	channel_send(p, &m);
	send(newer, "garbage", 7, 0);
	turn();
	assert_true(is_hung_up(p) && is_hung_up(newer));
	assert_int_equal(stats().bad_messages, 3);
	close(p);
	close(newer);
	close(early);
	close(twice);
	nothing_left();
}

/* --- connections --- */

static void connect__to_nobody(void **state)
{
	int p = program();

	refused(try_connect(p, lo, at(lo, 9)), ECONNREFUSED, SD_REASON_LOCAL);
	assert_int_equal(stats().streams, 0);
	close(p);
	nothing_left();
}

static void check_pair(struct half *c, struct half *s)
{
	char byte;

	assert_true(sd_addr_equal(&c->local, &s->peer) && sd_addr_equal(&c->peer, &s->local));
	assert_true(inode(c->memory) == inode(s->memory));
	/* Each end rings the other. */
	assert_int_equal(send(c->end, "c", 1, 0), 1);
	assert_int_equal(recv(s->end, &byte, 1, MSG_DONTWAIT), 1);
	assert_int_equal(byte, 'c');
	assert_int_equal(send(s->end, "s", 1, 0), 1);
	assert_int_equal(recv(c->end, &byte, 1, MSG_DONTWAIT), 1);
	assert_int_equal(byte, 's');
	assert_false(is_hung_up(c->end) || is_hung_up(s->end));
	assert_true(channel_is_end(c->end) && channel_is_end(s->end));
}

static void connect_and_end(struct sd_addr where, struct sd_addr from, struct sd_addr to)
{
	int a = program(), z = program(), socket = listening(where);
	struct queue q = listen_at(z, socket, from.family == where.family ? where : any4, 5);
	struct half c = connect_to(a, from, at(to, port_of(socket))), s;

	turn();
	s = accept_from(&q);
	check_pair(&c, &s);
	close(c.end);
	assert_true(is_hung_up(s.end));
	notice();
	assert_int_equal(stats().streams, 1);
	close(s.end);
	notice();
	assert_int_equal(stats().streams, 0);
	c.end = s.end = -1;
	drop(&c);
	drop(&s);
	leave(&q);
	close(socket);
	close(a);
	close(z);
	nothing_left();
}

static void connect__and_accept(void **state)
{
	connect_and_end(lo, lo, lo);
	connect_and_end(lo6, lo6, lo6);
}

static void connect__to_any_address(void **state)
{
	connect_and_end(any4, lo, lo);
	connect_and_end(any6, lo6, lo6);
}

/* The program that listens at :: says so for both families. */
static void connect__ipv4_to_any_ipv6(void **state)
{
	connect_and_end(any6, lo, lo);
}

static void connect__to_another_network_namespace(void **state)
{
	int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), p, from, there, here;
	struct channel_message m;
	struct queue q;
	struct half c;

	here = listening(lo);
	if (unshare(CLONE_NEWNET)) {
		close(home);
		close(here);
		skip();
	}
	there = listening(at(any4, port_of(here)));
	p = program();
	q = listen_at(p, there, any4, 5);
	from = bound(any4);
	setns(home, CLONE_NEWNET); /* where the broker is */
	m = (struct channel_message){.type = CHANNEL_CONNECT, .n_fds = 1, .fds = {from}};
	m.connect = (struct channel_connect){at(lo, port_of(from)), at(lo, port_of(here))};
	m = ask(p, m);
	assert_int_equal(m.type, CHANNEL_CONNECTED);
	c = half_of(&m);
	refused(try_connect(p, lo, at(lo, port_of(here))), ECONNREFUSED, SD_REASON_LOCAL);
	drop(&c);
	/* There the kernel is not asked: the socket itself shows when it stops. */
	assert_int_equal(shutdown(there, SHUT_RDWR), 0);
	m.type = CHANNEL_CONNECT;
	m.n_fds = 1;
	m.fds[0] = from;
	m.connect = (struct channel_connect){at(lo, port_of(from)), at(lo, port_of(here))};
	refused(ask(p, m), ECONNREFUSED, SD_REASON_LOCAL);
	leave(&q);
	close(from);
	close(there);
	close(here);
	close(home);
	close(p);
	nothing_left();
}

/* --- false claims --- */

static struct channel_message claim(int p, uint16_t type, int fd, struct sd_addr local)
{
	struct channel_message m = {.type = type, .n_fds = 1, .fds = {fd}};

	if (type == CHANNEL_LISTEN)
		m.listen = (struct channel_listen){.local = local, .backlog = 5};
	else
		m.connect = (struct channel_connect){.local = local, .peer = at(lo, 80)};
	return ask(p, m);
}

static void claim__false(void **state)
{
	int p = program(), listener = listening(lo), plain = bound(lo), pipes[2], udp, unbound;
	uint16_t port = port_of(listener);
	struct sd_addr other = at(lo, port);

	other.ip[3] = 2;
	udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	unbound = new_socket(&lo);
	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	refused(claim(p, CHANNEL_LISTEN, listener, at(lo, (uint16_t)(port ^ 1))), EACCES, -1);
	refused(claim(p, CHANNEL_LISTEN, listener, at(any4, port)), EACCES, -1);
	refused(claim(p, CHANNEL_LISTEN, listener, other), EACCES, -1);
	refused(claim(p, CHANNEL_LISTEN, listener, at(lo6, port)), EACCES, -1);
	refused(claim(p, CHANNEL_LISTEN, plain, at(lo, port_of(plain))), EACCES, -1);
	for (uint16_t type = CHANNEL_CONNECT; type <= CHANNEL_LISTEN;
		type += CHANNEL_LISTEN - CHANNEL_CONNECT) {
		assert_int_equal(bind_to(udp, &lo) && errno != EINVAL, 0);
		refused(claim(p, type, udp, at(lo, port_of(udp))), EACCES, -1);
		refused(claim(p, type, pipes[0], at(lo, 80)), EACCES, -1);
		refused(claim(p, type, unbound, at(lo, 80)), EACCES, -1);
		refused(claim(p, type, p, at(lo, 80)), EACCES, -1);
	}
	refused(claim(p, CHANNEL_CONNECT, plain, at(lo, (uint16_t)(port_of(plain) ^ 1))), EACCES, -1);
	refused(claim(p, CHANNEL_CONNECT, plain, at(other, port_of(plain))), EACCES, -1);
	close(udp);
	close(unbound);
	close(pipes[0]);
	close(pipes[1]);
	close(listener);
	close(plain);
	close(p);
	nothing_left();
}

/* A child may have inherited a socket with a name that it could not have got itself. */
static void claim__of_a_socket_that_is_in_use(void **state)
{
	int p = program(), listener = listening(lo), fd = new_socket(&lo), other;
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port_of(listener))};

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	refused(claim(p, CHANNEL_CONNECT, listener, at(lo, port_of(listener))), EACCES, -1);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
	other = accept(listener, NULL, NULL);
	refused(claim(p, CHANNEL_CONNECT, other, at(lo, port_of(other))), EACCES, -1);
	refused(claim(p, CHANNEL_CONNECT, fd, at(lo, port_of(fd))), EACCES, -1);
	close(other);
	close(fd);
	close(listener);
	close(p);
	nothing_left();
}

/* Who has waited in vain and hung up uses kernel TCP: its server is not to see it twice. */
static void connect__by_one_that_is_gone(void **state)
{
	int p = program(), z = program(), listener = listening(lo), fd = bound(lo);
	struct queue q = listen_at(z, listener, lo, 5);
	struct channel_message m = {.type = CHANNEL_CONNECT,
		.id = 1,
		.connect = {.local = at(lo, port_of(fd)), .peer = at(lo, port_of(listener))},
		.n_fds = 1,
		.fds = {fd}};

	assert_int_equal(channel_send(p, &m), 0);
	close(p);
	close(fd);
	turn();
	hears_nothing(q.fd);
	leave(&q);
	close(listener);
	close(z);
	nothing_left();
}

/* Whom programs trust by its address is not for a socket's name to say: any can be had. */
static void claim__foreign_address(void **state)
{
	int p = program(), z = program(), listener = listening(any4), fd = new_socket(&lo),
	    wild = bound(any4);
	struct queue q = listen_at(z, listener, any4, 5);
	struct sd_addr foreign = {.family = 4, .ip = {203, 0, 113, 7}};
	struct channel_message m = {.type = CHANNEL_CONNECT, .n_fds = 1};

	set(fd, IPPROTO_IP, IP_FREEBIND, 1);
	assert_int_equal(bind_to(fd, &foreign), 0);
	m.connect.peer = at(lo, port_of(listener));
	for (unsigned i = 0; i < 3; i++) {
		m.fds[0] = i ? wild : fd;
		m.connect.local = at(foreign, port_of(m.fds[0]));
		if (i == 2)
			m.connect.peer = at(foreign, port_of(listener));
		refused(ask(p, m), EACCES, -1);
	}
	close(fd);
	close(wild);
	leave(&q);
	close(listener);
	close(p);
	close(z);
	nothing_left();
}

/* A lease outlives its socket if a program likes. The port may be another user's by then. */
static void claim__of_a_port_that_was_given_up(void **state)
{
	int p, z, c = program(), old, new;
	struct channel_message m;
	struct queue q, r;
	struct half h;
	uint16_t port;

	if (!is_root())
		skip();
	be(ALICE);
	p = program();
	old = listening(lo);
	port = port_of(old);
	q = listen_at(p, old, lo, 5);
	close(old);
	refused(try_connect(c, lo, at(lo, port)), ECONNREFUSED, SD_REASON_LOCAL);
	be(BOB);
	new = listening(at(any4, port));
	refused(try_connect(c, lo, at(lo, port)), ECONNREFUSED, SD_REASON_LOCAL);
	z = program();
	r = listen_at(z, new, any4, 5);
	h = connect_to(c, lo, at(lo, port));
	turn();
	assert_int_equal(channel_recv(q.fd, &m), -EAGAIN);
	drop(&h);
	h = accept_from(&r);
	drop(&h);
	be(0);
	leave(&q);
	leave(&r);
	close(new);
	close(p);
	close(z);
	close(c);
	nothing_left();
}

/* --- queues --- */

static void queue__backlog(void **state)
{
	int p = program(), z = program(), socket = listening(lo);
	struct queue q = listen_at(z, socket, lo, 1); /* and one more */
	struct sd_addr to = at(lo, port_of(socket));
	struct channel_message m = {.type = CHANNEL_BACKLOG, .backlog = {3}};
	struct half c[5], s;

	c[0] = connect_to(p, lo, to);
	c[1] = connect_to(p, lo, to);
	refused(try_connect(p, lo, to), ECONNREFUSED, SD_REASON_PEER_REFUSED);
	channel_send(q.fd, &m);
	turn();
	c[2] = connect_to(p, lo, to);
	c[3] = connect_to(p, lo, to);
	refused(try_connect(p, lo, to), ECONNREFUSED, SD_REASON_PEER_REFUSED);
	s = accept_from(&q);
	c[4] = connect_to(p, lo, to);
	drop(&s);
	for (unsigned i = 0; i < 5; i++)
		drop(&c[i]);
	for (unsigned i = 0; i < 4; i++) {
		s = accept_from(&q);
		drop(&s);
	}
	all_leave(&q, socket, p, z);
	nothing_left();
}

static void queue__one_for_each_kernel_socket(void **state)
{
	int p = program(), z = program(), socket = listening(lo), same = dup(socket);
	struct queue q = listen_at(z, socket, lo, 5), r = listen_at(p, same, lo, 5);
	struct sd_addr to = at(lo, port_of(socket));
	struct half c, s;

	assert_int_equal(stats().listeners, 1);
	assert_true(inode(q.fd) == inode(r.fd) && inode(q.lease) != inode(r.lease));
	leave(&q);
	close(z);
	turn();
	c = connect_to(p, lo, to);
	s = accept_from(&r);
	drop(&c);
	drop(&s);
	leave(&r);
	turn();
	assert_int_equal(stats().listeners, 0);
	refused(try_connect(p, lo, to), ECONNREFUSED, SD_REASON_LOCAL);
	close(socket);
	close(same);
	close(p);
	nothing_left();
}

static void queue__balance(void **state)
{
	enum { N = 6 };
	int p = program(), z = program(), one = listening(lo), two = listening(at(lo, port_of(one)));
	struct queue q = listen_at(z, one, lo, 5), r = listen_at(z, two, lo, 5);
	struct half c[N], s;

	assert_int_equal(stats().listeners, 1);
	assert_true(inode(q.fd) != inode(r.fd));
	for (unsigned i = 0; i < N; i++)
		c[i] = connect_to(p, lo, at(lo, port_of(one)));
	for (unsigned i = 0; i < N; i++) {
		s = accept_from(i & 1 ? &q : &r);
		drop(&s);
		drop(&c[i]);
	}
	hears_nothing(q.fd);
	hears_nothing(r.fd);
	leave(&q);
	leave(&r);
	close(one);
	close(two);
	close(p);
	close(z);
	nothing_left();
}

static void queue__ends_with_connections(void **state)
{
	int p = program(), z = program(), one = listening(lo), two = listening(at(lo, port_of(one)));
	struct queue q = listen_at(z, one, lo, 5), r = listen_at(z, two, lo, 5);
	struct half c[2], s;

	for (unsigned i = 0; i < 2; i++)
		c[i] = connect_to(p, lo, at(lo, port_of(one)));
	leave(&q);
	close(one);
	turn();
	assert_int_equal(stats().offered_again, 1);
	for (unsigned i = 0; i < 2; i++)
		assert_false(is_hung_up(c[i].end));
	s = accept_from(&r);
	leave(&r);
	close(two);
	turn();
	/* One was accepted, of the other there is nobody left. */
	assert_int_equal(is_hung_up(c[0].end) + is_hung_up(c[1].end), 1);
	assert_int_equal(stats().streams, 2); /* whoever has connected has its end still */
	drop(&s);
	drop(&c[0]);
	drop(&c[1]);
	close(p);
	close(z);
	nothing_left();
}

static void queue__shut_down(void **state)
{
	int p = program(), socket = listening(lo);
	struct queue q = listen_at(p, socket, lo, 5);
	struct half c = connect_to(p, lo, at(lo, port_of(socket)));

	shutdown(q.fd, SHUT_RDWR);
	turn();
	assert_int_equal(stats().listeners, 0);
	drop(&c);
	leave(&q);
	close(socket);
	close(p);
	nothing_left();
}

static void queue__offered_again(void **state)
{
	int p = program(), z = program(), socket = listening(lo);
	struct queue q = listen_at(z, socket, lo, 5);
	struct half c = connect_to(p, lo, at(lo, port_of(socket))), s;

	for (unsigned i = 0; i < 10; i++)
		pass(SD_S); /* it is still there to be read */
	assert_int_equal(stats().offered_again, 0);
	s = take(&q);
	for (uint64_t wait = 1; wait <= 16; wait *= 2) {
		drop(&s);
		if (wait > 1)
			pass((wait - 1) * SD_S);
		hears_nothing(q.fd);
		pass(SD_S + SD_MS);
		s = take(&q);
	}
	assert_true(broker_deadline(b) > now && broker_deadline(b) != UINT64_MAX);
	tell(q.fd, CHANNEL_ACCEPTED, s.cookie);
	turn();
	pass(100 * SD_S);
	hears_nothing(q.fd);
	drop(&s);
	drop(&c);
	all_leave(&q, socket, p, z);
	nothing_left();
}

/* Who has connected is gone, and nobody takes what it left. */
static void queue__in_vain(void **state)
{
	int p = program(), z = program(), socket = listening(lo);
	struct queue q = listen_at(z, socket, lo, 5);
	struct half c = connect_to(p, lo, at(lo, port_of(socket))), s;
	unsigned offers = 0;
	struct channel_message m;

	drop(&c);
	turn();
	for (unsigned i = 0; i < 100; i++) {
		pass(SD_S);
		if (!channel_recv(q.fd, &m)) {
			s = half_of(&m);
			drop(&s);
			offers++;
		}
	}
	assert_in_range(offers, 2, 5);
	assert_int_equal(stats().streams, 0);
	all_leave(&q, socket, p, z);
	nothing_left();
}

/* A program that does not say what it has accepted. */
static void queue__is_not_filled_by_what_was_taken(void **state)
{
	int p = program(), z = program(), socket = listening(lo);
	struct queue q = listen_at(z, socket, lo, 1);
	struct half c[3], s[3];

	for (unsigned i = 0; i < 3; i++) {
		c[i] = connect_to(p, lo, at(lo, port_of(socket)));
		s[i] = take(&q);
	}
	for (unsigned i = 0; i < 3; i++) {
		drop(&c[i]);
		drop(&s[i]);
	}
	all_leave(&q, socket, p, z);
	nothing_left();
}

/* --- adoption --- */

static void adopt__an_end(void **state)
{
	int p = program(), z = program(), x = program(), socket = listening(lo), memory;
	struct queue q = listen_at(z, socket, lo, 5);
	struct half c = connect_to(p, lo, at(lo, port_of(socket))), s = accept_from(&q);
	const struct half *h[] = {&c, &s};
	struct channel_message m;

	for (unsigned i = 0; i < 2; i++) {
		m = ask(x, (struct channel_message){.type = CHANNEL_ADOPT, .n_fds = 1, .fds = {h[i]->end}});
		assert_int_equal(m.type, CHANNEL_ADOPTED);
		assert_int_equal(m.stream.end, i);
		assert_true(sd_addr_equal(&m.stream.local, &h[i]->local));
		assert_true(m.stream.cookie == h[i]->cookie && inode(m.fds[0]) == inode(c.memory));
		channel_close_fds(&m);
	}
	/* A file that happens to have the same number. */
	memory = memfd_create("x", MFD_CLOEXEC);
	for (unsigned i = 0; i < 5; i++) {
		const int others[] = {c.memory, socket, x, q.fd, memory};

		refused(ask(x,
				(struct channel_message){
					.type = CHANNEL_ADOPT, .n_fds = 1, .fds = {others[i]}}),
			ENOENT, SD_REASON_INHERITED);
	}
	close(memory);
	/* The end lives on where it was adopted. */
	memory = dup(c.end);
	drop(&c);
	turn();
	assert_false(is_hung_up(s.end));
	close(memory);
	assert_true(is_hung_up(s.end));
	drop(&s);
	all_leave(&q, socket, p, z);
	close(x);
	nothing_left();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(hello__versions),
		CASE(connect__to_nobody),
		CASE(connect__and_accept),
		CASE(connect__to_any_address),
		CASE(connect__ipv4_to_any_ipv6),
		CASE(connect__to_another_network_namespace),
		CASE(claim__false),
		CASE(claim__of_a_socket_that_is_in_use),
		CASE(connect__by_one_that_is_gone),
		CASE(claim__foreign_address),
		CASE(claim__of_a_port_that_was_given_up),
		CASE(queue__backlog),
		CASE(queue__one_for_each_kernel_socket),
		CASE(queue__balance),
		CASE(queue__ends_with_connections),
		CASE(queue__shut_down),
		CASE(queue__offered_again),
		CASE(queue__in_vain),
		CASE(queue__is_not_filled_by_what_was_taken),
		CASE(adopt__an_end),
	};

	alarm(100); /* a hang is a failure too */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
