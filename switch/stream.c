/* SPDX-License-Identifier: BSD-3-Clause */
/* Moving bytes over the SAN path: the semantics of send and receive on a TCP socket. */
#include "switch/stream.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "switch/wait.h"

/* --- errors --- */

/* The terminal error of a connection is reported once, as the kernel does; then sends are EPIPE, and receives
 * EOF. */
static ssize_t tell_error(struct sw_sock *s, ssize_t error, ssize_t told)
{
	if (s->error_told)
		return told;
	s->error_told = true;
	return error;
}

/* What an operation gives in a state without a connection; 1: wait, a connect is under way. */
static ssize_t unconnected(struct sw_sock *s, bool sending)
{
	int error = s->so_error;

	switch (s->state) {
	case SW_CONNECTING:
		return 1;
	case SW_FAILED:
		s->so_error = 0;
		if (error)
			return -error;
		return sending ? -EPIPE : 0;
	case SW_DEAD:
		sw_stream_say_dead(s);
		return -EBADF;
	case SW_LISTENING:
		return sending ? -EPIPE : -ENOTCONN;
	case SW_IDLE:
	case SW_KERNEL:
	case SW_CONNECTED:
		break;
	}
	return sending ? -EPIPE : -ENOTCONN;
}

void sw_stream_say_dead(struct sw_sock *s)
{
	static bool said;

	/* At exit they are gone before the threads that use them. */
	if (said || sw_rt.exiting)
		return;
	said = true;
	sd_warn("descriptor %d is a SAN connection of the process that this one was forked from; it stays "
		"there, and is EBADF "
		"here. Programs that hand connections to children need rule = tcp",
		s->fd);
}

/* --- io vectors --- */

/* A window on the caller's vector that moves on as bytes are taken. */
struct cursor {
	const struct iovec *iov;
	int n;
	size_t skip; /* of iov[0] */
	size_t left;
};

#define WINDOW 16

/* *len: bytes that it has. */
static unsigned cursor_window(const struct cursor *c, struct iovec *out, size_t *len)
{
	unsigned n = 0;

	*len = 0;
	for (int i = 0; i < c->n && n < WINDOW; i++) {
		size_t skip = i ? 0 : c->skip;

		if (c->iov[i].iov_len == skip)
			continue;
		out[n].iov_base = (char *)c->iov[i].iov_base + skip;
		out[n].iov_len = c->iov[i].iov_len - skip;
		*len += out[n++].iov_len;
	}
	return n;
}

static void cursor_move(struct cursor *c, size_t by)
{
	c->left -= by;
	c->skip += by;
	while (c->n && c->skip >= c->iov->iov_len) {
		c->skip -= c->iov->iov_len;
		c->iov++;
		c->n--;
	}
}

static ssize_t cursor_open(struct cursor *c, const struct iovec *iov, int n)
{
	*c = (struct cursor){.iov = iov, .n = n};
	if (n < 0 || n > IOV_MAX)
		return -EINVAL;
	for (int i = 0; i < n; i++) {
		if (iov[i].iov_len > SSIZE_MAX - c->left)
			return -EINVAL;
		c->left += iov[i].iov_len;
	}
	return 0;
}

/* --- one attempt --- */

/* As much as goes at once. > 0: bytes; -EAGAIN; 0 with nothing to do; an error. */
static ssize_t send_some(struct sw_sock *s, struct cursor *c, unsigned pv_flags)
{
	struct iovec window[WINDOW];
	ssize_t done = 0, r;
	unsigned n;
	size_t want;

	do {
		n = cursor_window(c, window, &want);
		r = s->ep->ops->send(s->ep, window, (int)n, c->left > want ? pv_flags | PV_MORE : pv_flags);
		if (r <= 0)
			return done ? done : r;
		done += r;
		cursor_move(c, (size_t)r);
	} while (c->left && (size_t)r == want);
	return done;
}

static ssize_t recv_some(struct sw_sock *s, struct cursor *c, unsigned pv_flags)
{
	struct iovec window[WINDOW];
	ssize_t done = 0, r;
	unsigned n;
	size_t want;

	do {
		n = cursor_window(c, window, &want);
		r = s->ep->ops->recv(s->ep, window, (int)n, pv_flags);
		if (r <= 0)
			return done ? done : r;
		done += r;
		if (pv_flags & PV_PEEK)
			return done; /* from the front each time: one window has to do */
		cursor_move(c, (size_t)r);
	} while (c->left && (size_t)r == want);
	return done;
}

/* --- the calls --- */

/*
 * Large transfers go by the rings: a provider may send from the caller's memory, and receive into it, while
 * the call lasts. Before it returns, or a handler runs, the memory is the caller's alone again. Smaller ones
 * gain nothing by it.
 */
#define LEND_MIN (8u << 10)
#define LAND_MIN (4u << 10)

struct call {
	struct sw_sock *s; /* NULL: it has gone while a handler ran */
	int fd;
	struct cursor at;
	struct sw_wait wait;
	ssize_t done;
	size_t want;		/* a receive's: how many bytes it waits for; 0: it sends */
	struct pv_ep *borrower; /* who may use the memory at the moment */
	bool lends;		/* it has enough of it for that to pay */
	bool block;
	bool waiting; /* wait has begun */
	bool pinned;  /* another thread may close the descriptor while this one waits */
	bool outside; /* the process exits: the domain could not be entered again */
};

/* A receive that has found nothing offers its buffer before it looks for packets. */
static void lend_buffer(struct call *c)
{
	size_t low = c->want - (size_t)c->done, len;
	struct pv_ep *ep = c->s->ep;

	if (c->s->state != SW_CONNECTED)
		return;
	len = c->at.iov->iov_len - c->at.skip;
	if (len < LAND_MIN)
		return;
	if (!ep->ops->land(ep, (char *)c->at.iov->iov_base + c->at.skip, len, low < len ? low : len))
		c->borrower = ep;
}

static void take_back(struct call *c)
{
	struct pv_ep *ep = c->borrower;
	size_t n;

	c->borrower = NULL;
	if (ep != c->s->ep) /* at exit it has been closed */
		return;
	if (!c->want) {
		ep->ops->settle(ep);
		return;
	}
	n = ep->ops->landed(ep);
	c->done += (ssize_t)n;
	cursor_move(&c->at, n);
}

/* Nothing goes at the moment: 0 to try again, else what the call returns (1 stands for done). */
static ssize_t hold_on(struct call *c, uint64_t timeout_ns)
{
	struct sw_sock *s = c->s;
	bool inside = true;
	int r;

	if (!c->block)
		return c->done ? 1 : -EAGAIN;
	if (!c->waiting) {
		sw_wait_begin(&c->wait, timeout_ns ? timeout_ns : SW_FOREVER, !timeout_ns);
		c->waiting = true;
	}
	if (!c->pinned)
		sw_obj_pin(&s->obj);
	c->pinned = true;
	if (c->lends && c->want)
		lend_buffer(c);
	r = sw_wait_on(&c->wait, &s->waiters, s->ep, NULL, 0);
	if (c->borrower && (c->want || r == -EINTR))
		take_back(c);
	if (r == -EINTR) {
		r = sw_sock_step_out(&c->s, c->fd, &c->wait, &inside);
		c->waiting = false;
		c->pinned = c->s != NULL;
		c->outside = !inside;
		/* Not restarted, as some of it has been done; unless no handler ran, but another thread was
		 * cancelled. */
		if (c->done && sw_sigstate.delivered != c->wait.delivered)
			return 1;
	}
	if (r == -ETIMEDOUT)
		r = -EAGAIN;
	return r && c->done ? 1 : r;
}

static ssize_t send_loop(struct call *c, unsigned pv_flags)
{
	struct sw_sock *s = c->s;
	ssize_t r;

	c->lends = c->at.left >= LEND_MIN;
	if (c->lends)
		pv_flags |= PV_LEND;
	for (;;) {
		if (__builtin_expect(s->state != SW_CONNECTED, 0)) {
			r = unconnected(s, true);
			if (s->state == SW_KERNEL)
				return SW_NOT_OURS;
		} else {
			if (__builtin_expect(c->lends, 0))
				c->borrower = s->ep;
			r = send_some(s, &c->at, pv_flags);
			if (r >= 0) {
				c->done += r;
				if (!c->at.left)
					return c->done;
				continue;
			}
			if (r == -EAGAIN && sw_progress())
				continue;
			if (r != -EAGAIN) {
				if (c->done)
					return c->done;
				if (r == -EPIPE || r == -ENOMEM) /* which is not the connection's end */
					return r;
				return tell_error(s, r, -EPIPE);
			}
		}
		if (r < 0 && r != -EAGAIN)
			return r;
		r = hold_on(c, s->send_timeout_ns);
		if (r)
			return r == 1 ? c->done : r;
	}
}

/* How many bytes a receive waits for. */
static size_t target(const struct sw_sock *s, const struct cursor *at, int flags)
{
	size_t low = flags & MSG_WAITALL ? at->left : (size_t)s->recv_low;

	return low < at->left ? low : at->left;
}

static bool satisfied(const struct call *c)
{
	return c->done && (size_t)c->done >= c->want;
}

static ssize_t recv_loop(struct call *c, int flags)
{
	struct sw_sock *s = c->s;
	unsigned pv_flags = flags & MSG_PEEK ? PV_PEEK : 0;
	struct iovec window[WINDOW];
	bool polled = false, ended;
	size_t most;
	ssize_t r;

	c->want = target(s, &c->at, flags);
	if (pv_flags) {
		cursor_window(&c->at, window, &most); /* a peek gets no more */
		c->want = c->want < most ? c->want : most;
	}
	c->lends = !pv_flags && c->at.left >= LAND_MIN;
	for (;;) {
		if (__builtin_expect(s->state != SW_CONNECTED, 0)) {
			r = unconnected(s, false);
			if (s->state == SW_KERNEL)
				return SW_NOT_OURS;
			if (r <= 0)
				return r;
		} else {
			ended = pv_flags && s->ep->ops->state(s->ep) & (PV_RDHUP | PV_ERR | PV_HUP);
			r = recv_some(s, &c->at, pv_flags);
			if (r == 0 || (r < 0 && r != -EAGAIN)) {
				if (c->done || !r)
					return c->done;
				return tell_error(s, r, 0);
			}
			if (r > 0) {
				if (pv_flags & PV_PEEK)
					c->done = 0; /* the same bytes as last time, and more */
				c->done += r;
				/* A peek never gets to the end, which would tell that this is all. */
				if (satisfied(c) || ended)
					return c->done;
			}
			if (!polled) {
				polled = true;
				if (__builtin_expect(c->lends, 0))
					lend_buffer(c);
				r = sw_progress();
				if (__builtin_expect(c->borrower != NULL, 0)) {
					take_back(c);
					if (satisfied(c))
						return c->done;
				}
				if (r)
					continue;
			}
		}
		r = hold_on(c, s->recv_timeout_ns);
		if (r)
			return r == 1 ? c->done : r;
		if (satisfied(c))
			return c->done;
	}
}

static bool blocks(const struct sw_sock *s, int flags)
{
	return !s->nonblock && !(flags & MSG_DONTWAIT);
}

/* Finds the socket at fd; domain entered on success. */
static ssize_t call_open(struct call *c, int fd, const struct iovec *iov, int n)
{
	ssize_t r;

	*c = (struct call){.fd = fd};
	r = cursor_open(&c->at, iov, n);
	if (r)
		return r;
	if (!sw_enter())
		return SW_NOT_OURS;
	c->s = sw_sock_hot(fd);
	if (!c->s) {
		sw_leave();
		return SW_NOT_OURS;
	}
	return 0;
}

static void call_close(struct call *c)
{
	if (c->outside)
		return;
	if (c->pinned)
		sw_obj_unpin(&c->s->obj);
	sw_leave();
}

/* Nobody but this process writes it. */
static void count(uint64_t *bytes, ssize_t r)
{
	if (bytes && r > 0)
		__atomic_store_n(bytes, *bytes + (uint64_t)r, __ATOMIC_RELAXED);
}

static void raise_sigpipe(void)
{
	pthread_kill(pthread_self(), SIGPIPE);
}

ssize_t sw_stream_send(int fd, const struct iovec *iov, int n, int flags)
{
	struct call c;
	ssize_t r = call_open(&c, fd, iov, n);

	if (r)
		return r;
	if (flags & MSG_OOB) {
		r = -EOPNOTSUPP; /* there is no urgent pointer on the SAN path, and half of it would be worse
				  */
	} else {
		c.block = blocks(c.s, flags);
		r = send_loop(&c, flags & MSG_MORE ? PV_MORE : 0);
		if (__builtin_expect(c.borrower != NULL, 0))
			take_back(&c);
		count(c.s ? c.s->stat_out : NULL, r);
	}
	call_close(&c);
	if (r == -EPIPE && !(flags & MSG_NOSIGNAL))
		raise_sigpipe();
	return r;
}

ssize_t sw_stream_recv(int fd, const struct iovec *iov, int n, int flags)
{
	struct call c;
	ssize_t r = call_open(&c, fd, iov, n);

	if (r)
		return r;
	if (flags & MSG_OOB) {
		r = -EINVAL;
	} else if (flags & MSG_ERRQUEUE) {
		r = -EAGAIN;
	} else {
		c.block = blocks(c.s, flags);
		r = c.at.left || c.s->state != SW_CONNECTED ? recv_loop(&c, flags) : 0;
		count(c.s && !(flags & MSG_PEEK) ? c.s->stat_in : NULL, r);
	}
	call_close(&c);
	return r;
}
