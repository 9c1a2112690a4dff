/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * setup: INIT, INIT_ACK, INIT_NAK and COOKIE (docs/protocol.md section 4; transport/setup.c and
 * transport/listener.c), and what follows from a peer's new boot epoch (section 7.6).
 */

/* tp_connect() */
inline connect(k)
{
	conn_new(k, SENT);
	c[k].nonce = c[k].cid;
	c[k].owned = 1;
	c[k].init_due = 1
}

/* tp_setup_build() */
inline put_init(k)
{
	c[k].init_due = 0;
	if
	:: c[k].st == SENT ->
		send(HEAD(INIT, B, 0, c[k].cid) |
			SETUP(c[k].nonce, node_key[A], boot[A], (c[k].attempt > 0), c[k].cookie))
	:: else ->
		send(HEAD(INIT_ACK, A, c[k].peer, c[k].cid) | SETUP(c[k].nonce, node_key[B], boot[B], 0, 0))
	fi
}

/* learn() */
inline learn(k)
{
	c[k].peer = scid;
	c[k].pkey = key;
	c[k].pepoch = epoch
}

/* refuse() */
inline refuse()
{
	refused = refused | BIT(scid);
	send(HEAD(NAK, A, scid, 0) | SETUP(nonce, 0, 0, 0, 0))
}

hidden byte ready, half;

inline count_queues()
{
	ready = 0;
	half = 0;
	m = FIRST(B);
	do
	:: m <= LAST(B) ->
		ready = ready + c[m].waiting;
		half = half + (c[m].st == HALF);
		m++
	:: else -> break
	od
}

/* f: the connection of B that this INIT has made before; known_init() */
inline known_init()
{
	f = NONE;
	m = FIRST(B);
	do
	:: m <= LAST(B) ->
		if
		:: c[m].st != FREE && c[m].peer == scid && (c[m].nonce == nonce || BUG == BUG_KNOWN_BY_ID) -> f = m
		:: else
		fi;
		m++
	:: else -> break
	od
}

/* respond() */
inline respond()
{
	find_free(B);
	if
	:: f == NONE -> refuse()
	:: else ->
		conn_new(f, HALF);
		c[f].nonce = nonce;
		learn(f);
		c[f].init_due = 1;
		made_for[c[f].cid] = scid;
		if
		:: BUG == BUG_ACCEPTS_AT_INIT -> validated(f)
		:: else
		fi
	fi
}

/* init_input() and may_respond() */
inline init_input()
{
	known_init();
	if
	:: f != NONE -> c[f].init_due = 1 /* our answer was lost */
	:: else ->
		count_queues();
		if
		:: !listening -> refuse()
		:: else ->
			if
			:: ready >= BACKLOG ->
				if
				:: again -> refuse()
				:: else /* patience */
				fi
			:: else ->
				if
				:: half >= BACKLOG && BUG == BUG_NO_COOKIES
				:: half >= BACKLOG && BUG != BUG_NO_COOKIES &&
					(cookie != boot[B] || BUG == BUG_COOKIE_STORM) -> /* !cookie_good() */
					send(HEAD(COOKIE, A, scid, 0) | SETUP(nonce, 0, 0, 0, boot[B]))
				:: else ->
					if
					:: half < 2 * BACKLOG -> respond()
					:: else
					fi
				fi
			fi
		fi
	fi
}

/* check_restart(): its limit of once a second is left out */
inline check_restart(k)
{
	if
	:: seen_epoch != 0 && seen_epoch != c[k].pepoch && BUG != BUG_NO_RESTART_CHECK ->
		m = FIRST(B);
		do
		:: m <= LAST(B) ->
			if
			:: c[m].st == OPEN && c[m].pepoch != c[k].pepoch -> c[m].ping_due = 1
			:: else
			fi;
			m++
		:: else -> break
		od
	:: else
	fi;
	seen_epoch = c[k].pepoch
}

/* tp_setup_validated(). The one who accepts is the one who was asked: the initiator has opened this
 * connection, with this id. */
inline validated(k)
{
	assert(opened_with[c[k].peer] == c[k].cid && c[k].nonce == c[k].peer);
	c[k].st = OPEN;
	c[k].waiting = 1;
	check_restart(k)
}

/* init_ack_input() */
inline init_ack_input()
{
	find(A, dcid);
	if
	:: f == NONE -> unknown()
	:: f != NONE && c[f].nonce != nonce && BUG != BUG_NO_NONCE
	:: f != NONE && (c[f].nonce == nonce || BUG == BUG_NO_NONCE) ->
		if
		:: c[f].st == SENT || (BUG == BUG_OPENS_TWICE && c[f].st == OPEN) ->
			learn(f);
			assert(made_for[scid] == dcid); /* the responder has made it, for this INIT */
			opened_with[dcid] = scid;
			c[f].init_due = 0;
			c[f].unconfirmed = (BUG != BUG_UNCONFIRMED);
			c[f].ack_now = 1;
			c[f].attempt = 0;
			c[f].cookie = 0;
			c[f].st = (c[f].owned -> OPEN : CLOSING)
		:: else -> /* repeated: the responder may not have heard from us yet */
			if
			:: c[f].peer == scid -> c[f].ack_now = 1
			:: else
			fi
		fi
	fi
}

/* nak_input() */
inline nak_input()
{
	find(A, dcid);
	if
	:: f != NONE && c[f].st == SENT && (c[f].nonce == nonce || BUG == BUG_NO_NONCE) ->
		conn_fail(f, (refused & BIT(dcid)) != 0)
	:: else
	fi
}

/* cookie_input() */
inline cookie_input()
{
	find(A, dcid);
	if
	:: f != NONE && c[f].st == SENT && c[f].nonce == nonce &&
		(c[f].cookie != cookie || BUG == BUG_COOKIE_STORM) ->
		c[f].cookie = cookie;
		c[f].init_due = 1
	:: else
	fi
}
