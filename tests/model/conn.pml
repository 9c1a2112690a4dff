/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * conn: connections and what a host knows beside them (struct tp_conn and struct tp in transport/conn.h;
 * birth and death in transport/conn.c). The fields have the names they have there. A stream has at most one
 * byte in each direction, then FIN; so there are PSNs 0 and 1, counted from the initial one.
 *
 * A connection that has failed is freed at once: CONN_FAILED is only how its application learns of it.
 */
#define FREE	0
#define SENT	1 /* INIT_SENT */
#define HALF	2 /* INIT_RECEIVED */
#define OPEN	3
#define CLOSING 4

typedef conn {
	unsigned st : 3;
	unsigned cid : 3;
	unsigned peer : 3; /* peer_cid */
	unsigned nonce : 3;
	unsigned pkey : 2; /* peer_token */
	unsigned pepoch : 2;
	unsigned attempt : 2;
	unsigned cookie : 2;
	unsigned probes : 2; /* unanswered, of the probe timer and of keepalive */
	unsigned una : 2;
	unsigned nxt : 2;
	unsigned rcv : 2; /* rcv_nxt */
	bool owned;
	bool waiting; /* in the accept queue */
	bool init_due, probe_due, ping_due, ack_now;
	bool unconfirmed;
	bool wrote;
	bool unread;
	bool fin_wanted, fin_sent, fin_acked, rcv_fin;
	bool peer_bye
}

/* Host A has place 0, host B 1, 2 and 3. */
#define NONE 4
conn c[NONE];

#define HOST(k)	 ((k) > 0)
#define FIRST(h) ((h) -> 1 : 0)
#define LAST(h)	 ((h) -> 3 : 0)
#define ANY(P)	 (P(0) || P(1) || P(2) || P(3))

/* What a host knows beside its connections. */
byte next_cid[2];
byte node_key[2];
byte boot[2];	      /* boot epoch, which also stands for the key of cookies */
byte finished[2];     /* ids that ended in good order, one bit each */
byte seen_epoch;      /* B: tp.peer_hosts of A */
bool listening = true; /* B */

/* For assertions only. */
byte wrote[2], arrived[2]; /* ids of the host whose byte was written, has arrived; one bit each */
byte opened_with[8];	   /* by A's id: B's id that its INIT_ACK told */
byte made_for[8];	   /* by B's id: A's id in INIT */
byte refused;		   /* A's ids that B has refused */
bool excused; /* an application aborted, a host crashed, time ran out: errors are right */
bool early;   /* an end went without waiting for the peer's bytes, as it may: they are reset */
bool blocked; /* something has happened for which a peer may be silent for good */

#define BIT(x) (1 << (x))

#define OUTSTANDING(k)	(c[k].una != c[k].nxt)
#define BYTE_ACKED(k)	(!c[k].wrote || c[k].una > 0) /* snd_acked == snd_end */
#define IS_UP(k)	(c[k].st >= OPEN)
/* tp_output_new_data() and wanted() in transport/output.c */
#define NEW_DATA(k) (IS_UP(k) && ((c[k].wrote && c[k].nxt == 0) || (c[k].fin_wanted && !c[k].fin_sent)))
#define DUE(k) (c[k].init_due || c[k].probe_due || c[k].ping_due || c[k].ack_now || NEW_DATA(k))
/* sending_done() in transport/close.c */
#define SENDING_DONE(k) (BYTE_ACKED(k) && (c[k].fin_acked || \
	(c[k].fin_sent && (c[k].peer_bye || BUG == BUG_NO_BYE_NEEDED))))

#define IS_PEER(k, m)  (c[m].st >= HALF && c[m].cid == c[k].peer)
#define PEER_LIVES(k) \
	(HOST(k) -> IS_PEER(k, 0) : (IS_PEER(k, 1) || IS_PEER(k, 2) || IS_PEER(k, 3)))

hidden byte f, m, n;

/* f: the connection of host h with the id; tp_conn_by_cid() */
inline find(h, id)
{
	f = NONE;
	m = FIRST(h);
	do
	:: m <= LAST(h) ->
		if
		:: c[m].st != FREE && c[m].cid == id -> f = m
		:: else
		fi;
		m++
	:: else -> break
	od
}

/* f: a free place of host h */
inline find_free(h)
{
	f = NONE;
	m = FIRST(h);
	do
	:: m <= LAST(h) ->
		if
		:: c[m].st == FREE && f == NONE -> f = m
		:: else
		fi;
		m++
	:: else -> break
	od
}

inline conn_new(k, state)
{
	assert(next_cid[HOST(k)] < STRANGE); /* else the model needs more ids */
	c[k].st = state;
	c[k].cid = next_cid[HOST(k)];
	next_cid[HOST(k)]++
}

inline conn_free(k)
{
	c[k].st = FREE;
	c[k].cid = 0;
	c[k].peer = 0;
	c[k].nonce = 0;
	c[k].pkey = 0;
	c[k].pepoch = 0;
	c[k].attempt = 0;
	c[k].cookie = 0;
	c[k].probes = 0;
	c[k].una = 0;
	c[k].nxt = 0;
	c[k].rcv = 0;
	c[k].owned = 0;
	c[k].waiting = 0;
	c[k].init_due = 0;
	c[k].probe_due = 0;
	c[k].ping_due = 0;
	c[k].ack_now = 0;
	c[k].unconfirmed = 0;
	c[k].wrote = 0;
	c[k].unread = 0;
	c[k].fin_wanted = 0;
	c[k].fin_sent = 0;
	c[k].fin_acked = 0;
	c[k].rcv_fin = 0;
	c[k].peer_bye = 0
}

/* Ended in good order: everything written was taken, everything that came was read. */
inline conn_finish(k)
{
	assert(!c[k].unread);
	if
	:: BUG != BUG_FORGETS_FINISHED -> finished[HOST(k)] = finished[HOST(k)] | BIT(c[k].cid)
	:: else
	fi;
	conn_free(k)
}

/* An error, which an application that holds the connection is told: it must have a reason. */
inline conn_fail(k, reason_enough)
{
	assert(!c[k].owned || (reason_enough));
	conn_free(k)
}

/* tp_control_reset(); a full queue drops it */
inline reset_peer(k, why)
{
	if
	:: c[k].peer != 0 && ROOM ->
		send(HEAD(RESET, 1 - HOST(k), 0, c[k].cid) | WHY(node_key[HOST(k)], why))
	:: else
	fi
}
