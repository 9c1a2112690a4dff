/* SPDX-License-Identifier: BSD-3-Clause */
/* The daemon's broker and those who want too much of it, or to make it wait. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/provider/broker_rig.h"
#include "tests/provider/fds.h"

#define ALICE 4001
#define BOB   4002

/* --- limits --- */

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
	notice();
	c[0] = connect_to(p, lo, at(lo, port_of(socket)));
	s = accept_from(&q);
	drop(&s);
	for (unsigned i = 0; i < 3; i++)
		drop(&c[i]);
	/* BOB has room for two of the three that are left to it. */
	notice();
	assert_int_equal(stats().streams, 2);
	all_leave(&q, socket, p, z);
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
	notice();
	q = listen_at(z, socket, lo, 1000);
	c[0] = connect_to(p, lo, at(lo, port_of(socket)));
	assert_int_equal(memory_of(&c[0]), first);
	drop(&c[0]);
	all_leave(&q, socket, p, z);
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

/* It goes on over kernel TCP, with all that it had set. */
static void waste__leaves_the_program_its_options(void **state)
{
	const struct linger wanted[] = {{1, 0}, {1, 5}};
	int p = program();

	for (unsigned i = 0; i < 2; i++) {
		struct linger found = {0};
		socklen_t len = sizeof found;
		int fd = bound(lo);
		struct channel_message m = {.type = CHANNEL_CONNECT,
			.connect = {.local = at(lo, port_of(fd)), .peer = at(lo, 1)},
			.n_fds = 1,
			.fds = {fd}};

		setsockopt(fd, SOL_SOCKET, SO_LINGER, &wanted[i], sizeof wanted[i]);
		refused(ask(p, m), ECONNREFUSED, -1);
		assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_LINGER, &found, &len), 0);
		assert_memory_equal(&found, &wanted[i], sizeof found);
		close(fd);
	}
	close(p);
	nothing_left();
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

	/* They can be told to take descriptors. */
	setsockopt(c.end, SOL_SOCKET, 83 /* SO_PASSRIGHTS */, &on, sizeof on);
	setsockopt(s.end, SOL_SOCKET, 83, &on, sizeof on);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(limit__of_a_user),
		CASE(limit__of_memory),
		CASE(limit__of_descriptors),
		CASE(limit__of_answers_not_read),
		CASE(waste__lingering_sockets),
		CASE(waste__leaves_the_program_its_options),
		CASE(waste__files_by_the_dozen),
		CASE(waste__circles),
		CASE(waste__file_that_is_slow_to_close),
	};

	alarm(100); /* a hang is a failure too */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
