/* SPDX-License-Identifier: BSD-3-Clause */
/* The cache and its questions. Entries are few and looked up once per connect. */
#include "provider/resolver.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "provider/engine.h"

#define FIRST_RETRY	(1 * SD_MS)
#define NO_LISTENER_TTL (1 * SD_S)
/* Another process of the same host may have the listener and answer a moment later. */
#define GRACE	(300 * SD_US)
#define TTL_MAX (60 * SD_S)

struct resolver_entry {
	struct list hash, age, ask;
	struct sd_addr target;
	struct sd_addr local;
	unsigned index;		    /* port */
	enum resolver_result known; /* PENDING: nothing known yet */
	uint64_t expires, ttl;
	struct tp_path path; /* when known is FOUND */
	/* the question on its way, if on resolver.asking */
	enum resolver_result tentative; /* a negative answer that may still be overruled */
	uint64_t next_send, interval, deadline;
	struct list waits;
};

static struct list *bucket(struct resolver *r, const struct sd_addr *a)
{
	uint32_t h = a->port;

	for (unsigned i = 0; i < sizeof a->ip; i++)
		h = h * 31 + a->ip[i];
	return &r->buckets[(h ^ h >> 8) % RESOLVER_BUCKETS];
}

static struct resolver_entry *find(struct resolver *r, const struct sd_addr *target)
{
	list_for_each (it, bucket(r, target)) {
		struct resolver_entry *x = container_of(it, struct resolver_entry, hash);

		if (sd_addr_equal(&x->target, target))
			return x;
	}
	return NULL;
}

static void drop(struct resolver *r, struct resolver_entry *x)
{
	list_remove(&x->hash);
	list_remove(&x->age);
	list_remove(&x->ask);
	r->n_entries--;
	free(x);
}

/* Makes room by forgetting the entry that nobody has used for longest and nobody waits for. */
static bool make_room(struct resolver *r)
{
	if (r->n_entries < RESOLVER_MAX)
		return true;
	list_for_each (it, &r->by_age) {
		struct resolver_entry *x = container_of(it, struct resolver_entry, age);

		if (list_empty(&x->waits)) {
			drop(r, x);
			return true;
		}
	}
	return false;
}

static struct resolver_entry *obtain(struct resolver *r, const struct sd_addr *target)
{
	struct resolver_entry *x = find(r, target);

	if (x)
		return x;
	if (!make_room(r))
		return NULL;
	x = calloc(1, sizeof *x);
	if (!x)
		return NULL;
	x->target = *target;
	list_init(&x->ask);
	list_init(&x->waits);
	list_push_back(bucket(r, target), &x->hash);
	list_push_back(&r->by_age, &x->age);
	r->n_entries++;
	return x;
}

void resolver_open(struct resolver *r, struct engine *e, const struct resolver_config *cfg)
{
	r->cfg = *cfg;
	if (!r->cfg.timeout_ns)
		r->cfg.timeout_ns = 30 * SD_MS;
	if (!r->cfg.negative_ttl_ns)
		r->cfg.negative_ttl_ns = 10 * SD_S;
	if (!r->cfg.positive_ttl_ns)
		r->cfg.positive_ttl_ns = 60 * SD_S;
	r->engine = e;
	for (unsigned i = 0; i < RESOLVER_BUCKETS; i++)
		list_init(&r->buckets[i]);
	list_init(&r->by_age);
	list_init(&r->asking);
	r->next = UINT64_MAX;
}

void resolver_close(struct resolver *r)
{
	list_for_each (it, &r->by_age)
		drop(r, container_of(it, struct resolver_entry, age));
}

/* --- asking --- */

static void send_question(struct resolver *r, struct resolver_entry *x, uint64_t now)
{
	struct tp_path path;

	engine_path(r->engine, x->index, &x->local, &x->target, NULL, &path);
	tp_find(r->engine->tp, &path, &x->target);
	x->next_send = now + x->interval;
	x->interval *= 2;
}

static uint64_t due(const struct resolver_entry *x)
{
	return x->next_send < x->deadline ? x->next_send : x->deadline;
}

static void begin(struct resolver *r, struct resolver_entry *x, uint64_t now)
{
	x->tentative = RESOLVER_SILENT;
	x->interval = FIRST_RETRY;
	x->deadline = now + r->cfg.timeout_ns;
	list_push_back(&r->asking, &x->ask);
	send_question(r, x, now);
	if (due(x) < r->next)
		r->next = due(x);
}

static uint64_t ttl_of(const struct resolver *r, const struct resolver_entry *x, enum resolver_result result)
{
	uint64_t ttl = r->cfg.negative_ttl_ns, most = ttl > TTL_MAX ? ttl : TTL_MAX;

	if (result == RESOLVER_FOUND)
		return r->cfg.positive_ttl_ns;
	if (result != RESOLVER_SILENT)
		return ttl < NO_LISTENER_TTL ? ttl : NO_LISTENER_TTL;
	/* The longer it stays silent, the more seldom it is asked. */
	if (x->known == RESOLVER_SILENT)
		ttl = x->ttl * 2 < most ? x->ttl * 2 : most;
	return ttl;
}

/* Those who are told may ask anew, and make room for it: x may be gone afterwards. */
static void finish(struct resolver *r, struct resolver_entry *x, enum resolver_result result, uint64_t now)
{
	struct list waits = LIST_INIT(waits), *it;
	struct tp_path path = x->path;

	list_remove(&x->ask);
	x->ttl = ttl_of(r, x, result);
	x->known = result;
	x->expires = now + x->ttl;
	while ((it = list_pop_front(&x->waits)))
		list_push_back(&waits, it);
	while ((it = list_pop_front(&waits)))
		r->engine->ops.resolved(
			r->engine->ops.ctx, container_of(it, struct resolver_wait, node), result, &path);
}

/* Silence is a property of the host: one port's silence spares the others the wait. */
static struct sd_addr host_of(const struct sd_addr *target)
{
	struct sd_addr host = *target;

	host.port = 0;
	return host;
}

static void remember_silence(struct resolver *r, const struct sd_addr *target, uint64_t now)
{
	struct sd_addr host = host_of(target);
	struct resolver_entry *h = obtain(r, &host);

	if (!h || (h->known == RESOLVER_SILENT && now < h->expires))
		return; /* known by another of its ports */
	h->ttl = ttl_of(r, h, RESOLVER_SILENT);
	h->known = RESOLVER_SILENT;
	h->expires = now + h->ttl;
}

/* A port nobody has asked for yet on a host that was silent: what is known of the host holds for it. */
static void inherit_silence(struct resolver *r, struct resolver_entry *x)
{
	struct sd_addr host = host_of(&x->target);
	struct resolver_entry *h = find(r, &host);

	if (!h || h->known != RESOLVER_SILENT)
		return;
	x->known = RESOLVER_SILENT;
	x->ttl = h->ttl;
	x->expires = h->expires;
}

enum resolver_result resolver_ask(struct resolver *r, uint64_t now, unsigned index,
	const struct sd_addr *local, const struct sd_addr *target, struct resolver_wait *w,
	struct tp_path *path)
{
	const struct engine_port *p = &r->engine->ports[index];
	struct resolver_entry *x;
	bool asking;

	if ((p->info.caps & PORT_CAP_LINK) && !p->info.link_up)
		return RESOLVER_LINK_DOWN;
	x = obtain(r, target);
	if (!x)
		return RESOLVER_FULL;
	list_remove(&x->age);
	list_push_back(&r->by_age, &x->age);
	asking = !list_empty(&x->ask);
	/* A host that has answered will answer again, and at once: its new answer is worth the wait. */
	if (!asking && now >= x->expires && x->known != RESOLVER_FOUND && x->known != RESOLVER_SILENT)
		x->known = RESOLVER_PENDING;
	x->index = index;
	x->local = *local;
	if (x->known == RESOLVER_PENDING && !asking)
		inherit_silence(r, x);
	if (!asking && (x->known == RESOLVER_PENDING || now >= x->expires)) {
		begin(r, x, now);
		asking = true;
	}
	if (x->known == RESOLVER_FOUND) {
		engine_path(r->engine, index, local, target, x->path.hdr, path);
		return RESOLVER_FOUND;
	}
	if (x->known != RESOLVER_PENDING)
		return x->known;
	list_push_back(&x->waits, &w->node);
	return RESOLVER_PENDING;
}

/* --- answers --- */

static enum resolver_result result_of(enum tp_code code)
{
	switch (code) {
	case TP_OK:
		return RESOLVER_FOUND;
	case TP_NO_LISTENER:
		return RESOLVER_NO_LISTENER;
	case TP_VERSION:
		return RESOLVER_VERSION;
	case TP_REFUSED:
	case TP_BUSY:
		break;
	}
	return RESOLVER_REFUSED;
}

/* A host has been heard from: nothing bad that was remembered of it holds any more, and nothing that was
 * learnt of another native address. */
static void forgive(struct resolver *r, const struct sd_addr *host, const uint8_t *mac)
{
	list_for_each (it, &r->by_age) {
		struct resolver_entry *x = container_of(it, struct resolver_entry, age);

		if (!sd_addr_same_ip(&x->target, host) ||
			(x->known == RESOLVER_FOUND && !memcmp(x->path.hdr, mac, 6)))
			continue;
		x->known = RESOLVER_PENDING;
		if (list_empty(&x->ask) && list_empty(&x->waits))
			drop(r, x);
	}
}

void resolver_found(struct resolver *r, uint64_t now, const struct tp_found *f)
{
	const uint8_t *mac = (const uint8_t *)f->rx->frame + 6;
	enum resolver_result result = result_of(f->code);
	struct resolver_entry *x;

	if (!f->target.port) {
		forgive(r, f->rx->peer, mac);
		return;
	}
	/* Only what was asked for is believed, and only from the address that was asked. Good news may be
	 * late. */
	x = find(r, &f->target);
	if (!x || !sd_addr_same_ip(f->rx->peer, &f->target))
		return;
	if (list_empty(&x->ask) && (result != RESOLVER_FOUND || x->known == RESOLVER_FOUND))
		return;
	if (result == RESOLVER_FOUND) {
		engine_path(r->engine, x->index, &x->local, &x->target, mac, &x->path);
		finish(r, x, result, now);
		forgive(r, f->rx->peer, mac);
		return;
	}
	forgive(r, f->rx->peer, mac); /* not x itself, which is asking */
	if (x->tentative == RESOLVER_SILENT) {
		x->tentative = result;
		x->deadline = now + GRACE;
		if (x->deadline < r->next)
			r->next = x->deadline;
	}
}

void resolver_distrust(struct resolver *r, const struct sd_addr *target)
{
	struct resolver_entry *x = find(r, target);

	if (x && x->known == RESOLVER_FOUND)
		x->known = RESOLVER_PENDING;
}

void resolver_timeout(struct resolver *r, uint64_t now)
{
	struct list expired = LIST_INIT(expired), *it;

	list_for_each (i, &r->asking) {
		struct resolver_entry *x = container_of(i, struct resolver_entry, ask);

		if (now >= x->deadline) {
			list_remove(&x->ask);
			list_push_back(&expired, &x->ask);
		} else if (now >= x->next_send) {
			send_question(r, x, now);
		}
	}
	while ((it = list_pop_front(&expired))) {
		struct resolver_entry *x = container_of(it, struct resolver_entry, ask);
		struct sd_addr target = x->target;
		bool silent = x->tentative == RESOLVER_SILENT;

		finish(r, x, x->tentative, now);
		if (silent)
			remember_silence(r, &target, now);
	}
	r->next = UINT64_MAX;
	list_for_each (i, &r->asking) {
		struct resolver_entry *x = container_of(i, struct resolver_entry, ask);

		if (due(x) < r->next)
			r->next = due(x);
	}
}
