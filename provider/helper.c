/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The helper thread: acknowledgements, timers and link state while no application thread is inside the
 * library.
 *
 * It is busy-averse. While application threads drive the providers it only looks, at every tick and without
 * the token, whether they still do; once a tick passes without, it becomes the sentry and sleeps on the
 * ports' interrupts. While an application thread is the sentry it rests, and is woken when that thread goes.
 */
#include <errno.h>

#include "base/clock.h"
#include "provider/domain_private.h"

#define REST_NS (5 * PV_SLOW_NS)

static void *helper_main(void *arg)
{
	struct pv_domain *d = arg;
	struct pv_waiter *w = d->helper_waiter;
	bool busy = true;

	if (d->cfg.thread_start)
		d->cfg.thread_start(d->cfg.ctx);
	pv_token_guest = true;
	pv_enter(d);
	while (!atomic_load_explicit(&d->helper_quit, memory_order_relaxed)) {
		d->now = sd_clock_ns();
		if (d->now >= d->slow_at)
			pv_domain_slow(d, false);
		d->helper_resting = !busy && d->sentry;
		if (!d->sentry && (!busy || pv_others_asleep(d))) {
			pv_progress(d);
			pv_sleep(d, w, NULL, 0, d->now + PV_SLOW_NS, NULL);
		} else if (d->helper_resting) {
			pv_doze(d, w, d->now + REST_NS);
		} else {
			pv_doze_while_driven(d, w, d->cfg.tick_ns, d->slow_at);
		}
		busy = w->driven;
	}
	pv_leave(d);
	return NULL;
}

int pv_domain_need_helper(struct pv_domain *d)
{
	sigset_t all, old;
	int r;

	if (d->helper_started)
		return 0;
	d->helper_waiter = pv_waiter_new(d);
	if (!d->helper_waiter)
		return -ENOMEM;
	/* The application's signals are for its own threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&d->helper, NULL, helper_main, d);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r) {
		pv_waiter_free(d->helper_waiter);
		d->helper_waiter = NULL;
		return -r;
	}
	pthread_setname_np(d->helper, "sandirect");
	d->helper_started = true;
	return 0;
}

void pv_helper_wake(struct pv_domain *d)
{
	if (d->helper_waiter)
		pv_waiter_ring(d->helper_waiter);
}

void pv_helper_stop(struct pv_domain *d)
{
	if (!d->helper_started || pthread_equal(d->helper, pthread_self()))
		return;
	atomic_store_explicit(&d->helper_quit, true, memory_order_relaxed);
	pv_helper_wake(d);
	pv_leave(d);
	pthread_join(d->helper, NULL);
	pv_enter(d);
	pv_waiter_free(d->helper_waiter);
	d->helper_waiter = NULL;
	d->helper_started = false;
	atomic_store_explicit(&d->helper_quit, false, memory_order_relaxed);
}
