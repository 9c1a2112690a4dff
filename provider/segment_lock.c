/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The lock of an end that several processes share. It is in memory that the other end can write, too.
 */
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "base/clock.h"
#include "provider/segment_private.h"

/* A lock is held for one copy. */
#define LOCK_SPINS	      100u
#define LOCK_YIELDS	      20u
#define LOCK_PAUSE_NS	      50000
#define LOCK_PATIENCE	      (2 * SD_S)
#define LOCK_PATIENCE_HEARSAY SD_MS
#define LOCK_FORGIVEN	      (60 * SD_S)
#define LOCK_HALVINGS	      7u /* to 16 ms: whoever is honest may have been taken off its core */

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

int segment_lock(const struct segment *s)
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

bool segment_unlock(const struct segment *s, uint32_t me)
{
	return atomic_compare_exchange_strong_explicit(
		&ours(s)->lock, &me, 0, memory_order_release, memory_order_relaxed);
}
