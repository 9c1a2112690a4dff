/* SPDX-License-Identifier: BSD-3-Clause */
/* The simulator: a heap of packets on their way, and hosts that wake. */
#include "sim.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"

void sim_fail(struct sim *s, const char *fmt, ...)
{
	va_list ap;

	if (s->failure[0])
		return;
	va_start(ap, fmt);
	vsnprintf(s->failure, sizeof s->failure, fmt, ap);
	va_end(ap);
}

uint64_t sim_scale(struct sim *s, uint64_t lo, uint64_t hi)
{
	double x = (double)lo * pow((double)hi / (double)lo, sd_rng_unit(&s->rng));

	return x < (double)lo ? lo : x > (double)hi ? hi : (uint64_t)x;
}

/* --- memory --- */

static void *host_alloc(void *ctx, size_t size)
{
	struct sim_host *h = ctx;
	void *p;

	if (!h->may_alloc)
		sim_fail(h->sim, "memory was asked for while a packet or a timer was handled");
	if (sim_chance(h->sim, h->alloc_fails))
		return NULL;
	p = calloc(1, size);
	if (!p)
		abort();
	h->blocks++;
	h->bytes += size;
	return p;
}

static void host_free(void *ctx, void *p, size_t size)
{
	struct sim_host *h = ctx;

	if (!h->may_alloc)
		sim_fail(h->sim, "memory was freed while a packet or a timer was handled");
	h->blocks--;
	h->bytes -= size;
	free(p);
}

/* Whoever reads that again reads garbage. */
static void host_idle(void *ctx, void *p, size_t size)
{
	memset(p, 0xdb, size);
}

/* --- hosts --- */

void sim_path(struct sim_host *from, struct sim_host *to, uint16_t local_port, uint16_t peer_port,
	struct tp_path *out)
{
	memset(out, 0, sizeof *out);
	out->local = from->addr;
	out->peer = to->addr;
	out->local.port = local_port;
	out->peer.port = peer_port;
	out->max_payload = from->max_payload;
	out->hdr_len = 1;
	out->hdr[0] = (uint8_t)to->index;
}

static bool host_reverse(void *ctx, const struct tp_rx *rx, struct tp_path *out)
{
	struct sim_host *h = ctx;
	const struct sim_packet *p = rx->frame;

	sim_path(h, &h->sim->hosts[p->from], out->local.port, out->peer.port, out);
	return true;
}

static void host_event(void *ctx, struct tp_conn *c, void *user, unsigned events)
{
	struct sim_host *h = ctx;

	h->sim->app->event(h, c, user, events);
}

static void host_acceptable(void *ctx, struct tp_listener *l, void *user)
{
	struct sim_host *h = ctx;

	h->sim->app->acceptable(h, l, user);
}

static void host_found(void *ctx, const struct tp_found *f)
{
	struct sim_host *h = ctx;

	if (h->sim->app->found)
		h->sim->app->found(h, f);
}

static void host_qp_event(void *ctx, struct tp_qp *qp, void *user, unsigned events)
{
	struct sim_host *h = ctx;

	h->sim->app->qp_event(h, qp, user, events);
}

static void host_completion(void *ctx, struct tp_cq *cq, void *user)
{
	struct sim_host *h = ctx;

	h->sim->app->completion(h, cq, user);
}

static const struct tp_ops host_ops = {
	.size = sizeof host_ops,
	.event = host_event,
	.acceptable = host_acceptable,
	.reverse = host_reverse,
	.found = host_found,
	.alloc = host_alloc,
	.free = host_free,
	.idle = host_idle,
	.qp_event = host_qp_event,
	.completion = host_completion,
};

void sim_boot(struct sim_host *h)
{
	double fails = h->alloc_fails;

	for (int i = 0; i < 4; i++)
		h->cfg.seed[i] = sd_rng_next(&h->sim->rng);
	h->alloc_fails = 0;
	h->may_alloc = true;
	if (tp_create(&h->cfg, &host_ops, h, h->sim->now, &h->tp))
		sim_fail(h->sim, "tp_create failed");
	h->alloc_fails = fails;
	sim_wake(h);
}

static void drop_inbox(struct sim_host *h)
{
	struct sim_packet *p;

	while ((p = h->inbox)) {
		h->inbox = p->next;
		free(p);
	}
	h->inbox_tail = &h->inbox;
}

static void add_stats(struct tp_stats *sum, const struct tp_stats *more)
{
	uint64_t *a = (uint64_t *)sum;
	const uint64_t *b = (const uint64_t *)more;

	for (size_t i = 0; i < sizeof *sum / sizeof *a; i++)
		a[i] += b[i];
}

void sim_stats(const struct sim_host *h, struct tp_stats *out)
{
	*out = h->before;
	if (h->tp)
		add_stats(out, tp_stats(h->tp));
}

void sim_crash(struct sim_host *h)
{
	if (!h->tp)
		return;
	add_stats(&h->before, tp_stats(h->tp));
	tp_destroy(h->tp);
	h->tp = NULL;
	drop_inbox(h);
	if (h->blocks || h->bytes)
		sim_fail(h->sim, "host %u: %zu blocks, %zu bytes not given back", h->index, h->blocks,
			h->bytes);
}

void sim_hand_over(struct sim_host *h, void (*listen)(struct sim_host *h),
	void (*owned)(void *host, uint64_t name, struct tp_conn *c))
{
	double fails = h->alloc_fails;
	struct sd_pack p = {0};
	struct sd_unpack u;
	int r;

	tp_save(h->tp, h->sim->now, &p);
	tp_destroy(h->tp);
	h->tp = NULL;
	if (h->blocks || h->bytes)
		sim_fail(h->sim, "host %u: %zu blocks, %zu bytes not given back", h->index, h->blocks,
			h->bytes);
	if (sim_chance(h->sim, 0.5))
		drop_inbox(h);
	sim_boot(h);
	h->alloc_fails = 0;
	listen(h);
	u = (struct sd_unpack){p.data, p.data + p.len};
	h->may_alloc = true;
	r = tp_restore(h->tp, h->sim->now, &u, owned, h);
	h->alloc_fails = fails;
	if (r || u.at != u.end)
		sim_fail(h->sim, "host %u: restored with %d, %td bytes left", h->index, r, u.end - u.at);
	sd_pack_free(&p);
	sim_wake(h);
}

void sim_wake(struct sim_host *h)
{
	uint64_t at = h->sim->now + (h->lag ? sd_rng_below(&h->sim->rng, h->lag + 1) : 0);

	if (at < h->wake_at)
		h->wake_at = at;
}

void sim_open(
	struct sim *s, uint64_t seed, unsigned n_hosts, unsigned family, const struct sim_app *app, void *ctx)
{
	memset(s, 0, sizeof *s);
	s->seed = seed;
	s->n_hosts = n_hosts;
	s->app = app;
	s->ctx = ctx;
	s->monitor = monitor_new();
	sd_rng_seed(&s->rng, seed);
	s->now = sd_rng_below(&s->rng, 1ull << 50);
	for (unsigned i = 0; i < n_hosts; i++) {
		struct sim_host *h = &s->hosts[i];

		h->sim = s;
		h->index = i;
		h->addr.family = (uint8_t)family;
		h->addr.ip[0] = family == 4 ? 10 : 0xfd;
		h->addr.ip[family == 4 ? 3 : 15] = (uint8_t)(i + 1);
		h->max_payload = 1472;
		h->cfg.rest_ns = (50 * SD_US) << (seed % 12);
		h->burst = 64;
		h->wake_at = h->app_at = SIM_NEVER;
		h->inbox_tail = &h->inbox;
		h->cfg.size = sizeof h->cfg;
		h->cfg.max_conns = 256;
		h->cfg.crc = true;
		for (int k = 0; k < 16; k++)
			h->cfg.node_key[k] = (uint8_t)sd_rng_next(&s->rng);
	}
}

void sim_close(struct sim *s)
{
	for (unsigned i = 0; i < s->n_hosts; i++)
		sim_crash(&s->hosts[i]);
	for (size_t i = 0; i < s->heap_len; i++)
		free(s->heap[i]);
	free(s->heap);
	monitor_free(s->monitor);
	s->monitor = NULL;
	s->heap = NULL;
	s->heap_len = s->heap_cap = 0;
}

/* --- the heap: earliest first --- */

static bool before(const struct sim_packet *a, const struct sim_packet *b)
{
	return a->at < b->at || (a->at == b->at && a->order < b->order);
}

static void heap_push(struct sim *s, struct sim_packet *p)
{
	size_t i = s->heap_len++;

	if (s->heap_len > s->heap_cap) {
		s->heap_cap = s->heap_cap ? 2 * s->heap_cap : 256;
		s->heap = realloc(s->heap, s->heap_cap * sizeof *s->heap);
		if (!s->heap)
			abort();
	}
	for (; i && before(p, s->heap[(i - 1) / 2]); i = (i - 1) / 2)
		s->heap[i] = s->heap[(i - 1) / 2];
	s->heap[i] = p;
}

static struct sim_packet *heap_pop(struct sim *s)
{
	struct sim_packet *top = s->heap[0], *last = s->heap[--s->heap_len];
	size_t i = 0;

	for (;;) {
		size_t child = 2 * i + 1;

		if (child >= s->heap_len)
			break;
		if (child + 1 < s->heap_len && before(s->heap[child + 1], s->heap[child]))
			child++;
		if (!before(s->heap[child], last))
			break;
		s->heap[i] = s->heap[child];
		i = child;
	}
	s->heap[i] = last;
	return top;
}

/* --- links --- */

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

static void describe(const struct sim *s, const char *what, const struct sim_packet *p, const uint8_t *data)
{
	static const char *const types[16] = {
		"?", "DATA", "ACK", "INIT", "INIT_ACK", "NAK", "COOKIE", "RESET", "FIND", "REPLY"};
	struct wire_packet w;
	size_t len = p->len;

	if (!s->verbose)
		return;
	printf("%14.3f us  %u>%u %-5s %-8s %4zu", (double)s->now / 1e3, p->from, p->to, what,
		types[data[0] & 15] ? types[data[0] & 15] : "?", len);
	if (tp_wire_crc_ok(data, len)) {
		describe_control(data, len);
		len -= WIRE_CRC_LEN;
	}
	if (len >= WIRE_BASE_LEN && (data[0] & 15) <= WIRE_ACK && tp_wire_decode(data, len, &w)) {
		printf("  cid %llx psn %u ack %u flags %02x", (unsigned long long)tp_wire_cid(data) >> 44,
			w.psn, w.ack, w.flags);
		if (w.type == WIRE_DATA)
			printf(" off %llu+%zu", (unsigned long long)w.offset, w.payload_len);
		if (w.has_window)
			printf(" window %llu", (unsigned long long)w.window);
		for (unsigned k = 0; k < w.sack_words; k++)
			printf(" sack %llx", (unsigned long long)tp_wire_get_sack(&w, k));
	}
	printf("\n");
}

static void damage(struct sim *s, struct sim_packet *p)
{
	s->damaged++;
	switch (sd_rng_below(&s->rng, 4)) {
	case 0: /* cut off */
		p->len = (uint16_t)sd_rng_below(&s->rng, p->len + 1);
		break;
	case 1: /* padded */
		p->len = (uint16_t)(p->len + 1 + sd_rng_below(&s->rng, 8));
		break;
	case 2:
		p->data[sd_rng_below(&s->rng, p->len)] ^= (uint8_t)(1u << sd_rng_below(&s->rng, 8));
		break;
	case 3:
		for (uint64_t i = 1 + sd_rng_below(&s->rng, 8); i; i--)
			p->data[sd_rng_below(&s->rng, p->len)] = (uint8_t)sd_rng_next(&s->rng);
		break;
	}
}

static void put_on_link(
	struct sim *s, unsigned from, unsigned to, const uint8_t *data, size_t len, bool again)
{
	struct sim_link *l = &s->links[from][to];
	struct sim_packet *p;
	uint64_t at = s->now;

	p = calloc(1, sizeof *p + len + 8);
	if (!p)
		abort();
	p->from = (uint8_t)from;
	p->to = (uint8_t)to;
	p->len = (uint16_t)len;
	p->order = s->order++;
	memcpy(p->data, data, len);
	s->packets++;
	describe(s, again ? "dup" : "send", p, data);
	if (l->rate) {
		if (l->free_at < at)
			l->free_at = at;
		if (l->queue && l->free_at - at > l->queue) {
			describe(s, "queue", p, data);
			s->lost++;
			free(p);
			return;
		}
		p->ce = l->mark && l->free_at - at > l->mark;
		l->free_at += (len + SIM_FRAMING) * SD_S / l->rate;
		at = l->free_at;
	}
	at += l->delay + (l->jitter ? sd_rng_below(&s->rng, l->jitter) : 0);
	if (sim_chance(s, l->reorder))
		at += sd_rng_below(&s->rng, l->reorder_delay + 1);
	else if (at < l->last_arrival)
		at = l->last_arrival;
	else
		l->last_arrival = at;
	p->at = at;
	p->ce |= sim_chance(s, l->ce);
	if (l->down || sim_chance(s, l->loss)) {
		describe(s, "lose", p, data);
		s->lost++;
		free(p);
		return;
	}
	if (sim_chance(s, l->corrupt))
		damage(s, p);
	heap_push(s, p);
	if (!again && sim_chance(s, l->duplicate))
		put_on_link(s, from, to, data, len, true);
}

/* Packet numbers of connections that have not said theirs yet move to where they soon wrap. */
static void move_isn(const struct sim *s, struct tp_conn *c)
{
	uint32_t isn = 0u - 1u - c->isn % s->isn_below;

	c->isn = isn;
	c->snd_una = c->snd_nxt = c->recovery_end = c->round_end = c->ackreq_psn = isn;
}

static void move_isns(struct sim_host *h)
{
	for (uint32_t i = 0; i < h->tp->max_conns; i++) {
		struct tp_conn *c = h->tp->slots[i];

		if (c && c->init_due && !c->packets_sent && c->isn < 0u - h->sim->isn_below)
			move_isn(h->sim, c);
	}
}

/* --- running --- */

/* Every packet between the oldest unacknowledged one and the next is thought to be in one of three places. */
static void check_conns(struct sim_host *h)
{
	for (uint32_t i = 0; i < h->tp->max_conns; i++) {
		const struct tp_conn *c = h->tp->slots[i];

		if (c && (uint64_t)c->pipe + c->lost + c->sacked != c->snd_nxt - c->snd_una)
			sim_fail(h->sim, "host %u: %u in the network, %u lost, %u received of %llu", h->index,
				c->pipe, c->lost, c->sacked, (unsigned long long)(c->snd_nxt - c->snd_una));
		if (c && (c->snd_acked > c->snd_sent || c->snd_sent > c->snd_end ||
				 (c->state >= CONN_OPEN && c->snd_sent > c->snd_limit) ||
				 c->rcv_read > c->rcv_off || c->rcv_off > c->rcv_limit))
			sim_fail(h->sim, "host %u: a cursor has overtaken another", h->index);
	}
}

static void deliver(struct sim_host *h)
{
	struct sim *s = h->sim;
	struct sim_packet *p;

	while ((p = h->inbox)) {
		struct tp_rx rx = {.local = h->addr, .peer = s->hosts[p->from].addr, .frame = p, .ce = p->ce};
		uint8_t *exact = malloc(p->len ? p->len : 1); /* a read past the end shall be seen */

		h->inbox = p->next;
		if (!exact)
			abort();
		memcpy(exact, p->data, p->len);
		if (p->len)
			describe(s, "recv", p, exact);
		tp_input(h->tp, s->now, exact, p->len, &rx);
		free(exact);
		free(p);
	}
	h->inbox_tail = &h->inbox;
}

static void transmit(struct sim_host *h)
{
	struct sim *s = h->sim;
	uint8_t buf[65536];

	for (unsigned n = 0; n < h->burst; n++) {
		const struct tp_path *path = NULL;
		const char *wrong;
		size_t len = tp_output(h->tp, s->now, buf, h->max_payload, &path);

		if (!len)
			return;
		if (len > h->max_payload || len > path->max_payload)
			sim_fail(s, "host %u: a packet of %zu bytes on a path of %u", h->index, len,
				path->max_payload);
		wrong = monitor_packet(s->monitor, buf, len);
		if (wrong)
			sim_fail(s, "host %u sent %s", h->index, wrong);
		s->trace = sd_crc32c(s->trace, &s->now, sizeof s->now);
		s->trace = sd_crc32c(s->trace, buf, len);
		put_on_link(s, h->index, path->hdr[0], buf, len, false);
	}
	if (tp_output_pending(h->tp))
		h->wake_at = s->now + SD_US; /* the NIC takes no more just now */
}

static void run_host(struct sim_host *h)
{
	struct sim *s = h->sim;
	uint64_t due;

	s->wakes++;
	h->wake_at = SIM_NEVER;
	if (s->now < h->asleep) {
		h->wake_at = h->asleep;
		return;
	}
	if (!h->tp) {
		drop_inbox(h);
	} else {
		h->may_alloc = false;
		deliver(h);
		if (tp_next_timeout(h->tp) <= s->now)
			tp_timeout(h->tp, s->now);
		h->may_alloc = true;
		tp_refill(h->tp);
	}
	h->app_at = s->app->run(h);
	if (h->tp) {
		if (s->isn_below)
			move_isns(h);
		h->may_alloc = false;
		transmit(h);
		h->may_alloc = true;
		if (s->wakes % 16 == 0)
			check_conns(h);
		due = tp_next_timeout(h->tp);
		if (due != SIM_NEVER && h->lag)
			due += sd_rng_below(&s->rng, h->lag + 1);
		if (due < h->wake_at)
			h->wake_at = due < s->now ? s->now : due;
	}
	if (h->app_at < h->wake_at)
		h->wake_at = h->app_at;
}

static void arrive(struct sim *s)
{
	struct sim_packet *p = heap_pop(s);
	struct sim_host *h = &s->hosts[p->to];

	p->next = NULL;
	if (h->asleep == SIM_NEVER) {
		free(p);
		return;
	}
	*h->inbox_tail = p;
	h->inbox_tail = &p->next;
	sim_wake(h);
}

void sim_run(struct sim *s, uint64_t until)
{
	while (!s->failure[0]) {
		uint64_t next = s->heap_len ? s->heap[0]->at : SIM_NEVER;
		struct sim_host *who = NULL;

		for (unsigned i = 0; i < s->n_hosts; i++) {
			if (s->hosts[i].wake_at < next) {
				who = &s->hosts[i];
				next = who->wake_at;
			}
		}
		if (next > until)
			break;
		if (next > s->now) {
			s->now = next;
			s->at_once = 0;
		}
		if (++s->at_once > 100000)
			sim_fail(s, "time stands still");
		if (who)
			run_host(who);
		else
			arrive(s);
	}
	if (s->now < until && until != SIM_NEVER)
		s->now = until;
}
