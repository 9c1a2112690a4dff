/* SPDX-License-Identifier: BSD-3-Clause */
/* Who listens where. The kernel has given the port to them; what they claim is looked up on their socket. */
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/sockaddr.h"
#include "provider/broker_private.h"

#define QUEUE_BYTES (512 * 1024) /* for the backlogs that are common; the system may give less */
#define BACKLOG_MAX 4096u
#define QUEUES_MAX  1024u /* of one address: they are walked */

/* --- claims --- */

static int int_option(int fd, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof value;

	return getsockopt(fd, level, name, &value, &len) ? -1 : value;
}

bool is_bound_to(int socket, const struct sd_addr *name)
{
	struct sd_addr own;

	if (int_option(socket, SOL_SOCKET, SO_PROTOCOL) != IPPROTO_TCP || sd_sockaddr_bound(socket, &own))
		return false;
	sd_addr_unmap(&own);
	if (own.port != name->port || !own.port)
		return false;
	if (!sd_addr_is_any(&own))
		return sd_addr_same_ip(&own, name);
	/* :: takes IPv4 too, unless it is told not to. */
	return own.family == name->family ||
	       (own.family == 6 && int_option(socket, IPPROTO_IPV6, IPV6_V6ONLY) == 0);
}

bool is_idle_at(int socket, const struct sd_addr *name)
{
	struct tcp_info info = {.tcpi_state = TCP_CLOSE};
	socklen_t len = sizeof info;

	return is_bound_to(socket, name) && !getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &len) &&
	       info.tcpi_state == TCP_CLOSE;
}

/* --- listeners --- */

static struct list *bucket(struct broker *b, uint64_t netns, const struct sd_addr *a)
{
	struct {
		uint64_t netns;
		uint8_t ip[16];
		uint64_t port;
	} key = {.netns = netns, .port = (uint64_t)a->family << 16 | a->port};

	memcpy(key.ip, a->ip, sizeof key.ip);
	return &b->listeners[sd_siphash64(&b->key, &key, sizeof key) & (BROKER_BUCKETS - 1)];
}

static struct listener *listener_find(struct broker *b, uint64_t netns, const struct sd_addr *a)
{
	list_for_each (it, bucket(b, netns, a)) {
		struct listener *l = container_of(it, struct listener, node);

		if (l->netns == netns && sd_addr_equal(&l->local, a))
			return l;
	}
	return NULL;
}

struct listener *listener_obtain(struct broker *b, uint64_t netns, const struct sd_addr *a)
{
	struct listener *l = listener_find(b, netns, a);

	if (l)
		return l;
	l = calloc(1, sizeof *l);
	if (!l)
		return NULL;
	l->netns = netns;
	l->local = *a;
	list_init(&l->queues);
	list_push_back(bucket(b, netns, a), &l->node);
	b->stats.listeners++;
	return l;
}

void listener_release(struct broker *b, struct listener *l)
{
	if (!list_empty(&l->queues))
		return;
	if (b->cfg.outside && l->netns == b->netns)
		b->cfg.outside->unlisten(b->cfg.outside->ctx, &l->local);
	list_remove(&l->node);
	b->stats.listeners--;
	free(l);
}

/* --- choosing --- */

bool queue_has_unread(const struct queue *q)
{
	int bytes = 0;

	return !ioctl(q->watch.fd, SIOCOUTQ, &bytes) && bytes > 0;
}

/* One more than the program asked for, as with the kernel. It may never say that it has accepted what it
 * took.
 */
static bool has_room(const struct queue *q)
{
	return q->pending <= q->backlog || !queue_has_unread(q);
}

/* The kernel lets no two users listen at one place, so the others of its owner's have the same right. */
static struct queue *least_busy(const struct listener *l, uid_t owner)
{
	struct queue *best = NULL;

	list_for_each (it, &l->queues) {
		struct queue *q = container_of(it, struct queue, node);

		if (q->owner == owner && (!best || q->pending < best->pending) && has_room(q))
			best = q;
	}
	return best;
}

/* One whose socket listens now. Who has stopped may have kept its lease: the port may be another's by now. */
static const struct queue *true_queue(const struct listener *l, uint64_t cookie)
{
	list_for_each (it, &l->queues) {
		const struct queue *q = container_of(it, struct queue, node);

		if (cookie ? q->cookie == cookie : int_option(q->socket, SOL_SOCKET, SO_ACCEPTCONN) == 1)
			return q;
	}
	return NULL;
}

/* 0; -EAGAIN: there was none; -ECONNRESET: it has been shut down, or is not to be heard any more. */
static int hear_one(struct broker *b, struct queue *q)
{
	const struct waste w = waste_of(b, q->owner);
	struct channel_message m;
	int r;

	if (waste_is_too_much(b, q->owner))
		return -ECONNRESET;
	r = channel_recv_for(q->watch.fd, &m, &w.channel);
	if (!r && m.type == CHANNEL_BACKLOG)
		queue_set_backlog(b, q, m.backlog.backlog);
	else if (!r && m.type == CHANNEL_ACCEPTED)
		stream_accepted(b, q, m.end.cookie);
	b->stats.bad_messages += r == -EPROTO;
	waste_message(b, q->owner, &m);
	return r == -EAGAIN || r == -ECONNRESET ? r : 0;
}

bool queue_hear(struct broker *b, struct queue *q, unsigned most)
{
	int r = 0;

	for (unsigned i = 0; i < most && !r; i++)
		r = hear_one(b, q);
	return r != -ECONNRESET;
}

/* For which there seemed to be no room: what it has said last is not heard yet, perhaps. */
static struct queue *heard_and_least_busy(struct broker *b, const struct listener *l, uid_t owner)
{
	list_for_each (it, &l->queues)
		queue_hear(b, container_of(it, struct queue, node), QUEUE_TURN);
	return least_busy(l, owner);
}

int queue_choose(struct broker *b, uint64_t netns, const struct sd_addr *local, const struct sd_addr *from,
	struct queue **out)
{
	const struct sd_addr any = {.family = local->family, .port = local->port};
	const struct listener *places[] = {listener_find(b, netns, local), listener_find(b, netns, &any)};
	bool knows = kernel_knows(b, netns);
	uid_t owner;
	uint64_t cookie = knows && (places[0] || places[1]) ? kernel_listener(b, local, from) : 0;

	for (unsigned i = 0; i < 2; i++) {
		const struct queue *q =
			places[i] && (cookie || !knows) ? true_queue(places[i], cookie) : NULL;

		if (!q)
			continue;
		owner = q->owner;
		*out = least_busy(places[i], owner);
		if (!*out)
			*out = heard_and_least_busy(b, places[i], owner);
		if (!*out)
			return -EAGAIN;
		/* Those that are as idle have their turn. */
		list_remove(&(*out)->node);
		list_push_back(&(*out)->listener->queues, &(*out)->node);
		return 0;
	}
	return -ECONNREFUSED;
}

/* --- queues --- */

static uint32_t limited(uint32_t backlog)
{
	return backlog < BACKLOG_MAX ? backlog : BACKLOG_MAX;
}

/* False: it may not be connected to. If it listens on any address, to which of them is only known then. */
static bool tell_outside(struct broker *b, const struct queue *q)
{
	const struct sd_addr *local = &q->listener->local;

	if (!is_permitted(b, true, q->program, local))
		return false;
	b->cfg.outside->listen(b->cfg.outside->ctx, local, q->backlog);
	return true;
}

static bool is_of_outside(const struct broker *b, const struct listener *l)
{
	return b->cfg.outside && l->netns == b->netns;
}

void queue_set_backlog(struct broker *b, struct queue *q, uint32_t backlog)
{
	q->backlog = limited(backlog);
	if (is_of_outside(b, q->listener))
		tell_outside(b, q);
}

void listener_tell_outside(struct broker *b, const struct listener *l)
{
	bool any = false;

	if (!is_of_outside(b, l))
		return;
	list_for_each (it, &l->queues)
		any |= tell_outside(b, container_of(it, struct queue, node));
	if (!any)
		b->cfg.outside->unlisten(b->cfg.outside->ctx, &l->local);
}

static struct queue *queue_find(struct listener *l, uint64_t cookie)
{
	list_for_each (it, &l->queues) {
		struct queue *q = container_of(it, struct queue, node);

		if (q->cookie == cookie)
			return q;
	}
	return NULL;
}

struct queue *queue_new(struct broker *b, struct listener *l, int fd, int half)
{
	struct queue *q = l->n_queues < QUEUES_MAX ? calloc(1, sizeof *q) : NULL;

	if (!q || watch_add(b, &q->watch, WATCH_QUEUE, fd, EPOLLIN)) {
		free(q);
		return NULL;
	}
	q->half = half;
	q->socket = -1;
	q->listener = l;
	list_init(&q->leases);
	list_init(&q->offered);
	list_push_back(&l->queues, &q->node);
	l->n_queues++;
	return q;
}

static int queue_open(struct broker *b, struct listener *l, int socket, struct queue **out)
{
	int pair[2], room = QUEUE_BYTES;
	struct stat st;

	if (fstat(socket, &st) || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
		return -errno;
	*out = queue_new(b, l, pair[0], pair[1]);
	if (!*out) {
		close(pair[0]);
		close(pair[1]);
		return -ENOMEM;
	}
	watch_refuse_fds(pair[0]);
	setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
	(*out)->cookie = cookie_of(socket);
	(*out)->owner = st.st_uid;
	return 0;
}

int lease_new(struct broker *b, struct queue *q, uid_t uid, int fd)
{
	int r = user_take(b, uid, 1, 0);
	struct lease *l = r ? NULL : calloc(1, sizeof *l);

	if (r)
		return r;
	r = l ? watch_add(b, &l->watch, WATCH_LEASE, fd, EPOLLIN | EPOLLET) : -ENOMEM;
	if (r) {
		free(l);
		ledger_give(&b->ledger, uid, 1, 0);
		return r;
	}
	l->queue = q;
	l->uid = uid;
	list_push_back(&q->leases, &l->node);
	return 0;
}

static int lease_open(struct broker *b, struct queue *q, uid_t uid, int *half)
{
	int pair[2], r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return -errno;
	r = lease_new(b, q, uid, pair[0]);
	if (r) {
		close(pair[0]);
		close(pair[1]);
		return r;
	}
	watch_refuse_fds(pair[0]);
	*half = pair[1];
	return 0;
}

void queue_stop(struct broker *b, struct queue *q)
{
	watch_end(b, &q->watch);
	list_remove(&q->node);
	q->listener->n_queues--;
}

void queue_free(struct broker *b, struct queue *q)
{
	close(q->half);
	if (q->socket >= 0)
		waste_socket(b, q->owner, q->socket);
	listener_release(b, q->listener);
	die(b, &q->grave, q);
}

bool lease_end(struct broker *b, struct lease *l)
{
	struct queue *q = l->queue;

	watch_end(b, &l->watch);
	list_remove(&l->node);
	ledger_give(&b->ledger, l->uid, 1, 0);
	die(b, &l->grave, l);
	if (!list_empty(&q->leases))
		return false;
	queue_stop(b, q);
	return true;
}

int listener_add(struct broker *b, const struct client *c, const struct channel_listen *m, int *socket,
	struct channel_message *answer)
{
	uint64_t netns = netns_of(*socket), cookie = cookie_of(*socket);
	struct listener *l;
	struct queue *q;
	int r;

	if (!netns || !cookie || int_option(*socket, SOL_SOCKET, SO_ACCEPTCONN) != 1 ||
		!is_bound_to(*socket, &m->local))
		return -EACCES;
	l = listener_obtain(b, netns, &m->local);
	if (!l)
		return -ENOMEM;
	q = queue_find(l, cookie);
	r = q ? 0 : queue_open(b, l, *socket, &q);
	if (r) {
		listener_release(b, l);
		return r;
	}
	r = lease_open(b, q, c->uid, &answer->fds[1]);
	if (r) {
		if (list_empty(&q->leases)) {
			queue_stop(b, q);
			queue_free(b, q);
		}
		return r;
	}
	memcpy(q->program, c->program, sizeof q->program);
	queue_set_backlog(b, q, m->backlog);
	answer->fds[0] = q->half;
	if (q->socket < 0 && !kernel_knows(b, netns)) {
		q->socket = *socket;
		*socket = -1;
	}
	return 0;
}
