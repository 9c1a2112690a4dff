/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * token: mutual exclusion for a thread that is nearly always alone.
 *
 * The token is biased to the thread that keeps taking it: for that thread taking it is two plain stores and
 * two loads, without an atomic read-modify-write. Anyone else first takes the inner lock, withdraws the bias,
 * makes the withdrawal visible on the owner's CPU with membarrier(2), and waits until the owner is outside
 * (asymmetric Dekker, as in Dice, Huang and Yang, "Asymmetric Dekker synchronization", 2001). A thread that
 * takes the token often enough without company becomes the new owner. Without membarrier the token is a plain
 * futex lock.
 */
#ifndef SD_PROVIDER_TOKEN_H
#define SD_PROVIDER_TOKEN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define PV_TOKEN_SEATS 64

/* A thread that has once been granted the bias keeps its seat: a former owner that was held up on its way in
 * then writes to its own flag, and never to that of the owner of today. */
struct pv_token_seat {
	uintptr_t thread;	 /* 0: free */
	_Atomic uint32_t inside; /* the thread is inside, by the bias */
};

struct pv_token {
	_Atomic(struct pv_token_seat *) bias; /* whose thread may enter with plain stores; NULL: nobody's */
	_Atomic uint32_t lock;		      /* futex: 0 free, 1 held, 2 held and waited for */
	_Atomic uintptr_t owner;	      /* who holds the lock */
	uintptr_t last;			      /* who held the lock before; under the lock */
	uint32_t streak;		      /* times in a row by the same thread */
	uint32_t bias_after;		      /* streak that earns the bias; doubles with every withdrawal */
	bool can_bias;
	struct pv_token_seat *displaced;	    /* whose bias the holder of the lock has withdrawn */
	struct pv_token_seat seats[PV_TOKEN_SEATS]; /* under the lock, but for inside */
};

extern __thread char pv_token_anchor; /* its address names the thread */
extern __thread bool pv_token_guest;  /* this thread looks in rarely: it gives the bias back when it leaves */
extern __thread struct pv_token_seat *pv_token_seat; /* this thread's; NULL: none. A process has one token */

static inline uintptr_t pv_token_self(void)
{
	return (uintptr_t)&pv_token_anchor;
}

void pv_token_init(struct pv_token *t);
bool pv_token_enter_slow(struct pv_token *t);
void pv_token_leave_slow(struct pv_token *t);

/* False: this thread is inside already. */
static inline bool pv_token_enter(struct pv_token *t)
{
	struct pv_token_seat *seat = pv_token_seat;

	if (seat && atomic_load_explicit(&t->bias, memory_order_relaxed) == seat) {
		if (atomic_load_explicit(&seat->inside, memory_order_relaxed))
			return false;
		atomic_store_explicit(&seat->inside, 1, memory_order_relaxed);
		atomic_signal_fence(memory_order_seq_cst);
		if (__builtin_expect(atomic_load_explicit(&t->bias, memory_order_relaxed) == seat, 1))
			return true;
		atomic_store_explicit(&seat->inside, 0, memory_order_release);
	}
	return pv_token_enter_slow(t);
}

static inline void pv_token_leave(struct pv_token *t)
{
	if (atomic_load_explicit(&t->owner, memory_order_relaxed) == pv_token_self())
		pv_token_leave_slow(t);
	else
		atomic_store_explicit(&pv_token_seat->inside, 0, memory_order_release);
}

/* Does another thread wait? Asked by the holder. */
static inline bool pv_token_wanted(const struct pv_token *t)
{
	uint32_t mine = atomic_load_explicit(&t->owner, memory_order_relaxed) == pv_token_self();

	return atomic_load_explicit(&t->lock, memory_order_relaxed) > mine;
}

static inline bool pv_token_held(const struct pv_token *t)
{
	return atomic_load_explicit(&t->owner, memory_order_relaxed) == pv_token_self() ||
	       (pv_token_seat && atomic_load_explicit(&pv_token_seat->inside, memory_order_relaxed));
}

#endif
