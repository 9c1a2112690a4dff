/* SPDX-License-Identifier: BSD-3-Clause */
/* The table grows by doubling; old arrays stay, since a reader may be in one. Stores and growth are under a
 * spin lock. */
#include "switch/fdtab.h"

#include <string.h>
#include <sys/mman.h>

#define FIRST_SIZE 1024u

static _Atomic uintptr_t first_slots[FIRST_SIZE];
struct sw_fdtab sw_fdtab = {first_slots, FIRST_SIZE};
static atomic_flag busy = ATOMIC_FLAG_INIT;

static bool grow(unsigned fd)
{
	unsigned size = sw_fdtab.size, want = size;
	_Atomic uintptr_t *slots;

	while (want <= fd)
		want *= 2;
	slots = mmap(NULL, want * sizeof *slots, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (slots == MAP_FAILED)
		return false;
	memcpy((void *)slots, (void *)sw_fdtab.slots, size * sizeof *slots);
	atomic_store_explicit(&sw_fdtab.slots, slots, memory_order_release);
	atomic_store_explicit(&sw_fdtab.size, want, memory_order_release);
	return true;
}

bool sw_fd_store(int fd, uintptr_t slot)
{
	bool ok;

	if (fd < 0 || fd >= (int)SW_FDTAB_MAX)
		return false;
	while (atomic_flag_test_and_set_explicit(&busy, memory_order_acquire))
		__builtin_ia32_pause();
	ok = (unsigned)fd < sw_fdtab.size || grow((unsigned)fd);
	if (ok)
		atomic_store_explicit(&sw_fdtab.slots[fd], slot, memory_order_release);
	atomic_flag_clear_explicit(&busy, memory_order_release);
	return ok;
}

void sw_fd_guard(void *ctx, int fd, enum pv_guard how)
{
	static const uintptr_t slot[] = {
		[PV_GUARD_NONE] = 0, [PV_GUARD_OWN] = SW_SLOT_GUARD, [PV_GUARD_KEPT] = SW_SLOT_KEPT};

	sw_fd_store(fd, slot[how]);
}

int sw_fd_next(int fd)
{
	unsigned size = sw_fdtab.size;

	for (unsigned i = fd < 0 ? 0 : (unsigned)fd; i < size; i++) {
		if (atomic_load_explicit(&sw_fdtab.slots[i], memory_order_relaxed))
			return (int)i;
	}
	return -1;
}

void sw_fd_after_fork(void)
{
	atomic_flag_clear(&busy);
}
