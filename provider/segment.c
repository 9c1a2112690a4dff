/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A word of the memory is loaded once into a local, checked there, and never looked at again: the other end
 * can change it at any time. This end's own words are treated no better, as the other end can write them too.
 */
#include "provider/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008u
#endif

#define MAGIC	  0x6d67655374636944ull
#define VERSION	  2u
#define HEADER	  4096u				   /* bytes of the file before the rings */
#define SMALL	  (HEADER + 2 * SEGMENT_CLASS_MIN) /* with those of class 0 */
#define SEALS	  (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define READ_ONLY (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)

#define CLASS_STEP	6u /* from a page to 256 KiB at once: a writer whose reader is late needs that room */
#define OFFSET_BITS	56 /* an offset shares its word with two classes */
#define FLAGS		((unsigned)(SEGMENT_FIN | SEGMENT_NO_READ | SEGMENT_RESET | SEGMENT_CLOSED))
#define FLAGS_TO_WRITER ((unsigned)(SEGMENT_NO_READ | SEGMENT_RESET | SEGMENT_CLOSED))

/* A lock is held for one copy. */
#define LOCK_SPINS	      100u
#define LOCK_YIELDS	      20u
#define LOCK_PAUSE_NS	      50000
#define LOCK_PATIENCE	      (2 * SD_S)
#define LOCK_PATIENCE_HEARSAY SD_MS
#define LOCK_FORGIVEN	      (60 * SD_S)
#define LOCK_HALVINGS	      7u /* to 16 ms: whoever is honest may have been taken off its core */

#define LINE _Alignas(64)

/* What one end writes. A line for each reason to write, so that neither end takes lines from the other that
 * it has no need of. */
struct segment_end {
	/* As the writer of its ring. */
	LINE _Atomic uint64_t tail;
	_Atomic uint64_t geometry; /* at << 8 | the class before at << 4 | the class from at on */
	_Atomic uint32_t flags;
	/* As the reader of the other's. */
	LINE _Atomic uint64_t head;
	LINE _Atomic uint32_t armed; /* the other end clears what it has rung for */
	LINE _Atomic uint32_t lock;  /* the process that is in, 0: none */
	_Atomic uint32_t shared;
	LINE uint8_t note[SEGMENT_NOTE_SIZE];
};

struct segment_header {
	uint64_t magic;
	uint32_t version, max_class;
	struct sd_addr name[2];
	_Atomic uint32_t accepted;
	struct segment_end end[2];
};
_Static_assert(sizeof(struct segment_header) <= HEADER, "the header is one page");
_Static_assert(SEGMENT_CLASSES <= 16, "a class has four bits");

/* A ring at one moment, checked. */
struct view {
	uint64_t head, tail;
	uint64_t at;	   /* where the class changed */
	unsigned old, now; /* classes before and from it */
};

struct cursor {
	const struct iovec *iov;
	size_t done; /* of iov[0] */
};

static uint64_t class_size(unsigned class)
{
	return (uint64_t)SEGMENT_CLASS_MIN << class;
}

/* Bytes of the file that the classes of one ring have, but for the smallest: one after the other. */
static size_t large_size(unsigned max_class)
{
	return 2 * class_size(max_class) - 2 * SEGMENT_CLASS_MIN;
}

size_t segment_memory(unsigned max_class)
{
	return SMALL + 2 * large_size(max_class);
}

/* Where a class of end e's ring begins in the file. */
static inline size_t area(unsigned max_class, unsigned e, unsigned class)
{
	if (!class)
		return HEADER + e * SEGMENT_CLASS_MIN;
	return SMALL + e * large_size(max_class) + class_size(class) - 2 * SEGMENT_CLASS_MIN;
}

static struct segment_end *ours(const struct segment *s)
{
	return &s->header->end[s->end];
}

static struct segment_end *theirs(const struct segment *s)
{
	return &s->header->end[!s->end];
}

static int lie(struct segment *s)
{
	s->failed = true;
	return -EPROTO;
}

/* The lock of a shared end. */

static inline bool is_shared(const struct segment *s)
{
	return s->shared || (atomic_load_explicit(&ours(s)->shared, memory_order_relaxed) && !s->alone);
}

/* Has a process ended? A child of ours that was not waited for has, too; one of somebody else's counts as
 * alive until then. */
static bool is_dead(uint32_t pid)
{
	siginfo_t info = {0};

	if (pid > INT32_MAX)
		return true;
	if (kill((pid_t)pid, 0))
		return errno == ESRCH;
	return !waitid(P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT) && info.si_pid == (pid_t)pid;
}

/* How long to wait for it. Where that was in vain it is a lie most times, and whoever lies does so at each
 * connection that it has with this process: the next waits are shorter, until there was none for long. */
static _Atomic unsigned waited_in_vain;
static _Atomic uint64_t last_in_vain;

static uint64_t patience(const struct segment *s, uint64_t now)
{
	unsigned n = waited_in_vain;

	if (!s->shared)
		return LOCK_PATIENCE_HEARSAY;
	if (n && now - last_in_vain > LOCK_FORGIVEN)
		waited_in_vain = n = 0;
	return LOCK_PATIENCE >> (n < LOCK_HALVINGS ? n : LOCK_HALVINGS);
}

static int in_vain(uint64_t now)
{
	waited_in_vain++;
	last_in_vain = now;
	return -EPROTO;
}

/* Our process number, which unlock() wants; -EPROTO: a live process never leaves, or so it is said. */
static __attribute__((noinline)) int lock(const struct segment *s)
{
	_Atomic uint32_t *word = &ours(s)->lock;
	uint32_t me = s->me, owner;
	uint64_t until = 0, now;

	for (unsigned i = 0;; i++) {
		owner = 0;
		if (atomic_compare_exchange_strong_explicit(
			    word, &owner, me, memory_order_acquire, memory_order_relaxed))
			return (int)me;
		/* A process has one thread at a time here, so our own number is that of a dead namesake. */
		if ((owner == me || (i >= LOCK_SPINS && is_dead(owner))) &&
			atomic_compare_exchange_strong_explicit(
				word, &owner, me, memory_order_acquire, memory_order_relaxed))
			return (int)me;
		if (i < LOCK_SPINS) {
			__builtin_ia32_pause();
			continue;
		}
		now = sd_clock_ns();
		if (!until)
			until = now + patience(s, now);
		else if (now > until)
			return in_vain(now);
		if (i < LOCK_SPINS + LOCK_YIELDS)
			sched_yield();
		else
			nanosleep(&(struct timespec){.tv_nsec = LOCK_PAUSE_NS}, NULL);
	}
}

/* False: it was taken from us, and who knows what has become of the cursors. */
static __attribute__((noinline)) bool unlock(const struct segment *s, uint32_t me)
{
	return atomic_compare_exchange_strong_explicit(
		&ours(s)->lock, &me, 0, memory_order_release, memory_order_relaxed);
}

/* What leave() wants, or -EPROTO. */
static inline int enter(struct segment *s)
{
	int key = 0;

	if (__builtin_expect(s->failed, 0))
		return -EPROTO;
	if (__builtin_expect(is_shared(s), 0) && (key = lock(s)) < 0)
		return lie(s);
	return key;
}

static inline void leave(struct segment *s, int key)
{
	if (__builtin_expect(key > 0, 0) && !unlock(s, (uint32_t)key))
		s->failed = true;
}

/* The mapping. */

static __attribute__((noinline)) bool remap(struct segment *s, size_t size)
{
	void *base = mremap(s->header, s->mapped, size, MREMAP_MAYMOVE);

	if (base == MAP_FAILED)
		return false;
	s->header = base;
	s->mapped = size;
	return true;
}

static inline bool map_all(struct segment *s)
{
	return __builtin_expect(s->mapped == s->size, 1) || remap(s, s->size);
}

/* Views. */

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

static inline uint64_t min(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

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

uint64_t segment_written(const struct segment *s)
{
	return atomic_load_explicit(&ours(s)->tail, memory_order_relaxed);
}

uint64_t segment_consumed(const struct segment *s)
{
	return atomic_load_explicit(&ours(s)->head, memory_order_relaxed);
}

/* Flags, waiting. */

void segment_say(struct segment *s, unsigned flags)
{
	atomic_fetch_or_explicit(&ours(s)->flags, flags & FLAGS, memory_order_release);
}

unsigned segment_said(const struct segment *s)
{
	return atomic_load_explicit(&ours(s)->flags, memory_order_relaxed) & FLAGS;
}

unsigned segment_heard(const struct segment *s)
{
	return atomic_load_explicit(&theirs(s)->flags, memory_order_acquire) & FLAGS;
}

bool segment_accept(struct segment *s)
{
	return !atomic_exchange_explicit(&s->header->accepted, 1, memory_order_acq_rel);
}

bool segment_is_accepted(const struct segment *s)
{
	return atomic_load_explicit(&s->header->accepted, memory_order_acquire);
}

void segment_arm(struct segment *s, unsigned want)
{
	/* Others may be asleep at this end already. */
	if (is_shared(s))
		atomic_fetch_or_explicit(&ours(s)->armed, want, memory_order_relaxed);
	else
		atomic_store_explicit(&ours(s)->armed, want, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
}

void segment_disarm(struct segment *s)
{
	/* Shared: the wants may be another process's. At worst it is rung for nothing. */
	if (!is_shared(s) && atomic_load_explicit(&ours(s)->armed, memory_order_relaxed))
		atomic_store_explicit(&ours(s)->armed, 0, memory_order_relaxed);
}

/* Which of these wants of the other end have come true? All, once this end has failed: it is told so. */
static unsigned come_true(struct segment *s, unsigned want)
{
	unsigned said = segment_said(s), come = 0;
	struct view v;

	if (said)
		come |= SEGMENT_WANT_DATA;
	if (said & FLAGS_TO_WRITER)
		come |= SEGMENT_WANT_ROOM;
	if (want & ~come & SEGMENT_WANT_DATA && (look_out(s, &v) || v.tail != v.head))
		come |= SEGMENT_WANT_DATA;
	if (want & ~come & SEGMENT_WANT_ROOM && (look_in(s, &v) || is_roomy(s, &v)))
		come |= SEGMENT_WANT_ROOM;
	return want & come;
}

_Atomic uint32_t *segment_word(struct segment *s)
{
	return &ours(s)->armed;
}

static void wake(struct segment *s)
{
	syscall(SYS_futex, &theirs(s)->armed, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

bool segment_must_ring(struct segment *s)
{
	unsigned want, come, was;

	atomic_thread_fence(memory_order_seq_cst);
	want = atomic_load_explicit(&theirs(s)->armed, memory_order_relaxed);
	if (__builtin_expect(!want, 1))
		return false;
	come = come_true(s, want);
	if (!come)
		return false;
	was = atomic_fetch_and_explicit(&theirs(s)->armed, ~come, memory_order_relaxed);
	if (!(was & come))
		return false;
	if (was & SEGMENT_BY_FUTEX)
		wake(s);
	return !(was & SEGMENT_BY_FUTEX);
}

void segment_share(struct segment *s)
{
	s->shared = true;
	atomic_store_explicit(&ours(s)->shared, 1, memory_order_release);
	/* The word is several processes' now; who sleeps on it looks up by itself before long. */
	atomic_fetch_and_explicit(&ours(s)->armed, ~(uint32_t)SEGMENT_BY_FUTEX, memory_order_relaxed);
}

bool segment_is_shared(const struct segment *s)
{
	return is_shared(s);
}

void segment_forked(struct segment *s)
{
	s->shared = true;
	s->me = (uint32_t)getpid();
}

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
		remap(s, SMALL);
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

/* Notes. */

void segment_note_put(struct segment *s, const void *note, size_t len)
{
	uint8_t padded[SEGMENT_NOTE_SIZE] = {0};
	int key = enter(s);

	if (key < 0)
		return;
	memcpy(padded, note, min(len, sizeof padded));
	memcpy(ours(s)->note, padded, sizeof padded);
	leave(s, key);
}

void segment_note_get(const struct segment *s, void *note, size_t len)
{
	int key = is_shared(s) ? lock(s) : 0;

	memset(note, 0, len);
	memcpy(note, ours(s)->note, min(len, SEGMENT_NOTE_SIZE));
	if (key > 0)
		unlock(s, (uint32_t)key);
}

/* The memory. */

static int create_memfd(void)
{
	int fd = memfd_create("sandirect", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

	if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
		fd = memfd_create("sandirect", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return fd < 0 ? -errno : fd;
}

int segment_create(const struct sd_addr *a, const struct sd_addr *b, unsigned max_class, int *memfd)
{
	struct segment_header h = {
		.magic = MAGIC, .version = VERSION, .max_class = max_class, .name = {*a, *b}};
	size_t len = offsetof(struct segment_header, accepted);
	int fd, err;
	ssize_t n;

	if (max_class >= SEGMENT_CLASSES)
		return -EINVAL;
	fd = create_memfd();
	if (fd < 0)
		return fd;
	n = ftruncate(fd, (off_t)segment_memory(max_class)) ? -1 : pwrite(fd, &h, len, 0);
	if (n != (ssize_t)len || fcntl(fd, F_ADD_SEALS, SEALS)) {
		err = n < 0 || n == (ssize_t)len ? errno : ENOMEM;
		close(fd);
		return -err;
	}
	*memfd = fd;
	return 0;
}

/* Sealed and of a size that ours have: then no access to the mapping can fail later. */
static int check_file(int memfd, struct segment_header *h)
{
	size_t len = offsetof(struct segment_header, accepted);
	int seals = fcntl(memfd, F_GET_SEALS);
	struct stat st;

	if (seals < 0)
		return errno == EBADF ? -EBADF : -EPROTO;
	if ((seals & SEALS) != SEALS || seals & READ_ONLY)
		return -EPROTO;
	if (fstat(memfd, &st) || pread(memfd, h, len, 0) != (ssize_t)len)
		return -EPROTO;
	if (h->magic != MAGIC || h->version != VERSION || h->max_class >= SEGMENT_CLASSES)
		return -EPROTO;
	return st.st_size == (off_t)segment_memory(h->max_class) ? 0 : -EPROTO;
}

int segment_open(int memfd, unsigned end, struct segment *out)
{
	struct segment_header h;
	uint8_t *base;
	int err;

	memset(out, 0, sizeof *out);
	if (end > 1)
		return -EINVAL;
	err = check_file(memfd, &h);
	if (err)
		return err;
	base = mmap(NULL, SMALL, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	if (base == MAP_FAILED)
		return errno == ENOMEM ? -ENOMEM : -EPROTO;
	*out = (struct segment){.header = (struct segment_header *)base,
		.end = end,
		.me = (uint32_t)getpid(),
		.max_class = h.max_class,
		.size = segment_memory(h.max_class),
		.mapped = SMALL};
	return 0;
}

void segment_close(struct segment *s)
{
	if (s->header)
		munmap(s->header, s->mapped);
	memset(s, 0, sizeof *s);
}

/* An address out of the memory, as others expect one to be. */
static struct sd_addr tidy(const struct sd_addr *name)
{
	struct sd_addr a;

	memcpy(&a, name, sizeof a);
	__asm__ volatile("" : "+m"(a)); /* the copy is what is looked at, not the memory again */
	a.pad = 0;
	if (!sd_addr_ip_len(&a))
		return (struct sd_addr){0};
	memset(a.ip + sd_addr_ip_len(&a), 0, sizeof a.ip - sd_addr_ip_len(&a));
	return a;
}

void segment_names(const struct segment *s, struct sd_addr *local, struct sd_addr *peer)
{
	*local = tidy(&s->header->name[s->end]);
	*peer = tidy(&s->header->name[!s->end]);
}
