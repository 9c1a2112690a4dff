/* SPDX-License-Identifier: BSD-3-Clause */
/* What programs connect to on other hosts, and what comes from there for them. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.h"
#include "provider/broker_private.h"

/* The program has closed the other end most times, or is about to. */
#define SOON_NS (2 * SD_MS)

int call_outside(struct broker *b, struct client *c, struct channel_message *m, enum sd_reason *reason)
{
	const struct broker_outside *o = b->cfg.outside;
	struct broker_call *call;
	int r;

	if (!o || netns_of(m->fds[0]) != b->netns)
		return -ECONNREFUSED;
	*reason = SD_REASON_NO_MEMORY;
	call = calloc(1, sizeof *call);
	if (!call)
		return -ENOMEM;
	call->client = c;
	call->wanted = m->connect;
	call->id = m->id;
	r = o->connect(o->ctx, call, &m->connect.local, &m->connect.peer, reason, &call->user);
	if (r) {
		free(call);
		return r;
	}
	call->socket = m->fds[0];
	m->n_fds = 0;
	list_push_back(&c->calls, &call->node);
	c->n_calls++;
	return 0;
}

static void call_free(struct broker *b, struct broker_call *call)
{
	struct client *c = call->client;

	c->n_calls--;
	if (c->waits && c->watch.fd >= 0) {
		c->waits = false;
		watch_for(b, &c->watch, EPOLLIN);
	}
	if (call->socket >= 0)
		waste_socket(b, c->uid, call->socket);
	list_remove(&call->node);
	free(call);
}

void calls_forget(struct broker *b, struct client *c)
{
	list_for_each (it, &c->calls) {
		struct broker_call *call = container_of(it, struct broker_call, node);

		if (call->user)
			b->cfg.outside->forget(b->cfg.outside->ctx, call->user);
		call_free(b, call);
	}
}

void broker_refuse(struct broker *b, struct broker_call *call, int error, enum sd_reason reason)
{
	struct client *c = call->client;
	uint32_t id = call->id;

	call_free(b, call);
	if (!refuse(b, c, id, error, reason))
		client_free(b, c);
}

void broker_end_closed(struct broker *b)
{
	ends_look(b, SOON_NS);
}

/* What the outside is to have of end i. */
static int give_end(const struct stream *s, unsigned i, int half, struct pv_shm_end *out)
{
	*out = (struct pv_shm_end){.local = i ? s->peer : s->local,
		.peer = i ? s->local : s->peer,
		.end = i,
		.ring = s->ring,
		.fd = half,
		.memory = fcntl(s->memory, F_DUPFD_CLOEXEC, 0)};
	if (out->memory >= 0)
		return 0;
	close(half);
	return -EMFILE;
}

int broker_end_again(struct broker *b, int fd, struct pv_shm_end *end)
{
	const struct end *e = end_at(b, fd);

	return e ? give_end(e->stream, e != e->stream->end, fd, end) : -ENOENT;
}

static int answer_call(struct broker *b, struct broker_call *call, struct stream *s, int half)
{
	struct channel_message m;
	int r;

	s->socket = call->socket;
	call->socket = -1;
	stream_hand_out(s, 0, CHANNEL_CONNECTED, half, &m);
	m.id = call->id;
	r = answer(call->client, &m) ? 0 : -EPIPE;
	close(half);
	if (r)
		client_free(b, call->client);
	return r;
}

int broker_connected(struct broker *b, struct broker_call *call, struct pv_shm_end *end)
{
	struct stream *s;
	int half[2], r;

	r = stream_make(b, CHANNEL_PATH_NET, b->netns, &call->wanted.local, &call->wanted.peer,
		call->client->uid, half, &s);
	if (r) {
		broker_refuse(b, call, r, r == -EDQUOT ? SD_REASON_LIMIT_USER : SD_REASON_NO_MEMORY);
		return r;
	}
	list_remove(&call->node); /* it is not for the client's end to forget it */
	r = answer_call(b, call, s, half[0]);
	call_free(b, call);
	if (r) {
		close(half[1]);
		stream_free(b, s);
		return r;
	}
	b->stats.joined++;
	return give_end(s, 1, half[1], end);
}

int broker_incoming(struct broker *b, const struct sd_addr *local, const struct sd_addr *peer, uint64_t now,
	struct pv_shm_end *end)
{
	struct stream *s;
	struct queue *q;
	int half[2], r = queue_choose(b, b->netns, local, peer, &q);

	if (!r && !is_permitted(b, true, q->program, local))
		r = -EPERM;
	if (r)
		return r;
	/* Nobody of this host has asked for it: who listens pays. */
	r = stream_make(b, CHANNEL_PATH_NET, b->netns, peer, local, q->owner, half, &s);
	if (r)
		return r;
	r = stream_offer(b, s, q, half[1], now);
	if (r) {
		close(half[0]);
		stream_free(b, s);
		return r;
	}
	b->stats.joined++;
	return give_end(s, 0, half[0], end);
}
