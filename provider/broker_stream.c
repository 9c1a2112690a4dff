/* SPDX-License-Identifier: BSD-3-Clause */
/* Connections between programs of this host: making, offering, ending. */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "provider/broker_private.h"
#include "provider/segment.h"

/* A program may die between taking an offer and accepting it: it is then made again, ever more seldom. */
static const uint64_t delays[BROKER_DELAYS] = {
	1 * SD_S, 2 * SD_S, 4 * SD_S, 8 * SD_S, 16 * SD_S, 32 * SD_S, 60 * SD_S};
/* Whoever has connected is gone: that many offers are enough. */
#define OFFERS_IN_VAIN 4u
/* Of the memory that its user may still have a connection gets at most this part. */
#define PART 64u
/* An end that was closed just now is gone. */
#define SOON_NS (2 * SD_MS)

/* --- making --- */

/* The halves are the caller's. */
static int open_ends(struct broker *b, struct stream *s, int half[2])
{
	int r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, half))
		return -errno;
	r = end_open(b, s, 0, half[0]);
	if (!r)
		r = end_open(b, s, 1, half[1]);
	if (r) {
		sd_fd_close(&half[0]);
		sd_fd_close(&half[1]);
	}
	return r;
}

struct stream *stream_new(struct broker *b)
{
	struct stream *s = calloc(1, sizeof *s);

	if (!s)
		return NULL;
	s->memory = s->offered = s->socket = -1;
	list_init(&s->due);
	list_init(&s->offer);
	for (unsigned i = 0; i < 2; i++) {
		list_init(&s->end[i].hash);
		list_init(&s->end[i].place);
	}
	b->stats.streams++;
	return s;
}

static void leave_queue(struct broker *b, struct stream *s)
{
	struct queue *q = s->queue;

	list_remove(&s->offer);
	s->queue = NULL;
	if (!q)
		return;
	q->pending--;
	if (b->cfg.outside && q->listener->netns == b->netns)
		b->cfg.outside->room(b->cfg.outside->ctx, &q->listener->local);
}

static void no_longer_pending(struct broker *b, struct stream *s)
{
	list_remove(&s->due);
	leave_queue(b, s);
	sd_fd_close(&s->offered);
}

void stream_free(struct broker *b, struct stream *s)
{
	no_longer_pending(b, s);
	for (unsigned i = 0; i < 2; i++) {
		list_remove(&s->end[i].hash);
		list_remove(&s->end[i].place);
	}
	if (s->paid) {
		ledger_give(&b->ledger, s->payer, 2, s->bytes);
		if (b->cfg.outside)
			b->cfg.outside->room(b->cfg.outside->ctx, NULL);
	}
	sd_fd_close(&s->memory);
	if (s->socket >= 0)
		waste_socket(b, s->payer, s->socket);
	free(s);
	b->stats.streams--;
}

void stream_describe(const struct end *e, struct channel_message *m)
{
	const struct stream *s = e->stream;
	bool first = e == s->end;

	*m = (struct channel_message){.stream = {.cookie = e->cookie,
					      .local = first ? s->local : s->peer,
					      .peer = first ? s->peer : s->local,
					      .path = (uint8_t)s->path,
					      .end = !first}};
}

void stream_hand_out(
	const struct stream *s, unsigned end, enum channel_type type, int half, struct channel_message *m)
{
	stream_describe(&s->end[end], m);
	m->type = type;
	m->fds[0] = half;
	m->fds[1] = s->memory;
	m->n_fds = 2;
}

/* --- offering --- */

/* Delays are few, so that each has a list that is in order by itself. */
void stream_put_off(struct broker *b, struct stream *s, unsigned delay, uint64_t now)
{
	if (delay >= BROKER_DELAYS)
		delay = BROKER_DELAYS - 1;
	s->again_at = now + delays[delay];
	list_remove(&s->due);
	list_push_back(&b->due[delay], &s->due);
}

void stream_is_offered(struct broker *b, struct stream *s, struct queue *q, uint64_t now)
{
	s->queue = q;
	list_push_back(&q->offered, &s->offer);
	q->pending++;
	stream_put_off(b, s, s->n_offers++, now);
}

static int offer(struct broker *b, struct stream *s, struct queue *q, uint64_t now)
{
	struct channel_message m;
	int r;

	stream_hand_out(s, 1, CHANNEL_INCOMING, s->offered, &m);
	r = channel_send(q->watch.fd, &m);
	if (r)
		return r;
	leave_queue(b, s);
	s->heir = container_of(q->leases.next, struct lease, node)->uid;
	stream_is_offered(b, s, q, now);
	return 0;
}

/* -ECONNREFUSED: nobody listens there; -EAGAIN: their backlog is full. */
static int offer_to_somebody(struct broker *b, struct stream *s, uint64_t now)
{
	struct queue *q;
	int r = queue_choose(b, s->netns, &s->peer, &s->local, &q);

	return r ? r : offer(b, s, q, now);
}

/* Of a connection with another host: what the outside may buffer in each direction. */
static uint32_t ring_of(const struct broker *b, enum channel_path path, unsigned max_class)
{
	const struct broker_outside *o = path == CHANNEL_PATH_NET ? b->cfg.outside : NULL;
	uint32_t ring = o ? o->ring_max >> (b->cfg.max_class - max_class) : 0;

	return o && ring < o->ring_min ? o->ring_min : ring;
}

static uint64_t memory_of(const struct broker *b, enum channel_path path, unsigned max_class)
{
	return segment_memory(max_class) + 2 * (uint64_t)ring_of(b, path, max_class);
}

/* What a user may have is shared by what it has: those with few connections have large rings, and whoever has
 * very many gets smaller ones before there are none. */
static unsigned max_class_for(const struct broker *b, uid_t uid, enum channel_path path)
{
	uint64_t limit = ledger_limit_of(&b->ledger, uid).bytes, has = ledger_of(&b->ledger, uid).bytes;
	uint64_t left = limit > has ? limit - has : 0;
	unsigned most = b->cfg.max_class;

	while (most && memory_of(b, path, most) > left / PART)
		most--;
	return most;
}

int stream_pay(struct broker *b, struct stream *s)
{
	int r = user_take(b, s->payer, 2, s->bytes);

	s->paid = !r;
	return r;
}

int stream_make(struct broker *b, enum channel_path path, uint64_t netns, const struct sd_addr *local,
	const struct sd_addr *peer, uid_t payer, int half[2], struct stream **out)
{
	unsigned max_class = max_class_for(b, payer, path);
	struct stream *s = stream_new(b);
	int r;

	half[0] = half[1] = -1;
	if (!s)
		return -ENOMEM;
	s->path = path;
	s->netns = netns;
	s->local = *local;
	s->peer = *peer;
	s->ring = ring_of(b, path, max_class);
	s->payer = s->heir = payer;
	s->bytes = memory_of(b, path, max_class);
	r = stream_pay(b, s);
	if (!r)
		r = segment_create(local, peer, max_class, &s->memory);
	if (!r)
		r = open_ends(b, s, half);
	if (r) {
		stream_free(b, s);
		return r;
	}
	*out = s;
	return 0;
}

int stream_offer(struct broker *b, struct stream *s, struct queue *q, int half, uint64_t now)
{
	s->offered = half;
	return offer(b, s, q, now);
}

int stream_join(struct broker *b, const struct client *c, const struct channel_connect *m, int socket,
	uint64_t now, struct channel_message *answer)
{
	uint64_t netns = netns_of(socket);
	struct stream *s;
	struct queue *q;
	int half[2], r;

	/* Programs know by an address whom to trust: it has to be one of the host's. */
	if (!netns || !is_idle_at(socket, &m->local) || !kernel_has_address(b, socket, netns, &m->local, now))
		return -EACCES;
	if (!sd_addr_same_ip(&m->local, &m->peer) && !kernel_has_address(b, socket, netns, &m->peer, now))
		return -EHOSTUNREACH;
	r = queue_choose(b, netns, &m->peer, &m->local, &q);
	if (!r && !is_permitted(b, true, q->program, &m->peer))
		r = -EPERM;
	if (!r)
		r = stream_make(b, CHANNEL_PATH_SHM, netns, &m->local, &m->peer, c->uid, half, &s);
	if (r)
		return r;
	r = stream_offer(b, s, q, half[1], now);
	if (r) {
		close(half[0]);
		stream_free(b, s);
		return r;
	}
	stream_hand_out(s, 0, CHANNEL_CONNECTED, half[0], answer);
	s->socket = socket;
	b->stats.joined++;
	return 0;
}

/* Nobody is left to take it: to the one that connects it is a reset. Who has taken it, and not said so, may
 * have it still, so it is counted until its ends are gone. */
static void give_up_offering(struct broker *b, struct stream *s)
{
	no_longer_pending(b, s);
	ends_look(b, SOON_NS);
}

static void offer_again(struct broker *b, struct stream *s, uint64_t now)
{
	int r = offer_to_somebody(b, s, now);

	b->stats.offered_again++;
	if (r == -ECONNREFUSED)
		give_up_offering(b, s);
	else if (r)
		stream_put_off(b, s, 0, now);
}

void streams_offer_again(struct broker *b, struct queue *gone, uint64_t now)
{
	list_for_each (it, &gone->offered) {
		struct stream *s = container_of(it, struct stream, offer);

		leave_queue(b, s);
		offer_again(b, s, now);
	}
}

uint64_t streams_deadline(const struct broker *b)
{
	uint64_t first = UINT64_MAX;

	for (unsigned i = 0; i < BROKER_DELAYS; i++) {
		uint64_t at = list_empty(&b->due[i])
				      ? UINT64_MAX
				      : container_of(b->due[i].next, struct stream, due)->again_at;

		first = at < first ? at : first;
	}
	return first;
}

static void timeout(struct broker *b, struct stream *s, uint64_t now)
{
	if (s->end[0].gone && s->n_offers >= OFFERS_IN_VAIN)
		give_up_offering(b, s);
	else if (s->queue && queue_has_unread(s->queue))
		stream_put_off(b, s, 0, now);
	else
		offer_again(b, s, now);
}

void streams_timeout(struct broker *b, uint64_t now)
{
	for (unsigned i = 0; i < BROKER_DELAYS; i++) {
		/* What is put off comes behind those that are due. */
		while (!list_empty(&b->due[i])) {
			struct stream *s = container_of(b->due[i].next, struct stream, due);

			if (now < s->again_at)
				break;
			timeout(b, s, now);
		}
	}
}

void stream_accepted(struct broker *b, const struct queue *q, uint64_t cookie)
{
	struct end *e = end_of_cookie(b, cookie);

	/* Who was not offered it has nothing to say. */
	if (!e || e->stream->queue != q || e != &e->stream->end[1])
		return;
	no_longer_pending(b, e->stream);
}

/* --- ending --- */

/* The one that has connected is gone, and what is left is the other's. If that has too much, it is forgotten
 * here: the program has all that it needs, but nobody can adopt it. */
static void pass_on(struct broker *b, struct stream *s)
{
	uid_t heir = s->heir;

	if (heir == s->payer || !s->paid)
		return;
	if (ledger_take(&b->ledger, heir, 2, s->bytes)) {
		stream_free(b, s);
		return;
	}
	ledger_give(&b->ledger, s->payer, 2, s->bytes);
	s->payer = heir;
}

void stream_end_gone(struct broker *b, const struct end *e)
{
	struct stream *s = e->stream;

	/* The other end sees it by itself. */
	if (s->end[0].gone && s->end[1].gone)
		stream_free(b, s);
	else if (e == &s->end[0])
		pass_on(b, s);
}
