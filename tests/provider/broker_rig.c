/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/provider/broker_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/provider/fds.h"

struct broker *b;
uint64_t now, max_memory;
unsigned n_open;
static struct sockaddr_un door = {.sun_family = AF_UNIX};
static uint32_t next_id;

/* --- the broker --- */

void turn(void)
{
	for (unsigned i = 0; broker_progress(b, now); i++)
		assert_true(i < 10000); /* it would never sleep */
}

void pass(uint64_t ns)
{
	now += ns;
	turn();
}

void notice(void)
{
	broker_end_closed(b);
	/* It rests between two looks. */
	for (unsigned i = 0; i < 3; i++)
		pass(100 * SD_MS);
}

struct broker_stats stats(void)
{
	struct broker_stats s;

	broker_stats(b, &s);
	return s;
}

void open_broker(uint32_t max_connections)
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

void reopen_broker(uint32_t max_connections)
{
	broker_close(b);
	open_broker(max_connections);
}

int rig_setup(void **state)
{
	now = 1000 * SD_S;
	max_memory = 0;
	open_broker(0);
	return 0;
}

/* Whatever is closed in a thread takes a moment, and the kernel does not find circles at once. */
static bool is_as_before(void)
{
	for (unsigned i = 0; i < 200 && (fds_open() != n_open || stats().streams); i++) {
		usleep(5000);
		notice();
	}
	return fds_open() == n_open;
}

void nothing_left(void)
{
	notice();
	assert_true(is_as_before());
	assert_int_equal(stats().clients, 0);
	assert_int_equal(stats().listeners, 0);
	assert_int_equal(stats().streams, 0);
	assert_true(broker_deadline(b) == UINT64_MAX);
}

int rig_teardown(void **state)
{
	broker_close(b);
	unlink(door.sun_path);
	return 0;
}

/* --- programs --- */

void be(uid_t uid)
{
	if (seteuid(0) || (uid && seteuid(uid)))
		fail();
}

bool is_root(void)
{
	return getuid() == 0;
}

int call(void)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&door, sizeof door), 0);
	return fd;
}

struct channel_message hear(int fd)
{
	struct channel_message m;

	assert_int_equal(channel_recv(fd, &m), 0);
	return m;
}

void hears_nothing(int fd)
{
	struct channel_message m;

	assert_int_equal(channel_recv(fd, &m), -EAGAIN);
}

bool is_hung_up(int fd)
{
	struct pollfd p = {.fd = fd};

	return poll(&p, 1, 0) == 1 && p.revents & POLLHUP;
}

struct channel_message ask(int fd, struct channel_message m)
{
	struct channel_message a;

	m.id = ++next_id;
	assert_int_equal(channel_send(fd, &m), 0);
	turn();
	a = hear(fd);
	assert_int_equal(a.id, m.id);
	return a;
}

int program(void)
{
	int fd = call();
	struct channel_message a = ask(fd, (struct channel_message){.type = CHANNEL_HELLO,
						   .hello = {.version = CHANNEL_VERSION, .program = "test"}});

	assert_int_equal(a.type, CHANNEL_WELCOME);
	assert_int_equal(a.welcome.version, CHANNEL_VERSION);
	return fd;
}

void refused(struct channel_message a, int error, int reason)
{
	assert_int_equal(a.type, CHANNEL_REFUSED);
	assert_int_equal(a.refused.error, error);
	if (reason >= 0)
		assert_int_equal(a.refused.reason, reason);
}

/* --- sockets --- */

const struct sd_addr lo = {.family = 4, .ip = {127, 0, 0, 1}}, any4 = {.family = 4},
		     lo6 = {.family = 6, .ip = {[15] = 1}}, any6 = {.family = 6};

struct sd_addr at(struct sd_addr a, uint16_t port)
{
	a.port = port;
	return a;
}

uint16_t port_of(int fd)
{
	struct sockaddr_in6 a;
	socklen_t len = sizeof a;

	getsockname(fd, (struct sockaddr *)&a, &len);
	return ntohs(a.sin6_port); /* at the same place in both */
}

int bind_to(int fd, const struct sd_addr *a)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(a->port)};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(a->port)};

	memcpy(&v4.sin_addr, a->ip, 4);
	memcpy(&v6.sin6_addr, a->ip, 16);
	return a->family == 4 ? bind(fd, (struct sockaddr *)&v4, sizeof v4)
			      : bind(fd, (struct sockaddr *)&v6, sizeof v6);
}

int new_socket(const struct sd_addr *a)
{
	return socket(a->family == 4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

void set(int fd, int level, int name, int value)
{
	assert_int_equal(setsockopt(fd, level, name, &value, sizeof value), 0);
}

int bound(struct sd_addr a)
{
	int fd = new_socket(&a);

	assert_int_equal(bind_to(fd, &a), 0);
	return fd;
}

int listening(struct sd_addr a)
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

struct channel_message try_listen(int p, int socket, struct sd_addr a, uint32_t backlog)
{
	return ask(p, (struct channel_message){.type = CHANNEL_LISTEN,
			      .listen = {.local = at(a, port_of(socket)), .backlog = backlog},
			      .n_fds = 1,
			      .fds = {socket}});
}

struct queue listen_at(int p, int socket, struct sd_addr a, uint32_t backlog)
{
	struct channel_message m = try_listen(p, socket, a, backlog);

	assert_int_equal(m.type, CHANNEL_LISTENING);
	return (struct queue){m.fds[0], m.fds[1]};
}

void leave(struct queue *q)
{
	close(q->fd);
	close(q->lease);
}

void all_leave(struct queue *q, int socket, int client, int server)
{
	leave(q);
	close(socket);
	close(client);
	close(server);
}

struct half half_of(const struct channel_message *m)
{
	return (struct half){m->fds[0], m->fds[1], m->stream.cookie, m->stream.local, m->stream.peer};
}

void drop(struct half *h)
{
	close(h->end);
	close(h->memory);
}

struct channel_message try_connect(int p, struct sd_addr from, struct sd_addr to)
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

struct half connect_to(int p, struct sd_addr from, struct sd_addr to)
{
	struct channel_message m = try_connect(p, from, to);

	assert_int_equal(m.type, CHANNEL_CONNECTED);
	assert_int_equal(m.stream.end, 0);
	return half_of(&m);
}

struct half take(struct queue *q)
{
	struct channel_message m = hear(q->fd);

	assert_int_equal(m.type, CHANNEL_INCOMING);
	assert_int_equal(m.stream.end, 1);
	return half_of(&m);
}

void tell(int fd, enum channel_type type, uint64_t cookie)
{
	const struct channel_message m = {.type = type, .end = {cookie}};

	assert_int_equal(channel_send(fd, &m), 0);
}

struct half accept_from(struct queue *q)
{
	struct half h = take(q);

	tell(q->fd, CHANNEL_ACCEPTED, h.cookie);
	turn();
	return h;
}

ino_t inode(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_ino;
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

int restore(const struct sd_pack *p, size_t len, int listening, uint32_t max_connections, struct broker **out)
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

void hand_over(uint32_t max_connections)
{
	struct sd_pack p = {0};
	struct broker *old = b;

	broker_save(b, &p);
	assert_false(p.failed);
	assert_int_equal(restore(&p, p.len, broker_door(old), max_connections, &b), 0);
	broker_close(old);
	sd_pack_free(&p);
}
