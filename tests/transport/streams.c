/* SPDX-License-Identifier: BSD-3-Clause */
/* What the applications do, and what they look at while they do it. */
#include "streams.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

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

/* Whoever uses it still is found out. */
static void drop(uint8_t **memory)
{
	free(*memory);
	*memory = NULL;
}

void streams_drop(struct side *x)
{
	drop(&x->landing);
	drop(&x->lent);
}

static void finish(struct side *x, bool abort)
{
	tp_close(x->c, sim_clock(x->host), abort);
	x->c = NULL;
	x->closed = true;
	streams_drop(x);
}

static void check_bytes(struct side *x, uint64_t off, const uint8_t *got, size_t len)
{
	static uint8_t want[1 << 20];

	if (off + len > x->peer->written) {
		sim_fail(x->host->sim, "port %u: read %llu bytes of %llu written", x->pair->port,
			(unsigned long long)(off + len), (unsigned long long)x->peer->written);
		return;
	}
	sim_bytes(x->peer->seed, off, want, len);
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

static uint8_t *memory_of(size_t size)
{
	uint8_t *memory = malloc(size);

	if (!memory)
		abort();
	return memory;
}

static void end_landing(struct side *x)
{
	size_t n = tp_land_end(x->c);

	check_bytes(x, x->read, x->landing, n);
	x->read += n;
	if (n)
		progress(world_of(x->host));
	drop(&x->landing);
}

/* It need not end before the bytes that it waits for have come, but does some time. */
static void begin_landing(struct side *x)
{
	struct sim *s = x->host->sim;
	size_t size = sim_between(s, 1, x->read_max);
	uint64_t until = s->now + sim_scale(s, SD_US, SD_MS);

	x->landing = memory_of(size);
	if (tp_land(x->c, x->landing, size, sim_between(s, 1, size)))
		drop(&x->landing);
	else if (until < x->resume)
		x->resume = until;
}

static void end_loan(struct side *x)
{
	tp_settle(x->c);
	drop(&x->lent);
}

/* As tp_write. What was lent before need not be there any more then. */
static ptrdiff_t lend(struct side *x, const uint8_t *data, size_t len)
{
	uint8_t *copy = memory_of(len);
	ptrdiff_t n;

	memcpy(copy, data, len);
	n = tp_lend(x->c, copy, len);
	if (n > 0) {
		drop(&x->lent);
		x->lent = copy;
	} else {
		free(copy);
	}
	return n;
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
	sim_bytes(x->seed, x->written, buf, len);
	n = x->by_the_rings && sim_chance(&w->sim, 0.5) ? lend(x, buf, len) : tp_write(x->c, buf, len);
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
	/* An answer that has not come by the peer's end never comes: its application may close between
	 * reading and writing. */
	bool waits = x->written == x->read || x->written == x->read + x->window;
	bool complete = x->written == x->total || (x->window != SIM_NEVER && x->eof && waits);

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
	if (x->landing)
		end_landing(x);
	if (x->lent)
		end_loan(x);
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
	else if (x->by_the_rings && !x->can_read && sim_chance(&w->sim, 0.8))
		begin_landing(x);
	if (x->ending >= END_CLOSE_AT && x->end_at < x->resume)
		x->resume = x->end_at;
}

static void vary(struct side *x)
{
	struct sim *s = x->host->sim;

	if (trim_off("settings"))
		return;
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

void streams_listen(struct world *w, struct sim_host *h)
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

			if (x->host != h || x->closed || !x->c)
				continue;
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
	sim_boot(h);
	streams_listen(w, h);
	w->crash_at = w->crashes ? w->sim.now + sim_scale(&w->sim, SD_US, w->crash_every) : SIM_NEVER;
	w->crashes -= w->crashes != 0;
	return w->crash_at;
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
	streams_listen(world_of(h), h);
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

		if (x->host != h || !x->c)
			continue;
		x->name = tp_saved_name(x->c);
		if (x->landing)
			end_landing(x);
	}
	sim_hand_over(h, listen_again, on_owned);
	for (unsigned i = 0; i < 2 * w->n_pairs; i++) {
		struct side *x = &w->pairs[i / 2].side[i % 2];

		if (x->host == h)
			drop(&x->lent);
		if (x->host == h && x->name)
			sim_fail(&w->sim, "port %u: the connection was not restored", x->pair->port);
	}
}

/* Now and then, while there is something that it could do harm to. */
static uint64_t run_hand_over(struct world *w, struct sim_host *h)
{
	uint64_t *at = &w->hand_over_at[h->index];

	if (!w->hand_overs || !h->tp)
		return SIM_NEVER;
	if (*at <= w->sim.now) {
		if (*at && sim_chance(&w->sim, 0.3))
			h->asleep = w->sim.now + sim_scale(&w->sim, SD_US, 20 * SD_MS);
		if (*at) {
			hand_over(w, h);
			w->hand_overs--;
		}
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

const struct sim_app streams_app = {.event = on_event, .acceptable = on_acceptable, .run = run};
