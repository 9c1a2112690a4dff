/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Simulated runs of queue pairs: both ends post requests of all kinds at random over links that misbehave,
 * and an oracle knows what each must do. What it holds against them:
 *   - every request completes once, in the order in which it was posted, and says so if it was to;
 *   - every message arrives once, in order, with its bytes, its length and its immediate value;
 *   - when a message has arrived, all that was written before it is there;
 *   - a READ brings what is there, and what was written before it; an atomic happens once;
 *   - nothing stands still, and in the end nothing is left.
 * Each case is one kind of trouble. The environment chooses seeds as for test_sim.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nic.h"
#include "transport/verbs.h"
#include "trim.h"

#define SEEDS	  300 /* over all cases */
#define PAIRS_MAX 4
#define OPS_MAX	  400
#define PORT	  7
#define CHANGES	  4
#define STALL_MAX (15 * SD_S)

/* What a side's memory is for. */
#define SLOT	      6000u /* bytes of a message, at most */
#define SLOTS	      8u    /* that the peer writes to */
#define RECEIVES      16u
#define LANDINGS      8u /* of READs */
#define CONST_SIZE    16384u
#define AT_SLOT(i)    ((i)*SLOT)
#define AT_RECEIVE(i) (AT_SLOT(SLOTS) + (i)*SLOT)
#define AT_LANDING(i) (AT_RECEIVE(RECEIVES) + (i)*SLOT)
#define AT_SOURCE     AT_LANDING(LANDINGS)
#define SOURCES	      16u
#define AT_CONST      (AT_SOURCE + SOURCES * SLOT)
#define AT_RESULT(i)  (AT_CONST + CONST_SIZE + (i)*8u)
#define RESULTS	      32u
#define AT_WORD	      AT_RESULT(RESULTS)
#define MEMORY	      (AT_WORD + 8u)

#define NONE UINT32_MAX

struct op {
	enum tp_opcode opcode;
	bool signaled, done;
	uint32_t len, imm;
	bool has_imm;
	uint64_t seed;	 /* of its bytes */
	uint32_t place;	 /* WRITE: slot; READ: landing; atomics: result; SEND: source */
	uint32_t source; /* that it holds until it is done */
	uint32_t reads;	 /* READ: the op that wrote what it reads; NONE: the constant area */
	uint32_t from;	 /* READ: offset in that */
	uint64_t expect; /* COMPARE_SWAP */
};

struct pair;

struct side {
	struct pair *pair;
	struct side *peer;
	struct sim_host *host;
	struct tp_mr *mr;
	struct tp_cq *scq, *rcq;
	struct tp_qp *qp;
	_Alignas(8) uint8_t mem[MEMORY];
	struct op ops[OPS_MAX];
	uint32_t n_ops, posted, done; /* ops: to post in all, posted, known to have completed */
	uint32_t messages;	      /* of the peer's: ops looked through */
	uint32_t receives, received;  /* posted, completed */
	unsigned slot_readers[SLOTS]; /* of our own that are under way */
	uint32_t slot_writer[SLOTS];  /* of the peer's memory: the op, or NONE */
	bool landing_used[LANDINGS], source_used[SOURCES], result_used[RESULTS];
	uint64_t swapped; /* what our last COMPARE_SWAP has put there */
	unsigned swaps;	  /* under way */
	uint64_t pause, resume;
	bool accepted, ended, failed;
	enum tp_wc_status first_error;
	bool any_error, flushed;
	uint64_t end_at;  /* destroyed then, whatever there is */
	uint64_t lose_at; /* its region is deregistered then */
};

struct pair {
	struct side side[2];
	uint64_t start_at;
	uint16_t port;
	bool started;
};

struct host {
	struct tp_pd *pd;
	struct tp_mr *counter_mr;
	_Alignas(8) uint64_t counter;
	uint8_t *fetched; /* which values of it somebody got */
	uint32_t adds;	  /* begun, by anybody */
	uint64_t nap, has_done;
};

struct world {
	struct sim sim;
	struct pair *pairs;
	unsigned n_pairs;
	struct host hosts[2];
	struct tp_listener *listener;
	bool may_fail;
	uint64_t last_progress;
	uint64_t crash_at;
	struct sim_change changes[CHANGES][2];
};

static void fill(uint64_t seed, uint8_t *at, size_t len)
{
	sim_bytes(seed, 0, at, len);
}

static bool is_filled(uint64_t seed, uint64_t from, const uint8_t *at, size_t len)
{
	uint8_t want[SLOT];

	sim_bytes(seed, from, want, len);
	return !memcmp(want, at, len);
}

static struct world *world_of(const struct side *s)
{
	return s->host->sim->ctx;
}

static bool chance(struct side *s, double p)
{
	return sim_chance(s->host->sim, p);
}

static uint64_t below(struct side *s, uint64_t n)
{
	return sd_rng_below(&s->host->sim->rng, n);
}

static void wrong(struct side *s, const char *what, uint32_t op)
{
	sim_fail(s->host->sim, "host %u, port %u, op %u: %s", s->host->index, s->pair->port, op, what);
}

static void progress(struct side *s)
{
	struct world *w = world_of(s);

	if (w->sim.now - w->last_progress > STALL_MAX && !w->may_fail)
		sim_fail(&w->sim, "nothing moved for %.3f ms", (double)(w->sim.now - w->last_progress) / 1e6);
	w->last_progress = w->sim.now;
}

/* --- what a side posts ------------------------------------------------------------------------------------
 */

static uint32_t pick(struct side *s, const bool *used, uint32_t n)
{
	uint32_t from = (uint32_t)below(s, n);

	for (uint32_t i = 0; i < n; i++) {
		if (!used[(from + i) % n])
			return (from + i) % n;
	}
	return NONE;
}

static uint32_t some_len(struct side *s)
{
	switch (below(s, 4)) {
	case 0:
		return (uint32_t)below(s, 65);
	case 1:
		return (uint32_t)(1300 + below(s, 200));
	default:
		return (uint32_t)below(s, SLOT + 1);
	}
}

/* The region in pieces, at most three. */
static unsigned cut(struct side *s, struct tp_mr *mr, uint64_t at, uint32_t len, struct tp_sge *out)
{
	unsigned n = 0;

	while (n < 2 && len && chance(s, 0.3)) {
		uint32_t piece = (uint32_t)below(s, len + 1);

		out[n++] = (struct tp_sge){mr, at, piece};
		at += piece;
		len -= piece;
	}
	out[n++] = (struct tp_sge){mr, at, len};
	return n;
}

static bool prepare_bytes(struct side *s, struct op *o)
{
	o->source = pick(s, s->source_used, SOURCES);
	if (o->source == NONE)
		return false;
	o->len = some_len(s);
	o->seed = sd_rng_next(&s->host->sim->rng);
	return true;
}

static bool prepare_write(struct side *s, struct op *o)
{
	bool used[SLOTS];

	for (unsigned i = 0; i < SLOTS; i++)
		used[i] = s->slot_writer[i] != NONE;
	o->place = pick(s, used, SLOTS);
	return o->place != NONE && prepare_bytes(s, o);
}

/* The constant area, or what a write before it that is not heard of has put there. */
static bool prepare_read(struct side *s, struct op *o)
{
	uint32_t slot = (uint32_t)below(s, SLOTS);

	o->place = pick(s, s->landing_used, LANDINGS);
	if (o->place == NONE)
		return false;
	o->signaled = true;
	o->reads = chance(s, 0.5) ? s->slot_writer[slot] : NONE;
	o->len = some_len(s);
	if (o->reads != NONE && o->len > s->ops[o->reads].len)
		o->len = s->ops[o->reads].len;
	o->from = o->reads == NONE ? (uint32_t)below(s, CONST_SIZE - o->len + 1)
				   : (uint32_t)below(s, s->ops[o->reads].len - o->len + 1);
	return true;
}

static bool prepare_atomic(struct side *s, struct op *o)
{
	o->place = pick(s, s->result_used, RESULTS);
	o->signaled = true;
	o->len = 8;
	return o->place != NONE;
}

static bool prepare(struct side *s, struct op *o)
{
	static const enum tp_opcode kinds[] = {
		TP_SEND, TP_SEND, TP_WRITE, TP_WRITE, TP_WRITE_IMM, TP_READ, TP_COMPARE_SWAP, TP_FETCH_ADD};

	*o = (struct op){.opcode = kinds[below(s, 8)],
		.signaled = s->posted + 1 == s->n_ops || chance(s, 0.5),
		.place = NONE,
		.source = NONE,
		.imm = (uint32_t)sd_rng_next(&s->host->sim->rng)};
	switch (o->opcode) {
	case TP_SEND:
		o->has_imm = chance(s, 0.3);
		return prepare_bytes(s, o);
	case TP_WRITE_IMM:
		o->has_imm = true;
		return prepare_write(s, o);
	case TP_WRITE:
		return prepare_write(s, o);
	case TP_READ:
		return prepare_read(s, o);
	default:
		return prepare_atomic(s, o);
	}
}

static void describe(struct side *s, struct op *o, struct tp_send_wr *wr, struct tp_sge *sg)
{
	struct host *far = &world_of(s)->hosts[s->peer->host->index];

	*wr = (struct tp_send_wr){.wr_id = s->posted,
		.opcode = o->opcode,
		.flags = (o->signaled ? TP_SIGNALED : 0) |
			 (o->opcode == TP_SEND && o->has_imm ? TP_HAS_IMM : 0) |
			 (chance(s, 0.1) ? TP_FENCE : 0) | (chance(s, 0.2) ? TP_SOLICITED : 0),
		.sg = sg,
		.imm = o->imm,
		.rkey = tp_mr_rkey(s->peer->mr)};
	switch (o->opcode) {
	case TP_READ:
		wr->remote_offset =
			o->reads == NONE ? AT_CONST + o->from : AT_SLOT(s->ops[o->reads].place) + o->from;
		wr->n_sg = cut(s, s->mr, AT_LANDING(o->place), o->len, sg);
		return;
	case TP_COMPARE_SWAP:
		wr->compare = o->expect = s->swapped;
		wr->operand = sd_rng_next(&s->host->sim->rng);
		wr->remote_offset = AT_WORD;
		wr->n_sg = cut(s, s->mr, AT_RESULT(o->place), 8, sg);
		return;
	case TP_FETCH_ADD:
		wr->operand = 1;
		wr->rkey = tp_mr_rkey(far->counter_mr);
		wr->n_sg = cut(s, s->mr, AT_RESULT(o->place), 8, sg);
		return;
	default:
		wr->remote_offset = AT_SLOT(o->place);
		fill(o->seed, s->mem + AT_SOURCE + o->source * SLOT, o->len);
		if (o->len <= 64 && chance(s, 0.5)) {
			wr->flags |= TP_INLINE;
			wr->data = s->mem + AT_SOURCE + o->source * SLOT;
			wr->len = o->len;
		} else {
			wr->n_sg = cut(s, s->mr, AT_SOURCE + o->source * SLOT, o->len, sg);
		}
	}
}

static void take_places(struct side *s, struct op *o, const struct tp_send_wr *wr)
{
	struct host *far = &world_of(s)->hosts[s->peer->host->index];

	if (o->source != NONE && !(wr->flags & TP_INLINE))
		s->source_used[o->source] = true;
	else
		o->source = NONE;
	switch (o->opcode) {
	case TP_WRITE:
	case TP_WRITE_IMM:
		s->slot_writer[o->place] = s->posted;
		return;
	case TP_READ:
		if (o->reads != NONE)
			s->slot_readers[s->ops[o->reads].place]++;
		s->landing_used[o->place] = true;
		return;
	case TP_COMPARE_SWAP:
		s->swapped = wr->operand;
		s->result_used[o->place] = true;
		return;
	case TP_FETCH_ADD:
		far->adds++;
		s->result_used[o->place] = true;
		return;
	default:
		return;
	}
}

static bool post_one(struct side *s)
{
	struct op *o = &s->ops[s->posted];
	struct tp_send_wr wr;
	struct tp_sge sg[3];
	int r;

	if (!prepare(s, o))
		return false;
	describe(s, o, &wr, sg);
	r = tp_post_send(s->qp, &wr);
	if (r == -EAGAIN)
		return false;
	if (r) {
		if (r != tp_qp_error(s->qp))
			wrong(s, "it could not be posted", s->posted);
		return false;
	}
	take_places(s, o, &wr);
	s->posted++;
	return true;
}

static void post_receives(struct side *s)
{
	struct tp_sge sg[3];

	while (s->receives - s->received < RECEIVES && chance(s, 0.8)) {
		unsigned n = cut(s, s->mr, AT_RECEIVE(s->receives % RECEIVES), SLOT, sg);
		int r = tp_post_recv(s->qp, &(struct tp_recv_wr){s->receives, sg, n});

		if (r == -EAGAIN || (r && r == tp_qp_error(s->qp)))
			return;
		if (r)
			wrong(s, "a receive could not be posted", s->receives);
		s->receives++;
	}
}

/* --- what has come of it ----------------------------------------------------------------------------------
 */

static void check_read(struct side *s, uint32_t k, const struct op *o)
{
	const uint8_t *at = s->mem + AT_LANDING(o->place);
	uint64_t seed = o->reads == NONE ? s->peer->host->index : s->ops[o->reads].seed;

	if (!is_filled(seed, o->from, at, o->len))
		wrong(s, "it has not read what was there", k);
	if (o->reads != NONE)
		s->slot_readers[s->ops[o->reads].place]--;
	s->landing_used[o->place] = false;
}

static void check_atomic(struct side *s, uint32_t k, const struct op *o)
{
	struct host *far = &world_of(s)->hosts[s->peer->host->index];
	uint64_t was;

	memcpy(&was, s->mem + AT_RESULT(o->place), 8);
	s->result_used[o->place] = false;
	if (o->opcode == TP_COMPARE_SWAP) {
		if (was != o->expect)
			wrong(s, "another value was swapped", k);
	} else if (was >= far->adds || far->fetched[was]++) {
		wrong(s, "an addition has not happened once", k);
	}
}

static void check_done(struct side *s, uint32_t k)
{
	struct op *o = &s->ops[k];

	o->done = true;
	if (o->source != NONE)
		s->source_used[o->source] = false;
	if (o->opcode == TP_READ)
		check_read(s, k, o);
	else if (o->opcode == TP_COMPARE_SWAP || o->opcode == TP_FETCH_ADD)
		check_atomic(s, k, o);
}

static void on_sent(struct side *s, const struct tp_wc *wc)
{
	uint32_t k = (uint32_t)wc->wr_id;
	bool after_error = s->any_error;

	progress(s);
	if (k < s->done || k >= s->posted) {
		wrong(s, "it has completed before, or was never posted", k);
		return;
	}
	if (wc->status != TP_WC_SUCCESS) {
		if (!s->any_error)
			s->first_error = wc->status;
		else if (wc->status != TP_WC_FLUSHED && wc->status != TP_WC_PROTECTION)
			wrong(s, "a second reason", k);
		s->any_error = true;
	} else if (s->any_error || !s->ops[k].signaled) {
		wrong(s, "it was not to say so", k);
	}
	/* Those before it have completed, too, and were not to say so; behind one in error all say so. */
	for (; s->done < k; s->done++) {
		if (s->ops[s->done].signaled || after_error)
			wrong(s, "it has completed without a word", s->done);
		check_done(s, s->done);
	}
	if (wc->status == TP_WC_SUCCESS)
		check_done(s, k);
	else if (s->ops[k].source != NONE) /* its bytes may change now */
		memset(s->mem + AT_SOURCE + s->ops[k].source * SLOT, 0xee, SLOT);
	s->done = k + 1;
}

/* All that the peer has written before its op n is there; what was is not needed any more. */
static void check_writes(struct side *s, uint32_t n)
{
	struct side *from = s->peer;

	for (unsigned i = 0; i < SLOTS; i++) {
		uint32_t k = from->slot_writer[i];

		if (k == NONE || k > n)
			continue;
		if (!is_filled(from->ops[k].seed, 0, s->mem + AT_SLOT(i), from->ops[k].len))
			wrong(from, "what was written is not there", k);
		/* What follows a READ may be there before it. */
		if (from->ops[k].done && !from->slot_readers[i])
			from->slot_writer[i] = NONE;
	}
}

static void on_received(struct side *s, const struct tp_wc *wc)
{
	struct side *from = s->peer;
	const struct op *o;
	uint32_t k;

	progress(s);
	if (wc->wr_id != s->received++)
		wrong(s, "a receive out of order", (uint32_t)wc->wr_id);
	if (wc->status != TP_WC_SUCCESS) {
		s->flushed = true;
		return;
	}
	if (s->flushed)
		wrong(s, "it was received after the end", (uint32_t)wc->wr_id);
	while (s->messages < from->posted && from->ops[s->messages].opcode != TP_SEND &&
		from->ops[s->messages].opcode != TP_WRITE_IMM)
		s->messages++;
	k = s->messages++;
	if (k >= from->posted) {
		wrong(s, "a message that nobody has sent", (uint32_t)wc->wr_id);
		return;
	}
	o = &from->ops[k];
	if (wc->opcode != (o->opcode == TP_SEND ? TP_RECV : TP_RECV_WRITE) || wc->len != o->len ||
		wc->has_imm != o->has_imm || (o->has_imm && wc->imm != o->imm))
		wrong(from, "it has arrived as another", k);
	if (o->opcode == TP_SEND && !is_filled(o->seed, 0, s->mem + AT_RECEIVE(wc->wr_id % RECEIVES), o->len))
		wrong(from, "it has arrived with other bytes", k);
	check_writes(s, k);
}

static void poll_queues(struct side *s)
{
	struct tp_wc wc[8];
	unsigned n;

	while ((n = tp_cq_poll(s->rcq, wc, 8))) {
		for (unsigned i = 0; i < n; i++)
			on_received(s, &wc[i]);
	}
	while ((n = tp_cq_poll(s->scq, wc, 8))) {
		for (unsigned i = 0; i < n; i++)
			on_sent(s, &wc[i]);
	}
}

/* --- applications -----------------------------------------------------------------------------------------
 */

static void on_event(struct sim_host *h, struct tp_conn *c, void *user, unsigned events)
{
	sim_fail(h->sim, "an event of a stream");
}

static void on_acceptable(struct sim_host *h, struct tp_listener *l, void *user)
{
	sim_wake(h);
}

static void on_qp_event(struct sim_host *h, struct tp_qp *qp, void *user, unsigned events)
{
	struct side *s = user;

	if (events & TP_EV_FAILED)
		s->failed = true;
	if (events & TP_EV_READABLE)
		s->ended = true;
	sim_wake(h);
}

static void on_completion(struct sim_host *h, struct tp_cq *cq, void *user)
{
	sim_wake(h);
}

/* Nothing refers to it when this returns; sometimes somebody has to be waited for. */
static void lose_region(struct side *s)
{
	if (!s->mr)
		return;
	while (tp_mr_deregister(s->mr)) {
		if (!s->host->held)
			wrong(s, "a region is busy, and nobody has it", 0);
		nic_release_all(s->host);
	}
	s->mr = NULL;
	if (nic_holds(s->host, s->mem, MEMORY))
		wrong(s, "a region is gone while it is being sent from", 0);
}

static void close_side(struct side *s)
{
	if (!s->qp)
		return;
	tp_qp_destroy(s->qp, sim_clock(s->host));
	s->qp = NULL;
	if (tp_cq_destroy(s->scq) || tp_cq_destroy(s->rcq))
		wrong(s, "a completion queue is still in use", 0);
	lose_region(s);
}

static void open_side(struct side *s)
{
	struct tp *t = s->host->tp;
	struct tp_qp_attr a = {.size = sizeof a,
		.pd = world_of(s)->hosts[s->host->index].pd,
		.max_send_wr = (uint32_t)(1 + below(s, 32)),
		.max_recv_wr = RECEIVES,
		.max_inline = 64,
		.max_sge = 3,
		.max_reads = (uint8_t)(1 + below(s, 8)),
		.max_peer_reads = (uint8_t)(4 + below(s, 5)),
		.user = s};

	if (tp_cq_create(t, (uint32_t)(1 + below(s, 64)), s, &s->scq) ||
		tp_cq_create(t, RECEIVES, s, &s->rcq) ||
		tp_mr_register(a.pd, s->mem, MEMORY,
			TP_LOCAL_WRITE | TP_REMOTE_WRITE | TP_REMOTE_READ | TP_REMOTE_ATOMIC, &s->mr) ||
		(chance(s, 0.7) && tp_mr_set_direct(s->mr)))
		abort();
	a.send_cq = s->scq;
	a.recv_cq = s->rcq;
	if (tp_qp_create(t, &a, &s->qp))
		abort();
	fill(s->host->index, s->mem + AT_CONST, CONST_SIZE);
	memset(s->mem + AT_WORD, 0, 8);
	tp_cq_notify(s->scq, chance(s, 0.5));
	tp_cq_notify(s->rcq, chance(s, 0.5));
}

static bool has_all(const struct side *s)
{
	return s->failed || (s->posted == s->n_ops && s->done == s->posted);
}

static void work(struct side *s)
{
	struct world *w = world_of(s);
	uint64_t now = w->sim.now;

	if (!s->qp)
		return;
	if (now >= s->end_at) {
		close_side(s);
		return;
	}
	if (now >= s->lose_at && s->mr) {
		lose_region(s);
		if (!tp_qp_error(s->qp)) /* nothing referred to it, and nothing can be done without it */
			s->end_at = now + 50 * SD_MS;
	}
	poll_queues(s);
	if (s->failed && !w->may_fail)
		wrong(s, "the queue pair has failed", (uint32_t)s->first_error);
	if (now < s->resume || !s->mr || s->failed || !s->peer->mr)
		return;
	s->resume = now + (s->pause ? below(s, s->pause) : 0);
	post_receives(s);
	while (s->posted < s->n_ops && chance(s, 0.9) && post_one(s))
		;
	if (s->posted == s->n_ops)
		tp_qp_disconnect(s->qp);
	tp_cq_notify(s->scq, false);
	tp_cq_notify(s->rcq, false);
}

static void start(struct world *w, struct pair *p)
{
	struct tp_path path;
	int r;

	p->started = true;
	sim_path(p->side[0].host, p->side[1].host, p->port, PORT, &path);
	if (!p->side[0].qp)
		return;
	r = tp_qp_connect(p->side[0].qp, sim_clock(p->side[0].host), &path);
	if (r && r != tp_qp_error(p->side[0].qp))
		sim_fail(&w->sim, "no connection");
}

/* The one that has connected is known by its port. */
static void accept_all(struct world *w)
{
	while (w->hosts[1].pd && w->listener && tp_acceptable(w->listener)) {
		uint16_t port = container_of(w->listener->ready.next, struct tp_conn, lnode)->path.peer.port;
		struct tp_qp *qp = NULL;
		struct side *s = NULL;
		int r;

		for (unsigned i = 0; i < w->n_pairs && !qp; i++) {
			s = &w->pairs[i].side[1];
			if (s->qp && !s->accepted && port == w->pairs[i].port)
				qp = s->qp;
		}
		if (!qp) {
			struct tp_conn *c = tp_accept(w->listener, NULL);

			tp_close(c, sim_clock(&w->sim.hosts[1]), true);
			continue;
		}
		s->accepted = true;
		r = tp_qp_accept(qp, w->listener);
		if (r && r != tp_qp_error(qp))
			sim_fail(&w->sim, "not accepted");
		s->failed |= tp_qp_error(qp) != 0; /* before it was accepted: no event tells */
		if (r)
			tp_close(tp_accept(w->listener, NULL), sim_clock(&w->sim.hosts[1]), true);
	}
}

/* A host that wants to go on and cannot looks again, ever more rarely while nothing comes of it. */
static uint64_t nap(struct world *w, struct sim_host *h)
{
	struct host *host = &w->hosts[h->index];
	uint64_t done = 0;

	for (unsigned i = 0; i < w->n_pairs; i++) {
		const struct side *s = &w->pairs[i].side[h->index];

		done += s->posted + s->done + s->receives + s->received;
	}
	if (done != host->has_done || !host->nap)
		host->nap = 5 * SD_US;
	else if (host->nap < SD_MS)
		host->nap *= 2;
	host->has_done = done;
	return host->nap;
}

static uint64_t run(struct sim_host *h)
{
	struct world *w = h->sim->ctx;
	uint64_t next = SIM_NEVER;

	if (!h->tp)
		return SIM_NEVER;
	if (h->index == 1)
		accept_all(w);
	for (unsigned i = 0; i < w->n_pairs; i++) {
		struct side *s = &w->pairs[i].side[h->index];

		if (!h->index && !w->pairs[i].started && w->sim.now >= w->pairs[i].start_at)
			start(w, &w->pairs[i]);
		work(s);
		if (s->qp && !has_all(s) && s->resume < next)
			next = s->resume;
		if (!h->index && !w->pairs[i].started && w->pairs[i].start_at < next)
			next = w->pairs[i].start_at;
		if (s->qp && s->end_at < next)
			next = s->end_at;
		if (s->qp && s->mr && s->lose_at < next)
			next = s->lose_at;
	}
	return next <= w->sim.now ? w->sim.now + nap(w, h) : next;
}

static const struct sim_app app = {.event = on_event,
	.acceptable = on_acceptable,
	.run = run,
	.qp_event = on_qp_event,
	.completion = on_completion};

/* --- a run ------------------------------------------------------------------------------------------------
 */

static void draw_links(struct sim *s, double badness)
{
	for (unsigned i = 0; i < 2; i++) {
		struct sim_link *l = &s->links[i][!i];

		*l = (struct sim_link){.delay = sim_scale(s, 1 * SD_US, 200 * SD_US)};
		if (sim_chance(s, 0.5))
			l->rate = sim_scale(s, 10000000, 3000000000);
		if (l->rate && sim_chance(s, 0.5))
			l->queue = sim_scale(s, 100 * SD_US, 5 * SD_MS);
		if (l->queue && sim_chance(s, 0.5))
			l->mark = l->queue / 2;
		if (sim_chance(s, badness))
			l->loss = sd_rng_unit(&s->rng) * 0.2 * badness;
		if (sim_chance(s, badness))
			l->duplicate = sd_rng_unit(&s->rng) * 0.2 * badness;
		if (sim_chance(s, badness)) {
			l->reorder = sd_rng_unit(&s->rng) * 0.3 * badness;
			l->reorder_delay = sim_scale(s, 1 * SD_US, 2 * SD_MS);
		}
		if (sim_chance(s, badness))
			l->corrupt = sd_rng_unit(&s->rng) * 0.05 * badness;
		if (sim_chance(s, badness))
			l->ce = sd_rng_unit(&s->rng) * 0.1;
		if (sim_chance(s, badness))
			l->jitter = sim_scale(s, 1 * SD_US, 300 * SD_US);
	}
}

/* Now and then the way becomes another; and some of these let no large packets through for a while. */
static void draw_changes(struct world *w)
{
	struct sim *s = &w->sim;

	if (sim_chance(s, 0.3)) /* narrower than the hosts believe, for ever */
		for (unsigned i = 0; i < 2; i++)
			s->links[i][!i].mtu = (uint16_t)sim_between(s, SIM_BASE_MTU, 9000);
	for (uint64_t i = sim_between(s, 0, CHANGES); i--;) {
		struct sim_change *c = w->changes[i];
		uint64_t at = s->now + sim_scale(s, 10 * SD_US, SD_S);

		c[0].link = c[1].link = &s->links[i % 2][!(i % 2)];
		c[0].now = c[1].now = *c->link;
		c[0].now.delay = sim_scale(s, SD_US, 5 * SD_MS);
		c[0].now.mtu = sim_chance(s, 0.3) ? (uint16_t)sim_between(s, WIRE_MIN_PAYLOAD, 9000) : 0;
		c[0].overtake = c[1].overtake = sim_chance(s, 0.5);
		sim_change_at(s, at, &c[0]);
		sim_change_at(s, at + sim_scale(s, SD_MS, 5 * SD_S), &c[1]);
	}
}

static void open_host(struct world *w, unsigned i)
{
	struct sim_host *h = &w->sim.hosts[i];
	struct host *host = &w->hosts[i];

	h->cfg.window_packets = 32u << sim_between(&w->sim, 0, 5);
	h->max_payload = sim_chance(&w->sim, 0.5) ? 1472 : (uint16_t)sim_between(&w->sim, 256, 9000);
	if (sim_chance(&w->sim, 0.3))
		h->lag = sim_scale(&w->sim, 1 * SD_US, 2 * SD_MS);
	if (sim_chance(&w->sim, 0.7)) {
		h->in_parts = sim_chance(&w->sim, 0.5) ? 1 : sd_rng_unit(&w->sim.rng);
		h->hold_max = sim_scale(&w->sim, 10 * SD_US, 50 * SD_MS);
	}
	if (sim_chance(&w->sim, 0.3)) {
		h->clock_behind = (int64_t)sim_between(&w->sim, 0, w->sim.begin);
		h->clock_ppm = (int)sim_between(&w->sim, 0, 400) - 200;
	}
	if (!w->may_fail) { /* so long that loss alone never makes it fail */
		h->cfg.connect_timeout_ns = 20 * SD_S;
		h->cfg.dead_timeout_ns = 40 * SD_S;
	}
	trim_sim(&w->sim);
	sim_boot(h);
	host->fetched = calloc(PAIRS_MAX * OPS_MAX, 1);
	if (!host->fetched || tp_pd_create(h->tp, &host->pd) ||
		tp_mr_register(
			host->pd, &host->counter, 8, TP_LOCAL_WRITE | TP_REMOTE_ATOMIC, &host->counter_mr))
		abort();
}

static void open_pair(struct world *w, unsigned i)
{
	struct pair *p = &w->pairs[i];

	p->port = (uint16_t)(1000 + i);
	p->start_at = w->sim.now + sim_between(&w->sim, 0, 2 * SD_MS);
	for (unsigned k = 0; k < 2; k++) {
		struct side *s = &p->side[k];

		s->pair = p;
		s->peer = &p->side[!k];
		s->host = &w->sim.hosts[k];
		s->n_ops = (uint32_t)trim_bound("ops", sim_between(&w->sim, 0, OPS_MAX));
		s->pause = sim_chance(&w->sim, 0.5) ? 0 : sim_scale(&w->sim, 1 * SD_US, 1 * SD_MS);
		s->end_at = s->lose_at = SIM_NEVER;
		for (unsigned n = 0; n < SLOTS; n++)
			s->slot_writer[n] = NONE;
		open_side(s);
	}
}

/* It has done all it wanted to, cannot, or its peer will not come any more. */
static bool is_done(const struct side *s)
{
	if (!s->qp || s->failed || (has_all(s) && s->ended))
		return true;
	return !tp_qp_conn(s->qp) && (!s->peer->qp || tp_qp_error(s->peer->qp) || tp_qp_error(s->qp));
}

static bool all_done(struct world *w)
{
	for (unsigned i = 0; i < w->n_pairs; i++) {
		for (unsigned k = 0; k < 2; k++) {
			const struct side *s = &w->pairs[i].side[k];

			if (!is_done(s))
				return false;
		}
	}
	return true;
}

static void check_end(struct world *w)
{
	for (unsigned i = 0; i < w->n_pairs; i++) {
		for (unsigned k = 0; k < 2; k++) {
			struct side *s = &w->pairs[i].side[k];

			if (!s->qp)
				continue;
			poll_queues(s);
			if (s->failed && (s->received != s->receives))
				wrong(s, "receives that have not completed", s->received);
			if (!s->failed && tp_qp_conn(s->qp) && (s->posted != s->n_ops || s->done != s->n_ops))
				wrong(s, "requests that have not completed", s->done);
		}
	}
}

/* What is missing. */
static void tell_state(struct world *w)
{
	for (unsigned i = 0; i < 2 * w->n_pairs; i++) {
		const struct side *s = &w->pairs[i / 2].side[i % 2];

		if (!is_done(s))
			sim_fail(&w->sim,
				"host %u, port %u does not end: %u of %u posted, %u done; %u receives, %u "
				"done, %s",
				s->host->index, s->pair->port, s->posted, s->n_ops, s->done, s->receives,
				s->received, s->ended ? "the peer has ended" : "the peer goes on");
	}
}

enum trouble { CALM, BAD_LINKS, ENDS, LOST_REGIONS, CRASH, N_TROUBLES };

static const char *const names[] = {"calm", "bad links", "ends at any time", "regions that go", "a crash"};

static void draw_trouble(struct world *w, enum trouble trouble)
{
	struct side *s = &w->pairs[sim_between(&w->sim, 0, w->n_pairs - 1)].side[sim_between(&w->sim, 0, 1)];
	uint64_t at = w->sim.now + sim_scale(&w->sim, 100 * SD_US, 100 * SD_MS);

	if (trim_off("trouble"))
		return;
	if (trouble == ENDS)
		s->end_at = at;
	else if (trouble == LOST_REGIONS)
		s->lose_at = at;
	else if (trouble == CRASH)
		w->crash_at = at;
}

static void finish(struct world *w)
{
	for (unsigned i = 0; i < w->n_pairs; i++) {
		close_side(&w->pairs[i].side[0]);
		close_side(&w->pairs[i].side[1]);
	}
	for (unsigned i = 0; i < 2; i++) {
		struct host *h = &w->hosts[i];

		if (h->pd) {
			tp_mr_deregister(h->counter_mr);
			if (tp_pd_destroy(h->pd))
				sim_fail(&w->sim, "a domain is still in use");
		}
		free(h->fetched);
	}
	sim_run(&w->sim, w->sim.now + SD_S);
}

/* Its memory goes with the instance: nobody asks for it any more. */
static void crash(struct world *w)
{
	for (unsigned i = 0; i < w->n_pairs; i++)
		close_side(&w->pairs[i].side[1]);
	tp_mr_deregister(w->hosts[1].counter_mr);
	tp_pd_destroy(w->hosts[1].pd);
	w->hosts[1].pd = NULL;
	w->listener = NULL;
	sim_crash(&w->sim.hosts[1]);
}

static bool run_one(uint64_t seed, enum trouble trouble, bool verbose)
{
	struct world *w = calloc(1, sizeof *w);
	bool ok;

	if (!w)
		abort();
	sim_open(&w->sim, seed * N_TROUBLES + trouble, 2, 4, &app, w);
	w->sim.verbose = verbose;
	w->crash_at = SIM_NEVER;
	w->may_fail = trouble >= ENDS;
	if (sim_chance(&w->sim, 0.3))
		w->sim.isn_below = (uint32_t)sim_scale(&w->sim, 1, 1000);
	draw_links(&w->sim, trouble == CALM ? 0 : 1);
	if (trouble == BAD_LINKS)
		draw_changes(w);
	open_host(w, 0);
	open_host(w, 1);
	w->n_pairs = (unsigned)trim_bound("pairs", sim_between(&w->sim, 1, PAIRS_MAX));
	w->pairs = calloc(w->n_pairs, sizeof *w->pairs);
	if (!w->pairs)
		abort();
	if (tp_qp_listen(w->sim.hosts[1].tp, &(struct sd_addr){.family = 4, .port = PORT}, 8, 4, NULL,
		    &w->listener))
		abort();
	for (unsigned i = 0; i < w->n_pairs; i++)
		open_pair(w, i);
	draw_trouble(w, trouble);
	w->last_progress = w->sim.now;
	for (unsigned i = 0; i < 400 && !w->sim.failure[0] && !all_done(w); i++) {
		uint64_t until = w->sim.now + 250 * SD_MS;

		if (w->crash_at < until && w->hosts[1].pd) {
			sim_run(&w->sim, w->crash_at);
			crash(w);
		}
		sim_run(&w->sim, until);
	}
	if (!w->sim.failure[0] && !all_done(w))
		tell_state(w);
	if (!w->sim.failure[0])
		check_end(w);
	finish(w);
	sim_close(&w->sim);
	ok = !w->sim.failure[0];
	if (!ok)
		printf("SIM_SEED=%llu, %s: %s (%llu packets, %08x)\n", (unsigned long long)seed,
			names[trouble], w->sim.failure, (unsigned long long)w->sim.packets, w->sim.trace);
	free(w->pairs);
	free(w);
	return ok;
}

static void run_many(enum trouble trouble)
{
	struct trim_seeds n = trim_seeds(SEEDS / N_TROUBLES);
	unsigned failed = 0;

	for (uint64_t seed = n.first; seed < n.first + n.count && !failed; seed++)
		failed += !run_one(seed, trouble, n.verbose);
	assert_int_equal(failed, 0);
}

static void calm(void **state)
{
	run_many(CALM);
}

static void bad_links(void **state)
{
	run_many(BAD_LINKS);
}

static void ends_at_any_time(void **state)
{
	run_many(ENDS);
}

static void regions_that_go(void **state)
{
	run_many(LOST_REGIONS);
}

static void a_crash(void **state)
{
	run_many(CRASH);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(calm),
		cmocka_unit_test(bad_links),
		cmocka_unit_test(ends_at_any_time),
		cmocka_unit_test(regions_that_go),
		cmocka_unit_test(a_crash),
	};

	setvbuf(stdout, NULL, _IOLBF, 0);
	cmocka_set_test_filter(getenv("SIM_CASE"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
