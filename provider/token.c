/* SPDX-License-Identifier: BSD-3-Clause */
/* The slow half of the token: the inner futex lock, withdrawing and granting the bias. */
#include "provider/token.h"

#include <errno.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define BIAS_AFTER     32u
#define BIAS_AFTER_MAX (1u << 20)
#define SPINS	       100

__thread char pv_token_anchor;
__thread struct pv_token_seat *pv_token_seat;
__thread bool pv_token_guest;

static void futex_wait(_Atomic uint32_t *word, uint32_t seen)
{
	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake_one(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void pv_token_init(struct pv_token *t)
{
	*t = (struct pv_token){.bias_after = BIAS_AFTER};
	pv_token_seat = NULL; /* that of a token before this one: we may be a forked child */
	t->can_bias = !syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
}

static void lock(struct pv_token *t)
{
	uint32_t seen;

	for (unsigned i = 0; i < SPINS; i++) {
		seen = 0;
		if (atomic_compare_exchange_weak_explicit(
			    &t->lock, &seen, 1, memory_order_acquire, memory_order_relaxed))
			return;
		__builtin_ia32_pause();
	}
	/* Two hands of the classic futex mutex (Drepper, "Futexes are tricky"): 2 says somebody sleeps. */
	while (atomic_exchange_explicit(&t->lock, 2, memory_order_acquire))
		futex_wait(&t->lock, 2);
}

static void unlock(struct pv_token *t)
{
	if (atomic_exchange_explicit(&t->lock, 0, memory_order_release) == 2)
		futex_wake_one(&t->lock);
}

/* Lock held, bias somebody else's. */
static void withdraw_bias(struct pv_token *t, struct pv_token_seat *from)
{
	atomic_store_explicit(&t->bias, NULL, memory_order_relaxed);
	syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
	for (unsigned i = 0; atomic_load_explicit(&from->inside, memory_order_acquire); i++) {
		if (i < 1000) {
			__builtin_ia32_pause();
		} else if (i < 2000) {
			sched_yield();
		} else {
			/* The owner is doing something long, such as opening a port. */
			nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
		}
	}
	if (!pv_token_guest && t->bias_after < BIAS_AFTER_MAX)
		t->bias_after *= 2;
}

/* This thread's seat, which may be that of an ended thread with the same address. NULL: all are taken. */
static struct pv_token_seat *take_seat(struct pv_token *t)
{
	for (unsigned i = 0; i < PV_TOKEN_SEATS; i++) {
		struct pv_token_seat *s = &t->seats[i];

		if (s->thread && s->thread != pv_token_self())
			continue;
		s->thread = pv_token_self();
		return s;
	}
	return NULL;
}

bool pv_token_enter_slow(struct pv_token *t)
{
	uintptr_t self = pv_token_self();
	struct pv_token_seat *bias;

	if (pv_token_held(t))
		return false;
	lock(t);
	bias = atomic_load_explicit(&t->bias, memory_order_relaxed);
	if (bias && bias == pv_token_seat) {
		/* A guest has been here since, and has given it back. */
		atomic_store_explicit(&bias->inside, 1, memory_order_relaxed);
		unlock(t);
		return true;
	}
	if (bias)
		withdraw_bias(t, bias);
	t->displaced = bias;
	atomic_store_explicit(&t->owner, self, memory_order_relaxed);
	if (!pv_token_guest) {
		t->streak = t->last == self ? t->streak + 1 : 0;
		t->last = self;
	}
	return true;
}

void pv_token_leave_slow(struct pv_token *t)
{
	if (pv_token_guest) {
		atomic_store_explicit(&t->bias, t->displaced, memory_order_relaxed);
	} else if (t->can_bias && t->streak >= t->bias_after) {
		t->streak = 0;
		pv_token_seat = take_seat(t);
		atomic_store_explicit(&t->bias, pv_token_seat, memory_order_relaxed);
	}
	atomic_store_explicit(&t->owner, 0, memory_order_relaxed);
	unlock(t);
}
