/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * All that concerns the sockets is done in serve(), which runs as an alarm; who sees that the peer has gone,
 * in the middle of something, only says so and calls for it. Two locks: the device's, and io for the dialogue
 * with the peer, because EAL tells of new memory from within any allocation, when only the latter may be
 * taken: EAL's memory lock, then io.
 */
#include "drivers/virtio/vhost_user.h"

#include <errno.h>
#include <fcntl.h>
#include <rte_alarm.h>
#include <rte_cycles.h>
#include <rte_eal_memconfig.h>
#include <rte_interrupts.h>
#include <rte_memory.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "drivers/virtio/vhost_msg.h"

enum {
	PATIENCE_S = 2, /* for an answer */
	SEEK_MS = 50,	/* between attempts to connect */
};

/* What this front end answers for itself; the rest is the back end's. */
#define OWN_FEATURES (VN_BIT(VN_F_MAC) | VN_BIT(VN_F_STATUS))
/* Of the back end's, what is of use here: it has no control queue, no addresses of its own and no MTU to
 * tell. */
#define PEER_FEATURES                                                                                        \
	(VN_BIT(VN_F_CSUM) | VN_BIT(VN_F_GUEST_CSUM) | VN_BIT(VN_F_GUEST_TSO4) | VN_BIT(VN_F_GUEST_TSO6) |   \
		VN_BIT(VN_F_HOST_TSO4) | VN_BIT(VN_F_HOST_TSO6) | VN_BIT(VN_F_HOST_USO) |                    \
		VN_BIT(VN_F_MRG_RXBUF) | VN_BIT(VN_F_MQ) | VN_BIT(VN_F_INDIRECT_DESC) |                      \
		VN_BIT(VN_F_EVENT_IDX) | VN_BIT(VN_F_VERSION_1) | VN_BIT(VN_F_RING_PACKED) |                 \
		VN_BIT(VN_F_IN_ORDER))
/* What nearly all have, assumed as long as nobody is there. */
#define LIKELY_FEATURES                                                                                      \
	(PEER_FEATURES & ~(VN_BIT(VN_F_HOST_TSO4) | VN_BIT(VN_F_HOST_TSO6) | VN_BIT(VN_F_HOST_USO) |         \
				 VN_BIT(VN_F_GUEST_TSO4) | VN_BIT(VN_F_GUEST_TSO6)))

struct vu {
	struct vn_dev *d;
	struct sockaddr_un at;
	int listener, fd;
	pthread_mutex_t io;
	bool gone;   /* fd is of no more use */
	bool called; /* serve is on its way */
	bool closing;
	struct rte_intr_handle *listener_events, *events;
	uint64_t seek_at;	     /* cycles: not before */
	uint64_t features, protocol; /* the peer's */
	uint16_t peer_pairs;
	bool has_memory; /* the peer has a memory table */
	uint8_t status;
	struct vn_queue *rings[2 * VN_PAIRS_MAX]; /* that the peer has */
};

static struct vu *vu_of(const struct vn_dev *d)
{
	return d->bus_data;
}

static void serve(void *arg);

static void call(struct vu *u, unsigned ms)
{
	if (!__atomic_load_n(&u->closing, __ATOMIC_ACQUIRE) &&
		!__atomic_exchange_n(&u->called, true, __ATOMIC_ACQ_REL) &&
		rte_eal_alarm_set(ms * 1000ull + 1, serve, u))
		__atomic_store_n(&u->called, false, __ATOMIC_RELEASE);
}

/* Something is to be read, or the peer has gone. */
static void on_event(void *arg)
{
	call(arg, 0);
}

/* The dialogue broke. */
static int lost(struct vu *u, int e)
{
	if (e) {
		u->gone = true;
		call(u, 0);
		e = -ENOTCONN;
	}
	return e;
}

static bool has_protocol(const struct vu *u, unsigned feature)
{
	return u->protocol & VN_BIT(feature);
}

/* --- messages --- */

static int say(struct vu *u, struct vn_vhost_msg *m, const int *fds, unsigned n)
{
	int e = -ENOTCONN;

	pthread_mutex_lock(&u->io);
	if (u->fd >= 0 && !u->gone)
		e = lost(u, vn_vhost_do(u->fd, m, fds, n, has_protocol(u, VN_PROTOCOL_REPLY_ACK)));
	pthread_mutex_unlock(&u->io);
	return e;
}

static int say_u64(struct vu *u, uint32_t request, uint64_t value)
{
	struct vn_vhost_msg m = {.request = request, .size = sizeof m.u64, .u64 = value};

	return say(u, &m, NULL, 0);
}

static int say_vring(struct vu *u, uint32_t request, uint32_t index, uint32_t value)
{
	struct vn_vhost_msg m = {.request = request, .size = sizeof m.vring, .vring = {index, value}};

	return say(u, &m, NULL, 0);
}

static int say_fd(struct vu *u, uint32_t request, uint32_t index, int fd)
{
	struct vn_vhost_msg m = {.request = request, .size = sizeof m.u64, .u64 = index};

	return say(u, &m, &fd, 1);
}

static int ask(struct vu *u, struct vn_vhost_msg *m, uint32_t reply)
{
	int e = -ENOTCONN;

	pthread_mutex_lock(&u->io);
	if (u->fd >= 0 && !u->gone) {
		e = vn_vhost_send(u->fd, m, NULL, 0);
		if (!e)
			e = vn_vhost_receive(u->fd, m->request, reply, m);
		e = lost(u, e);
	}
	pthread_mutex_unlock(&u->io);
	return e;
}

static int ask_u64(struct vu *u, uint32_t request, uint64_t *value)
{
	struct vn_vhost_msg m = {.request = request};
	int e = ask(u, &m, sizeof m.u64);

	*value = e ? 0 : m.u64;
	return e;
}

/* --- memory --- */

struct table {
	struct vn_vhost_msg m;
	int fds[VN_REGIONS_MAX];
	bool full;
	uint64_t leaving, leaving_len; /* what EAL is about to give up */
};

/* Segments of one file are one region. */
static int add_segment(const struct rte_memseg_list *msl, const struct rte_memseg *ms, void *arg)
{
	struct table *t = arg;
	uint64_t addr = (uintptr_t)ms->addr;
	struct vn_region *r;
	size_t offset;
	int fd;

	if (msl->external || addr - t->leaving < t->leaving_len)
		return 0;
	fd = rte_memseg_get_fd_thread_unsafe(ms);
	if (fd < 0 || rte_memseg_get_fd_offset_thread_unsafe(ms, &offset) < 0)
		return -1;
	for (unsigned i = 0; i < t->m.memory.n; i++) {
		r = &t->m.memory.regions[i];
		if (t->fds[i] != fd || addr < r->addr || addr - r->addr != offset - r->offset)
			continue;
		r->size = RTE_MAX(r->size, addr + ms->len - r->addr);
		return 0;
	}
	if (t->m.memory.n == VN_REGIONS_MAX) {
		t->full = true;
		return -1;
	}
	t->fds[t->m.memory.n] = fd;
	t->m.memory.regions[t->m.memory.n++] = (struct vn_region){addr, ms->len, addr, offset};
	return 0;
}

/* With EAL's memory lock held. */
static int send_memory(struct vu *u, const void *leaving, size_t leaving_len)
{
	struct table t = {
		.m.request = VN_SET_MEM_TABLE, .leaving = (uintptr_t)leaving, .leaving_len = leaving_len};

	if (rte_memseg_walk_thread_unsafe(add_segment, &t) < 0) {
		VN_LOG(ERR, u->d, "%s",
			t.full ? "memory is in too many files to be shared: use --single-file-segments, or "
				 "larger pages"
			       : "memory is in no file, so it cannot be shared: use --in-memory or "
				 "--no-huge's default");
		return -ENOTSUP;
	}
	t.m.size = (uint32_t)(2 * sizeof(uint32_t) + t.m.memory.n * sizeof(struct vn_region));
	return say(u, &t.m, t.fds, t.m.memory.n);
}

static int share_memory(struct vu *u)
{
	int e;

	rte_mcfg_mem_read_lock();
	e = send_memory(u, NULL, 0);
	u->has_memory = !e;
	rte_mcfg_mem_read_unlock();
	return e;
}

/* EAL has got or is about to give up memory; it holds its lock. What there is no more must not be used by
 * now. */
static void on_memory(enum rte_mem_event event, const void *addr, size_t len, void *arg)
{
	struct vu *u = arg;

	/* Without it the peer cannot find buffers, and says nothing. */
	if (u->has_memory && send_memory(u, addr, event == RTE_MEM_EVENT_FREE ? len : 0))
		lost(u, -ENOTCONN);
}

/* --- the bus --- */

static int vu_features(struct vn_dev *d, uint64_t *offered)
{
	struct vu *u = vu_of(d);

	if (u->fd < 0 || u->gone) {
		*offered = LIKELY_FEATURES | OWN_FEATURES;
		return -ENOTCONN;
	}
	*offered = (u->features & PEER_FEATURES) | OWN_FEATURES;
	return 0;
}

static int vu_set_features(struct vn_dev *d, uint64_t features)
{
	struct vu *u = vu_of(d);
	int e;

	features &= PEER_FEATURES;
	features |= u->features & VN_BIT(VN_VHOST_F_PROTOCOL_FEATURES);
	e = say_u64(u, VN_SET_FEATURES, features);
	return e ? e : share_memory(u);
}

static uint8_t vu_status(struct vn_dev *d)
{
	return vu_of(d)->status;
}

static int enable_rings(struct vu *u)
{
	int e = 0;

	if (!(u->features & VN_BIT(VN_VHOST_F_PROTOCOL_FEATURES)))
		return 0; /* they are from the beginning */
	for (unsigned i = 0; !e && i < 2u * u->d->pairs; i++)
		e = say_vring(u, VN_SET_VRING_ENABLE, i, 1);
	return e;
}

static int vu_set_status(struct vn_dev *d, uint8_t status)
{
	struct vu *u = vu_of(d);
	int e = 0;

	if (status & VN_S_DRIVER_OK)
		e = enable_rings(u);
	if (!e && has_protocol(u, VN_PROTOCOL_STATUS))
		e = say_u64(u, VN_SET_STATUS, status);
	if (!e)
		u->status = status;
	return e;
}

/* The peer stops using a ring when it is asked how far it got. */
static int vu_reset(struct vn_dev *d)
{
	struct vu *u = vu_of(d);

	for (unsigned i = 0; i < RTE_DIM(u->rings); i++) {
		struct vn_vhost_msg m = {
			.request = VN_GET_VRING_BASE, .size = sizeof m.vring, .vring = {i, 0}};

		if (u->rings[i] && u->fd >= 0)
			ask(u, &m, sizeof m.vring);
		u->rings[i] = NULL;
	}
	if (u->status && u->fd >= 0)
		vu_set_status(d, 0);
	u->status = 0;
	return u->fd >= 0 && !u->gone ? 0 : -ENOTCONN;
}

static uint16_t vu_queue_size(struct vn_dev *d, uint16_t index)
{
	return index < 2 * vu_of(d)->peer_pairs ? VN_QUEUE_MAX : 0;
}

static int make_eventfd(int *fd)
{
	if (*fd < 0)
		*fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	return *fd < 0 ? -errno : 0;
}

static int vu_queue_up(struct vn_dev *d, struct vn_queue *q)
{
	struct vu *u = vu_of(d);
	struct vn_vhost_msg addr = {
		.request = VN_SET_VRING_ADDR,
		.size = sizeof addr.addr,
		.addr = {.index = q->index,
			.desc = q->ring_addr[0],
			.avail = q->ring_addr[1],
			.used = q->ring_addr[2]},
	};
	/* packed: both sides begin in their first lap */
	uint32_t base = d->mode.packed ? 1u << 15 | 1u << 31 : 0;
	int e = make_eventfd(&q->kick_fd);

	if (!e)
		e = make_eventfd(&q->call_fd);
	if (e)
		return e;
	u->rings[q->index] = q;
	e = say_fd(u, VN_SET_VRING_CALL, q->index, q->call_fd);
	if (!e)
		e = say_vring(u, VN_SET_VRING_NUM, q->index, q->size);
	if (!e)
		e = say_vring(u, VN_SET_VRING_BASE, q->index, base);
	if (!e)
		e = say(u, &addr, NULL, 0);
	if (!e)
		e = say_fd(u, VN_SET_VRING_KICK, q->index, q->kick_fd);
	return e;
}

static void vu_notify(struct vn_queue *q)
{
	eventfd_write(q->kick_fd, 1);
}

static void vu_queue_free(struct vn_queue *q)
{
	if (q->kick_fd >= 0)
		close(q->kick_fd);
	if (q->call_fd >= 0)
		close(q->call_fd);
}

static int vu_read_config(struct vn_dev *d, size_t offset, void *to, size_t len)
{
	struct vu *u = vu_of(d);
	struct vn_config c = {
		.status = u->fd >= 0 && !u->gone ? VN_STATUS_LINK_UP : 0,
		.max_virtqueue_pairs = d->options.pairs ? d->options.pairs : 1,
	};

	memcpy(c.mac, d->options.mac, sizeof c.mac);
	if (offset + len > offsetof(struct vn_config, mtu))
		return -ENOENT;
	memcpy(to, (uint8_t *)&c + offset, len);
	return 0;
}

/* A queue's wake-up is the event that the peer signals. */
static int vu_interrupts_up(struct vn_dev *d, uint16_t n)
{
	struct rte_intr_handle *h = rte_intr_instance_alloc(RTE_INTR_INSTANCE_F_PRIVATE);
	int e = h ? 0 : -ENOMEM;

	if (!e && rte_intr_event_list_update(h, n + 1))
		e = -ENOMEM;
	if (!e && rte_intr_vec_list_alloc(h, "vn", n))
		e = -ENOMEM;
	for (uint16_t i = 0; !e && i < n; i++) {
		struct vn_queue *q = d->data->rx_queues[i];

		e = make_eventfd(&q->call_fd);
		if (!e && (rte_intr_efds_index_set(h, i, q->call_fd) ||
				  rte_intr_vec_list_index_set(h, i, i + RTE_INTR_VEC_RXTX_OFFSET)))
			e = -ENOMEM;
	}
	if (e) {
		rte_intr_vec_list_free(h);
		rte_intr_instance_free(h);
		return e;
	}
	rte_intr_fd_set(h, -1);
	rte_intr_type_set(h, RTE_INTR_HANDLE_VDEV);
	rte_intr_nb_efd_set(h, n);
	rte_intr_max_intr_set(h, n + 1);
	rte_intr_efd_counter_size_set(h, sizeof(uint64_t));
	d->eth->intr_handle = h;
	return 0;
}

static void vu_interrupts_down(struct vn_dev *d)
{
	rte_intr_free_epoll_fd(d->eth->intr_handle);
	rte_intr_vec_list_free(d->eth->intr_handle);
	rte_intr_instance_free(d->eth->intr_handle);
	d->eth->intr_handle = NULL;
}

/* --- meeting the peer --- */

static int learn_peer(struct vu *u)
{
	struct vn_vhost_msg owner = {.request = VN_SET_OWNER};
	uint64_t pairs = 1;
	int e;

	u->protocol = 0;
	u->features = 0;
	e = ask_u64(u, VN_GET_FEATURES, &u->features);
	if (!e && (u->features & VN_BIT(VN_VHOST_F_PROTOCOL_FEATURES))) {
		uint64_t offered;

		e = ask_u64(u, VN_GET_PROTOCOL_FEATURES, &offered);
		offered &=
			VN_BIT(VN_PROTOCOL_MQ) | VN_BIT(VN_PROTOCOL_REPLY_ACK) | VN_BIT(VN_PROTOCOL_STATUS);
		if (!e)
			e = say_u64(u, VN_SET_PROTOCOL_FEATURES, offered);
		u->protocol = e ? 0 : offered;
	}
	if (!e)
		e = say(u, &owner, NULL, 0);
	if (!e && has_protocol(u, VN_PROTOCOL_MQ))
		e = ask_u64(u, VN_GET_QUEUE_NUM, &pairs);
	if (pairs < 2)
		u->features &= ~VN_BIT(VN_F_MQ);
	u->peer_pairs = (uint16_t)RTE_MIN(pairs, (uint64_t)VN_PAIRS_MAX);
	return e;
}

static int watch(struct vu *u, struct rte_intr_handle **h, int fd)
{
	*h = rte_intr_instance_alloc(RTE_INTR_INSTANCE_F_PRIVATE);
	if (!*h)
		return -ENOMEM;
	rte_intr_fd_set(*h, fd);
	rte_intr_type_set(*h, RTE_INTR_HANDLE_EXT);
	return rte_intr_callback_register(*h, on_event, u);
}

static void unwatch(struct vu *u, struct rte_intr_handle **h)
{
	while (*h && rte_intr_callback_unregister(*h, on_event, u) == -EAGAIN)
		rte_pause(); /* on_event takes no lock */
	rte_intr_instance_free(*h);
	*h = NULL;
}

static void hang_up(struct vu *u)
{
	unwatch(u, &u->events);
	pthread_mutex_lock(&u->io);
	u->has_memory = false;
	close(u->fd);
	u->fd = -1;
	u->gone = false;
	u->seek_at = rte_get_timer_cycles() + rte_get_timer_hz() * SEEK_MS / 1000;
	pthread_mutex_unlock(&u->io);
}

static void adopt(struct vu *u, int fd)
{
	const struct timeval patience = {.tv_sec = PATIENCE_S};

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
	pthread_mutex_lock(&u->io);
	u->fd = fd;
	u->gone = false;
	pthread_mutex_unlock(&u->io);
	if (learn_peer(u) || watch(u, &u->events, fd)) {
		VN_LOG(NOTICE, u->d, "%s is no vhost-user back end, or went at once", u->at.sun_path);
		hang_up(u);
		return;
	}
	vn_device_came(u->d);
}

/* The peer says nothing of itself: what can be read is its end, or not in order. */
static bool has_gone(struct vu *u)
{
	bool gone = true;
	char byte;

	pthread_mutex_lock(&u->io); /* an answer is not for us */
	if (!u->gone)
		gone = recv(u->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 ||
		       (errno != EAGAIN && errno != EINTR);
	pthread_mutex_unlock(&u->io);
	return gone;
}

static void listen_on(struct vu *u)
{
	int fd = accept4(u->listener, NULL, NULL, SOCK_CLOEXEC);

	if (fd >= 0 && u->fd < 0)
		adopt(u, fd);
	else if (fd >= 0)
		close(fd); /* one at a time */
}

static void seek(struct vu *u)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return;
	if (connect(fd, (struct sockaddr *)&u->at, sizeof u->at)) {
		close(fd);
		return;
	}
	fcntl(fd, F_SETFL, 0);
	adopt(u, fd);
}

static void serve(void *arg)
{
	struct vu *u = arg;

	vn_device_lock(u->d);
	__atomic_store_n(&u->called, false, __ATOMIC_RELEASE);
	if (u->closing) {
		vn_device_unlock(u->d);
		return;
	}
	if (u->fd >= 0 && has_gone(u)) {
		u->gone = true; /* nobody is to talk to it any more */
		vn_device_left(u->d);
		hang_up(u);
	}
	if (u->listener >= 0)
		listen_on(u);
	else if (u->fd < 0 && rte_get_timer_cycles() >= u->seek_at)
		seek(u);
	if (u->listener < 0 && u->fd < 0)
		call(u, SEEK_MS);
	vn_device_unlock(u->d);
}

/* --- birth and death --- */

static void vu_close(struct vn_dev *d)
{
	struct vu *u = vu_of(d);

	unwatch(u, &u->listener_events);
	if (u->fd >= 0)
		hang_up(u);
	if (u->listener >= 0) {
		close(u->listener);
		unlink(u->at.sun_path);
	}
	pthread_mutex_destroy(&u->io);
	free(u);
	d->bus_data = NULL;
}

static void vu_quiet(struct vn_dev *d)
{
	struct vu *u = vu_of(d);
	char name[32];

	snprintf(name, sizeof name, "vn_%p", (void *)u);
	rte_mem_event_callback_unregister(name, u);
	vn_device_lock(d);
	__atomic_store_n(&u->closing, true, __ATOMIC_RELEASE);
	vn_device_unlock(d);
	unwatch(u, &u->listener_events);
	unwatch(u, &u->events);
	rte_eal_alarm_cancel(serve, u);
}

static const struct vn_bus vhost_user = {
	.unfiltered = true,
	.features = vu_features,
	.reset = vu_reset,
	.status = vu_status,
	.set_status = vu_set_status,
	.set_features = vu_set_features,
	.queue_size = vu_queue_size,
	.queue_up = vu_queue_up,
	.queue_free = vu_queue_free,
	.notify = vu_notify,
	.read_config = vu_read_config,
	.interrupts_up = vu_interrupts_up,
	.interrupts_down = vu_interrupts_down,
	.quiet = vu_quiet,
	.close = vu_close,
};

static int start_listening(struct vu *u)
{
	int e = 0;

	u->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (u->listener < 0 || bind(u->listener, (struct sockaddr *)&u->at, sizeof u->at) ||
		listen(u->listener, 1))
		e = -errno;
	if (!e)
		e = watch(u, &u->listener_events, u->listener);
	if (e && u->listener >= 0) {
		close(u->listener);
		u->listener = -1;
	}
	return e;
}

int vn_vhost_user_open(struct vn_dev *d, const char *path, bool server)
{
	struct vu *u;
	char name[32];
	int e = 0;

	if (strlen(path) >= sizeof u->at.sun_path)
		return -EINVAL;
	u = calloc(1, sizeof *u);
	if (!u)
		return -ENOMEM;
	u->d = d;
	u->listener = u->fd = -1;
	u->at.sun_family = AF_UNIX;
	snprintf(u->at.sun_path, sizeof u->at.sun_path, "%s", path);
	pthread_mutex_init(&u->io, NULL);
	d->bus = &vhost_user;
	d->bus_data = u;
	snprintf(name, sizeof name, "vn_%p", (void *)u);
	if (rte_mem_event_callback_register(name, on_memory, u) && rte_errno != ENOTSUP)
		e = -rte_errno;
	if (!e && server)
		e = start_listening(u);
	if (e) {
		vu_quiet(d);
		vu_close(d);
		return e;
	}
	serve(u);
	return 0;
}
