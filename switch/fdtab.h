/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fdtab: what the switch knows about a file descriptor.
 *
 * A slot is empty for the great majority of descriptors. Otherwise it points to a counted object that all
 * duplicates share, with tags in its low bits that let a hook decide without touching the object. Lookups
 * take no lock; a pointer found is valid only while the domain is entered and the slot still says the same.
 * Slots change with the domain entered (guards: at any time, each by its owner).
 */
#ifndef SD_SWITCH_FDTAB_H
#define SD_SWITCH_FDTAB_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "provider/domain.h"

#define SW_FDTAB_MAX (1u << 20) /* descriptors above stay the kernel's alone */

enum sw_slot_tag {
	SW_SLOT_KERNEL = 1, /* the kernel carries its data: hooks that move bytes let it pass */
	SW_SLOT_EPSET = 2,  /* with KERNEL: an epoll set */
	SW_SLOT_GUARD = 4,  /* alone: one of the library's own; the application sees it as not open */
	SW_SLOT_KEPT = 5,   /* such a one that forked children keep */
	SW_SLOT_TAGS = 7,
};

/* Every object begins with this. */
struct sw_obj {
	bool is_epset;
	unsigned fds;  /* slots that point here */
	unsigned pins; /* threads that wait with it */
};

struct sw_fdtab {
	_Atomic(_Atomic uintptr_t *) slots;
	_Atomic unsigned size;
};
extern struct sw_fdtab sw_fdtab;

static inline uintptr_t sw_fd_slot(int fd)
{
	/* The size is stored after the slots it belongs to. */
	if ((unsigned)fd >= atomic_load_explicit(&sw_fdtab.size, memory_order_acquire))
		return 0;
	return atomic_load_explicit(
		&atomic_load_explicit(&sw_fdtab.slots, memory_order_relaxed)[fd], memory_order_relaxed);
}

/* The object whose data path is the switch's, or NULL. */
static inline struct sw_obj *sw_fd_hot(int fd)
{
	uintptr_t slot = sw_fd_slot(fd);

	return __builtin_expect(slot && !(slot & SW_SLOT_TAGS), 0) ? (struct sw_obj *)slot : NULL;
}

/* The object, whatever its tags; NULL for empty and guarded slots. */
static inline struct sw_obj *sw_fd_obj(int fd)
{
	return (struct sw_obj *)(sw_fd_slot(fd) & ~(uintptr_t)SW_SLOT_TAGS);
}

static inline bool sw_slot_is_guard(uintptr_t slot)
{
	return slot == SW_SLOT_GUARD || slot == SW_SLOT_KEPT;
}

static inline bool sw_fd_is_guarded(int fd)
{
	return sw_slot_is_guard(sw_fd_slot(fd));
}

/* Stores a slot, growing the table. False: out of memory, or beyond SW_FDTAB_MAX. */
bool sw_fd_store(int fd, uintptr_t slot);
/* pv_domain_config.fd_guard. */
void sw_fd_guard(void *ctx, int fd, enum pv_guard how);
/* The first slot at or after fd that is not empty; -1: none. */
int sw_fd_next(int fd);
/* In a forked child: whoever was growing the table is not here. */
void sw_fd_after_fork(void);

#endif
