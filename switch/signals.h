/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * signals: the application's handlers never run while their thread is inside the engine.
 *
 * The functions that install handlers are interposed: the kernel is given a trampoline with the application's
 *own flags and mask. Outside the engine the trampoline calls the handler at once. Inside it keeps the signal,
 *blocks all others for this thread so that the kernel keeps those (in order, none lost, or gives them to
 *another thread, as it would while a handler runs), makes a pv_sleep return, and the switch runs the handler
 *as soon as it has left. Faults of the thread itself (SIGSEGV with a fault's si_code, ...) cannot wait and
 *run at once.
 *
 * What the switch does:
 *	sw_sigstate.inside++ before pv_enter, sw_sigstate.inside-- after pv_leave, then sw_signals_check(). A
 *call that waits looks at pending after each pv_sleep; when it is set it leaves the engine, drops everything
 *that refers to its stack (a handler may siglongjmp), runs sw_signals_check(), and ends with EINTR if
 *delivered (poll, select, epoll_wait and calls with SO_RCVTIMEO or SO_SNDTIMEO) or delivered_norestart (the
 *others) has moved since it began.
 *
 * Not covered, since no library function is called: handlers installed by a raw rt_sigaction system call, and
 *those that a vfork child installs for the little time before it executes a program.
 */
#ifndef SD_SWITCH_SIGNALS_H
#define SD_SWITCH_SIGNALS_H

#include <stdbool.h>

struct sw_sigstate {
	unsigned inside;	      /* depth: above zero, handlers wait */
	unsigned delivered;	      /* handlers run in this thread */
	unsigned delivered_norestart; /* of these, the ones installed without SA_RESTART */
	unsigned handling;	      /* handlers that interrupted anything at all; more after siglongjmp */
	volatile bool pending;	      /* a handler waits for sw_signals_run_pending */
};
extern __thread struct sw_sigstate sw_sigstate;

/* Runs the handler that waits, as the kernel would have: its mask, its stack, errno kept. Outside the engine
 * only. May not return (siglongjmp). */
void sw_signals_run_pending(void);

static inline void sw_signals_check(void)
{
	if (__builtin_expect(sw_sigstate.pending && !sw_sigstate.inside, 0))
		sw_signals_run_pending();
}

#endif
