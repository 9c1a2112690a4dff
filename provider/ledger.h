/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ledger: what each user of the daemon has of what all of them share, against a limit for each. A user is a
 * uid: whoever can become several users has several shares.
 *
 * Only users that have something are kept: memory follows their number, not that of all users there ever
 * were. One thread at a time.
 */
#ifndef SD_PROVIDER_LEDGER_H
#define SD_PROVIDER_LEDGER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct ledger_share {
	uint32_t connections;
	uint64_t bytes; /* of memory */
};

struct ledger_user; /* in the table */

struct ledger {
	struct ledger_share limit, root_limit;
	struct ledger_user *users; /* open addressing, linear probing */
	size_t size, n_users;	   /* size: a power of two, or 0 before the first user */
};

/* limit: of every user. root_limit: of uid 0; NULL: the same. Allocates nothing yet. */
void ledger_open(struct ledger *l, const struct ledger_share *limit, const struct ledger_share *root_limit);
void ledger_close(struct ledger *l);
/* New limits. Who has more by now keeps it and gets no more of that. */
void ledger_set_limits(
	struct ledger *l, const struct ledger_share *limit, const struct ledger_share *root_limit);
struct ledger_share ledger_limit_of(const struct ledger *l, uid_t uid);

/* All of it or nothing. 0; -EDQUOT: more than the user's limit; -ENOMEM. */
int ledger_take(struct ledger *l, uid_t uid, uint32_t connections, uint64_t bytes);
/* Returns what was taken, or a part of it. Of more than there is, what there is. */
void ledger_give(struct ledger *l, uid_t uid, uint32_t connections, uint64_t bytes);
/* What the user has now. */
struct ledger_share ledger_of(const struct ledger *l, uid_t uid);

#endif
