/* SPDX-License-Identifier: BSD-3-Clause */
/* Bursts in, bursts out. Everything here is on the path of every packet: no allocation, lock or log. */
#include "provider/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

/* How often the kernel is asked for what it has to send. */
#define KERNEL_MIN_NS (20 * SD_US)
#define KERNEL_MAX_NS (1 * SD_MS)
/* Room in front of a packet for any header; the frame then starts where its own header does. */
#define HEADROOM	 ENCAP_MAX
#define ENTROPY_PORT_MIN 49152u
#define STRIDE		 2u /* frames between the steps by which their connections are fetched, */
#define AHEAD		 (STRIDE * TP_WARM_STEPS) /* and from the first step until a frame's turn */
/* A port that takes nothing keeps its frames for so long: with others beside it, which wait for it, and
 * alone. */
#define STUCK_NS       (10 * SD_MS)
#define STUCK_ALONE_NS (200 * SD_MS)
#define NOWHERE	       (16u << 10) /* room for any packet */
#define LATE_NS	       (50 * SD_US) /* packets not looked for for so long tell nothing of the network's delay */

static const uint8_t broadcast_mac[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

/* --- what the transport asks for --- */

static void on_event(void *ctx, struct tp_conn *c, void *user, unsigned events)
{
	struct engine *e = ctx;

	e->ops.event(e->ops.ctx, c, user, events);
}

static void on_acceptable(void *ctx, struct tp_listener *l, void *user)
{
	struct engine *e = ctx;

	e->ops.acceptable(e->ops.ctx, user);
}

static bool on_reverse(void *ctx, const struct tp_rx *rx, struct tp_path *out)
{
	const uint8_t *eth = rx->frame;
	struct sd_addr local = *rx->local, peer = *rx->peer;

	local.port = out->local.port;
	peer.port = out->peer.port;
	engine_path(ctx, rx->port_index, &local, &peer, eth + 6, out);
	return true;
}

static void on_found(void *ctx, const struct tp_found *f)
{
	struct engine *e = ctx;

	resolver_found(&e->resolver, e->now, f);
}

static void on_repath(void *ctx, struct tp_path *path, uint16_t entropy)
{
	encap_set_entropy(path->hdr, path->hdr_len, ENTROPY_PORT_MIN + entropy % (65536u - ENTROPY_PORT_MIN));
}

static void on_qp_event(void *ctx, struct tp_qp *qp, void *user, unsigned events)
{
	struct engine *e = ctx;

	e->ops.qp_event(e->ops.ctx, qp, user, events);
}

static void on_completion(void *ctx, struct tp_cq *cq, void *user)
{
	struct engine *e = ctx;

	e->ops.completion(e->ops.ctx, cq, user);
}

static void *on_alloc(void *ctx, size_t size)
{
	struct engine *e = ctx;

	return arena_alloc(&e->arena, size);
}

static void on_free(void *ctx, void *p, size_t size)
{
	struct engine *e = ctx;

	arena_free(&e->arena, p, size);
}

static void on_idle(void *ctx, void *p, size_t size)
{
	arena_idle(p, size);
}

/* The port is done with what it was sent from. */
static void on_released(void *ctx, uint64_t token)
{
	struct engine *e = ctx;

	if (e->tp)
		tp_release(e->tp, token);
}

static const struct tp_ops transport_ops = {
	.size = sizeof transport_ops,
	.event = on_event,
	.acceptable = on_acceptable,
	.reverse = on_reverse,
	.found = on_found,
	.repath = on_repath,
	.alloc = on_alloc,
	.free = on_free,
	.idle = on_idle,
	.qp_event = on_qp_event,
	.completion = on_completion,
};

/* --- life --- */

int engine_open(struct engine *e, const struct tp_config *cfg, const struct resolver_config *rc,
	const struct engine_ops *ops, uint64_t now)
{
	memset(e, 0, sizeof *e);
	e->ops = *ops;
	e->now = now;
	e->direct_min = UINT32_MAX;
	e->verify_csum = !cfg->crc;
	resolver_open(&e->resolver, e, rc);
	return tp_create(cfg, &transport_ops, e, now, &e->tp);
}

int engine_add_port(struct engine *e, struct port *port)
{
	struct engine_port *p = &e->ports[e->n_ports];

	if (e->n_ports == ENGINE_MAX_PORTS)
		return -ENOSPC;
	if (!e->nowhere)
		e->nowhere = malloc(NOWHERE);
	if (!e->nowhere)
		return -ENOMEM;
	p->port = port;
	port->ops->info(port, &p->info);
	p->direct = p->info.caps & PORT_CAP_EXT_TX && p->info.caps & PORT_CAP_TX_CSUM;
	if (p->direct)
		port->ops->set_released(port, on_released, e);
	e->n_ports++;
	return 0;
}

void engine_remove_ports(struct engine *e)
{
	for (unsigned i = 0; i < e->n_ports; i++) {
		struct engine_port *p = &e->ports[i];

		p->port->ops->tx_put(p->port, p->spare, p->n_spare);
		p->port->ops->tx_put(p->port, p->unsent, p->n_unsent);
		if (p->kernel)
			miniport_close(p->kernel);
		port_close(p->port);
		memset(p, 0, sizeof *p);
	}
	e->n_ports = 0;
	free(e->nowhere);
	e->nowhere = NULL;
}

void engine_close(struct engine *e)
{
	if (e->tp)
		tp_destroy(e->tp);
	e->tp = NULL;
	engine_remove_ports(e);
	resolver_close(&e->resolver);
	arena_close(&e->arena);
}

void engine_path(const struct engine *e, unsigned index, const struct sd_addr *local,
	const struct sd_addr *peer, const uint8_t *dst_mac, struct tp_path *out)
{
	const struct engine_port *p = &e->ports[index];
	struct encap_flow f = {.src = *local, .dst = *peer, .ecn = 2};

	memcpy(f.src_mac, p->info.mac, 6);
	memcpy(f.dst_mac, dst_mac ? dst_mac : broadcast_mac, 6);
	/* ECMP and RSS spread by the UDP source port: one per connection. */
	f.src.port = ENTROPY_PORT_MIN + (local->port * 31u + peer->port) % (65536u - ENTROPY_PORT_MIN);
	f.dst.port = TP_UDP_PORT;
	out->local = *local;
	out->peer = *peer;
	out->port_index = index;
	out->hdr_len = encap_template(&f, out->hdr);
	out->max_payload = p->info.mtu - (out->hdr_len - 14);
}

static bool is_own(const struct engine_port *p, const struct sd_addr *a)
{
	for (unsigned i = 0; i < p->n_addrs; i++) {
		if (sd_addr_same_ip(&p->addrs[i], a))
			return true;
	}
	return false;
}

static bool is_down(const struct engine_port *p)
{
	return p->info.caps & PORT_CAP_LINK && !p->info.link_up;
}

/* By a port whose link is down, which may have no frames at all, when that is up. */
static void announce(struct engine *e, unsigned index, const struct sd_addr *addr)
{
	struct sd_addr all = {.family = addr->family};
	struct tp_path path;

	if (!(e->ports[index].info.caps & PORT_CAP_BROADCAST) || is_down(&e->ports[index]))
		return;
	if (addr->family == 4) {
		memset(all.ip, 0xff, 4);
	} else {
		/* ff02::1, all nodes of the link (RFC 4291 section 2.7.1) */
		all.ip[0] = 0xff;
		all.ip[1] = 0x02;
		all.ip[15] = 0x01;
	}
	engine_path(e, index, addr, &all, NULL, &path);
	tp_hello(e->tp, &path);
}

void engine_announce(struct engine *e)
{
	for (unsigned i = 0; i < e->n_ports; i++) {
		for (unsigned j = 0; j < e->ports[i].n_addrs; j++)
			announce(e, i, &e->ports[i].addrs[j]);
	}
}

void engine_set_addrs(struct engine *e, unsigned index, const struct sd_addr *addrs, unsigned n)
{
	struct engine_port *p = &e->ports[index];
	struct engine_port before = {.n_addrs = p->n_addrs};

	if (n > ENGINE_MAX_ADDRS)
		n = ENGINE_MAX_ADDRS;
	memcpy(before.addrs, p->addrs, sizeof before.addrs);
	if (n)
		memcpy(p->addrs, addrs, n * sizeof *addrs);
	p->n_addrs = n;
	p->known.hdr_len = 0; /* it may not be ours any more */
	for (unsigned i = 0; i < n; i++) {
		if (!is_own(&before, &addrs[i]))
			announce(e, index, &addrs[i]);
	}
}

void engine_poll_links(struct engine *e, uint64_t now)
{
	for (unsigned i = 0; i < e->n_ports; i++) {
		struct engine_port *p = &e->ports[i];
		uint16_t mtu = p->info.mtu;

		if (!p->port->ops->link_poll(p->port))
			continue;
		p->port->ops->info(p->port, &p->info);
		if (p->kernel) {
			miniport_set_link(p->kernel, p->info.link_up || !(p->info.caps & PORT_CAP_LINK));
			miniport_set_caps(p->kernel, p->info.caps);
			if (p->info.mtu != mtu)
				miniport_set_mtu(p->kernel, p->info.mtu);
		}
		/* Also when it goes on by other ways: those between learn of it. */
		if (p->info.link_up)
			engine_announce(e);
	}
	engine_flush(e, now);
}

/* --- packets --- */

static bool is_for_all(const struct sd_addr *a)
{
	return a->family == 4 ? a->ip[0] == 0xff && a->ip[1] == 0xff && a->ip[2] == 0xff && a->ip[3] == 0xff
			      : a->ip[0] == 0xff;
}

/* Of another flow than the last one. False: it is none of ours. */
static bool take_apart(struct engine *e, struct engine_port *p, const struct port_frame *f, bool verify)
{
	const struct encap_flow *flow = &p->view.flow;

	p->known.hdr_len = 0;
	if (encap_parse(f->data, f->len, TP_UDP_PORT, verify, &p->view))
		return false;
	if (!is_own(p, &flow->dst) && !is_for_all(&flow->dst)) {
		e->stats.rx_foreign++;
		return false;
	}
	encap_know(&p->known, f->data, f->len, &p->view);
	return true;
}

/* False: it is none of ours. */
static bool receive_frame(struct engine *e, unsigned index, const struct port_frame *f, uint64_t now)
{
	struct engine_port *p = &e->ports[index];
	bool verify = e->verify_csum && !(f->flags & PORT_RX_CSUM_OK);
	struct encap_view *v = &p->view;
	struct tp_rx rx;

	if (f->flags & PORT_RX_CSUM_BAD)
		return false;
	if ((verify || !encap_is_known(&p->known, f->data, f->len, v)) && !take_apart(e, p, f, verify))
		return false;
	rx = (struct tp_rx){.local = &v->flow.dst,
		.peer = &v->flow.src,
		.frame = f->data,
		.port_index = (uint8_t)index,
		.ce = v->ce,
		.astray = f->flags & PORT_RX_HANDED,
		.late = e->late};
	tp_input(e->tp, now, v->payload, v->payload_len, &rx);
	return true;
}

/* The transport learns of frames before their turn: the newest is i. Whether they are ours is not looked at
 * yet. */
static void expect(struct engine *e, const struct port_frame *frames, unsigned n, unsigned i)
{
	for (unsigned step = 0; step < TP_WARM_STEPS && i >= step * STRIDE; step++) {
		unsigned k = i - step * STRIDE;
		const struct port_frame *f = &frames[k];
		unsigned at;

		if (k >= n)
			continue;
		at = f->len > ENCAP_MAX && f->data[12] == 0x86 ? ENCAP_V6 : ENCAP_V4;
		if (f->len > at)
			tp_expect(e->tp, f->data + at, f->len - at, step);
	}
}

/* Those of the next frame are fetched while this one's bytes are looked at. */
static void want_headers(const struct port_frame *f)
{
	__builtin_prefetch(f->data);
	__builtin_prefetch(f->data + 64);
}

/* *backlog: of the fullest receive queue, in 256ths. */
static unsigned receive(struct engine *e, unsigned index, uint64_t now, unsigned *backlog)
{
	struct engine_port *p = &e->ports[index];
	struct port *port = p->port;
	struct port_frame frames[ENGINE_BURST], others[ENGINE_BURST];
	unsigned n = port->ops->rx(port, frames, ENGINE_BURST), n_others = 0;
	bool crowded;

	if (!n)
		return 0;
	if (n == ENGINE_BURST && port->ops->backlog) {
		unsigned part = port->ops->backlog(port);

		*backlog = part > *backlog ? part : *backlog;
	}
	crowded = tp_is_crowded(e->tp);
	for (unsigned i = 0; crowded && i < AHEAD; i++)
		expect(e, frames, n, i);
	for (unsigned i = 0; i < n; i++) {
		if (__builtin_expect(crowded, 0))
			expect(e, frames, n, i + AHEAD);
		if (i + 1 < n)
			want_headers(&frames[i + 1]);
		if (!receive_frame(e, index, &frames[i], now))
			others[n_others++] = frames[i];
	}
	if (p->kernel && n_others) {
		miniport_to_kernel(p->kernel, others, n_others);
		p->kernel_pace.next = 0; /* it may have an answer */
	}
	port->ops->rx_done(port, frames, n);
	return n;
}

/* Hands frames to the NIC. What it does not take is kept, but not for ever: it may be the first of them that
 * it never will, such as one that its peer has no buffer for. */
static void transmit(
	struct engine *e, struct engine_port *p, struct port_frame *frames, unsigned n, uint64_t now)
{
	unsigned sent = p->port->ops->tx(p->port, frames, n);

	p->n_unsent = 0;
	if (__builtin_expect(sent == n, 1)) {
		p->blocked_at = 0;
		return;
	}
	if (sent || !p->blocked_at)
		p->blocked_at = now;
	if (now - p->blocked_at > (e->n_ports > 1 ? STUCK_NS : STUCK_ALONE_NS)) {
		e->stats.tx_stuck += n - sent;
		p->port->ops->tx_put(p->port, frames + sent, n - sent);
		return;
	}
	memmove(p->unsent, frames + sent, (n - sent) * sizeof *frames);
	p->n_unsent = n - sent;
}

/* A port whose link is down loses what it has, as a cable would. */
static void drain_unsent(struct engine *e, struct engine_port *p, uint64_t now)
{
	if (is_down(p)) {
		e->stats.tx_link_down += p->n_unsent;
		p->port->ops->tx_put(p->port, p->unsent, p->n_unsent);
		p->n_unsent = 0;
		return;
	}
	transmit(e, p, p->unsent, p->n_unsent, now);
}

/* False: what it has must leave first. */
static bool may_take(struct engine *e, struct engine_port *p, uint64_t now)
{
	if (p->n_unsent)
		drain_unsent(e, p, now);
	return !p->n_unsent;
}

/* Has p a spare frame, and if possible another one, whose memory can be fetched already? Takes few more than
 * may be needed: a frame that has just come back is still in the cache. */
static bool refill(struct engine_port *p, unsigned want, bool another)
{
	struct port_frame next = p->spare[0];
	unsigned had = p->n_spare;

	if (had > another)
		return true;
	p->n_spare = p->port->ops->tx_get(p->port, p->spare, want);
	if (had)
		p->spare[p->n_spare++] = next;
	return p->n_spare;
}

/* A frame of this length will be written after the next one: its memory is fetched meanwhile. */
static void want_lines(uint8_t *at, uint32_t len)
{
	for (uint32_t i = 0; i < len; i += 64) {
#if defined(__x86_64__)
		__asm__ volatile("prefetchw %0" ::"m"(at[i])); /* the builtin's would fetch for reading */
#else
		__builtin_prefetch(at + i, 1);
#endif
	}
}

/* Copies to the frame, behind what is there of the packet, what is not. */
static void fill_frame(uint8_t *to, const struct tp_parts *parts)
{
	for (unsigned i = 0; i < parts->n; i++) {
		memcpy(to, parts->piece[i].at, parts->piece[i].len);
		to += parts->piece[i].len;
	}
	memcpy(to, parts->trailer, parts->trailer_len);
}

/* The same without a copy of what is in mapped memory. False: it has to be copied. */
static bool chain_frame(struct engine *e, struct engine_port *p, struct port_frame *f, unsigned hdr_len,
	const struct tp_parts *parts)
{
	struct port_frame chained = *f;
	struct port_piece pieces[TP_MAX_PIECES];
	uint64_t ticket = tp_hold(e->tp, parts);

	if (!ticket)
		return false;
	for (unsigned i = 0; i < parts->n; i++)
		pieces[i] = (struct port_piece){parts->piece[i].at, parts->piece[i].len};
	chained.len = hdr_len + (uint32_t)parts->head;
	if (p->port->ops->tx_chain(
		    p->port, &chained, pieces, parts->n, parts->trailer, parts->trailer_len, ticket)) {
		tp_release(e->tp, ticket);
		return false;
	}
	*f = chained;
	e->stats.tx_direct++;
	return true;
}

static bool sends_directly(struct engine *e, struct engine_port *p, struct port_frame *f,
	const struct tp_path *path, const struct tp_parts *parts)
{
	return p->direct && f->len >= e->direct_min && path->port_index == p - e->ports &&
	       chain_frame(e, p, f, path->hdr_len, parts);
}

/* Builds one packet into a spare frame of port p; *index is the port that it is for. False: nothing due. One
 * of several is put together on the stack, so that the frame is written and never read: its memory is in the
 * cache of whoever had it last, and what is read has to wait for that. One alone has nothing to do meanwhile.
 */
static bool build(struct engine *e, struct engine_port *p, uint64_t now, bool alone, struct port_frame *out,
	unsigned *index)
{
	uint8_t scratch[HEADROOM + TP_MAX_HEAD], *head;
	const struct tp_path *path;
	struct port_frame f = p->spare[p->n_spare - 1];
	struct tp_parts parts;
	size_t len;

	if (p->n_spare > 1)
		want_lines(p->spare[p->n_spare - 2].data, p->last_len);
	head = alone ? f.data : scratch;
	len = tp_output_parts(e->tp, now, head + HEADROOM, &parts, &path);
	if (!len)
		return false;
	p->last_len = (uint32_t)len + HEADROOM;
	p->n_spare--;
	f.data += HEADROOM - path->hdr_len;
	f.len = path->hdr_len + len;
	f.flags = p->info.caps & PORT_CAP_TX_CSUM ? PORT_TX_CSUM : 0;
	head += HEADROOM - path->hdr_len;
	memcpy(head, path->hdr, path->hdr_len);
	if (f.flags)
		encap_finish(head, path->hdr_len, len, true);
	if (!alone)
		memcpy(f.data, head, path->hdr_len + parts.head);
	if (parts.n && !sends_directly(e, p, &f, path, &parts))
		fill_frame(f.data + path->hdr_len + parts.head, &parts);
	if (!f.flags)
		encap_finish(f.data, path->hdr_len, len, false);
	*index = path->port_index;
	*out = f;
	return true;
}

/* The transport chose another port than was to be expected: the frame goes there as a copy. */
static void move_frame(
	struct engine *e, struct engine_port *from, struct port_frame *f, unsigned index, uint64_t now)
{
	struct engine_port *to = &e->ports[index];
	struct port_frame copy;

	if (may_take(e, to, now) && refill(to, 1, false)) {
		copy = to->spare[--to->n_spare];
		memcpy(copy.data, f->data, f->len);
		copy.len = f->len;
		copy.flags = to->info.caps & PORT_CAP_TX_CSUM ? f->flags : 0;
		if (f->flags != copy.flags)
			encap_finish_offload(copy.data, copy.len);
		transmit(e, to, &copy, 1, now);
	}
	from->port->ops->tx_put(from->port, f, 1);
}

/* Fills burst with packets for port p, as long as it is p's turn. Returns how many were built in all. */
static unsigned fill_burst(
	struct engine *e, struct engine_port *p, uint64_t now, struct port_frame *burst, unsigned *n)
{
	const struct tp_path *next = tp_output_next(e->tp);
	unsigned total = 0, index;

	for (*n = 0; *n < ENGINE_BURST && next && p == &e->ports[next->port_index];
		next = tp_output_next(e->tp)) {
		if (!refill(p, *n + 1 < ENGINE_BURST ? *n + 1 : ENGINE_BURST - 1, *n) ||
			!build(e, p, now, !*n, &burst[*n], &index))
			break;
		if (p == &e->ports[index])
			++*n;
		else
			move_frame(e, p, &burst[*n], index, now);
		total++;
	}
	return total;
}

/* A port whose link is down may have no frames, as it may never have had its device. What it is to send is
 * lost, as on a cable that leads nowhere: others are waiting behind it. */
static bool lose_next(struct engine *e, struct engine_port *p, uint64_t now)
{
	bool direct = p->direct, built;
	struct port_frame f;
	unsigned index;

	if (!is_down(p) || p->n_spare)
		return false;
	p->spare[0] = (struct port_frame){.data = e->nowhere, .len = NOWHERE};
	p->n_spare = 1;
	p->direct = false;
	built = build(e, p, now, true, &f, &index);
	p->direct = direct;
	p->n_spare = 0;
	e->stats.tx_link_down += built;
	return built;
}

unsigned engine_flush(struct engine *e, uint64_t now)
{
	struct port_frame burst[ENGINE_BURST];
	const struct tp_path *next;
	unsigned total = 0, built, n;

	for (unsigned i = 0; i < e->n_ports; i++)
		may_take(e, &e->ports[i], now);
	while ((next = tp_output_next(e->tp))) {
		struct engine_port *p = &e->ports[next->port_index];

		if (!may_take(e, p, now))
			break;
		built = fill_burst(e, p, now, burst, &n);
		if (n)
			transmit(e, p, burst, n, now);
		total += built;
		if (!built && tp_output_next(e->tp) == next && !lose_next(e, p, now))
			break; /* no frames, or nothing but appearances */
	}
	return total;
}

/* --- the kernel --- */

void engine_set_miniport(struct engine *e, unsigned index, struct miniport *m)
{
	e->ports[index].kernel = m;
}

void engine_hurry_kernel(struct engine *e)
{
	for (unsigned i = 0; i < e->n_ports; i++)
		e->ports[i].kernel_pace.next = 0;
}

/* Sends what the kernel has to send. While the port is full the kernel keeps it. Sleep ends when it has
 * something. */
static unsigned forward_kernel(struct engine *e, struct engine_port *p, uint64_t now)
{
	struct port_frame frames[ENGINE_BURST];
	unsigned n, filled;

	if (now < p->kernel_pace.next || !may_take(e, p, now))
		return 0;
	n = p->port->ops->tx_get(p->port, frames, ENGINE_BURST);
	filled = n ? miniport_from_kernel(p->kernel, frames, n) : 0;
	if (filled < n)
		p->port->ops->tx_put(p->port, frames + filled, n - filled);
	if (filled)
		transmit(e, p, frames, filled, now);
	sd_pace_looked(&p->kernel_pace, now, filled > 0, filled ? 0 : KERNEL_MIN_NS, KERNEL_MAX_NS);
	return filled;
}

unsigned engine_progress(struct engine *e, uint64_t now)
{
	unsigned work = 0, backlog = 0;

	e->now = now;
	e->late = now - e->polled_at > LATE_NS;
	e->polled_at = now;
	for (unsigned i = 0; i < e->n_ports; i++) {
		work += receive(e, i, now, &backlog);
		if (e->ports[i].kernel)
			work += forward_kernel(e, &e->ports[i], now);
	}
	tp_set_backlog(e->tp, backlog);
	if (now >= tp_next_timeout(e->tp)) {
		tp_timeout(e->tp, now);
		work++;
	}
	if (now >= e->resolver.next)
		resolver_timeout(&e->resolver, now);
	if (work)
		tp_refill(e->tp);
	return work + engine_flush(e, now);
}

uint64_t engine_deadline(const struct engine *e)
{
	uint64_t t = tp_next_timeout(e->tp);

	return e->resolver.next < t ? e->resolver.next : t;
}
