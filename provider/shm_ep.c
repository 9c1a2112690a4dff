/* SPDX-License-Identifier: BSD-3-Clause */
/* Endpoints of the shm provider: TCP's view of a segment. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "provider/domain_private.h"
#include "provider/shm_private.h"

#define RINGS 16 /* that many wait in the socket, which has room for more */

static struct shm_ep *of(struct pv_ep *ep)
{
	return container_of(ep, struct shm_ep, ep);
}

static void raise_ready(struct shm_ep *e, unsigned events)
{
	if (e->user && events)
		e->ep.pv->ready(e->user, events);
}

/* send(2) would be without SIGPIPE, but is forbidden. */
static void ring_confined(struct shm_ep *e)
{
	struct pollfd p = {.fd = e->fd, .events = POLLOUT};

	if (poll(&p, 1, 0) != 1)
		return; /* full: it has been rung */
	if (p.revents & (POLLHUP | POLLERR))
		e->ended = true;
	else if (write(e->fd, "", 1) < 0)
		return;
}

/* After anything was published. */
static void ring(struct shm_ep *e)
{
	if (!segment_must_ring(&e->seg))
		return;
	if (__builtin_expect(shm_of(e)->confined, 0))
		ring_confined(e);
	else
		send(e->fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void say(struct shm_ep *e, unsigned flags)
{
	segment_say(&e->seg, flags);
	ring(e);
}

static void fail(struct shm_ep *e, int error)
{
	if (!e->error)
		e->error = error;
}

/* --- what the other end is up to --- */

static bool peer_is_gone(const struct shm_ep *e)
{
	return e->ended || (segment_heard(&e->seg) & SEGMENT_CLOSED);
}

static bool has_shut(const struct shm_ep *e)
{
	return segment_said(&e->seg) & SEGMENT_FIN;
}

/* It sends no more. Before it says so it has published all its bytes. */
static bool is_fin(const struct shm_ep *e)
{
	return e->ended || (segment_heard(&e->seg) & (SEGMENT_FIN | SEGMENT_CLOSED));
}

/*
 * It has ended without a word: a killed program, or one of several that shared it. As the kernel does, what
 * it had written can be read; what we had written and it had not read is lost, which is a reset.
 */
static void note_end(struct shm_ep *e)
{
	unsigned heard = segment_heard(&e->seg);

	if (e->ended && !segment_is_accepted(&e->seg))
		fail(e, -ECONNRESET); /* nobody was there to take it */
	/* It always says how it ends, so the daemon was killed, and what would have followed nobody knows. */
	if (e->ended && e->net && !(heard & (SEGMENT_FIN | SEGMENT_CLOSED)))
		fail(e, -ECONNRESET);
	if (heard & SEGMENT_RESET)
		fail(e, heard & SEGMENT_FIN ? -EPIPE : -ECONNRESET); /* as in CLOSE_WAIT */
	else if ((!(heard & SEGMENT_CLOSED) && e->ended && segment_unread(&e->seg) > 0))
		fail(e, -ECONNRESET);
}

static bool has_data(struct shm_ep *e)
{
	ssize_t n = segment_readable(&e->seg);

	if (n < 0)
		fail(e, -ECONNRESET);
	return n > 0;
}

static bool is_roomy(struct shm_ep *e)
{
	return segment_is_roomy(&e->seg);
}

bool shm_ep_look(struct shm_ep *e)
{
	unsigned events = 0, flags;
	uint64_t in;
	ssize_t n;

	if (e->state != SHM_OPEN)
		return false;
	/* Before the bytes, which were there before it was said that no more follow. */
	flags = segment_heard(&e->seg);
	n = segment_readable(&e->seg);
	if (__builtin_expect(n < 0, 0)) {
		fail(e, -ECONNRESET);
		n = 0;
	}
	in = segment_consumed(&e->seg) + (uint64_t)n;
	if (in != e->seen_in) {
		e->seen_in = in;
		events |= PV_IN;
	}
	if (e->blocked && is_roomy(e)) {
		e->blocked = false;
		events |= PV_OUT;
	}
	if (__builtin_expect(flags != e->seen_flags, 0)) {
		e->seen_flags = flags;
		note_end(e);
		events |= PV_IN | PV_OUT | (flags & (SEGMENT_FIN | SEGMENT_CLOSED) ? PV_RDHUP : 0);
		if (e->error)
			events |= PV_FAILED;
		if (is_fin(e) && has_shut(e))
			events |= PV_HUP;
	}
	raise_ready(e, events);
	return events != 0;
}

static void close_apart(const struct channel_waste *w, int *fds, unsigned n)
{
	sd_fd_close_apart(fds, n);
}

/* A ring is a byte, for which the kernel needs most of a KiB. One stays at an end that is shared: other
 * processes are told by the next one only while there is something to read. */
static void take_rings(struct shm_ep *e)
{
	const struct channel_waste waste = {close_apart};
	char there[2 * RINGS];
	ssize_t n = sizeof there;

	if (segment_is_shared(&e->seg))
		n = recv(e->fd, there, sizeof there, MSG_DONTWAIT | MSG_PEEK) - 1;
	if (n > 0 && channel_take_rings(e->fd, (size_t)n, &waste) == -EBADMSG)
		fail(e, -ECONNRESET);
	e->rings = 0;
}

static void is_used(struct shm_ep *e)
{
	e->used = true;
	e->trimmed = false;
	shm_trim_later(shm_of(e));
}

bool shm_ep_trim(struct shm_ep *e, unsigned *work)
{
	if (!segment_trim(&e->seg))
		return false;
	if (!e->rings)
		return true;
	take_rings(e);
	/* One of them may not have been heard of. */
	shm_heat(e);
	*work += shm_ep_look(e);
	return true;
}

void shm_ep_event(struct shm_ep *e, uint32_t events)
{
	if (e->state == SHM_LISTENING) {
		e->queue_ready = true;
		raise_ready(e, PV_IN);
		return;
	}
	if (e->state != SHM_OPEN)
		return;
	if (events & EPOLLIN) {
		if (++e->rings == RINGS)
			take_rings(e);
		is_used(e);
		shm_heat(e);
	}
	/* Shut down for writing, and no more, is nothing to mind. */
	if (events & (EPOLLHUP | EPOLLERR)) {
		e->ended = true;
		note_end(e);
		raise_ready(e, e->error ? PV_FAILED : PV_IN | PV_OUT | PV_RDHUP | (has_shut(e) ? PV_HUP : 0));
	}
	shm_ep_look(e);
}

/* --- beginning --- */

static int watch_stream(struct shm_ep *e)
{
	int r = shm_watch(e);

	if (!r)
		shm_heat(e);
	return r;
}

/* How an end comes to this process. */
enum origin { CONNECTED, ACCEPTED, ADOPTED, OWN };

/* Takes the descriptors out of m. -EALREADY: another process has accepted it. */
static int open_stream(struct shm_ep *e, struct channel_message *m, unsigned memory_at, enum origin origin)
{
	int r = segment_open(m->fds[memory_at], m->stream.end, &e->seg);

	close(m->fds[memory_at]);
	m->fds[memory_at] = -1;
	if (r)
		return r;
	/* Before anything of the end is touched. */
	if (origin == ACCEPTED && !segment_accept(&e->seg))
		return -EALREADY;
	/* Whoever had it may have it still, and not have seen it go. */
	if (origin == ADOPTED)
		segment_share(&e->seg);
	e->seg.alone = origin == OWN;
	e->local = m->stream.local;
	e->peer = m->stream.peer;
	e->cookie = m->stream.cookie;
	e->net = m->stream.path == CHANNEL_PATH_NET;
	e->state = SHM_OPEN;
	return watch_stream(e);
}

static void give_up_fd(struct shm_ep *e, int *fd)
{
	if (*fd < 0)
		return;
	pv_domain_guard_fd(e->ep.pv->domain, *fd, PV_GUARD_NONE);
	close(*fd);
	*fd = -1;
}

static void close_fds(struct shm_ep *e);

int shm_ep_attach(struct shm_ep *e, const struct pv_shm_end *end)
{
	struct channel_message m = {.fds = {end->memory},
		.n_fds = 1,
		.stream = {.local = end->local, .peer = end->peer, .end = (uint8_t)end->end}};
	int r;

	e->fd = end->fd;
	r = open_stream(e, &m, 0, OWN);
	channel_close_fds(&m);
	if (!r && end->end)
		segment_accept(&e->seg);
	if (r)
		close_fds(e);
	return r;
}

static void close_fds(struct shm_ep *e)
{
	struct shm *x = shm_of(e);

	if (e->fd >= 0)
		shm_unwatch(x, e->fd);
	if (e->fd >= 0 && !e->fd_taken) {
		if (e->state == SHM_LISTENING)
			pv_domain_guard_fd(x->pv.domain, e->fd, PV_GUARD_NONE);
		close(e->fd);
	}
	give_up_fd(e, &e->socket);
	give_up_fd(e, &e->lease);
	e->fd = -1;
	if (e->seg.header)
		segment_close(&e->seg);
	e->seg.header = NULL;
}

static void opened(struct shm_ep *e, int r)
{
	if (r) {
		close_fds(e);
		e->state = SHM_FAILED;
		e->reason = SD_REASON_NO_MEMORY;
	}
	e->result = r;
	raise_ready(e, r ? PV_FAILED : PV_OUT);
}

static void watch_queue(struct shm_ep *e)
{
	if (shm_watch(e))
		sd_error("a listener cannot be watched; it gets no connections through shared memory");
	e->queue_ready = true;
	raise_ready(e, PV_IN);
}

/* For the first time, or by a daemon that has taken the place of one that is gone. */
static void listening(struct shm_ep *e, struct channel_message *m)
{
	if (e->fd >= 0) {
		shm_unwatch(shm_of(e), e->fd);
		give_up_fd(e, &e->fd);
		give_up_fd(e, &e->lease);
	}
	e->fd = sd_fd_raise(m->fds[0]);
	e->lease = sd_fd_raise(m->fds[1]);
	m->fds[0] = m->fds[1] = -1;
	pv_domain_guard_fd(e->ep.pv->domain, e->fd, PV_GUARD_KEPT);
	pv_domain_guard_fd(e->ep.pv->domain, e->lease, PV_GUARD_KEPT);
	watch_queue(e);
}

/* Only the address space is another: the descriptors are where they were. */
void shm_ep_in_child(struct shm_ep *e)
{
	if (e->state == SHM_LISTENING && e->fd >= 0)
		watch_queue(e);
	if (e->state != SHM_OPEN)
		return;
	segment_forked(&e->seg);
	e->direct = 0; /* those threads are not here */
	if (watch_stream(e))
		fail(e, -ECONNRESET);
}

void shm_ep_answer(struct shm_ep *e, struct channel_message *m)
{
	if (m->type == CHANNEL_CONNECTED && e->state == SHM_CONNECTING && e->fd < 0) {
		e->fd = m->fds[0];
		m->fds[0] = -1;
		opened(e, open_stream(e, m, 1, CONNECTED));
	} else if (m->type == CHANNEL_ADOPTED && e->state == SHM_CONNECTING && e->fd >= 0) {
		opened(e, open_stream(e, m, 0, ADOPTED));
	} else if (m->type == CHANNEL_LISTENING && e->state == SHM_LISTENING) {
		listening(e, m);
	} else if (e->state == SHM_CONNECTING) {
		e->state = SHM_FAILED;
		e->result =
			m->type == CHANNEL_REFUSED && m->refused.error ? -m->refused.error : -ECONNREFUSED;
		e->reason = m->type == CHANNEL_REFUSED ? (enum sd_reason)m->refused.reason
						       : SD_REASON_PEER_REFUSED;
		raise_ready(e, PV_FAILED);
	}
}

static int ep_connect_result(struct pv_ep *ep, enum sd_reason *reason)
{
	struct shm_ep *e = of(ep);

	*reason = e->state == SHM_FAILED ? e->reason : SD_REASON_SAN;
	return e->result;
}

/* What need not arrive. */
static void tell(int fd, enum channel_type type, uint64_t cookie)
{
	const struct channel_message m = {.type = type, .end = {cookie}};

	channel_send(fd, &m);
}

static int ep_accept(struct pv_ep *ep, void *user, struct pv_ep **out)
{
	struct shm_ep *l = of(ep), *e;
	struct channel_message m;
	int r;

	for (;;) {
		r = l->fd < 0 ? -EAGAIN : channel_recv(l->fd, &m);
		if (r) {
			l->queue_ready = false;
			return r == -EMFILE ? r : -EAGAIN;
		}
		if (m.type != CHANNEL_INCOMING)
			goto next;
		e = shm_ep_new(shm_of(l), user);
		if (!e) {
			channel_close_fds(&m);
			return -ENOMEM;
		}
		e->fd = m.fds[0];
		m.fds[0] = -1;
		r = open_stream(e, &m, 1, ACCEPTED);
		/* Who has accepted it before may not have been heard. */
		if (!r || r == -EALREADY)
			tell(l->fd, CHANNEL_ACCEPTED, m.stream.cookie);
		if (!r) {
			channel_close_fds(&m);
			*out = &e->ep;
			return 0;
		}
		close_fds(e);
		shm_ep_free(e);
	next:
		channel_close_fds(&m);
	}
}

/* --- bytes --- */

static ssize_t ep_send(struct pv_ep *ep, const struct iovec *iov, int n, unsigned flags)
{
	struct shm_ep *e = of(ep);
	size_t want = 0;
	ssize_t r;

	if (__builtin_expect(e->error, 0))
		return e->error;
	if (__builtin_expect(has_shut(e), 0))
		return -EPIPE;
	if (e->state != SHM_OPEN)
		return -EAGAIN;
	for (int i = 0; i < n; i++)
		want += iov[i].iov_len;
	if (__builtin_expect(peer_is_gone(e), 0)) {
		/* As over a wire: the bytes leave, and what comes back is a RST, which after a FIN means
		 * EPIPE.
		 */
		note_end(e);
		fail(e, -EPIPE);
		raise_ready(e, PV_FAILED);
		return want;
	}
	if (__builtin_expect(segment_heard(&e->seg) & SEGMENT_NO_READ, 0))
		return want;
	r = segment_write(&e->seg, iov, n);
	if (__builtin_expect(!e->used, 0))
		is_used(e);
	if (r > 0)
		ring(e);
	if (r < 0) {
		fail(e, -ECONNRESET);
		return e->error;
	}
	if ((size_t)r < want && !e->blocked) {
		e->blocked = true;
		shm_heat(e);
	}
	return r || !want ? r : -EAGAIN;
}

static ssize_t ep_recv(struct pv_ep *ep, const struct iovec *iov, int n, unsigned flags)
{
	struct shm_ep *e = of(ep);
	bool fin;
	ssize_t r;

	if (e->state != SHM_OPEN)
		return e->result == -EINPROGRESS ? -EAGAIN : e->result;
	fin = is_fin(e); /* before the look at the bytes, which came before it */
	r = segment_read(&e->seg, iov, n, flags & PV_PEEK);
	if (r > 0) {
		if (!(flags & PV_PEEK))
			ring(e);
		return r;
	}
	if (r < 0)
		fail(e, -ECONNRESET);
	if (fin)
		note_end(e); /* a reset says the same, and more */
	if (e->error && e->error != -EPIPE)
		return e->error;
	return fin || e->rd_shut ? 0 : -EAGAIN;
}

static unsigned ep_state(struct pv_ep *ep)
{
	struct shm_ep *e = of(ep);
	unsigned s = 0;
	bool fin;

	if (e->state == SHM_LISTENING) {
		struct pollfd p = {.fd = e->fd, .events = POLLIN};

		if (e->queue_ready && (e->fd < 0 || poll(&p, 1, 0) != 1 || !(p.revents & POLLIN)))
			e->queue_ready = false;
		return e->queue_ready ? PV_IN : 0;
	}
	if (e->state == SHM_CONNECTING)
		return 0;
	if (e->error || e->state == SHM_FAILED)
		return PV_FAILED;
	fin = is_fin(e) || e->rd_shut;
	if (has_data(e))
		s |= PV_IN;
	if (e->error)
		return PV_FAILED;
	if (fin)
		s |= PV_IN | PV_RDHUP;
	if (fin && has_shut(e))
		s |= PV_HUP;
	if (has_shut(e) || peer_is_gone(e) || is_roomy(e)) {
		s |= PV_OUT;
	} else if (!e->blocked) {
		e->blocked = true;
		shm_heat(e);
	}
	return s;
}

static uint32_t *ep_arm_word(struct pv_ep *ep, uint32_t *value)
{
	struct shm_ep *e = of(ep);

	if (e->state != SHM_OPEN || e->ended || segment_is_shared(&e->seg) || shm_of(e)->confined)
		return NULL;
	shm_heat(e);
	e->direct++;
	*value = SEGMENT_BY_FUTEX | SEGMENT_WANT_DATA | (e->blocked ? SEGMENT_WANT_ROOM : 0);
	segment_arm(&e->seg, *value);
	return (uint32_t *)segment_word(&e->seg);
}

static void ep_disarm_word(struct pv_ep *ep)
{
	struct shm_ep *e = of(ep);

	if (--e->direct)
		return;
	if (e->doomed) {
		shm_ep_free(e);
		return;
	}
	segment_disarm(&e->seg);
	shm_heat(e);
}

static int ep_shutdown(struct pv_ep *ep, int how)
{
	struct shm_ep *e = of(ep);

	if (e->state == SHM_LISTENING)
		return -EINVAL;
	if (e->state != SHM_OPEN)
		return -ENOTCONN;
	if (how == SHUT_RD || how == SHUT_RDWR) {
		e->rd_shut = true;
		raise_ready(e, PV_IN | PV_RDHUP);
	}
	if ((how == SHUT_WR || how == SHUT_RDWR) && !has_shut(e))
		say(e, SEGMENT_FIN);
	if (has_shut(e) && is_fin(e))
		raise_ready(e, PV_HUP);
	return 0;
}

/* --- the rest --- */

static void ep_set_user(struct pv_ep *ep, void *user)
{
	of(ep)->user = user;
}

static int ep_set_backlog(struct pv_ep *ep, unsigned backlog)
{
	struct channel_message m = {.type = CHANNEL_BACKLOG, .backlog = {backlog}};

	of(ep)->backlog = backlog;
	return of(ep)->fd < 0 ? 0 : channel_send(of(ep)->fd, &m);
}

static int ep_set_options(struct pv_ep *ep, const struct pv_options *o)
{
	return 0; /* nothing to delay, probe or size */
}

static const char *state_name(const struct shm_ep *e)
{
	switch (e->state) {
	case SHM_LISTENING:
		return "LISTEN";
	case SHM_CONNECTING:
		return "SYN_SENT";
	case SHM_FAILED:
		return "CLOSED";
	case SHM_OPEN:
		break;
	}
	if (e->error)
		return "CLOSED";
	if (is_fin(e))
		return has_shut(e) ? "LAST_ACK" : "CLOSE_WAIT";
	return has_shut(e) ? "FIN_WAIT" : "ESTABLISHED";
}

static uint64_t or_none(ssize_t n)
{
	return n > 0 ? (uint64_t)n : 0;
}

static void ep_info(struct pv_ep *ep, struct pv_info *out)
{
	struct shm_ep *e = of(ep);

	*out = (struct pv_info){.local = e->local, .peer = e->peer};
	snprintf(out->state, sizeof out->state, "%s", state_name(e));
	if (e->state != SHM_OPEN)
		return;
	out->bytes_out = segment_written(&e->seg);
	out->bytes_in = segment_consumed(&e->seg);
	out->recv_queued = or_none(segment_readable(&e->seg));
	out->peer_closed = peer_is_gone(e);
	/* What the other end could read is delivered: it stays there when this end goes. */
	out->send_room = or_none(segment_writable(&e->seg));
	out->send_buffer = out->recv_buffer = out->mss = SEGMENT_CLASS_MIN << e->seg.max_class;
}

static int ep_take_fd(struct pv_ep *ep, const void *note, size_t len)
{
	struct shm_ep *e = of(ep);

	if (e->state != SHM_OPEN)
		return -1;
	e->fd_taken = true;
	segment_note_put(&e->seg, note, len);
	return e->fd;
}

static void ep_share(struct pv_ep *ep)
{
	struct shm_ep *e = of(ep);

	if (e->state == SHM_OPEN)
		segment_share(&e->seg);
}

static void ep_moved(struct pv_ep *ep, int fd)
{
	struct shm_ep *e = of(ep);

	if (e->state != SHM_OPEN || fd == e->fd)
		return;
	if (e->fd >= 0)
		shm_unwatch(shm_of(e), e->fd);
	e->fd = fd;
	if (fd >= 0 && shm_watch(e))
		fail(e, -ECONNRESET);
}

/* When both ends are; or it may have been, of an end that others have, too. It is not quite yet, if the
 * descriptor is the program's. */
static void tell_closed(struct shm_ep *e)
{
	const struct shm *x = shm_of(e);

	if (x->channel >= 0 && !x->confined && (peer_is_gone(e) || segment_is_shared(&e->seg)))
		tell(x->channel, CHANNEL_CLOSED, e->cookie);
}

static void ep_close(struct pv_ep *ep, enum pv_close_mode mode)
{
	struct shm_ep *e = of(ep);

	if (e->state == SHM_LISTENING) {
		shm_of(e)->n_listeners--;
		shm_of(e)->n_untold -= e->untold;
	}
	if (e->state == SHM_OPEN) {
		/* Unread input turns an end into a reset (RFC 2525 section 2.17). */
		bool reset = mode == PV_CLOSE_ABORT || (has_data(e) && !e->rd_shut);

		/* Of an end that others have, too, only the kernel knows when it is closed. */
		if (!segment_is_shared(&e->seg))
			say(e, SEGMENT_CLOSED | (reset ? SEGMENT_RESET : SEGMENT_FIN));
		tell_closed(e);
	}
	close_fds(e);
	e->user = NULL;
	e->state = SHM_FAILED;
	if (e->direct)
		e->doomed = true;
	else
		shm_ep_free(e);
}

const struct pv_ep_ops shm_ep_ops = {
	.size = sizeof shm_ep_ops,
	.set_user = ep_set_user,
	.send = ep_send,
	.recv = ep_recv,
	.settle = pv_no_settle,
	.land = pv_no_landing,
	.landed = pv_no_landed,
	.state = ep_state,
	.shutdown = ep_shutdown,
	.connect_result = ep_connect_result,
	.accept = ep_accept,
	.set_backlog = ep_set_backlog,
	.set_options = ep_set_options,
	.info = ep_info,
	.arm_word = ep_arm_word,
	.disarm_word = ep_disarm_word,
	.take_fd = ep_take_fd,
	.share = ep_share,
	.moved = ep_moved,
	.close = ep_close,
};
