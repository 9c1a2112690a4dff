/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Simulated runs: applications that write, read, dawdle, close and abort at random over links that misbehave,
 * and an oracle that knows every byte. Each case is one kind of trouble; each of its seeds draws hosts,
 * links, settings and behaviour anew. SIM_SEED=n runs that seed of every case, in words;
 * SANDIRECT_TEST_LONG=1 runs ten times as many.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sim.h"

#define SEEDS	    2000 /* over all cases */
#define PAIRS_MAX   160
#define PORT_FIRST  20000
#define SERVER_PORT 80
#define STALL_MAX   (15 * SD_S) /* of ever slower retransmissions; keepalive comes later */
#define BURST_MAX   64
#define CLOSED_PORT 81

enum ending {
	END_SHUT,     /* FIN after the last byte, read to the end, close */
	END_CLOSE,    /* close after the last byte, whether or not the peer has got it */
	END_CLOSE_AT, /* close at some time, whatever there is */
	END_ABORT_AT,
};

struct pair;

/* One end of a connection and what its application will do. */
struct side {
	struct pair *pair;
	struct side *peer;
	struct sim_host *host;
	struct tp_conn *c;
	uint64_t seed, total;
	uint32_t write_max, read_max;
	uint64_t pause;	    /* ns between its actions, at most */
	uint64_t read_from; /* reads nothing before */
	uint64_t window;    /* may be so many bytes ahead of what it has read; SIM_NEVER: any */
	enum ending ending;
	uint64_t end_at;
	bool wait_drained, cork;
	uint64_t written, read, resume;
	bool can_read, can_write, open, eof, shut, drained, closed, failed;
	uint64_t name; /* of c, in what was saved */
	int error;
};

struct pair {
	struct side side[2]; /* client, server */
	uint64_t start_at;
	uint16_t port;
	bool started, may_reset;
};

struct world {
	struct sim sim;
	struct pair pairs[PAIRS_MAX];
	unsigned n_pairs;
	struct tp_listener *listeners[SIM_HOSTS_MAX];
	unsigned backlog;
	bool any_address; /* listeners on the wildcard */
	uint64_t accept_from;
	bool may_refuse, may_time_out, may_die, short_of_memory;
	uint64_t stall_limit, last_progress;
	/* One host crashes and comes back, or hears and says nothing for a while. */
	unsigned trouble_host;
	uint64_t crash_at, crash_for, silent_at, silent_until;
	/* Any host is handed over. */
	uint64_t hand_over_at[SIM_HOSTS_MAX], hand_over_every;
};

/* --- the bytes --- */

static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9;
	x ^= x >> 27;
	x *= 0x94d049bb133111eb;
	return x ^ x >> 31;
}

static void stream_bytes(uint64_t seed, uint64_t off, uint8_t *out, size_t len)
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

/* --- applications --- */

static struct world *world_of(struct sim_host *h)
{
	return h->sim->ctx;
}

static void progress(struct world *w)
{
	uint64_t gap = w->sim.now - w->last_progress;

	if (w->stall_limit && gap > w->stall_limit)
		sim_fail(&w->sim, "nothing moved for %.3f ms", (double)gap / 1e6);
	w->last_progress = w->sim.now;
}

static void on_event(struct sim_host *h, struct tp_conn *c, void *user, unsigned events)
{
	struct side *x = user;

	if (!x || x->c != c || x->closed) {
		sim_fail(h->sim, "an event for a connection that the application does not hold");
		return;
	}
	if (events & TP_EV_OPEN)
		x->open = x->can_write = x->can_read = true;
	if (events & TP_EV_READABLE)
		x->can_read = true;
	if (events & TP_EV_WRITABLE)
		x->can_write = true;
	if (events & TP_EV_DRAINED)
		x->drained = true;
	if (events & TP_EV_FAILED)
		x->failed = x->can_read = true;
	if (x->resume == SIM_NEVER)
		x->resume = h->sim->now;
}

static void on_acceptable(struct sim_host *h, struct tp_listener *l, void *user)
{
	if (user != world_of(h))
		sim_fail(h->sim, "acceptable: not the listener's user");
}

static void finish(struct side *x, bool abort)
{
	tp_close(x->c, sim_clock(x->host), abort);
	x->c = NULL;
	x->closed = true;
}

static void check_bytes(struct side *x, uint64_t off, const uint8_t *got, size_t len)
{
	static uint8_t want[1 << 20];

	if (off + len > x->peer->written) {
		sim_fail(x->host->sim, "port %u: read %llu bytes of %llu written", x->pair->port,
			(unsigned long long)(off + len), (unsigned long long)x->peer->written);
		return;
	}
	stream_bytes(x->peer->seed, off, want, len);
	for (size_t i = 0; i < len; i++) {
		if (got[i] != want[i]) {
			sim_fail(x->host->sim, "port %u: byte %llu is wrong", x->pair->port,
				(unsigned long long)(off + i));
			return;
		}
	}
}

static void check_eof(struct side *x)
{
	struct side *y = x->peer;

	if (!(y->shut || y->closed) || x->read != y->written)
		sim_fail(x->host->sim, "port %u: end after %llu bytes of %llu", x->pair->port,
			(unsigned long long)x->read, (unsigned long long)y->written);
	x->eof = true;
}

static bool act_read(struct side *x)
{
	static uint8_t buf[1 << 20];
	struct world *w = world_of(x->host);
	size_t want = sim_between(&w->sim, 1, x->read_max), readable = tp_readable(x->c);
	ptrdiff_t n;

	if (readable && sim_chance(&w->sim, 0.1)) {
		size_t skip = sd_rng_below(&w->sim.rng, readable + 1);

		n = tp_peek(x->c, buf, want, skip);
		if (n < 0 || (size_t)n != (want < readable - skip ? want : readable - skip))
			sim_fail(&w->sim, "port %u: peek gave %td", x->pair->port, n);
		else
			check_bytes(x, x->read + skip, buf, (size_t)n);
	}
	n = tp_read(x->c, buf, want);
	if (n < 0) {
		x->error = (int)n;
		x->can_read = false;
		return false;
	}
	if ((size_t)n != (want < readable ? want : readable))
		sim_fail(&w->sim, "port %u: read %td of %zu readable", x->pair->port, n, readable);
	check_bytes(x, x->read, buf, (size_t)n);
	x->read += (size_t)n;
	if (n)
		progress(w);
	if (tp_at_eof(x->c))
		check_eof(x);
	if (!n)
		x->can_read = false;
	return n > 0;
}

static uint64_t write_room(const struct side *x)
{
	uint64_t room = x->total - x->written;

	if (x->window != SIM_NEVER && x->read + x->window - x->written < room)
		room = x->read + x->window - x->written;
	return room;
}

static bool act_write(struct side *x)
{
	static uint8_t buf[1 << 20];
	struct world *w = world_of(x->host);
	uint64_t room = write_room(x);
	size_t len = sim_between(&w->sim, 1, x->write_max);
	ptrdiff_t n;

	if (len > room)
		len = room;
	if (x->cork)
		tp_set_cork(x->c, sim_clock(x->host), sim_chance(&w->sim, 0.5));
	stream_bytes(x->seed, x->written, buf, len);
	n = tp_write(x->c, buf, len);
	if (n < 0) {
		if (n == -ENOMEM && w->short_of_memory) {
			x->resume = w->sim.now + SD_MS;
			return false;
		}
		if (n != tp_error(x->c))
			sim_fail(&w->sim, "port %u: write gave %td", x->pair->port, n);
		x->can_write = false;
		return false;
	}
	if ((size_t)n > len)
		sim_fail(&w->sim, "port %u: wrote %td of %zu", x->pair->port, n, len);
	if ((size_t)n < len)
		x->can_write = false;
	x->written += (size_t)n;
	x->drained = false;
	if (n)
		progress(w);
	return n > 0;
}

/* What comes after the last byte. */
static void act_end(struct side *x)
{
	struct world *w = world_of(x->host);
	bool complete = x->written == x->total || (x->window != SIM_NEVER && x->eof && x->written == x->read);

	if (x->failed && (!x->can_read || x->eof)) {
		if (!x->error)
			x->error = tp_error(x->c);
		finish(x, sim_chance(&w->sim, 0.5));
		return;
	}
	if (!complete || !x->open)
		return;
	if (x->ending == END_CLOSE) {
		x->shut = true;
		finish(x, false);
		return;
	}
	if (!x->shut) {
		tp_shutdown(x->c);
		x->shut = true;
		x->drained = false;
		if (tp_write(x->c, "x", 1) != (x->failed ? tp_error(x->c) : -EPIPE))
			sim_fail(&w->sim, "port %u: a write after shutdown", x->pair->port);
	}
	if (x->eof && (!x->wait_drained || x->drained))
		finish(x, false);
}

static void act(struct side *x)
{
	struct world *w = world_of(x->host);
	uint64_t now = w->sim.now;

	x->resume = SIM_NEVER;
	if (x->read_from && now >= x->read_from) { /* from here on it is not the reader's fault */
		w->last_progress = now;
		x->read_from = 0;
	}
	if (x->ending >= END_CLOSE_AT && now >= x->end_at) {
		finish(x, x->ending == END_ABORT_AT);
		return;
	}
	for (unsigned ops = 1 + (unsigned)sd_rng_below(&w->sim.rng, 8); ops; ops--) {
		bool moved = false;

		if (x->can_read && !x->eof && now >= x->read_from)
			moved |= act_read(x);
		if (x->can_write && write_room(x) && !x->shut && !x->failed)
			moved |= act_write(x);
		if (!moved)
			break;
	}
	if (w->sim.failure[0])
		return;
	act_end(x);
	if (x->closed)
		return;
	if ((x->can_read && !x->eof && now >= x->read_from) ||
		(x->can_write && write_room(x) && !x->shut && !x->failed)) {
		uint64_t again = now + (x->pause ? sd_rng_below(&w->sim.rng, x->pause) : 0);

		if (again < x->resume)
			x->resume = again;
	}
	if (now < x->read_from && x->read_from < x->resume)
		x->resume = x->read_from;
	if (x->ending >= END_CLOSE_AT && x->end_at < x->resume)
		x->resume = x->end_at;
}

static void vary(struct side *x)
{
	struct sim *s = x->host->sim;

	if (sim_chance(s, 0.1))
		tp_set_nagle(x->c, true);
	if (sim_chance(s, 0.2))
		tp_set_buffers(x->c, (uint32_t)sim_scale(s, 1, 1 << 20), (uint32_t)sim_scale(s, 1, 1 << 20));
	if (sim_chance(s, 0.1))
		tp_set_keepalive(x->c, sim_clock(x->host), sim_scale(s, SD_MS, SD_S), 5 * SD_S,
			20); /* never too few for the loss */
	if (sim_chance(s, 0.1))
		tp_set_user_timeout(x->c, 60 * SD_S);
}

static void start(struct world *w, struct pair *p)
{
	struct side *x = &p->side[0];
	struct tp_path path;
	int err;

	sim_path(x->host, p->side[1].host, p->port,
		w->listeners[p->side[1].host->index] ? SERVER_PORT : CLOSED_PORT, &path);
	err = tp_connect(x->host->tp, sim_clock(x->host), &path, x, &x->c);
	if (err) {
		if (w->short_of_memory && err == -ENOMEM) {
			p->start_at = w->sim.now + SD_MS;
			return;
		}
		sim_fail(&w->sim, "tp_connect: %d", err);
		return;
	}
	p->started = true;
	vary(x);
	if (sim_chance(&w->sim, 0.3))
		x->can_write = true; /* before it is open */
	x->resume = w->sim.now;
}

static void adopt(struct world *w, struct tp_conn *c)
{
	struct tp_info info;
	struct side *x;

	tp_info(c, &info);
	if (info.peer.port < PORT_FIRST || info.peer.port >= PORT_FIRST + w->n_pairs) {
		sim_fail(&w->sim, "a connection from port %u", info.peer.port);
		return;
	}
	x = &w->pairs[info.peer.port - PORT_FIRST].side[1];
	if (x->c || x->closed) {
		sim_fail(&w->sim, "port %u accepted twice", info.peer.port);
		return;
	}
	x->c = c;
	tp_set_user(c, x);
	x->open = x->can_read = x->can_write = true;
	x->failed = tp_error(c) != 0;
	x->resume = w->sim.now;
	vary(x);
	progress(w);
}

static uint64_t run_acceptor(struct world *w, struct sim_host *h)
{
	struct tp_listener *l = w->listeners[h->index];
	struct tp_conn *c;

	if (!l || !tp_acceptable(l))
		return SIM_NEVER;
	if (w->sim.now < w->accept_from)
		return w->accept_from;
	while ((c = tp_accept(l, NULL)))
		adopt(w, c);
	return SIM_NEVER;
}

static void listen_on(struct world *w, struct sim_host *h)
{
	struct sd_addr a = h->addr;
	int err;

	if (w->any_address)
		memset(a.ip, 0, sizeof a.ip);
	a.port = SERVER_PORT;
	do
		err = tp_listen(h->tp, &a, w->backlog, w, &w->listeners[h->index]);
	while (err == -ENOMEM && w->short_of_memory);
	if (err)
		sim_fail(&w->sim, "tp_listen: %d", err);
}

/* The host's process dies with all that it had. */
static void crash(struct world *w, struct sim_host *h)
{
	for (unsigned i = 0; i < w->n_pairs; i++) {
		for (unsigned k = 0; k < 2; k++) {
			struct side *x = &w->pairs[i].side[k];

			if (x->host != h || x->closed || (!x->c && k == 1))
				continue;
			w->pairs[i].started = true;
			x->c = NULL;
			x->closed = true;
			x->resume = SIM_NEVER;
		}
	}
	w->listeners[h->index] = NULL;
	sim_crash(h);
}

static uint64_t run_crash(struct world *w, struct sim_host *h)
{
	if (w->sim.now < w->crash_at || w->crash_at == SIM_NEVER)
		return w->crash_at;
	if (h->tp) {
		crash(w, h);
		w->crash_at = w->sim.now + w->crash_for;
		return w->crash_at;
	}
	w->crash_at = SIM_NEVER;
	sim_boot(h);
	listen_on(w, h);
	return SIM_NEVER;
}

static uint64_t run_silence(struct world *w, struct sim_host *h)
{
	if (w->sim.now < w->silent_at)
		return w->silent_at;
	h->asleep = w->silent_until;
	w->silent_at = SIM_NEVER;
	return SIM_NEVER;
}

static void listen_again(struct sim_host *h)
{
	listen_on(world_of(h), h);
}

static void on_owned(void *host, uint64_t name, struct tp_conn *c)
{
	struct sim_host *h = host;
	struct world *w = world_of(h);

	for (unsigned i = 0; i < 2 * w->n_pairs; i++) {
		struct side *x = &w->pairs[i / 2].side[i % 2];

		if (x->host != h || x->name != name)
			continue;
		x->name = 0;
		x->c = c;
		tp_set_user(c, x);
		return;
	}
	sim_fail(h->sim, "restored a connection that the application did not have");
}

static void hand_over(struct world *w, struct sim_host *h)
{
	for (unsigned i = 0; i < 2 * w->n_pairs; i++) {
		struct side *x = &w->pairs[i / 2].side[i % 2];

		if (x->host == h && x->c)
			x->name = tp_saved_name(x->c);
	}
	sim_hand_over(h, listen_again, on_owned);
	for (unsigned i = 0; i < 2 * w->n_pairs; i++) {
		struct side *x = &w->pairs[i / 2].side[i % 2];

		if (x->host == h && x->name)
			sim_fail(&w->sim, "port %u: the connection was not restored", x->pair->port);
	}
}

/* Now and then, while there is something that it could do harm to. */
static uint64_t run_hand_over(struct world *w, struct sim_host *h)
{
	uint64_t *at = &w->hand_over_at[h->index];

	if (!w->hand_over_every || !h->tp)
		return SIM_NEVER;
	if (*at <= w->sim.now) {
		if (*at && sim_chance(&w->sim, 0.3))
			h->asleep = w->sim.now + sim_scale(&w->sim, SD_US, 20 * SD_MS);
		if (*at)
			hand_over(w, h);
		*at = w->sim.now + sim_scale(&w->sim, w->hand_over_every / 10, w->hand_over_every * 10);
	}
	return h->tp->conn_count ? *at : SIM_NEVER;
}

static uint64_t run_trouble(struct world *w, struct sim_host *h)
{
	uint64_t a, b;

	if (h->index != w->trouble_host)
		return SIM_NEVER;
	a = run_crash(w, h);
	b = run_silence(w, h);
	return a < b ? a : b;
}

static uint64_t run(struct sim_host *h)
{
	struct world *w = world_of(h);
	uint64_t next = run_trouble(w, h), t;

	if (!h->tp)
		return next;
	t = run_hand_over(w, h);
	if (t < next)
		next = t;
	t = run_acceptor(w, h);
	if (t < next)
		next = t;
	for (unsigned i = 0; i < w->n_pairs && !w->sim.failure[0]; i++) {
		struct pair *p = &w->pairs[i];

		if (!p->started && p->side[0].host == h) {
			if (p->start_at <= w->sim.now)
				start(w, p);
			if (!p->started && p->start_at < next)
				next = p->start_at;
		}
		for (unsigned k = 0; k < 2; k++) {
			struct side *x = &p->side[k];

			if (x->host != h || !x->c)
				continue;
			if (x->resume <= w->sim.now)
				act(x);
			if (!x->closed && x->resume < next)
				next = x->resume;
		}
	}
	return next;
}

static const struct sim_app app = {.event = on_event, .acceptable = on_acceptable, .run = run};

/* --- what a seed means --- */

static const char *kind; /* of the case that runs */

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
	w->may_time_out = false;
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
		h->burst = sim_chance(s, 0.2) ? 1 + (unsigned)sd_rng_below(&s->rng, 8) : BURST_MAX;
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
}

static void draw_pairs(struct world *w, unsigned n, uint64_t most, uint64_t within)
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

static void boot(struct world *w)
{
	for (unsigned i = 0; i < w->sim.n_hosts; i++) {
		sim_boot(&w->sim.hosts[i]);
		listen_on(w, &w->sim.hosts[i]);
	}
	w->last_progress = w->sim.now;
}

static void draw(struct world *w, uint64_t seed, unsigned n_hosts, bool perfect)
{
	memset(w, 0, sizeof *w);
	sim_open(&w->sim, seed, n_hosts, seed % 2 ? 4 : 6, &app, w);
	w->sim.verbose = getenv("SIM_SEED") != NULL;
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

static void run_world(struct world *w, uint64_t limit)
{
	uint64_t end = w->sim.now + limit;

	boot(w);
	while (!w->sim.failure[0] && !finished(w) && w->sim.now < end)
		sim_run(&w->sim, w->sim.now + 50 * SD_MS);
	if (!w->sim.failure[0] && !finished(w)) {
		for (unsigned i = 0; i < w->n_pairs; i++) {
			for (unsigned k = 0; k < 2; k++) {
				const struct side *x = &w->pairs[i].side[k];

				if (x->host->asleep != SIM_NEVER && !x->closed && (x->c || !k))
					sim_fail(&w->sim,
						"port %u: %s unfinished: wrote %llu/%llu read %llu/%llu shut "
						"%d eof %d "
						"drained %d",
						w->pairs[i].port, k ? "server" : "client",
						(unsigned long long)x->written, (unsigned long long)x->total,
						(unsigned long long)x->read,
						(unsigned long long)x->peer->total, x->shut, x->eof,
						x->drained);
			}
		}
		sim_fail(&w->sim, "connections are left: %u %u %u", w->sim.hosts[0].tp->conn_count,
			w->sim.hosts[1].tp->conn_count,
			w->sim.n_hosts > 2 ? w->sim.hosts[2].tp->conn_count : 0);
	}
	for (unsigned i = 0; i < w->n_pairs && !w->sim.failure[0]; i++)
		for (unsigned k = 0; k < 2; k++)
			if (w->pairs[i].side[k].host->asleep != SIM_NEVER)
				judge_side(w, &w->pairs[i].side[k]);
	for (unsigned i = 0; i < w->sim.n_hosts; i++)
		judge_host(w, &w->sim.hosts[i]);
	sim_close(&w->sim);
}

typedef void play(struct world *w, uint64_t seed);

static void seeds(const char *name, unsigned share, play *one)
{
	static struct world w;
	const char *only = getenv("SIM_SEED"), *many = getenv("SANDIRECT_TEST_LONG");
	unsigned n = SEEDS * share / 100 * (many && atoi(many) ? 10 : 1);
	uint64_t first = 1;

	kind = name;
	if (only) {
		first = strtoull(only, NULL, 10);
		n = 1;
	}
	for (uint64_t seed = first; seed < first + n; seed++) {
		one(&w, seed);
		if (w.sim.failure[0])
			fail_msg("%s, SIM_SEED=%llu: %s", kind, (unsigned long long)seed, w.sim.failure);
	}
}

/* --- the cases --- */

static void play_calm(struct world *w, uint64_t seed)
{
	struct tp_stats st[2];
	bool prompt;

	draw(w, seed, 2, true);
	prompt = !w->sim.links[0][1].rate;
	draw_pairs(w, 1 + (unsigned)sd_rng_below(&w->sim.rng, 4), 1000000, SD_MS);
	for (unsigned i = 0; i < w->n_pairs; i++)
		w->pairs[i].side[0].cork = w->pairs[i].side[1].cork = false;
	/* less than any timeout that would mend a forgotten wake-up */
	w->stall_limit = 5 * SD_MS + 6 * w->sim.links[0][1].delay;
	run_world(w, 100 * SD_S);
	sim_stats(&w->sim.hosts[0], &st[0]);
	sim_stats(&w->sim.hosts[1], &st[1]);
	/* a probe is no surprise where a queue has built up or an acknowledgement waits for long, and what it
	 * repeats may come when all is over */
	for (unsigned i = 0; i < 2; i++)
		prompt &=
			w->sim.hosts[i].cfg.ack_delay_ns < 500 * SD_US && w->sim.hosts[i].burst == BURST_MAX;
	if (prompt && st[0].resets_sent + st[1].resets_sent + st[0].retransmits + st[1].retransmits)
		sim_fail(&w->sim, "a RESET or a retransmission");
}

static void play_rough(struct world *w, uint64_t seed)
{
	draw(w, seed, 2, false);
	w->stall_limit = STALL_MAX;
	draw_pairs(w, 1 + (unsigned)sd_rng_below(&w->sim.rng, 4), 1000000, 5 * SD_MS);
	run_world(w, 1000 * SD_S);
}

static void play_slow_readers(struct world *w, uint64_t seed)
{
	struct sim *s = &w->sim;

	draw(w, seed, 2, false);
	w->stall_limit = STALL_MAX;
	draw_pairs(w, 1 + (unsigned)sd_rng_below(&s->rng, 3), 1000000, 5 * SD_MS);
	for (unsigned i = 0; i < w->n_pairs; i++) {
		for (unsigned k = 0; k < 2; k++) {
			struct side *x = &w->pairs[i].side[k];

			if (sim_chance(s, 0.5))
				x->read_from = w->pairs[i].start_at + sim_scale(s, SD_MS, 100 * SD_S);
			if (sim_chance(s, 0.3))
				x->pause = sim_scale(s, SD_US, 5 * SD_MS);
		}
	}
	run_world(w, 1000 * SD_S);
}

static void play_endings(struct world *w, uint64_t seed)
{
	struct sim *s = &w->sim;

	draw(w, seed, 2, false);
	draw_pairs(w, 1 + (unsigned)sd_rng_below(&s->rng, 6), 200000, 5 * SD_MS);
	for (unsigned i = 0; i < w->n_pairs; i++) {
		struct pair *p = &w->pairs[i];

		for (unsigned k = 0; k < 2; k++) {
			struct side *x = &p->side[k];

			if (sim_chance(s, 0.4))
				continue;
			x->ending = (enum ending)sd_rng_below(&s->rng, 4);
			x->end_at = p->start_at + sim_scale(s, SD_US, SD_S);
			if (x->ending >= END_CLOSE)
				p->may_reset = true;
		}
	}
	run_world(w, 1000 * SD_S);
}

static void play_crowd(struct world *w, uint64_t seed)
{
	draw(w, seed, 3, false);
	w->stall_limit = STALL_MAX;
	draw_pairs(w, 50 + (unsigned)sd_rng_below(&w->sim.rng, PAIRS_MAX - 49), 6000, SD_MS);
	run_world(w, 1000 * SD_S);
}

static void play_refusals(struct world *w, uint64_t seed)
{
	struct sim *s = &w->sim;

	draw(w, seed, 2, false);
	draw_pairs(w, 1 + (unsigned)sd_rng_below(&s->rng, 40), 10000, 5 * SD_MS);
	w->may_refuse = true;
	w->backlog = 1 + (unsigned)sd_rng_below(&s->rng, 8);
	w->accept_from = s->now + sim_scale(s, SD_MS, SD_S);
	run_world(w, 1000 * SD_S);
}

static void trouble(struct world *w, unsigned host)
{
	struct sim *s = &w->sim;

	w->trouble_host = host;
	for (unsigned i = 0; i < s->n_hosts; i++) {
		s->hosts[i].cfg.connect_timeout_ns = sim_scale(s, 200 * SD_MS, 5 * SD_S);
		s->hosts[i].cfg.dead_timeout_ns = 5 * SD_S;
		s->hosts[i].cfg.keepalive_ns = 2 * SD_S;
	}
}

static void play_crash(struct world *w, uint64_t seed)
{
	struct sim *s = &w->sim;

	draw(w, seed, 2 + seed % 2, false);
	draw_pairs(w, 1 + (unsigned)sd_rng_below(&s->rng, 10), 200000, 10 * SD_MS);
	w->may_die = w->may_refuse = true;
	trouble(w, (unsigned)sd_rng_below(&s->rng, s->n_hosts));
	w->crash_at = s->now + sim_scale(s, SD_US, 100 * SD_MS);
	w->crash_for = sim_scale(s, SD_US, 20 * SD_S);
	run_world(w, 300 * SD_S);
}

static void play_death(struct world *w, uint64_t seed)
{
	struct sim *s = &w->sim;

	draw(w, seed, 2 + seed % 2, false);
	draw_pairs(w, 1 + (unsigned)sd_rng_below(&s->rng, 6), 200000, 5 * SD_MS);
	w->may_die = true;
	trouble(w, (unsigned)sd_rng_below(&s->rng, s->n_hosts));
	w->silent_at = s->now + sim_scale(s, SD_US, 100 * SD_MS);
	w->silent_until = SIM_NEVER;
	run_world(w, 300 * SD_S);
}

/* Shorter than the dead timeout: nobody may notice. */
static void play_nap(struct world *w, uint64_t seed)
{
	struct sim *s = &w->sim;

	draw(w, seed, 2 + seed % 2, false);
	draw_pairs(w, 1 + (unsigned)sd_rng_below(&s->rng, 6), 200000, 5 * SD_MS);
	w->trouble_host = (unsigned)sd_rng_below(&s->rng, s->n_hosts);
	w->silent_at = s->now + sim_scale(s, SD_US, 100 * SD_MS);
	w->silent_until = w->silent_at + sim_scale(s, 100 * SD_US, 10 * SD_S);
	run_world(w, 1000 * SD_S);
}

static void play_short_of_memory(struct world *w, uint64_t seed)
{
	struct sim *s = &w->sim;

	draw(w, seed, 2, false);
	draw_pairs(w, 1 + (unsigned)sd_rng_below(&s->rng, 40), 50000, 5 * SD_MS);
	w->short_of_memory = true;
	for (unsigned i = 0; i < 2; i++)
		s->hosts[i].alloc_fails = sd_rng_unit(&s->rng) * 0.9;
	run_world(w, 1000 * SD_S);
}

/* The peers notice nothing but a pause, and the onlooker on the wire not even that. */
static void play_hand_over(struct world *w, uint64_t seed)
{
	struct sim *s = &w->sim;

	draw(w, seed, 2 + seed % 2, false);
	w->stall_limit = STALL_MAX;
	draw_pairs(
		w, 1 + (unsigned)sd_rng_below(&s->rng, 20), sim_chance(s, 0.3) ? 2000000 : 50000, 5 * SD_MS);
	w->hand_over_every = sim_scale(s, 20 * SD_US, 20 * SD_MS);
	w->accept_from = sim_chance(s, 0.3) ? s->now + sim_scale(s, SD_US, 50 * SD_MS) : 0;
	run_world(w, 1000 * SD_S);
}

/* The same seed gives the same packets at the same times. */
static void play_twice(struct world *w, uint64_t seed)
{
	uint32_t trace;
	uint64_t packets;

	play_rough(w, seed);
	trace = w->sim.trace;
	packets = w->sim.packets;
	play_rough(w, seed);
	if (trace != w->sim.trace || packets != w->sim.packets)
		sim_fail(&w->sim, "a second run differed");
}

static void test_calm(void **state)
{
	seeds("calm", 10, play_calm);
}

static void test_rough(void **state)
{
	seeds("rough", 25, play_rough);
}

static void test_slow_readers(void **state)
{
	seeds("slow readers", 10, play_slow_readers);
}

static void test_endings(void **state)
{
	seeds("endings", 15, play_endings);
}

static void test_crowd(void **state)
{
	seeds("crowd", 5, play_crowd);
}

static void test_refusals(void **state)
{
	seeds("refusals", 10, play_refusals);
}

static void test_crash(void **state)
{
	seeds("crash", 10, play_crash);
}

static void test_death(void **state)
{
	seeds("death", 5, play_death);
}

static void test_nap(void **state)
{
	seeds("nap", 5, play_nap);
}

static void test_hand_over(void **state)
{
	seeds("hand over", 10, play_hand_over);
}

static void test_short_of_memory(void **state)
{
	seeds("short of memory", 5, play_short_of_memory);
}

static void test_twice(void **state)
{
	seeds("twice", 1, play_twice);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_calm),
		cmocka_unit_test(test_rough),
		cmocka_unit_test(test_slow_readers),
		cmocka_unit_test(test_endings),
		cmocka_unit_test(test_crowd),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_crash),
		cmocka_unit_test(test_death),
		cmocka_unit_test(test_nap),
		cmocka_unit_test(test_hand_over),
		cmocka_unit_test(test_short_of_memory),
		cmocka_unit_test(test_twice),
	};

	cmocka_set_test_filter(getenv("SIM_CASE"));
	return cmocka_run_group_tests_name("transport_sim", tests, NULL, NULL);
}
