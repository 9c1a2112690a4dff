/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * loop: two sockets of one process, joined by a pair of byte rings. A connection is two endpoints; each owns
 * the ring it reads from. Everything happens inside the calls (token held), so there is nothing to progress.
 * A closed endpoint lives on without a user until its peer has closed too, since bytes it sent are still in
 * the peer's ring.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/list.h"
#include "provider/arena.h"
#include "provider/bytering.h"
#include "provider/registry.h"

#define RING_SIZE   (256u << 10)
#define BACKLOG_MAX 4096u

struct loop {
	struct pv pv;
	struct pv *san;
	struct list listeners;
	struct arena arena;
};

struct loop_ep {
	struct pv_ep ep;
	void *user;
	struct sd_addr local, peer_addr;
	/* listener */
	bool listening;
	struct list node;  /* listener: on loop.listeners; connection: on a listener's queue */
	struct list queue; /* connections to accept */
	unsigned queued, backlog;
	/* connection */
	struct loop_ep *peer; /* NULL once it is closed */
	struct bytering in;
	bool wr_shut, rd_shut; /* this side's shutdown() */
	bool fin;	       /* the peer sends no more */
	bool blocked;	       /* our last send found the peer's ring full */
	int error;
	uint64_t sent, received;
};

static const struct pv_ep_ops ep_ops;

static struct loop *loop_of(struct loop_ep *e)
{
	return container_of(e->ep.pv, struct loop, pv);
}

static void raise_ready(struct loop_ep *e, unsigned events)
{
	if (e && e->user)
		e->ep.pv->ready(e->user, events);
}

static struct loop_ep *ep_new(struct loop *l, void *user)
{
	struct loop_ep *e = arena_alloc(&l->arena, sizeof *e);

	if (!e)
		return NULL;
	e->ep.ops = &ep_ops;
	e->ep.pv = &l->pv;
	e->user = user;
	list_init(&e->node);
	list_init(&e->queue);
	return e;
}

static void ep_free(struct loop_ep *e)
{
	struct loop *l = loop_of(e);

	if (e->in.data)
		arena_free(&l->arena, e->in.data, RING_SIZE);
	arena_free(&l->arena, e, sizeof *e);
}

static bool ring_open(struct loop *l, struct loop_ep *e)
{
	e->in.data = arena_alloc(&l->arena, RING_SIZE);
	e->in.size = RING_SIZE;
	return e->in.data != NULL;
}

static struct loop_ep *find_listener(struct loop *l, const struct sd_addr *a)
{
	struct loop_ep *any = NULL;

	list_for_each (it, &l->listeners) {
		struct loop_ep *e = container_of(it, struct loop_ep, node);

		if (e->local.port != a->port)
			continue;
		if (sd_addr_same_ip(&e->local, a))
			return e;
		/* A dual-stack wildcard takes both families; the switch registers it under each. */
		if (sd_addr_is_any(&e->local) && e->local.family == a->family)
			any = e;
	}
	return any;
}

static enum sd_reason loop_route(struct pv *p, const struct sd_addr *peer, struct sd_addr *local)
{
	struct loop *l = container_of(p, struct loop, pv);

	if (sd_addr_is_any(peer) || !l->san->ops->serves(l->san, peer))
		return SD_REASON_NO_ROUTE;
	if (local->family && !l->san->ops->serves(l->san, local))
		return SD_REASON_NO_ROUTE;
	if (!find_listener(l, peer))
		return SD_REASON_LOCAL;
	if (!local->family || sd_addr_is_any(local)) {
		uint16_t port = local->port;

		*local = *peer;
		local->port = port;
	}
	return SD_REASON_LOOP;
}

static bool loop_serves(struct pv *p, const struct sd_addr *local)
{
	struct loop *l = container_of(p, struct loop, pv);

	return l->san->ops->serves(l->san, local);
}

static enum sd_reason loop_start(struct pv *p)
{
	return SD_REASON_LOOP;
}

static int loop_listen(struct pv *p, int socket, const struct sd_addr *local, unsigned backlog, void *user,
	struct pv_ep **out)
{
	struct loop *l = container_of(p, struct loop, pv);
	struct loop_ep *e;

	list_for_each (it, &l->listeners) {
		if (sd_addr_equal(&container_of(it, struct loop_ep, node)->local, local))
			return -EADDRINUSE;
	}
	e = ep_new(l, user);
	if (!e)
		return -ENOMEM;
	e->listening = true;
	e->local = *local;
	e->backlog = backlog < 1 ? 1 : backlog < BACKLOG_MAX ? backlog : BACKLOG_MAX;
	list_push_back(&l->listeners, &e->node);
	*out = &e->ep;
	return 0;
}

static int loop_connect(struct pv *p, int socket, const struct sd_addr *local, const struct sd_addr *peer,
	void *user, struct pv_ep **out)
{
	struct loop *l = container_of(p, struct loop, pv);
	struct loop_ep *listener = find_listener(l, peer), *a, *b;

	if (!listener || listener->queued >= listener->backlog)
		return -ECONNREFUSED;
	a = ep_new(l, user);
	b = ep_new(l, NULL);
	if (!a || !b || !ring_open(l, a) || !ring_open(l, b)) {
		if (a)
			ep_free(a);
		if (b)
			ep_free(b);
		return -ENOMEM;
	}
	a->local = b->peer_addr = *local;
	a->peer_addr = b->local = *peer;
	a->peer = b;
	b->peer = a;
	list_push_back(&listener->queue, &b->node);
	listener->queued++;
	*out = &a->ep;
	raise_ready(listener, PV_IN);
	return 0;
}

static void loop_close(struct pv *p)
{
	struct loop *l = container_of(p, struct loop, pv);

	arena_close(&l->arena);
	free(l);
}

/* --- endpoints --- */

static void ep_set_user(struct pv_ep *ep, void *user)
{
	container_of(ep, struct loop_ep, ep)->user = user;
}

static ssize_t ep_send(struct pv_ep *ep, const struct iovec *iov, int n, unsigned flags)
{
	struct loop_ep *e = container_of(ep, struct loop_ep, ep);
	size_t total = 0, took, want = 0;

	if (e->error)
		return e->error;
	if (e->wr_shut)
		return -EPIPE;
	for (int i = 0; i < n && !e->peer; i++)
		total += iov[i].iov_len;
	if (!e->peer) {
		/* As over a wire: the bytes leave, and what comes back is a RST, which after a FIN means
		 * EPIPE. */
		e->error = -EPIPE;
		raise_ready(e, PV_IN | PV_OUT | PV_ERR | PV_HUP);
		return total;
	}
	for (int i = 0; i < n; i++) {
		took = e->peer->rd_shut ? iov[i].iov_len
					: bytering_write(&e->peer->in, iov[i].iov_base, iov[i].iov_len);
		total += took;
		want += iov[i].iov_len;
		if (took < iov[i].iov_len)
			break;
	}
	e->sent += total;
	if (total)
		raise_ready(e->peer, PV_IN);
	if (total || !want)
		return total;
	e->blocked = true;
	return -EAGAIN;
}

static ssize_t ep_recv(struct pv_ep *ep, const struct iovec *iov, int n, unsigned flags)
{
	struct loop_ep *e = container_of(ep, struct loop_ep, ep);
	size_t total = 0, got;

	for (int i = 0; i < n; i++) {
		if (flags & PV_PEEK)
			got = bytering_peek(&e->in, iov[i].iov_base, iov[i].iov_len, total);
		else
			got = bytering_read(&e->in, iov[i].iov_base, iov[i].iov_len);
		total += got;
		if (got < iov[i].iov_len)
			break;
	}
	if (total && !(flags & PV_PEEK)) {
		e->received += total;
		if (e->peer && e->peer->blocked && bytering_room(&e->in) >= RING_SIZE / 4) {
			e->peer->blocked = false;
			raise_ready(e->peer, PV_OUT);
		}
	}
	if (total)
		return total;
	if (e->error && e->error != -EPIPE)
		return e->error;
	return e->fin || e->rd_shut ? 0 : -EAGAIN;
}

static unsigned ep_state(struct pv_ep *ep)
{
	struct loop_ep *e = container_of(ep, struct loop_ep, ep);
	unsigned s = 0;

	if (e->listening)
		return list_empty(&e->queue) ? 0 : PV_IN;
	if (e->error)
		return PV_IN | PV_OUT | PV_RDHUP | PV_HUP | PV_ERR;
	if (bytering_used(&e->in))
		s |= PV_IN;
	if (e->fin || e->rd_shut)
		s |= PV_IN | PV_RDHUP;
	if ((e->fin || e->rd_shut) && e->wr_shut)
		s |= PV_HUP;
	if (e->wr_shut || !e->peer || bytering_room(&e->peer->in) >= RING_SIZE / 4)
		s |= PV_OUT;
	else
		e->blocked = true;
	return s;
}

static int ep_shutdown(struct pv_ep *ep, int how)
{
	struct loop_ep *e = container_of(ep, struct loop_ep, ep);

	if (e->listening)
		return -EINVAL;
	if (how == SHUT_RD || how == SHUT_RDWR) {
		e->rd_shut = true;
		raise_ready(e, PV_IN | PV_RDHUP);
	}
	if ((how == SHUT_WR || how == SHUT_RDWR) && !e->wr_shut) {
		e->wr_shut = true;
		if (e->peer) {
			e->peer->fin = true;
			raise_ready(e->peer, PV_IN | PV_RDHUP | (e->peer->wr_shut ? PV_HUP : 0));
		}
	}
	if (e->wr_shut && e->fin)
		raise_ready(e, PV_HUP);
	return 0;
}

static int ep_connect_result(struct pv_ep *ep, enum sd_reason *reason)
{
	*reason = SD_REASON_LOOP;
	return container_of(ep, struct loop_ep, ep)->error;
}

static int ep_accept(struct pv_ep *ep, void *user, struct pv_ep **out)
{
	struct loop_ep *l = container_of(ep, struct loop_ep, ep), *e;
	struct list *first = list_pop_front(&l->queue);

	if (!first)
		return -EAGAIN;
	l->queued--;
	e = container_of(first, struct loop_ep, node);
	e->user = user;
	*out = &e->ep;
	return 0;
}

static int ep_set_backlog(struct pv_ep *ep, unsigned backlog)
{
	struct loop_ep *e = container_of(ep, struct loop_ep, ep);

	e->backlog = backlog < 1 ? 1 : backlog < BACKLOG_MAX ? backlog : BACKLOG_MAX;
	return 0;
}

static int ep_set_options(struct pv_ep *ep, const struct pv_options *o)
{
	return 0; /* nothing to delay, probe or size */
}

static void ep_info(struct pv_ep *ep, struct pv_info *out)
{
	struct loop_ep *e = container_of(ep, struct loop_ep, ep);

	*out = (struct pv_info){.local = e->local, .peer = e->peer_addr};
	snprintf(out->state, sizeof out->state, "%s",
		e->listening	       ? "LISTEN"
		: e->error	       ? "CLOSED"
		: e->fin && e->wr_shut ? "LAST_ACK"
		: e->fin	       ? "CLOSE_WAIT"
		: e->wr_shut	       ? "FIN_WAIT"
				       : "ESTABLISHED");
	out->bytes_out = e->sent;
	out->bytes_in = e->received;
	out->recv_queued = bytering_used(&e->in);
	out->send_queued = out->send_unsent = 0;
	out->send_room = e->peer && !e->wr_shut ? bytering_room(&e->peer->in) : 0;
	out->send_buffer = out->recv_buffer = RING_SIZE;
	out->mss = RING_SIZE;
}

/* What a connection's end means to the other end. */
static void part(struct loop_ep *e, bool reset)
{
	struct loop_ep *p = e->peer;

	if (!p)
		return;
	e->peer = NULL;
	p->peer = NULL;
	p->fin = true;
	if (reset) {
		p->error = -ECONNRESET;
		raise_ready(p, PV_IN | PV_OUT | PV_ERR | PV_HUP | PV_RDHUP);
	} else {
		raise_ready(p, PV_IN | PV_RDHUP | PV_OUT | (p->wr_shut ? PV_HUP : 0));
	}
}

static void ep_close(struct pv_ep *ep, enum pv_close_mode mode)
{
	struct loop_ep *e = container_of(ep, struct loop_ep, ep), *waiting;
	struct list *it;

	list_remove(&e->node);
	while ((it = list_pop_front(&e->queue))) {
		waiting = container_of(it, struct loop_ep, node);
		part(waiting, true);
		ep_free(waiting);
	}
	if (!e->listening)
		part(e, mode == PV_CLOSE_ABORT || (bytering_used(&e->in) && !e->rd_shut));
	ep_free(e);
}

static const struct pv_ep_ops ep_ops = {
	.size = sizeof ep_ops,
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
	.arm_word = pv_no_word,
	.disarm_word = pv_no_disarm_word,
	.take_fd = pv_no_fd,
	.share = pv_no_share,
	.moved = pv_no_move,
	.close = ep_close,
};

static const struct pv_ops ops = {
	.size = sizeof ops,
	.name = "loop",
	.route = loop_route,
	.serves = loop_serves,
	.start = loop_start,
	.listen = loop_listen,
	.connect = loop_connect,
	.adopt = pv_no_adopt,
	.in_child = pv_no_child,
	.confine = pv_no_confine,
	.progress = pv_no_progress,
	.deadline = pv_no_deadline,
	.arm = pv_no_arm,
	.disarm = pv_no_disarm,
	.slow = pv_no_slow,
	.lingering = pv_no_lingering,
	.close = loop_close,
};

int pv_loop_open(struct pv *san, pv_ready_fn *ready, struct pv **out)
{
	struct loop *l = calloc(1, sizeof *l);

	if (!l)
		return -ENOMEM;
	l->pv.ops = &ops;
	l->pv.ready = ready;
	l->san = san;
	list_init(&l->listeners);
	*out = &l->pv;
	return 0;
}
