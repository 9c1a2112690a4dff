/* SPDX-License-Identifier: BSD-3-Clause */
#include "switch/cancel.h"

#include <pthread.h>

#include "switch/libc.h"
#include "switch/runtime.h"

__thread struct sw_cancelstate sw_cancelstate;
_Atomic unsigned sw_cancels;

void sw_cancel_hold(void)
{
	int before;

	if (sw_cancelstate.held || pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before))
		return;
	sw_cancelstate.held = before == PTHREAD_CANCEL_ENABLE;
}

void sw_cancel_release(void)
{
	sw_cancelstate.held = false;
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
}

void sw_cancel_check(void)
{
	unsigned now = sw_cancel_count();

	pthread_testcancel();
	sw_cancelstate.checked = now;
}

/* Rings every sleeper. */
static void wake_all(void)
{
	if (sw_rt.domain && pv_domain_alive(sw_rt.domain) && sw_enter()) {
		pv_ring_all(sw_rt.domain);
		sw_leave();
	}
}

SW_EXPORT int pthread_cancel(pthread_t thread)
{
	static int (*next)(pthread_t);
	int r;

	if (!next)
		next = sw_libc_symbol("pthread_cancel");
	/* Whoever is inside without holding has left, or sleeps, when this thread has been inside. */
	if (!atomic_fetch_add(&sw_cancels, 1))
		wake_all();
	r = next(thread);
	atomic_fetch_add(&sw_cancels, 1);
	wake_all();
	return r;
}
