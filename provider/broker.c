/* SPDX-License-Identifier: BSD-3-Clause */
/* The broker's programs: their greetings and requests, and the events of everything it watches. */
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "provider/broker_private.h"
#include "provider/segment.h"

#define EVENTS 64
/* Requests of one program before the others have their turn. */
#define TURN		16
#define MAX_CONNECTIONS 16384u

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

/* Answers that a program has not read: some tens. It is heard again when most of them are. */
#define ANSWER_BYTES (16 * 1024)
#define UNREAD_BYTES (ANSWER_BYTES / 2)
#define STALLED_NS   (30 * SD_S)
/* A program that has hung up is ending, most times: all that it had is closed soon. */
#define ENDING_NS (2 * SD_MS)

/* --- what is watched --- */

int watch_add(struct broker *b, struct watch *w, enum watch_kind kind, int fd, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = w};

	w->kind = kind;
	w->fd = fd;
	return epoll_ctl(b->events, EPOLL_CTL_ADD, fd, &ev) ? -errno : 0;
}

void watch_end(struct broker *b, struct watch *w)
{
	if (w->fd < 0)
		return;
	/* Its file may live on elsewhere, and would go on telling us. */
	epoll_ctl(b->events, EPOLL_CTL_DEL, w->fd, NULL);
	close(w->fd);
	w->fd = -1;
}

bool watch_drain(struct broker *b, struct watch *w, uid_t uid)
{
	const struct waste waste = waste_of(b, uid);
	int n;

	while ((n = channel_take_rings(w->fd, SIZE_MAX, &waste.channel)) > 0)
		;
	return n != -EBADMSG;
}

void watch_refuse_fds(int fd)
{
	int off = 0;

	/* Old kernels cannot. */
	setsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &off, sizeof off);
}

int user_take(struct broker *b, uid_t uid, uint32_t n, uint64_t bytes)
{
	int r = ledger_take(&b->ledger, uid, n, bytes);

	if (r != -EDQUOT)
		return r;
	ends_settle(b);
	return ledger_take(&b->ledger, uid, n, bytes);
}

/* --- programs --- */

void client_free(struct broker *b, struct client *c)
{
	calls_forget(b, c);
	watch_end(b, &c->watch);
	ends_look(b, ENDING_NS);
	list_remove(&c->node);
	list_remove(&c->stalled);
	ledger_give(&b->ledger, c->uid, 1, 0);
	die(b, &c->grave, c);
	b->stats.clients--;
}

struct client *client_new(struct broker *b, int fd, uid_t uid)
{
	struct client *c = calloc(1, sizeof *c);

	if (!c || user_take(b, uid, 1, 0)) {
		free(c);
		return NULL;
	}
	c->uid = uid;
	list_init(&c->stalled);
	list_init(&c->calls);
	if (watch_add(b, &c->watch, WATCH_CLIENT, fd, EPOLLIN)) {
		ledger_give(&b->ledger, uid, 1, 0);
		free(c);
		return NULL;
	}
	list_push_back(&b->clients, &c->node);
	b->stats.clients++;
	return c;
}

static void greet(struct broker *b, int fd)
{
	struct ucred cred;
	socklen_t len = sizeof cred;
	int room = ANSWER_BYTES;

	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) || !client_new(b, fd, cred.uid))
		close(fd);
}

static int open_spare(void)
{
	return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static int call(struct broker *b)
{
	int fd = accept4(b->door.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd >= 0 || (errno != EMFILE && errno != ENFILE))
		return fd;
	/* It would call until it is heard. */
	sd_fd_close(&b->spare);
	fd = accept4(b->door.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	sd_fd_close(&fd);
	b->spare = open_spare();
	return -1;
}

static unsigned open_door(struct broker *b)
{
	unsigned n = 0;
	int fd;

	while (n < TURN && (fd = call(b)) >= 0) {
		greet(b, fd);
		n++;
	}
	return n;
}

/* --- requests --- */

bool answer(struct client *c, struct channel_message *m)
{
	return !channel_send(c->watch.fd, m);
}

bool refuse(struct broker *b, struct client *c, uint32_t id, int error, enum sd_reason reason)
{
	struct channel_message m = {.type = CHANNEL_REFUSED, .id = id, .refused = {-error, reason}};

	b->stats.refused++;
	return answer(c, &m);
}

bool is_permitted(const struct broker *b, bool server, const char *program, const struct sd_addr *addr)
{
	return !b->cfg.permits || b->cfg.permits(b->cfg.ctx, server, program, addr);
}

static bool on_hello(struct broker *b, struct client *c, const struct channel_message *m)
{
	struct channel_message a = {.type = CHANNEL_WELCOME,
		.id = m->id,
		.welcome = {m->hello.version < CHANNEL_VERSION ? m->hello.version : CHANNEL_VERSION,
			b->cfg.max_connections, CHANNEL_PATIENCE_MS + b->cfg.outside_ms}};

	c->greeted = a.welcome.version == CHANNEL_VERSION;
	memcpy(c->program, m->hello.program, sizeof c->program);
	if (!c->greeted)
		a.welcome.version = 0;
	return answer(c, &a) && c->greeted;
}

static enum sd_reason reason_of(int error)
{
	switch (error) {
	case -ECONNREFUSED:
		return SD_REASON_LOCAL; /* or another host's: that is not this function's to know */
	case -EAGAIN:
		return SD_REASON_PEER_REFUSED;
	case -EDQUOT:
		return SD_REASON_LIMIT_USER;
	case -EPERM:
		return SD_REASON_RULE;
	default:
		return SD_REASON_NO_MEMORY;
	}
}

static bool on_call(struct broker *b, struct client *c, struct channel_message *m)
{
	enum sd_reason reason = SD_REASON_NO_ROUTE;
	int r = call_outside(b, c, m, &reason);

	if (!r)
		return true;
	waste_message(b, c->uid, m);
	return refuse(b, c, m->id, r, reason);
}

static bool on_connect(struct broker *b, struct client *c, struct channel_message *m, uint64_t now)
{
	struct channel_message a;
	int r = -EPERM;
	bool ok;

	if (is_permitted(b, false, c->program, &m->connect.peer))
		r = stream_join(b, c, &m->connect, m->fds[0], now, &a);

	if (r == -EHOSTUNREACH)
		return on_call(b, c, m);
	/* A program that is answered may count on its port's being free when it closes its socket. */
	if (r) {
		waste_message(b, c->uid, m);
		return refuse(b, c, m->id, r == -EAGAIN || r == -EDQUOT || r == -EPERM ? -ECONNREFUSED : r,
			reason_of(r));
	}
	m->n_fds = 0;
	a.id = m->id;
	ok = answer(c, &a);
	close(a.fds[0]);
	return ok;
}

static bool on_listen(struct broker *b, struct client *c, struct channel_message *m)
{
	struct channel_message a = {.type = CHANNEL_LISTENING, .id = m->id, .n_fds = 2};
	int r = listener_add(b, c, &m->listen, &m->fds[0], &a);
	bool ok;

	m->n_fds = m->fds[0] >= 0;
	waste_message(b, c->uid, m);
	if (r)
		return refuse(b, c, m->id, r, r == -EDQUOT ? SD_REASON_LIMIT_USER : SD_REASON_NO_MEMORY);
	ok = answer(c, &a);
	close(a.fds[1]);
	return ok;
}

static bool on_adopt(struct broker *b, struct client *c, const struct channel_message *m)
{
	struct end *e = end_at(b, m->fds[0]);
	struct channel_message a;

	/* Having the descriptor is what entitles to the connection. */
	if (!e)
		return refuse(b, c, m->id, -ENOENT, SD_REASON_INHERITED);
	stream_describe(e, &a);
	a.type = CHANNEL_ADOPTED;
	a.id = m->id;
	a.fds[0] = e->stream->memory;
	a.n_fds = 1;
	return answer(c, &a);
}

static bool on_message(struct broker *b, struct client *c, struct channel_message *m, uint64_t now)
{
	if (!c->greeted && m->type != CHANNEL_HELLO) {
		b->stats.bad_messages++;
		return false;
	}
	/* A program that has hung up uses kernel TCP by now: nobody would be at the other end. */
	if (c->hung_up && m->type != CHANNEL_CLOSED)
		return true;
	switch (m->type) {
	case CHANNEL_HELLO:
		return on_hello(b, c, m);
	case CHANNEL_CONNECT:
		return on_connect(b, c, m, now);
	case CHANNEL_LISTEN:
		return on_listen(b, c, m);
	case CHANNEL_ADOPT:
		return on_adopt(b, c, m);
	case CHANNEL_CLOSED:
		ends_may_be_gone(b, m->end.cookie);
		return true;
	}
	b->stats.bad_messages++;
	return false;
}

void watch_for(struct broker *b, struct watch *w, uint32_t events)
{
	epoll_ctl(b->events, EPOLL_CTL_MOD, w->fd, &(struct epoll_event){.events = events, .data.ptr = w});
}

static bool reads_answers(const struct client *c)
{
	int bytes = 0;

	return ioctl(c->watch.fd, SIOCOUTQ, &bytes) || bytes <= UNREAD_BYTES;
}

static unsigned serve(struct broker *b, struct client *c, uint64_t now)
{
	const struct waste w = waste_of(b, c->uid);
	struct channel_message m;
	unsigned n = 0;
	bool ok;
	int r;

	while (n < TURN && reads_answers(c)) {
		if (c->n_calls >= BROKER_CALLS) {
			c->waits = true;
			watch_for(b, &c->watch, 0);
			return n;
		}
		r = waste_is_too_much(b, c->uid) ? -EPROTO : channel_recv_for(c->watch.fd, &m, &w.channel);
		if (r == -EAGAIN)
			return n;
		ok = !r && on_message(b, c, &m, now);
		if (!r)
			waste_message(b, c->uid, &m);
		if (!ok) {
			b->stats.bad_messages += r == -EPROTO;
			client_free(b, c);
			return n + 1;
		}
		n++;
	}
	return n;
}

static unsigned on_client(struct broker *b, struct client *c, uint32_t events, uint64_t now)
{
	bool reads = reads_answers(c);

	c->hung_up |= (events & EPOLLHUP) != 0;
	if ((!reads || c->waits) && events & (EPOLLHUP | EPOLLERR)) {
		client_free(b, c);
		return 1;
	}
	if (reads && !list_empty(&c->stalled)) {
		list_remove(&c->stalled);
		watch_for(b, &c->watch, EPOLLIN);
	} else if (!reads && list_empty(&c->stalled)) {
		c->give_up_at = now + STALLED_NS;
		list_push_back(&b->stalled, &c->stalled);
		watch_for(b, &c->watch, EPOLLOUT);
	}
	return reads && !c->waits ? serve(b, c, now) : 0;
}

static uint64_t stalled_deadline(const struct broker *b)
{
	return list_empty(&b->stalled) ? UINT64_MAX
				       : container_of(b->stalled.next, struct client, stalled)->give_up_at;
}

static void give_up_stalled(struct broker *b, uint64_t now)
{
	while (now >= stalled_deadline(b))
		client_free(b, container_of(b->stalled.next, struct client, stalled));
}

/* --- events --- */

static void on_lease(struct broker *b, struct lease *l, uint32_t events, uint64_t now)
{
	struct queue *q = l->queue;

	/* Who passes descriptors by it is up to no good. */
	if (events & EPOLLIN && !watch_drain(b, &l->watch, l->uid))
		events |= EPOLLERR;
	if (!(events & (EPOLLHUP | EPOLLERR)))
		return;
	/* It may have told what it accepted, and then closed its socket. */
	queue_hear(b, q, q->pending + QUEUE_TURN);
	if (!lease_end(b, l))
		return;
	streams_offer_again(b, q, now);
	queue_free(b, q);
}

static void on_queue(struct broker *b, struct queue *q, uint64_t now)
{
	if (queue_hear(b, q, QUEUE_TURN))
		return;
	/* Shut down by a program that has it. Nothing can be offered there any more. */
	while (!lease_end(b, container_of(q->leases.next, struct lease, node)))
		;
	streams_offer_again(b, q, now);
	queue_free(b, q);
}

static unsigned on_event(struct broker *b, struct watch *w, uint32_t events, uint64_t now)
{
	if (w->fd < 0)
		return 0; /* has ended in this batch */
	switch (w->kind) {
	case WATCH_DOOR:
		return open_door(b);
	case WATCH_CLIENT:
		return on_client(b, container_of(w, struct client, watch), events, now);
	case WATCH_QUEUE:
		on_queue(b, container_of(w, struct queue, watch), now);
		return 1;
	case WATCH_LEASE:
		on_lease(b, container_of(w, struct lease, watch), events, now);
		return 1;
	}
	return 0;
}

void die(struct broker *b, struct grave *g, void *whole)
{
	g->whole = whole;
	list_push_back(&b->graves, &g->node);
}

static void bury(struct broker *b)
{
	struct list *it;

	while ((it = list_pop_front(&b->graves)))
		free(container_of(it, struct grave, node)->whole);
}

unsigned broker_progress(struct broker *b, uint64_t now)
{
	struct epoll_event ev[EVENTS];
	unsigned work = 0;
	int n = epoll_wait(b->events, ev, EVENTS, 0);
	bool due = now >= broker_deadline(b);

	if (n > 0 || due)
		waste_begin(b);
	else
		waste_idle(b);
	for (int i = 0; i < n; i++)
		work += on_event(b, ev[i].data.ptr, ev[i].events, now);
	/* That a connection was accepted is among the events: not before all of them have been seen. */
	if (due && n < EVENTS)
		streams_timeout(b, now);
	if (due)
		give_up_stalled(b, now);
	work += ends_progress(b, now);
	bury(b);
	if (!list_empty(&b->waste))
		waste_collect(b);
	return work;
}

uint64_t broker_deadline(const struct broker *b)
{
	const uint64_t at[] = {streams_deadline(b), stalled_deadline(b), ends_deadline(b)};
	uint64_t first = UINT64_MAX;

	for (unsigned i = 0; i < sizeof at / sizeof *at; i++)
		first = at[i] < first ? at[i] : first;
	return first;
}

void broker_permits_changed(struct broker *b)
{
	for (unsigned i = 0; i < BROKER_BUCKETS; i++) {
		list_for_each (it, &b->listeners[i])
			listener_tell_outside(b, container_of(it, struct listener, node));
	}
}

int broker_fd(const struct broker *b)
{
	return b->events;
}

void broker_stats(const struct broker *b, struct broker_stats *out)
{
	*out = b->stats;
}

int broker_door(const struct broker *b)
{
	return b->door.fd;
}

/* --- life --- */

/* Half of the descriptors at most are one user's: what counts once needs four. */
static uint32_t default_limit(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) || l.rlim_cur / 8 > MAX_CONNECTIONS)
		return MAX_CONNECTIONS;
	return l.rlim_cur / 8 ? (uint32_t)(l.rlim_cur / 8) : 1;
}

/* Two users leave half of the machine. */
static uint64_t default_memory(void)
{
	long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);

	return pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size / 4 : UINT64_MAX;
}

static void init(struct broker *b, const struct broker_config *cfg)
{
	b->cfg = *cfg;
	if (!b->cfg.max_connections)
		b->cfg.max_connections = default_limit();
	if (!b->cfg.max_memory)
		b->cfg.max_memory = default_memory();
	if (!b->cfg.max_class)
		b->cfg.max_class = 6;
	if (getrandom(&b->key, sizeof b->key, 0) != sizeof b->key)
		b->key.k[0] = (uint64_t)getpid() << 32 ^ sd_clock_ns();
	ledger_open(&b->ledger, &(struct ledger_share){b->cfg.max_connections, b->cfg.max_memory}, NULL);
	list_init(&b->clients);
	list_init(&b->stalled);
	list_init(&b->graves);
	list_init(&b->waste);
	for (unsigned i = 0; i < BROKER_DELAYS; i++)
		list_init(&b->due[i]);
	for (unsigned i = 0; i < BROKER_BUCKETS; i++) {
		list_init(&b->streams[i]);
		list_init(&b->listeners[i]);
	}
}

int broker_open(const struct broker_config *cfg, int listening, struct broker **out)
{
	struct broker *b;
	int r;

	if (cfg->size != sizeof *cfg || cfg->max_class >= SEGMENT_CLASSES ||
		cfg->outside_ms > CHANNEL_PATIENCE_MAX_MS - CHANNEL_PATIENCE_MS)
		return -EINVAL;
	b = calloc(1, sizeof *b);
	if (!b)
		return -ENOMEM;
	init(b, cfg);
	b->events = epoll_create1(EPOLL_CLOEXEC);
	r = b->events < 0 ? -errno : watch_add(b, &b->door, WATCH_DOOR, listening, EPOLLIN);
	b->spare = open_spare();
	if (!r && b->spare < 0)
		r = -errno;
	if (r) {
		sd_fd_close(&b->events);
		sd_fd_close(&b->spare);
		free(b);
		return r;
	}
	kernel_open(b);
	ends_open(b);
	*out = b;
	return 0;
}

static void close_queue(struct broker *b, struct queue *q)
{
	bool stopped = false;

	while (!list_empty(&q->leases) && !stopped)
		stopped = lease_end(b, container_of(q->leases.next, struct lease, node));
	if (!stopped)
		queue_stop(b, q); /* restored in part */
	queue_free(b, q);
}

/* The last queue takes the listener with it. */
static void close_listener(struct broker *b, struct listener *l)
{
	for (unsigned n = l->n_queues; n; n--)
		close_queue(b, container_of(l->queues.next, struct queue, node));
}

void broker_close(struct broker *b)
{
	list_for_each (it, &b->clients)
		client_free(b, container_of(it, struct client, node));
	/* Streams may wait for a place in any queue. */
	for (unsigned i = 0; i < BROKER_BUCKETS; i++)
		while (!list_empty(&b->streams[i]))
			stream_free(b, container_of(b->streams[i].next, struct end, hash)->stream);
	for (unsigned i = 0; i < BROKER_BUCKETS; i++)
		while (!list_empty(&b->listeners[i]))
			close_listener(b, container_of(b->listeners[i].next, struct listener, node));
	watch_end(b, &b->door);
	close(b->events);
	close(b->spare);
	kernel_close(b);
	ends_close(b);
	bury(b);
	waste_close(b);
	ledger_close(&b->ledger);
	free(b);
}
