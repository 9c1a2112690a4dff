/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sleeping on the words of endpoints (futex(2)): no port is armed, no descriptor is polled, and no other
 * thread has to look after who sleeps so.
 */
#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "provider/domain_private.h"

#define LONGEST_NS (20 * SD_MS)

/* futex_waitv(2) is in Linux 5.16, and not in each C library's headers. */
#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif
#define WORD_SHARED  0x02u /* FUTEX_32 */
#define WORD_PRIVATE (WORD_SHARED | FUTEX_PRIVATE_FLAG)

struct word {
	uint64_t value, address;
	uint32_t flags, reserved;
};

static bool is_missing;

void pv_word_ring(_Atomic uint32_t *word)
{
	atomic_store(word, 1);
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static int wait_for_words(struct word *words, unsigned n, uint64_t until)
{
	struct timespec at = {.tv_sec = (time_t)(until / SD_S), .tv_nsec = (long)(until % SD_S)};

	if (syscall(SYS_futex_waitv, words, n, 0, &at, CLOCK_MONOTONIC) >= 0 || errno == EAGAIN)
		return 0;
	if (errno == EINTR || errno == ETIMEDOUT)
		return -errno;
	/* EFAULT: another thread has made the memory larger, and it is elsewhere. */
	if (errno != ENOSYS && errno != EPERM)
		return 0;
	is_missing = true;
	return -ENOTSUP;
}

static unsigned arm(struct pv_ep **eps, unsigned n, struct word *words)
{
	for (unsigned i = 0; i < n; i++) {
		uint32_t value;
		const uint32_t *at = eps[i]->ops->arm_word(eps[i], &value);

		if (!at)
			return i;
		words[i] = (struct word){.value = value, .address = (uintptr_t)at, .flags = WORD_SHARED};
	}
	return n;
}

static void disarm(struct pv_ep **eps, unsigned n)
{
	while (n--)
		eps[n]->ops->disarm_word(eps[n]);
}

static int sleep_outside(
	struct pv_domain *d, struct pv_waiter *w, struct word *words, unsigned n, uint64_t until)
{
	int r;

	w->direct = true;
	list_push_back(&d->direct, &w->node);
	pv_leave(d);
	r = wait_for_words(words, n, until);
	pv_token_enter(&d->token); /* also when the domain has ended meanwhile */
	list_remove(&w->node);
	w->direct = false;
	return r;
}

int pv_sleep_on(struct pv_domain *d, struct pv_waiter *w, struct pv_ep **eps, unsigned n, uint64_t deadline)
{
	struct word words[PV_MAX_WORDS + 1];
	uint64_t longest = d->now + LONGEST_NS, until = deadline < longest ? deadline : longest;
	unsigned armed;
	int r = 0;

	if (is_missing || n > PV_MAX_WORDS)
		return -ENOTSUP;
	armed = arm(eps, n, words);
	if (armed < n) {
		disarm(eps, armed);
		return -ENOTSUP;
	}
	words[n] = (struct word){.address = (uintptr_t)&w->word, .flags = WORD_PRIVATE};
	w->rung = false;
	/* What came between the last poll and arming changes no word. */
	if (!pv_progress(d) && !w->rung && !atomic_exchange(&w->word, 0))
		r = sleep_outside(d, w, words, n + 1, until);
	atomic_store(&w->word, 0);
	if (d->alive)
		disarm(eps, n);
	return r == -ETIMEDOUT && until == deadline ? 0 : r;
}
