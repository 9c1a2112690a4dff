/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * hold: packets that are sent from a region's memory without a copy. Each has a ticket until whoever sends it
 * says that nothing refers to that memory any more, in whatever order. A request knows the last ticket of its
 * packets, those sent again included, and completes when all up to that are released: a port releases in the
 * order in which it sends, so this waits for nothing else in practice.
 */
#include <errno.h>

#include "transport/qp.h"

int tp_mr_set_direct(struct tp_mr *mr)
{
	struct tp *t = mr->home->tp;

	if (!t->holds.ring)
		t->holds.ring = t->ops.alloc(t->ctx, TP_HOLDS * sizeof *t->holds.ring);
	if (!t->holds.ring)
		return -ENOMEM;
	mr->direct = true;
	return 0;
}

static bool is_direct(const struct tp_parts *p)
{
	for (unsigned i = 0; i < p->n; i++) {
		if (!p->mr[i] || !p->mr[i]->direct)
			return false;
	}
	return p->n && p->n <= TP_HOLD_PIECES;
}

uint64_t tp_hold(struct tp *t, const struct tp_parts *parts)
{
	struct tp_holds *h = &t->holds;
	struct tp_hold *hold;

	if (!is_direct(parts) || h->next - h->done == TP_HOLDS)
		return 0;
	hold = &h->ring[h->next % TP_HOLDS];
	*hold = (struct tp_hold){.held = true};
	for (unsigned i = 0; i < parts->n; i++) {
		hold->mr[i] = parts->mr[i];
		hold->mr[i]->held++;
	}
	h->next++;
	if (parts->request)
		parts->request->ticket = h->next;
	return h->next;
}

void tp_release(struct tp *t, uint64_t ticket)
{
	struct tp_holds *h = &t->holds;
	struct tp_hold *hold = &h->ring[(ticket - 1) % TP_HOLDS];
	struct list over = LIST_INIT(over), *it;

	hold->held = false;
	for (unsigned i = 0; i < TP_HOLD_PIECES && hold->mr[i]; i++)
		hold->mr[i]->held--;
	while (h->done != h->next && !h->ring[h->done % TP_HOLDS].held)
		h->done++;
	while ((it = list_pop_front(&h->waiting)))
		list_push_back(&over, it);
	while ((it = list_pop_front(&over)))
		tp_qp_released(container_of(it, struct tp_qp, of_waiting));
}

bool tp_hold_is_over(struct tp_qp *qp, const struct tp_swqe *w)
{
	struct tp_holds *h = &qp->tp->holds;

	if (w->ticket <= h->done)
		return true;
	list_remove(&qp->of_waiting);
	list_push_back(&h->waiting, &qp->of_waiting);
	return false;
}

void tp_holds_free(struct tp *t)
{
	if (t->holds.ring)
		t->ops.free(t->ctx, t->holds.ring, TP_HOLDS * sizeof *t->holds.ring);
}
