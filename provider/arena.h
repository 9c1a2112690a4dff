/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * arena: power-of-two blocks in memory that forked children do not get.
 *
 * Rings and connections live here: a fork then neither copies their page tables nor makes the parent's next
 * write to them fault, and a child cannot corrupt them. One thread at a time (the domain's token).
 */
#ifndef SD_PROVIDER_ARENA_H
#define SD_PROVIDER_ARENA_H

#include <stddef.h>

#define ARENA_CLASSES 32

struct arena_rest {
	char *next, *end;
};

struct arena {
	void *free[ARENA_CLASSES]; /* singly linked, by log2 of the size */
	void *chunks;		   /* all chunks, for arena_close */
	struct arena_rest chunk;   /* what is left of the newest one */
	struct arena_rest run;	   /* the same, of those for small blocks, */
	unsigned n_runs;	   /* so many of which there are within chunks */
	size_t in_use;		   /* bytes handed out */
};

/* Zeroed memory of at least size bytes, aligned to the smaller of size and a page; NULL: none. */
void *arena_alloc(struct arena *a, size_t size);
void arena_free(struct arena *a, void *p, size_t size);
/* The pages inside it go back to the system; what is there from then on is anything until it is written. */
void arena_idle(void *p, size_t size);
/* Unmaps all but blocks of more than a MiB, which have to be freed one by one. */
void arena_close(struct arena *a);

#endif
