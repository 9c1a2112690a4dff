/* SPDX-License-Identifier: BSD-3-Clause */
/* How the daemon's broker finds out which ends of connections there still are. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "tests/provider/broker_rig.h"

static bool no_netlink; /* in this kernel */

/* In the place of the C library's. */
int socket(int domain, int type, int protocol)
{
	if (no_netlink && domain == AF_NETLINK) {
		errno = EPROTONOSUPPORT;
		return -1;
	}
	return (int)syscall(SYS_socket, domain, type, protocol);
}

/* A listener with its program, one that connects, and a connection. */
static int client, server, listener;
static struct queue q;
static struct half c, s;
static struct sd_addr to;

static void listen_only(void)
{
	client = program();
	server = program();
	listener = listening(lo);
	to = at(lo, port_of(listener));
	q = listen_at(server, listener, lo, 100);
}

static void begin(void)
{
	listen_only();
	c = connect_to(client, lo, to);
	s = accept_from(&q);
}

static void finish(void)
{
	all_leave(&q, listener, client, server);
	nothing_left();
}

static struct channel_message adopt(int fd)
{
	return ask(client, (struct channel_message){.type = CHANNEL_ADOPT, .n_fds = 1, .fds = {fd}});
}

static void can_be_adopted(const struct half *h)
{
	struct channel_message m = adopt(h->end);

	assert_int_equal(m.type, CHANNEL_ADOPTED);
	assert_int_equal(inode(m.fds[0]), inode(h->memory));
	channel_close_fds(&m);
}

/* --- two halves --- */

static short events_of(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLRDHUP};

	poll(&p, 1, 0);
	return p.revents;
}

static void pair__hangs_up_when_the_other_half_is_closed(void **state)
{
	int again;

	begin();
	again = dup(c.end);
	drop(&c);
	assert_int_equal(events_of(s.end), 0);
	shutdown(again, SHUT_WR);
	assert_int_equal(events_of(s.end), POLLIN | POLLRDHUP); /* which says nothing */
	close(again);
	assert_true(events_of(s.end) & POLLHUP);
	drop(&s);
	finish();
}

static void pair__outlives_the_broker(void **state)
{
	char byte;

	begin();
	broker_close(b);
	assert_int_equal(send(c.end, "", 1, 0), 1);
	assert_int_equal(recv(s.end, &byte, 1, 0), 1);
	assert_false(is_hung_up(s.end));
	close(c.end);
	assert_true(is_hung_up(s.end));
	close(s.end);
	close(c.memory);
	close(s.memory);
	all_leave(&q, listener, client, server);
	open_broker(0);
}

/* --- found by looking --- */

static uint16_t port_of_peer(void)
{
	return s.peer.port;
}

static bool is_free(uint16_t port)
{
	const struct sd_addr a = at(lo, port);
	int fd = new_socket(&a), r = bind_to(fd, &a);

	close(fd);
	return !r;
}

static void gone__without_a_word(void **state)
{
	uint16_t port;

	begin();
	port = port_of_peer();
	assert_false(is_free(port));
	drop(&c);
	drop(&s);
	assert_int_equal(stats().streams, 1);
	pass(10 * SD_S);
	pass(SD_S);
	assert_int_equal(stats().streams, 0);
	assert_true(is_free(port));
	finish();
}

static void gone__one_of_them(void **state)
{
	begin();
	for (unsigned i = 0; i < 2; i++) {
		struct half *one = i ? &s : &c, *other = i ? &c : &s;

		drop(one);
		pass(10 * SD_S);
		pass(10 * SD_S);
		assert_int_equal(stats().streams, 1);
		can_be_adopted(other);
		drop(other);
		pass(10 * SD_S);
		pass(SD_S);
		assert_int_equal(stats().streams, 0);
		c = connect_to(client, lo, to);
		s = accept_from(&q);
	}
	drop(&c);
	drop(&s);
	finish();
}

static void gone__with_the_program(void **state)
{
	begin();
	drop(&c);
	drop(&s);
	close(client); /* that is heard */
	turn();
	pass(50 * SD_MS);
	pass(50 * SD_MS);
	assert_int_equal(stats().streams, 0);
	client = program();
	finish();
}

static void gone__as_a_program_says(void **state)
{
	begin();
	tell(client, CHANNEL_CLOSED, c.cookie);
	turn();
	drop(&c);
	drop(&s);
	pass(2 * SD_MS);
	assert_int_equal(stats().streams, 0);
	/* Said too early. */
	c = connect_to(client, lo, to);
	s = accept_from(&q);
	tell(client, CHANNEL_CLOSED, s.cookie);
	pass(5 * SD_MS);
	drop(&c);
	drop(&s);
	assert_int_equal(stats().streams, 1);
	pass(200 * SD_MS);
	pass(200 * SD_MS);
	assert_int_equal(stats().streams, 0);
	finish();
}

/* The next connection has the name of one that is gone. */
static void gone__as_the_next_one_shows(void **state)
{
	begin();
	drop(&c);
	drop(&s);
	tell(client, CHANNEL_CLOSED, c.cookie);
	c = connect_to(client, lo, to);
	s = accept_from(&q);
	assert_int_equal(stats().streams, 1);
	notice();
	notice();
	assert_int_equal(stats().streams, 1);
	can_be_adopted(&c);
	can_be_adopted(&s);
	drop(&c);
	drop(&s);
	finish();
}

/* Whoever gives a socket of its own the name keeps nothing. */
static void gone__with_its_name_in_use(void **state)
{
	struct sockaddr_un a;
	socklen_t len = sizeof a;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	begin();
	assert_int_equal(getsockname(c.end, (struct sockaddr *)&a, &len), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, len), -1);
	tell(client, CHANNEL_CLOSED, c.cookie);
	drop(&c);
	drop(&s);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, len), 0);
	assert_true(channel_is_end(fd));
	refused(adopt(fd), ENOENT, SD_REASON_INHERITED);
	notice();
	assert_int_equal(stats().streams, 0);
	close(fd);
	finish();
}

/* --- alive --- */

static void stays(void)
{
	tell(client, CHANNEL_CLOSED, c.cookie);
	for (unsigned i = 0; i < 4; i++)
		pass(10 * SD_S);
	assert_int_equal(stats().streams, 1);
}

static void alive__in_a_forked_child(void **state)
{
	pid_t child;

	begin();
	child = fork();
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(s.end);
		pause();
		_exit(0);
	}
	drop(&c);
	drop(&s);
	stays();
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	notice();
	assert_int_equal(stats().streams, 0);
	finish();
}

static void alive__while_it_is_passed(void **state)
{
	struct iovec iov = {&(char){0}, 1};
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct msghdr h = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof control};
	int pair[2];

	begin();
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(sd_fd_send(pair[0], "", 1, &s.end, 1), 1);
	close(s.end);
	close(c.end);
	stays();
	assert_int_equal(recvmsg(pair[1], &h, MSG_CMSG_CLOEXEC), 1);
	memcpy(&s.end, CMSG_DATA(CMSG_FIRSTHDR(&h)), sizeof s.end);
	stays();
	can_be_adopted(&s);
	close(pair[0]);
	close(pair[1]);
	close(c.memory);
	drop(&s);
	finish();
}

/* The kernel's list comes in many pieces, and the broker takes one at a time. */
static void alive__among_many_sockets(void **state)
{
	enum { N = 3000 };
	static int pairs[N][2];
	struct rlimit before, more;
	unsigned turns = 0;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	more = before;
	more.rlim_cur = before.rlim_max;
	if (more.rlim_cur < 2 * N + 100)
		skip();
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &more), 0);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pairs[i]), 0);
	begin();
	stays();
	drop(&c);
	now += 10 * SD_S;
	while (broker_progress(b, now))
		turns++;
	assert_true(turns > 4);
	stays();
	drop(&s);
	for (unsigned i = 0; i < 4; i++)
		pass(10 * SD_S);
	assert_int_equal(stats().streams, 0);
	for (unsigned i = 0; i < N; i++) {
		close(pairs[i][0]);
		close(pairs[i][1]);
	}
	finish();
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

/* --- what programs say --- */

static void closed__flood(void **state)
{
	uint64_t start = sd_clock_ns();

	begin();
	for (unsigned i = 0; i < 20000; i++) {
		tell(client, CHANNEL_CLOSED, i % 4 ? (i & 1 ? c.cookie : s.cookie) : i);
		if (i % 50)
			continue;
		now += SD_MS;
		turn();
	}
	turn();
	assert_true(sd_clock_ns() - start < 5 * SD_S);
	assert_false(is_hung_up(c.end) || is_hung_up(s.end));
	can_be_adopted(&c);
	can_be_adopted(&s);
	assert_int_equal(stats().bad_messages, 0);
	drop(&c);
	drop(&s);
	finish();
}

static void closed__by_somebody_else(void **state)
{
	int x = program();

	begin();
	tell(x, CHANNEL_CLOSED, c.cookie);
	tell(x, CHANNEL_CLOSED, s.cookie);
	notice();
	assert_int_equal(stats().streams, 1);
	can_be_adopted(&c);
	can_be_adopted(&s);
	/* By a queue nothing is said of that. */
	tell(q.fd, CHANNEL_CLOSED, c.cookie);
	turn();
	close(x);
	drop(&c);
	drop(&s);
	finish();
}

/* The broker has the end, too, until it hears that it was accepted. */
static bool is_kept(struct half *mine, const struct half *other)
{
	close(mine->end);
	mine->end = -1;
	return !is_hung_up(other->end);
}

static void accepted__lost(void **state)
{
	struct half again;

	listen_only();
	c = connect_to(client, lo, to);
	s = take(&q);
	pass(1100 * SD_MS);
	again = take(&q);
	assert_true(again.cookie == s.cookie);
	drop(&again);
	tell(q.fd, CHANNEL_ACCEPTED, again.cookie);
	turn();
	pass(100 * SD_S);
	hears_nothing(q.fd);
	assert_false(is_hung_up(c.end));
	assert_false(is_kept(&s, &c));
	drop(&c);
	close(s.memory);
	finish();
}

static void accepted__what_is_not_theirs(void **state)
{
	struct sd_addr elsewhere;
	struct half other;
	struct queue r;
	int two;

	listen_only();
	two = listening(lo);
	elsewhere = at(lo, port_of(two));
	r = listen_at(client, two, lo, 5);
	c = connect_to(client, lo, to);
	s = take(&q);
	other = connect_to(client, lo, elsewhere);
	tell(r.fd, CHANNEL_ACCEPTED, s.cookie);
	tell(q.fd, CHANNEL_ACCEPTED, c.cookie);
	tell(q.fd, CHANNEL_ACCEPTED, 0);
	tell(q.fd, CHANNEL_ACCEPTED, other.cookie);
	turn();
	/* It is not said by the channel, either. */
	assert_true(is_kept(&s, &c));
	close(s.memory);
	drop(&other);
	drop(&c);
	leave(&r);
	close(two);
	finish();
}

/* A program that accepts what it has and ends at once. */
static void accepted__and_left(void **state)
{
	enum { N = 20 };
	struct half cs[N], ss[N];

	listen_only();
	for (unsigned i = 0; i < N; i++)
		cs[i] = connect_to(client, lo, to);
	for (unsigned i = 0; i < N; i++) {
		ss[i] = take(&q);
		tell(q.fd, CHANNEL_ACCEPTED, ss[i].cookie);
	}
	leave(&q);
	close(listener);
	turn();
	assert_int_equal(stats().listeners, 0);
	assert_int_equal(stats().offered_again, 0);
	assert_int_equal(stats().streams, N);
	for (unsigned i = 0; i < N; i++) {
		assert_false(is_hung_up(cs[i].end));
		drop(&cs[i]);
		drop(&ss[i]);
	}
	close(client);
	close(server);
	nothing_left();
}

/* A program that takes a connection, does not say so and listens no more: it has it, so it pays for it. */
static void accepted__without_a_word(void **state)
{
	listen_only();
	c = connect_to(client, lo, to);
	s = take(&q);
	leave(&q);
	close(listener);
	turn();
	drop(&c);
	notice();
	assert_int_equal(stats().streams, 1);
	drop(&s);
	close(client);
	close(server);
	nothing_left();
}

/* What a program has said by the queue is heard before there is no room in it. */
static void accepted__makes_room_at_once(void **state)
{
	struct channel_message m = {.type = CHANNEL_CONNECT, .id = 1, .n_fds = 1};
	struct half waits, more;
	int fd = bound(lo);

	listen_only();
	leave(&q);
	q = listen_at(server, listener, lo, 1);
	c = connect_to(client, lo, to);
	waits = connect_to(client, lo, to);
	refused(try_connect(client, lo, to), ECONNREFUSED, SD_REASON_PEER_REFUSED);
	s = take(&q);
	turn();
	m.connect = (struct channel_connect){at(lo, port_of(fd)), to};
	m.fds[0] = fd;
	/* The channel has something to say first. */
	assert_int_equal(channel_send(client, &m), 0);
	tell(q.fd, CHANNEL_ACCEPTED, s.cookie);
	turn();
	m = hear(client);
	assert_int_equal(m.type, CHANNEL_CONNECTED);
	channel_close_fds(&m);
	for (unsigned i = 0; i < 2; i++) {
		more = accept_from(&q);
		drop(&more);
	}
	close(fd);
	drop(&waits);
	drop(&c);
	drop(&s);
	finish();
}

/* --- limits --- */

static void limit__is_of_what_is_there(void **state)
{
	enum { N = 50 };
	struct half cs[N], ss[N];

	broker_close(b);
	open_broker(2 * N + 2 + 1); /* and two programs, and a lease */
	listen_only();
	for (unsigned round = 0; round < 5; round++) {
		for (unsigned i = 0; i < N; i++) {
			cs[i] = connect_to(client, lo, to);
			ss[i] = accept_from(&q);
		}
		refused(try_connect(client, lo, to), ECONNREFUSED, SD_REASON_LIMIT_USER);
		for (unsigned i = 0; i < N; i++) {
			drop(&cs[i]);
			drop(&ss[i]);
		}
		/* Nobody says anything. It does not look all the time: that was a moment ago. */
		pass(500 * SD_MS);
	}
	finish();
}

/* --- kernels that list no UNIX sockets --- */

static void no_list__names_tell(void **state)
{
	no_netlink = true;
	reopen_broker(0);
	gone__without_a_word(state);
	gone__one_of_them(state);
	gone__as_a_program_says(state);
	alive__in_a_forked_child(state);
	closed__flood(state);
	no_netlink = false;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(pair__hangs_up_when_the_other_half_is_closed),
		CASE(pair__outlives_the_broker),
		CASE(gone__without_a_word),
		CASE(gone__one_of_them),
		CASE(gone__with_the_program),
		CASE(gone__as_a_program_says),
		CASE(gone__as_the_next_one_shows),
		CASE(gone__with_its_name_in_use),
		CASE(alive__in_a_forked_child),
		CASE(alive__while_it_is_passed),
		CASE(alive__among_many_sockets),
		CASE(closed__flood),
		CASE(closed__by_somebody_else),
		CASE(accepted__lost),
		CASE(accepted__what_is_not_theirs),
		CASE(accepted__and_left),
		CASE(accepted__without_a_word),
		CASE(accepted__makes_room_at_once),
		CASE(limit__is_of_what_is_there),
		CASE(no_list__names_tell),
	};

	alarm(100); /* a hang is a failure too */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
