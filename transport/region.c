/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * region: memory that requests may name. A key is an index, found by one look-up, and 40 random bits, so that
 * one that was not told cannot be guessed and one that was does not outlive its region.
 */
#include <errno.h>

#include "transport/qp.h"

#define INDEX_BITS 24
#define FIRST	   64u

int tp_pd_create(struct tp *t, struct tp_pd **out)
{
	struct tp_pd *pd = t->ops.alloc(t->ctx, sizeof *pd);

	if (!pd)
		return -ENOMEM;
	pd->tp = t;
	list_init(&pd->qps);
	*out = pd;
	return 0;
}

int tp_pd_destroy(struct tp_pd *pd)
{
	if (pd->n_regions || !list_empty(&pd->qps))
		return -EBUSY;
	pd->tp->ops.free(pd->tp->ctx, pd, sizeof *pd);
	return 0;
}

static void free_tables(struct tp *t, struct tp_regions *r)
{
	if (r->slots)
		t->ops.free(t->ctx, r->slots, r->size * sizeof *r->slots);
	if (r->free)
		t->ops.free(t->ctx, r->free, r->size * sizeof *r->free);
}

/* Twice as many, none of which is free when this is called. */
static int grow(struct tp *t)
{
	struct tp_regions *r = &t->regions, bigger = {.size = r->size ? 2 * r->size : FIRST};

	if (bigger.size > TP_MAX_REGIONS)
		return -ENOSPC;
	bigger.slots = t->ops.alloc(t->ctx, bigger.size * sizeof *bigger.slots);
	bigger.free = t->ops.alloc(t->ctx, bigger.size * sizeof *bigger.free);
	if (!bigger.slots || !bigger.free) {
		free_tables(t, &bigger);
		return -ENOMEM;
	}
	if (r->size)
		memcpy(bigger.slots, r->slots, r->size * sizeof *r->slots);
	for (uint32_t i = r->size; i < bigger.size; i++)
		bigger.free[bigger.free_count++] = i;
	free_tables(t, r);
	*r = bigger;
	return 0;
}

int tp_mr_register(struct tp_pd *pd, void *addr, size_t len, unsigned access, struct tp_mr **out)
{
	struct tp *t = pd->tp;
	struct tp_regions *r = &t->regions;
	struct tp_mr *mr;
	uint32_t index;
	int err;

	if (access & (TP_REMOTE_WRITE | TP_REMOTE_ATOMIC) && !(access & TP_LOCAL_WRITE))
		return -EINVAL;
	err = r->free_count ? 0 : grow(t);
	mr = err ? NULL : t->ops.alloc(t->ctx, sizeof *mr);
	if (!mr)
		return err ? err : -ENOMEM;
	index = r->free[r->free_head];
	r->free_head = (r->free_head + 1) % r->size;
	r->free_count--;
	*mr = (struct tp_mr){.pd = pd, .home = pd, .addr = addr, .len = len, .access = access};
	do
		mr->rkey = tp_random_id(t) << INDEX_BITS | index;
	while (!(mr->rkey >> INDEX_BITS));
	r->slots[index] = mr;
	pd->n_regions++;
	*out = mr;
	return 0;
}

uint64_t tp_mr_rkey(const struct tp_mr *mr)
{
	return mr->rkey;
}

struct tp_mr *tp_region_of(
	const struct tp_qp *qp, uint64_t rkey, unsigned access, uint64_t offset, uint64_t len)
{
	const struct tp_regions *r = &qp->tp->regions;
	uint32_t index = (uint32_t)rkey & (TP_MAX_REGIONS - 1);
	struct tp_mr *mr = index < r->size ? r->slots[index] : NULL;

	if (!mr || mr->rkey != rkey || mr->pd != qp->pd || (mr->access & access) != access)
		return NULL;
	return len <= mr->len && offset <= mr->len - len ? mr : NULL;
}

bool tp_sge_names(const struct tp_sge *sg, unsigned n, const struct tp_mr *mr)
{
	for (unsigned i = 0; i < n; i++) {
		if (sg[i].mr == mr)
			return true;
	}
	return false;
}

/* Does one of its requests, or of its peer's, refer to it? */
static bool uses(const struct tp_qp *qp, const struct tp_mr *mr)
{
	for (uint32_t i = qp->sq.head; i != qp->sq.tail; i++) {
		const struct tp_swqe *w = swqe_at(qp, i);

		if (tp_sge_names(w->sg, w->n_sg, mr))
			return true;
	}
	for (uint32_t i = qp->rq.head; i != qp->rq.tail; i++) {
		const struct tp_rwqe *w = rwqe_at(qp, i);

		if (tp_sge_names(w->sg, w->n_sg, mr))
			return true;
	}
	for (uint32_t rsn = qp->in_done; rsn != qp->in_next; rsn++) {
		if (incoming_at(qp, rsn)->mr == mr)
			return true;
	}
	return false;
}

/* Nobody finds it any more, and who uses it has lost it. */
static void revoke(struct tp_mr *mr)
{
	mr->pd = NULL;
	if (!mr->uses)
		return;
	list_for_each (it, &mr->home->qps) {
		struct tp_qp *qp = container_of(it, struct tp_qp, of_pd);

		if (uses(qp, mr))
			tp_qp_lost_region(qp, mr);
	}
}

int tp_mr_deregister(struct tp_mr *mr)
{
	struct tp_pd *pd = mr->home;
	struct tp *t = pd->tp;
	struct tp_regions *r = &t->regions;
	uint32_t index = (uint32_t)mr->rkey & (TP_MAX_REGIONS - 1);

	if (mr->pd)
		revoke(mr);
	if (mr->held || mr->uses)
		return -EBUSY;
	r->slots[index] = NULL;
	r->free[(r->free_head + r->free_count++) % r->size] = index;
	pd->n_regions--;
	t->ops.free(t->ctx, mr, sizeof *mr);
	return 0;
}

void tp_regions_free(struct tp *t)
{
	struct tp_regions *r = &t->regions;

	for (uint32_t i = 0; i < r->size; i++) {
		if (r->slots[i])
			t->ops.free(t->ctx, r->slots[i], sizeof *r->slots[i]);
	}
	free_tables(t, r);
}

/* --- pieces -------------------------------------------------------------------------------------------- */

int tp_sge_check(const struct tp_pd *pd, const struct tp_sge *sg, unsigned n, unsigned access, uint64_t *len)
{
	*len = 0;
	for (unsigned i = 0; i < n; i++) {
		const struct tp_mr *mr = sg[i].mr;

		if (!mr || mr->pd != pd || (mr->access & access) != access || sg[i].len > mr->len ||
			sg[i].offset > mr->len - sg[i].len)
			return -EACCES;
		*len += sg[i].len;
	}
	return *len <= TP_MAX_MESSAGE ? 0 : -EINVAL;
}

/* Calls f for each stretch of local memory that bytes [off, off + len) are, in order. */
static void each_stretch(const struct tp_sge *sg, uint32_t off, size_t len,
	void (*f)(void *ctx, struct tp_mr *mr, uint8_t *at, size_t len), void *ctx)
{
	for (; len; sg++) {
		size_t n;

		if (off >= sg->len) {
			off -= sg->len;
			continue;
		}
		n = sg->len - off < len ? sg->len - off : len;
		f(ctx, sg->mr, sg->mr->addr + sg->offset + off, n);
		len -= n;
		off = 0;
	}
}

static void copy_out(void *ctx, struct tp_mr *mr, uint8_t *at, size_t len)
{
	uint8_t **to = ctx;

	memcpy(*to, at, len);
	*to += len;
}

static void copy_in(void *ctx, struct tp_mr *mr, uint8_t *at, size_t len)
{
	const uint8_t **from = ctx;

	memcpy(at, *from, len);
	*from += len;
}

void tp_sge_gather(const struct tp_sge *sg, uint32_t off, void *to, size_t len)
{
	uint8_t *at = to;

	each_stretch(sg, off, len, copy_out, &at);
}

static void add_piece(void *ctx, struct tp_mr *mr, uint8_t *at, size_t len)
{
	tp_parts_add(ctx, mr, at, len);
}

void tp_sge_pieces(const struct tp_sge *sg, uint32_t off, size_t len, struct tp_parts *parts)
{
	each_stretch(sg, off, len, add_piece, parts);
}

void tp_sge_scatter(const struct tp_sge *sg, uint32_t off, const void *from, size_t len)
{
	const uint8_t *at = from;

	each_stretch(sg, off, len, copy_in, &at);
}
