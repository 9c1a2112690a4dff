/* SPDX-License-Identifier: BSD-3-Clause */
/* What a seed means, and the oracle. */
#include "streams.h"

#include <errno.h>
#include <string.h>

/* --- what a seed means --- */

static void draw_links(struct world *w, bool perfect)
{
	struct sim *s = &w->sim;
	bool bad = !perfect && sim_chance(s, 0.6);
	uint64_t delay = sim_scale(s, 500, sim_chance(s, 0.1) ? 20 * SD_MS : 200 * SD_US);
	uint64_t rate = sim_chance(s, 0.5) ? 0 : sim_scale(s, 10000000, 10000000000);

	for (unsigned i = 0; i < s->n_hosts; i++) {
		for (unsigned k = 0; k < s->n_hosts; k++) {
			struct sim_link *l = &s->links[i][k];

			l->delay = delay;
			l->rate = rate;
			l->jitter = perfect ? 0 : sd_rng_below(&s->rng, delay);
			l->queue = perfect || sim_chance(s, 0.5) ? 0 : sim_scale(s, 50 * SD_US, 20 * SD_MS);
			if (!bad)
				continue;
			l->loss = sim_chance(s, 0.7) ? (double)sim_scale(s, 1, 200) / 1000 : 0;
			l->duplicate = sim_chance(s, 0.5) ? sd_rng_unit(&s->rng) * 0.1 : 0;
			l->reorder = sim_chance(s, 0.5) ? sd_rng_unit(&s->rng) * 0.3 : 0;
			l->reorder_delay = sim_scale(s, 1000, 5 * SD_MS);
			l->corrupt = sim_chance(s, 0.5) ? sd_rng_unit(&s->rng) * 0.05 : 0;
			l->ce = sim_chance(s, 0.3) ? sd_rng_unit(&s->rng) : 0;
		}
	}
}

static bool damages(const struct sim *s)
{
	for (unsigned i = 0; i < s->n_hosts; i++)
		for (unsigned k = 0; k < s->n_hosts; k++)
			if (s->links[i][k].corrupt > 0)
				return true;
	return false;
}

static void draw_hosts(struct world *w)
{
	struct sim *s = &w->sim;
	bool crc = damages(s) || sim_chance(s, 0.5);
	uint64_t lag = sim_chance(s, 0.5) ? 0 : sim_scale(s, 100, 100 * SD_US);
	bool skewed = sim_chance(s, 0.3);

	if (sim_chance(s, 0.2))
		s->isn_below = (uint32_t)sim_scale(s, 1, 2000);
	for (unsigned i = 0; i < s->n_hosts; i++) {
		struct sim_host *h = &s->hosts[i];

		h->cfg.crc = crc;
		h->cfg.window_packets = 32u << sd_rng_below(&s->rng, 6);
		h->cfg.ring_min = 4096u << sd_rng_below(&s->rng, 4);
		h->cfg.ring_max = h->cfg.ring_min << sd_rng_below(&s->rng, 6);
		h->cfg.ack_delay_ns = sim_scale(s, 1000, SD_MS);
		h->cfg.connect_timeout_ns = 20 * SD_S; /* so long that loss alone never brings it about */
		h->cfg.dead_timeout_ns = 40 * SD_S;
		h->cfg.keepalive_ns = 30 * SD_S;
		h->cfg.cc = sim_chance(s, 0.3) ? &tp_cc_fixed : &tp_cc_swift;
		h->max_payload =
			(uint16_t)(sim_chance(s, 0.5) ? 1472 : sim_between(s, WIRE_MIN_PAYLOAD, 9000));
		h->lag = lag;
		h->in_parts = sim_chance(s, 0.5);
		h->burst = sim_chance(s, 0.2) ? 1 + (unsigned)sd_rng_below(&s->rng, 8) : BURST_MAX;
		if (skewed) {
			h->clock_behind = (int64_t)sd_rng_below(&s->rng, s->begin + 1);
			h->clock_ppm = (int)sim_between(s, 0, 400) - 200;
		}
	}
}

static void draw_side(struct side *x, struct pair *p, unsigned k, struct sim_host *h, uint64_t most)
{
	struct sim *s = h->sim;

	memset(x, 0, sizeof *x);
	x->pair = p;
	x->peer = &p->side[1 - k];
	x->host = h;
	x->seed = sd_rng_next(&s->rng);
	x->total = sim_chance(s, 0.1)	? 0
		   : sim_chance(s, 0.3) ? sim_between(s, most / 2, most)
					: sim_scale(s, 1, most);
	x->write_max = (uint32_t)sim_scale(s, 1 + x->total / 2000, 200000);
	x->read_max = (uint32_t)sim_scale(s, 1 + most / 2000, 200000);
	x->pause = sim_chance(s, 0.8) ? 0 : sim_scale(s, 100, 100 * SD_US);
	x->window = SIM_NEVER;
	x->resume = SIM_NEVER;
	x->wait_drained = sim_chance(s, 0.5);
	x->cork = sim_chance(s, 0.05);
	x->by_the_rings = sim_chance(s, 0.3);
}

void scene_pairs(struct world *w, unsigned n, uint64_t most, uint64_t within)
{
	struct sim *s = &w->sim;

	w->n_pairs = n;
	w->backlog = PAIRS_MAX;
	w->any_address = sim_chance(s, 0.5);
	for (unsigned i = 0; i < n; i++) {
		struct pair *p = &w->pairs[i];
		unsigned a = (unsigned)sd_rng_below(&s->rng, s->n_hosts);
		unsigned b = (a + 1 + (unsigned)sd_rng_below(&s->rng, s->n_hosts - 1)) % s->n_hosts;

		p->port = (uint16_t)(PORT_FIRST + i);
		p->start_at = s->now + sd_rng_below(&s->rng, within + 1);
		p->started = p->may_reset = false;
		draw_side(&p->side[0], p, 0, &s->hosts[a], most);
		draw_side(&p->side[1], p, 1, &s->hosts[b], most);
		if (sim_chance(s, 0.3)) { /* requests and replies */
			uint64_t size = sim_scale(s, 1, 4000);
			bool server_first = sim_chance(s, 0.3);

			if (most > 200 * size)
				most = 200 * size;
			if (p->side[0].total > most)
				p->side[0].total = most;
			p->side[1].total = p->side[0].total;
			p->side[server_first].window = size;
			p->side[!server_first].window = 0;
		} else if (sim_chance(s, 0.3)) { /* one way, and closed at once */
			p->side[1].total = 0;
			p->side[0].ending = END_CLOSE;
		} else if (sim_chance(s, 0.1)) {
			p->side[0].total = 0;
			p->side[1].ending = END_CLOSE;
		}
	}
}

/* --- topologies that change --- */

void scene_share(struct world *w)
{
	struct sim *s = &w->sim;
	bool ecn = sim_chance(s, 0.5), spine = sim_chance(s, 0.3);

	for (unsigned i = 0; i < s->n_hosts; i++) {
		struct sim_queue *q = &w->queues[i];

		q->rate = sim_scale(s, 10000000, 1000000000);
		q->capacity = sim_scale(s, 10000, 200000);
		q->mark = ecn ? q->capacity / sim_between(s, 2, 8) : 0;
	}
	for (unsigned i = 0; i < s->n_hosts; i++) {
		for (unsigned k = 0; k < s->n_hosts; k++) {
			struct sim_link *l = &s->links[i][k];

			l->queue = 0;
			l->via[0] = spine ? &w->queues[QUEUES_MAX - 1] : &w->queues[k];
			l->via[1] = spine ? &w->queues[k] : NULL;
		}
	}
	if (spine)
		w->queues[QUEUES_MAX - 1] =
			(struct sim_queue){.rate = sim_scale(s, 10000000, 10000000000), .capacity = 1 << 20};
}

void scene_skew(struct world *w)
{
	struct sim *s = &w->sim;

	for (unsigned i = 0; i < s->n_hosts; i++) {
		for (unsigned k = 0; k < s->n_hosts; k++) {
			struct sim_link *l = &s->links[i][k];

			l->loss = sim_chance(s, 0.5) ? 0 : sd_rng_unit(&s->rng) * 0.3;
			l->delay = sim_scale(s, 500, 5 * SD_MS);
			l->jitter = sim_chance(s, 0.5) ? 0 : sd_rng_below(&s->rng, l->delay);
			l->rate = sim_chance(s, 0.3) ? 0 : sim_scale(s, 2000000, 10000000000);
			l->queue = sim_chance(s, 0.5) ? 0 : sim_scale(s, 5 * SD_MS, 50 * SD_MS);
		}
	}
}

void scene_change(struct world *w, unsigned n, uint64_t within)
{
	struct sim *s = &w->sim;

	for (unsigned i = 0; i < n; i++) {
		struct sim_change *c = &w->changes[i];
		uint64_t at = s->now + sim_scale(s, 10 * SD_US, within);

		c->link = &s->links[sd_rng_below(&s->rng, s->n_hosts)][sd_rng_below(&s->rng, s->n_hosts)];
		c->now = *c->link;
		c->now.delay = sim_scale(s, 500, 20 * SD_MS);
		c->now.rate = sim_chance(s, 0.5) ? 0 : sim_scale(s, 10000000, 10000000000);
		c->now.loss = sim_chance(s, 0.5) ? 0 : sd_rng_unit(&s->rng) * 0.2;
		c->now.down = i + 1 < n && sim_chance(s, 0.3);
		c->overtake = sim_chance(s, 0.5);
		sim_change_at(s, at, c);
		if (!c->now.down)
			continue;
		c[1] = *c;
		c[1].now.down = false;
		sim_change_at(s, at + sim_scale(s, 10 * SD_US, 2 * SD_S), &c[1]);
		i++;
	}
}

void scene_hole(struct world *w, unsigned host, uint16_t least, uint64_t at, uint64_t lasts)
{
	struct sim *s = &w->sim;
	uint16_t most = s->hosts[host].max_payload;
	uint16_t mtu = most < least ? most : (uint16_t)sim_between(s, least, most);

	for (unsigned k = 0; k < s->n_hosts; k++) {
		struct sim_change *c = &w->changes[2 * k];

		c->link = c[1].link = &s->links[host][k];
		c->now = c[1].now = *c->link;
		c->now.mtu = mtu;
		sim_change_at(s, at, c);
		if (lasts != SIM_NEVER)
			sim_change_at(s, at + lasts, &c[1]);
	}
}

/* --- runs --- */

/* Keeps the pairs from first on, and what SIM_TRIM leaves of them. */
static void trim(struct world *w)
{
	unsigned first = (unsigned)trim_value("from", 0);

	trim_sim(&w->sim);
	if (first > w->n_pairs)
		first = w->n_pairs;
	w->n_pairs = (unsigned)trim_bound("pairs", w->n_pairs - first);
	memmove(w->pairs, w->pairs + first, w->n_pairs * sizeof *w->pairs);
	for (unsigned i = 0; i < w->n_pairs; i++) {
		struct pair *p = &w->pairs[i];

		p->port = (uint16_t)(PORT_FIRST + i);
		p->may_reset &= !trim_off("endings");
		for (unsigned k = 0; k < 2; k++) {
			struct side *x = &p->side[k];

			x->pair = p;
			x->peer = &p->side[1 - k];
			x->total = trim_bound("bytes", x->total);
			x->pause = trim_off("pauses") ? 0 : x->pause;
			x->read_from = trim_off("pauses") ? 0 : x->read_from;
			x->ending = trim_off("endings") ? END_SHUT : x->ending;
			x->cork &= !trim_off("settings");
			x->by_the_rings &= !trim_off("settings");
		}
	}
	if (trim_off("crash"))
		w->crash_at = SIM_NEVER;
	if (trim_off("silence"))
		w->silent_at = SIM_NEVER;
	w->hand_overs = (unsigned)trim_bound("hand-overs", w->hand_overs);
}

static void boot(struct world *w)
{
	for (unsigned i = 0; i < w->sim.n_hosts; i++) {
		sim_boot(&w->sim.hosts[i]);
		streams_listen(w, &w->sim.hosts[i]);
	}
	w->last_progress = w->sim.now;
}

void scene_draw(struct world *w, uint64_t seed, unsigned n_hosts, bool perfect)
{
	memset(w, 0, sizeof *w);
	sim_open(&w->sim, seed, n_hosts, seed % 2 ? 4 : 6, &streams_app, w);
	w->sim.verbose = trim_seeds(0).verbose;
	w->crash_at = w->silent_at = SIM_NEVER;
	draw_links(w, perfect);
	draw_hosts(w);
}

/* --- the oracle --- */

static bool finished(const struct world *w)
{
	for (unsigned i = 0; i < w->n_pairs; i++) {
		const struct pair *p = &w->pairs[i];

		if (p->side[0].host->asleep != SIM_NEVER && (!p->started || !p->side[0].closed))
			return false;
		if (p->side[1].host->asleep != SIM_NEVER && p->side[1].c)
			return false;
	}
	for (unsigned i = 0; i < w->sim.n_hosts; i++) {
		const struct sim_host *h = &w->sim.hosts[i];

		if (h->asleep != SIM_NEVER && (!h->tp || h->tp->conn_count || tp_lingering(h->tp)))
			return false;
	}
	return true;
}

static bool error_allowed(const struct world *w, const struct side *x)
{
	switch (x->error) {
	case 0:
		return true;
	case -ECONNRESET:
		return x->pair->may_reset || w->may_die;
	case -ETIMEDOUT:
		return w->may_die;
	case -ECONNREFUSED:
		return w->may_refuse && !x->open;
	}
	return false;
}

static void judge_side(struct world *w, const struct side *x)
{
	const struct side *y = x->peer;
	bool clean = !w->may_die && !x->pair->may_reset && !w->may_refuse;

	if (!error_allowed(w, x))
		sim_fail(&w->sim, "port %u: error %d on the %s side", x->pair->port, x->error,
			x == &x->pair->side[0] ? "client's" : "server's");
	if (!clean)
		return;
	if (!x->closed)
		sim_fail(&w->sim, "port %u: never accepted", x->pair->port);
	if (x->ending == END_SHUT && (!x->eof || x->read != y->total))
		sim_fail(&w->sim, "port %u: read %llu of %llu bytes", x->pair->port,
			(unsigned long long)x->read, (unsigned long long)y->total);
	if (x->written != x->total)
		sim_fail(&w->sim, "port %u: wrote %llu of %llu bytes", x->pair->port,
			(unsigned long long)x->written, (unsigned long long)x->total);
}

static void judge_host(struct world *w, const struct sim_host *h)
{
	struct tp_stats st;

	sim_stats(h, &st);
	if (st.rx_out_of_window)
		sim_fail(&w->sim, "host %u: %llu packets were out of the window", h->index,
			(unsigned long long)st.rx_out_of_window);
	if (!w->sim.damaged && (st.rx_bad_header || st.rx_bad_crc))
		sim_fail(&w->sim, "host %u: malformed packets", h->index);
	if (h->tp && h->asleep != SIM_NEVER && (h->tp->half_open || h->tp->free_count != h->tp->max_conns))
		sim_fail(&w->sim, "host %u: %u half-open connections left, %u slots free", h->index,
			h->tp->half_open, h->tp->free_count);
}

static void tell_unfinished(struct world *w)
{
	for (unsigned i = 0; i < 2 * w->n_pairs; i++) {
		const struct side *x = &w->pairs[i / 2].side[i % 2];

		if (x->host->asleep == SIM_NEVER || x->closed || (!x->c && i % 2))
			continue;
		sim_fail(&w->sim,
			"port %u: %s unfinished: wrote %llu/%llu read %llu/%llu shut %d eof %d drained %d",
			x->pair->port, i % 2 ? "server" : "client", (unsigned long long)x->written,
			(unsigned long long)x->total, (unsigned long long)x->read,
			(unsigned long long)x->peer->total, x->shut, x->eof, x->drained);
	}
	for (unsigned i = 0; i < w->sim.n_hosts; i++)
		if (w->sim.hosts[i].tp && w->sim.hosts[i].tp->conn_count)
			sim_fail(&w->sim, "host %u has %u connections left", i,
				w->sim.hosts[i].tp->conn_count);
	sim_fail(&w->sim, "it does not end");
}

void scene_run(struct world *w, uint64_t limit)
{
	uint64_t end = w->sim.now + limit;

	trim(w);
	boot(w);
	while (!w->sim.failure[0] && !finished(w) && w->sim.now < end)
		sim_run(&w->sim, w->sim.now + 50 * SD_MS);
	if (!w->sim.failure[0] && !finished(w))
		tell_unfinished(w);
	for (unsigned i = 0; i < w->n_pairs && !w->sim.failure[0]; i++)
		for (unsigned k = 0; k < 2; k++)
			if (w->pairs[i].side[k].host->asleep != SIM_NEVER)
				judge_side(w, &w->pairs[i].side[k]);
	for (unsigned i = 0; i < w->sim.n_hosts; i++)
		judge_host(w, &w->sim.hosts[i]);
	sim_close(&w->sim);
	for (unsigned i = 0; i < 2 * w->n_pairs; i++)
		streams_drop(&w->pairs[i / 2].side[i % 2]);
}
