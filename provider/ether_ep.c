/* SPDX-License-Identifier: BSD-3-Clause */
/* Endpoints of the ether provider: TCP's view of a transport connection. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "provider/domain_private.h"
#include "provider/ether_private.h"

/* The transport's defaults. */
#define KEEP_IDLE_NS	 (2 * SD_S)
#define KEEP_PATIENCE_NS (5 * SD_S)
#define KEEP_PROBES	 5

/* Lent from this size on, even if it has to wait. */
#define LARGE_WRITE (1u << 20)

struct ether_ep *ether_ep_new(struct ether *x, void *user)
{
	struct ether_ep *e = calloc(1, sizeof *e);

	if (!e)
		return NULL;
	e->ep.ops = &ether_ep_ops;
	e->ep.pv = &x->pv;
	e->user = user;
	e->options = (struct pv_options)PV_OPTIONS_NONE;
	list_init(&e->node);
	list_init(&e->wait.node);
	return e;
}

static void raise_ready(struct ether_ep *e, unsigned events)
{
	if (e->user && events)
		e->ep.pv->ready(e->user, events);
}

static void flush(struct ether_ep *e)
{
	struct engine *g = &ether_of(e)->engine;

	if (tp_output_pending(g->tp) && ether_of(e)->started)
		engine_flush(g, sd_clock_ns());
}

/*
 * A RST that follows a FIN means EPIPE to a TCP socket, and does not take its EOF away. A peer that has
 * fallen silent: with TCP the kernel of a killed program resets its connections, so that is what programs
 * expect; those that have set a limit themselves expect ETIMEDOUT.
 */
static int error_of(const struct ether_ep *e)
{
	int error = e->conn ? tp_error(e->conn) : e->result == -EINPROGRESS ? 0 : e->result;

	if (error == -ETIMEDOUT && e->state == ETHER_OPEN && e->options.keepalive <= 0 &&
		e->options.user_timeout_ms <= 0)
		error = -ECONNRESET;
	return error == -ECONNRESET && e->conn && tp_peer_fin(e->conn) ? -EPIPE : error;
}

/* --- connecting --- */

static void fail(struct ether_ep *e, int result, enum sd_reason reason)
{
	e->state = ETHER_FAILED;
	e->result = result;
	e->reason = reason;
}

static void fail_unresolved(struct ether_ep *e, enum resolver_result r)
{
	switch (r) {
	case RESOLVER_SILENT:
		fail(e, -ETIMEDOUT, SD_REASON_PEER_SILENT);
		break;
	case RESOLVER_NO_LISTENER:
		fail(e, -ECONNREFUSED, SD_REASON_PEER_NO_LISTENER);
		break;
	case RESOLVER_VERSION:
		fail(e, -ECONNREFUSED, SD_REASON_PEER_VERSION);
		break;
	case RESOLVER_LINK_DOWN:
		fail(e, -ENETDOWN, SD_REASON_PORT_DOWN);
		break;
	case RESOLVER_FULL:
		fail(e, -ENOMEM, SD_REASON_NO_MEMORY);
		break;
	case RESOLVER_REFUSED:
	case RESOLVER_PENDING:
	case RESOLVER_FOUND:
		fail(e, -ECONNREFUSED, SD_REASON_PEER_REFUSED);
		break;
	}
}

/* The transport notices a dead peer anyway: a program can only ask for it to be sooner. */
static void apply_keepalive(struct ether_ep *e, const struct pv_options *o, uint64_t now)
{
	const struct pv_ether_config *cfg = &ether_of(e)->cfg;
	uint64_t own_idle = cfg->keepalive_ns ? cfg->keepalive_ns : KEEP_IDLE_NS,
		 own_patience = cfg->dead_timeout_ns ? cfg->dead_timeout_ns : KEEP_PATIENCE_NS;
	/* The defaults of Linux (tcp(7)). */
	uint64_t idle = (o->keep_idle_s > 0 ? o->keep_idle_s : 7200) * SD_S,
		 every = (o->keep_interval_s > 0 ? o->keep_interval_s : 75) * SD_S;
	unsigned count = o->keep_count > 0 ? o->keep_count : 9;

	if (o->keepalive && idle + every * count < own_idle + own_patience)
		tp_set_keepalive(e->conn, now, idle, every, count);
	else
		tp_set_keepalive(e->conn, now, own_idle, own_patience / KEEP_PROBES, KEEP_PROBES);
}

static void apply_options(struct ether_ep *e, const struct pv_options *o)
{
	uint64_t now = sd_clock_ns();

	if (o->nodelay >= 0)
		tp_set_nagle(e->conn, !o->nodelay);
	if (o->cork >= 0)
		tp_set_cork(e->conn, now, o->cork);
	if (o->send_buffer > 0 || o->recv_buffer > 0)
		tp_set_buffers(e->conn, o->send_buffer > 0 ? o->send_buffer : 0,
			o->recv_buffer > 0 ? o->recv_buffer : 0);
	if (o->user_timeout_ms >= 0)
		tp_set_user_timeout(e->conn, o->user_timeout_ms * SD_MS);
	if (o->keepalive >= 0)
		apply_keepalive(e, o, now);
}

static void start_handshake(struct ether_ep *e, const struct tp_path *path, uint64_t now)
{
	struct ether *x = ether_of(e);

	if (tp_connect(x->engine.tp, now, path, e, &e->conn)) {
		fail(e, -ENOMEM, SD_REASON_NO_MEMORY);
		return;
	}
	e->state = ETHER_CONNECTING;
	apply_options(e, &e->options);
	engine_flush(&x->engine, now);
}

void ether_ep_connect(struct ether_ep *e, unsigned port_index, uint64_t now)
{
	struct ether *x = ether_of(e);
	struct tp_path path;
	enum resolver_result r;

	e->result = -EINPROGRESS;
	e->reason = SD_REASON_SAN;
	e->state = ETHER_RESOLVING;
	r = resolver_ask(&x->engine.resolver, now, port_index, &e->local, &e->peer, &e->wait, &path);
	if (r == RESOLVER_FOUND)
		start_handshake(e, &path, now);
	else if (r != RESOLVER_PENDING)
		fail_unresolved(e, r);
	else
		engine_flush(&x->engine, now);
}

void ether_ep_resolved(
	void *ctx, struct resolver_wait *w, enum resolver_result result, const struct tp_path *found)
{
	struct ether_ep *e = container_of(w, struct ether_ep, wait);
	struct tp_path path;

	if (result == RESOLVER_FOUND) {
		/* Whoever asked first left his port in the cached path. */
		engine_path(&ether_of(e)->engine, found->port_index, &e->local, &e->peer, found->hdr, &path);
		start_handshake(e, &path, ether_of(e)->engine.now);
	} else {
		fail_unresolved(e, result);
	}
	if (e->state == ETHER_FAILED)
		raise_ready(e, PV_OUT);
}

static void handshake_failed(struct ether_ep *e)
{
	static const enum sd_reason reasons[] = {
		[TP_OK] = SD_REASON_PEER_SILENT,
		[TP_NO_LISTENER] = SD_REASON_PEER_NO_LISTENER,
		[TP_REFUSED] = SD_REASON_PEER_REFUSED,
		[TP_VERSION] = SD_REASON_PEER_VERSION,
		[TP_BUSY] = SD_REASON_PEER_REFUSED,
	};
	enum tp_code code = tp_connect_code(e->conn);

	resolver_distrust(&ether_of(e)->engine.resolver, &e->peer);
	fail(e, tp_error(e->conn), reasons[code]);
}

void ether_ep_event(void *ctx, struct tp_conn *c, void *user, unsigned events)
{
	struct ether_ep *e = user;
	unsigned ready = 0;

	if (!e)
		return;
	if (e->state == ETHER_CONNECTING) {
		if (events & TP_EV_FAILED) {
			handshake_failed(e);
			raise_ready(e, PV_OUT);
			return;
		}
		if (!(events & TP_EV_OPEN))
			return;
		e->state = ETHER_OPEN;
		e->result = 0;
		ready |= PV_OUT;
	}
	if (events & TP_EV_READABLE)
		ready |= PV_IN | (tp_peer_fin(c) ? PV_RDHUP | (e->wr_shut ? PV_HUP : 0) : 0);
	if (events & TP_EV_WRITABLE)
		ready |= PV_OUT;
	if (events & TP_EV_FAILED)
		ready |= PV_FAILED;
	raise_ready(e, ready);
}

void ether_ep_acceptable(void *ctx, void *user)
{
	raise_ready(user, PV_IN);
}

int ether_ep_listen_now(struct ether_ep *e)
{
	struct ether *x = ether_of(e);
	int r = tp_listen(x->engine.tp, &e->local, e->backlog, e, &e->listener);

	if (!r)
		engine_announce(&x->engine);
	return r;
}

/* --- the SPI --- */

static struct ether_ep *of(struct pv_ep *ep)
{
	return container_of(ep, struct ether_ep, ep);
}

static void ep_set_user(struct pv_ep *ep, void *user)
{
	of(ep)->user = user;
}

/*
 * Lending pays if the bytes leave at once: packets are built first, and what has to be kept is copied
 * afterwards. Of a write that is larger than the ring most is acknowledged before the call is over, and never
 * copied. Whatever else has to wait is better in the ring.
 */
static ptrdiff_t lend(struct ether_ep *e, const struct iovec *v)
{
	bool in_flight = tp_unacked(e->conn) != tp_unsent(e->conn);

	if (in_flight && v->iov_len < LARGE_WRITE)
		return tp_write(e->conn, v->iov_base, v->iov_len);
	return tp_lend(e->conn, v->iov_base, v->iov_len);
}

static inline __attribute__((always_inline)) ssize_t send_some(
	struct ether_ep *e, const struct iovec *iov, int n, unsigned flags, bool lends)
{
	size_t total = 0;
	ptrdiff_t took;

	if (__builtin_expect(e->state != ETHER_OPEN, 0))
		return e->state == ETHER_FAILED ? e->result : -EAGAIN;
	if ((flags & PV_MORE) && !e->more) {
		e->more = true;
		tp_set_cork(e->conn, sd_clock_ns(), true);
	}
	for (int i = 0; i < n; i++) {
		took = lends ? lend(e, &iov[i]) : tp_write(e->conn, iov[i].iov_base, iov[i].iov_len);
		if (took < 0)
			return total ? (ssize_t)total : error_of(e) ? error_of(e) : took;
		total += took;
		if ((size_t)took < iov[i].iov_len)
			break;
	}
	if (!(flags & PV_MORE) && e->more) {
		e->more = false;
		tp_set_cork(e->conn, sd_clock_ns(), e->options.cork == 1);
	}
	flush(e);
	if (total)
		return total;
	for (int i = 0; i < n; i++) {
		if (iov[i].iov_len)
			return -EAGAIN;
	}
	return 0;
}

static ssize_t ep_send(struct pv_ep *ep, const struct iovec *iov, int n, unsigned flags)
{
	if (__builtin_expect(flags & PV_LEND, 0))
		return send_some(of(ep), iov, n, flags, true);
	return send_some(of(ep), iov, n, flags, false);
}

static ssize_t ep_recv(struct pv_ep *ep, const struct iovec *iov, int n, unsigned flags)
{
	struct ether_ep *e = of(ep);
	size_t total = 0;
	ptrdiff_t got = 0;

	if (__builtin_expect(e->state != ETHER_OPEN, 0))
		return e->state == ETHER_FAILED ? e->result : -EAGAIN;
	for (int i = 0; i < n; i++) {
		got = flags & PV_PEEK ? tp_peek(e->conn, iov[i].iov_base, iov[i].iov_len, total)
				      : tp_read(e->conn, iov[i].iov_base, iov[i].iov_len);
		if (got > 0)
			total += got;
		if (got < (ptrdiff_t)iov[i].iov_len)
			break;
	}
	if (total) {
		if (!(flags & PV_PEEK))
			flush(e); /* perhaps a window update */
		return total;
	}
	if (tp_at_eof(e->conn) || e->rd_shut)
		return 0;
	return error_of(e) ? error_of(e) : -EAGAIN;
}

static void ep_settle(struct pv_ep *ep)
{
	struct ether_ep *e = of(ep);

	if (e->conn)
		tp_settle(e->conn);
}

static int ep_land(struct pv_ep *ep, void *data, size_t len, size_t low)
{
	struct ether_ep *e = of(ep);

	return e->state == ETHER_OPEN && !e->rd_shut ? tp_land(e->conn, data, len, low) : -EBUSY;
}

static size_t ep_landed(struct pv_ep *ep)
{
	struct ether_ep *e = of(ep);
	size_t n = tp_land_end(e->conn);

	if (n)
		flush(e); /* perhaps a window update */
	return n;
}

static unsigned open_state(struct ether_ep *e)
{
	unsigned s = 0;
	bool fin = tp_peer_fin(e->conn) || e->rd_shut;

	if (tp_error(e->conn))
		return PV_FAILED;
	if (tp_readable(e->conn) || fin)
		s |= PV_IN;
	if (fin)
		s |= PV_RDHUP | (e->wr_shut ? PV_HUP : 0);
	if (e->wr_shut || tp_is_writable(e->conn))
		s |= PV_OUT;
	return s;
}

static unsigned ep_state(struct pv_ep *ep)
{
	struct ether_ep *e = of(ep);

	switch (e->state) {
	case ETHER_OPEN:
		return open_state(e);
	case ETHER_LISTENING:
		return e->listener && tp_acceptable(e->listener) ? PV_IN : 0;
	case ETHER_FAILED:
		return PV_FAILED;
	case ETHER_RESOLVING:
	case ETHER_CONNECTING:
		break;
	}
	return 0;
}

static int ep_shutdown(struct pv_ep *ep, int how)
{
	struct ether_ep *e = of(ep);

	if (e->state != ETHER_OPEN)
		return -ENOTCONN;
	/* As in TCP, what arrives all the same can still be read. */
	if (how == SHUT_RD || how == SHUT_RDWR)
		e->rd_shut = true;
	if (how == SHUT_WR || how == SHUT_RDWR) {
		e->wr_shut = true;
		tp_shutdown(e->conn);
		flush(e);
	}
	raise_ready(e, open_state(e) & (PV_IN | PV_RDHUP | PV_HUP));
	return 0;
}

static int ep_connect_result(struct pv_ep *ep, enum sd_reason *reason)
{
	struct ether_ep *e = of(ep);

	*reason = e->reason;
	return e->result;
}

static int ep_accept(struct pv_ep *ep, void *user, struct pv_ep **out)
{
	struct ether_ep *l = of(ep), *e;
	struct ether *x = ether_of(l);
	struct tp_info info;

	if (!l->listener || !tp_acceptable(l->listener))
		return -EAGAIN;
	e = ether_ep_new(x, user);
	if (!e)
		return -ENOMEM;
	e->conn = tp_accept(l->listener, e);
	tp_info(e->conn, &info);
	e->local = info.local;
	e->peer = info.peer;
	e->state = ETHER_OPEN;
	e->reason = SD_REASON_SAN;
	*out = &e->ep;
	return 0;
}

static int ep_set_backlog(struct pv_ep *ep, unsigned backlog)
{
	struct ether_ep *e = of(ep);

	e->backlog = backlog;
	if (e->listener)
		tp_listener_set_backlog(e->listener, backlog);
	return 0;
}

static void merge_options(struct pv_options *to, const struct pv_options *from)
{
	if (from->nodelay >= 0)
		to->nodelay = from->nodelay;
	if (from->cork >= 0)
		to->cork = from->cork;
	if (from->keepalive >= 0)
		to->keepalive = from->keepalive;
	if (from->keep_idle_s >= 0)
		to->keep_idle_s = from->keep_idle_s;
	if (from->keep_interval_s >= 0)
		to->keep_interval_s = from->keep_interval_s;
	if (from->keep_count >= 0)
		to->keep_count = from->keep_count;
	if (from->user_timeout_ms >= 0)
		to->user_timeout_ms = from->user_timeout_ms;
	if (from->send_buffer >= 0)
		to->send_buffer = from->send_buffer;
	if (from->recv_buffer >= 0)
		to->recv_buffer = from->recv_buffer;
}

static int ep_set_options(struct pv_ep *ep, const struct pv_options *o)
{
	struct ether_ep *e = of(ep);
	struct pv_options changed = *o;

	merge_options(&e->options, o);
	if (!e->conn)
		return 0;
	/* Any of the keepalive settings means all of them. */
	if (o->keepalive >= 0 || o->keep_idle_s >= 0 || o->keep_interval_s >= 0 || o->keep_count >= 0) {
		changed.keepalive = e->options.keepalive;
		changed.keep_idle_s = e->options.keep_idle_s;
		changed.keep_interval_s = e->options.keep_interval_s;
		changed.keep_count = e->options.keep_count;
	}
	apply_options(e, &changed);
	flush(e);
	return 0;
}

static const char *open_state_name(const struct ether_ep *e)
{
	bool fin = tp_peer_fin(e->conn);

	if (tp_error(e->conn))
		return "CLOSED";
	if (fin)
		return e->wr_shut ? "LAST_ACK" : "CLOSE_WAIT";
	return e->wr_shut ? "FIN_WAIT" : "ESTABLISHED";
}

static const char *state_name(const struct ether_ep *e)
{
	switch (e->state) {
	case ETHER_LISTENING:
		return "LISTEN";
	case ETHER_RESOLVING:
	case ETHER_CONNECTING:
		return "SYN_SENT";
	case ETHER_OPEN:
		return open_state_name(e);
	case ETHER_FAILED:
		break;
	}
	return "CLOSED";
}

static void ep_info(struct pv_ep *ep, struct pv_info *out)
{
	struct ether_ep *e = of(ep);
	struct tp_info t;

	*out = (struct pv_info){.local = e->local, .peer = e->peer};
	out->mss = ether_of(e)->engine.ports[0].info.mtu - 48 - TP_MAX_HEADER / 2;
	snprintf(out->state, sizeof out->state, "%s", state_name(e));
	if (!e->conn)
		return;
	tp_info(e->conn, &t);
	out->bytes_out = t.bytes_sent;
	out->bytes_in = t.bytes_received;
	out->packets_out = t.packets_sent;
	out->packets_in = t.packets_received;
	out->retransmits = t.retransmits;
	out->srtt_ns = t.srtt_ns;
	out->min_rtt_ns = t.min_rtt_ns;
	out->rto_ns = t.rto_ns;
	out->cwnd = t.cwnd;
	out->in_flight = t.in_flight;
	out->send_queued = tp_unacked(e->conn);
	out->send_unsent = tp_unsent(e->conn);
	out->recv_queued = tp_readable(e->conn);
	out->send_room = tp_writable(e->conn);
	out->send_buffer = t.send_ring;
	out->recv_buffer = t.recv_ring;
	if (t.mss)
		out->mss = t.mss;
}

static void ep_close(struct pv_ep *ep, enum pv_close_mode mode)
{
	struct ether_ep *e = of(ep);
	struct ether *x = ether_of(e);

	list_remove(&e->node);
	list_remove(&e->wait.node);
	if (e->listener)
		tp_listener_close(e->listener);
	if (e->conn)
		tp_close(e->conn, sd_clock_ns(), mode == PV_CLOSE_ABORT || e->state != ETHER_OPEN);
	if (x->started && (e->listener || e->conn))
		flush(e);
	free(e);
}

const struct pv_ep_ops ether_ep_ops = {
	.size = sizeof ether_ep_ops,
	.set_user = ep_set_user,
	.send = ep_send,
	.recv = ep_recv,
	.settle = ep_settle,
	.land = ep_land,
	.landed = ep_landed,
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
