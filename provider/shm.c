/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * shm: connections between programs of one host, through memory that both map. The daemon brings them
 * together (channel.h) and is not needed afterwards.
 *
 * Endpoints that are busy are hot: each progress looks at their cursors. The others are cold: they have said
 * that they want to be rung, and are heard of through one epoll set. That set is also what a sleeping thread
 * waits for; before it sleeps, the hot ones ask to be rung too.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/sockaddr.h"
#include "provider/domain_private.h"
#include "provider/shm_private.h"

#define HOT_FEW	    16		/* that many stay hot */
#define HOT_IDLE_NS (1 * SD_MS) /* beyond them, one that did not change for so long becomes cold */
/* How often the epoll set is looked at by who spins: the longer it has been quiet, the more rarely. */
#define LOOK_MIN_NS (20 * SD_US)
#define LOOK_MAX_NS (1 * SD_MS)
#define EVENTS	    32
#define CONFINED_NS (1 * SD_S) /* how often the end of the peer's process is looked for then */
#define TRIM_NS	    (5 * SD_S) /* who was not used for that long, and not for twice that, is idle */

static struct shm *of(struct pv *p)
{
	return container_of(p, struct shm, pv);
}

/* --- the epoll set --- */

static uint64_t tag_of(const struct shm *x, uint32_t slot)
{
	return (uint64_t)x->slots[slot].generation << 32 | slot;
}

int shm_open_events(struct shm *x)
{
	if (x->events >= 0)
		return 0;
	x->events = sd_fd_raise(epoll_create1(EPOLL_CLOEXEC));
	if (x->events < 0)
		return -errno;
	pv_domain_guard_fd(x->pv.domain, x->events, PV_GUARD_OWN);
	return 0;
}

int shm_watch(struct shm_ep *e)
{
	struct shm *x = shm_of(e);
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET, .data.u64 = tag_of(x, e->slot)};

	if (x->confined)
		return 0;
	return epoll_ctl(x->events, EPOLL_CTL_ADD, e->fd, &ev) ? -errno : 0;
}

void shm_unwatch(struct shm *x, int fd)
{
	if (x->confined)
		return;
	epoll_ctl(x->events, EPOLL_CTL_DEL, fd, NULL);
}

static bool grow_slots(struct shm *x)
{
	uint32_t n = x->n_slots ? x->n_slots * 2 : 64;
	struct shm_slot *more = realloc(x->slots, n * sizeof *more);

	if (!more)
		return false;
	for (uint32_t i = x->n_slots; i < n; i++)
		more[i] = (struct shm_slot){.generation = 1, .next_free = i + 1 < n ? i + 1 : UINT32_MAX};
	x->free_slot = x->n_slots;
	x->slots = more;
	x->n_slots = n;
	return true;
}

struct shm_ep *shm_ep_new(struct shm *x, void *user)
{
	struct shm_ep *e = calloc(1, sizeof *e);

	if (!e || (x->free_slot == UINT32_MAX && !grow_slots(x))) {
		free(e);
		return NULL;
	}
	e->slot = x->free_slot;
	x->free_slot = x->slots[e->slot].next_free;
	x->slots[e->slot].ep = e;
	e->ep.ops = &shm_ep_ops;
	e->ep.pv = &x->pv;
	e->user = user;
	e->fd = e->socket = e->lease = -1;
	list_init(&e->hot);
	list_init(&e->request);
	list_push_back(&x->endpoints, &e->node);
	return e;
}

void shm_ep_free(struct shm_ep *e)
{
	struct shm *x = shm_of(e);
	struct shm_slot *s = &x->slots[e->slot];

	s->ep = NULL;
	s->generation++;
	s->next_free = x->free_slot;
	x->free_slot = e->slot;
	if (!list_empty(&e->hot))
		x->n_hot--;
	list_remove(&e->hot);
	list_remove(&e->request);
	list_remove(&e->node);
	free(e);
}

/* --- sockets for who has none --- */

static int bound_socket(const struct sd_addr *local)
{
	union sd_sockaddr name;
	socklen_t len = sd_sockaddr_from(&name, local);
	int fd = socket(name.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0), r;

	if (fd < 0 || !bind(fd, &name.any, len))
		return fd < 0 ? -errno : fd;
	r = -errno;
	close(fd);
	return r;
}

static int listening_socket(const struct sd_addr *local, unsigned backlog)
{
	int fd = bound_socket(local);

	if (fd < 0 || !listen(fd, (int)backlog))
		return fd;
	close(fd);
	return -EADDRINUSE;
}

/* --- provider --- */

static bool is_sent_from(const struct sd_addr *peer, struct sd_addr *local)
{
	uint16_t port = local->port;
	int r = sd_sockaddr_source(peer, local);

	local->port = port;
	return !r;
}

static enum sd_reason shm_route(struct pv *p, const struct sd_addr *peer, struct sd_addr *local)
{
	if (sd_addr_is_any(peer) || !peer->port)
		return SD_REASON_NO_ROUTE;
	if (of(p)->confined)
		return SD_REASON_NO_DAEMON; /* which cannot be asked any more */
	if (local->family && !sd_addr_is_any(local))
		return SD_REASON_SAN;
	return is_sent_from(peer, local) ? SD_REASON_SAN : SD_REASON_NO_ROUTE;
}

static bool shm_serves(struct pv *p, const struct sd_addr *local)
{
	return true;
}

static enum sd_reason shm_start(struct pv *p)
{
	struct shm *x = of(p);
	bool was_there = x->channel >= 0;
	enum sd_reason r = shm_call(x);

	if (!was_there && r == SD_REASON_SAN)
		shm_listen_again(x);
	return r;
}

static int ask_to_listen(struct shm_ep *e, bool patient)
{
	struct channel_message m = {.type = CHANNEL_LISTEN, .n_fds = 1, .fds = {e->socket}};

	m.listen.local = e->local;
	m.listen.backlog = e->backlog;
	return shm_ask(e, &m, patient);
}

static void set_untold(struct shm_ep *e, bool untold)
{
	struct shm *x = shm_of(e);

	x->n_untold += untold - e->untold;
	e->untold = untold;
}

/* As many as find room in the channel; the others when it has answered. */
static void tell_listeners(struct shm *x)
{
	list_for_each (it, &x->endpoints) {
		struct shm_ep *e = container_of(it, struct shm_ep, node);
		int r = e->untold && list_empty(&e->request) ? ask_to_listen(e, false) : 0;

		if (r == -EAGAIN && !list_empty(&x->requests))
			return;
		set_untold(e, false);
	}
}

void shm_listen_again(struct shm *x)
{
	list_for_each (it, &x->endpoints) {
		struct shm_ep *e = container_of(it, struct shm_ep, node);

		set_untold(e, e->state == SHM_LISTENING);
	}
	tell_listeners(x);
}

static int shm_listen(struct pv *p, int socket, const struct sd_addr *local, unsigned backlog, void *user,
	struct pv_ep **out)
{
	struct shm *x = of(p);
	struct shm_ep *e;

	socket = socket < 0 ? listening_socket(local, backlog) : fcntl(socket, F_DUPFD_CLOEXEC, 0);
	if (socket < 0)
		return socket == -1 ? -errno : socket;
	e = shm_ep_new(x, user);
	if (!e) {
		close(socket);
		return -ENOMEM;
	}
	e->state = SHM_LISTENING;
	e->local = *local;
	e->backlog = backlog;
	e->socket = sd_fd_raise(socket);
	pv_domain_guard_fd(x->pv.domain, e->socket, PV_GUARD_KEPT);
	x->n_listeners++;
	/* A daemon that is not there is told when it comes. */
	if (shm_start(p) == SD_REASON_SAN && list_empty(&e->request) && e->fd < 0)
		ask_to_listen(e, true);
	/* Connections that begin when listen(2) has returned find it. */
	shm_await(e);
	*out = &e->ep;
	return 0;
}

static int shm_connect(struct pv *p, int socket, const struct sd_addr *local, const struct sd_addr *peer,
	void *user, struct pv_ep **out)
{
	struct channel_message m = {.type = CHANNEL_CONNECT, .n_fds = 1, .connect = {*local, *peer}};
	struct shm *x = of(p);
	struct shm_ep *e;
	int own = -1, r;

	if (x->channel < 0)
		return -ENOTCONN;
	if (socket < 0) {
		struct sd_addr bound;

		socket = own = bound_socket(local);
		if (socket < 0)
			return own;
		sd_sockaddr_bound(own, &bound);
		m.connect.local.port = bound.port;
	}
	e = shm_ep_new(x, user);
	r = e ? 0 : -ENOMEM;
	if (e) {
		e->state = SHM_CONNECTING;
		e->result = -EINPROGRESS;
		e->local = m.connect.local;
		e->peer = *peer;
		m.fds[0] = socket;
		r = shm_ask(e, &m, true);
		if (r)
			shm_ep_free(e);
	}
	if (own >= 0)
		close(own);
	if (!r)
		*out = &e->ep;
	return r;
}

/* --- other processes --- */

static int shm_adopt(struct pv *p, int fd, void *user, void *note, size_t len, struct pv_ep **out)
{
	struct channel_message m = {.type = CHANNEL_ADOPT, .n_fds = 1, .fds = {fd}};
	struct shm *x = of(p);
	struct shm_ep *e;
	int r;

	if (shm_start(p) != SD_REASON_SAN)
		return -ENOTCONN;
	e = shm_ep_new(x, user);
	if (!e)
		return -ENOMEM;
	e->state = SHM_CONNECTING;
	e->result = -EINPROGRESS;
	e->fd = fd;
	e->fd_taken = true;
	r = shm_ask(e, &m, true);
	if (!r)
		shm_await(e);
	if (r || e->state != SHM_OPEN) {
		r = r ? r : e->result;
		shm_ep_free(e);
		return r ? r : -ENOTCONN;
	}
	segment_note_get(&e->seg, note, len);
	*out = &e->ep;
	return 0;
}

static void shm_confine(struct pv *p, bool on)
{
	struct shm *x = of(p);

	if (on)
		pv_shm_look_again(p); /* no events will tell */
	x->confined = on;
	x->pace.next = 0;
}

static int shm_in_child(struct pv *p)
{
	struct shm *x = of(p);

	x->channel = x->events = -1;
	x->armed = false;
	x->retry_at = x->retry_after = x->pace.next = 0;
	list_init(&x->requests);
	list_for_each (it, &x->endpoints) {
		struct shm_ep *e = container_of(it, struct shm_ep, node);

		list_init(&e->request);
		if (e->state == SHM_CONNECTING || e->doomed)
			shm_ep_free(e);
	}
	if (!list_empty(&x->endpoints) && shm_open_events(x))
		return -errno;
	list_for_each (it, &x->endpoints)
		shm_ep_in_child(container_of(it, struct shm_ep, node));
	return 0;
}

/* --- for the domain --- */

static void arm(struct shm_ep *e)
{
	segment_arm(&e->seg, SEGMENT_WANT_DATA | (e->blocked ? SEGMENT_WANT_ROOM : 0));
}

void shm_heat(struct shm_ep *e)
{
	struct shm *x = shm_of(e);

	e->looked_at = x->pv.domain->now;
	if (list_empty(&e->hot)) {
		list_push_back(&x->hot, &e->hot);
		x->n_hot++;
		segment_disarm(&e->seg);
	}
	/* Another thread has taken the ring that the sleeper was armed for, or found a new thing to wait for:
	 * that thread may go to sleep without arming anything. */
	if (x->armed && !e->direct) {
		arm(e);
		shm_ep_look(e);
	}
}

static void cool(struct shm *x, struct shm_ep *e)
{
	list_remove(&e->hot);
	x->n_hot--;
	arm(e);
	/* What came meanwhile rings nobody. */
	if (shm_ep_look(e))
		shm_heat(e);
}

static unsigned look_at_hot(struct shm *x, uint64_t now)
{
	unsigned work = 0;

	list_for_each (it, &x->hot) {
		struct shm_ep *e = container_of(it, struct shm_ep, hot);

		if (shm_ep_look(e)) {
			e->looked_at = now;
			work++;
		} else if (x->n_hot > HOT_FEW && !e->direct && now - e->looked_at > HOT_IDLE_NS) {
			cool(x, e);
		}
	}
	return work;
}

static unsigned look_at_events(struct shm *x)
{
	struct epoll_event ev[EVENTS];
	unsigned work = 0;
	int n = epoll_wait(x->events, ev, EVENTS, 0);

	for (int i = 0; i < n; i++) {
		uint32_t slot = (uint32_t)ev[i].data.u64;

		if (ev[i].data.u64 == SHM_CHANNEL_TAG) {
			work += shm_hear(x);
		} else if (slot < x->n_slots && x->slots[slot].ep &&
			   x->slots[slot].generation == ev[i].data.u64 >> 32) {
			shm_ep_event(x->slots[slot].ep, ev[i].events);
			work++;
		}
	}
	return work;
}

void shm_trim_later(struct shm *x)
{
	if (x->trim_at == UINT64_MAX)
		x->trim_at = x->pv.domain->now + TRIM_NS;
}

/* In two rounds: in the first one it is noted that an end was used, in the second that it was not. */
static unsigned trim(struct shm *x)
{
	unsigned work = 0;

	x->trim_at = UINT64_MAX;
	list_for_each (it, &x->endpoints) {
		struct shm_ep *e = container_of(it, struct shm_ep, node);

		if (e->state != SHM_OPEN || e->trimmed)
			continue;
		if (e->used || !shm_ep_trim(e, &work))
			shm_trim_later(x);
		else
			e->trimmed = true;
		e->used = false;
	}
	return work;
}

static unsigned shm_progress(struct pv *p, uint64_t now)
{
	struct shm *x = of(p);
	unsigned work = look_at_hot(x, now);

	if (x->confined)
		return work;
	if (x->events >= 0 && now >= x->pace.next) {
		unsigned events = look_at_events(x);

		sd_pace_looked(&x->pace, now, events || !list_empty(&x->requests), LOOK_MIN_NS, LOOK_MAX_NS);
		work += events;
		if (__builtin_expect(x->n_untold && x->channel >= 0, 0))
			tell_listeners(x);
	}
	if (__builtin_expect(now >= x->trim_at, 0))
		work += trim(x);
	if (__builtin_expect(now >= shm_call_deadline(x), 0))
		shm_call_timeout(x, now);
	return work;
}

static uint64_t shm_deadline(struct pv *p)
{
	const struct shm *x = of(p);
	uint64_t call;

	if (x->confined)
		return UINT64_MAX;
	call = shm_call_deadline(x);
	return call < x->trim_at ? call : x->trim_at;
}

/* The one that is slept on; there is hardly a second one. Whose other end is gone would not let anybody. */
static struct shm_ep *first_confined(const struct shm *x)
{
	list_for_each (it, &x->hot) {
		struct shm_ep *e = container_of(it, struct shm_ep, hot);

		if (!e->ended)
			return e;
	}
	return NULL;
}

static int arm_confined(const struct shm *x, uint64_t *max_sleep_ns)
{
	const struct shm_ep *e = first_confined(x);

	*max_sleep_ns = CONFINED_NS;
	return e ? e->fd : -1;
}

/* What the epoll set would have told. */
static void look_confined(struct shm *x, bool rang)
{
	struct shm_ep *first = first_confined(x);
	char waste[64];

	if (rang && first)
		(void)!read(first->fd, waste, sizeof waste); /* an error is the hang-up's, seen below */
	list_for_each (it, &x->hot) {
		struct shm_ep *e = container_of(it, struct shm_ep, hot);
		struct pollfd p = {.fd = e->fd};

		if (poll(&p, 1, 0) == 1)
			shm_ep_event(e, (uint32_t)p.revents);
	}
}

static int shm_arm(struct pv *p, uint64_t *max_sleep_ns)
{
	struct shm *x = of(p);

	list_for_each (it, &x->hot) {
		struct shm_ep *e = container_of(it, struct shm_ep, hot);

		if (!e->direct)
			arm(e);
	}
	x->armed = true;
	return x->confined ? arm_confined(x, max_sleep_ns) : x->events;
}

static void shm_disarm(struct pv *p, bool rang)
{
	struct shm *x = of(p);

	x->armed = false;
	if (x->confined)
		look_confined(x, rang);
	/* An event that was not taken would end the next sleep. */
	if (rang)
		x->pace.next = 0;
	list_for_each (it, &x->hot) {
		struct shm_ep *e = container_of(it, struct shm_ep, hot);

		if (!e->direct)
			segment_disarm(&e->seg);
	}
}

static void shm_close(struct pv *p)
{
	struct shm *x = of(p);

	shm_hang_up(x);
	if (x->events >= 0) {
		pv_domain_guard_fd(x->pv.domain, x->events, PV_GUARD_NONE);
		close(x->events);
	}
	free(x->slots);
	free(x->path);
	free(x);
}

static const struct pv_ops ops = {
	.size = sizeof ops,
	.name = "shm",
	.route = shm_route,
	.serves = shm_serves,
	.start = shm_start,
	.listen = shm_listen,
	.connect = shm_connect,
	.adopt = shm_adopt,
	.in_child = shm_in_child,
	.confine = shm_confine,
	.progress = shm_progress,
	.deadline = shm_deadline,
	.arm = shm_arm,
	.disarm = shm_disarm,
	.slow = pv_no_slow,
	.lingering = pv_no_lingering,
	.close = shm_close,
};

int pv_shm_open(const char *path, pv_ready_fn *ready, struct pv **out)
{
	struct shm *x = calloc(1, sizeof *x);

	if (!x)
		return -ENOMEM;
	x->pv.ops = &ops;
	x->pv.ready = ready;
	x->path = strdup(path);
	x->channel = x->events = -1;
	x->free_slot = UINT32_MAX;
	x->trim_at = UINT64_MAX;
	list_init(&x->requests);
	list_init(&x->hot);
	list_init(&x->endpoints);
	if (!x->path) {
		free(x);
		return -ENOMEM;
	}
	*out = &x->pv;
	return 0;
}

bool pv_shm_is_end(int fd)
{
	return channel_is_end(fd);
}

void pv_shm_end_close(const struct pv_shm_end *end)
{
	close(end->memory);
	close(end->fd);
}

int pv_shm_attach(struct pv *p, const struct pv_shm_end *end, void *user, struct pv_ep **out)
{
	struct shm *x = of(p);
	struct shm_ep *e = shm_ep_new(x, user);
	int r = e ? shm_open_events(x) : -ENOMEM;

	if (!r)
		r = shm_ep_attach(e, end);
	else
		pv_shm_end_close(end);
	if (r) {
		if (e)
			shm_ep_free(e);
		return r;
	}
	*out = &e->ep;
	return 0;
}

int pv_shm_fd(const struct pv_ep *ep)
{
	return container_of(ep, struct shm_ep, ep)->fd;
}

void pv_shm_look_again(struct pv *p)
{
	struct shm *x = of(p);

	list_for_each (it, &x->endpoints) {
		struct shm_ep *e = container_of(it, struct shm_ep, node);

		if (e->state == SHM_OPEN)
			shm_heat(e);
	}
}
