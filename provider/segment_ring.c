/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The rings of a segment: bytes in and out, and the sizes that a ring has.
 */
#include <string.h>
#include <sys/mman.h>

#include "provider/segment_private.h"

#define CLASS_STEP  6u /* from a page to 256 KiB at once: a writer whose reader is late needs that room */
#define OFFSET_BITS 56 /* an offset shares its word with two classes */

/* A ring at one moment, checked. */
struct view {
	uint64_t head, tail;
	uint64_t at;	   /* where the class changed */
	unsigned old, now; /* classes before and from it */
};

static inline bool map_all(struct segment *s)
{
	return __builtin_expect(s->mapped == s->size, 1) || segment_remap(s, s->size);
}

/* The end of what lies in the old class. */
static inline uint64_t split(const struct view *v)
{
	return v->at < v->head ? v->head : v->at > v->tail ? v->tail : v->at;
}

static inline uint64_t room(const struct view *v)
{
	return class_size(v->now) - (v->tail - split(v));
}

/* The writer may change the class only when the reader is past the last change. */
static inline bool can_grow(const struct segment *s, const struct view *v)
{
	return v->now < s->max_class && v->head >= v->at;
}

static inline unsigned next_class(const struct segment *s, unsigned class)
{
	return class + CLASS_STEP < s->max_class ? class + CLASS_STEP : s->max_class;
}

static inline uint64_t room_grown(const struct segment *s, const struct view *v)
{
	return room(v) + (can_grow(s, v) ? class_size(next_class(s, v->now)) : 0);
}

static inline bool is_roomy(const struct segment *s, const struct view *v)
{
	return 3 * room_grown(s, v) >= class_size(v->now);
}

/* False also when there is no room in the address space for what the other end uses. */
static inline bool decode(struct segment *s, uint64_t geometry, struct view *v)
{
	v->at = geometry >> 8;
	v->old = geometry >> 4 & 15;
	v->now = geometry & 15;
	if (v->old > s->max_class || v->now > s->max_class)
		return false;
	return !(v->old | v->now) || map_all(s);
}

static inline bool is_possible(const struct view *v)
{
	return v->head <= v->tail && !(v->tail >> OFFSET_BITS) && split(v) - v->head <= class_size(v->old) &&
	       v->tail - split(v) <= class_size(v->now);
}

/*
 * Our ring. The other end's head is a line to fetch from its CPU: the one that was seen last serves as long
 * as there is room for want bytes by it. It is only ever too low, also where several processes have this end.
 */
static inline bool view_out(struct segment *s, uint64_t want, struct view *v)
{
	struct segment_end *w = ours(s);

	v->tail = atomic_load_explicit(&w->tail, memory_order_relaxed);
	v->head = s->seen_head;
	if (!decode(s, atomic_load_explicit(&w->geometry, memory_order_relaxed), v) || v->at > v->tail)
		return false;
	if (is_possible(v) && room(v) >= want)
		return true;
	v->head = s->seen_head = atomic_load_explicit(&theirs(s)->head, memory_order_acquire);
	return is_possible(v);
}

/*
 * The other end's ring. The tail first: what geometry belongs to it is then there, or a newer one whose `at`
 * is a later tail, and all that we see is in its old class.
 */
static inline bool view_in(struct segment *s, struct view *v)
{
	struct segment_end *w = theirs(s);

	v->head = atomic_load_explicit(&ours(s)->head, memory_order_relaxed);
	v->tail = atomic_load_explicit(&w->tail, memory_order_acquire);
	return decode(s, atomic_load_explicit(&w->geometry, memory_order_relaxed), v) && is_possible(v);
}

/* Anything wanted but a value that happens to be at hand. */
#define FRESH UINT64_MAX

struct cursor {
	const struct iovec *iov;
	size_t done; /* of iov[0] */
};

/* Where an offset is in a class, and how many bytes follow before the wrap. The mask keeps every offset,
 * right or wrong, inside. */
static inline uint8_t *place(
	const struct segment *s, unsigned e, unsigned class, uint64_t offset, uint64_t *contiguous)
{
	uint64_t size = class_size(class), in = offset & (size - 1);

	*contiguous = size - in;
	return (uint8_t *)s->header + area(s->max_class, e, class) + in;
}

static inline uint64_t total(const struct iovec *iov, int n)
{
	const uint64_t most = 1ull << 40; /* more than any ring */
	uint64_t sum = 0;

	for (int i = 0; i < n; i++)
		sum += min(iov[i].iov_len, most - sum);
	return sum;
}

/* Copies len bytes between the caller's memory and one class; iov has that many. */
static inline void copy(struct cursor *c, const struct segment *s, unsigned e, unsigned class,
	uint64_t offset, uint64_t len, bool into_ring)
{
	uint64_t n, contiguous;
	uint8_t *in_ring, *outside;

	while (len) {
		if (c->done == c->iov->iov_len) {
			c->iov++;
			c->done = 0;
			continue;
		}
		in_ring = place(s, e, class, offset, &contiguous);
		outside = (uint8_t *)c->iov->iov_base + c->done;
		n = min(min(len, contiguous), c->iov->iov_len - c->done);
		if (into_ring)
			memcpy(in_ring, outside, n);
		else
			memcpy(outside, in_ring, n);
		c->done += n;
		offset += n;
		len -= n;
	}
}

/* Writing. */

static void set_class(struct segment *s, struct view *v, unsigned class)
{
	v->old = v->now;
	v->now = class;
	v->at = v->tail;
	atomic_store_explicit(&ours(s)->geometry, v->at << 8 | v->old << 4 | v->now,
		memory_order_relaxed); /* tail releases */
}

static ssize_t write_held(struct segment *s, const struct iovec *iov, int n)
{
	uint64_t want = total(iov, n), done = 0, len;
	struct cursor c = {.iov = iov};
	struct view v;

	if (!view_out(s, want, &v))
		return lie(s);
	for (;;) {
		len = min(want - done, room(&v));
		copy(&c, s, s->end, v.now, v.tail, len, true);
		done += len;
		v.tail += len;
		/* Before the class changes, too: `at` must not be beyond tail, even if we die here. */
		if (len)
			atomic_store_explicit(&ours(s)->tail, v.tail, memory_order_release);
		if (done == want || !can_grow(s, &v) || !map_all(s))
			return (ssize_t)done;
		set_class(s, &v, next_class(s, v.now));
	}
}

ssize_t segment_write(struct segment *s, const struct iovec *iov, int n)
{
	int key = enter(s);
	ssize_t r;

	if (key < 0)
		return key;
	r = write_held(s, iov, n);
	leave(s, key);
	return r;
}

static ssize_t room_span_held(struct segment *s, uint8_t **data)
{
	uint64_t contiguous;
	struct view v;

	if (!view_out(s, 1, &v))
		return lie(s);
	if (!room(&v) && can_grow(s, &v) && map_all(s))
		set_class(s, &v, next_class(s, v.now));
	*data = place(s, s->end, v.now, v.tail, &contiguous);
	return (ssize_t)min(contiguous, room(&v));
}

ssize_t segment_room_span(struct segment *s, uint8_t **data)
{
	int key = enter(s);
	ssize_t r;

	if (key < 0)
		return key;
	r = room_span_held(s, data);
	leave(s, key);
	return r;
}

static int produce_held(struct segment *s, size_t len)
{
	struct view v;

	if (!view_out(s, len, &v))
		return lie(s);
	if (len > room(&v))
		return -EINVAL;
	atomic_store_explicit(&ours(s)->tail, v.tail + len, memory_order_release);
	return 0;
}

int segment_produce(struct segment *s, size_t len)
{
	int key = enter(s), r;

	if (key < 0)
		return key;
	r = produce_held(s, len);
	leave(s, key);
	return r;
}

/* Reading. */

static ssize_t read_held(struct segment *s, const struct iovec *iov, int n, bool peek)
{
	struct cursor c = {.iov = iov};
	uint64_t len, in_old;
	struct view v;

	if (!view_in(s, &v))
		return lie(s);
	len = min(v.tail - v.head, total(iov, n));
	if (!len)
		return 0;
	in_old = min(split(&v) - v.head, len);
	if (in_old)
		copy(&c, s, !s->end, v.old, v.head, in_old, false);
	copy(&c, s, !s->end, v.now, v.head + in_old, len - in_old, false);
	if (!peek)
		atomic_store_explicit(&ours(s)->head, v.head + len, memory_order_release);
	return (ssize_t)len;
}

ssize_t segment_read(struct segment *s, const struct iovec *iov, int n, bool peek)
{
	int key = enter(s);
	ssize_t r;

	if (key < 0)
		return key;
	r = read_held(s, iov, n, peek);
	leave(s, key);
	return r;
}

static ssize_t peek_span_held(struct segment *s, const uint8_t **data)
{
	uint64_t contiguous, in_old;
	struct view v;

	if (!view_in(s, &v))
		return lie(s);
	in_old = split(&v) - v.head;
	*data = place(s, !s->end, in_old ? v.old : v.now, v.head, &contiguous);
	return (ssize_t)min(contiguous, in_old ? in_old : v.tail - v.head);
}

ssize_t segment_peek_span(struct segment *s, const uint8_t **data)
{
	int key = enter(s);
	ssize_t r;

	if (key < 0)
		return key;
	r = peek_span_held(s, data);
	leave(s, key);
	return r;
}

static int consume_held(struct segment *s, size_t len)
{
	struct view v;

	if (!view_in(s, &v))
		return lie(s);
	if (len > v.tail - v.head)
		return -EINVAL;
	atomic_store_explicit(&ours(s)->head, v.head + len, memory_order_release);
	return 0;
}

int segment_consume(struct segment *s, size_t len)
{
	int key = enter(s), r;

	if (key < 0)
		return key;
	r = consume_held(s, len);
	leave(s, key);
	return r;
}

/* Looking. */

static int look_in(struct segment *s, struct view *v)
{
	int key = enter(s);

	if (key < 0)
		return key;
	if (!view_in(s, v))
		lie(s);
	leave(s, key);
	return s->failed ? -EPROTO : 0;
}

static int look_out(struct segment *s, struct view *v)
{
	int key = enter(s);

	if (key < 0)
		return key;
	if (!view_out(s, FRESH, v))
		lie(s);
	leave(s, key);
	return s->failed ? -EPROTO : 0;
}

ssize_t segment_readable(struct segment *s)
{
	struct view v;
	int r = look_in(s, &v);

	return r ? r : (ssize_t)(v.tail - v.head);
}

ssize_t segment_writable(struct segment *s)
{
	struct view v;
	int r = look_out(s, &v);

	return r ? r : (ssize_t)room_grown(s, &v);
}

ssize_t segment_unread(struct segment *s)
{
	struct view v;
	int r = look_out(s, &v);

	return r ? r : (ssize_t)(v.tail - v.head);
}

bool segment_is_roomy(struct segment *s)
{
	struct view v;

	return look_out(s, &v) || is_roomy(s, &v);
}

bool segment_is_peer_roomy(struct segment *s)
{
	struct view v;

	return look_in(s, &v) || is_roomy(s, &v);
}

uint64_t segment_written(const struct segment *s)
{
	return atomic_load_explicit(&ours(s)->tail, memory_order_relaxed);
}

uint64_t segment_consumed(const struct segment *s)
{
	return atomic_load_explicit(&ours(s)->head, memory_order_relaxed);
}

/* Giving back. */

static void give_back(const struct segment *s, unsigned class, size_t size)
{
	madvise((uint8_t *)s->header + area(s->max_class, s->end, class), size, MADV_REMOVE);
}

static bool trim_held(struct segment *s)
{
	struct view v;

	if (!view_out(s, FRESH, &v)) {
		lie(s);
		return false;
	}
	if (v.head != v.tail)
		return false;
	if (v.at == v.tail && !v.now)
		return true; /* since the last trim nothing was written */
	/* Nothing is in the class before either. */
	v.now = 0;
	set_class(s, &v, 0);
	give_back(s, 0, SEGMENT_CLASS_MIN);
	if (s->mapped == s->size && s->max_class)
		give_back(s, 1, large_size(s->max_class));
	/* What the other end writes may be in a large one. */
	if (view_in(s, &v) && !v.old && !v.now)
		segment_remap(s, SEGMENT_SMALL);
	return true;
}

bool segment_trim(struct segment *s)
{
	int key = enter(s);
	bool r;

	if (key < 0)
		return false;
	r = trim_held(s);
	leave(s, key);
	return r;
}
