/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How threads sleep. At most one sleeper, the sentry, has the ports armed and waits on their descriptors; the
 * others wait on bells of their own, which whoever drives the engine rings when something they wait for is
 * ready. A sentry that leaves while others sleep passes the watch to the helper thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "provider/domain_private.h"

#define FIXED_FDS 64

static pthread_key_t waiter_key;
static pthread_once_t waiter_once = PTHREAD_ONCE_INIT;
static __thread struct pv_waiter *self_waiter;

/* set: what was waited for, as arm() has filled it; NULL: not known. */
static void disarm(struct pv_domain *d, const struct pollfd *set)
{
	for (unsigned i = 0; i < d->n_providers; i++) {
		bool rang = !set || (d->armed_at[i] >= 0 && set[d->armed_at[i]].revents);

		d->providers[i]->ops->disarm(d->providers[i], rang);
	}
	d->sentry = NULL;
}

/* A thread that was cancelled in its sleep is still on the list. */
static void thread_ends(void *arg)
{
	struct pv_waiter *w = arg;
	struct pv_domain *d = w->domain;

	self_waiter = NULL;
	if (d->alive && pv_enter(d)) {
		list_remove(&w->node);
		if (d->sentry == w) {
			disarm(d, NULL);
			pv_helper_wake(d);
		}
		pv_leave(d);
	}
	pv_waiter_free(w);
}

static void make_key(void)
{
	pthread_key_create(&waiter_key, thread_ends);
}

static int bell_open(void)
{
	return sd_fd_raise(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

struct pv_waiter *pv_waiter_new(struct pv_domain *d)
{
	struct pv_waiter *w = calloc(1, sizeof *w);

	if (!w)
		return NULL;
	w->domain = d;
	list_init(&w->node);
	w->bell = bell_open();
	if (w->bell < 0) {
		free(w);
		return NULL;
	}
	pv_domain_guard_fd(d, w->bell, PV_GUARD_OWN);
	return w;
}

void pv_waiter_free(struct pv_waiter *w)
{
	if (w->domain->alive) {
		pv_domain_guard_fd(w->domain, w->bell, PV_GUARD_NONE);
		close(w->bell);
	}
	free(w);
}

struct pv_waiter *pv_waiter_self(struct pv_domain *d)
{
	struct pv_waiter *w = self_waiter;

	if (w && w->domain == d)
		return w;
	pthread_once(&waiter_once, make_key);
	if (w)
		pv_waiter_free(w); /* of a domain before this one */
	self_waiter = pv_waiter_new(d);
	pthread_setspecific(waiter_key, self_waiter);
	return self_waiter;
}

void pv_waiter_ring(struct pv_waiter *w)
{
	uint64_t one = 1;

	if (w->rung)
		return;
	w->rung = true;
	if (w->direct)
		pv_word_ring(&w->word);
	else if (!list_empty(&w->node) && write(w->bell, &one, sizeof one) < 0 && errno != EAGAIN)
		sd_error("cannot wake a waiting thread: eventfd write failed, errno %d", errno);
}

void pv_ring_all(struct pv_domain *d)
{
	list_for_each (it, &d->asleep)
		pv_waiter_ring(container_of(it, struct pv_waiter, node));
	list_for_each (it, &d->direct)
		pv_waiter_ring(container_of(it, struct pv_waiter, node));
}

void pv_sleep_interrupt(void)
{
	uint64_t one = 1;

	/* Not write(2), which is a cancellation point: this thread may be anywhere. In a forked child the
	 * bell's number may be a file of the program's by now. */
	if (self_waiter && self_waiter->domain->alive) {
		atomic_store(&self_waiter->word, 1);
		syscall(SYS_write, self_waiter->bell, &one, sizeof one);
	}
}

/* Arms every provider; fills fds with what to wait for and lowers *until to when to look again. Returns the
 * count. */
static unsigned arm(struct pv_domain *d, struct pollfd *fds, uint64_t *until)
{
	unsigned n = 0;

	for (unsigned i = 0; i < d->n_providers; i++) {
		struct pv *p = d->providers[i];
		uint64_t every = UINT64_MAX, due;
		int fd = p->ops->arm(p, &every);

		d->armed_at[i] = fd >= 0 ? (int)n : -1;
		if (fd >= 0)
			fds[n++] = (struct pollfd){.fd = fd, .events = POLLIN};
		if (every != UINT64_MAX && d->now + every < *until)
			*until = d->now + every;
		due = p->ops->deadline(p);
		if (due < *until)
			*until = due;
	}
	return n;
}

static int wait_fds(
	const struct pv_domain *d, struct pollfd *set, unsigned n, uint64_t until, const sigset_t *mask)
{
	uint64_t now = sd_clock_ns(), left = until > now ? until - now : 0;
	struct timespec ts = {.tv_sec = left / SD_S, .tv_nsec = left % SD_S};
	int r = d->cfg.ppoll(set, n, until == UINT64_MAX ? NULL : &ts, mask);

	return r < 0 ? -errno : r;
}

static void lie_down(struct pv_domain *d, struct pv_waiter *w)
{
	list_push_back(&d->asleep, &w->node);
	pv_leave(d);
}

/* rung_outside: the bell was seen to ring. */
static void get_up(struct pv_domain *d, struct pv_waiter *w, bool rung_outside)
{
	uint64_t drained;

	pv_token_enter(&d->token); /* also when the domain has ended meanwhile */
	list_remove(&w->node);
	if ((w->rung || rung_outside) && read(w->bell, &drained, sizeof drained) < 0 && errno != EAGAIN)
		sd_error("a thread's eventfd cannot be read, errno %d; who has closed it?", errno);
}

static uint64_t drives(const struct pv_domain *d)
{
	return atomic_load_explicit(&d->drives, memory_order_relaxed);
}

/* Leaves the token, waits for bell, ports and fds, and takes the token again. */
static int sleep_outside(struct pv_domain *d, struct pv_waiter *w, struct pollfd *set, unsigned own, nfds_t n,
	uint64_t until, const sigset_t *mask)
{
	uint64_t seen = drives(d);
	int r, cancelling;

	lie_down(d, w);
	pthread_setcancelstate(w->cancelling, &cancelling);
	r = wait_fds(d, set, own + n, until, mask);
	pthread_setcancelstate(cancelling, NULL);
	get_up(d, w, set[0].revents & POLLIN);
	w->driven = drives(d) != seen;
	return r;
}

void pv_doze(struct pv_domain *d, struct pv_waiter *w, uint64_t until)
{
	struct pollfd bell = {.fd = w->bell, .events = POLLIN};

	w->rung = false;
	sleep_outside(d, w, &bell, 1, 0, until, NULL);
}

void pv_doze_while_driven(struct pv_domain *d, struct pv_waiter *w, uint64_t every, uint64_t until)
{
	struct pollfd bell = {.fd = w->bell, .events = POLLIN};
	uint64_t seen, now;

	w->rung = false;
	lie_down(d, w);
	do {
		seen = drives(d);
		now = sd_clock_ns();
		wait_fds(d, &bell, 1, now + every < until ? now + every : until, NULL);
		w->driven = drives(d) != seen;
	} while (w->driven && !(bell.revents & POLLIN) && sd_clock_ns() < until);
	get_up(d, w, bell.revents & POLLIN);
}

/* Makes w the sentry if there is none. An application thread also relieves the helper: one wake-up less. */
static bool become_sentry(struct pv_domain *d, struct pv_waiter *w)
{
	if (d->sentry && d->sentry != d->helper_waiter)
		return false;
	if (d->sentry)
		pv_waiter_ring(d->sentry);
	d->sentry = w;
	return true;
}

bool pv_others_asleep(const struct pv_domain *d)
{
	const struct list *first = d->asleep.next,
			  *helper = d->helper_waiter ? &d->helper_waiter->node : NULL;

	if (first == helper)
		first = first->next;
	return first != &d->asleep;
}

/* Without a helper. After the last event it is done once more; then sleep may be as long as it likes. */
static void keep_house(struct pv_domain *d, uint64_t *until)
{
	if (d->helper_started)
		return;
	if (d->now >= d->slow_at) {
		d->resting = !d->woken;
		pv_domain_slow(d, d->resting);
	}
	if (!d->resting && d->slow_at < *until)
		*until = d->slow_at;
}

static int sleep_on(struct pv_domain *d, struct pv_waiter *w, struct pollfd *fds, nfds_t n, uint64_t deadline,
	const sigset_t *mask)
{
	struct pollfd fixed[1 + PV_MAX_PROVIDERS + FIXED_FDS], *set = fixed;
	unsigned own = 1;
	uint64_t until = deadline;
	int r, ready = 0;

	w->rung = w->driven = false;
	if (n > FIXED_FDS) {
		set = malloc((1 + PV_MAX_PROVIDERS + n) * sizeof *set);
		if (!set)
			return -ENOMEM;
	}
	set[0] = (struct pollfd){.fd = w->bell, .events = POLLIN};
	if (become_sentry(d, w)) {
		keep_house(d, &until);
		own += arm(d, set + 1, &until);
		/* What came between the last poll and arming rings no interrupt. */
		if (pv_progress(d) || w->rung)
			until = 0;
	} else if (pv_domain_need_helper(d) && d->now + d->cfg.tick_ns < until) {
		until = d->now + d->cfg.tick_ns; /* nobody will take over from the sentry */
	}
	for (nfds_t i = 0; i < n; i++)
		set[own + i] = fds[i];
	r = until ? sleep_outside(d, w, set, own, n, until, mask) : 0;
	if (d->sentry == w) {
		d->woken = r || !until;
		d->resting &= !d->woken;
		disarm(d, set + 1);
		if (d->helper_resting || pv_others_asleep(d))
			pv_helper_wake(d);
		pv_progress(d);
	}
	for (nfds_t i = 0; i < n; i++) {
		fds[i].revents = r > 0 ? set[own + i].revents : 0;
		ready += fds[i].revents != 0;
	}
	if (set != fixed)
		free(set);
	return r < 0 ? r : ready;
}

int pv_sleep(struct pv_domain *d, struct pv_waiter *w, struct pollfd *fds, nfds_t n, uint64_t deadline,
	const sigset_t *mask)
{
	int r, old;

	/* A thread that is cancelled while it holds the token, in some write(2) of a port, takes it to the
	 * grave. */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old);
	w->cancelling = old;
	r = sleep_on(d, w, fds, n, deadline, mask);
	pthread_setcancelstate(old, NULL);
	return r;
}
