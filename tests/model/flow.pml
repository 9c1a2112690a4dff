/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * flow: DATA and ACK in both directions (docs/protocol.md sections 3.3, 7.1, 7.4 and 7.5; transport/input.c,
 * receive.c, ack.c, output.c, recovery.c), as far as a connection's life depends on them. An early packet is
 * dropped, which section 3.3 allows. Delayed acknowledgement, windows and congestion are left out: they change
 * when something is sent, not what it means.
 */

/* cumulative_input() and tp_recovery_answered() */
inline ack_input(k)
{
	assert(ackn <= c[k].nxt);
	if
	:: ackn > c[k].una ->
		c[k].una = ackn;
		c[k].probes = 0;
		c[k].probe_due = 0;
		check_delivered(k);
		if
		:: c[k].una == c[k].nxt && c[k].fin_sent -> c[k].fin_acked = 1
		:: else
		fi
	:: else
	fi;
	if
	:: !OUTSTANDING(k) -> c[k].probes = 0
	:: else
	fi
}

/* tp_receive_data(): f becomes NONE if it ends the connection */
inline data_input(k)
{
	if
	:: c[k].waiting && !byt && BUG == BUG_FIN_UNACCEPTED
	:: psn < c[k].rcv && BUG != BUG_TAKES_DUPLICATES -> c[k].ack_now = 1
	:: psn > c[k].rcv && BUG != BUG_TAKES_EARLY_FIN -> c[k].ack_now = 1 /* dropped */
	:: else ->
		assert(!c[k].rcv_fin); /* nothing follows FIN */
		if
		:: byt && c[k].st == CLOSING && BUG != BUG_SWALLOWS ->
			early = 1;
			reset_peer(k, CLOSED);
			conn_fail(k, false);
			f = NONE
		:: else ->
			if
			:: byt && c[k].st != CLOSING ->
				assert((arrived[1 - HOST(k)] & BIT(scid)) == 0); /* exactly once */
				arrived[1 - HOST(k)] = arrived[1 - HOST(k)] | BIT(scid);
				c[k].unread = 1
			:: else
			fi;
			c[k].rcv = psn + 1;
			c[k].ack_now = 1;
			if
			:: fin ->
				c[k].rcv_fin = 1;
				assert((wrote[1 - HOST(k)] & BIT(scid)) == 0 ||
					(arrived[1 - HOST(k)] & BIT(scid)) != 0 || BUG == BUG_SWALLOWS)
			:: else
			fi
		fi
	fi
}

/* process() */
inline process(k)
{
	assert(scid == c[k].peer); /* no packet of another incarnation */
	c[k].unconfirmed = 0;
	c[k].peer_bye = c[k].peer_bye | bye;
	ack_input(k);
	if
	:: type == DATA -> data_input(k)
	:: else ->
		if
		:: ackreq -> c[k].ack_now = 1
		:: else
		fi
	fi;
	if
	:: f != NONE && c[f].st == CLOSING -> close_progress(f)
	:: else
	fi
}

/* input_conn() and may_process() */
inline flow_input()
{
	find(to, dcid);
	if
	:: f == NONE -> unknown()
	:: else ->
		if
		:: c[f].st == SENT /* overtook INIT_ACK; it will be repeated */
		:: c[f].st == HALF -> validated(f); process(f)
		:: else -> process(f)
		fi
	fi
}

/* A packet arrives: tp_input(). */
inline input(packet)
{
	decode(packet);
	if
	:: type <= ACK -> flow_input()
	:: type == INIT -> init_input()
	:: type == INIT_ACK -> init_ack_input()
	:: type == NAK -> nak_input()
	:: type == COOKIE -> cookie_input()
	:: type == RESET -> reset_input()
	fi
}

hidden byte o_byte, o_fin;
hidden byte o_psn;

inline put_data(k)
{
	c[k].ack_now = 0;
	send(HEAD(DATA, 1 - HOST(k), c[k].peer, c[k].cid) |
		FLOW(o_psn, o_byte, o_fin, c[k].rcv, 0, (c[k].st == CLOSING)))
}

/* One packet of a connection leaves: build() and tp_output(). */
inline output(k)
{
	if
	:: c[k].init_due -> put_init(k)
	:: !c[k].init_due && c[k].probe_due ->
		c[k].probe_due = 0;
		if
		:: OUTSTANDING(k) -> /* send_again() */
			o_psn = c[k].una;
			o_byte = c[k].wrote && o_psn == 0;
			o_fin = c[k].fin_sent && o_psn + 1 == c[k].nxt && BUG != BUG_FIN_ONCE;
			put_data(k)
		:: else
		fi
	:: !c[k].init_due && !c[k].probe_due && NEW_DATA(k) -> /* send_new() */
		o_psn = c[k].nxt;
		o_byte = c[k].wrote && o_psn == 0;
		o_fin = c[k].fin_wanted;
		c[k].fin_sent = o_fin;
		c[k].nxt++;
		put_data(k)
	:: else -> /* build_ack() */
		send(HEAD(ACK, 1 - HOST(k), c[k].peer, c[k].cid) |
			FLOW(0, 0, 0, c[k].rcv, c[k].ping_due, (c[k].st == CLOSING)));
		c[k].ack_now = 0;
		c[k].ping_due = 0
	fi;
	if
	:: c[k].st == CLOSING && !DUE(k) -> close_progress(k)
	:: else
	fi
}
