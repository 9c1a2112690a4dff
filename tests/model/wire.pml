/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * wire: packets and the network (docs/protocol.md sections 3, 4 and 5; transport/wire.c, transport/output.c).
 *
 * A packet is one number, a part for each field that matters here. The network is a bag: whatever lies in it
 * may arrive next, so it reorders without bounds. It has a few places; who would send waits for one, as a
 * packet that waits in the output list does. The bag is kept sorted, so that it has one representation.
 *
 * Ids are fresh numbers for each host, 1, 2, ...; STRANGE is one that nobody has chosen. A nonce is the
 * initiator's id again, which is as fresh. A token is the number of the key that its host had: whoever
 * knows that number and the id could make it, and the intruder knows only STRANGE_KEY.
 */
#define A 0 /* the host that connects */
#define B 1 /* the host that listens */

#define DATA	 1
#define ACK	 2
#define INIT	 3
#define INIT_ACK 4
#define NAK	 5
#define COOKIE	 6
#define RESET	 7

#define UNKNOWN	 0
#define ABORT	 1
#define CLOSED	 2
#define TIMEOUT	 3
#define FINISHED 4
#define PROTOCOL 5

#define STRANGE	    7
#define STRANGE_KEY 3

/* to: host; dcid: receiver's id; scid: sender's id, in DATA and ACK for assertions only */
#define HEAD(type, to, dcid, scid) ((type) | (to) << 3 | (dcid) << 4 | (scid) << 7)
#define SETUP(nonce, key, epoch, again, cookie) \
	((nonce) << 10 | (key) << 13 | (epoch) << 15 | (again) << 17 | (cookie) << 18)
#define FLOW(psn, byte, fin, ackn, ackreq, bye) \
	((psn) << 10 | (byte) << 12 | (fin) << 13 | (ackn) << 14 | (ackreq) << 16 | (bye) << 17)
#define WHY(key, reason) ((key) << 13 | (reason) << 15)

int net[PLACES];
bool down;	/* the link: what is sent is lost */
int held;	/* a copy that the network keeps for later, even for another incarnation of either end */

#define EMPTY (net[0] == 0)
#define ROOM  (net[PLACES - 1] == 0)

hidden int sending;
hidden byte j;

inline send(packet)
{
	sending = packet;
	if
	:: down
	:: else ->
		assert(ROOM);
		j = PLACES - 1;
		do
		:: j > 0 && net[j - 1] < sending -> net[j] = net[j - 1]; j--
		:: else -> break
		od;
		net[j] = sending
	fi
}

inline take_out(i)
{
	j = i;
	do
	:: j < PLACES - 1 -> net[j] = net[j + 1]; j++
	:: else -> break
	od;
	net[PLACES - 1] = 0
}

/* The packet being handled, and its fields. */
hidden int pkt;
hidden byte type, to, dcid, scid, nonce, key, epoch, again, cookie, psn, byt, fin, ackn, ackreq, bye, reason;

inline decode(packet)
{
	pkt = packet;
	type = pkt & 7;
	to = (pkt >> 3) & 1;
	dcid = (pkt >> 4) & 7;
	scid = (pkt >> 7) & 7;
	/* setup */
	nonce = (pkt >> 10) & 7;
	key = (pkt >> 13) & 3;
	epoch = (pkt >> 15) & 3;
	again = (pkt >> 17) & 1;
	cookie = (pkt >> 18) & 3;
	/* flow */
	psn = (pkt >> 10) & 3;
	byt = (pkt >> 12) & 1;
	fin = (pkt >> 13) & 1;
	ackn = (pkt >> 14) & 3;
	ackreq = (pkt >> 16) & 1;
	bye = (pkt >> 17) & 1;
	/* RESET and INIT_NAK */
	reason = (pkt >> 15) & 7
}
