/* SPDX-License-Identifier: BSD-3-Clause */
/* Connections between programs of this host: making, offering, ending. */
#include <errno.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "provider/broker_private.h"
#include "provider/segment.h"

/* A program may die between taking an offer and accepting it: it is then made again, ever more seldom. */
#define AGAIN_FIRST_NS (1 * SD_S)
#define AGAIN_MAX_NS   (60 * SD_S)
/* Whoever has connected is gone: that many seconds of offers are enough. */
#define AGAIN_IN_VAIN_NS (8 * SD_S)

static struct list *bucket(struct broker *b, ino_t inode)
{
	return &b->streams[inode & (BROKER_BUCKETS - 1)];
}

/* --- making --- */

/* half: the program's, which is the caller's. */
static int end_open(struct broker *b, struct stream *s, unsigned i, uid_t uid, int *half)
{
	struct end *e = &s->end[i];
	int pair[2], r = ledger_take(&b->ledger, uid, 1, 0);

	if (r)
		return r;
	e->uid = uid;
	e->counted = true;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return -errno;
	channel_name_end(pair[0], b->instance, ++b->n_ends);
	r = watch_add(b, &e->watch, WATCH_END, pair[0], EPOLLRDHUP | EPOLLIN | EPOLLET);
	if (r) {
		close(pair[0]);
		close(pair[1]);
		e->watch.fd = -1;
		return r;
	}
	e->stream = s;
	e->inode = inode_of(pair[1]);
	list_push_back(bucket(b, e->inode), &e->hash);
	*half = pair[1];
	return 0;
}

static struct stream *stream_new(struct broker *b)
{
	struct stream *s = calloc(1, sizeof *s);

	if (!s)
		return NULL;
	s->memory = s->offered = s->socket = -1;
	list_init(&s->pending);
	for (unsigned i = 0; i < 2; i++) {
		s->end[i].watch.fd = -1;
		list_init(&s->end[i].hash);
	}
	b->stats.streams++;
	return s;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void no_longer_pending(struct stream *s)
{
	list_remove(&s->pending);
	close_fd(&s->offered);
	if (s->queue)
		s->queue->pending--;
	s->queue = NULL;
}

void stream_free(struct broker *b, struct stream *s)
{
	no_longer_pending(s);
	for (unsigned i = 0; i < 2; i++) {
		watch_end(b, &s->end[i].watch);
		list_remove(&s->end[i].hash);
		if (s->end[i].counted)
			ledger_give(&b->ledger, s->end[i].uid, 1, 0);
	}
	close_fd(&s->memory);
	close_fd(&s->socket);
	die(b, &s->grave, s);
	b->stats.streams--;
}

void stream_describe(const struct end *e, struct channel_message *m)
{
	const struct stream *s = e->stream;
	bool first = e == s->end;

	*m = (struct channel_message){.stream = {.local = first ? s->local : s->peer,
					      .peer = first ? s->peer : s->local,
					      .path = CHANNEL_PATH_SHM,
					      .end = !first}};
}

struct end *stream_end_at(struct broker *b, int fd)
{
	ino_t inode = inode_of(fd);

	list_for_each (it, bucket(b, inode)) {
		struct end *e = container_of(it, struct end, hash);

		if (e->inode == inode)
			return e;
	}
	return NULL;
}

/* --- offering --- */

/* Those that wait in a queue are still there; one that was taken out and not accepted needs another offer. */
static bool is_unread(const struct queue *q)
{
	int bytes = 0;

	return !ioctl(q->watch.fd, SIOCOUTQ, &bytes) && bytes > 0;
}

static int offer(struct stream *s, struct queue *q, uint64_t now)
{
	struct channel_message m;
	int r;

	stream_describe(&s->end[1], &m);
	m.type = CHANNEL_INCOMING;
	m.fds[0] = s->offered;
	m.fds[1] = s->memory;
	m.fds[2] = s->end[0].watch.fd;
	m.n_fds = 3;
	r = channel_send(q->watch.fd, &m);
	if (r)
		return r;
	if (s->queue)
		s->queue->pending--;
	s->queue = q;
	q->pending++;
	s->again_after = s->again_after ? s->again_after * 2 : AGAIN_FIRST_NS;
	if (s->again_after > AGAIN_MAX_NS)
		s->again_after = AGAIN_MAX_NS;
	s->again_at = now + s->again_after;
	return 0;
}

/* -ECONNREFUSED: nobody listens there; -EAGAIN: their backlog is full. */
static int offer_to_somebody(struct broker *b, struct stream *s, uint64_t now)
{
	struct listener *l = listener_find(b, s->netns, &s->peer);
	struct queue *q = l ? listener_choose(l) : NULL;

	if (!l || list_empty(&l->queues))
		return -ECONNREFUSED;
	return q ? offer(s, q, now) : -EAGAIN;
}

int stream_join(struct broker *b, const struct client *c, const struct channel_connect *m, int socket,
	uint64_t now, struct channel_message *answer)
{
	struct listener *l;
	struct stream *s;
	int half = -1, r;

	if (!is_bound_to(socket, &m->local))
		return -EACCES;
	s = stream_new(b);
	if (!s)
		return -ENOMEM;
	s->netns = netns_of(socket);
	s->local = m->local;
	s->peer = m->peer;
	l = listener_find(b, s->netns, &s->peer);
	r = l ? segment_create(&s->local, &s->peer, b->cfg.max_class, &s->memory) : -ECONNREFUSED;
	if (!r)
		r = end_open(b, s, 0, c->uid, &half);
	if (!r)
		r = end_open(b, s, 1, l->uid, &s->offered);
	if (!r)
		r = offer_to_somebody(b, s, now);
	if (r) {
		close_fd(&half);
		stream_free(b, s);
		return r;
	}
	list_push_back(&b->pending, &s->pending);
	stream_describe(&s->end[0], answer);
	answer->type = CHANNEL_CONNECTED;
	answer->fds[0] = half;
	answer->fds[1] = s->memory;
	answer->fds[2] = s->end[1].watch.fd;
	answer->n_fds = 3;
	s->socket = socket;
	b->stats.joined++;
	return 0;
}

void streams_offer_again(struct broker *b, struct queue *gone, uint64_t now)
{
	list_for_each (it, &b->pending) {
		struct stream *s = container_of(it, struct stream, pending);

		if (s->queue != gone)
			continue;
		gone->pending--;
		s->queue = NULL;
		b->stats.offered_again++;
		/* Nobody is left: to the one that connects it is a reset. */
		if (offer_to_somebody(b, s, now) == -ECONNREFUSED)
			stream_free(b, s);
	}
}

uint64_t broker_deadline(const struct broker *b)
{
	uint64_t first = UINT64_MAX;

	list_for_each (it, &b->pending) {
		const struct stream *s = container_of(it, struct stream, pending);

		if (s->again_at < first)
			first = s->again_at;
	}
	return first;
}

void streams_timeout(struct broker *b, uint64_t now)
{
	list_for_each (it, &b->pending) {
		struct stream *s = container_of(it, struct stream, pending);

		if (now < s->again_at)
			continue;
		if (s->end[0].gone && s->again_after >= AGAIN_IN_VAIN_NS) {
			stream_free(b, s);
			continue;
		}
		if (s->queue && is_unread(s->queue)) {
			s->again_at = now + AGAIN_FIRST_NS;
			continue;
		}
		b->stats.offered_again++;
		if (offer_to_somebody(b, s, now))
			s->again_at = now + AGAIN_FIRST_NS;
	}
}

/* --- ending --- */

/* The one that has accepted end 1 writes a byte; more are not looked at. */
static void drain(int fd)
{
	char waste[64];

	while (recv(fd, waste, sizeof waste, MSG_DONTWAIT) == sizeof waste)
		;
}

void end_event(struct broker *b, struct end *e, uint32_t events)
{
	struct stream *s = e->stream;

	if (events & EPOLLIN) {
		drain(e->watch.fd);
		if (e == &s->end[1])
			no_longer_pending(s);
	}
	if (!(events & (EPOLLHUP | EPOLLRDHUP | EPOLLERR)))
		return;
	e->gone = true;
	/* The other end has our half too, and sees the same. */
	if (s->end[0].gone && s->end[1].gone)
		stream_free(b, s);
}
