/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * listener: who takes connections, found by port and then by the most specific address, and the queues of
 * those that wait to be accepted.
 */
#include <errno.h>

#include "transport/qp.h"

#define SPARE_PER_LISTENER 64u
#define SPARE_MAX	   512u

static struct tp_listener **bucket(struct tp *t, uint16_t port)
{
	return &t->listeners[port % TP_PORT_BUCKETS];
}

/* How well l fits: 0 not at all, 3 exactly. An IPv6 wildcard takes IPv4 too, as a dual-stack socket does. */
static int match(const struct tp_listener *l, const struct sd_addr *local, bool messages)
{
	if (l->local.port != local->port || l->messages != messages)
		return 0;
	if (sd_addr_same_ip(&l->local, local))
		return 3;
	if (!sd_addr_is_any(&l->local))
		return 0;
	return l->local.family == local->family ? 2 : l->local.family == 6;
}

struct tp_listener *tp_listener_find(struct tp *t, const struct sd_addr *local, bool messages)
{
	struct tp_listener *best = NULL;
	int best_fit = 0;

	for (struct tp_listener *l = *bucket(t, local->port); l; l = l->next) {
		int fit = match(l, local, messages);

		if (fit > best_fit) {
			best = l;
			best_fit = fit;
		}
	}
	return best;
}

/* How many connections to keep in store follows from what the listeners may be sent at once. */
static void count_spare(struct tp *t)
{
	unsigned n = 0;

	for (int i = 0; i < TP_PORT_BUCKETS; i++)
		for (struct tp_listener *l = t->listeners[i]; l; l = l->next)
			n += l->backlog < SPARE_PER_LISTENER ? l->backlog : SPARE_PER_LISTENER;
	t->pool.spare = n < SPARE_MAX ? n : SPARE_MAX;
}

static int listen_for(struct tp *t, const struct sd_addr *local, unsigned backlog, bool messages, void *user,
	struct tp_listener **out)
{
	struct tp_listener **b = bucket(t, local->port), *l;

	for (l = *b; l; l = l->next)
		if (sd_addr_equal(&l->local, local) && l->messages == messages)
			return -EADDRINUSE;
	l = t->ops.alloc(t->ctx, sizeof *l);
	if (!l)
		return -ENOMEM;
	l->tp = t;
	l->local = *local;
	l->messages = messages;
	l->user = user;
	list_init(&l->ready);
	list_init(&l->half);
	l->next = *b;
	*b = l;
	tp_listener_set_backlog(l, backlog);
	if (tp_pool_fill(t, t->pool.spare, t->pool.spare)) {
		tp_listener_close(l);
		return -ENOMEM;
	}
	*out = l;
	return 0;
}

int tp_listen(
	struct tp *t, const struct sd_addr *local, unsigned backlog, void *user, struct tp_listener **out)
{
	return listen_for(t, local, backlog, false, user, out);
}

int tp_qp_listen(struct tp *t, const struct sd_addr *local, unsigned backlog, unsigned max_peer_reads,
	void *user, struct tp_listener **out)
{
	int r = max_peer_reads > TP_MAX_READS ? -EINVAL : listen_for(t, local, backlog, true, user, out);

	if (!r)
		(*out)->reads = (uint16_t)max_peer_reads;
	return r;
}

void tp_listener_set_backlog(struct tp_listener *l, unsigned backlog)
{
	l->backlog = backlog < 1 ? 1 : backlog < TP_BACKLOG_MAX ? backlog : TP_BACKLOG_MAX;
	count_spare(l->tp);
}

static void reset_all(struct list *head)
{
	struct list *node;

	while ((node = list_pop_front(head))) {
		struct tp_conn *c = container_of(node, struct tp_conn, lnode);
		bool failed = c->state == CONN_FAILED;

		c->listener = NULL;
		if (failed)
			tp_conn_free(c);
		else
			tp_conn_abort(c, WIRE_RESET_ABORT, -ECONNABORTED);
	}
}

void tp_listener_close(struct tp_listener *l)
{
	struct tp *t = l->tp;
	struct tp_listener **p = bucket(t, l->local.port);

	reset_all(&l->half);
	reset_all(&l->ready);
	while (*p != l)
		p = &(*p)->next;
	*p = l->next;
	t->ops.free(t->ctx, l, sizeof *l);
	count_spare(t);
	tp_pool_trim(t);
}

void tp_listener_ready(struct tp_conn *c)
{
	struct tp_listener *l = c->listener;

	list_remove(&c->lnode);
	l->half_count--;
	list_push_back(&l->ready, &c->lnode);
	l->ready_count++;
	l->tp->ops.acceptable(l->tp->ctx, l, l->user);
}

struct tp_conn *tp_accept(struct tp_listener *l, void *user)
{
	struct list *node = list_pop_front(&l->ready);
	struct tp_conn *c;

	if (!node)
		return NULL;
	c = container_of(node, struct tp_conn, lnode);
	l->ready_count--;
	c->listener = NULL;
	c->owned = true;
	c->user = user;
	l->tp->stats.conns_accepted++;
	tp_refill(l->tp);
	return c;
}

bool tp_acceptable(const struct tp_listener *l)
{
	return !list_empty(&l->ready);
}
