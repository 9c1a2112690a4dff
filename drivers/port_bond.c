/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * port_bond: two ports of one network as one, with one address, of which one carries everything and the other
 * stands by (Linux bonding's active-backup).
 *
 * The one that is active is left when its link goes down, or when nothing is heard by it any more that is
 * heard by the other: with two cables between two hosts the far end may have left this one, and a switch may
 * have gone blind. Copies of what is sent to all come by both; the active one's count, while it hears any.
 *
 * What tx_get gives is the active port's. It may be sent by the other one after a change: then as a copy.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/rng.h"
#include "drivers/encap.h"
#include "drivers/port.h"

#define SLOTS 8192u
#define BURST 64u
/* How long nothing must be heard by the active port, twice, while something is by the other. */
#define LOOK_NS (100 * SD_MS)
/* After a change of the active port for want of hearing: two hosts that change at the same time would miss
 * each other again and again. */
#define HOLD_MIN_NS (200 * SD_MS)
#define HOLD_MAX_NS (1 * SD_S)
/* In the flags of a received frame: it is the second port's. */
#define RX_SECOND (1u << 16)

/* A frame that tx_get has given. */
struct slot {
	void *handle;
	uint8_t member;
};

struct member {
	struct port *port;
	struct port_info info;
	uint64_t received, seen; /* frames: so far, and when the links were last looked at */
	bool proven;		 /* its link has been up: its capabilities are known */
};

struct bond {
	struct port base;
	struct member members[2];
	unsigned active;
	uint8_t mac[6];
	uint16_t mtu;
	uint64_t look_at;
	bool suspect; /* in the last interval only the other port has heard something */
	uint64_t hold_until;
	struct sd_rng rng;
	int both; /* epoll, over the ports' descriptors */
	unsigned n_free;
	uint16_t free[SLOTS];
	struct slot slots[SLOTS];
};

static struct bond *of(struct port *p)
{
	return (struct bond *)p;
}

static bool is_up(const struct member *m)
{
	return m->info.link_up || !(m->info.caps & PORT_CAP_LINK);
}

/* One that carries less than what has been said of the bond is none. */
static bool is_fit(const struct bond *b, unsigned i)
{
	return is_up(&b->members[i]) && b->members[i].info.mtu >= b->mtu;
}

/* --- receiving --- */

static bool is_for_many(const struct port_frame *f)
{
	return f->data[0] & 1;
}

/* Something, since the links were last looked at? */
static bool has_heard(const struct member *m)
{
	return m->received != m->seen;
}

/* Of the port that stands by: what was sent to all comes by the active one, and our own by a switch. But a
 * host whose active port is on this wire, and ours on another, can only be heard here: rather twice than not
 * at all. */
static unsigned drop_copies(struct bond *b, struct member *m, struct port_frame *frames, unsigned n)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < n; i++) {
		bool own = !memcmp(frames[i].data + 6, b->mac, sizeof b->mac);

		m->received += !own;
		if (own || (is_for_many(&frames[i]) && has_heard(&b->members[b->active])))
			m->port->ops->rx_done(m->port, &frames[i], 1);
		else
			frames[kept++] = frames[i];
	}
	return kept;
}

/* Not nothing, while there is something: who is going to sleep asks once. Also asks for no frames, which a
 * port may have to know of. */
static unsigned receive(struct bond *b, unsigned index, struct port_frame *frames, unsigned max)
{
	struct member *m = &b->members[index];
	unsigned n, came;

	do {
		n = came = m->port->ops->rx(m->port, frames, max);
		if (index != b->active)
			n = drop_copies(b, m, frames, n);
		else
			m->received += n;
	} while (came && !n);
	for (unsigned i = 0; index && i < n; i++)
		frames[i].flags |= RX_SECOND;
	return n;
}

static unsigned bond_rx(struct port *p, struct port_frame *frames, unsigned max)
{
	struct bond *b = of(p);
	unsigned n = receive(b, b->active, frames, max);

	return n + receive(b, !b->active, frames + n, max - n);
}

static void bond_rx_done(struct port *p, struct port_frame *frames, unsigned n)
{
	struct bond *b = of(p);

	while (n) {
		unsigned second = (frames->flags & RX_SECOND) != 0, run = 1;
		struct port *port = b->members[second].port;

		while (run < n && ((frames[run].flags & RX_SECOND) != 0) == second)
			run++;
		port->ops->rx_done(port, frames, run);
		frames += run;
		n -= run;
	}
}

/* --- sending --- */

static struct slot *slot_of(struct bond *b, const struct port_frame *f)
{
	return &b->slots[(uintptr_t)f->handle];
}

/* As its port knows it. */
static struct port_frame bare(struct bond *b, const struct port_frame *f)
{
	struct port_frame inner = *f;

	inner.handle = slot_of(b, f)->handle;
	return inner;
}

static void free_slot(struct bond *b, const struct port_frame *f)
{
	b->free[b->n_free++] = (uint16_t)(uintptr_t)f->handle;
}

static unsigned bond_tx_get(struct port *p, struct port_frame *frames, unsigned n)
{
	struct bond *b = of(p);
	struct port *port = b->members[b->active].port;
	unsigned got = port->ops->tx_get(port, frames, n < b->n_free ? n : b->n_free);

	for (unsigned i = 0; i < got; i++) {
		uint16_t s = b->free[--b->n_free];

		b->slots[s] = (struct slot){frames[i].handle, (uint8_t)b->active};
		frames[i].handle = (void *)(uintptr_t)s;
	}
	return got;
}

static void bond_tx_put(struct port *p, struct port_frame *frames, unsigned n)
{
	struct bond *b = of(p);

	for (unsigned i = 0; i < n; i++) {
		struct port_frame inner = bare(b, &frames[i]);
		struct port *port = b->members[slot_of(b, &frames[i])->member].port;

		port->ops->tx_put(port, &inner, 1);
		free_slot(b, &frames[i]);
	}
}

/* The sum that the NIC was to finish, if the one that it goes by now does not. */
static void finish_sum(const struct bond *b, struct port_frame *f)
{
	if (!(f->flags & PORT_TX_CSUM) || b->members[b->active].info.caps & PORT_CAP_TX_CSUM)
		return;
	encap_finish_offload(f->data, f->len);
	f->flags &= ~(uint32_t)PORT_TX_CSUM;
}

/* By the active port, whose it is not. */
static bool send_copy(struct bond *b, struct port_frame *f)
{
	struct port *port = b->members[b->active].port;
	struct port_frame copy;

	if (port->ops->tx_get(port, &copy, 1) != 1)
		return false;
	if (f->len > copy.len) { /* its MTU is smaller: as if a switch had dropped it */
		port->ops->tx_put(port, &copy, 1);
		bond_tx_put(&b->base, f, 1);
		return true;
	}
	memcpy(copy.data, f->data, f->len);
	copy.len = f->len;
	copy.flags = f->flags;
	finish_sum(b, &copy);
	if (port->ops->tx(port, &copy, 1) != 1) {
		port->ops->tx_put(port, &copy, 1);
		return false;
	}
	bond_tx_put(&b->base, f, 1);
	return true;
}

/* The first of them that are the active port's own. */
static unsigned send_own(struct bond *b, struct port_frame *frames, unsigned n)
{
	struct port *port = b->members[b->active].port;
	struct port_frame inner[BURST];
	unsigned run = 0, sent;

	while (run < n && run < BURST && slot_of(b, &frames[run])->member == b->active) {
		finish_sum(b, &frames[run]);
		inner[run] = bare(b, &frames[run]);
		run++;
	}
	sent = run ? port->ops->tx(port, inner, run) : 0;
	for (unsigned i = 0; i < sent; i++)
		free_slot(b, &frames[i]);
	return sent;
}

static unsigned bond_tx(struct port *p, struct port_frame *frames, unsigned n)
{
	struct bond *b = of(p);
	unsigned done = 0;

	while (done < n) {
		unsigned sent = slot_of(b, &frames[done])->member == b->active
					? send_own(b, frames + done, n - done)
					: send_copy(b, &frames[done]);

		if (!sent)
			break;
		done += sent;
	}
	return done;
}

/* --- sleeping --- */

/* Both ports' descriptors in one. A port that nothing can come by (-EAGAIN) is left out; with one that has to
 * be looked at, both have to be. */
static int bond_wait_fd(struct port *p)
{
	struct epoll_event ev = {.events = EPOLLIN};
	struct bond *b = of(p);
	unsigned deaf = 0;

	for (unsigned i = 0; i < 2; i++) {
		int fd = b->members[i].port->ops->wait_fd(b->members[i].port);

		deaf += fd == -EAGAIN;
		if (fd == -EAGAIN)
			continue;
		if (fd < 0 || (epoll_ctl(b->both, EPOLL_CTL_ADD, fd, &ev) && errno != EEXIST))
			return -ENOTSUP;
	}
	return deaf == 2 ? -EAGAIN : b->both;
}

static int bond_arm(struct port *p)
{
	struct bond *b = of(p);

	for (unsigned i = 0; i < 2; i++) {
		int r = b->members[i].port->ops->arm(b->members[i].port);

		if (r)
			return r;
	}
	return 0;
}

static void bond_disarm(struct port *p)
{
	struct bond *b = of(p);

	for (unsigned i = 0; i < 2; i++)
		b->members[i].port->ops->disarm(b->members[i].port);
}

/* --- which one --- */

static void learn(struct bond *b, struct member *m)
{
	m->port->ops->info(m->port, &m->info);
	m->proven |= is_up(m);
	if (is_up(m) && m->info.mtu < b->mtu)
		sd_warn("port %s: a device comes with an MTU of %u, and %u are in use: it is not used; "
			"configure that mtu",
			m->info.name, m->info.mtu, b->mtu);
}

/* Has only the other port heard something, in this interval and in the one before? One is not enough: copies
 * of one frame may be counted in different intervals. */
static bool is_deaf(struct bond *b)
{
	struct member *mine = &b->members[b->active], *other = &b->members[!b->active];
	bool quiet = !has_heard(mine), deaf = b->suspect && quiet;

	b->suspect = quiet && has_heard(other);
	mine->seen = mine->received;
	other->seen = other->received;
	return deaf;
}

static void change(struct bond *b, const char *why, uint64_t now)
{
	b->active = !b->active;
	b->suspect = false;
	b->hold_until = now + HOLD_MIN_NS + sd_rng_below(&b->rng, HOLD_MAX_NS - HOLD_MIN_NS);
	sd_info("port %s: goes on by its %s device: %s", b->members[0].info.name,
		b->active ? "second" : "first", why);
}

static bool bond_link_poll(struct port *p)
{
	struct bond *b = of(p);
	uint64_t now = sd_clock_ns();
	bool changed = false, deaf;

	for (unsigned i = 0; i < 2; i++) {
		struct port *port = b->members[i].port;

		if (!port->ops->link_poll(port))
			continue;
		learn(b, &b->members[i]);
		changed = true;
	}
	deaf = now >= b->look_at && is_deaf(b);
	if (now >= b->look_at)
		b->look_at = now + LOOK_NS;
	if (!is_fit(b, !b->active))
		return changed;
	if (!is_fit(b, b->active))
		change(b, "the link is down", now);
	else if (deaf && now >= b->hold_until)
		change(b, "nothing is heard any more", now);
	else
		return changed;
	return true;
}

/* --- the rest --- */

static void bond_info(struct port *p, struct port_info *out)
{
	struct bond *b = of(p);
	const struct member *other = &b->members[!b->active];

	b->members[b->active].port->ops->info(b->members[b->active].port, out);
	memcpy(out->mac, b->mac, sizeof out->mac);
	out->mtu = b->mtu;
	out->queues = 1;
	if (other->proven)
		out->caps &= other->info.caps;
	out->caps = (out->caps & ~(uint32_t)PORT_CAP_EXT_TX) | PORT_CAP_LINK;
	out->link_up = is_fit(b, 0) || is_fit(b, 1);
}

static void bond_stats(struct port *p, struct port_stats *out)
{
	struct bond *b = of(p);
	struct port_stats s;

	b->members[0].port->ops->stats(b->members[0].port, out);
	b->members[1].port->ops->stats(b->members[1].port, &s);
	out->rx_frames += s.rx_frames;
	out->rx_bytes += s.rx_bytes;
	out->tx_frames += s.tx_frames;
	out->tx_bytes += s.tx_bytes;
	out->rx_missed += s.rx_missed;
	out->rx_errors += s.rx_errors;
	out->tx_full += s.tx_full;
	out->faults += s.faults;
}

static unsigned bond_backlog(struct port *p)
{
	struct bond *b = of(p);
	unsigned most = 0;

	for (unsigned i = 0; i < 2; i++) {
		struct port *port = b->members[i].port;
		unsigned part = port->ops->backlog ? port->ops->backlog(port) : 0;

		most = part > most ? part : most;
	}
	return most;
}

static void bond_close(struct port *p)
{
	struct bond *b = of(p);

	for (unsigned i = 0; i < 2; i++)
		port_close(b->members[i].port);
	port_guard_fd(b->both, false);
	sd_fd_close(&b->both);
	free(b);
}

static const struct port_ops bond_ops = {
	.size = sizeof(struct port_ops),
	.name = "bond",
	.rx = bond_rx,
	.rx_done = bond_rx_done,
	.tx_get = bond_tx_get,
	.tx_put = bond_tx_put,
	.tx = bond_tx,
	.wait_fd = bond_wait_fd,
	.arm = bond_arm,
	.disarm = bond_disarm,
	.link_poll = bond_link_poll,
	.info = bond_info,
	.stats = bond_stats,
	.backlog = bond_backlog,
	.close = bond_close,
};

int port_bond_open(struct port *first, struct port *second, struct port **out)
{
	struct bond *b = calloc(1, sizeof *b);

	if (!b)
		return -ENOMEM;
	b->base.ops = &bond_ops;
	b->members[0].port = first;
	b->members[1].port = second;
	b->both = sd_fd_raise(epoll_create1(EPOLL_CLOEXEC));
	if (b->both < 0) {
		int e = errno;

		free(b);
		return -e;
	}
	port_guard_fd(b->both, true);
	for (unsigned i = 0; i < 2; i++)
		learn(b, &b->members[i]);
	memcpy(b->mac, b->members[0].info.mac, sizeof b->mac);
	b->mtu = b->members[0].info.mtu < b->members[1].info.mtu ? b->members[0].info.mtu
								 : b->members[1].info.mtu;
	b->active = !is_up(&b->members[0]) && is_up(&b->members[1]);
	sd_rng_seed(&b->rng, sd_clock_ns());
	while (b->n_free < SLOTS) {
		b->free[b->n_free] = (uint16_t)b->n_free;
		b->n_free++;
	}
	*out = &b->base;
	return 0;
}
