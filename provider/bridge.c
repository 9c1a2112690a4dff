/* SPDX-License-Identifier: BSD-3-Clause */
#include "provider/bridge.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/fnv.h"
#include "base/log.h"
#include "provider/couple.h"
#include "provider/registry.h"

/* Accepted in a row from one listener. */
#define TURN 16
/* To be changed with what is written for another process, here and in couple.c. */
#define FORMAT 1u

struct bridge {
	struct pv *san, *shm;
	struct broker_outside outside;
	struct couples couples;
	struct list calls, listeners;
	struct list due; /* calls and listeners whose endpoint has something to say */
};

/* An endpoint of the ports that is not coupled: a program's connect that is under way, or a listener. */
struct wire {
	struct pv_upcall upcall;
	struct bridge *bridge;
	struct pv_ep *ep;
	struct list node, due;
	struct broker_call *asked; /* NULL: a listener */
	struct sd_addr local;
};

static void is_due(struct pv_upcall *u, unsigned events)
{
	struct wire *w = container_of(u, struct wire, upcall);

	if (list_empty(&w->due))
		list_push_back(&w->bridge->due, &w->due);
}

static struct wire *wire_new(struct bridge *b, struct list *where)
{
	struct wire *w = calloc(1, sizeof *w);

	if (!w)
		return NULL;
	w->upcall.ready = is_due;
	w->bridge = b;
	list_init(&w->due);
	list_push_back(where, &w->node);
	return w;
}

static void wire_free(struct wire *w)
{
	list_remove(&w->node);
	list_remove(&w->due);
	free(w);
}

/* With its endpoint. */
static void wire_cut(struct wire *w)
{
	w->ep->ops->close(w->ep, PV_CLOSE_ABORT);
	wire_free(w);
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

static int bridge_connect(void *ctx, struct broker_call *asked, const struct sd_addr *local,
	const struct sd_addr *peer, enum sd_reason *reason, void **user)
{
	struct bridge *b = ctx;
	struct wire *w = wire_new(b, &b->calls);
	int error;

	*reason = SD_REASON_NO_MEMORY;
	if (!w)
		return -ENOMEM;
	w->asked = asked;
	*reason = connect_out(b, w, local, peer, &error);
	if (error) {
		wire_free(w);
		return error;
	}
	*user = w;
	return 0;
}

static void bridge_forget(void *ctx, void *user)
{
	wire_cut(user);
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
	couple_join(side[0], inner, side[1], ep);
	return 0;
}

static void settle(struct bridge *b, struct broker *broker, struct wire *w)
{
	enum sd_reason reason = SD_REASON_SAN;
	int r = w->ep->ops->connect_result(w->ep, &reason);
	struct pv_shm_end end;

	if (r == -EINPROGRESS)
		return;
	if (r) {
		broker_refuse(broker, w->asked, r, reason);
		wire_cut(w);
		return;
	}
	if (broker_connected(broker, w->asked, &end)) {
		wire_cut(w);
		return;
	}
	couple(b, w->ep, &end);
	wire_free(w);
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

static void bridge_listen(void *ctx, const struct sd_addr *local, unsigned backlog)
{
	struct bridge *b = ctx;
	struct wire *w = listener_at(b, local);
	int r;

	if (w) {
		w->ep->ops->set_backlog(w->ep, backlog);
		is_due(&w->upcall, 0);
		return;
	}
	if (!b->san->ops->serves(b->san, local))
		return;
	w = wire_new(b, &b->listeners);
	r = w ? b->san->ops->listen(b->san, -1, local, backlog, &w->upcall, &w->ep) : -ENOMEM;
	if (w)
		w->local = *local;
	if (!r)
		return;
	sd_warn("port %u is not listened on for other hosts: %s", local->port, strerror(-r));
	if (w)
		wire_free(w);
}

static void bridge_unlisten(void *ctx, const struct sd_addr *local)
{
	struct wire *w = listener_at(ctx, local);

	if (w)
		wire_cut(w);
}

static void bridge_room(void *ctx, const struct sd_addr *local)
{
	struct wire *w = listener_at(ctx, local);

	if (w)
		is_due(&w->upcall, 0);
}

static void accept_all(struct bridge *b, struct broker *broker, struct wire *w)
{
	struct pv_shm_end end;
	struct pv_info info;
	struct pv_ep *ep;

	for (unsigned i = 0; i < TURN; i++) {
		/* What finds no room waits in the backlog of the wire, which refuses what is too much. */
		if (!broker_has_room(broker, &w->local))
			return;
		if (w->ep->ops->accept(w->ep, &w->upcall, &ep))
			return;
		ep->ops->info(ep, &info);
		if (broker_incoming(broker, &info.local, &info.peer, sd_clock_ns(), &end))
			ep->ops->close(ep, PV_CLOSE_ABORT);
		else
			couple(b, ep, &end);
	}
	is_due(&w->upcall, PV_IN);
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
		sd_pack_u64(p, broker_call_name(w->asked));
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

static int restore_call(struct bridge *b, struct broker *broker, struct sd_unpack *u)
{
	struct wire *w = wire_new(b, &b->calls);
	uint64_t name = sd_unpack_u64(u);
	int r;

	if (!w)
		return -ENOMEM;
	w->asked = u->failed ? NULL : broker_call_named(broker, name, w);
	r = w->asked ? pv_ether_restore_ep(b->san, u, &w->upcall, &w->ep) : -EPROTO;
	if (r) {
		wire_free(w);
		return r;
	}
	is_due(&w->upcall, 0);
	return 0;
}

static int restore_couple(struct bridge *b, struct broker *broker, struct sd_unpack *u)
{
	struct couple_side *side[2];
	struct pv_shm_end end;
	struct pv_ep *inner, *outer;
	int fd = sd_unpack_fd(u), r = couple_new(&b->couples, side);

	if (r) {
		sd_fd_close(&fd);
		return r;
	}
	r = fd < 0 ? -EPROTO : couple_restore(side[0], u);
	if (!r)
		r = broker_end_again(broker, fd, &end);
	else
		sd_fd_close(&fd);
	if (!r)
		r = pv_shm_attach(b->shm, &end, NULL, &inner);
	if (r) {
		couple_free(side[0]);
		return r;
	}
	r = pv_ether_restore_ep(b->san, u, NULL, &outer);
	if (r) /* inner stays as it is: to close it would tell the program, who has another to serve it */
		return r;
	couple_join(side[0], inner, side[1], outer);
	return 0;
}

int bridge_restore(struct bridge *b, struct broker *broker, struct sd_unpack *u)
{
	int r = pv_ether_restore(b->san, u) == SD_REASON_SAN ? 0 : -EIO;

	while (!r && sd_unpack_u32(u))
		r = restore_call(b, broker, u);
	while (!r && sd_unpack_u32(u))
		r = restore_couple(b, broker, u);
	if (!r && u->failed)
		r = -EPROTO;
	return r;
}

void bridge_restored(struct bridge *b)
{
	pv_ether_restored(b->san);
	list_for_each (it, &b->listeners)
		is_due(&container_of(it, struct wire, node)->upcall, PV_IN);
}

uint64_t bridge_save_format(void)
{
	const uint64_t format = FORMAT;

	return sd_fnv(pv_ether_save_format(), &format, sizeof format);
}

/* --- all of it --- */

unsigned bridge_progress(struct bridge *b, struct broker *broker)
{
	struct list turn = LIST_INIT(turn), *it;
	unsigned n = 0;

	while ((it = list_pop_front(&b->due)))
		list_push_back(&turn, it);
	while ((it = list_pop_front(&turn))) {
		struct wire *w = container_of(it, struct wire, due);

		if (w->asked)
			settle(b, broker, w);
		else
			accept_all(b, broker, w);
		n++;
	}
	return n + couples_progress(&b->couples);
}

int bridge_open(struct pv *san, struct pv *shm, struct bridge **out)
{
	struct bridge *b = calloc(1, sizeof *b);

	if (!b || couples_open(&b->couples)) {
		free(b);
		return -ENOMEM;
	}
	b->san = san;
	b->shm = shm;
	b->outside = (struct broker_outside){.size = sizeof b->outside,
		.ctx = b,
		.connect = bridge_connect,
		.forget = bridge_forget,
		.listen = bridge_listen,
		.room = bridge_room,
		.unlisten = bridge_unlisten};
	list_init(&b->calls);
	list_init(&b->listeners);
	list_init(&b->due);
	*out = b;
	return 0;
}

const struct broker_outside *bridge_outside(struct bridge *b)
{
	return &b->outside;
}

void bridge_close(struct bridge *b)
{
	while (!list_empty(&b->calls))
		wire_cut(container_of(b->calls.next, struct wire, node));
	while (!list_empty(&b->listeners))
		wire_cut(container_of(b->listeners.next, struct wire, node));
	couples_close(&b->couples);
	free(b);
}
