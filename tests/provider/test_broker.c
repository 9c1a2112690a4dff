/* SPDX-License-Identifier: BSD-3-Clause */
/* The daemon's broker, spoken to by hand: what programs get, what they are refused, and that nothing stays.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/rng.h"
#include "provider/broker.h"
#include "provider/channel.h"
#include "tests/provider/fds.h"

#define ALICE 4001
#define BOB   4002

static struct broker *b;
static struct sockaddr_un door = {.sun_family = AF_UNIX};
static uint64_t now; /* what the broker is told */
static unsigned n_open;
static uint32_t next_id;
static uint64_t max_memory; /* of a user; 0: the broker's default */

/* --- the broker --- */

static void turn(void)
{
	for (unsigned i = 0; broker_progress(b, now); i++)
		assert_true(i < 10000); /* it would never sleep */
}

static void pass(uint64_t ns)
{
	now += ns;
	turn();
}

static struct broker_stats stats(void)
{
	struct broker_stats s;

	broker_stats(b, &s);
	return s;
}

static void open_broker(uint32_t max_connections)
{
	struct broker_config cfg = {
		.size = sizeof cfg, .max_connections = max_connections, .max_memory = max_memory};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(door.sun_path, sizeof door.sun_path, "/tmp/sandirect-broker-%d", getpid());
	unlink(door.sun_path);
	assert_int_equal(bind(fd, (struct sockaddr *)&door, sizeof door), 0);
	chmod(door.sun_path, 0666);
	assert_int_equal(listen(fd, 128), 0);
	assert_int_equal(broker_open(&cfg, fd, &b), 0);
	broker_progress(b, now);
	n_open = fds_open();
}

static void reopen_broker(uint32_t max_connections)
{
	broker_close(b);
	open_broker(max_connections);
}

static int setup(void **state)
{
	now = 1000 * SD_S;
	max_memory = 0;
	open_broker(0);
	return 0;
}

/* Whatever is closed in a thread takes a moment. */
static bool is_as_before(void)
{
	for (unsigned i = 0; i < 200 && fds_open() != n_open; i++) {
		usleep(5000);
		turn();
	}
	return fds_open() == n_open;
}

static void nothing_left(void)
{
	turn();
	assert_int_equal(stats().clients, 0);
	assert_int_equal(stats().listeners, 0);
	assert_int_equal(stats().streams, 0);
	assert_true(is_as_before());
	assert_true(broker_deadline(b) == UINT64_MAX);
}

static int teardown(void **state)
{
	broker_close(b);
	unlink(door.sun_path);
	return 0;
}

/* --- programs --- */

static void be(uid_t uid)
{
	if (seteuid(0) || (uid && seteuid(uid)))
		fail();
}

static bool is_root(void)
{
	return getuid() == 0;
}

static int call(void)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&door, sizeof door), 0);
	return fd;
}

static struct channel_message hear(int fd)
{
	struct channel_message m;

	assert_int_equal(channel_recv(fd, &m), 0);
	return m;
}

static void hears_nothing(int fd)
{
	struct channel_message m;

	assert_int_equal(channel_recv(fd, &m), -EAGAIN);
}

static bool is_hung_up(int fd)
{
	struct pollfd p = {.fd = fd};

	return poll(&p, 1, 0) == 1 && p.revents & POLLHUP;
}

static struct channel_message ask(int fd, struct channel_message m)
{
	struct channel_message a;

	m.id = ++next_id;
	assert_int_equal(channel_send(fd, &m), 0);
	turn();
	a = hear(fd);
	assert_int_equal(a.id, m.id);
	return a;
}

static int program(void)
{
	int fd = call();
	struct channel_message a = ask(fd, (struct channel_message){.type = CHANNEL_HELLO,
						   .hello = {.version = CHANNEL_VERSION, .program = "test"}});

	assert_int_equal(a.type, CHANNEL_WELCOME);
	assert_int_equal(a.welcome.version, CHANNEL_VERSION);
	return fd;
}

static void refused(struct channel_message a, int error, int reason)
{
	assert_int_equal(a.type, CHANNEL_REFUSED);
	assert_int_equal(a.refused.error, error);
	if (reason >= 0)
		assert_int_equal(a.refused.reason, reason);
}

/* --- sockets --- */

static const struct sd_addr lo = {.family = 4, .ip = {127, 0, 0, 1}}, any4 = {.family = 4},
			    lo6 = {.family = 6, .ip = {[15] = 1}}, any6 = {.family = 6};

static struct sd_addr at(struct sd_addr a, uint16_t port)
{
	a.port = port;
	return a;
}

static uint16_t port_of(int fd)
{
	struct sockaddr_in6 a;
	socklen_t len = sizeof a;

	getsockname(fd, (struct sockaddr *)&a, &len);
	return ntohs(a.sin6_port); /* at the same place in both */
}

static int bind_to(int fd, const struct sd_addr *a)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(a->port)};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(a->port)};

	memcpy(&v4.sin_addr, a->ip, 4);
	memcpy(&v6.sin6_addr, a->ip, 16);
	return a->family == 4 ? bind(fd, (struct sockaddr *)&v4, sizeof v4)
			      : bind(fd, (struct sockaddr *)&v6, sizeof v6);
}

static int new_socket(const struct sd_addr *a)
{
	return socket(a->family == 4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static void set(int fd, int level, int name, int value)
{
	assert_int_equal(setsockopt(fd, level, name, &value, sizeof value), 0);
}

static int bound(struct sd_addr a)
{
	int fd = new_socket(&a);

	assert_int_equal(bind_to(fd, &a), 0);
	return fd;
}

static int listening(struct sd_addr a)
{
	int fd = new_socket(&a);

	set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	if (a.family == 6)
		set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
	assert_int_equal(bind_to(fd, &a), 0);
	assert_int_equal(listen(fd, 16), 0);
	return fd;
}

/* --- requests --- */

struct queue {
	int fd, lease;
};

static struct channel_message try_listen(int p, int socket, struct sd_addr a, uint32_t backlog)
{
	return ask(p, (struct channel_message){.type = CHANNEL_LISTEN,
			      .listen = {.local = at(a, port_of(socket)), .backlog = backlog},
			      .n_fds = 1,
			      .fds = {socket}});
}

static struct queue listen_at(int p, int socket, struct sd_addr a, uint32_t backlog)
{
	struct channel_message m = try_listen(p, socket, a, backlog);

	assert_int_equal(m.type, CHANNEL_LISTENING);
	return (struct queue){m.fds[0], m.fds[1]};
}

static void leave(struct queue *q)
{
	close(q->fd);
	close(q->lease);
}

struct half {
	int end, memory, bell;
	struct sd_addr local, peer;
};

static struct half half_of(const struct channel_message *m)
{
	return (struct half){m->fds[0], m->fds[1], m->fds[2], m->stream.local, m->stream.peer};
}

static void drop(struct half *h)
{
	close(h->end);
	close(h->memory);
	close(h->bell);
}

static struct channel_message try_connect(int p, struct sd_addr from, struct sd_addr to)
{
	int fd = bound(from);
	struct channel_message m = {.type = CHANNEL_CONNECT,
		.connect = {.local = at(from, port_of(fd)), .peer = to},
		.n_fds = 1,
		.fds = {fd}};

	m = ask(p, m);
	close(fd);
	return m;
}

static struct half connect_to(int p, struct sd_addr from, struct sd_addr to)
{
	struct channel_message m = try_connect(p, from, to);

	assert_int_equal(m.type, CHANNEL_CONNECTED);
	assert_int_equal(m.stream.end, 0);
	return half_of(&m);
}

static struct half take(struct queue *q)
{
	struct channel_message m = hear(q->fd);

	assert_int_equal(m.type, CHANNEL_INCOMING);
	assert_int_equal(m.stream.end, 1);
	return half_of(&m);
}

static struct half accept_from(struct queue *q)
{
	struct half h = take(q);

	assert_int_equal(send(h.end, "", 1, MSG_NOSIGNAL), 1);
	turn();
	return h;
}

static ino_t inode(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_ino;
}

/* --- greetings --- */

static void hello__versions(void **state)
{
	int p = program(), newer = call(), early = call(), twice;
	struct channel_message m = {.type = CHANNEL_HELLO, .hello = {.version = CHANNEL_VERSION + 5}};

	m = ask(newer, m);
	assert_int_equal(m.welcome.version, CHANNEL_VERSION);
	assert_true(m.welcome.max_connections > 0);
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
	/* Each one's bell rings the other's end. */
	assert_int_equal(send(c->bell, "c", 1, 0), 1);
	assert_int_equal(recv(s->end, &byte, 1, MSG_DONTWAIT), 1);
	assert_int_equal(send(s->bell, "s", 1, 0), 1);
	assert_int_equal(recv(c->end, &byte, 1, MSG_DONTWAIT), 1);
	assert_false(is_hung_up(c->bell) || is_hung_up(s->bell));
}

static void connect_and_end(struct sd_addr where, struct sd_addr from, struct sd_addr to)
{
	int a = program(), z = program(), socket = listening(where);
	struct queue q = listen_at(z, socket, from.family == where.family ? where : any4, 5);
	struct half c = connect_to(a, from, at(to, port_of(socket))), s;

	turn();
	s = accept_from(&q);
	check_pair(&c, &s);
	assert_true(broker_deadline(b) == UINT64_MAX);
	close(c.end);
	turn();
	assert_true(is_hung_up(s.bell));
	assert_int_equal(stats().streams, 1);
	close(s.end);
	turn();
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
	m = (struct channel_message){.type = CHANNEL_CONNECT, .n_fds = 1, .fds = {from}};
	m.connect = (struct channel_connect){at(lo, port_of(from)), at(lo, port_of(here))};
	m = ask(p, m);
	assert_int_equal(m.type, CHANNEL_CONNECTED);
	c = half_of(&m);
	setns(home, CLONE_NEWNET);
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
	leave(&q);
	close(socket);
	close(p);
	close(z);
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
		assert_false(is_hung_up(c[i].bell));
	s = accept_from(&r);
	leave(&r);
	close(two);
	turn();
	/* One was accepted, of the other there is nobody left. */
	assert_int_equal(is_hung_up(c[0].bell) + is_hung_up(c[1].bell), 1);
	assert_int_equal(stats().streams, 1);
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
	send(s.end, "", 1, 0);
	turn();
	assert_true(broker_deadline(b) == UINT64_MAX);
	pass(100 * SD_S);
	hears_nothing(q.fd);
	drop(&s);
	drop(&c);
	leave(&q);
	close(socket);
	close(p);
	close(z);
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
	leave(&q);
	close(socket);
	close(p);
	close(z);
	nothing_left();
}

/* Whoever connects can take the byte away by which a program says that it has accepted. */
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
	leave(&q);
	close(socket);
	close(p);
	close(z);
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
		assert_true(inode(m.fds[0]) == inode(c.memory) && inode(m.fds[1]) == inode(h[i]->bell));
		channel_close_fds(&m);
	}
	/* A file that happens to have the same number. */
	memory = memfd_create("x", MFD_CLOEXEC);
	for (unsigned i = 0; i < 6; i++) {
		const int others[] = {c.bell, c.memory, socket, x, q.fd, memory};

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
	assert_false(is_hung_up(s.bell));
	close(memory);
	turn();
	assert_true(is_hung_up(s.bell));
	drop(&s);
	leave(&q);
	close(socket);
	close(p);
	close(z);
	close(x);
	nothing_left();
}

/* --- limits --- */

static void hand_over(uint32_t max_connections);

static void limit__of_a_user(void **state)
{
	struct half c[3], s;
	int p, z, x, socket;
	struct queue q;

	if (!is_root())
		skip();
	reopen_broker(7);
	be(ALICE);
	p = program();
	be(BOB);
	z = program();
	socket = listening(lo);
	q = listen_at(z, socket, lo, 5);
	be(0);
	for (unsigned i = 0; i < 3; i++)
		c[i] = connect_to(p, lo, at(lo, port_of(socket)));
	refused(try_connect(p, lo, at(lo, port_of(socket))), ECONNREFUSED, SD_REASON_LIMIT_USER);
	refused(try_listen(p, socket, lo, 1), EDQUOT, SD_REASON_LIMIT_USER);
	be(ALICE);
	x = call();
	be(0);
	turn();
	assert_true(is_hung_up(x));
	close(x);
	/* It costs only who connects, until that one is gone. */
	be(BOB);
	for (unsigned i = 0; i < 5; i++)
		close(program());
	be(0);
	drop(&c[0]);
	turn();
	c[0] = connect_to(p, lo, at(lo, port_of(socket)));
	s = accept_from(&q);
	drop(&s);
	for (unsigned i = 0; i < 3; i++)
		drop(&c[i]);
	/* BOB has room for two of the three that are left to it. */
	turn();
	assert_int_equal(stats().streams, 2);
	leave(&q);
	close(socket);
	close(p);
	close(z);
	nothing_left();
}

static uint64_t memory_of(const struct half *h)
{
	struct stat st;

	assert_int_equal(fstat(h->memory, &st), 0);
	return (uint64_t)st.st_size;
}

/* Rings get smaller, and then there are none; whoever has given up gets large ones again. */
static void limit__of_memory(void **state)
{
	struct half c[1000] = {0};
	struct channel_message m;
	uint64_t sum = 0, first;
	struct rlimit before, more;
	struct queue q;
	unsigned n = 0;
	int p, z, socket;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	more = before;
	more.rlim_cur = before.rlim_max;
	if (more.rlim_cur < 16384)
		skip();
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &more), 0);
	max_memory = 64 << 20;
	reopen_broker(0);
	p = program();
	z = program();
	socket = listening(lo);
	q = listen_at(z, socket, lo, 1000);
	for (;; n++) {
		m = try_connect(p, lo, at(lo, port_of(socket)));
		if (m.type == CHANNEL_REFUSED)
			break;
		assert_true(n < 1000);
		c[n] = half_of(&m);
		sum += memory_of(&c[n]);
		assert_true(sum <= max_memory);
		assert_true(!n || memory_of(&c[n]) <= memory_of(&c[n - 1]));
		if (n == 299) /* a new daemon knows what they have */
			hand_over(0);
	}
	refused(m, ECONNREFUSED, SD_REASON_LIMIT_USER);
	first = memory_of(&c[0]);
	print_message(
		"%u connections with %zu to %zu bytes\n", n, (size_t)first, (size_t)memory_of(&c[n - 1]));
	assert_true(n >= 400 && first > (512 << 10));
	assert_true(memory_of(&c[n - 1]) < (16 << 10) && sum > max_memory - (16 << 10));
	for (unsigned i = 0; i < n; i++)
		drop(&c[i]);
	leave(&q);
	turn();
	q = listen_at(z, socket, lo, 1000);
	c[0] = connect_to(p, lo, at(lo, port_of(socket)));
	assert_int_equal(memory_of(&c[0]), first);
	drop(&c[0]);
	leave(&q);
	close(socket);
	close(p);
	close(z);
	nothing_left();
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

static void limit__of_descriptors(void **state)
{
	struct rlimit before, less;
	int p[40];

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	for (unsigned i = 0; i < 40; i++)
		p[i] = call();
	less = before;
	less.rlim_cur = fds_open() + 8;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &less), 0);
	/* All are heard; those for whom there is no descriptor are hung up on. */
	turn();
	assert_true(stats().clients > 0 && stats().clients < 40);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	for (unsigned i = 0; i < 40; i++)
		close(p[i]);
	nothing_left();
}

static void limit__of_answers_not_read(void **state)
{
	int p = program(), fd = bound(lo), n = 0;
	struct channel_message m = {.type = CHANNEL_CONNECT, .n_fds = 1, .fds = {fd}};

	m.connect = (struct channel_connect){.local = at(lo, port_of(fd)), .peer = at(lo, 9)};
	for (unsigned i = 0; i < 100; i++) {
		m.id = i;
		assert_int_equal(channel_send(p, &m), 0);
		turn();
	}
	/* It is heard no more, and then all is answered. */
	assert_true(stats().refused < 100);
	for (int r = 0; n < 100; turn()) {
		for (; !(r = channel_recv(p, &m)); n++)
			assert_int_equal(m.id, n);
		assert_int_equal(r, -EAGAIN);
	}
	m.n_fds = 1;
	for (unsigned i = 0; i < 60; i++) {
		m = (struct channel_message){.type = CHANNEL_CONNECT, .n_fds = 1, .fds = {fd}};
		m.connect = (struct channel_connect){.local = at(lo, port_of(fd)), .peer = at(lo, 9)};
		channel_send(p, &m);
		turn();
	}
	shutdown(p, SHUT_RDWR);
	turn();
	assert_int_equal(stats().clients, 0);
	close(fd);
	close(p);
	nothing_left();
}

/* --- descriptors that are slow to close --- */

static int lingering(int *other)
{
	static char waste[1 << 16];
	struct linger l = {1, 20};
	int listener = listening(lo), fd = new_socket(&lo);
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port_of(listener))};

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
	*other = accept(listener, NULL, NULL);
	while (send(fd, waste, sizeof waste, MSG_DONTWAIT) > 0)
		;
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
	close(listener);
	return fd;
}

static void waste__lingering_sockets(void **state)
{
	/* Beside a message, and on their way inside a UNIX socket that is beside one. */
	for (unsigned inside = 0; inside < 2; inside++) {
		int p = program(), other, fd = lingering(&other), pair[2];
		struct channel_message m = {.type = CHANNEL_ADOPT, .n_fds = 1, .fds = {fd}};
		uint64_t start;

		if (inside) {
			assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
			assert_int_equal(channel_send(pair[0], &m), 0);
			set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
			m.fds[0] = pair[1];
		}
		assert_int_equal(channel_send(p, &m), 0);
		/* The broker has the last one. A close of ours would wait, too, were it the last. */
		close(fd);
		if (inside) {
			close(pair[1]);
			close(pair[0]);
		}
		start = sd_clock_ns();
		turn();
		assert_true(sd_clock_ns() - start < 2 * SD_S);
		m = hear(p);
		refused(m, ENOENT, -1);
		close(other);
		close(p);
		nothing_left();
	}
}

static void waste__files_by_the_dozen(void **state)
{
	for (unsigned i = 0; i < 50; i++) {
		int p = program(), fds[2];

		assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
		refused(ask(p, (struct channel_message){.type = CHANNEL_ADOPT, .n_fds = 1, .fds = {fds[0]}}),
			ENOENT, -1);
		close(fds[0]);
		close(fds[1]);
		close(p);
	}
	nothing_left();
}

/* A file system whose one file is slow to close. */
struct slow {
	int device, file;
	char path[64];
	pid_t server; /* another process: if it ends, so do those that wait for it */
};

static void answer(int device, uint64_t id, int error, const void *body, size_t len)
{
	struct fuse_out_header h = {.len = (uint32_t)(sizeof h + len), .error = error, .unique = id};
	struct iovec v[] = {{&h, sizeof h}, {(void *)body, len}};

	if (writev(device, v, 2) < 0)
		return; /* whoever asked has gone */
}

static void be_file_system(int device)
{
	static union {
		struct fuse_in_header header;
		char bytes[1 << 17];
	} q;
	const struct fuse_init_out init = {.major = 7, .minor = 31, .max_write = 4096};
	const struct fuse_attr_out attr = {.attr = {.ino = 1, .mode = S_IFREG | 0644, .nlink = 1}};
	const struct fuse_open_out opened = {.fh = 1};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (read(device, &q, sizeof q) > 0) {
		uint64_t id = q.header.unique;

		if (q.header.opcode == FUSE_INIT)
			answer(device, id, 0, &init, sizeof init);
		else if (q.header.opcode == FUSE_OPEN)
			answer(device, id, 0, &opened, sizeof opened);
		else if (q.header.opcode == FUSE_GETATTR)
			answer(device, id, 0, &attr, sizeof attr);
		else if (q.header.opcode != FUSE_FLUSH && q.header.opcode != FUSE_FORGET)
			answer(device, id, -ENOSYS, NULL, 0);
	}
	_exit(0);
}

static bool open_slow(struct slow *s)
{
	char options[100];
	int fd;

	*s = (struct slow){.device = open("/dev/fuse", O_RDWR | O_CLOEXEC)};
	if (s->device < 0)
		return false;
	snprintf(s->path, sizeof s->path, "/tmp/sandirect-slow-%d", getpid());
	fd = open(s->path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	close(fd);
	snprintf(options, sizeof options, "fd=%d,rootmode=100644,user_id=0,group_id=0", s->device);
	if (mount("slow", s->path, "fuse.slow", MS_NOSUID | MS_NODEV, options)) {
		close(s->device);
		unlink(s->path);
		return false;
	}
	s->server = fork();
	if (!s->server)
		be_file_system(s->device);
	close(s->device);
	s->file = open(s->path, O_RDWR | O_CLOEXEC);
	return s->file >= 0;
}

static void close_slow(struct slow *s)
{
	kill(s->server, SIGKILL);
	waitpid(s->server, NULL, 0);
	close(s->file);
	umount2(s->path, MNT_DETACH);
	unlink(s->path);
}

static void waste__file_that_is_slow_to_close(void **state)
{
	int p = program(), other = program();
	struct channel_message m;
	struct slow s;

	if (!open_slow(&s)) {
		close(p);
		close(other);
		skip();
	}
	/* Right or wrong, nobody waits for it. */
	m = (struct channel_message){.type = CHANNEL_ADOPT, .n_fds = 1, .fds = {s.file}};
	refused(ask(p, m), ENOENT, -1);
	m = (struct channel_message){.type = CHANNEL_LISTEN, .n_fds = 1, .fds = {s.file}};
	m.listen.local = at(lo, 80);
	refused(ask(p, m), EACCES, -1);
	m = (struct channel_message){.type = CHANNEL_CONNECT, .n_fds = 1, .fds = {s.file}};
	m.connect = (struct channel_connect){at(lo, 80), at(lo, 80)};
	refused(ask(p, m), EACCES, -1);
	refused(try_connect(other, lo, at(lo, 9)), ECONNREFUSED, -1);
	assert_true(fds_open() > n_open);
	close(p);
	close(other);
	close_slow(&s);
	nothing_left();
}

static void pass_on(int to, int fd)
{
	struct channel_message m = {.type = CHANNEL_ADOPT, .n_fds = 1, .fds = {fd}};

	channel_send(to, &m);
}

/* Descriptors that are on their way through what hangs up when they are closed. */
static void waste__circles(void **state)
{
	int p = program(), z = program(), socket = listening(lo), fd = bound(lo), on = 1;
	struct queue q = listen_at(z, socket, lo, 5);
	struct half c = connect_to(p, lo, at(lo, port_of(socket))), s = accept_from(&q);
	struct channel_message m = {.type = CHANNEL_CONNECT, .n_fds = 1, .fds = {fd}};

	/* The bells are the broker's own sockets, and can be told to take descriptors. */
	setsockopt(c.bell, SOL_SOCKET, 83 /* SO_PASSRIGHTS */, &on, sizeof on);
	setsockopt(s.bell, SOL_SOCKET, 83, &on, sizeof on);
	for (unsigned i = 0; i < 3; i++) {
		pass_on(c.end, c.end);
		pass_on(s.end, s.end);
		pass_on(q.lease, q.lease);
		pass_on(q.fd, q.lease);
	}
	m.connect = (struct channel_connect){.local = at(lo, port_of(fd)), .peer = at(lo, 9)};
	for (unsigned i = 0; i < 60; i++) {
		channel_send(p, &m);
		turn();
	}
	for (unsigned i = 0; i < 3; i++)
		pass_on(p, p);
	turn();
	drop(&c);
	drop(&s);
	leave(&q);
	close(socket);
	close(fd);
	close(z);
	close(p);
	turn();
	assert_int_equal(stats().clients, 1);
	pass(31 * SD_S);
	nothing_left();
}

/* --- another process goes on --- */

/* The descriptors as they come to it: the same files. */
static struct sd_unpack received(const struct sd_pack *p, size_t len, int *fds)
{
	for (unsigned i = 0; i < p->n_fds; i++) {
		fds[i] = fcntl(p->fds[i], F_DUPFD_CLOEXEC, 0);
		assert_true(fds[i] >= 0);
	}
	return (struct sd_unpack){p->data, p->data + len, fds, (unsigned)p->n_fds};
}

static int restore(
	const struct sd_pack *p, size_t len, int listening, uint32_t max_connections, struct broker **out)
{
	const struct broker_config cfg = {
		.size = sizeof cfg, .max_connections = max_connections, .max_memory = max_memory};
	int *fds = malloc((p->n_fds + 1) * sizeof *fds), r;
	struct sd_unpack u = received(p, len, fds);

	assert_int_equal(broker_open(&cfg, fcntl(listening, F_DUPFD_CLOEXEC, 0), out), 0);
	r = broker_restore(*out, &u, now);
	for (unsigned i = 0; i < u.n_fds; i++)
		close(u.fds[i]);
	if (!r)
		assert_ptr_equal(u.at, u.end);
	free(fds);
	return r;
}

static void hand_over(uint32_t max_connections)
{
	struct sd_pack p = {0};
	struct broker *old = b;

	broker_save(b, &p);
	assert_false(p.failed);
	assert_int_equal(restore(&p, p.len, broker_door(old), max_connections, &b), 0);
	broker_close(old);
	sd_pack_free(&p);
}

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
	assert_true(is_hung_up(s.bell));
	late = program();
	close(late);
	drop(&s);
	leave(&q);
	close(socket);
	close(p);
	close(z);
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
	leave(&q);
	close(socket);
	close(p);
	close(z);
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
	leave(&q);
	close(socket);
	close(p);
	close(z);
	pass(2 * SD_S);
	nothing_left();
}

/* --- anything --- */

enum { N_PROGRAMS = 8, N_HELD = 96, N_LISTENERS = 5 };

struct world {
	struct sd_rng rng;
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
	struct channel_message m;

	if (fd < 0)
		return;
	while (!channel_recv(fd, &m)) {
		if (m.type == CHANNEL_INCOMING && below(w, 3))
			send(m.fds[0], "", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
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

	switch (below(w, 5)) {
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
	struct channel_message m = {.type = CHANNEL_HELLO, .hello = {.version = 1}};

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

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

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
		CASE(limit__of_a_user),
		CASE(limit__of_memory),
		CASE(limit__of_descriptors),
		CASE(limit__of_answers_not_read),
		CASE(waste__lingering_sockets),
		CASE(waste__files_by_the_dozen),
		CASE(waste__circles),
		CASE(waste__file_that_is_slow_to_close),
		CASE(hand_over__all_there_is),
		CASE(hand_over__who_has_more_than_is_allowed_keeps_it),
		CASE(hand_over__of_what_makes_no_sense),
		CASE(anything__handed_over_in_the_middle),
		CASE(anything__leaves_nothing),
		CASE(anything__closed_in_the_middle),
	};

	alarm(100); /* a hang is a failure too */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
