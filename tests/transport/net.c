/* SPDX-License-Identifier: BSD-3-Clause */
/* The heap of events, and what links and queues do to packets. */
#include "net.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

/* --- the heap: earliest first --- */

static bool before(const struct sim_event *a, const struct sim_event *b)
{
	if (a->at != b->at)
		return a->at < b->at;
	if ((a->kind == SIM_WAKE) != (b->kind == SIM_WAKE))
		return b->kind == SIM_WAKE;
	return a->order < b->order;
}

static void push(struct sim_heap *h, struct sim_event e)
{
	size_t i = h->len++;

	if (h->len > h->cap) {
		h->cap = h->cap ? 2 * h->cap : 256;
		h->events = realloc(h->events, h->cap * sizeof *h->events);
		if (!h->events)
			abort();
	}
	e.order = h->order++;
	for (; i && before(&e, &h->events[(i - 1) / 2]); i = (i - 1) / 2)
		h->events[i] = h->events[(i - 1) / 2];
	h->events[i] = e;
}

void sim_heap_push(struct sim_heap *h, uint64_t at, enum sim_event_kind kind, void *what)
{
	push(h, (struct sim_event){.at = at, .kind = kind, .what = what});
}

struct sim_event sim_heap_pop(struct sim_heap *h)
{
	struct sim_event top = h->events[0], last = h->events[--h->len];
	size_t i = 0;

	for (;;) {
		size_t child = 2 * i + 1;

		if (child >= h->len)
			break;
		if (child + 1 < h->len && before(&h->events[child + 1], &h->events[child]))
			child++;
		if (!before(&h->events[child], &last))
			break;
		h->events[i] = h->events[child];
		i = child;
	}
	h->events[i] = last;
	return top;
}

void sim_heap_free(struct sim_heap *h)
{
	for (size_t i = 0; i < h->len; i++)
		if (h->events[i].kind <= SIM_SERVED)
			free(h->events[i].what);
	free(h->events);
	*h = (struct sim_heap){0};
}

void sim_at(struct sim *s, uint64_t at, void (*f)(struct sim *s, void *what), void *what)
{
	push(&s->heap, (struct sim_event){.at = at, .kind = SIM_CALL, .what = what, .call = f});
}

static void change(struct sim *s, void *what)
{
	struct sim_change *c = what;

	c->link->delay = c->now.delay;
	c->link->rate = c->now.rate;
	c->link->loss = c->now.loss;
	c->link->down = c->now.down;
	c->link->mtu = c->now.mtu;
	if (c->overtake)
		c->link->last_arrival = 0;
}

void sim_change_at(struct sim *s, uint64_t at, struct sim_change *c)
{
	sim_at(s, at, change, c);
}

/* --- in words --- */

static void describe_control(const uint8_t *data, size_t len)
{
	struct wire_init i;
	struct wire_reset_packet r;

	if ((tp_wire_type(data) == WIRE_INIT || tp_wire_type(data) == WIRE_INIT_ACK) &&
		tp_wire_get_init(data, len, &i))
		printf("  port %u to %u, cid %llx for %llx", i.src_port, i.dst_port,
			(unsigned long long)i.src_cid >> 44, (unsigned long long)i.dst_cid >> 44);
	if (tp_wire_type(data) == WIRE_RESET && tp_wire_get_reset(data, len, &r))
		printf("  of cid %llx, reason %u", (unsigned long long)r.src_cid >> 44, r.reason);
}

static void describe_data(const uint8_t *data, const struct wire_packet *w)
{
	printf("  cid %llx psn %u ack %u flags %02x", (unsigned long long)tp_wire_cid(data) >> 44, w->psn,
		w->ack, w->flags);
	if (w->type == WIRE_DATA)
		printf(" off %llu+%zu", (unsigned long long)w->offset, w->payload_len);
	if (w->has_window)
		printf(" window %llu", (unsigned long long)w->window);
	for (unsigned k = 0; k < w->sack_words; k++)
		printf(" sack %llx", (unsigned long long)tp_wire_get_sack(w, k));
}

void sim_describe(const struct sim *s, const char *what, const struct sim_packet *p)
{
	static const char *const types[16] = {
		"?", "DATA", "ACK", "INIT", "INIT_ACK", "NAK", "COOKIE", "RESET", "FIND", "REPLY"};
	const uint8_t *data = p->data;
	struct wire_packet w;
	size_t len = p->len;

	if (!s->verbose || !len)
		return;
	printf("%14.3f us  %u>%u %-5s %-8s %4zu", (double)s->now / 1e3, p->from, p->to, what,
		types[data[0] & 15] ? types[data[0] & 15] : "?", len);
	if (tp_wire_crc_ok(data, len)) {
		describe_control(data, len);
		len -= WIRE_CRC_LEN;
	}
	if (len >= WIRE_BASE_LEN && (data[0] & 15) <= WIRE_ACK && tp_wire_decode(data, len, &w))
		describe_data(data, &w);
	printf("\n");
}

/* --- links --- */

static struct sim_packet *new_packet(struct sim_link *l, unsigned from, unsigned to, size_t len)
{
	struct sim_packet *p = malloc(sizeof *p + len);

	if (!p)
		abort();
	*p = (struct sim_packet){.link = l, .from = (uint8_t)from, .to = (uint8_t)to, .len = (uint16_t)len};
	return p;
}

/* Exactly as large as it says, so that a read past its end is seen. */
static struct sim_packet *resize(struct sim_packet *p, size_t len)
{
	p = realloc(p, sizeof *p + len);
	if (!p)
		abort();
	if (len > p->len)
		memset(p->data + p->len, 0, len - p->len);
	p->len = (uint16_t)len;
	return p;
}

static struct sim_packet *damage(struct sim *s, struct sim_packet *p)
{
	s->damaged++;
	switch (sd_rng_below(&s->rng, 4)) {
	case 0: /* cut off */
		return resize(p, (size_t)sd_rng_below(&s->rng, p->len + 1u));
	case 1: /* padded */
		return resize(p, p->len + 1 + (size_t)sd_rng_below(&s->rng, 8));
	case 2:
		p->data[sd_rng_below(&s->rng, p->len)] ^= (uint8_t)(1u << sd_rng_below(&s->rng, 8));
		return p;
	default:
		for (uint64_t i = 1 + sd_rng_below(&s->rng, 8); i; i--)
			p->data[sd_rng_below(&s->rng, p->len)] = (uint8_t)sd_rng_next(&s->rng);
		return p;
	}
}

static void lose(struct sim *s, const char *why, struct sim_packet *p)
{
	sim_describe(s, why, p);
	s->lost++;
	free(p);
}

/* The last part of the way: delay and faults. at: when it begins. */
static void fly(struct sim *s, struct sim_packet *p, uint64_t at, bool again)
{
	struct sim_link *l = p->link;

	at += l->delay + (l->jitter ? sd_rng_below(&s->rng, l->jitter) : 0);
	if (sim_chance(s, l->reorder))
		at += sd_rng_below(&s->rng, l->reorder_delay + 1);
	else if (at < l->last_arrival)
		at = l->last_arrival;
	else
		l->last_arrival = at;
	p->ce |= sim_chance(s, l->ce);
	if (!again && sim_chance(s, l->duplicate)) {
		struct sim_packet *twin = new_packet(l, p->from, p->to, p->len);

		memcpy(twin->data, p->data, p->len);
		twin->ce = p->ce;
		sim_describe(s, "dup", twin);
		fly(s, twin, at - l->delay, true);
	}
	if (l->down || sim_chance(s, l->loss)) {
		lose(s, "lose", p);
		return;
	}
	if (sim_chance(s, l->corrupt))
		p = damage(s, p);
	sim_heap_push(&s->heap, at, SIM_ARRIVAL, p);
}

void sim_send(struct sim *s, unsigned from, const struct tp_path *path, const uint8_t *data, size_t len)
{
	struct sim_link *l = s->route ? s->route(s, from, path) : &s->links[from][path->hdr[0]];
	struct sim_packet *p = new_packet(l, from, path->hdr[0], len);
	uint64_t at = s->now;

	memcpy(p->data, data, len);
	s->packets++;
	sim_describe(s, "send", p);
	if (l->mtu && len > l->mtu) {
		lose(s, "large", p);
		return;
	}
	if (l->rate) {
		if (l->free_at < at)
			l->free_at = at;
		if (l->queue && l->free_at - at > l->queue) {
			lose(s, "queue", p);
			return;
		}
		p->ce = l->mark && l->free_at - at > l->mark;
		l->free_at += (len + SIM_FRAMING) * SD_S / l->rate;
		at = l->free_at;
	}
	if (!l->via[0])
		fly(s, p, at, false);
	else if (at > s->now)
		sim_heap_push(&s->heap, at, SIM_HOP, p);
	else
		sim_hop(s, p);
}

/* --- queues --- */

static void account(const struct sim *s, struct sim_queue *q)
{
	q->area += (double)q->bytes * (double)(s->now - q->changed);
	q->changed = s->now;
}

/* When the last bit of so many bytes will have left. */
static uint64_t serve(const struct sim *s, struct sim_queue *q, uint64_t bytes)
{
	uint64_t work;

	if (!q->rate)
		return s->now;
	if (q->free_at < s->now) {
		q->free_at = s->now;
		q->spare = 0;
	}
	work = bytes * SD_S + q->spare;
	q->free_at += work / q->rate;
	q->spare = work % q->rate;
	return q->free_at;
}

void sim_hop(struct sim *s, struct sim_packet *p)
{
	struct sim_queue *q = p->hop < SIM_VIA_MAX ? p->link->via[p->hop] : NULL;
	uint64_t bytes = p->len + SIM_FRAMING;

	if (!q) {
		fly(s, p, s->now, false);
		return;
	}
	account(s, q);
	q->packets++;
	if (q->capacity && q->bytes + bytes > q->capacity) {
		q->drops++;
		lose(s, "full", p);
		return;
	}
	if (q->mark && q->bytes > q->mark) {
		q->marks++;
		p->ce = true;
	}
	p->in = q;
	q->bytes += bytes;
	if (q->bytes > q->peak)
		q->peak = q->bytes;
	sim_heap_push(&s->heap, serve(s, q, bytes), SIM_SERVED, p);
}

void sim_served(struct sim *s, struct sim_packet *p)
{
	struct sim_queue *q = p->in;

	p->hop++;
	account(s, q);
	q->bytes -= p->len + SIM_FRAMING;
	q->served += p->len + SIM_FRAMING;
	sim_hop(s, p);
}

void sim_queue_watch(const struct sim *s, struct sim_queue *q)
{
	q->since = q->changed = s->now;
	q->area = 0;
	q->peak = q->bytes;
	q->packets = q->served = q->drops = q->marks = 0;
}

double sim_queue_mean(const struct sim *s, const struct sim_queue *q)
{
	double area = q->area + (double)q->bytes * (double)(s->now - q->changed);

	return s->now > q->since ? area / (double)(s->now - q->since) : 0;
}

double sim_queue_utilisation(const struct sim *s, const struct sim_queue *q)
{
	double could = (double)q->rate * (double)(s->now - q->since) / 1e9;

	return could > 0 ? (double)q->served / could : 0;
}
