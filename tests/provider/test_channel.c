/* SPDX-License-Identifier: BSD-3-Clause */
/* Messages with descriptors, both sides: what is right arrives as it was, what is wrong leaves nothing. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/rng.h"
#include "provider/channel.h"
#include "tests/provider/fds.h"

#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76
#endif

#define MANY	 253	 /* the kernel's SCM_MAX_FD */
#define RAW_MAX	 100000u /* bytes of a packet that a test makes */
#define HEADER	 8u
#define BAD_NAME "0123456789012345678901234567890" /* and its terminator: all of the field */

static const struct {
	unsigned body, fds; /* as the header tells it */
} shapes[CHANNEL_TYPE_END] = {[CHANNEL_HELLO] = {36, 0},
	[CHANNEL_WELCOME] = {12, 0},
	[CHANNEL_CONNECT] = {48, 1},
	[CHANNEL_CONNECTED] = {58, 2},
	[CHANNEL_LISTEN] = {28, 1},
	[CHANNEL_LISTENING] = {0, 2},
	[CHANNEL_ADOPT] = {0, 1},
	[CHANNEL_ADOPTED] = {58, 1},
	[CHANNEL_REFUSED] = {8, 0},
	[CHANNEL_INCOMING] = {58, 2},
	[CHANNEL_BACKLOG] = {4, 0},
	[CHANNEL_ACCEPTED] = {8, 0},
	[CHANNEL_CLOSED] = {8, 0}};

static const struct sd_addr v4 = {.family = 4, .port = 4711, .ip = {10, 77, 0, 1}};
static const struct sd_addr v6 = {.family = 6, .port = 4712, .scope = 3, .ip = {0xfe, 0x80, [15] = 2}};

static int near, far, files[CHANNEL_FDS]; /* a channel's two ends; what is passed */
static unsigned n_open;			  /* descriptors with these */

static void no_leak(void)
{
	assert_int_equal(fds_open(), n_open);
}

static int setup(void **state)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return -1;
	near = pair[0];
	far = pair[1];
	for (unsigned i = 0; i < CHANNEL_FDS; i++)
		files[i] = memfd_create("file", MFD_CLOEXEC);
	n_open = fds_open();
	return 0;
}

static int teardown(void **state)
{
	close(near);
	close(far);
	for (unsigned i = 0; i < CHANNEL_FDS; i++)
		close(files[i]);
	return 0;
}

/* A right message of a type. */
static struct channel_message sample(unsigned type)
{
	struct channel_message m = {.type = (uint16_t)type, .id = 0x1234567};

	m.n_fds = shapes[type].fds;
	memcpy(m.fds, files, sizeof files);
	switch (type) {
	case CHANNEL_HELLO:
		m.hello = (struct channel_hello){.version = CHANNEL_VERSION, .program = "redis-server"};
		break;
	case CHANNEL_WELCOME:
		m.welcome = (struct channel_welcome){
			.version = CHANNEL_VERSION, .max_connections = 1000, .patience_ms = 1500};
		break;
	case CHANNEL_CONNECT:
		m.connect = (struct channel_connect){.local = v6, .peer = v6};
		break;
	case CHANNEL_LISTEN:
		m.listen = (struct channel_listen){.local = {.family = 4, .port = 80}, .backlog = 511};
		break;
	case CHANNEL_CONNECTED:
	case CHANNEL_ADOPTED:
	case CHANNEL_INCOMING:
		m.stream = (struct channel_stream){
			.cookie = 4713, .local = v4, .peer = v4, .path = CHANNEL_PATH_NET, .end = 1};
		m.stream.peer.ip[3] = 2;
		break;
	case CHANNEL_BACKLOG:
		m.backlog.backlog = 64;
		break;
	case CHANNEL_ACCEPTED:
	case CHANNEL_CLOSED:
		m.end.cookie = 0x123456789abcdef;
		break;
	case CHANNEL_REFUSED:
		m.refused =
			(struct channel_refused){.error = ECONNREFUSED, .reason = SD_REASON_PEER_NO_LISTENER};
		break;
	}
	if (type == CHANNEL_INCOMING)
		m.id = 0;
	return m;
}

/* What the header promises of the packets, written once more: how many bytes. */
static size_t pack(const struct channel_message *m, uint8_t *out)
{
	uint16_t head[2] = {m->type, (uint16_t)shapes[m->type].body};

	memcpy(out, head, sizeof head);
	memcpy(out + 4, &m->id, 4);
	memcpy(out + HEADER, &m->hello, head[1]);
	return HEADER + head[1];
}

/* n descriptors, in turn the three files, in control messages of at most `each`. 0 or -errno. */
static int raw_send(const void *data, size_t len, unsigned n, unsigned each)
{
	union {
		char bytes[MANY * CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {{0}};
	struct iovec iov = {.iov_base = (void *)data, .iov_len = len};
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
	size_t used = 0;

	for (unsigned i = 0; i < n;) {
		struct cmsghdr *c = (struct cmsghdr *)(control.bytes + used);
		unsigned k = n - i < each ? n - i : each;

		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(k * sizeof(int));
		for (unsigned f = 0; f < k; f++, i++)
			memcpy(CMSG_DATA(c) + f * sizeof(int), &files[i % CHANNEL_FDS], sizeof(int));
		used += CMSG_SPACE(k * sizeof(int));
	}
	if (n) {
		h.msg_control = control.bytes;
		h.msg_controllen = used;
	}
	return sendmsg(far, &h, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static void is_empty(const struct channel_message *m)
{
	assert_int_equal(m->type, 0);
	assert_int_equal(m->id, 0);
	assert_int_equal(m->n_fds, 0);
	for (unsigned i = 0; i < CHANNEL_FDS; i++)
		assert_int_equal(m->fds[i], -1);
}

static int receive(struct channel_message *m)
{
	memset(m, 0x5a, sizeof *m);
	return channel_recv(near, m);
}

/* Whatever has been sent is refused, and the next message is taken. */
static void is_refused(void)
{
	struct channel_message m = sample(CHANNEL_WELCOME);

	assert_int_equal(receive(&m), -EPROTO);
	is_empty(&m);
	no_leak();
	m = sample(CHANNEL_WELCOME);
	assert_int_equal(channel_send(far, &m), 0);
	assert_int_equal(receive(&m), 0);
	assert_int_equal(m.type, CHANNEL_WELCOME);
	assert_int_equal(receive(&m), -EAGAIN);
}

static void same_file(int a, int b)
{
	struct stat x, y;

	assert_int_equal(fstat(a, &x), 0);
	assert_int_equal(fstat(b, &y), 0);
	assert_true(x.st_dev == y.st_dev && x.st_ino == y.st_ino);
}

/* m has the descriptors of a right message of its type, and then no longer. */
static void has_files(struct channel_message *m)
{
	assert_int_equal(m->n_fds, shapes[m->type].fds);
	for (unsigned i = 0; i < m->n_fds; i++) {
		same_file(m->fds[i], files[i]);
		assert_true(fcntl(m->fds[i], F_GETFD) & FD_CLOEXEC);
	}
	assert_int_equal(fds_open(), n_open + m->n_fds);
	channel_close_fds(m);
	no_leak();
}

static void round_trip(unsigned type)
{
	struct channel_message m = sample(type), got;
	uint8_t there[HEADER + 64], back[HEADER + 64];
	size_t len = pack(&m, there);

	assert_true(channel_check(&m));
	assert_int_equal(channel_send(far, &m), 0);
	no_leak(); /* the sender keeps its own */
	assert_int_equal(receive(&got), 0);
	assert_true(channel_check(&got));
	assert_int_equal(pack(&got, back), len);
	assert_memory_equal(there, back, len);
	has_files(&got);
}

static void channel__every_type_round_trip(void **state)
{
	for (unsigned type = CHANNEL_HELLO; type < CHANNEL_TYPE_END; type++)
		round_trip(type);
}

static void channel__bounds_that_are_right(void **state)
{
	struct channel_message m = sample(CHANNEL_HELLO);

	strcpy(m.hello.program, BAD_NAME);
	assert_true(channel_check(&m));
	m.hello.version = UINT32_MAX; /* of a later day: it gets the lower one */
	assert_true(channel_check(&m));
	m = sample(CHANNEL_WELCOME);
	m.welcome.version = 0;
	assert_true(channel_check(&m));
	m = sample(CHANNEL_CONNECT);
	m.connect.local = (struct sd_addr){.port = 65535};
	assert_true(channel_check(&m));
	m.connect.local = (struct sd_addr){.family = 6};
	assert_true(channel_check(&m));
	m = sample(CHANNEL_LISTEN);
	m.listen.local.family = 6; /* :: */
	m.listen.backlog = UINT32_MAX;
	assert_true(channel_check(&m));
	m = sample(CHANNEL_REFUSED);
	m.refused = (struct channel_refused){.error = 1, .reason = SD_REASON_COUNT - 1};
	assert_true(channel_check(&m));
}

/* Of the packet: what it is made of, and that nothing else of the sender's memory goes with it. */
static void channel__packets(void **state)
{
	for (unsigned type = CHANNEL_HELLO; type < CHANNEL_TYPE_END; type++) {
		struct channel_message m, s = sample(type);
		uint8_t expected[HEADER + 64], got[HEADER + 64];
		size_t len = pack(&s, expected);

		memset(&m, 0xee, sizeof m);
		m.type = s.type;
		m.id = s.id;
		m.n_fds = s.n_fds;
		memcpy(m.fds, s.fds, sizeof m.fds);
		memcpy(&m.hello, &s.hello, shapes[type].body);
		if (type == CHANNEL_HELLO)
			memset(m.hello.program + sizeof "redis-server", 0xee,
				sizeof m.hello.program - sizeof "redis-server");
		assert_int_equal(channel_send(far, &m), 0);
		assert_int_equal(recv(near, got, sizeof got, MSG_DONTWAIT), len);
		assert_memory_equal(got, expected, len);
	}
}

static void channel__wrong_number_of_descriptors(void **state)
{
	for (unsigned type = CHANNEL_HELLO; type < CHANNEL_TYPE_END; type++) {
		static const unsigned numbers[] = {0, 1, 2, 3, 4, 5, 8, 60, MANY};
		struct channel_message m = sample(type);
		uint8_t raw[HEADER + 64];
		size_t len = pack(&m, raw);

		for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++) {
			if (numbers[i] == shapes[type].fds)
				continue;
			m.n_fds = numbers[i];
			assert_false(channel_check(&m));
			assert_int_equal(channel_send(far, &m), -EINVAL);
			assert_int_equal(raw_send(raw, len, numbers[i], MANY), 0);
			is_refused();
			if (numbers[i] > 60)
				continue;
			assert_int_equal(raw_send(raw, len, numbers[i], 1), 0);
			is_refused();
		}
	}
}

static void channel__descriptors_that_are_none(void **state)
{
	struct channel_message m = sample(CHANNEL_CONNECTED);
	int closed = dup(files[0]);

	m.fds[1] = -1;
	assert_int_equal(channel_send(far, &m), -EINVAL);
	close(closed);
	m.fds[1] = closed;
	assert_int_equal(channel_send(far, &m), -EBADF);
	assert_int_equal(receive(&m), -EAGAIN);
	is_empty(&m);
	no_leak();
}

/* m, which is wrong, is neither sent nor taken. */
static void is_wrong(const struct channel_message *m)
{
	struct channel_message got;
	uint8_t raw[HEADER + 64];
	size_t len = pack(m, raw);

	assert_false(channel_check(m));
	assert_int_equal(channel_send(far, m), -EINVAL);
	assert_int_equal(receive(&got), -EAGAIN);
	assert_int_equal(raw_send(raw, len, m->n_fds, MANY), 0);
	is_refused();
}

#define WRONG(type, statement)                                                                               \
	do {                                                                                                 \
		struct channel_message m = sample(type);                                                     \
                                                                                                             \
		statement;                                                                                   \
		is_wrong(&m);                                                                                \
	} while (0)

static void channel__wrong_names_and_numbers(void **state)
{
	WRONG(CHANNEL_HELLO, memset(m.hello.program, 'x', sizeof m.hello.program));
	WRONG(CHANNEL_HELLO, m.hello.version = 0);
	WRONG(CHANNEL_WELCOME, m.welcome.version = CHANNEL_VERSION + 1);
	WRONG(CHANNEL_WELCOME, m.welcome.version = UINT32_MAX);
	WRONG(CHANNEL_WELCOME, m.welcome.patience_ms = CHANNEL_PATIENCE_MS - 1);
	WRONG(CHANNEL_WELCOME, m.welcome.patience_ms = CHANNEL_PATIENCE_MAX_MS + 1);
	WRONG(CHANNEL_REFUSED, m.refused.error = 0);
	WRONG(CHANNEL_REFUSED, m.refused.error = -ECONNREFUSED);
	WRONG(CHANNEL_REFUSED, m.refused.error = 4096);
	WRONG(CHANNEL_REFUSED, m.refused.reason = -1);
	WRONG(CHANNEL_REFUSED, m.refused.reason = SD_REASON_COUNT);
	WRONG(CHANNEL_REFUSED, m.refused.reason = INT32_MIN);
	WRONG(CHANNEL_INCOMING, m.id = 1);
}

static void channel__wrong_paths_and_ends(void **state)
{
	static const unsigned types[] = {CHANNEL_CONNECTED, CHANNEL_ADOPTED, CHANNEL_INCOMING};

	for (unsigned i = 0; i < sizeof types / sizeof *types; i++) {
		WRONG(types[i], m.stream.path = CHANNEL_PATH_NET + 1);
		WRONG(types[i], m.stream.path = 255);
		WRONG(types[i], m.stream.end = 2);
		WRONG(types[i], m.stream.end = 255);
		WRONG(types[i], m.stream.cookie = 0);
	}
}

static void wrong_addr(unsigned type, size_t at)
{
#define ADDR ((struct sd_addr *)((char *)&m + at))
	static const unsigned families[] = {1, 2, 3, 5, 7, 10, 46, 255};
	static const struct sd_addr mapped = {
		.family = 6, .port = 80, .ip = {[10] = 0xff, [11] = 0xff, [12] = 10, [15] = 1}};

	for (unsigned i = 0; i < sizeof families / sizeof *families; i++)
		WRONG(type, ADDR->family = (uint8_t)families[i]);
	WRONG(type, ADDR->pad = 1);
	WRONG(type, *ADDR = mapped);
	WRONG(type, (*ADDR = v4, ADDR->scope = 1));
	WRONG(type, (*ADDR = v4, ADDR->ip[4] = 1));
	WRONG(type, (*ADDR = v4, ADDR->ip[15] = 1));
}

static void wrong_name(unsigned type, size_t at)
{
	wrong_addr(type, at);
	WRONG(type, ADDR->family = 0);
	WRONG(type, memset(ADDR, 0, sizeof *ADDR));
	WRONG(type, ADDR->port = 0);
#undef ADDR
}

static void channel__wrong_addresses(void **state)
{
	static const unsigned streams[] = {CHANNEL_CONNECTED, CHANNEL_ADOPTED, CHANNEL_INCOMING};

	wrong_addr(CHANNEL_CONNECT, offsetof(struct channel_message, connect.local));
	wrong_name(CHANNEL_CONNECT, offsetof(struct channel_message, connect.peer));
	wrong_name(CHANNEL_LISTEN, offsetof(struct channel_message, listen.local));
	WRONG(CHANNEL_CONNECT, m.connect.local = v4);
	WRONG(CHANNEL_CONNECT, m.connect.local.family = 0); /* with an IP */
	WRONG(CHANNEL_CONNECT, (m.connect.local = (struct sd_addr){.scope = 1}));
	for (unsigned i = 0; i < sizeof streams / sizeof *streams; i++) {
		wrong_name(streams[i], offsetof(struct channel_message, stream.local));
		wrong_name(streams[i], offsetof(struct channel_message, stream.peer));
		WRONG(streams[i], m.stream.local = v6);
		WRONG(streams[i], m.stream.peer = v6);
	}
}

static void channel__unknown_types(void **state)
{
	static const unsigned types[] = {0, CHANNEL_TYPE_END, CHANNEL_TYPE_END + 1, 256, 32768, 65535};

	for (unsigned i = 0; i < sizeof types / sizeof *types; i++) {
		struct channel_message m = sample(CHANNEL_CONNECTED);
		uint16_t type = (uint16_t)types[i];
		uint8_t raw[HEADER + 64];
		size_t len = pack(&m, raw);

		m.type = type;
		assert_false(channel_check(&m));
		assert_int_equal(channel_send(far, &m), -EINVAL);
		memcpy(raw, &type, sizeof type);
		assert_int_equal(raw_send(raw, len, 2, MANY), 0);
		is_refused();
		raw[2] = raw[3] = 0;
		assert_int_equal(raw_send(raw, HEADER, 0, MANY), 0);
		is_refused();
	}
}

/* A packet of a right message with len bytes instead, whose header says claimed. */
static void of_length(unsigned type, size_t len, unsigned claimed)
{
	static uint8_t raw[RAW_MAX];
	struct channel_message m = sample(type);
	uint16_t claim = (uint16_t)claimed;

	memset(raw, 0, sizeof raw);
	pack(&m, raw);
	memcpy(raw + 2, &claim, sizeof claim);
	assert_int_equal(raw_send(raw, len, shapes[type].fds, MANY), 0);
	is_refused();
}

static void channel__short_and_long(void **state)
{
	for (unsigned type = CHANNEL_HELLO; type < CHANNEL_TYPE_END; type++) {
		unsigned right = shapes[type].body;

		for (unsigned body = 0; body < 64; body++) {
			if (body == right)
				continue;
			of_length(type, HEADER + body, body);
			of_length(type, HEADER + body, right);
			of_length(type, HEADER + right, body);
		}
		for (unsigned len = 1; len < HEADER; len++)
			of_length(type, len, right);
		of_length(type, 4096, right);
		of_length(type, HEADER + 65535, 65535);
		of_length(type, RAW_MAX, right);
	}
}

static void channel__empty_packets(void **state)
{
	for (unsigned n = 0; n <= 4; n++) {
		assert_int_equal(raw_send("", 0, n, MANY), 0);
		is_refused();
	}
	assert_int_equal(raw_send("", 0, MANY, MANY), 0);
	is_refused();
}

/* The kernel makes one of them. */
static void channel__several_control_messages(void **state)
{
	struct channel_message m = sample(CHANNEL_CONNECTED);
	uint8_t raw[HEADER + 64];
	size_t len = pack(&m, raw);

	for (unsigned each = 1; each <= 2; each++) {
		assert_int_equal(raw_send(raw, len, 2, each), 0);
		assert_int_equal(receive(&m), 0);
		has_files(&m);
	}
}

/* What the receiver's socket options put beside a message is not taken for the message's. */
static void channel__other_control_messages(void **state)
{
	static const int options[] = {SO_PASSCRED, SO_PASSSEC, SO_PASSPIDFD};
	const int on = 1;

	for (unsigned i = 0; i < sizeof options / sizeof *options; i++) {
		setsockopt(near, SOL_SOCKET, options[i], &on, sizeof on); /* not every kernel has all */
		channel__every_type_round_trip(state);
		channel__empty_packets(state);
		channel__wrong_number_of_descriptors(state);
	}
}

static void channel__again(void **state)
{
	struct channel_message m;
	unsigned sent = 0;
	int rc;

	assert_int_equal(receive(&m), -EAGAIN);
	is_empty(&m);
	for (;; sent++) {
		m = sample(CHANNEL_CONNECTED);
		m.id = sent;
		rc = channel_send(far, &m);
		if (rc)
			break;
	}
	assert_int_equal(rc, -EAGAIN);
	assert_true(sent > 0);
	no_leak();
	for (unsigned i = 0; i < sent; i++) {
		assert_int_equal(receive(&m), 0);
		assert_int_equal(m.id, i);
		has_files(&m);
	}
	assert_int_equal(receive(&m), -EAGAIN);
	round_trip(CHANNEL_CONNECT);
}

static void says_the_end(void)
{
	struct channel_message m;

	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(receive(&m), -ECONNRESET);
		is_empty(&m);
	}
}

/* What was said before it arrives; no signal at the sender: it would end this program. */
static void channel__hang_up(void **state)
{
	struct channel_message m = sample(CHANNEL_INCOMING);

	assert_int_equal(channel_send(far, &m), 0);
	assert_int_equal(channel_send(far, &m), 0);
	close(far);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(receive(&m), 0);
		channel_close_fds(&m);
	}
	says_the_end();
	m = sample(CHANNEL_CONNECT);
	assert_int_equal(channel_send(near, &m), -EPIPE);
	far = dup(files[0]); /* for the teardown */
	no_leak();
}

/* With messages that the other side has not read. The kernel says that first, and once. */
static void channel__hang_up_unread(void **state)
{
	struct channel_message m = sample(CHANNEL_CONNECT);
	int rc;

	assert_int_equal(channel_send(near, &m), 0);
	m = sample(CHANNEL_INCOMING);
	assert_int_equal(channel_send(far, &m), 0);
	close(far);
	far = dup(files[0]);
	assert_int_equal(receive(&m), 0);
	has_files(&m);
	says_the_end();
	teardown(state);
	setup(state);
	m = sample(CHANNEL_CONNECT);
	assert_int_equal(channel_send(near, &m), 0);
	close(far);
	far = dup(files[0]);
	rc = channel_send(near, &m);
	assert_true(rc == -ECONNRESET || rc == -EPIPE);
	assert_int_equal(channel_send(near, &m), -EPIPE);
	says_the_end();
	no_leak();
}

/* Its sending side only. */
static void channel__hang_up_half(void **state)
{
	struct channel_message m = sample(CHANNEL_INCOMING);

	assert_int_equal(channel_send(far, &m), 0);
	assert_int_equal(shutdown(far, SHUT_WR), 0);
	assert_int_equal(receive(&m), 0);
	has_files(&m);
	says_the_end();
	m = sample(CHANNEL_CONNECT);
	assert_int_equal(channel_send(near, &m), 0);
	assert_int_equal(channel_send(far, &m), -EPIPE);
	no_leak();
}

static void channel__sockets_that_are_none(void **state)
{
	struct channel_message m = sample(CHANNEL_WELCOME);

	assert_int_equal(channel_send(files[0], &m), -ENOTSOCK);
	assert_int_equal(channel_recv(files[0], &m), -ENOTSOCK);
	is_empty(&m);
	m = sample(CHANNEL_WELCOME);
	assert_int_equal(channel_send(-1, &m), -EBADF);
	assert_int_equal(channel_recv(-1, &m), -EBADF);
	is_empty(&m);
}

/* Uses up all descriptors but `left`; then receives. */
static int receive_with(struct channel_message *m, unsigned left)
{
	enum { SPARE = 300 };
	static int fillers[SPARE + 64];
	struct rlimit old, low;
	unsigned n = 0;
	int rc, fd;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	low = old;
	low.rlim_cur = SPARE;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	while ((fd = dup(files[0])) >= 0)
		fillers[n++] = fd;
	while (left--)
		close(fillers[--n]);
	rc = receive(m);
	setrlimit(RLIMIT_NOFILE, &old);
	while (n)
		close(fillers[--n]);
	return rc;
}

/* Whoever asked can still be told: type and id are there. */
static void channel__no_descriptors_left(void **state)
{
	for (unsigned type = CHANNEL_HELLO; type < CHANNEL_TYPE_END; type++) {
		struct channel_message m;

		for (unsigned left = 0; left < shapes[type].fds; left++) {
			struct channel_message s = sample(type);

			assert_int_equal(channel_send(far, &s), 0);
			assert_int_equal(receive_with(&m, left), -EMFILE);
			no_leak();
			assert_int_equal(m.type, type);
			assert_int_equal(m.id, s.id);
			m.type = 0;
			m.id = 0;
			is_empty(&m);
			round_trip(type);
		}
		m = sample(type);
		assert_int_equal(channel_send(far, &m), 0);
		assert_int_equal(receive_with(&m, shapes[type].fds), 0);
		has_files(&m);
	}
}

static void channel__too_many_and_none_left(void **state)
{
	struct channel_message m = sample(CHANNEL_HELLO);
	uint8_t raw[HEADER + 64];
	size_t len = pack(&m, raw);

	assert_int_equal(raw_send(raw, len, 1, MANY), 0);
	assert_int_equal(receive_with(&m, 0), -EPROTO);
	no_leak();
	m = sample(CHANNEL_CONNECTED);
	len = pack(&m, raw);
	for (unsigned left = 2; left < 5; left++) {
		assert_int_equal(raw_send(raw, len, MANY, MANY), 0);
		assert_int_equal(receive_with(&m, left), -EPROTO);
		is_empty(&m);
		no_leak();
	}
	assert_int_equal(raw_send(raw, len - 1, 2, MANY), 0);
	assert_int_equal(receive_with(&m, 1), -EPROTO);
	no_leak();
}

static void channel__close_fds(void **state)
{
	struct channel_message m = {.n_fds = CHANNEL_FDS, .fds = {-1, dup(files[1])}};

	channel_close_fds(&m);
	is_empty(&m);
	channel_close_fds(&m);
	m.n_fds = 1000;
	channel_close_fds(&m);
	no_leak();
}

static size_t mutate(struct sd_rng *r, uint8_t *raw, size_t len)
{
	for (uint64_t n = sd_rng_below(r, 4); n; n--) {
		size_t at = sd_rng_below(r, len + 1);

		switch (sd_rng_below(r, 5)) {
		case 0:
			raw[at] = (uint8_t)sd_rng_next(r);
			break;
		case 1:
			raw[at] ^= (uint8_t)(1u << sd_rng_below(r, 8));
			break;
		case 2:
			raw[at] = sd_rng_below(r, 2) ? 0 : 255;
			break;
		case 3:
			len = at;
			break;
		case 4:
			len += sd_rng_below(r, 40);
			break;
		}
	}
	return len;
}

/* One packet. True: it was a message, and goes back as it came. */
static bool try_one(struct sd_rng *r)
{
	static uint8_t raw[512], back[512];
	struct channel_message m = sample(1 + (unsigned)sd_rng_below(r, CHANNEL_TYPE_END - 1));
	unsigned n = m.n_fds, each = 1 + (unsigned)sd_rng_below(r, 4);
	size_t len;
	int rc;

	memset(raw, 0, sizeof raw);
	len = mutate(r, raw, pack(&m, raw));
	if (!sd_rng_below(r, 8))
		n = (unsigned)sd_rng_below(r, sd_rng_below(r, 50) ? 8 : 50);
	assert_int_equal(raw_send(raw, len, n, each), 0);
	rc = receive(&m);
	if (rc) {
		assert_int_equal(rc, -EPROTO);
		is_empty(&m);
		return false;
	}
	assert_true(channel_check(&m));
	assert_int_equal(m.n_fds, n);
	for (unsigned i = 0; i < n; i++)
		same_file(m.fds[i], files[i]);
	assert_int_equal(channel_send(near, &m), 0);
	channel_close_fds(&m);
	assert_int_equal(recv(far, back, sizeof back, MSG_DONTWAIT), len);
	if (m.type == CHANNEL_HELLO) /* and what is behind its name is not sent on */
		len = HEADER + 4 + strlen(m.hello.program);
	assert_memory_equal(raw, back, len);
	return true;
}

static void channel__mutated_packets(void **state)
{
	const uint64_t seed = 1, until = sd_clock_ns() + 2000000000ull;
	unsigned good = 0, bad = 0;
	struct sd_rng r;

	print_message("# seed %llu\n", (unsigned long long)seed);
	sd_rng_seed(&r, seed);
	do {
		int before = dup(files[0]), after;

		close(before);
		for (unsigned i = 0; i < 50; i++)
			try_one(&r) ? good++ : bad++;
		after = dup(files[0]); /* the lowest free number is still free */
		close(after);
		assert_int_equal(before, after);
	} while (sd_clock_ns() < until || good < 50 || bad < 50);
	no_leak();
	print_message("# %u messages, %u refused\n", good, bad);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(channel__every_type_round_trip),
		CASE(channel__bounds_that_are_right),
		CASE(channel__packets),
		CASE(channel__wrong_number_of_descriptors),
		CASE(channel__descriptors_that_are_none),
		CASE(channel__wrong_names_and_numbers),
		CASE(channel__wrong_paths_and_ends),
		CASE(channel__wrong_addresses),
		CASE(channel__unknown_types),
		CASE(channel__short_and_long),
		CASE(channel__empty_packets),
		CASE(channel__several_control_messages),
		CASE(channel__other_control_messages),
		CASE(channel__again),
		CASE(channel__hang_up),
		CASE(channel__hang_up_unread),
		CASE(channel__hang_up_half),
		CASE(channel__sockets_that_are_none),
		CASE(channel__no_descriptors_left),
		CASE(channel__too_many_and_none_left),
		CASE(channel__close_fds),
		CASE(channel__mutated_packets),
	};

	return cmocka_run_group_tests_name("channel", tests, NULL, NULL);
}
