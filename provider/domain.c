/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The domain: token, list of providers, and progress. Waiting and the helper thread are in wait.c and
 * helper.c. All fields are guarded by the token unless domain_private.h says otherwise.
 */
#include "provider/domain_private.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

int pv_domain_open(const struct pv_domain_config *cfg, struct pv_domain **out)
{
	struct pv_domain *d;

	if (cfg->size != sizeof *cfg)
		return -EINVAL;
	/* Wiped in forked children: the zero `alive` there tells everybody to keep off. */
	d = mmap(NULL, sizeof *d, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (d == MAP_FAILED)
		return -ENOMEM;
	if (madvise(d, sizeof *d, MADV_WIPEONFORK)) {
		munmap(d, sizeof *d);
		return -ENOTSUP;
	}
	d->cfg = *cfg;
	if (!d->cfg.tick_ns)
		d->cfg.tick_ns = 10 * SD_MS;
	if (!d->cfg.ppoll)
		d->cfg.ppoll = ppoll;
	pv_token_init(&d->token);
	list_init(&d->asleep);
	list_init(&d->direct);
	d->now = sd_clock_ns();
	d->alive = true;
	*out = d;
	return 0;
}

int pv_domain_add(struct pv_domain *d, struct pv *p)
{
	if (d->n_providers == PV_MAX_PROVIDERS)
		return -ENOSPC;
	p->domain = d;
	d->providers[d->n_providers++] = p;
	return 0;
}

bool pv_domain_alive(const struct pv_domain *d)
{
	return d->alive;
}

bool pv_enter(struct pv_domain *d)
{
	if (!pv_token_enter(&d->token))
		return false;
	if (__builtin_expect(d->alive, 1))
		return true;
	pv_token_leave(&d->token);
	return false;
}

void pv_leave(struct pv_domain *d)
{
	pv_token_leave(&d->token);
}

void pv_yield(struct pv_domain *d)
{
	bool wanted = pv_token_wanted(&d->token);

	pv_token_leave(&d->token);
	if (wanted)
		sched_yield();
	pv_token_enter(&d->token);
}

bool pv_is_inside(const struct pv_domain *d)
{
	return pv_token_held(&d->token);
}

unsigned pv_progress(struct pv_domain *d)
{
	unsigned work = 0;

	d->now = sd_clock_ns();
	atomic_store_explicit(
		&d->drives, atomic_load_explicit(&d->drives, memory_order_relaxed) + 1, memory_order_relaxed);
	for (unsigned i = 0; i < d->n_providers; i++)
		work += d->providers[i]->ops->progress(d->providers[i], d->now);
	if (__builtin_expect(d->now >= d->slow_at, 0) && !d->helper_started)
		pv_domain_slow(d, false);
	return work;
}

uint64_t pv_now(struct pv_domain *d)
{
	return d->now;
}

uint64_t pv_spin_ns(const struct pv_domain *d)
{
	return d->cfg.spin_ns;
}

void pv_domain_slow(struct pv_domain *d, bool resting)
{
	for (unsigned i = 0; i < d->n_providers; i++)
		d->providers[i]->ops->slow(d->providers[i], d->now);
	if (d->cfg.tick)
		d->cfg.tick(d->cfg.ctx, resting);
	d->slow_at = d->now + PV_SLOW_NS;
}

void pv_domain_guard_fd(struct pv_domain *d, int fd, enum pv_guard how)
{
	if (d->cfg.fd_guard && fd >= 0)
		d->cfg.fd_guard(d->cfg.ctx, fd, how);
}

static unsigned lingering(struct pv_domain *d)
{
	unsigned n = 0;

	for (unsigned i = 0; i < d->n_providers; i++)
		n += d->providers[i]->ops->lingering(d->providers[i]);
	return n;
}

void pv_domain_drain(struct pv_domain *d, uint64_t timeout_ns)
{
	uint64_t end = sd_clock_ns() + timeout_ns;
	struct pv_waiter *w = pv_waiter_self(d);

	if (!pv_enter(d))
		return; /* exit from within the engine (a handler): nothing can be driven any more */
	pv_helper_stop(d);
	/* One round at least: it sends the resets of what was closed last. */
	pv_progress(d);
	while (w && lingering(d) && d->now < end) {
		if (!pv_progress(d))
			pv_sleep(d, w, NULL, 0, end, NULL);
	}
	for (unsigned i = 0; i < d->n_providers; i++)
		d->providers[i]->ops->close(d->providers[i]);
	d->n_providers = 0;
	d->alive = false;
	pv_leave(d);
}
