/* SPDX-License-Identifier: BSD-3-Clause */
/* Who listens where. The kernel has given the port to them; what they claim is looked up on their socket. */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "provider/broker_private.h"

#define BACKLOG_MAX 4096u

/* --- claims --- */

static int int_option(int fd, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof value;

	return getsockopt(fd, level, name, &value, &len) ? -1 : value;
}

static bool name_of(int fd, struct sd_addr *out)
{
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
		struct sockaddr_storage room;
	} name;
	socklen_t len = sizeof name;

	*out = (struct sd_addr){0};
	if (getsockname(fd, &name.any, &len))
		return false;
	if (name.any.sa_family == AF_INET) {
		out->family = 4;
		out->port = ntohs(name.v4.sin_port);
		memcpy(out->ip, &name.v4.sin_addr, 4);
	} else if (name.any.sa_family == AF_INET6) {
		out->family = 6;
		out->port = ntohs(name.v6.sin6_port);
		memcpy(out->ip, &name.v6.sin6_addr, 16);
	}
	return out->family != 0;
}

bool is_bound_to(int socket, const struct sd_addr *name)
{
	struct sd_addr own;

	if (int_option(socket, SOL_SOCKET, SO_PROTOCOL) != IPPROTO_TCP || !name_of(socket, &own))
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

/* --- listeners --- */

static struct listener *find_exactly(struct broker *b, uint64_t netns, const struct sd_addr *a)
{
	list_for_each (it, &b->listeners) {
		struct listener *l = container_of(it, struct listener, node);

		if (l->netns == netns && sd_addr_equal(&l->local, a))
			return l;
	}
	return NULL;
}

struct listener *listener_find(struct broker *b, uint64_t netns, const struct sd_addr *a)
{
	struct sd_addr any = {.family = a->family, .port = a->port};
	struct listener *l = find_exactly(b, netns, a);

	return l ? l : find_exactly(b, netns, &any);
}

static struct listener *listener_obtain(struct broker *b, uint64_t netns, const struct sd_addr *a, uid_t uid)
{
	struct listener *l = find_exactly(b, netns, a);

	if (l)
		return l;
	l = calloc(1, sizeof *l);
	if (!l)
		return NULL;
	l->netns = netns;
	l->uid = uid;
	l->local = *a;
	list_init(&l->queues);
	list_push_back(&b->listeners, &l->node);
	b->stats.listeners++;
	return l;
}

static void listener_release(struct broker *b, struct listener *l)
{
	if (!list_empty(&l->queues))
		return;
	list_remove(&l->node);
	b->stats.listeners--;
	free(l);
}

struct queue *listener_choose(struct listener *l)
{
	struct queue *best = NULL;

	list_for_each (it, &l->queues) {
		struct queue *q = container_of(it, struct queue, node);

		if (q->pending < q->backlog && (!best || q->pending < best->pending))
			best = q;
	}
	return best;
}

/* --- queues --- */

static uint32_t limited(uint32_t backlog)
{
	return backlog < 1 ? 1 : backlog < BACKLOG_MAX ? backlog : BACKLOG_MAX;
}

static struct queue *queue_find(struct listener *l, ino_t inode)
{
	list_for_each (it, &l->queues) {
		struct queue *q = container_of(it, struct queue, node);

		if (q->inode == inode)
			return q;
	}
	return NULL;
}

static int queue_open(struct broker *b, struct listener *l, ino_t inode, struct queue **out)
{
	struct queue *q = calloc(1, sizeof *q);
	int pair[2], r;

	if (!q)
		return -ENOMEM;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair)) {
		free(q);
		return -errno;
	}
	r = watch_add(b, &q->watch, WATCH_QUEUE, pair[0], EPOLLIN);
	if (r) {
		close(pair[0]);
		close(pair[1]);
		free(q);
		return r;
	}
	q->half = pair[1];
	q->inode = inode;
	q->listener = l;
	list_init(&q->leases);
	list_push_back(&l->queues, &q->node);
	*out = q;
	return 0;
}

static int lease_open(struct broker *b, struct queue *q, uid_t uid, int *half)
{
	struct lease *l;
	int pair[2], r = ledger_take(&b->ledger, uid, 1, 0);

	if (r)
		return r;
	l = calloc(1, sizeof *l);
	r = !l ? -ENOMEM : socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) ? -errno : 0;
	if (!r) {
		r = watch_add(b, &l->watch, WATCH_LEASE, pair[0], 0);
		if (r) {
			close(pair[0]);
			close(pair[1]);
		}
	}
	if (r) {
		free(l);
		ledger_give(&b->ledger, uid, 1, 0);
		return r;
	}
	l->queue = q;
	l->uid = uid;
	list_push_back(&q->leases, &l->node);
	*half = pair[1];
	return 0;
}

/* Nothing is offered to it any more. */
static void queue_stop(struct broker *b, struct queue *q)
{
	watch_end(b, &q->watch);
	list_remove(&q->node);
}

void queue_free(struct broker *b, struct queue *q)
{
	close(q->half);
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

int listener_add(struct broker *b, const struct client *c, const struct channel_listen *m, int socket,
	struct channel_message *answer)
{
	struct listener *l;
	struct queue *q;
	int r;

	if (int_option(socket, SOL_SOCKET, SO_ACCEPTCONN) != 1 || !is_bound_to(socket, &m->local))
		return -EACCES;
	l = listener_obtain(b, netns_of(socket), &m->local, c->uid);
	if (!l)
		return -ENOMEM;
	q = queue_find(l, inode_of(socket));
	r = q ? 0 : queue_open(b, l, inode_of(socket), &q);
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
	q->backlog = limited(m->backlog);
	answer->fds[0] = q->half;
	return 0;
}

void queue_hear(struct broker *b, struct queue *q)
{
	struct channel_message m;
	int r = channel_recv(q->watch.fd, &m);

	if (!r && m.type == CHANNEL_BACKLOG)
		q->backlog = limited(m.backlog.backlog);
	b->stats.bad_messages += r == -EPROTO;
	channel_close_fds(&m);
}
