/* SPDX-License-Identifier: BSD-3-Clause */
/* The simulator's hosts: their memory, their clocks, and what they do when they are awake. */
#include "sim.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "nic.h"
#include "pcap.h"

#define CHECKED 256 /* connections at once */

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

/* --- the bytes --- */

static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9;
	x ^= x >> 27;
	x *= 0x94d049bb133111eb;
	return x ^ x >> 31;
}

void sim_bytes(uint64_t seed, uint64_t off, uint8_t *out, size_t len)
{
	while (len) {
		uint64_t word = mix(seed + off / 8);
		size_t at = off % 8, n = 8 - at < len ? 8 - at : len;

		memcpy(out, (uint8_t *)&word + at, n);
		out += n;
		off += n;
		len -= n;
	}
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

uint64_t sim_clock(const struct sim_host *h)
{
	int64_t passed = (int64_t)(h->sim->now - h->sim->begin);

	return h->sim->now - (uint64_t)h->clock_behind + (uint64_t)(passed * h->clock_ppm / 1000000);
}

/* When the host's clock will show that. */
static uint64_t clock_shows(const struct sim_host *h, uint64_t local)
{
	int64_t behind = (int64_t)(local - sim_clock(h));

	if (local == SIM_NEVER)
		return SIM_NEVER;
	if (behind <= 0)
		return h->sim->now;
	return h->sim->now + (uint64_t)((double)behind / (1 + h->clock_ppm / 1e6)) + (h->clock_ppm != 0);
}

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
	if (tp_create(&h->cfg, &host_ops, h, sim_clock(h), &h->tp))
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
	nic_forget(h);
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

	tp_save(h->tp, sim_clock(h), &p);
	nic_forget(h);
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
	r = tp_restore(h->tp, sim_clock(h), &u, owned, h);
	h->alloc_fails = fails;
	if (r || u.at != u.end)
		sim_fail(h->sim, "host %u: restored with %d, %td bytes left", h->index, r, u.end - u.at);
	sd_pack_free(&p);
	sim_wake(h);
}

/* Earlier events of the heap that wake it find another time here, and do nothing. */
static void wake_by(struct sim_host *h, uint64_t at)
{
	if (at >= h->wake_at)
		return;
	h->wake_at = at;
	sim_heap_push(&h->sim->heap, at, SIM_WAKE, h);
}

void sim_wake(struct sim_host *h)
{
	uint64_t at = h->sim->now + (h->lag ? sd_rng_below(&h->sim->rng, h->lag + 1) : 0);

	wake_by(h, at);
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
	s->pcap = pcap_open(getenv("SIM_PCAP"));
	sd_rng_seed(&s->rng, seed);
	s->begin = s->now = sd_rng_below(&s->rng, 1ull << 50);
	for (unsigned i = 0; i < n_hosts; i++) {
		struct sim_host *h = &s->hosts[i];

		s->links[i] = calloc(n_hosts, sizeof **s->links);
		if (!s->links[i])
			abort();
		h->sim = s;
		h->index = i;
		h->addr.family = (uint8_t)family;
		h->addr.ip[0] = family == 4 ? 10 : 0xfd;
		h->addr.ip[family == 4 ? 3 : 15] = (uint8_t)(i + 1);
		h->max_payload = 1472;
		h->hold_max = 2 * SD_MS;
		h->cfg.rest_ns = (50 * SD_US) << (seed % 12);
		h->cfg.crowd = seed / 12 % 2;
		h->burst = 64;
		h->wake_at = SIM_NEVER;
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
	for (unsigned i = 0; i < s->n_hosts; i++) {
		free(s->links[i]);
		s->links[i] = NULL;
	}
	sim_heap_free(&s->heap);
	monitor_free(s->monitor);
	if (s->pcap)
		fclose(s->pcap);
	s->monitor = NULL;
}

/* --- running --- */

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

/* Every packet between the oldest unacknowledged one and the next is thought to be in one of three places. Of
 * many connections some have their turn. */
static void check_conns(struct sim_host *h)
{
	for (uint32_t n = h->tp->max_conns < CHECKED ? h->tp->max_conns : CHECKED; n; n--) {
		const struct tp_conn *c = h->tp->slots[h->check_at++ % h->tp->max_conns];

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
		struct tp_rx rx = {
			.local = &h->addr, .peer = &s->hosts[p->from].addr, .frame = p, .ce = p->ce};

		h->inbox = p->next;
		sim_describe(s, "recv", p);
		for (unsigned step = 0; step < TP_WARM_STEPS; step++)
			tp_expect(h->tp, p->data, p->len, step);
		tp_input(h->tp, sim_clock(h), p->data, p->len, &rx);
		free(p);
	}
	h->inbox_tail = &h->inbox;
}

static void watch(struct sim_host *h, const uint8_t *data, size_t len)
{
	struct sim *s = h->sim;
	const char *wrong;

	if (!s->monitor)
		return;
	wrong = monitor_packet(s->monitor, data, len);
	if (wrong)
		sim_fail(s, "host %u sent %s", h->index, wrong);
	s->trace = sd_crc32c(s->trace, &s->now, sizeof s->now);
	s->trace = sd_crc32c(s->trace, data, len);
}

static void transmit(struct sim_host *h)
{
	struct sim *s = h->sim;
	uint8_t buf[65536];

	for (unsigned n = 0; n < h->burst; n++) {
		const struct tp_path *path = NULL;
		size_t len = nic_output(h, buf, &path);

		if (!len)
			return;
		if (len > h->max_payload || len > path->max_payload)
			sim_fail(s, "host %u: a packet of %zu bytes on a path of %u", h->index, len,
				path->max_payload);
		watch(h, buf, len);
		pcap_packet(s->pcap, s->now, &h->addr, &path->peer, buf, len);
		sim_send(s, h->index, path, buf, len);
	}
	if (tp_output_pending(h->tp))
		wake_by(h, s->now + SD_US); /* the NIC takes no more just now */
}

static void run_timers(struct sim_host *h)
{
	if (tp_next_timeout(h->tp) <= sim_clock(h))
		tp_timeout(h->tp, sim_clock(h));
}

static void set_timer(struct sim_host *h)
{
	uint64_t due = clock_shows(h, tp_next_timeout(h->tp));

	if (due != SIM_NEVER && h->lag)
		due += sd_rng_below(&h->sim->rng, h->lag + 1);
	wake_by(h, due);
	wake_by(h, nic_next(h));
}

static void run_host(struct sim_host *h)
{
	struct sim *s = h->sim;

	s->wakes++;
	h->wake_at = SIM_NEVER;
	if (s->now < h->asleep) {
		wake_by(h, h->asleep);
		return;
	}
	if (!h->tp) {
		drop_inbox(h);
	} else {
		h->may_alloc = false;
		nic_release(h);
		deliver(h);
		run_timers(h);
		h->may_alloc = true;
		tp_refill(h->tp);
	}
	wake_by(h, s->app->run(h));
	if (!h->tp)
		return;
	if (s->isn_below)
		move_isns(h);
	h->may_alloc = false;
	transmit(h);
	h->may_alloc = true;
	if (s->wakes % 16 == 0)
		check_conns(h);
	set_timer(h);
}

static void arrive(struct sim *s, struct sim_packet *p)
{
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

static void happen(struct sim *s, const struct sim_event *e)
{
	switch (e->kind) {
	case SIM_ARRIVAL:
		arrive(s, e->what);
		return;
	case SIM_HOP:
		sim_hop(s, e->what);
		return;
	case SIM_SERVED:
		sim_served(s, e->what);
		return;
	case SIM_CALL:
		if (e->call)
			e->call(s, e->what);
		return;
	case SIM_WAKE:
		run_host(e->what);
		return;
	}
}

static bool is_stale(const struct sim_event *e)
{
	return e->kind == SIM_WAKE && ((const struct sim_host *)e->what)->wake_at != e->at;
}

void sim_run(struct sim *s, uint64_t until)
{
	while (!s->failure[0] && s->heap.len && s->heap.events[0].at <= until) {
		struct sim_event e = sim_heap_pop(&s->heap);

		if (is_stale(&e))
			continue;
		if (e.at > s->now) {
			s->now = e.at;
			s->at_once = 0;
		}
		if (++s->at_once > 100000)
			sim_fail(s, "time stands still");
		happen(s, &e);
	}
	if (s->now < until && until != SIM_NEVER)
		s->now = until;
}
