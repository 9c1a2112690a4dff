/* SPDX-License-Identifier: BSD-3-Clause */
/* cq: completions, in the order in which they came to be. Room for each is set aside when its request is
 * posted, so there always is some. */
#include <errno.h>

#include "transport/qp.h"

int tp_cq_create(struct tp *t, uint32_t capacity, void *user, struct tp_cq **out)
{
	struct tp_cq *cq;
	uint32_t size;

	if (!capacity || capacity > 1u << 24)
		return -EINVAL;
	size = tp_queue_size(capacity);
	cq = t->ops.alloc(t->ctx, sizeof *cq);
	if (!cq)
		return -ENOMEM;
	*cq = (struct tp_cq){.tp = t, .user = user, .mask = size - 1, .capacity = capacity};
	cq->ring = t->ops.alloc(t->ctx, size * sizeof *cq->ring);
	if (!cq->ring) {
		t->ops.free(t->ctx, cq, sizeof *cq);
		return -ENOMEM;
	}
	*out = cq;
	return 0;
}

int tp_cq_destroy(struct tp_cq *cq)
{
	struct tp *t = cq->tp;

	if (cq->users)
		return -EBUSY;
	t->ops.free(t->ctx, cq->ring, (cq->mask + 1) * sizeof *cq->ring);
	t->ops.free(t->ctx, cq, sizeof *cq);
	return 0;
}

unsigned tp_cq_poll(struct tp_cq *cq, struct tp_wc *wc, unsigned max)
{
	unsigned n = 0;

	for (; n < max && cq->head != cq->tail; n++)
		wc[n] = cq->ring[cq->head++ & cq->mask];
	return n;
}

void tp_cq_notify(struct tp_cq *cq, bool solicited)
{
	cq->solicited = solicited && (!cq->armed || cq->solicited); /* the wider wish holds */
	cq->armed = true;
}

void tp_cq_complete(struct tp_cq *cq, const struct tp_wc *wc, bool solicited)
{
	struct tp *t = cq->tp;

	cq->posted--;
	cq->ring[cq->tail++ & cq->mask] = *wc;
	if (!cq->armed || (cq->solicited && !solicited && wc->status == TP_WC_SUCCESS))
		return;
	cq->armed = false;
	t->ops.completion(t->ctx, cq, cq->user);
}

void tp_cq_forget(struct tp_cq *cq, const struct tp_qp *qp)
{
	uint32_t kept = cq->head;

	for (uint32_t i = cq->head; i != cq->tail; i++) {
		if (cq->ring[i & cq->mask].qp != qp)
			cq->ring[kept++ & cq->mask] = cq->ring[i & cq->mask];
	}
	cq->tail = kept;
}
