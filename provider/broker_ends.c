/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which ends there still are. The broker has no descriptor of them, nor of anything that would tell: that is
 * what makes connections cheap. It asks the kernel.
 *
 * Sometimes, and when there is reason to think that some have gone, it looks at all UNIX sockets there are.
 * That is cheap for many ends, and what it sees is so: cookies cannot be had again. What it does not see may
 * be there all the same, as the sockets are not listed in one go. So it is only doubted, as is an end of
 * which a program says that it has closed it. The proof is its name: who can have the name sees that nobody
 * has it. New ends get the names of doubted ones where they can, so that most proofs cost nothing. One whose
 * name somebody has although it was not seen is asked for by itself, as programs can give their sockets any
 * name that is free; it takes the kernel a walk through all sockets.
 *
 * A kernel that lists no UNIX sockets (CONFIG_UNIX_DIAG) is asked for names only. Who has the name of an end
 * that is gone then keeps its connection counted.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "provider/broker_private.h"

#define SWEEP_NS (10 * SD_S) /* the longest time between two looks, while there are ends */
/* Looks take at most one of so many parts of the core, plus one. */
#define REST 20u
/* A program says that it closes an end when it is about to. */
#define JUDGE_NS (1 * SD_MS)
#define TURN	 32u /* names in a row, some microseconds each */
/* Where somebody waits for room: 16 ms at most. */
#define MANY 2048u
/* It was closed, but not everywhere, or not yet; one end is gone, and the other one will be. */
#define AGAIN_NS (20 * SD_MS)

static struct list *bucket(struct broker *b, uint64_t cookie)
{
	return &b->streams[cookie & (BROKER_BUCKETS - 1)];
}

struct end *end_of_cookie(struct broker *b, uint64_t cookie)
{
	list_for_each (it, bucket(b, cookie)) {
		struct end *e = container_of(it, struct end, hash);

		if (cookie && e->cookie == cookie)
			return e;
	}
	return NULL;
}

struct end *end_at(struct broker *b, int fd)
{
	/* A number that no socket of the program's own making has. */
	return end_of_cookie(b, cookie_of(fd));
}

/* --- doubting --- */

static void doubt(struct broker *b, struct end *e, bool unseen, uint64_t judge_at)
{
	struct ends *s = &b->ends;

	if (list_empty(&s->doubted) || judge_at < s->judge_at)
		s->judge_at = judge_at;
	list_remove(&e->place);
	list_push_back(&s->doubted, &e->place);
	e->doubted = true;
	e->unseen = unseen;
}

static void trust(struct broker *b, struct end *e)
{
	list_remove(&e->place);
	list_push_back(&b->ends.alive, &e->place);
	e->doubted = e->unseen = false;
	e->round = b->ends.round;
}

void ends_may_be_gone(struct broker *b, uint64_t cookie)
{
	struct end *e = end_of_cookie(b, cookie);

	for (unsigned i = 0; e && i < 2; i++) {
		struct end *both = &e->stream->end[i];

		if (!both->doubted && !both->gone)
			doubt(b, both, false, b->ends.now + JUDGE_NS);
	}
}

void ends_look(struct broker *b, uint64_t after)
{
	struct ends *s = &b->ends;
	uint64_t at = s->now + after;

	if (at < s->rested_at)
		at = s->rested_at;
	if (at < s->look_at)
		s->look_at = at;
	s->pause = after;
}

/* --- judging --- */

/* 0: nobody has that name; -EADDRINUSE: somebody has; or it cannot be told. *probe: a socket without a name,
 * or -1. */
static int try_name(int *probe, uint64_t name)
{
	int r;

	if (*probe < 0)
		*probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (*probe < 0)
		return -errno;
	r = channel_name_end(*probe, name);
	if (!r)
		sd_fd_close(probe); /* and with it the name */
	return r;
}

static bool is_gone(const struct broker *b, const struct end *e, int *probe)
{
	int r = try_name(probe, e->name);

	if (r != -EADDRINUSE || !e->unseen)
		return !r;
	return kernel_unix_socket(b->ends.diag, e->inode, e->cookie) == -ENOENT;
}

static void end(struct broker *b, struct end *e)
{
	const struct end *other = &e->stream->end[e == e->stream->end];

	list_remove(&e->place);
	list_remove(&e->hash);
	e->doubted = false;
	e->gone = true;
	/* A child that goes on with the other one, say, tells nobody when it has closed it. */
	if (!other->gone)
		ends_look(b, AGAIN_NS);
	stream_end_gone(b, e);
}

static struct end *first_doubted(const struct broker *b)
{
	const struct list *l = &b->ends.doubted;

	return list_empty(l) ? NULL : container_of(l->next, struct end, place);
}

static unsigned judge(struct broker *b, unsigned most)
{
	unsigned n = 0;
	int probe = -1;

	for (struct end *e; n < most && (e = first_doubted(b)); n++) {
		if (is_gone(b, e, &probe)) {
			end(b, e);
			continue;
		}
		/* It is still open, here or elsewhere, or there is another of its name. */
		if (!e->unseen)
			ends_look(b, AGAIN_NS);
		trust(b, e);
	}
	sd_fd_close(&probe);
	return n;
}

/* --- coming --- */

/* Nobody knows it before there is an end of that name. */
static uint64_t new_name(struct broker *b)
{
	const uint64_t number = ++b->ends.named;

	return sd_siphash64(&b->key, &number, sizeof number);
}

static int name_half(struct broker *b, int half, uint64_t *name)
{
	struct end *e = first_doubted(b);

	if (e && !channel_name_end(half, e->name)) {
		*name = e->name;
		end(b, e);
		return 0;
	}
	*name = new_name(b);
	return channel_name_end(half, *name);
}

int end_open(struct broker *b, struct stream *s, unsigned i, int half)
{
	struct end *e = &s->end[i];
	struct stat st;
	int r;

	e->cookie = cookie_of(half);
	if (!e->cookie || fstat(half, &st))
		return -ENOSYS;
	r = name_half(b, half, &e->name);
	if (r)
		return r;
	watch_refuse_fds(half);
	e->inode = (uint32_t)st.st_ino;
	end_add(b, s, i);
	return 0;
}

void end_add(struct broker *b, struct stream *s, unsigned i)
{
	struct end *e = &s->end[i];

	e->stream = s;
	e->round = b->ends.round;
	list_push_back(bucket(b, e->cookie), &e->hash);
	list_push_back(&b->ends.alive, &e->place);
}

/* --- looking --- */

static void saw(void *ctx, uint64_t cookie)
{
	struct broker *b = ctx;
	struct end *e = end_of_cookie(b, cookie);

	if (e && !e->doubted)
		trust(b, e);
}

/* The first ones are those that were seen the longest time ago. */
static void doubt_unseen(struct broker *b)
{
	struct ends *s = &b->ends;

	while (!list_empty(&s->alive)) {
		struct end *e = container_of(s->alive.next, struct end, place);

		if (e->round == s->round)
			return;
		doubt(b, e, true, s->now);
	}
}

static void doubt_all(struct broker *b)
{
	while (!list_empty(&b->ends.alive))
		doubt(b, container_of(b->ends.alive.next, struct end, place), false, b->ends.now);
}

/* The longer nothing was heard, the more seldom. */
static void rest(struct broker *b)
{
	struct ends *s = &b->ends;
	uint64_t rest = REST * s->cost;

	s->looking = false;
	s->rested_at = s->now + rest;
	s->look_at = s->now + (s->pause > rest ? s->pause : rest);
	s->pause = s->pause * 2 < SWEEP_NS ? s->pause * 2 : SWEEP_NS;
}

/* Another piece of what the kernel lists. */
static void look_on(struct broker *b)
{
	struct ends *s = &b->ends;
	uint64_t start = sd_clock_ns();
	int r = kernel_unix_next(s->diag, saw, b);

	s->cost += sd_clock_ns() - start;
	if (r > 0)
		return;
	if (!r)
		doubt_unseen(b);
	else
		kernel_unix_reopen(&s->diag); /* nothing was learned but who is there */
	rest(b);
}

static void look(struct broker *b)
{
	struct ends *s = &b->ends;
	uint64_t start = sd_clock_ns();

	s->cost = 0;
	if (s->diag < 0) {
		doubt_all(b);
		rest(b);
		return;
	}
	s->round++;
	s->looking = !kernel_unix_list(s->diag);
	s->cost = sd_clock_ns() - start;
	if (s->looking)
		return;
	kernel_unix_reopen(&s->diag);
	rest(b);
}

unsigned ends_progress(struct broker *b, uint64_t now)
{
	struct ends *s = &b->ends;
	unsigned n = 0;

	s->now = now;
	if (!list_empty(&s->doubted) && now >= s->judge_at)
		n += judge(b, TURN);
	if (s->looking) {
		look_on(b);
		return n + 1;
	}
	if (list_empty(&s->alive) || now < s->look_at)
		return n;
	look(b);
	return n + 1;
}

uint64_t ends_deadline(const struct broker *b)
{
	const struct ends *s = &b->ends;
	uint64_t judge_at = list_empty(&s->doubted) ? UINT64_MAX : s->judge_at,
		 look_at = list_empty(&s->alive) ? UINT64_MAX : s->look_at;

	if (s->looking)
		return 0;
	return judge_at < look_at ? judge_at : look_at;
}

void ends_settle(struct broker *b)
{
	struct ends *s = &b->ends;

	if (!s->looking && s->now >= s->rested_at)
		look(b);
	while (s->looking)
		look_on(b);
	judge(b, MANY);
}

/* --- life --- */

void ends_open(struct broker *b)
{
	struct ends *s = &b->ends;
	int r;

	list_init(&s->alive);
	list_init(&s->doubted);
	s->diag = -1;
	s->pause = SWEEP_NS;
	kernel_unix_reopen(&s->diag);
	/* Which end there is is not of interest yet, but whether it can be asked. */
	r = kernel_unix_list(s->diag);
	while (!r && (r = kernel_unix_next(s->diag, saw, b)) > 0)
		r = 0;
	if (!r)
		return;
	sd_warn("the kernel does not list UNIX sockets (CONFIG_UNIX_DIAG; modprobe unix_diag): that "
		"connections have ended is found out one by one");
	sd_fd_close(&s->diag);
}

void ends_close(struct broker *b)
{
	sd_fd_close(&b->ends.diag);
}
