/* SPDX-License-Identifier: BSD-3-Clause */
/* libFuzzer target: programs that do and pass anything to one broker. It never waits, and when all are gone
 * nothing is left of them. The input is a list of steps, each with what it needs. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "provider/broker.h"
#include "provider/channel.h"
#include "tests/fuzz.h"
#include "tests/provider/fds.h"

#define N_PROGRAMS  4
#define N_HELD	    24
#define N_LISTENERS 5
#define LINGER_S    60
#define PATIENCE_NS (10 * SD_S) /* the machine may be busy */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct broker *b;
static struct sockaddr_un door = {.sun_family = AF_UNIX};
static uint64_t now = 1000 * SD_S;
static unsigned n_open;

static const uint8_t *input, *input_end;
static uint64_t cookie; /* of an end */
static int programs[N_PROGRAMS], held[N_HELD], listeners[N_LISTENERS];
static struct sd_addr names[N_LISTENERS] = {{.family = 4, .ip = {127, 0, 0, 1}}, {.family = 4}, {.family = 6},
	{.family = 6, .ip = {[15] = 1}}, {.family = 4, .ip = {127, 0, 0, 1}}};

static unsigned any(unsigned below)
{
	return (input < input_end ? *input++ : 0) % below;
}

/* --- sockets --- */

static uint16_t port_of(int fd)
{
	struct sockaddr_in6 a;
	socklen_t len = sizeof a;

	getsockname(fd, (struct sockaddr *)&a, &len);
	return ntohs(a.sin6_port);
}

static int bound(const struct sd_addr *a)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(a->port)};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(a->port)};
	int fd = socket(a->family == 4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	memcpy(&v4.sin_addr, a->ip, 4);
	memcpy(&v6.sin6_addr, a->ip, 16);
	setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
	fail_if(a->family == 4 ? bind(fd, (struct sockaddr *)&v4, sizeof v4)
			       : bind(fd, (struct sockaddr *)&v6, sizeof v6));
	return fd;
}

/* The kernel may not answer at once, and the broker's timer goes on after it has been asked to progress: a
 * connect that a signal interrupts is under way all the same. */
static void connect_to(int fd, const struct sockaddr_in *a)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	int error = 0, n;
	socklen_t len = sizeof error;

	if (!connect(fd, (const struct sockaddr *)a, sizeof *a))
		return;
	fail_if(errno != EINTR);
	do
		n = poll(&p, 1, -1);
	while (n < 0 && errno == EINTR);
	fail_if(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) || error);
}

/* Connected to one of the listeners, full, and its last close would take a minute. */
static int lingering(int *other)
{
	static const char waste[1 << 16];
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(names[0].port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), small = 4096;
	struct linger l = {1, LINGER_S};

	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	connect_to(fd, &a);
	*other = accept4(listeners[0], NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (*other < 0)
		*other = accept4(listeners[4], NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	while (send(fd, waste, sizeof waste, MSG_DONTWAIT) > 0)
		;
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
	return fd;
}

static void hold(int fd)
{
	int *place = &held[any(N_HELD)];

	if (*place >= 0)
		close(*place);
	*place = fd;
}

static int new_file(void)
{
	int pair[2] = {-1, -1};

	switch (any(5)) {
	case 0:
		fail_if(pipe2(pair, O_CLOEXEC));
		close(pair[1]);
		return pair[0];
	case 1:
		return memfd_create("x", MFD_CLOEXEC);
	case 2:
		return socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	case 3:
		return bound(&names[any(2) * 3]);
	}
	fail_if(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	close(pair[1]);
	return pair[0];
}

static int any_fd(void)
{
	unsigned n = any(N_HELD + N_LISTENERS + N_PROGRAMS);

	if (n < N_HELD)
		return held[n];
	n -= N_HELD;
	return n < N_LISTENERS ? listeners[n] : programs[n - N_LISTENERS];
}

/* --- what programs send --- */

/* What an end has been sent waits for who accepts it, and may be what keeps the queue that it waits in: of
 * such circles, which cost only their maker, the broker knows nothing. */
static bool is_an_end(int fd)
{
	int type = 0;
	socklen_t len = sizeof type;

	getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len);
	return type == SOCK_STREAM;
}

static void send_anything(int to)
{
	size_t len = any(80);
	unsigned n = 0, wanted = is_an_end(to) ? 0 : any(9);
	int fds[8];

	while (n < wanted && n < 8) {
		int fd = any_fd();

		if (fd < 0)
			break;
		fds[n++] = fd;
	}
	if (len > (size_t)(input_end - input))
		len = (size_t)(input_end - input);
	sd_fd_send(to, input, len, fds, n);
	input += len;
}

static void send_message(int to, uint16_t type)
{
	unsigned i = any(N_LISTENERS);
	struct channel_message m = {.type = type, .id = any(256), .n_fds = 1};
	int own = -1;

	if (type == CHANNEL_LISTEN) {
		m.listen = (struct channel_listen){.local = names[i], .backlog = any(5)};
		m.fds[0] = any(8) ? listeners[i] : any_fd();
	} else if (type == CHANNEL_CONNECT) {
		own = bound(&(struct sd_addr){.family = names[i].family, .ip = {0}});
		if (any(8))
			m.connect.local = names[names[i].family == 4 ? 0 : 3];
		else
			m.connect.local = (struct sd_addr){.family = 4, .ip = {any(256), 0, 0, any(256)}};
		m.connect.local.port = port_of(own);
		m.connect.peer = names[names[i].family == 4 ? 0 : 3];
		m.connect.peer.port = names[i].port;
		m.fds[0] = own;
	} else if (type == CHANNEL_ADOPT) {
		m.fds[0] = any_fd();
	} else if (type == CHANNEL_BACKLOG) {
		m = (struct channel_message){.type = CHANNEL_BACKLOG, .backlog = {any(256)}};
	} else {
		m = (struct channel_message){.type = type, .end = {cookie + any(2)}};
	}
	if (!m.n_fds || m.fds[0] >= 0)
		channel_send(to, &m);
	if (own >= 0)
		close(own);
}

/* The broker gets the last reference, beside a message or on its way in a socket beside one. */
static void send_lingering(int to)
{
	struct channel_message m = {.type = CHANNEL_ADOPT, .n_fds = 1};
	int other, fd = lingering(&other), pair[2] = {-1, -1};
	bool sent;

	m.fds[0] = fd;
	if (any(2)) {
		fail_if(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
		sd_fd_send(pair[0], "x", 1, &fd, 1);
		m.fds[0] = pair[1];
	}
	sent = !channel_send(to, &m);
	if (!sent)
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){0}, sizeof(struct linger));
	close(fd);
	if (pair[0] >= 0) {
		close(pair[0]);
		close(pair[1]);
	}
	hold(other);
}

static void read_messages(int fd)
{
	struct channel_message m;
	bool accepts = any(2), keeps = any(4);

	while (!channel_recv(fd, &m)) {
		if (m.type >= CHANNEL_CONNECTED && m.n_fds)
			cookie = m.stream.cookie;
		if (accepts && m.type == CHANNEL_INCOMING)
			send_message(fd, CHANNEL_ACCEPTED);
		for (unsigned i = 0; i < m.n_fds; i++)
			if (keeps)
				hold(m.fds[i]);
			else
				close(m.fds[i]);
	}
}

/* --- steps --- */

static void progress(void)
{
	uint64_t start = sd_clock_ns();

	for (unsigned i = 0; broker_progress(b, now); i++)
		fail_if(i > 100000);
	fail_if(sd_clock_ns() - start > PATIENCE_NS);
}

static void call(int *p)
{
	struct channel_message m = {.type = CHANNEL_HELLO, .hello = {.version = CHANNEL_VERSION}};

	*p = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (connect(*p, (struct sockaddr *)&door, sizeof door)) {
		close(*p);
		*p = -1;
	} else if (any(16)) {
		channel_send(*p, &m);
	}
}

static void close_it(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void step(void)
{
	unsigned what = any(20);
	int *p = &programs[any(N_PROGRAMS)], *h = &held[any(N_HELD)];

	if (*p < 0)
		call(p);
	switch (what) {
	case 0:
	case 1:
		send_message(*p, CHANNEL_CONNECT);
		break;
	case 2:
		send_message(*p, CHANNEL_LISTEN);
		break;
	case 3:
		send_message(*p, CHANNEL_ADOPT);
		break;
	case 4:
		send_message(any(2) ? *p : *h, CHANNEL_BACKLOG);
		break;
	case 5:
		send_anything(*p);
		break;
	case 6:
		send_anything(*h);
		break;
	case 7:
		if (!any(8))
			send_lingering(any(2) ? *p : *h);
		break;
	case 8:
		hold(new_file());
		break;
	case 9:
		close_it(p);
		break;
	case 10:
		close_it(h);
		break;
	case 11:
		shutdown(any(4) ? *h : *p, (int)any(3));
		break;
	case 12:
		now += SD_MS << any(18);
		break;
	case 13:
	case 14:
		read_messages(*p);
		break;
	case 15:
		read_messages(*h);
		break;
	case 16:
		send_message(*p, CHANNEL_CLOSED);
		break;
	case 17:
		send_message(any(2) ? *p : *h, CHANNEL_ACCEPTED);
		break;
	default:
		progress();
		break;
	}
}

static void begin(void)
{
	struct broker_config cfg = {.size = sizeof cfg, .max_connections = 60};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), off = 0;

	snprintf(door.sun_path, sizeof door.sun_path, "/tmp/sandirect-fuzz-broker-%d", getpid());
	unlink(door.sun_path);
	fail_if(bind(fd, (struct sockaddr *)&door, sizeof door) || listen(fd, 64));
	fail_if(broker_open(&cfg, fd, &b));
	memset(programs, 0xff, sizeof programs);
	memset(held, 0xff, sizeof held);
	for (unsigned i = 0; i < N_LISTENERS; i++) {
		if (i == 4)
			names[i].port = names[0].port;
		listeners[i] = bound(&names[i]);
		setsockopt(listeners[i], IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
		fcntl(listeners[i], F_SETFL, O_NONBLOCK);
		fail_if(listen(listeners[i], 128));
		names[i].port = port_of(listeners[i]);
	}
	progress();
}

static void nothing_left(void)
{
	struct broker_stats s;

	progress();
	/* What is forgotten by time, and what is closed in a thread. */
	for (unsigned i = 0; i < 2000 && fds_open() != n_open; i++) {
		usleep(1000);
		now += SD_S;
		progress();
	}
	broker_stats(b, &s);
	if (s.clients || s.listeners || s.streams || fds_open() != n_open)
		fprintf(stderr, "left: %lu programs, %lu listeners, %lu connections, %d descriptors\n",
			s.clients, s.listeners, s.streams, (int)(fds_open() - n_open));
	fail_if(s.clients || s.listeners || s.streams);
	fail_if(fds_open() != n_open);
	fail_if(broker_deadline(b) != UINT64_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (!b)
		begin();
	n_open = fds_open();
	input = data;
	input_end = data + (len < 2000 ? len : 2000);
	while (input < input_end)
		step();
	for (unsigned i = 0; i < N_PROGRAMS; i++)
		close_it(&programs[i]);
	for (unsigned i = 0; i < N_HELD; i++)
		close_it(&held[i]);
	nothing_left();
	return 0;
}
