/* SPDX-License-Identifier: BSD-3-Clause */
#include "provider/ledger.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define SIZE_MIN 16u

struct ledger_user {
	uid_t uid;
	struct ledger_share has; /* nothing: the place is free */
};

static bool is_nothing(const struct ledger_share *s)
{
	return !s->connections && !s->bytes;
}

void ledger_set_limits(
	struct ledger *l, const struct ledger_share *limit, const struct ledger_share *root_limit)
{
	l->limit = *limit;
	l->root_limit = root_limit ? *root_limit : *limit;
}

void ledger_open(struct ledger *l, const struct ledger_share *limit, const struct ledger_share *root_limit)
{
	memset(l, 0, sizeof *l);
	ledger_set_limits(l, limit, root_limit);
}

void ledger_close(struct ledger *l)
{
	free(l->users);
	l->users = NULL;
	l->size = l->n_users = 0;
}

struct ledger_share ledger_limit_of(const struct ledger *l, uid_t uid)
{
	return uid ? l->limit : l->root_limit;
}

/* Multiplicative (Knuth): uids lie next to each other. */
static size_t home(uid_t uid, size_t size)
{
	return (size_t)((uint64_t)uid * 0x9e3779b97f4a7c15ull >> 32) & (size - 1);
}

/* The user's place, or the free one where it would be. The table is there and not full. */
static struct ledger_user *place_of(struct ledger_user *users, size_t size, uid_t uid)
{
	size_t at = home(uid, size);

	while (!is_nothing(&users[at].has) && users[at].uid != uid)
		at = (at + 1) & (size - 1);
	return &users[at];
}

/* Room for one user more, with a quarter of the table free. */
static int grow(struct ledger *l)
{
	size_t size = l->size ? l->size * 2 : SIZE_MIN;
	struct ledger_user *users;

	if (l->size && l->n_users + 1 <= l->size / 4 * 3)
		return 0;
	users = calloc(size, sizeof *users);
	if (!users)
		return -ENOMEM;
	for (size_t i = 0; i < l->size; i++)
		if (!is_nothing(&l->users[i].has))
			*place_of(users, size, l->users[i].uid) = l->users[i];
	free(l->users);
	l->users = users;
	l->size = size;
	return 0;
}

/* After a place has become free: users behind it that are looked for across it move up. */
static void close_gap(struct ledger *l, size_t gap)
{
	size_t mask = l->size - 1;

	for (size_t at = (gap + 1) & mask; !is_nothing(&l->users[at].has); at = (at + 1) & mask) {
		size_t from_home = (at - home(l->users[at].uid, l->size)) & mask;

		if (from_home < ((at - gap) & mask))
			continue; /* its home is behind the gap */
		l->users[gap] = l->users[at];
		memset(&l->users[at], 0, sizeof l->users[at]);
		gap = at;
	}
}

struct ledger_share ledger_of(const struct ledger *l, uid_t uid)
{
	return l->size ? place_of(l->users, l->size, uid)->has : (struct ledger_share){0};
}

/* Of a thing with that limit, does the user get `more` to what it has? */
static bool fits(uint64_t has, uint64_t more, uint64_t limit)
{
	return !more || (has <= limit && more <= limit - has);
}

int ledger_take(struct ledger *l, uid_t uid, uint32_t connections, uint64_t bytes)
{
	struct ledger_share has = ledger_of(l, uid), limit = ledger_limit_of(l, uid);
	struct ledger_user *user;

	if (!fits(has.connections, connections, limit.connections) || !fits(has.bytes, bytes, limit.bytes))
		return -EDQUOT;
	if (!connections && !bytes)
		return 0;
	if (is_nothing(&has)) {
		if (grow(l))
			return -ENOMEM;
		l->n_users++;
	}
	user = place_of(l->users, l->size, uid);
	user->uid = uid;
	user->has.connections += connections;
	user->has.bytes += bytes;
	return 0;
}

void ledger_give(struct ledger *l, uid_t uid, uint32_t connections, uint64_t bytes)
{
	struct ledger_user *user = l->size ? place_of(l->users, l->size, uid) : NULL;
	struct ledger_share *has;

	if (!user || is_nothing(&user->has))
		return;
	has = &user->has;
	has->connections -= connections < has->connections ? connections : has->connections;
	has->bytes -= bytes < has->bytes ? bytes : has->bytes;
	if (!is_nothing(has))
		return;
	l->n_users--;
	close_gap(l, (size_t)(user - l->users));
}
