/* SPDX-License-Identifier: BSD-3-Clause */
/* A packet is a header and the fields of its type, nothing else. It is never empty, so that an empty one is
 * wrong and the end of the stream is not mistaken for it. */
#include "provider/channel.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"

/* Of the kernel's (include/linux/socket.h), newer than some C libraries. */
#ifndef SCM_PIDFD
#define SCM_PIDFD 0x04
#endif

struct header {
	uint16_t type;
	uint16_t len; /* of what follows */
	uint32_t id;
};

union body {
	struct channel_hello hello;
	struct channel_welcome welcome;
	struct channel_connect connect;
	struct channel_listen listen;
	struct channel_stream stream;
	struct channel_refused refused;
	struct channel_end end;
};

struct packet {
	struct header header;
	union body body;
};

/* More than two descriptors and the credentials that a socket with SO_PASSCRED gets: too many descriptors
 * are then seen to be too many. What does not fit even here the kernel drops itself. */
/* Room for all that can be passed: what does not fit the kernel closes, and waits for it. */
union control {
	char bytes[256 + SD_FDS_MAX * sizeof(int)];
	struct cmsghdr align;
};

#define STREAM_LEN (offsetof(struct channel_stream, end) + 1) /* padding is not sent */

_Static_assert(sizeof(struct header) == 8, "the header has no padding");
_Static_assert(sizeof(struct channel_hello) == 4 + CHANNEL_NAME_LEN, "no padding to send");
_Static_assert(
	sizeof(struct channel_connect) == 48 && sizeof(struct channel_listen) == 28 && STREAM_LEN == 58,
	"no padding to send");

static const struct shape {
	uint8_t len, fds;
} shapes[CHANNEL_TYPE_END] = {
	[CHANNEL_HELLO] = {sizeof(struct channel_hello), 0},
	[CHANNEL_WELCOME] = {sizeof(struct channel_welcome), 0},
	[CHANNEL_CONNECT] = {sizeof(struct channel_connect), 1},
	[CHANNEL_CONNECTED] = {STREAM_LEN, 2},
	[CHANNEL_LISTEN] = {sizeof(struct channel_listen), 1},
	[CHANNEL_LISTENING] = {0, 2},
	[CHANNEL_ADOPT] = {0, 1},
	[CHANNEL_ADOPTED] = {STREAM_LEN, 1},
	[CHANNEL_REFUSED] = {sizeof(struct channel_refused), 0},
	[CHANNEL_INCOMING] = {STREAM_LEN, 2},
	[CHANNEL_BACKLOG] = {sizeof(struct channel_backlog), 0},
	[CHANNEL_ACCEPTED] = {sizeof(struct channel_end), 0},
	[CHANNEL_CLOSED] = {sizeof(struct channel_end), 0},
};

static bool type_is_known(unsigned type)
{
	return type >= CHANNEL_HELLO && type < CHANNEL_TYPE_END;
}

static bool is_zero(const uint8_t *p, size_t len)
{
	while (len && !*p)
		p++, len--;
	return !len;
}

/* In the one form that an address has, so that those who look it up may compare bytes. */
static bool is_addr(const struct sd_addr *a)
{
	struct sd_addr plain = *a;

	if (a->pad || (a->family != 4 && a->family != 6))
		return false;
	if (a->family == 4)
		return !a->scope && is_zero(a->ip + 4, sizeof a->ip - 4);
	sd_addr_unmap(&plain);
	return plain.family == 6;
}

static bool is_no_addr(const struct sd_addr *a)
{
	return !a->family && !a->pad && !a->scope && sd_addr_is_any(a);
}

static bool is_name(const struct sd_addr *a)
{
	return is_addr(a) && a->port;
}

static bool check_connect(const struct channel_connect *c)
{
	if (!is_name(&c->peer))
		return false;
	return is_no_addr(&c->local) || (is_addr(&c->local) && c->local.family == c->peer.family);
}

static bool check_stream(const struct channel_stream *s)
{
	if (!is_name(&s->local) || !is_name(&s->peer) || s->local.family != s->peer.family)
		return false;
	return s->path <= CHANNEL_PATH_NET && s->end <= 1 && s->cookie;
}

static bool check_refused(const struct channel_refused *r)
{
	return r->error > 0 && r->error <= 4095 && r->reason >= 0 && r->reason < SD_REASON_COUNT;
}

static bool check_body(const struct channel_message *m)
{
	switch (m->type) {
	case CHANNEL_HELLO:
		return m->hello.version && memchr(m->hello.program, 0, sizeof m->hello.program);
	case CHANNEL_WELCOME:
		return m->welcome.version <= CHANNEL_VERSION &&
		       m->welcome.patience_ms >= CHANNEL_PATIENCE_MS &&
		       m->welcome.patience_ms <= CHANNEL_PATIENCE_MAX_MS;
	case CHANNEL_CONNECT:
		return check_connect(&m->connect);
	case CHANNEL_LISTEN:
		return is_name(&m->listen.local);
	case CHANNEL_INCOMING:
		return !m->id && check_stream(&m->stream);
	case CHANNEL_CONNECTED:
	case CHANNEL_ADOPTED:
		return check_stream(&m->stream);
	case CHANNEL_REFUSED:
		return check_refused(&m->refused);
	default: /* nothing but its descriptor */
		return true;
	}
}

bool channel_check(const struct channel_message *m)
{
	if (!type_is_known(m->type) || m->n_fds != shapes[m->type].fds)
		return false;
	for (unsigned i = 0; i < m->n_fds; i++)
		if (m->fds[i] < 0)
			return false;
	return check_body(m);
}

static void empty(struct channel_message *m)
{
	memset(m, 0, sizeof *m);
	for (unsigned i = 0; i < CHANNEL_FDS; i++)
		m->fds[i] = -1;
}

void channel_close_fds(struct channel_message *m)
{
	for (unsigned i = 0; i < m->n_fds && i < CHANNEL_FDS; i++)
		sd_fd_close(&m->fds[i]);
	m->n_fds = 0;
}

/* The bytes of m; how many. What lies behind a text's end stays here: it may be anything of this process. */
static size_t pack(const struct channel_message *m, struct packet *p)
{
	size_t len = shapes[m->type].len;

	memset(p, 0, sizeof *p);
	p->header = (struct header){.type = m->type, .len = (uint16_t)len, .id = m->id};
	memcpy(&p->body, &m->hello, len); /* members of a union begin where it begins */
	if (m->type == CHANNEL_HELLO) {
		size_t used = strlen(m->hello.program);

		memset(p->body.hello.program + used, 0, sizeof p->body.hello.program - used);
	}
	return sizeof p->header + len;
}

int channel_send(int fd, const struct channel_message *m)
{
	struct packet p;
	size_t len;
	ssize_t n;

	if (!channel_check(m))
		return -EINVAL;
	len = pack(m, &p);
	do
		n = sd_fd_send(fd, &p, len, m->fds, m->n_fds);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0; /* a packet goes as a whole */
}

/* Descriptors beside a packet, all of them. */
struct passed {
	unsigned n;
	int fds[sizeof(union control) / sizeof(int)];
};

/* What the kernel adds by a socket option is not a message's and is dropped. */
static void take_fds(struct msghdr *h, struct passed *out)
{
	out->n = 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
		const unsigned char *data = CMSG_DATA(c);
		size_t len = c->cmsg_len - CMSG_LEN(0);
		bool passed = c->cmsg_type == SCM_RIGHTS;

		if (c->cmsg_level != SOL_SOCKET || (!passed && c->cmsg_type != SCM_PIDFD))
			continue;
		for (; len >= sizeof(int); len -= sizeof(int), data += sizeof(int)) {
			int fd;

			memcpy(&fd, data, sizeof fd);
			if (passed)
				out->fds[out->n++] = fd;
			else if (fd >= 0)
				close(fd);
		}
	}
}

static void drop_fds(struct passed *p, const struct channel_waste *w)
{
	if (w && p->n)
		w->close(w, p->fds, p->n);
	for (unsigned i = 0; !w && i < p->n; i++)
		close(p->fds[i]);
}

/* Fills in m from n bytes; are they what the header says, and as many as the type has? */
static bool unpack(struct channel_message *m, const struct packet *p, size_t n)
{
	const struct header *h = &p->header;

	if (n < sizeof *h || n != sizeof *h + h->len)
		return false;
	if (!type_is_known(h->type) || h->len != shapes[h->type].len)
		return false;
	m->type = h->type;
	m->id = h->id;
	memcpy(&m->hello, &p->body, h->len);
	return true;
}

/* After an empty read: the end of the stream, or an empty packet? If the sender of one is gone since, nobody
 * minds which it was. */
static bool has_hung_up(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLRDHUP};

	return poll(&p, 1, 0) > 0 && p.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL);
}

/* The other side's end resets ours when it closes with messages unread. That is told once and before the
 * messages which came earlier: the second call gets those, and then the end. */
static ssize_t receive(int fd, struct msghdr *h)
{
	struct msghdr fresh = *h;
	bool was_reset = false;
	ssize_t n;

	for (;;) {
		*h = fresh;
		n = recvmsg(fd, h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (n >= 0)
			return n;
		if (errno == ECONNRESET && !was_reset)
			was_reset = true;
		else if (errno != EINTR)
			return -errno;
	}
}

/* Is it all that was sent, and right? On -EMFILE the sender did nothing wrong and waits for an answer. */
static int check_received(struct channel_message *m, const struct packet *p, const struct msghdr *h, size_t n,
	const struct passed *passed)
{
	bool cut = h->msg_flags & MSG_CTRUNC;

	if (h->msg_flags & MSG_TRUNC || !unpack(m, p, n))
		return -EPROTO;
	if (cut && passed->n < shapes[m->type].fds)
		return -EMFILE;
	if (cut || passed->n > CHANNEL_FDS)
		return -EPROTO;
	m->n_fds = passed->n;
	memcpy(m->fds, passed->fds, passed->n * sizeof *m->fds);
	return channel_check(m) ? 0 : -EPROTO;
}

int channel_recv_for(int fd, struct channel_message *m, const struct channel_waste *w)
{
	struct packet p;
	struct iovec iov = {.iov_base = &p, .iov_len = sizeof p};
	union control control;
	struct msghdr h = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof control.bytes};
	struct passed passed;
	ssize_t n;
	int r;

	empty(m);
	n = receive(fd, &h);
	if (n < 0)
		return (int)n;
	take_fds(&h, &passed);
	if (!n && !passed.n && !(h.msg_flags & MSG_CTRUNC))
		return has_hung_up(fd) ? -ECONNRESET : -EPROTO;
	r = check_received(m, &p, &h, (size_t)n, &passed);
	if (r) {
		uint16_t type = m->type;
		uint32_t id = m->id;

		drop_fds(&passed, w);
		empty(m);
		if (r == -EMFILE) {
			m->type = type;
			m->id = id;
		}
	}
	return r;
}

int channel_recv(int fd, struct channel_message *m)
{
	return channel_recv_for(fd, m, NULL);
}

int channel_take_rings(int fd, size_t most, const struct channel_waste *w)
{
	char rings[64];
	struct iovec iov = {rings, most < sizeof rings ? most : sizeof rings};
	union control control;
	struct msghdr h = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof control.bytes};
	struct passed passed;
	ssize_t n = receive(fd, &h);

	if (n < 0)
		return (int)n;
	take_fds(&h, &passed);
	if (!passed.n && !(h.msg_flags & MSG_CTRUNC))
		return (int)n;
	drop_fds(&passed, w);
	return -EBADMSG;
}

/* In the abstract namespace. */
#define END_PREFIX     "\0sandirect-end/"
#define END_PREFIX_LEN (sizeof END_PREFIX - 1)
#define END_DIGITS     7 /* the kernel takes 32 bytes for such a name, for the next longer one 64 */

int channel_name_end(int fd, uint64_t number)
{
	static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz+-";
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	char *at = a.sun_path + END_PREFIX_LEN;

	memcpy(a.sun_path, END_PREFIX, END_PREFIX_LEN);
	for (unsigned i = 0; i < END_DIGITS; i++, number /= 64)
		*at++ = digits[number % 64];
	return bind(fd, (struct sockaddr *)&a, (socklen_t)(at - (char *)&a)) ? -errno : 0;
}

bool channel_is_end(int fd)
{
	struct sockaddr_un a;
	socklen_t len = sizeof a;
	int saved_errno = errno;
	bool is = !getsockname(fd, (struct sockaddr *)&a, &len) && a.sun_family == AF_UNIX &&
		  len > offsetof(struct sockaddr_un, sun_path) + END_PREFIX_LEN &&
		  !memcmp(a.sun_path, END_PREFIX, END_PREFIX_LEN);

	errno = saved_errno;
	return is;
}
