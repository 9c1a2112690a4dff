/* SPDX-License-Identifier: BSD-3-Clause */
#include "provider/desk.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/fnv.h"

#define BUCKETS 256u /* a power of two */
/* To be changed with what is written for another process. */
#define FORMAT 1u

/* A program's CONNECT that an engine has. */
struct call {
	struct list node;
	uint64_t number;
	unsigned engine;
	struct broker_call *asked; /* NULL: the program is gone, and the engine has been told */
	struct letter *forget;	   /* to tell it; NULL: that has been done */
};

/* Something at one of an engine's listeners waits for room. */
struct full {
	struct list node;
	unsigned engine;
	struct sd_addr at;
};

struct desk {
	struct post post;
	struct broker_outside outside;
	unsigned n_engines, turn;
	struct post *bridges[DESK_ENGINES];
	struct list fulls;
	struct list calls[BUCKETS];
	uint64_t n_calls; /* ever */
};

static void call_free(struct call *c)
{
	list_remove(&c->node);
	free(c->forget);
	free(c);
}

static struct call *call_new(struct desk *d, uint64_t number)
{
	struct call *c = calloc(1, sizeof *c);

	if (!c)
		return NULL;
	c->number = number;
	c->forget = letter_new(LETTER_FORGET);
	list_push_back(&d->calls[number & (BUCKETS - 1)], &c->node);
	if (c->forget)
		return c;
	call_free(c);
	return NULL;
}

static struct call *call_of(struct desk *d, const struct letter *l)
{
	list_for_each (it, &d->calls[l->call & (BUCKETS - 1)]) {
		struct call *c = container_of(it, struct call, node);

		if (c->number == l->call)
			return c;
	}
	return NULL;
}

/* --- the broker's wishes --- */

static int desk_connect(void *ctx, struct broker_call *asked, const struct sd_addr *local,
	const struct sd_addr *peer, enum sd_reason *reason, void **user)
{
	struct desk *d = ctx;
	struct letter *l = letter_new(LETTER_CONNECT);
	struct call *c = l ? call_new(d, ++d->n_calls) : NULL;

	*reason = SD_REASON_NO_MEMORY;
	if (!c) {
		free(l);
		return -ENOMEM;
	}
	c->asked = asked;
	c->engine = d->turn++ % d->n_engines;
	l->call = c->number;
	l->local = *local;
	l->peer = *peer;
	post_send(d->bridges[c->engine], l);
	*user = c;
	return 0;
}

static void desk_forget(void *ctx, void *user)
{
	struct desk *d = ctx;
	struct call *c = user;
	struct letter *l = c->forget;

	c->asked = NULL;
	c->forget = NULL;
	l->call = c->number;
	post_send(d->bridges[c->engine], l);
}

static void tell_all(struct desk *d, enum letter_kind kind, const struct sd_addr *local, unsigned backlog)
{
	for (unsigned i = 0; i < d->n_engines; i++) {
		struct letter *l = letter_new(kind);

		if (!l)
			continue;
		l->local = *local;
		l->backlog = backlog;
		post_send(d->bridges[i], l);
	}
}

static void desk_listen(void *ctx, const struct sd_addr *local, unsigned backlog)
{
	tell_all(ctx, LETTER_LISTEN, local, backlog);
}

static void desk_unlisten(void *ctx, const struct sd_addr *local)
{
	tell_all(ctx, LETTER_UNLISTEN, local, 0);
}

static bool note_full(struct desk *d, unsigned engine, const struct sd_addr *at)
{
	struct full *f;

	list_for_each (it, &d->fulls) {
		f = container_of(it, struct full, node);
		if (f->engine == engine && sd_addr_equal(&f->at, at))
			return true;
	}
	f = calloc(1, sizeof *f);
	if (!f)
		return false;
	f->engine = engine;
	f->at = *at;
	list_push_back(&d->fulls, &f->node);
	return true;
}

static void full_free(struct full *f)
{
	list_remove(&f->node);
	free(f);
}

/* Only those are told who have asked: this happens with each connection that a program accepts. One of any
 * address and one of a certain one may take the same connections. */
static void desk_room(void *ctx, const struct sd_addr *local)
{
	struct desk *d = ctx;

	list_for_each (it, &d->fulls) {
		struct full *f = container_of(it, struct full, node);
		struct letter *l = local && f->at.port != local->port ? NULL : letter_new(LETTER_ROOM);

		if (!l)
			continue;
		l->local = f->at;
		post_send(d->bridges[f->engine], l);
		full_free(f);
	}
}

/* --- the engines' answers --- */

static void answer(struct desk *d, struct letter *l, enum letter_kind kind)
{
	l->kind = kind;
	post_send(d->bridges[l->engine], l);
}

/* Who is gone meanwhile has been forgotten: FORGOTTEN follows. */
static void connected(struct desk *d, struct broker *broker, struct letter *l)
{
	struct call *c = call_of(d, l);

	if (!c || !c->asked) {
		free(l);
		return;
	}
	answer(d, l, broker_connected(broker, c->asked, &l->end) ? LETTER_DROP : LETTER_COUPLE);
	call_free(c);
}

static void refused(struct desk *d, struct broker *broker, struct letter *l)
{
	struct call *c = call_of(d, l);

	if (c && c->asked) {
		struct broker_call *asked = c->asked;

		call_free(c);
		broker_refuse(broker, asked, l->error, l->reason);
	}
	free(l);
}

static void forgotten(struct desk *d, struct letter *l)
{
	struct call *c = call_of(d, l);

	if (c)
		call_free(c);
	free(l);
}

static void incoming(struct desk *d, struct broker *broker, struct letter *l)
{
	int r = broker_incoming(broker, &l->local, &l->peer, sd_clock_ns(), &l->end);

	switch (r) {
	case 0:
		answer(d, l, LETTER_COUPLE);
		return;
	case -EAGAIN:
	case -EDQUOT:
	case -ENOMEM:
	case -EMFILE:
	case -ENFILE: /* whatever is used up: others are to find a full backlog, not to be cut off */
		answer(d, l, note_full(d, l->engine, &l->at) ? LETTER_FULL : LETTER_DROP);
		return;
	case -EPERM:
	case -ECONNREFUSED: /* the kernel gives this port to a program that is not here */
		tell_all(d, LETTER_UNLISTEN, &l->at, 0);
	}
	answer(d, l, LETTER_DROP);
}

unsigned desk_progress(struct desk *d, struct broker *broker)
{
	struct letter *l;
	unsigned n = 0;

	for (; (l = post_take(&d->post)); n++) {
		switch (l->kind) {
		case LETTER_CONNECTED:
			connected(d, broker, l);
			break;
		case LETTER_REFUSED:
			refused(d, broker, l);
			break;
		case LETTER_FORGOTTEN:
			forgotten(d, l);
			break;
		case LETTER_INCOMING:
			incoming(d, broker, l);
			break;
		case LETTER_PARTED:
			broker_end_closed(broker);
			free(l);
			break;
		default: /* a bridge's to read */
			free(l);
		}
	}
	return n;
}

/* --- another process goes on --- */

void desk_save(struct desk *d, struct sd_pack *p)
{
	sd_pack_u64(p, d->n_calls);
	for (unsigned i = 0; i < BUCKETS; i++) {
		list_for_each (it, &d->calls[i]) {
			const struct call *c = container_of(it, struct call, node);

			if (!c->asked)
				continue;
			sd_pack_u32(p, 1);
			sd_pack_u64(p, c->number);
			sd_pack_u32(p, c->engine);
			sd_pack_u64(p, broker_call_name(c->asked));
		}
	}
	sd_pack_u32(p, 0);
}

int desk_restore(struct desk *d, struct broker *broker, struct sd_unpack *u)
{
	d->n_calls = sd_unpack_u64(u);
	while (sd_unpack_u32(u)) {
		struct call *c = call_new(d, sd_unpack_u64(u));
		uint64_t name;

		if (!c)
			return -ENOMEM;
		c->engine = sd_unpack_u32(u);
		name = sd_unpack_u64(u);
		c->asked = u->failed ? NULL : broker_call_named(broker, name, c);
		if (!sd_unpack_check(u, c->asked && c->engine < d->n_engines)) {
			call_free(c);
			return -EPROTO;
		}
	}
	return u->failed ? -EPROTO : 0;
}

uint64_t desk_save_format(void)
{
	const uint64_t format = FORMAT;

	return sd_fnv(SD_FNV_BASIS, &format, sizeof format);
}

/* --- life --- */

int desk_open(const struct desk_config *cfg, struct desk **out)
{
	struct desk *d;
	int r;

	if (cfg->size != sizeof *cfg || !cfg->n_engines || cfg->n_engines > DESK_ENGINES)
		return -EINVAL;
	d = calloc(1, sizeof *d);
	if (!d)
		return -ENOMEM;
	r = post_open(&d->post, cfg->bell);
	if (r) {
		free(d);
		return r;
	}
	d->n_engines = cfg->n_engines;
	list_init(&d->fulls);
	d->outside = (struct broker_outside){.size = sizeof d->outside,
		.ctx = d,
		.ring_max = cfg->ring_max,
		.ring_min = cfg->ring_min,
		.connect = desk_connect,
		.forget = desk_forget,
		.listen = desk_listen,
		.room = desk_room,
		.unlisten = desk_unlisten};
	for (unsigned i = 0; i < BUCKETS; i++)
		list_init(&d->calls[i]);
	*out = d;
	return 0;
}

void desk_set_bridge(struct desk *d, unsigned i, struct post *letters)
{
	d->bridges[i] = letters;
}

struct post *desk_post(struct desk *d)
{
	return &d->post;
}

const struct broker_outside *desk_outside(struct desk *d)
{
	return &d->outside;
}

void desk_close(struct desk *d)
{
	for (unsigned i = 0; i < BUCKETS; i++) {
		while (!list_empty(&d->calls[i]))
			call_free(container_of(d->calls[i].next, struct call, node));
	}
	while (!list_empty(&d->fulls))
		full_free(container_of(d->fulls.next, struct full, node));
	post_close(&d->post);
	free(d);
}
