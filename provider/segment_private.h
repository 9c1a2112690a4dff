/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The memory of a segment as its files share it: what an end writes, and its lock.
 *
 * A word of the memory is loaded once into a local, checked there, and never looked at again: the other end
 * can change it at any time. This end's own words are treated no better, as the other end can write them too.
 */
#ifndef SD_PROVIDER_SEGMENT_PRIVATE_H
#define SD_PROVIDER_SEGMENT_PRIVATE_H

#include <errno.h>

#include "provider/segment.h"

#define SEGMENT_HEADER 4096u					/* bytes of the file before the rings */
#define SEGMENT_SMALL  (SEGMENT_HEADER + 2 * SEGMENT_CLASS_MIN) /* with those of class 0 */

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
_Static_assert(sizeof(struct segment_header) <= SEGMENT_HEADER, "the header is one page");
_Static_assert(SEGMENT_CLASSES <= 16, "a class has four bits");

static inline uint64_t class_size(unsigned class)
{
	return (uint64_t)SEGMENT_CLASS_MIN << class;
}

/* Bytes of the file that the classes of one ring have, but for the smallest: one after the other. */
static inline size_t large_size(unsigned max_class)
{
	return 2 * class_size(max_class) - 2 * SEGMENT_CLASS_MIN;
}

/* Where a class of end e's ring begins in the file. */
static inline size_t area(unsigned max_class, unsigned e, unsigned class)
{
	if (!class)
		return SEGMENT_HEADER + e * SEGMENT_CLASS_MIN;
	return SEGMENT_SMALL + e * large_size(max_class) + class_size(class) - 2 * SEGMENT_CLASS_MIN;
}

static inline struct segment_end *ours(const struct segment *s)
{
	return &s->header->end[s->end];
}

static inline struct segment_end *theirs(const struct segment *s)
{
	return &s->header->end[!s->end];
}

static inline int lie(struct segment *s)
{
	s->failed = true;
	return -EPROTO;
}

/* --- the lock of a shared end (segment_lock.c) --- */

/* Our process number, which segment_unlock() wants; -EPROTO: a live process never leaves, or so it is said.
 */
int segment_lock(const struct segment *s);
/* False: it was taken from us, and who knows what has become of the cursors. */
bool segment_unlock(const struct segment *s, uint32_t me);

static inline bool is_shared(const struct segment *s)
{
	return s->shared || (atomic_load_explicit(&ours(s)->shared, memory_order_relaxed) && !s->alone);
}

/* What leave() wants, or -EPROTO. */
static inline int enter(struct segment *s)
{
	int key = 0;

	if (__builtin_expect(s->failed, 0))
		return -EPROTO;
	if (__builtin_expect(is_shared(s), 0) && (key = segment_lock(s)) < 0)
		return lie(s);
	return key;
}

static inline void leave(struct segment *s, int key)
{
	if (__builtin_expect(key > 0, 0) && !segment_unlock(s, (uint32_t)key))
		s->failed = true;
}

/* --- the mapping (segment.c) --- */

bool segment_remap(struct segment *s, size_t size);

/* --- a ring (segment_ring.c) --- */

/* Has the other end's ring room that is worth waking its writer for? True also after a lie. */
bool segment_is_peer_roomy(struct segment *s);

static inline uint64_t min(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

#endif
