/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the broker has, for another process's broker to go on with. Descriptors are the same files there, so
 * that no program sees anything hang up, and what waits in them is there, too.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/fnv.h"
#include "provider/broker_private.h"

/* To be changed with the records below. */
#define FORMAT 3u

enum record { END, CLIENT, LISTENER, STREAM };

static void begin(struct sd_pack *p, enum record r)
{
	sd_pack_u32(p, r);
}

/* --- saving --- */

static void save_client(struct sd_pack *p, const struct client *c)
{
	begin(p, CLIENT);
	sd_pack_fd(p, c->watch.fd);
	sd_pack_value(p, c->uid);
	sd_pack_value(p, c->program);
	sd_pack_value(p, c->greeted);
	sd_pack_u32(p, c->n_calls);
	list_for_each (it, &c->calls) {
		const struct broker_call *call = container_of(it, struct broker_call, node);

		sd_pack_u64(p, broker_call_name(call));
		sd_pack_value(p, call->wanted);
		sd_pack_value(p, call->id);
		sd_pack_fd(p, call->socket);
	}
}

static void save_stream(struct sd_pack *p, const struct stream *s)
{
	uint8_t due = !list_empty(&s->due);

	for (unsigned i = 0; i < 2; i++) {
		sd_pack_value(p, s->end[i].cookie);
		sd_pack_value(p, s->end[i].name);
		sd_pack_value(p, s->end[i].inode);
		sd_pack_value(p, s->end[i].gone);
	}
	sd_pack_value(p, s->payer);
	sd_pack_value(p, s->heir);
	sd_pack_value(p, s->paid);
	sd_pack_value(p, s->path);
	sd_pack_value(p, s->netns);
	sd_pack_value(p, s->local);
	sd_pack_value(p, s->peer);
	sd_pack_value(p, s->bytes);
	sd_pack_value(p, s->ring);
	sd_pack_value(p, s->n_offers);
	sd_pack_value(p, due);
	sd_pack_fd(p, s->memory);
	sd_pack_fd(p, s->socket);
	sd_pack_fd(p, s->offered);
}

static void save_queue(struct sd_pack *p, const struct queue *q)
{
	uint32_t n = 0;

	sd_pack_fd(p, q->watch.fd);
	sd_pack_fd(p, q->half);
	sd_pack_fd(p, q->socket);
	sd_pack_value(p, q->cookie);
	sd_pack_value(p, q->program);
	sd_pack_value(p, q->owner);
	sd_pack_value(p, q->backlog);
	list_for_each (it, &q->leases)
		n++;
	sd_pack_value(p, n);
	list_for_each (it, &q->leases) {
		const struct lease *l = container_of(it, struct lease, node);

		sd_pack_fd(p, l->watch.fd);
		sd_pack_value(p, l->uid);
	}
	sd_pack_value(p, q->pending);
	list_for_each (it, &q->offered)
		save_stream(p, container_of(it, struct stream, offer));
}

static void save_listener(struct sd_pack *p, const struct listener *l)
{
	begin(p, LISTENER);
	sd_pack_value(p, l->netns);
	sd_pack_value(p, l->local);
	sd_pack_u32(p, l->n_queues);
	list_for_each (it, &l->queues)
		save_queue(p, container_of(it, struct queue, node));
}

uint64_t broker_save_format(void)
{
	const uint64_t sizes[] = {FORMAT, sizeof(struct channel_connect), CHANNEL_NAME_LEN};

	return sd_fnv(SD_FNV_BASIS, sizes, sizeof sizes);
}

void broker_save(struct broker *b, struct sd_pack *p)
{
	waste_idle(b); /* no ticks while we wait for the other process */
	sd_pack_value(p, b->netns);
	sd_pack_u64(p, b->stats.joined);
	sd_pack_u64(p, b->stats.refused);
	sd_pack_u64(p, b->stats.offered_again);
	sd_pack_u64(p, b->stats.bad_messages);
	list_for_each (it, &b->clients)
		save_client(p, container_of(it, struct client, node));
	for (unsigned i = 0; i < BROKER_BUCKETS; i++) {
		list_for_each (it, &b->listeners[i])
			save_listener(p, container_of(it, struct listener, node));
	}
	/* Those that wait in a queue are there already. */
	for (unsigned i = 0; i < BROKER_BUCKETS; i++) {
		list_for_each (it, &b->streams[i]) {
			const struct end *e = container_of(it, struct end, hash);
			const struct stream *s = e->stream;

			/* Under one of its ends. */
			if (s->queue || e != &s->end[s->end[0].gone])
				continue;
			begin(p, STREAM);
			save_stream(p, s);
		}
	}
	begin(p, END);
}

/* --- restoring --- */

static void restore_calls(struct broker *b, struct sd_unpack *u, struct client *c)
{
	uint32_t n = sd_unpack_u32(u);

	for (uint32_t i = 0; sd_unpack_check(u, n <= BROKER_CALLS) && i < n; i++) {
		struct broker_call *call = calloc(1, sizeof *call);

		if (!sd_unpack_check(u, call != NULL))
			return;
		call->client = c;
		call->name = sd_unpack_u64(u);
		sd_unpack_value(u, call->wanted);
		sd_unpack_value(u, call->id);
		call->socket = sd_unpack_fd(u);
		list_push_back(&c->calls, &call->node);
		c->n_calls++;
	}
}

static void restore_client(struct broker *b, struct sd_unpack *u)
{
	int fd = sd_unpack_fd(u);
	struct client *c;
	uid_t uid;

	sd_unpack_value(u, uid);
	c = fd < 0 ? NULL : client_new(b, fd, uid);
	if (!sd_unpack_check(u, c != NULL)) {
		sd_fd_close(&fd);
		return;
	}
	sd_unpack_value(u, c->program);
	sd_unpack_value(u, c->greeted);
	restore_calls(b, u, c);
}

static void restore_end(struct broker *b, struct sd_unpack *u, struct stream *s, unsigned i)
{
	struct end *e = &s->end[i];

	e->cookie = sd_unpack_u64(u);
	e->name = sd_unpack_u64(u);
	e->inode = sd_unpack_u32(u);
	sd_unpack_value(u, e->gone);
	if (!u->failed && !e->gone)
		end_add(b, s, i);
}

/* NULL: it failed. q: that it waits in, or NULL. */
static void restore_stream(struct broker *b, struct sd_unpack *u, struct queue *q, uint64_t now)
{
	struct stream *s = stream_new(b);
	uint8_t due;
	bool paid;

	if (!sd_unpack_check(u, s != NULL))
		return;
	restore_end(b, u, s, 0);
	restore_end(b, u, s, 1);
	sd_unpack_value(u, s->payer);
	sd_unpack_value(u, s->heir);
	sd_unpack_value(u, paid);
	sd_unpack_value(u, s->path);
	sd_unpack_value(u, s->netns);
	sd_unpack_value(u, s->local);
	sd_unpack_value(u, s->peer);
	sd_unpack_value(u, s->bytes);
	sd_unpack_value(u, s->ring);
	sd_unpack_value(u, s->n_offers);
	sd_unpack_value(u, due);
	s->memory = sd_unpack_fd(u);
	s->socket = sd_unpack_fd(u);
	s->offered = sd_unpack_fd(u);
	if (!sd_unpack_check(u, !(s->end[0].gone && s->end[1].gone) && s->memory >= 0)) {
		stream_free(b, s);
		return;
	}
	if (paid)
		stream_pay(b, s);
	if (q) {
		s->n_offers -= s->n_offers > 0; /* it is counted again */
		stream_is_offered(b, s, q, now);
	} else if (due) {
		stream_put_off(b, s, 0, now);
	}
}

static void restore_lease(struct broker *b, struct sd_unpack *u, struct queue *q)
{
	int fd = sd_unpack_fd(u);
	uid_t uid;

	sd_unpack_value(u, uid);
	if (!sd_unpack_check(u, fd >= 0 && !lease_new(b, q, uid, fd)))
		sd_fd_close(&fd);
}

static void restore_queue(struct broker *b, struct sd_unpack *u, struct listener *l, uint64_t now)
{
	int fd = sd_unpack_fd(u), half = sd_unpack_fd(u);
	struct queue *q = fd < 0 || half < 0 ? NULL : queue_new(b, l, fd, half);
	uint32_t n;

	if (!sd_unpack_check(u, q != NULL)) {
		sd_fd_close(&fd);
		sd_fd_close(&half);
		return;
	}
	q->socket = sd_unpack_fd(u);
	sd_unpack_value(u, q->cookie);
	sd_unpack_value(u, q->program);
	sd_unpack_value(u, q->owner);
	sd_unpack_value(u, q->backlog);
	for (n = sd_unpack_u32(u); !u->failed && n; n--)
		restore_lease(b, u, q);
	sd_unpack_check(u, !list_empty(&q->leases));
	for (n = sd_unpack_u32(u); !u->failed && n; n--)
		restore_stream(b, u, q, now);
	queue_set_backlog(b, q, q->backlog);
}

static void restore_listener(struct broker *b, struct sd_unpack *u, uint64_t now)
{
	struct listener *l;
	struct sd_addr local;
	uint64_t netns = sd_unpack_u64(u);
	uint32_t n;

	sd_unpack_value(u, local);
	l = u->failed ? NULL : listener_obtain(b, netns, &local);
	if (!sd_unpack_check(u, l != NULL))
		return;
	for (n = sd_unpack_u32(u); !u->failed && n; n--)
		restore_queue(b, u, l, now);
	if (list_empty(&l->queues))
		listener_release(b, l);
}

int broker_restore(struct broker *b, struct sd_unpack *u, uint64_t now)
{
	const struct ledger_share any = {UINT32_MAX, UINT64_MAX},
				  limit = {b->cfg.max_connections, b->cfg.max_memory};
	uint32_t record;

	if (!sd_unpack_check(u, sd_unpack_u64(u) == b->netns))
		return -EXDEV;
	/* Who has more than is allowed by now keeps it. */
	ledger_set_limits(&b->ledger, &any, NULL);
	b->stats.joined = sd_unpack_u64(u);
	b->stats.refused = sd_unpack_u64(u);
	b->stats.offered_again = sd_unpack_u64(u);
	b->stats.bad_messages = sd_unpack_u64(u);
	while ((record = sd_unpack_u32(u)) != END) {
		if (record == CLIENT)
			restore_client(b, u);
		else if (record == LISTENER)
			restore_listener(b, u, now);
		else if (sd_unpack_check(u, record == STREAM))
			restore_stream(b, u, NULL, now);
	}
	ledger_set_limits(&b->ledger, &limit, NULL);
	return u->failed ? -EPROTO : 0;
}

struct broker_call *broker_call_named(struct broker *b, uint64_t name, void *user)
{
	list_for_each (it, &b->clients) {
		list_for_each (at, &container_of(it, struct client, node)->calls) {
			struct broker_call *call = container_of(at, struct broker_call, node);

			if (call->name != name)
				continue;
			call->name = 0;
			call->user = user;
			return call;
		}
	}
	return NULL;
}
