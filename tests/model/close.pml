/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * close: the application's ends, FIN, BYE and RESET (docs/protocol.md sections 5 and 7.5; transport/close.c,
 * transport/control.c).
 */

/* tp_close_progress() */
inline close_progress(k)
{
	if
	:: SENDING_DONE(k) && c[k].rcv_fin && !c[k].ack_now -> conn_finish(k)
	:: else
	fi
}

/* tp_close() without abort and without unread bytes; leave() */
inline leave(k)
{
	c[k].owned = 0;
	c[k].fin_wanted = 1;
	if
	:: c[k].st == SENT -> /* becomes CLOSING when it opens */
		if
		:: !c[k].wrote -> conn_free(k)
		:: else
		fi
	:: else ->
		c[k].st = CLOSING;
		if
		:: c[k].fin_sent && !c[k].peer_bye && !(c[k].fin_acked && c[k].rcv_fin) -> c[k].ack_now = 1
		:: else
		fi;
		close_progress(k)
	fi
}

/* tp_conn_abort() for the application */
inline abandon(k)
{
	excused = 1;
	reset_peer(k, ABORT);
	conn_free(k)
}

/* tp_control_unknown(): the packet being handled is for an id that nobody has here */
inline unknown()
{
	if
	:: (finished[to] & BIT(dcid)) != 0 ->
		if
		:: type == ACK && !ackreq /* asks for nothing */
		:: type == DATA && !byt && BUG == BUG_SHORT_FIN
		:: else -> send(HEAD(RESET, 1 - to, 0, dcid) | WHY(node_key[to], FINISHED))
		fi
	:: else -> send(HEAD(RESET, 1 - to, 0, dcid) | WHY(node_key[to], UNKNOWN))
	fi
}

/* Everything that was written is where it belongs. */
inline check_delivered(k)
{
	assert(!c[k].wrote || (arrived[HOST(k)] & BIT(c[k].cid)) != 0)
}

/* tp_control_reset_input(): the id in a RESET is its sender's */
inline reset_input()
{
	f = NONE;
	m = FIRST(to);
	do
	:: m <= LAST(to) ->
		if
		:: c[m].st >= HALF && c[m].peer == scid && (c[m].pkey == key || BUG == BUG_NO_TOKEN) -> f = m
		:: else
		fi;
		m++
	:: else -> break
	od;
	if
	:: f == NONE ->
		if
		:: BUG == BUG_RESET_STORM -> send(HEAD(RESET, 1 - to, 0, scid) | WHY(node_key[to], UNKNOWN))
		:: else
		fi
	:: f != NONE && c[f].owned && c[f].rcv_fin && c[f].fin_sent && BUG != BUG_NEVER_COMPLETED &&
		(BYTE_ACKED(f) || reason == FINISHED || BUG == BUG_ANY_RESET_COMPLETES) -> /* over_anyway() */
		check_delivered(f);
		c[f].una = c[f].nxt;
		c[f].fin_acked = 1;
		c[f].probes = 0;
		c[f].probe_due = 0
	:: else ->
		assert(key != STRANGE_KEY || c[f].st == HALF); /* the intruder may end what he began */
		conn_fail(f, excused || (early && !(BYTE_ACKED(f) && c[f].fin_sent)))
	fi
}
