/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pool: connections, smallest rings and reorder blocks kept in store, so that packets never make us allocate.
 * In a crowd connections share these rings: one has them while there is something in them, so that thousands
 * use the same few by turns, the one that came back last first, which is still in the cache.
 * The store is filled by calls of the application (tp_listen, tp_accept, tp_connect, tp_refill) and fed by
 * connections that end. What a packet frees and the store does not want waits on the garbage list for the
 * next such call.
 */
#include <errno.h>

#include "transport/conn.h"

#define SLAB_CONNS 16 /* in a slab */
#define SLAB_HEAD  64 /* a slab's link, and the connections stay on cache lines */
#define MANY_CONNS                                                                                           \
	1024 /* from then on a slab fills a large page, if its allocator has such for what is large */
#define SLAB_MANY	 (2u << 20)
#define RINGS_KEPT	 512 /* beyond what the listeners want in store */
#define RINGS_READY	 256 /* in store for packets, if connections share them; */
#define RINGS_TO_SEND	 64  /* who sends, and may ask for memory, leaves so many */
#define RINGS_RELEASED	 64  /* at once */
#define REORDERS_AT_ONCE 8
#define REORDERS_MIN	 32
#define REORDERS_MAX	 1024
#define REST_SHARE	 16u   /* so often within rest_ns, at least */
#define REST_LOOKS	 256u  /* at connections at once */
#define REST_SLOTS	 4096u /* in which these are looked for */

static struct tp_conn *conns_of(struct tp_garbage *slab, size_t *n)
{
	*n = (slab->size - SLAB_HEAD) / sizeof(struct tp_conn);
	return (struct tp_conn *)((char *)slab + SLAB_HEAD);
}

static int add_conns(struct tp *t)
{
	size_t few = SLAB_HEAD + SLAB_CONNS * sizeof(struct tp_conn), n;
	size_t size = t->conn_count < MANY_CONNS ? few : SLAB_MANY;
	struct tp_garbage *slab = t->ops.alloc(t->ctx, size);
	struct tp_conn *c;

	if (!slab)
		return -ENOMEM;
	slab->size = size;
	slab->next = t->pool.slabs;
	t->pool.slabs = slab;
	c = conns_of(slab, &n);
	for (size_t i = 0; i < n; i++)
		tp_pool_conn_put(t, &c[i]);
	return 0;
}

int tp_pool_add_reorders(struct tp *t)
{
	for (int i = 0; i < REORDERS_AT_ONCE; i++) {
		struct tp_reorder *r = t->ops.alloc(t->ctx, sizeof *r);

		if (!r)
			return -ENOMEM;
		t->pool.reorder_total++;
		tp_pool_reorder_put(t, r);
	}
	return 0;
}

/* Blocks for packets that overtook others: enough that every eighth connection may have a gap at once. */
static unsigned reorders_wanted(const struct tp *t)
{
	unsigned n = t->conn_count / 8;

	return n < REORDERS_MIN ? REORDERS_MIN : n > REORDERS_MAX ? REORDERS_MAX : n;
}

int tp_pool_fill(struct tp *t, unsigned conns, unsigned rings)
{
	struct tp_pool *p = &t->pool;

	while (p->conn_count < conns)
		if (add_conns(t))
			return -ENOMEM;
	while (p->ring_count < rings) {
		struct tp_ring r = {t->ops.alloc(t->ctx, t->cfg.ring_min), t->cfg.ring_min};

		if (!r.data)
			return -ENOMEM;
		tp_pool_ring_put(t, &r);
	}
	while (p->reorder_total < reorders_wanted(t))
		if (tp_pool_add_reorders(t))
			return -ENOMEM;
	return 0;
}

struct tp_conn *tp_pool_conn(struct tp *t)
{
	struct tp_conn *c = t->pool.conns;

	if (c) {
		t->pool.conns = c->free_next;
		t->pool.conn_count--;
	}
	return c;
}

void tp_pool_conn_put(struct tp *t, struct tp_conn *c)
{
	c->state = CONN_FREE;
	c->free_next = t->pool.conns;
	t->pool.conns = c;
	t->pool.conn_count++;
}

bool tp_pool_ring(struct tp *t, struct tp_ring *out)
{
	struct tp_garbage *g = t->pool.rings;

	if (!g)
		return false;
	t->pool.rings = g->next;
	t->pool.ring_count--;
	if (t->pool.ring_count < t->pool.ring_low)
		t->pool.ring_low = t->pool.ring_count;
	*out = (struct tp_ring){.data = (uint8_t *)g, .size = t->cfg.ring_min};
	return true;
}

bool tp_pool_ring_to_send(struct tp *t, struct tp_ring *out)
{
	return (!t->pool.shared || t->pool.ring_count > RINGS_TO_SEND) && tp_pool_ring(t, out);
}

void tp_pool_ring_share(struct tp *t, struct tp_ring *r)
{
	t->pool.shared = true;
	tp_pool_ring_put(t, r);
}

static unsigned rings_kept(const struct tp *t)
{
	return t->pool.spare + RINGS_KEPT + (t->pool.shared ? 2 * t->conn_count : 0);
}

void tp_pool_ring_put(struct tp *t, struct tp_ring *r)
{
	struct tp_garbage *g = (struct tp_garbage *)r->data;

	if (g && r->size == t->cfg.ring_min && t->pool.ring_count < rings_kept(t)) {
		g->next = t->pool.rings;
		t->pool.rings = g;
		t->pool.ring_count++;
	} else if (g) {
		tp_pool_discard(t, r->data, r->size);
	}
	r->data = NULL;
	r->size = 0;
}

struct tp_reorder *tp_pool_reorder(struct tp *t)
{
	struct tp_reorder *r = t->pool.reorders;

	if (!r) {
		t->stats.pool_empty++;
		return NULL;
	}
	t->pool.reorders = r->next_free;
	memset(&r->have, 0, sizeof r->have);
	return r;
}

void tp_pool_reorder_put(struct tp *t, struct tp_reorder *r)
{
	r->next_free = t->pool.reorders;
	t->pool.reorders = r;
}

void tp_pool_discard(struct tp *t, void *p, size_t size)
{
	struct tp_garbage *g = p;

	g->size = size;
	g->next = t->pool.garbage;
	t->pool.garbage = g;
}

static void free_list(struct tp *t, struct tp_garbage *g)
{
	while (g) {
		struct tp_garbage *next = g->next;

		t->ops.free(t->ctx, g, g->size);
		g = next;
	}
}

void tp_pool_trim(struct tp *t)
{
	struct tp_garbage *g = t->pool.garbage;

	t->pool.garbage = NULL;
	free_list(t, g);
}

void tp_pool_each(struct tp *t, void (*f)(struct tp_conn *c, void *ctx), void *ctx)
{
	for (struct tp_garbage *slab = t->pool.slabs; slab; slab = slab->next) {
		size_t n;
		struct tp_conn *c = conns_of(slab, &n);

		for (size_t i = 0; i < n; i++)
			if (c[i].state != CONN_FREE)
				f(&c[i], ctx);
	}
}

void tp_pool_destroy(struct tp *t)
{
	struct tp_ring r;
	struct tp_reorder *o;

	while (tp_pool_ring(t, &r))
		t->ops.free(t->ctx, r.data, r.size);
	while ((o = t->pool.reorders)) {
		t->pool.reorders = o->next_free;
		t->ops.free(t->ctx, o, sizeof *o);
	}
	tp_pool_trim(t);
	free_list(t, t->pool.slabs);
}

/* It forgets what it has known of packets in flight. The connection keeps its rings: their size is what the
 * peer has been told, and what they have grown to. */
static void rest(struct tp_conn *c)
{
	struct tp *t = c->tp;
	uint64_t seen = c->snd_end + c->rcv_off;

	if (seen != c->rest_seen) {
		c->rest_seen = seen;
		c->rest_since = t->now;
		c->rests = false;
	}
	if (c->rests || t->now - c->rest_since < t->cfg.rest_ns)
		return;
	if (c->snd_acked != c->snd_end || c->rcv_read != c->rcv_off || c->reorder)
		return;
	if (c->snd_una == c->snd_nxt && !c->messages && !c->lent)
		tp_flight_drop(c);
	if (c->snd.data)
		t->ops.idle(t->ctx, c->snd.data, c->snd.size);
	if (c->rcv.data)
		t->ops.idle(t->ctx, c->rcv.data, c->rcv.size);
	c->rests = true;
}

/* So that all are looked at within rest_ns. */
static uint64_t rest_pause(const struct tp *t)
{
	unsigned share = t->conn_count / REST_LOOKS;

	return t->cfg.rest_ns / (share > REST_SHARE ? share : REST_SHARE);
}

static unsigned rings_wanted(const struct tp *t)
{
	unsigned shared = t->conn_count < RINGS_READY ? t->conn_count : RINGS_READY;

	return t->pool.spare + (t->pool.shared ? shared : 0);
}

/* What of the store was not used for rest_ns is the system's again. */
static void release_rings(struct tp *t)
{
	struct tp_pool *p = &t->pool;
	unsigned wanted = rings_wanted(t);
	struct tp_ring r;

	if (t->now >= p->low_until) {
		p->surplus = p->ring_low > wanted ? p->ring_low - wanted : 0;
		p->ring_low = p->ring_count;
		p->low_until = t->now + t->cfg.rest_ns;
	}
	for (unsigned n = 0; n < RINGS_RELEASED && p->surplus; n++, p->surplus--) {
		if (p->ring_count <= wanted || !tp_pool_ring(t, &r))
			return;
		t->ops.idle(t->ctx, r.data, r.size);
		t->ops.free(t->ctx, r.data, r.size);
	}
}

static void rest_some(struct tp *t)
{
	struct tp_pool *p = &t->pool;
	unsigned looks = 0;

	if (!t->ops.idle || t->now < p->rest_at)
		return;
	p->rest_at = t->now + rest_pause(t);
	if (p->shared)
		release_rings(t);
	for (uint32_t n = 0; n < REST_SLOTS && n < t->max_conns && looks < REST_LOOKS; n++) {
		struct tp_conn *c = t->slots[p->rest_index];

		p->rest_index = p->rest_index + 1 < t->max_conns ? p->rest_index + 1 : 0;
		if (c) {
			looks++;
			rest(c);
		}
	}
}

void tp_refill(struct tp *t)
{
	rest_some(t);
	tp_pool_trim(t);
	tp_pool_fill(t, t->pool.spare, rings_wanted(t)); /* short of memory: what finds none is repeated */
}
