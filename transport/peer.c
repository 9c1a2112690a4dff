/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * peer: what is remembered of another host beyond its connections, for each address from which it is spoken
 * to: its boot epoch, and how large packets may be on the way there. A table of fixed size, in which a host
 * takes the place of the one that has been asked for least recently when there is no other: all of it can be
 * learnt again, but not while two of them take turns.
 */
#include <string.h>

#include "transport/conn.h"

#define RESTART_CHECK SD_S
#define REACH	      16 /* places that a host may have */

struct tp_peer *tp_peer_of(const struct tp_conn *c)
{
	const struct sd_addr *local = &c->path.local, *peer = &c->path.peer;
	struct tp_peer *oldest = NULL;
	struct tp *t = c->tp;
	uint8_t key[2][16];
	uint64_t hash;

	memcpy(key[0], local->ip, sizeof key[0]);
	memcpy(key[1], peer->ip, sizeof key[1]);
	hash = sd_siphash64(&t->key_hash, key, sizeof key);
	for (unsigned i = 0; i < REACH; i++) {
		struct tp_peer *p = &t->peer_hosts[(hash + i) % TP_PEER_HOSTS];

		if (sd_addr_same_ip(&p->ip, peer) && sd_addr_same_ip(&p->local, local)) {
			p->used = t->now;
			return p;
		}
		if (!oldest || p->used < oldest->used)
			oldest = p;
	}
	*oldest = (struct tp_peer){.ip = *peer, .local = *local, .used = t->now};
	return oldest;
}

/*
 * A host whose boot epoch has changed has lost its connections: ask those of the old epoch whether they live.
 * Several processes of one host have different epochs, so this is done rarely and harms nobody who is alive.
 */
void tp_peer_check_restart(struct tp_conn *c)
{
	struct tp *t = c->tp;
	struct tp_peer *p = tp_peer_of(c);

	if (!p->epoch || p->epoch == c->peer_epoch) {
		p->epoch = c->peer_epoch;
		return;
	}
	if (t->now - p->checked < RESTART_CHECK)
		return;
	p->epoch = c->peer_epoch;
	p->checked = t->now;
	for (uint32_t i = 0; i < t->max_conns; i++) {
		struct tp_conn *old = t->slots[i];

		if (old && old->state == CONN_OPEN && old->peer_epoch != c->peer_epoch &&
			sd_addr_same_ip(&old->path.peer, &c->path.peer)) {
			old->ping_due = true;
			tp_conn_mark(old);
		}
	}
}
