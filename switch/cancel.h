/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cancel: a thread is never cancelled while it is inside the engine, where it would take the token and
 * others' state with it.
 *
 * Costs nothing until a program calls pthread_cancel for the first time. From then on every entry disables
 * cancellation of its thread, and so does every sleep before that, for a thread that wakes up later. A thread
 * that is meant is woken, lets go, and looks (sw_cancel_check).
 */
#ifndef SD_SWITCH_CANCEL_H
#define SD_SWITCH_CANCEL_H

#include <stdatomic.h>
#include <stdbool.h>

struct sw_cancelstate {
	bool held;	  /* cancellation is disabled, and was not before */
	unsigned checked; /* how many cancels of this process this thread has looked at */
};
extern __thread struct sw_cancelstate sw_cancelstate;
extern _Atomic unsigned
	sw_cancels; /* pthread_cancel calls so far; at least 1 before the first takes effect */

static inline unsigned sw_cancel_count(void)
{
	return atomic_load_explicit(&sw_cancels, memory_order_relaxed);
}

/* Until release; more than once is no different from once. */
void sw_cancel_hold(void);
void sw_cancel_release(void);

/* Has any thread been cancelled that may be this one? */
static inline bool sw_cancel_pending(void)
{
	return sw_cancel_count() != sw_cancelstate.checked;
}
/* Ends the thread if it was. Outside the domain, at a cancellation point. */
void sw_cancel_check(void);

#endif
