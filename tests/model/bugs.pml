/* SPDX-License-Identifier: BSD-3-Clause */
/* bugs: what can be planted in the model, one at a time (-DBUG=BUG_...); check.py says who has to see it. */
#define BUG_NONE		 0
#define BUG_NO_NONCE		 1  /* INIT_ACK and INIT_NAK are taken with any nonce */
#define BUG_NO_TOKEN		 2  /* RESET is taken with any token */
#define BUG_FORGETS_FINISHED	 3  /* nothing is remembered of an id that ended in good order */
#define BUG_ACCEPTS_AT_INIT	 4  /* no round trip */
#define BUG_HALF_FOR_EVER	 5  /* half-open connections are not dropped */
#define BUG_UNCONFIRMED		 6  /* the initiator's first ACK is not repeated */
#define BUG_NO_KEEPALIVE	 7
#define BUG_NO_RESTART_CHECK	 8
#define BUG_RESET_STORM		 9  /* a RESET for an unknown connection is answered with RESET */
#define BUG_NEVER_COMPLETED	 10 /* any RESET is an error */
#define BUG_ANY_RESET_COMPLETES	 11 /* after both FINs no RESET is an error */
#define BUG_NO_BYE_NEEDED	 12 /* a closing end goes when its FIN has been sent */
#define BUG_OPENS_TWICE		 13 /* an open connection takes another INIT_ACK */
#define BUG_CLOSING_FOR_EVER	 14 /* nobody gives up waiting for the peer's FIN */
#define BUG_TAKES_DUPLICATES	 15
#define BUG_TAKES_EARLY_FIN	 16
#define BUG_IDS_AGAIN		 17 /* a restarted host uses the same ids again */
#define BUG_COOKIE_STORM	 18 /* COOKIE for every INIT, and INIT for every COOKIE */
#define BUG_CLOSES_UNREAD	 19 /* FIN although not everything was read */
#define BUG_FIN_ONCE		 20 /* FIN is not repeated */
#define BUG_SWALLOWS		 21 /* bytes for a closed connection are acknowledged */
#define BUG_NO_DEAD_TIMEOUT	 22 /* probes go on for ever */
#define BUG_NO_COOKIES		 23 /* beyond the limit INIT is ignored */
#define BUG_KNOWN_BY_ID		 24 /* a repeated INIT is known by its id alone */
#define BUG_SHORT_FIN		 25 /* FIN without bytes is too short for RESET to answer it */
#define BUG_FIN_UNACCEPTED	 26 /* FIN is not taken before the connection has been accepted */
#define BUG_ASKS_AFTER_END	 27 /* keepalive, although the peer has nothing more to say */

#ifndef BUG
#define BUG BUG_NONE
#endif
