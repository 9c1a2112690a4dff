/* SPDX-License-Identifier: BSD-3-Clause */
/* Blocks up to half a chunk are carved from 2 MiB chunks and recycled by size; larger ones are mapped one by
 * one. */
#include "provider/arena.h"

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define CHUNK	  (2u << 20)
#define MIN_CLASS 6u
#define BIG	  (CHUNK / 2)
#define PAGE	  4096u

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

static char *carve(struct arena *a, size_t size)
{
	size_t align = size < PAGE ? size : PAGE;
	char *p = (char *)(((size_t)a->next + align - 1) & ~(align - 1));
	struct chunk *c;

	if (!a->next || p + size > a->end) {
		c = map(CHUNK);
		if (!c)
			return NULL;
		c->size = CHUNK;
		c->next = a->chunks;
		a->chunks = c;
		a->next = (char *)(c + 1);
		a->end = (char *)c + CHUNK;
		p = (char *)(((size_t)a->next + align - 1) & ~(align - 1));
	}
	a->next = p + size;
	return p;
}

void *arena_alloc(struct arena *a, size_t size)
{
	unsigned c = class_of(size);
	size_t block = (size_t)1 << c;
	void *p;

	if (size > BIG) {
		p = map(round_page(size));
		if (p)
			a->in_use += round_page(size);
		return p;
	}
	p = a->free[c];
	if (p) {
		memcpy(&a->free[c], p, sizeof p);
		memset(p, 0, size);
	} else {
		p = carve(a, block);
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
