/* SPDX-License-Identifier: BSD-3-Clause */
#include "provider/couple.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define CHUNK 65536u
/* Of one direction before the others have their turn. */
#define TURN 16u

struct couple_side {
	struct pv_upcall upcall;
	struct couple *couple;
	struct pv_ep *ep;
	/* What was received here and the other side did not take. */
	uint8_t *held;
	const uint8_t *next; /* the first of them that is to go */
	size_t held_len;
	bool ended; /* all of its bytes, and their end, have gone to the other side */
};

struct couple {
	struct couple_side side[2];
	struct list node, due;
	struct couples *of;
};

int couples_open(struct couples *c)
{
	*c = (struct couples){.scratch = malloc(CHUNK)};
	list_init(&c->all);
	list_init(&c->due);
	return c->scratch ? 0 : -ENOMEM;
}

static void is_due(struct couple *p)
{
	if (list_empty(&p->due))
		list_push_back(&p->of->due, &p->due);
}

static void on_ready(struct pv_upcall *u, unsigned events)
{
	is_due(container_of(u, struct couple_side, upcall)->couple);
}

int couple_new(struct couples *c, struct couple_side *out[2])
{
	struct couple *p = calloc(1, sizeof *p);

	if (!p)
		return -ENOMEM;
	p->of = c;
	list_init(&p->due);
	list_push_back(&c->all, &p->node);
	c->n++;
	for (unsigned i = 0; i < 2; i++) {
		p->side[i].upcall.ready = on_ready;
		p->side[i].couple = p;
		out[i] = &p->side[i];
	}
	return 0;
}

void couple_free(struct couple_side *either)
{
	struct couple *p = either->couple;

	p->of->n--;
	list_remove(&p->node);
	list_remove(&p->due);
	for (unsigned i = 0; i < 2; i++)
		free(p->side[i].held);
	free(p);
}

static void part(struct couple *p, enum pv_close_mode mode)
{
	for (unsigned i = 0; i < 2; i++) {
		if (p->side[i].ep)
			p->side[i].ep->ops->close(p->side[i].ep, mode);
	}
	p->of->parted++;
	couple_free(p->side);
}

void couples_close(struct couples *c)
{
	while (!list_empty(&c->all))
		part(container_of(c->all.next, struct couple, node), PV_CLOSE_ABORT);
	free(c->scratch);
	c->scratch = NULL;
}

void couple_join(struct couple_side *a, struct pv_ep *ea, struct couple_side *b, struct pv_ep *eb)
{
	a->ep = ea;
	b->ep = eb;
	ea->ops->set_user(ea, a);
	eb->ops->set_user(eb, b);
	is_due(a->couple);
}

/* -EAGAIN: they are kept. */
static int hold(struct couple_side *from, const uint8_t *bytes, size_t len)
{
	from->held = malloc(len);
	if (!from->held)
		return -ENOMEM;
	memcpy(from->held, bytes, len);
	from->next = from->held;
	from->held_len = len;
	return -EAGAIN;
}

/* --- handing over --- */

void couples_each(
	struct couples *c, void (*f)(void *ctx, struct couple_side *a, struct couple_side *b), void *ctx)
{
	list_for_each (it, &c->all) {
		struct couple *p = container_of(it, struct couple, node);

		f(ctx, &p->side[0], &p->side[1]);
	}
}

void couples_look_again(struct couples *c)
{
	list_for_each (it, &c->all)
		is_due(container_of(it, struct couple, node));
}

struct pv_ep *couple_ep(const struct couple_side *side)
{
	return side->ep;
}

void couple_save(const struct couple_side *either, struct sd_pack *p)
{
	for (unsigned i = 0; i < 2; i++) {
		const struct couple_side *s = &either->couple->side[i];

		sd_pack_value(p, s->ended);
		sd_pack_u32(p, (uint32_t)s->held_len);
		sd_pack_bytes(p, s->next, s->held_len);
	}
}

int couple_restore(struct couple_side *either, struct sd_unpack *u)
{
	for (unsigned i = 0; i < 2; i++) {
		struct couple_side *s = &either->couple->side[i];
		const void *bytes;
		uint32_t len;

		sd_unpack_value(u, s->ended);
		len = sd_unpack_u32(u);
		bytes = sd_unpack_check(u, len <= CHUNK) ? sd_unpack_view(u, len) : NULL;
		if (!bytes)
			return -EPROTO;
		if (len && hold(s, bytes, len) != -EAGAIN)
			return -ENOMEM;
	}
	return 0;
}

/* --- one direction --- */

/* Moves *at on past what was sent. -EAGAIN: to takes no more at the moment; 0: all of it is there; another
 * error: to is no more.
 */
static int push(struct couple_side *to, const uint8_t **at, size_t *len)
{
	while (*len) {
		const struct iovec iov = {(void *)*at, *len};
		ssize_t r = to->ep->ops->send(to->ep, &iov, 1, 0);

		if (r == -ENOMEM) { /* it may pass */
			is_due(to->couple);
			return -EAGAIN;
		}
		if (r < 0)
			return (int)r;
		*at += r;
		*len -= (size_t)r;
	}
	return 0;
}

static int give_held(struct couple_side *from, struct couple_side *to)
{
	int r = push(to, &from->next, &from->held_len);

	if (r)
		return r;
	free(from->held);
	from->held = NULL;
	return 0;
}

static int give(struct couple_side *from, struct couple_side *to, const uint8_t *bytes, size_t len)
{
	int r = push(to, &bytes, &len);

	return r == -EAGAIN ? hold(from, bytes, len) : r;
}

/* 1: there is more, but others wait; 0 or -EAGAIN: that is all; else the connection is over. */
static int move(struct couple_side *from, struct couple_side *to)
{
	uint8_t *scratch = from->couple->of->scratch;
	const struct iovec iov = {scratch, CHUNK};
	int r = give_held(from, to);
	ssize_t n;

	for (unsigned i = 0; !r && i < TURN; i++) {
		n = from->ep->ops->recv(from->ep, &iov, 1, 0);
		if (n < 0)
			return (int)n;
		if (!n) {
			from->ended = true;
			return to->ep->ops->shutdown(to->ep, SHUT_WR);
		}
		r = give(from, to, scratch, (size_t)n);
	}
	return r ? r : 1;
}

/* --- both --- */

static bool is_over(const struct couple *p)
{
	for (unsigned i = 0; i < 2; i++) {
		if (p->side[i].ep->ops->state(p->side[i].ep) & PV_ERR)
			return true;
	}
	return false;
}

/* As with TCP, who has closed does not wait for the other one, which may never end: the transport sees to it
 * that its bytes arrive. What it has not read is a reset (RFC 2525 section 2.17). */
static bool part_from_closed(struct couple *p)
{
	struct pv_info info;

	for (unsigned i = 0; i < 2; i++) {
		if (!p->side[i].ended)
			continue;
		p->side[i].ep->ops->info(p->side[i].ep, &info);
		if (!info.peer_closed)
			continue;
		part(p, p->side[!i].held_len ? PV_CLOSE_ABORT : PV_CLOSE_GRACEFUL);
		return true;
	}
	return false;
}

static void serve(struct couple *p)
{
	bool more = false;
	int r;

	for (unsigned i = 0; i < 2; i++) {
		if (p->side[i].ended)
			continue;
		r = move(&p->side[i], &p->side[!i]);
		if (r < 0 && r != -EAGAIN) {
			part(p, PV_CLOSE_ABORT);
			return;
		}
		more |= r > 0;
	}
	if (p->side[0].ended && p->side[1].ended)
		part(p, PV_CLOSE_GRACEFUL);
	else if (is_over(p))
		part(p, PV_CLOSE_ABORT);
	else if (!part_from_closed(p) && more)
		is_due(p);
}

unsigned couples_progress(struct couples *c)
{
	struct list turn = LIST_INIT(turn), *it;
	unsigned n = 0;

	while ((it = list_pop_front(&c->due)))
		list_push_back(&turn, it);
	while ((it = list_pop_front(&turn))) {
		serve(container_of(it, struct couple, due));
		n++;
	}
	return n;
}
