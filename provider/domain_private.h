/* SPDX-License-Identifier: BSD-3-Clause */
/* What domain.c, wait.c and helper.c share. */
#ifndef SD_PROVIDER_DOMAIN_PRIVATE_H
#define SD_PROVIDER_DOMAIN_PRIVATE_H

#include <pthread.h>

#include "base/list.h"
#include "provider/domain.h"
#include "provider/token.h"

#define PV_MAX_PROVIDERS 4
#define PV_SLOW_NS	 (100 * 1000000ull)

struct pv_waiter {
	struct list node; /* on pv_domain.asleep while asleep */
	struct pv_domain *domain;
	int bell;	       /* eventfd */
	bool rung;	       /* since it last looked; token */
	bool driven;	       /* others drove the providers while it slept */
	bool direct;	       /* asleep in pv_sleep_on */
	_Atomic uint32_t word; /* not 0: pv_sleep_on is to return */
	int cancelling;	       /* its own cancelability, which holds while it is outside */
};

struct pv_domain {
	struct pv_token token;
	bool alive; /* false in a forked child and after the end */
	struct pv_domain_config cfg;
	uint64_t now;		 /* time of the last progress */
	_Atomic uint64_t drives; /* progress calls so far; the helper reads it without the token */
	unsigned n_providers;
	struct pv *providers[PV_MAX_PROVIDERS];
	struct list asleep; /* waiters in ppoll */
	struct list direct; /* waiters in pv_sleep_on */
	struct pv_waiter
		*sentry; /* the waiter that sleeps on the ports' interrupts; NULL: ports are not armed */
	int armed_at[PV_MAX_PROVIDERS]; /* of the sentry: which of its descriptors is whose; -1: none */
	uint64_t slow_at;		/* when housekeeping is due */
	bool woken;   /* something, and not the time, has ended the last sleep of a sentry */
	bool resting; /* housekeeping was done since */
	/* helper.c */
	bool helper_started, helper_resting;
	_Atomic bool helper_quit;
	pthread_t helper;
	struct pv_waiter *helper_waiter;
};

/* Housekeeping of all providers and the tick; token held. */
void pv_domain_slow(struct pv_domain *d, bool resting);
void pv_domain_guard_fd(struct pv_domain *d, int fd, enum pv_guard how);

/* wordwait.c */
void pv_word_ring(_Atomic uint32_t *word);

/* Makes a waiter with a bell; NULL: out of memory or descriptors. */
struct pv_waiter *pv_waiter_new(struct pv_domain *d);
void pv_waiter_free(struct pv_waiter *w);
/* Sleeps until rung or until, without looking at the ports. Token as in pv_sleep. */
void pv_doze(struct pv_domain *d, struct pv_waiter *w, uint64_t until);
/* The same, and before: when every has passed and nobody has driven the providers in that time. */
void pv_doze_while_driven(struct pv_domain *d, struct pv_waiter *w, uint64_t every, uint64_t until);

/* Does any thread but the helper sleep? */
bool pv_others_asleep(const struct pv_domain *d);

/* The sentry has left while others sleep, or activity has begun after rest: the helper looks after the ports.
 * Token. */
void pv_helper_wake(struct pv_domain *d);
/* Ends the helper thread and waits for it; token held (and given back meanwhile). */
void pv_helper_stop(struct pv_domain *d);

#endif
