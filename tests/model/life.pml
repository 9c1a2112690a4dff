/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * life: how connections begin, end and survive restarts, as docs/protocol.md and transport/ have it, tried in
 * every order in which packets, timers, applications and faults can come. README.md says what is checked and
 * what is left out; check.py has the runs.
 *
 * How much may happen, for each run (-DNAME=n):
 */
#ifndef PLACES
#define PLACES 4 /* packets in the network at once */
#endif
#ifndef CONNECTS
#define CONNECTS 1 /* calls of connect() */
#endif
#ifndef BACKLOG
#define BACKLOG 1
#endif
#ifndef LOSSES
#define LOSSES 0
#endif
#ifndef COPIES
#define COPIES 0 /* packets that arrive once more, whenever the network likes */
#endif
#ifndef HASTE
#define HASTE 0 /* timers that run out while packets are under way */
#endif
#ifndef CRASHES
#define CRASHES 0
#endif
#ifndef CRASHES_OF_B
#define CRASHES_OF_B 1 /* may it be B that crashes? */
#endif
#ifndef FORGERIES
#define FORGERIES 0 /* packets of the intruder */
#endif
#ifndef OUTAGES
#define OUTAGES 0 /* of the link; it may come back */
#endif
#ifndef ABORTS
#define ABORTS 0
#endif
#ifndef WRITES
#define WRITES 1 /* do applications write? */
#endif
#ifndef KEEPALIVE
#define KEEPALIVE 1
#endif
#ifndef UNLISTEN
#define UNLISTEN 0 /* may the listener be closed? */
#endif

#define INITS  2	    /* attempts after the first */
#define PROBES (LOSSES + CRASHES + 1) /* so many unanswered: nothing can get through */

#include "bugs.pml"
#include "wire.pml"
#include "conn.pml"
#include "setup.pml"
#include "close.pml"
#include "flow.pml"

byte connects, losses, copies, haste, crashes, forgeries, outages, aborts;

/*
 * Timers are slow: one runs out when nothing is under way and nothing is due, or at most HASTE times before.
 * What is wanted of each, from timeout_open() and tp_setup_timeout():
 */
#define CALM	      (EMPTY && !ANY(DUE))
#define RUNS_INIT(k)  (c[k].st == SENT)
#define RUNS_HALF(k)  (c[k].st == HALF && BUG != BUG_HALF_FOR_EVER)
#define RUNS_PROBE(k) (IS_UP(k) && (OUTSTANDING(k) || c[k].unconfirmed))
/* Asking a peer that lives changes nothing, so only the others are asked. */
#define RUNS_KEEP(k) (IS_UP(k) && !RUNS_PROBE(k) && (!c[k].rcv_fin || BUG == BUG_ASKS_AFTER_END) && KEEPALIVE && \
	BUG != BUG_NO_KEEPALIVE && (down || !PEER_LIVES(k)))
#define RUNS_WAIT(k) (c[k].st == CLOSING && SENDING_DONE(k) && !c[k].rcv_fin && BUG != BUG_CLOSING_FOR_EVER)
#define RUNS(k)	     (RUNS_INIT(k) || RUNS_HALF(k) || RUNS_PROBE(k) || RUNS_KEEP(k) || RUNS_WAIT(k))

/* Nothing happens any more unless an application does something: who waits for the peer has one. */
#define QUIET	 (CALM && !ANY(RUNS))
#define STUCK(k) (c[k].st == SENT || c[k].st == HALF || c[k].st == CLOSING || \
	(c[k].st == OPEN && !c[k].rcv_fin && !PEER_LIVES(k) && MUST_LEARN(k)))
/* Without keepalive B learns of A's crash when A, with its old key, has come back. */
#define MUST_LEARN(k) (KEEPALIVE || crashes == 0 || !HOST(k) || (!blocked && c[k].pepoch != seen_epoch))
#define IS_FREE(k)  (c[k].st == FREE)
#define IS_TAKEN(k) (c[k].st != FREE)

inline give_up(k)
{
	assert(blocked); /* nobody is taken for dead who could have answered */
	excused = 1;
	reset_peer(k, TIMEOUT);
	conn_fail(k, true)
}

inline probe(k)
{
	if
	:: c[k].probes >= PROBES && BUG != BUG_NO_DEAD_TIMEOUT -> give_up(k)
	:: else ->
		if
		:: c[k].probes < PROBES -> c[k].probes++
		:: else
		fi;
		if
		:: OUTSTANDING(k) -> c[k].probe_due = 1
		:: else -> c[k].ping_due = 1
		fi
	fi
}

/* One connection: its output, its timers and its application. */
proctype connection(byte k)
{
end:	do
	:: d_step { ROOM && DUE(k) -> output(k); skip }

	/* timers: transport/conn.c, setup.c, recovery.c; sections 4, 7.4, 7.5 */
	:: d_step { RUNS_INIT(k) && CALM ->
		if
		:: c[k].attempt < INITS -> c[k].attempt++; c[k].init_due = 1
		:: else ->
			/* A stranger's INITs do not keep others out. */
			assert(losses || crashes || outages || copies || connects > 1);
			conn_fail(k, true)
		fi; skip }
	:: d_step { RUNS_HALF(k) && CALM -> excused = 1; conn_free(k); skip }
	:: d_step { (RUNS_PROBE(k) || RUNS_KEEP(k)) && CALM -> probe(k); skip }
	:: d_step { RUNS_WAIT(k) && CALM -> early = 1; conn_free(k); skip }
	:: d_step { haste < HASTE && !CALM && RUNS_INIT(k) && !c[k].init_due && c[k].attempt < INITS ->
		haste++;
		c[k].attempt++;
		c[k].init_due = 1; skip }
	:: d_step { haste < HASTE && !CALM && IS_UP(k) && !c[k].probe_due && !c[k].ping_due ->
		haste++;
		if
		:: OUTSTANDING(k) -> c[k].probe_due = 1
		:: else -> c[k].ping_due = 1
		fi; skip }

	/* the application: transport/transport.h */
	:: d_step { k == 0 && IS_FREE(k) && connects < CONNECTS ->
		connects++;
		connect(k); skip }
	:: d_step { c[k].waiting -> c[k].waiting = 0; c[k].owned = 1; skip } /* tp_accept() */
	:: d_step { WRITES && c[k].owned && !c[k].wrote && !c[k].fin_wanted ->
		c[k].wrote = 1;
		wrote[HOST(k)] = wrote[HOST(k)] | BIT(c[k].cid); skip }
	:: d_step { c[k].owned && c[k].unread -> c[k].unread = 0; skip }
	:: d_step { c[k].owned && !c[k].fin_wanted -> c[k].fin_wanted = 1; skip }
	:: d_step { c[k].owned && (ROOM || !c[k].unread) -> /* tp_close() */
		if
		:: c[k].unread && BUG != BUG_CLOSES_UNREAD -> abandon(k)
		:: else -> leave(k)
		fi; skip }
	:: d_step { c[k].owned && aborts < ABORTS && ROOM -> aborts++; abandon(k); skip }
	od
}

hidden int arriving;

/* One place of the network: the packet in it arrives, is lost, or is copied. */
proctype network(byte i)
{
end:	do
	:: d_step { net[i] != 0 && (i == 0 || net[i - 1] != net[i]) ->
		arriving = net[i];
		take_out(i);
		input(arriving);
		skip }
	:: d_step { net[i] != 0 && (i == 0 || net[i - 1] != net[i]) && losses < LOSSES ->
		losses++;
		take_out(i); skip }
	:: d_step { net[i] != 0 && (i == 0 || net[i - 1] != net[i]) && copies < COPIES && held == 0 ->
		copies++;
		held = net[i]; skip }
	od
}

inline crash(h, new_key)
{
	crashes++;
	excused = 1;
	n = FIRST(h);
	do
	:: n <= LAST(h) -> conn_free(n); n++
	:: else -> break
	od;
	finished[h] = 0;
	boot[h]++;
	if
	:: new_key -> node_key[h]++; blocked = 1
	:: else
	fi;
	if
	:: h == B -> seen_epoch = 0
	:: else
	fi;
	if
	:: BUG == BUG_IDS_AGAIN -> next_cid[h] = 1
	:: else
	fi
}

/* tp_listener_close() */
inline unlisten()
{
	listening = 0;
	n = FIRST(B);
	do
	:: n <= LAST(B) ->
		if
		:: c[n].st == HALF || c[n].waiting -> abandon(n)
		:: else
		fi;
		n++
	:: else -> break
	od
}

/* Everything else that can go wrong. */
proctype faults()
{
end:	do
	:: d_step { held != 0 && ROOM -> send(held); held = 0; skip }
	:: d_step { crashes < CRASHES -> crash(A, false); skip }
	:: d_step { crashes < CRASHES && node_key[A] + 1 < STRANGE_KEY -> crash(A, true); skip }
	:: d_step { CRASHES_OF_B && crashes < CRASHES -> crash(B, false); skip }
	:: d_step { CRASHES_OF_B && crashes < CRASHES && node_key[B] + 1 < STRANGE_KEY -> crash(B, true); skip }
	:: d_step { outages < OUTAGES -> outages++; down = 1; blocked = 1; skip }
	:: d_step { down -> down = 0; skip }
	:: d_step { UNLISTEN && listening -> unlisten(); skip }
	od
}

#define FORGES(k) (forgeries < FORGERIES && ROOM && c[k].st != FREE)

/* Somebody beside the path (section 10). He is given the ids, of which 40 bits are random, but no
 * nonce, token or cookie; without ids he could only try INIT. DATA and ACK need nothing but the id. */
proctype intruder(byte k)
{
end:	do
	:: d_step { k == 0 && forgeries < FORGERIES && ROOM -> /* in A's name, made up */
		forgeries++;
		send(HEAD(INIT, B, 0, STRANGE) | SETUP(STRANGE, STRANGE_KEY, 1, 1, 0)); skip }
	:: d_step { FORGES(k) && k == 0 ->
		forgeries++;
		send(HEAD(INIT, B, 0, c[k].cid) | SETUP(STRANGE, STRANGE_KEY, 1, 0, 0)); skip }
	:: d_step { FORGES(k) && k == 0 ->
		forgeries++;
		send(HEAD(INIT_ACK, A, c[k].cid, STRANGE) | SETUP(STRANGE, STRANGE_KEY, 1, 0, 0)); skip }
	:: d_step { FORGES(k) && k == 0 ->
		forgeries++;
		send(HEAD(NAK, A, c[k].cid, 0) | SETUP(STRANGE, 0, 0, 0, 0)); skip }
	:: d_step { FORGES(k) && k == 0 ->
		forgeries++;
		send(HEAD(COOKIE, A, c[k].cid, 0) | SETUP(STRANGE, 0, 0, 0, 3)); skip }
	:: d_step { FORGES(k) && c[k].peer != 0 ->
		forgeries++;
		send(HEAD(RESET, HOST(k), 0, c[k].peer) | WHY(STRANGE_KEY, UNKNOWN)); skip }
	:: d_step { FORGES(k) && c[k].peer != 0 ->
		forgeries++;
		send(HEAD(RESET, HOST(k), 0, c[k].peer) | WHY(STRANGE_KEY, FINISHED)); skip }
	od
}

/* No half-open state is left for ever, nobody waits for somebody who does not exist. */
active proctype monitor()
{
end:	do
	:: QUIET && ANY(STUCK) -> assert(false)
	od
}

init
{
	byte i;

	atomic {
		next_cid[A] = 1;
		next_cid[B] = 1;
		node_key[A] = 1;
		node_key[B] = 1;
		boot[A] = 1;
		boot[B] = 1;
		i = 0;
		do
		:: i < NONE -> run connection(i); i++
		:: else -> break
		od;
		i = 0;
		do
		:: i < PLACES -> run network(i); i++
		:: else -> break
		od;
		i = 0;
		do
		:: FORGERIES && i < NONE -> run intruder(i); i++
		:: else -> break
		od;
		run faults()
	}
}

#define OVER (EMPTY && !ANY(IS_TAKEN))

/* Applications close in the end; then all is gone, whatever has happened. */
ltl ends { <> [] OVER }
