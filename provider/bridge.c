/* SPDX-License-Identifier: BSD-3-Clause */
#include "provider/bridge.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/fnv.h"
#include "base/log.h"
#include "provider/couple.h"
#include "provider/registry.h"

/* Of one listener, accepted and not yet some program's. */
#define TURN 16u
/* To be changed with what is written for another process, here and in couple.c. */
#define FORMAT 2u

struct bridge {
	struct pv *san, *shm;
	unsigned engine;
	struct post post, *desk;
	struct couples couples;
	struct list calls, listeners, arrivals;
	struct list due; /* wires whose endpoint has something to say */
	_Atomic uint64_t connections, made;
};

enum wire_kind {
	WIRE_CALL,     /* a program's connect that is under way */
	WIRE_LISTENER, /* for programs that listen */
	WIRE_ARRIVAL,  /* has been accepted, and the desk is to say for whom */
};

/* An endpoint of the ports that is not coupled. */
struct wire {
	struct pv_upcall upcall;
	struct bridge *bridge;
	enum wire_kind kind;
	struct pv_ep *ep;
	struct list node, due;
	/* a call */
	uint64_t call;
	struct letter *letter; /* for its answer; NULL: that is on its way */
	/* a listener */
	struct sd_addr local;
	unsigned n_arrivals, most; /* of these at once: its backlog, or TURN */
	bool full;		   /* one of them has found no room */
	/* an arrival */
	struct wire *listener; /* NULL: is no more */
	bool waits;	       /* for room */
};

static void is_due(struct pv_upcall *u, unsigned events)
{
	struct wire *w = container_of(u, struct wire, upcall);

	if (list_empty(&w->due))
		list_push_back(&w->bridge->due, &w->due);
}

static struct wire *wire_new(struct bridge *b, enum wire_kind kind, struct list *where)
{
	struct wire *w = calloc(1, sizeof *w);

	if (!w)
		return NULL;
	w->upcall.ready = is_due;
	w->bridge = b;
	w->kind = kind;
	list_init(&w->due);
	list_push_back(where, &w->node);
	return w;
}

/* An arrival makes room for another one. */
static void wire_free(struct wire *w)
{
	if (w->listener) {
		w->listener->n_arrivals--;
		is_due(&w->listener->upcall, PV_IN);
	}
	list_remove(&w->node);
	list_remove(&w->due);
	free(w->letter);
	free(w);
}

/* With its endpoint. */
static void wire_cut(struct wire *w)
{
	w->ep->ops->close(w->ep, PV_CLOSE_ABORT);
	wire_free(w);
}

static void tell(struct bridge *b, struct letter *l, enum letter_kind kind)
{
	l->kind = kind;
	l->engine = b->engine;
	post_send(b->desk, l);
}

/* --- outwards --- */

static enum sd_reason connect_out(
	struct bridge *b, struct wire *w, const struct sd_addr *local, const struct sd_addr *peer, int *error)
{
	struct sd_addr from = *local;
	enum sd_reason reason = b->san->ops->route(b->san, peer, &from);

	*error = -ECONNREFUSED;
	if (reason != SD_REASON_SAN)
		return reason;
	*error = b->san->ops->connect(b->san, -1, &from, peer, &w->upcall, &w->ep);
	return *error ? SD_REASON_NO_MEMORY : SD_REASON_SAN;
}

static void on_connect(struct bridge *b, struct letter *l)
{
	struct wire *w = wire_new(b, WIRE_CALL, &b->calls);

	l->error = -ENOMEM;
	l->reason = SD_REASON_NO_MEMORY;
	if (w)
		l->reason = connect_out(b, w, &l->local, &l->peer, &l->error);
	if (!l->error) {
		w->call = l->call;
		w->letter = l;
		is_due(&w->upcall, 0); /* it may be over already: that is not told */
		return;
	}
	if (w)
		wire_free(w);
	tell(b, l, LETTER_REFUSED);
}

static void on_forget(struct bridge *b, struct letter *l)
{
	list_for_each (it, &b->calls) {
		struct wire *w = container_of(it, struct wire, node);

		if (w->call == l->call) {
			wire_cut(w);
			break;
		}
	}
	tell(b, l, LETTER_FORGOTTEN);
}

/* The program's call has come to an end. */
static void settle(struct bridge *b, struct wire *w)
{
	struct letter *l = w->letter;
	int r;

	if (!l)
		return;
	l->reason = SD_REASON_SAN;
	r = w->ep->ops->connect_result(w->ep, &l->reason);
	if (r == -EINPROGRESS)
		return;
	w->letter = NULL;
	l->call = w->call;
	l->wire = w;
	l->error = r;
	if (r)
		wire_cut(w);
	tell(b, l, r ? LETTER_REFUSED : LETTER_CONNECTED);
}

/* --- inwards --- */

static struct wire *listener_at(struct bridge *b, const struct sd_addr *local)
{
	list_for_each (it, &b->listeners) {
		struct wire *w = container_of(it, struct wire, node);

		if (sd_addr_equal(&w->local, local))
			return w;
	}
	return NULL;
}

static void ask(struct bridge *b, struct wire *arrival)
{
	struct letter *l = letter_new(LETTER_INCOMING);
	struct pv_info info;

	if (!l) {
		wire_cut(arrival);
		return;
	}
	arrival->waits = false;
	arrival->ep->ops->info(arrival->ep, &info);
	l->local = info.local;
	l->peer = info.peer;
	l->at = arrival->local;
	l->wire = arrival;
	tell(b, l, LETTER_INCOMING);
}

/* There is room, or nobody who listens any more: the desk knows. */
static void ask_again(struct bridge *b, const struct wire *listener)
{
	list_for_each (it, &b->arrivals) {
		struct wire *w = container_of(it, struct wire, node);

		if (w->waits && w->listener == listener)
			ask(b, w);
	}
}

static void on_room(struct bridge *b, const struct sd_addr *local)
{
	struct wire *w = listener_at(b, local);

	ask_again(b, NULL);
	if (!w)
		return;
	w->full = false;
	ask_again(b, w);
	is_due(&w->upcall, PV_IN);
}

/* Those whose user the desk is being asked for come on top of what waits: not more than may wait anyway. */
static void set_most(struct wire *listener, unsigned backlog)
{
	listener->most = backlog < 1 ? 1 : backlog < TURN ? backlog : TURN;
}

static void on_listen(struct bridge *b, const struct sd_addr *local, unsigned backlog)
{
	struct wire *w = listener_at(b, local);
	int r;

	if (w) {
		w->ep->ops->set_backlog(w->ep, backlog);
		set_most(w, backlog);
		on_room(b, local);
		return;
	}
	if (!b->san->ops->serves(b->san, local))
		return;
	w = wire_new(b, WIRE_LISTENER, &b->listeners);
	r = w ? b->san->ops->listen(b->san, -1, local, backlog, &w->upcall, &w->ep) : -ENOMEM;
	if (w) {
		w->local = *local;
		set_most(w, backlog);
	}
	if (!r)
		return;
	sd_warn("port %u is not listened on for other hosts: %s", local->port, strerror(-r));
	if (w)
		wire_free(w);
}

static void listener_cut(struct bridge *b, struct wire *listener)
{
	list_for_each (it, &b->arrivals) {
		struct wire *w = container_of(it, struct wire, node);

		if (w->listener == listener)
			w->listener = NULL;
	}
	wire_cut(listener);
	ask_again(b, NULL);
}

static void on_unlisten(struct bridge *b, const struct sd_addr *local)
{
	struct wire *w = listener_at(b, local);

	if (w)
		listener_cut(b, w);
}

/* What finds no room waits in the backlog of the wire, which refuses what is too much. */
static void accept_all(struct bridge *b, struct wire *listener)
{
	while (!listener->full && listener->n_arrivals < listener->most) {
		struct wire *w = wire_new(b, WIRE_ARRIVAL, &b->arrivals);

		if (!w)
			return;
		if (listener->ep->ops->accept(listener->ep, &w->upcall, &w->ep)) {
			wire_free(w);
			return;
		}
		w->listener = listener;
		w->local = listener->local;
		listener->n_arrivals++;
		ask(b, w);
	}
}

/* It may end while it waits. */
static void look_at(struct wire *arrival)
{
	if (arrival->waits && arrival->ep->ops->state(arrival->ep) & PV_ERR)
		wire_cut(arrival);
}

static void on_full(struct bridge *b, struct wire *arrival)
{
	arrival->waits = true;
	if (arrival->listener)
		arrival->listener->full = true;
	look_at(arrival);
}

/* --- coupling --- */

/* To what the user who has the connection is charged for. */
static void limit(struct pv_ep *ep, uint32_t ring)
{
	struct pv_options o = PV_OPTIONS_NONE;

	o.send_buffer = o.recv_buffer = ring;
	if (ring)
		ep->ops->set_options(ep, &o);
}

/* Couples what has connected, or was accepted, with the program's end. Closes all of it on an error. */
static int couple(struct bridge *b, struct pv_ep *ep, const struct pv_shm_end *end)
{
	struct couple_side *side[2];
	struct pv_ep *inner;
	int r = pv_shm_attach(b->shm, end, NULL, &inner);

	if (r) {
		ep->ops->close(ep, PV_CLOSE_ABORT);
		return r;
	}
	r = couple_new(&b->couples, side);
	if (r) {
		inner->ops->close(inner, PV_CLOSE_ABORT);
		ep->ops->close(ep, PV_CLOSE_ABORT);
		return r;
	}
	limit(ep, end->ring);
	couple_join(side[0], inner, side[1], ep);
	b->made++;
	return 0;
}

static void on_couple(struct bridge *b, const struct letter *l)
{
	couple(b, l->wire->ep, &l->end);
	wire_free(l->wire);
}

/* --- letters --- */

/* What is answered is the desk's again. */
static void read_letter(struct bridge *b, struct letter *l)
{
	switch (l->kind) {
	case LETTER_CONNECT:
		on_connect(b, l);
		return;
	case LETTER_FORGET:
		on_forget(b, l);
		return;
	case LETTER_LISTEN:
		on_listen(b, &l->local, l->backlog);
		break;
	case LETTER_UNLISTEN:
		on_unlisten(b, &l->local);
		break;
	case LETTER_ROOM:
		on_room(b, &l->local);
		break;
	case LETTER_COUPLE:
		on_couple(b, l);
		break;
	case LETTER_FULL:
		on_full(b, l->wire);
		break;
	case LETTER_DROP:
		wire_cut(l->wire);
		break;
	default: /* the desk's to read */
		break;
	}
	free(l);
}

unsigned bridge_read(struct bridge *b)
{
	struct letter *l;
	unsigned n = 0;

	for (; (l = post_take(&b->post)); n++)
		read_letter(b, l);
	return n;
}

/* --- another process goes on --- */

static void save_couple(void *ctx, struct couple_side *inner, struct couple_side *outer)
{
	struct sd_pack *p = ctx;

	sd_pack_u32(p, 1);
	sd_pack_fd(p, pv_shm_fd(couple_ep(inner)));
	couple_save(inner, p);
	pv_ether_save_ep(couple_ep(outer), p);
}

int bridge_suspend(struct bridge *b, struct sd_pack *p)
{
	int r = pv_ether_suspend(b->san, p);

	if (r)
		return r;
	list_for_each (it, &b->calls) {
		const struct wire *w = container_of(it, struct wire, node);

		sd_pack_u32(p, 1);
		sd_pack_u64(p, w->call);
		pv_ether_save_ep(w->ep, p);
	}
	sd_pack_u32(p, 0);
	list_for_each (it, &b->arrivals) {
		const struct wire *w = container_of(it, struct wire, node);

		sd_pack_u32(p, 1);
		sd_pack_value(p, w->local);
		pv_ether_save_ep(w->ep, p);
	}
	sd_pack_u32(p, 0);
	couples_each(&b->couples, save_couple, p);
	sd_pack_u32(p, 0);
	return 0;
}

bool bridge_resume(struct bridge *b)
{
	if (pv_ether_resume(b->san) != SD_REASON_SAN)
		return false;
	pv_shm_look_again(b->shm);
	couples_look_again(&b->couples);
	return true;
}

static int restore_wire(struct bridge *b, struct sd_unpack *u, struct wire *w)
{
	int r = u->failed ? -EPROTO : pv_ether_restore_ep(b->san, u, &w->upcall, &w->ep);

	if (r)
		wire_free(w);
	else
		is_due(&w->upcall, 0);
	return r;
}

static int restore_call(struct bridge *b, struct sd_unpack *u)
{
	struct wire *w = wire_new(b, WIRE_CALL, &b->calls);

	if (!w)
		return -ENOMEM;
	w->call = sd_unpack_u64(u);
	w->letter = letter_new(LETTER_CONNECT);
	if (!w->letter) {
		wire_free(w);
		return -ENOMEM;
	}
	return restore_wire(b, u, w);
}

static int restore_arrival(struct bridge *b, struct sd_unpack *u)
{
	struct wire *w = wire_new(b, WIRE_ARRIVAL, &b->arrivals);

	if (!w)
		return -ENOMEM;
	sd_unpack_value(u, w->local);
	w->waits = true;
	w->listener = listener_at(b, &w->local);
	if (w->listener)
		w->listener->n_arrivals++;
	return restore_wire(b, u, w);
}

/* The program's side. *inner NULL: it has spoilt its memory, or is gone and the broker has heard of that
 * first, which is nobody else's matter. */
static int restore_inner(struct bridge *b, struct broker *broker, int fd, struct pv_ep **inner)
{
	struct pv_shm_end end;
	int r = broker_end_again(broker, fd, &end);

	*inner = NULL;
	if (!r)
		r = pv_shm_attach(b->shm, &end, NULL, inner);
	else if (r == -ENOENT)
		sd_fd_close(&fd);
	return r == -ENOENT || r == -EPROTO ? 0 : r;
}

static int restore_couple(struct bridge *b, struct broker *broker, struct sd_unpack *u)
{
	struct couple_side *side[2];
	struct pv_ep *inner, *outer;
	int fd = sd_unpack_fd(u), r = couple_new(&b->couples, side);

	if (r) {
		sd_fd_close(&fd);
		return r;
	}
	r = fd < 0 ? -EPROTO : couple_restore(side[0], u);
	if (!r)
		r = restore_inner(b, broker, fd, &inner);
	else
		sd_fd_close(&fd);
	if (r) {
		couple_free(side[0]);
		return r;
	}
	r = pv_ether_restore_ep(b->san, u, NULL, &outer);
	if (r) /* inner stays as it is: to close it would tell the program, who has another to serve it */
		return r;
	if (inner) {
		couple_join(side[0], inner, side[1], outer);
	} else {
		outer->ops->close(outer, PV_CLOSE_ABORT);
		couple_free(side[0]);
	}
	return 0;
}

int bridge_restore(struct bridge *b, struct broker *broker, struct sd_unpack *u)
{
	int r;

	bridge_read(b); /* who listens */
	r = pv_ether_restore(b->san, u) == SD_REASON_SAN ? 0 : -EIO;
	while (!r && sd_unpack_u32(u))
		r = restore_call(b, u);
	while (!r && sd_unpack_u32(u))
		r = restore_arrival(b, u);
	while (!r && sd_unpack_u32(u))
		r = restore_couple(b, broker, u);
	if (!r && u->failed)
		r = -EPROTO;
	return r;
}

void bridge_restored(struct bridge *b)
{
	pv_ether_restored(b->san);
	ask_again(b, NULL);
	list_for_each (it, &b->listeners) {
		struct wire *w = container_of(it, struct wire, node);

		ask_again(b, w);
		is_due(&w->upcall, PV_IN);
	}
}

uint64_t bridge_save_format(void)
{
	const uint64_t format = FORMAT;

	return sd_fnv(pv_ether_save_format(), &format, sizeof format);
}

/* --- all of it --- */

bool bridge_is_busy(const struct bridge *b)
{
	return !list_empty(&b->due) || !list_empty(&b->couples.due);
}

/* The broker sees our ends go by itself, but later. */
static void tell_parted(struct bridge *b)
{
	struct letter *l = letter_new(LETTER_PARTED);

	if (l)
		tell(b, l, LETTER_PARTED);
}

unsigned bridge_progress(struct bridge *b)
{
	struct list turn = LIST_INIT(turn), *it;
	uint64_t parted = b->couples.parted;
	unsigned n = bridge_read(b);

	while ((it = list_pop_front(&b->due)))
		list_push_back(&turn, it);
	while ((it = list_pop_front(&turn))) {
		struct wire *w = container_of(it, struct wire, due);

		if (w->kind == WIRE_CALL)
			settle(b, w);
		else if (w->kind == WIRE_LISTENER)
			accept_all(b, w);
		else
			look_at(w);
		n++;
	}
	n += couples_progress(&b->couples);
	if (b->couples.parted != parted)
		tell_parted(b);
	atomic_store_explicit(&b->connections, b->couples.n, memory_order_relaxed);
	return n;
}

int bridge_open(const struct bridge_config *cfg, struct bridge **out)
{
	struct bridge *b;
	int r;

	if (cfg->size != sizeof *cfg)
		return -EINVAL;
	b = calloc(1, sizeof *b);
	if (!b)
		return -ENOMEM;
	r = post_open(&b->post, cfg->bell);
	if (!r)
		r = couples_open(&b->couples);
	if (r) {
		post_close(&b->post);
		free(b);
		return r;
	}
	b->san = cfg->san;
	b->shm = cfg->shm;
	b->engine = cfg->engine;
	b->desk = cfg->desk;
	list_init(&b->calls);
	list_init(&b->listeners);
	list_init(&b->arrivals);
	list_init(&b->due);
	*out = b;
	return 0;
}

struct post *bridge_post(struct bridge *b)
{
	return &b->post;
}

void bridge_stats(const struct bridge *b, struct bridge_stats *out)
{
	*out = (struct bridge_stats){b->connections, b->made};
}

void bridge_close(struct bridge *b)
{
	while (!list_empty(&b->listeners))
		wire_cut(container_of(b->listeners.next, struct wire, node));
	while (!list_empty(&b->calls))
		wire_cut(container_of(b->calls.next, struct wire, node));
	while (!list_empty(&b->arrivals)) {
		struct wire *w = container_of(b->arrivals.next, struct wire, node);

		w->listener = NULL;
		wire_cut(w);
	}
	couples_close(&b->couples);
	post_close(&b->post);
	free(b);
}
