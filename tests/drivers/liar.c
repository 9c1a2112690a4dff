/* SPDX-License-Identifier: BSD-3-Clause */
#include "liar.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "drivers/virtio/spec.h"
#include "drivers/virtio/vhost_msg.h"

enum {
	RINGS = 2,
	HEADER = offsetof(struct vn_vhost_msg, u64),
	MILLION = 1000000,
	FRAME_MAX = 1514,
	SEGMENTS = 64, /* of a chain that it follows */
	LIES_GROW = 9, /* powers of two: seldom, for what shows only deep in, or all the time */
};

struct ring {
	unsigned size;
	uint64_t at[3]; /* descriptors, driver's area, device's area, as the driver names them */
	bool enabled;
	uint16_t avail, used; /* split: free-running; packed: places */
	bool avail_wrap, used_wrap;
	int call, kick;
};

struct liar {
	struct liar_config c;
	pthread_t thread;
	pthread_mutex_t lock; /* of all that follows */
	bool quit, reformed;
	int fd;
	uint64_t random, features;
	unsigned lies; /* in a million steps, since a ring was started last */
	struct {
		struct vn_region r;
		uint8_t *mapped;
		size_t bytes;
	} regions[VN_REGIONS_MAX];
	unsigned n_regions;
	struct ring rings[RINGS];
	struct liar_counts counts;
};

/* --- chance --- */

static uint64_t draw(struct liar *l) /* xorshift64* */
{
	l->random ^= l->random >> 12;
	l->random ^= l->random << 25;
	l->random ^= l->random >> 27;
	return l->random * 0x2545f4914f6cdd1dull;
}

static unsigned below(struct liar *l, unsigned n)
{
	return (unsigned)((draw(l) >> 33) % n);
}

static bool happens(struct liar *l, unsigned in_a_million)
{
	return !l->reformed && below(l, MILLION) < in_a_million;
}

/* --- the driver's memory --- */

static void *translate(struct liar *l, uint64_t addr, size_t len)
{
	for (unsigned i = 0; i < l->n_regions; i++) {
		uint64_t from = l->regions[i].r.device_addr;

		if (addr >= from && len <= l->regions[i].r.size && addr - from <= l->regions[i].r.size - len)
			return l->regions[i].mapped + l->regions[i].r.offset + (addr - from);
	}
	return NULL;
}

static void unmap_all(struct liar *l)
{
	for (unsigned i = 0; i < l->n_regions; i++)
		munmap(l->regions[i].mapped, l->regions[i].bytes);
	l->n_regions = 0;
}

static void map_all(struct liar *l, const struct vn_vhost_msg *m, const int *fds, unsigned n)
{
	unmap_all(l);
	for (unsigned i = 0; i < n && i < m->memory.n; i++) {
		struct vn_region r = m->memory.regions[i];
		size_t bytes = r.offset + r.size;
		void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fds[i], 0);

		if (p == MAP_FAILED)
			continue;
		l->regions[l->n_regions].r = r;
		l->regions[l->n_regions].mapped = p;
		l->regions[l->n_regions++].bytes = bytes;
	}
}

/* --- the rings --- */

static bool is_packed(const struct liar *l)
{
	return l->features & VN_BIT(VN_F_RING_PACKED);
}

struct view {
	struct ring *r;
	struct vn_desc *desc;
	struct vn_avail *avail;
	struct vn_used *used;
	struct vn_pdesc *pdesc;
	size_t driver_bytes, device_bytes;
};

static bool look(struct liar *l, unsigned index, struct view *v)
{
	struct ring *r = &l->rings[index];

	if (!r->enabled || !r->size || (r->size & (r->size - 1)))
		return false;
	v->r = r;
	v->driver_bytes =
		is_packed(l) ? sizeof(struct vn_event) : sizeof(struct vn_avail) + 2 * (r->size + 1);
	v->device_bytes = is_packed(l) ? sizeof(struct vn_event)
				       : sizeof(struct vn_used) + r->size * sizeof(struct vn_used_elem) + 2;
	v->desc = translate(l, r->at[0], r->size * sizeof *v->desc);
	v->pdesc = (struct vn_pdesc *)v->desc;
	v->avail = translate(l, r->at[1], v->driver_bytes);
	v->used = translate(l, r->at[2], v->device_bytes);
	return v->desc && v->avail && v->used;
}

/* The next buffer: its id and first piece, and of how many descriptors it is. */
static bool next_split(struct view *v, uint16_t *id, struct vn_desc *first)
{
	if (v->avail->idx == v->r->avail)
		return false;
	*id = v->avail->ring[v->r->avail++ & (v->r->size - 1)] & (uint16_t)(v->r->size - 1);
	*first = v->desc[*id];
	return true;
}

static bool next_packed(struct view *v, uint16_t *id, struct vn_desc *first, unsigned *count)
{
	*count = 0;
	for (;;) {
		struct vn_pdesc *d = &v->pdesc[v->r->avail];
		bool avail = d->flags & VN_DESC_AVAIL, used = d->flags & VN_DESC_USED;

		if (!*count && (avail != v->r->avail_wrap || used == v->r->avail_wrap))
			return false;
		if (!*count)
			*first = (struct vn_desc){d->addr, d->len, d->flags, 0};
		*id = d->id;
		++*count;
		if (++v->r->avail == v->r->size) {
			v->r->avail = 0;
			v->r->avail_wrap = !v->r->avail_wrap;
		}
		if (!(d->flags & VN_DESC_NEXT) || *count == v->r->size)
			return true;
	}
}

static void use_split(struct view *v, uint32_t id, uint32_t len)
{
	v->used->ring[v->r->used++ & (v->r->size - 1)] = (struct vn_used_elem){id, len};
	__atomic_store_n(&v->used->idx, v->r->used, __ATOMIC_RELEASE);
}

static void use_packed(struct view *v, uint16_t id, uint32_t len, unsigned count)
{
	struct vn_pdesc *d = &v->pdesc[v->r->used];

	d->id = id;
	d->len = len;
	__atomic_store_n(&d->flags, v->r->used_wrap ? VN_DESC_AVAIL | VN_DESC_USED : 0, __ATOMIC_RELEASE);
	v->r->used = (uint16_t)(v->r->used + count);
	if (v->r->used >= v->r->size) {
		v->r->used = (uint16_t)(v->r->used - v->r->size);
		v->r->used_wrap = !v->r->used_wrap;
	}
}

static uint32_t some_length(struct liar *l, uint32_t room)
{
	const uint32_t wrong[] = {0, 1, 11, 12, room + 1, 65535, UINT32_MAX};

	return wrong[below(l, sizeof wrong / sizeof *wrong)];
}

/* A frame into a buffer; returns the length that is told. */
static uint32_t deliver(struct liar *l, const struct vn_desc *d)
{
	uint32_t len = (uint32_t)sizeof(struct vn_hdr) + 14 + below(l, FRAME_MAX - 14);
	struct vn_hdr *h;
	uint8_t *p;

	if (len > d->len)
		len = d->len;
	p = translate(l, d->addr, len);
	if (!p || len < sizeof *h)
		return 0;
	memset(p + sizeof *h, (int)draw(l), len - sizeof *h);
	h = (struct vn_hdr *)p;
	memset(h, 0, sizeof *h);
	h->num_buffers = 1;
	if (happens(l, l->lies)) {
		l->counts.lies++;
		for (unsigned i = 0; i < sizeof *h; i++)
			p[i] = (uint8_t)draw(l);
		if (below(l, 2))
			h->num_buffers = (uint16_t)below(l, 5);
	}
	l->counts.delivered++;
	return happens(l, l->lies) ? some_length(l, d->len) : len;
}

static void use_one(struct liar *l, struct view *v, bool rx)
{
	struct vn_desc first;
	unsigned count = 1;
	uint32_t len = 0;
	uint16_t id;

	if (!(is_packed(l) ? next_packed(v, &id, &first, &count) : next_split(v, &id, &first)))
		return;
	if (rx)
		len = deliver(l, &first);
	else
		l->counts.taken++;
	if (happens(l, l->lies)) {
		l->counts.lies++;
		id = (uint16_t)(below(l, 2) ? below(l, v->r->size) : draw(l));
	}
	if (is_packed(l))
		use_packed(v, id, len, count);
	else
		use_split(v, happens(l, l->lies) ? (uint32_t)draw(l) : id, len);
}

static void scribble(struct liar *l, void *at, size_t bytes)
{
	unsigned n = 1 + below(l, 8);
	size_t from = bytes > n ? below(l, (unsigned)(bytes - n)) : 0;

	for (unsigned i = 0; i < n && from + i < bytes; i++)
		((uint8_t *)at)[from + i] = (uint8_t)draw(l);
}

static void lie(struct liar *l, struct view *v)
{
	l->counts.lies++;
	switch (below(l, 6)) {
	case 0: /* more used than there were, or fewer */
		if (is_packed(l))
			v->pdesc[below(l, v->r->size)].flags ^= VN_DESC_AVAIL | VN_DESC_USED;
		else
			v->used->idx = (uint16_t)(v->r->used = (uint16_t)(v->r->used + draw(l)));
		break;
	case 1: /* the same once more */
		if (is_packed(l))
			use_packed(v, (uint16_t)below(l, v->r->size), below(l, 2000), 1);
		else
			use_split(v, below(l, v->r->size), below(l, 2000));
		break;
	case 2: /* all but the address: where a device of its own will writes in shared memory nobody can help
		 */
		scribble(l, &v->desc[below(l, v->r->size)].len, sizeof *v->desc - sizeof v->desc->addr);
		break;
	case 3:
		scribble(l, v->avail, v->driver_bytes);
		break;
	case 4:
		scribble(l, v->used, v->device_bytes);
		break;
	default: /* forgets where it was */
		v->r->avail = (uint16_t)below(l, v->r->size);
	}
}

static void hang_up(struct liar *l)
{
	if (l->fd < 0)
		return;
	l->counts.hang_ups++;
	shutdown(l->fd, SHUT_RDWR);
}

void liar_step(struct liar *l)
{
	struct view v;
	unsigned index;

	pthread_mutex_lock(&l->lock);
	l->counts.steps++;
	index = below(l, RINGS);
	if (look(l, index, &v)) {
		for (unsigned n = 1 + below(l, 4); n--;)
			use_one(l, &v, !index);
		if (happens(l, l->lies))
			lie(l, &v);
	}
	if (happens(l, l->c.hang_ups))
		hang_up(l);
	pthread_mutex_unlock(&l->lock);
}

void liar_hang_up(struct liar *l)
{
	pthread_mutex_lock(&l->lock);
	hang_up(l);
	pthread_mutex_unlock(&l->lock);
}

/* --- the dialogue --- */

static bool read_message(int fd, struct vn_vhost_msg *m, int *fds, unsigned *n)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(VN_REGIONS_MAX * sizeof(int))];
	} control;
	struct iovec iov = {m, HEADER};
	struct msghdr msg = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof control};
	struct cmsghdr *c;

	*n = 0;
	if (recvmsg(fd, &msg, MSG_WAITALL | MSG_CMSG_CLOEXEC) != HEADER)
		return false;
	c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_type == SCM_RIGHTS) {
		*n = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(c), *n * sizeof(int));
	}
	return m->size <= sizeof *m - HEADER &&
	       (!m->size || recv(fd, &m->u64, m->size, MSG_WAITALL) == (ssize_t)m->size);
}

static void answer(struct liar *l, struct vn_vhost_msg *m, uint32_t size)
{
	m->flags = 1 | 4;
	m->size = size;
	if (happens(l, l->c.bad_talk)) {
		switch (below(l, 4)) {
		case 0:
			m->size = below(l, 64);
			break;
		case 1:
			m->request = (uint32_t)draw(l);
			break;
		case 2:
			m->u64 = draw(l);
			break;
		default:
			shutdown(l->fd, SHUT_RDWR);
		}
	}
	if (send(l->fd, m, HEADER + m->size, MSG_NOSIGNAL) < 0)
		shutdown(l->fd, SHUT_RDWR);
}

static void take_fd(int *to, const int *fds, unsigned *n)
{
	if (*to >= 0)
		close(*to);
	*to = *n ? fds[0] : -1;
	*n = 0;
}

static void obey(struct liar *l, struct vn_vhost_msg *m, int *fds, unsigned *n)
{
	bool wants_reply = m->flags & 8;
	struct ring *r = &l->rings[m->vring.index & 1];

	switch (m->request) {
	case VN_GET_FEATURES:
		m->u64 = l->c.features | VN_BIT(VN_VHOST_F_PROTOCOL_FEATURES);
		answer(l, m, sizeof m->u64);
		return;
	case VN_GET_PROTOCOL_FEATURES:
		m->u64 = VN_BIT(VN_PROTOCOL_MQ) | VN_BIT(VN_PROTOCOL_REPLY_ACK) | VN_BIT(VN_PROTOCOL_STATUS);
		answer(l, m, sizeof m->u64);
		return;
	case VN_GET_QUEUE_NUM:
		m->u64 = 1;
		answer(l, m, sizeof m->u64);
		return;
	case VN_GET_VRING_BASE:
		r->enabled = false;
		answer(l, m, sizeof m->vring);
		return;
	case VN_SET_FEATURES:
		l->features = m->u64;
		break;
	case VN_SET_MEM_TABLE:
		map_all(l, m, fds, *n);
		break;
	case VN_SET_VRING_NUM:
		r->size = m->vring.value;
		break;
	case VN_SET_VRING_BASE:
		r->avail = r->used = 0;
		r->avail_wrap = r->used_wrap = true;
		l->lies = l->c.lies << below(l, LIES_GROW);
		break;
	case VN_SET_VRING_ADDR:
		r->at[0] = m->addr.desc;
		r->at[1] = m->addr.avail;
		r->at[2] = m->addr.used;
		break;
	case VN_SET_VRING_CALL:
		take_fd(&r->call, fds, n);
		break;
	case VN_SET_VRING_KICK:
		take_fd(&r->kick, fds, n);
		break;
	case VN_SET_VRING_ENABLE:
		r->enabled = m->vring.value;
		break;
	}
	if (wants_reply) {
		m->u64 = 0;
		answer(l, m, sizeof m->u64);
	}
}

static void converse(struct liar *l, int fd)
{
	struct vn_vhost_msg m;
	int fds[VN_REGIONS_MAX];
	unsigned n;

	while (read_message(fd, &m, fds, &n)) {
		pthread_mutex_lock(&l->lock);
		obey(l, &m, fds, &n);
		pthread_mutex_unlock(&l->lock);
		while (n)
			close(fds[--n]);
	}
}

static int meet(const char *path)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(at.sun_path, path, strnlen(path, sizeof at.sun_path - 1));
	if (fd >= 0 && !connect(fd, (struct sockaddr *)&at, sizeof at))
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

static void set_connection(struct liar *l, int fd)
{
	pthread_mutex_lock(&l->lock);
	if (fd < 0) {
		close(l->fd);
		unmap_all(l);
		for (unsigned i = 0; i < RINGS; i++)
			l->rings[i].enabled = false;
	}
	l->fd = fd;
	l->counts.dialogues += fd >= 0;
	pthread_mutex_unlock(&l->lock);
}

static void *run(void *arg)
{
	struct liar *l = arg;

	while (!__atomic_load_n(&l->quit, __ATOMIC_ACQUIRE)) {
		int fd = meet(l->c.path);

		if (fd < 0) {
			usleep(1000);
			continue;
		}
		set_connection(l, fd);
		converse(l, fd);
		set_connection(l, -1);
	}
	return NULL;
}

struct liar *liar_start(const struct liar_config *c)
{
	struct liar *l = calloc(1, sizeof *l);

	if (!l)
		return NULL;
	l->c = *c;
	l->random = c->seed * 0x9e3779b97f4a7c15ull + 1;
	l->fd = -1;
	for (unsigned i = 0; i < RINGS; i++)
		l->rings[i].call = l->rings[i].kick = -1;
	pthread_mutex_init(&l->lock, NULL);
	if (pthread_create(&l->thread, NULL, run, l)) {
		free(l);
		return NULL;
	}
	return l;
}

void liar_reform(struct liar *l)
{
	pthread_mutex_lock(&l->lock);
	l->reformed = true;
	pthread_mutex_unlock(&l->lock);
	liar_hang_up(l);
}

void liar_stop(struct liar *l)
{
	__atomic_store_n(&l->quit, true, __ATOMIC_RELEASE);
	liar_hang_up(l);
	pthread_join(l->thread, NULL);
	for (unsigned i = 0; i < RINGS; i++) {
		if (l->rings[i].call >= 0)
			close(l->rings[i].call);
		if (l->rings[i].kick >= 0)
			close(l->rings[i].kick);
	}
	pthread_mutex_destroy(&l->lock);
	free(l);
}

struct liar_counts liar_counts(struct liar *l)
{
	struct liar_counts c;

	pthread_mutex_lock(&l->lock);
	c = l->counts;
	pthread_mutex_unlock(&l->lock);
	return c;
}
