/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Blocks up to half a chunk are carved from 2 MiB chunks and recycled by size; larger ones are mapped one by
 * one.
 *
 * Large pages, where the system has them: for large blocks, and for what is small when there is much of it.
 * With thousands of connections each packet finds its memory in pages that the TLB has forgotten. Rings of
 * few KB stay in small pages, which can be given back one by one.
 */
#include "provider/arena.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define CHUNK	  (2u << 20)
#define MIN_CLASS 6u
#define BIG	  (CHUNK / 2)
#define RUN	  (64u << 10)
#define PAGE	  4096u
#define MANY_RUNS 16u /* runs; then small blocks get chunks of their own */

struct chunk {
	struct chunk *next;
	size_t size;
};

static void *map(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	madvise(p, size, MADV_DONTFORK);
	return p;
}

/* The same in large pages; it begins where one does. */
static void *map_large(size_t size)
{
	char *p = map(size + CHUNK), *at;

	if (!p)
		return NULL;
	at = (char *)(((uintptr_t)p + CHUNK - 1) & ~(uintptr_t)(CHUNK - 1));
	if (at > p)
		munmap(p, (size_t)(at - p));
	munmap(at + size, (size_t)(p + CHUNK - at));
	madvise(at, size, MADV_HUGEPAGE);
	return at;
}

static unsigned class_of(size_t size)
{
	unsigned c = MIN_CLASS;

	while (((size_t)1 << c) < size)
		c++;
	return c;
}

static size_t round_page(size_t n)
{
	return (n + PAGE - 1) & ~(size_t)(PAGE - 1);
}

/* NULL: no room is left there. */
static char *cut(struct arena_rest *r, size_t size)
{
	size_t align = size < PAGE ? size : PAGE;
	char *p = (char *)(((size_t)r->next + align - 1) & ~(align - 1));

	if (!r->next || p + size > r->end)
		return NULL;
	r->next = p + size;
	return p;
}

static bool add_chunk(struct arena *a, struct chunk *c, struct arena_rest *r)
{
	if (!c)
		return false;
	c->size = CHUNK;
	c->next = a->chunks;
	a->chunks = c;
	*r = (struct arena_rest){(char *)(c + 1), (char *)c + CHUNK};
	return true;
}

static char *carve(struct arena *a, size_t size)
{
	char *p = cut(&a->chunk, size);

	if (p)
		return p;
	return add_chunk(a, map(CHUNK), &a->chunk) ? cut(&a->chunk, size) : NULL;
}

static bool add_run(struct arena *a)
{
	char *p;

	if (a->n_runs >= MANY_RUNS)
		return add_chunk(a, map_large(CHUNK), &a->run);
	p = carve(a, RUN);
	if (!p)
		return false;
	a->n_runs++;
	a->run = (struct arena_rest){p, p + RUN};
	return true;
}

/* Blocks smaller than a page lie together: between two large ones each would have a page for itself. */
static char *carve_small(struct arena *a, size_t size)
{
	char *p = cut(&a->run, size);

	if (p)
		return p;
	return add_run(a) ? cut(&a->run, size) : NULL;
}

void *arena_alloc(struct arena *a, size_t size)
{
	unsigned c = class_of(size);
	size_t block = (size_t)1 << c;
	void *p;

	if (size > BIG) {
		p = map_large(round_page(size));
		if (p)
			a->in_use += round_page(size);
		return p;
	}
	p = a->free[c];
	if (p) {
		memcpy(&a->free[c], p, sizeof p);
		memset(p, 0, size);
	} else {
		p = block < PAGE ? carve_small(a, block) : carve(a, block);
	}
	if (p)
		a->in_use += block;
	return p;
}

void arena_free(struct arena *a, void *p, size_t size)
{
	unsigned c = class_of(size);

	if (!p)
		return;
	if (size > BIG) {
		munmap(p, round_page(size));
		a->in_use -= round_page(size);
		return;
	}
	memcpy(p, &a->free[c], sizeof a->free[c]);
	a->free[c] = p;
	a->in_use -= (size_t)1 << c;
}

void arena_idle(void *p, size_t size)
{
	uintptr_t from = round_page((uintptr_t)p), to = ((uintptr_t)p + size) & ~(uintptr_t)(PAGE - 1);

	if (from < to)
		madvise((void *)from, to - from, MADV_DONTNEED);
}

void arena_close(struct arena *a)
{
	for (struct chunk *c = a->chunks, *next; c; c = next) {
		next = c->next;
		munmap(c, c->size);
	}
	memset(a, 0, sizeof *a);
}
