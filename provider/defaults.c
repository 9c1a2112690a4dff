/* SPDX-License-Identifier: BSD-3-Clause */
/* Slots of providers that do nothing in the background, and stay in their process. */
#include <errno.h>

#include "provider/provider.h"

unsigned pv_no_progress(struct pv *p, uint64_t now)
{
	return 0;
}

uint64_t pv_no_deadline(struct pv *p)
{
	return UINT64_MAX;
}

int pv_no_arm(struct pv *p, uint64_t *max_sleep_ns)
{
	*max_sleep_ns = UINT64_MAX;
	return -ENOTSUP;
}

void pv_no_disarm(struct pv *p, bool rang)
{
}

void pv_no_slow(struct pv *p, uint64_t now)
{
}

unsigned pv_no_lingering(struct pv *p)
{
	return 0;
}

uint32_t *pv_no_word(struct pv_ep *e, uint32_t *value)
{
	return NULL;
}

void pv_no_disarm_word(struct pv_ep *e)
{
}

void pv_no_settle(struct pv_ep *e)
{
}

int pv_no_landing(struct pv_ep *e, void *data, size_t len, size_t low)
{
	return -ENOTSUP;
}

size_t pv_no_landed(struct pv_ep *e)
{
	return 0;
}

int pv_no_fd(struct pv_ep *e, const void *note, size_t len)
{
	return -1;
}

void pv_no_move(struct pv_ep *e, int fd)
{
}

int pv_no_adopt(struct pv *p, int fd, void *user, void *note, size_t len, struct pv_ep **out)
{
	return -ENOTSUP;
}

void pv_no_share(struct pv_ep *e)
{
}

int pv_no_child(struct pv *p)
{
	return -ENOTSUP;
}

void pv_upcall(void *user, unsigned events)
{
	struct pv_upcall *u = user;

	u->ready(u, events);
}

void pv_no_confine(struct pv *p, bool on)
{
}
