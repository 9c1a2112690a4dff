/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * conn: the transport's own structures. A struct tp owns its connections, pools, timers and queues; a struct
 * tp_conn lives in a pool and is named by the index in its connection id. What every packet touches comes
 * first in it. Packet numbers and offsets are 64 bits wide in here and never wrap.
 */
#ifndef SD_TRANSPORT_CONN_H
#define SD_TRANSPORT_CONN_H

#include "base/clock.h"
#include "base/list.h"
#include "base/siphash.h"
#include "transport/bits.h"
#include "transport/cc.h"
#include "transport/ring.h"
#include "transport/transport.h"
#include "transport/wheel.h"
#include "transport/wire.h"

#define NEVER UINT64_MAX

#define TP_CID_BITS	 20 /* of a connection id are its index, */
#define TP_ENGINE_BITS	 4  /* the next its engine; the other 40 are random */
#define TP_RING_LIMIT	 (1u << 30)
#define TP_SENT_MIN	 32 /* packets in flight that a new connection can remember */
#define TP_ACK_EVERY	 8  /* in-order packets */
#define TP_HALF_OPEN_MAX 256
#define TP_RESET_BURST	 256 /* RESETs for unknown connections at once */
#define TP_BACKLOG_MAX	 65536
#define TP_CONTROL_QUEUE 256
#define TP_PORT_BUCKETS	 256
#define TP_BURST	 16	       /* packets of one connection before the next one's turn */
#define TP_MIN_PROBE	 (300 * SD_US) /* six times what an ACK may wait for data by default */
#define TP_MAX_PROBE	 SD_MS	       /* unless the round trip is longer */
#define TP_MAX_RTO	 SD_S
#define TP_MAX_RTT	 (4 * SD_S)
#define TP_CORK_MAX	 (200 * SD_MS)
#define TP_IDLE_RESTART	 SD_S
#define TP_HELLO_NONCE	 0
#define TP_PEER_HOSTS	 256

enum conn_state {
	CONN_FREE,
	CONN_INIT_SENT,	    /* initiator: waits for INIT_ACK */
	CONN_INIT_RECEIVED, /* responder: waits for proof of the round trip */
	CONN_OPEN,
	CONN_CLOSING, /* given up by the application; delivers the rest, waits for the peer's FIN */
	CONN_FAILED,  /* terminal; the application still holds it */
};

/* One packet in flight. */
struct tp_sent {
	uint64_t time; /* of the last transmission */
	uint32_t off;  /* low half of its stream offset; of messages: length of its extension */
	uint16_t len;
	uint8_t sends; /* transmissions, saturating */
	uint8_t flags; /* enum sent_flag */
};

/* Memory of a reader that waits: what comes in order goes there and not into the ring, and counts as read. */
struct tp_landing {
	uint8_t *data; /* NULL: none */
	uint32_t len, done;
	uint32_t low; /* from how many bytes on the reader wants to know */
};

/* Memory of a writer that waits. It stands for [from, to) of the stream until it is settled, that is, copied
 * into the ring, which has the room for it. */
struct tp_loan {
	const uint8_t *data;
	uint64_t from, to;
};

/* What a connection needs only while packets are in flight, but for a single one. */
struct tp_flight {
	struct tp_bits sacked, lost;
	struct tp_loan loan; /* with tp_conn.lent */
	struct tp_sent sent[];
};

enum sent_flag {
	SENT_FIN = 1,
	SENT_JUDGED = 2, /* was taken for lost once */
	SENT_PROBE = 4,	 /* larger than is known to arrive */
};

/* One packet received ahead of its turn. */
struct tp_early {
	uint32_t off;
	uint16_t len;
	uint16_t number; /* of messages: low half of the SSN or RSN, */
	uint8_t op;	 /* and enum wire_opcode */
	uint8_t flags;	 /* enum early_flag */
};

enum early_flag { EARLY_FIN = 1, EARLY_LAST = 2 };

/* What a connection needs only while packets are missing. */
struct tp_reorder {
	struct tp_reorder *next_free;
	struct tp_bits have;
	struct tp_early early[TP_BITS];
};

struct tp_qp;
struct tp_mr;

/* What packets touch comes first, by lines of the cache, and what belongs to one kind of event together: with
 * thousands of connections all of it comes from memory. */
struct tp_conn {
	/* every packet in */
	uint64_t cid;
	struct tp *tp;
	struct tp_qp *qp; /* of messages; NULL: not accepted yet */
	uint64_t rcv_nxt; /* next PSN expected */
	uint8_t state;
	bool crc;	      /* trailer on DATA and ACK packets */
	bool queued;	      /* on tp.out */
	bool ack_now;	      /* an ACK is due at the next output */
	bool rcv_fin;	      /* received, in order */
	bool read_shut;	      /* the application reads no more */
	bool last_ce;	      /* the newest packet had CE, */
	bool astray;	      /* and was tp_rx.astray */
	bool peer_astray;     /* the peer says so of ours */
	bool limited;	      /* the peer said our window stops it */
	bool messages;	      /* for a queue pair, not a stream */
	bool ts_late;	      /* tp_rx.late of that packet */
	bool lands;	      /* the next bytes in order go to landing */
	bool unconfirmed;     /* initiator: the responder may not know yet that we have its INIT_ACK */
	uint16_t ack_pending; /* in-order packets not acknowledged yet */
	uint16_t ce_count;    /* packets received with CE, ever */
	uint16_t rcv_window;  /* packets */
	uint16_t pipe;	      /* packets thought to be in the network */
	uint32_t ts_recent;   /* timestamp of the newest packet received; 0: none */
	uint16_t cwnd;	      /* packets; 0: pace_at has to come first */
	uint16_t sent_mask;
	uint16_t rcv_piece; /* bytes of packet rcv_nxt, which comes in pieces, that have come */
	uint16_t try_mss;   /* a probe of this size, if there is so much, is to be sent; 0: none */

	uint64_t snd_una, snd_nxt; /* PSNs: oldest unacknowledged, next */
	uint64_t ts_recent_at;
	uint64_t last_heard; /* when anything valid arrived */
	uint64_t progress;   /* when the peer last acknowledged something new or answered */
	uint64_t packets_received;
	struct tp_reorder *reorder;
	uint64_t ack_at; /* when the delayed ACK is due; NEVER: none */

	/* streams */
	uint64_t rcv_off;   /* end of the contiguous bytes */
	uint64_t rcv_read;  /* the reader's cursor */
	uint64_t rcv_limit; /* window limit last advertised */
	struct tp_ring rcv, snd;
	uint64_t snd_acked; /* offsets: acknowledged, */

	/* every packet out */
	uint64_t snd_sent, snd_end; /* sent, written */
	uint64_t snd_limit;	    /* the peer's window limit */
	struct tp_flight *flight;
	struct tp_sent *sent; /* by PSN & sent_mask */
	uint64_t probe_at;    /* probe timer */
	uint64_t peer_cid;
	uint64_t last_send;

	struct list out;      /* on tp.out */
	struct list ack_node; /* on tp.ack_fifo */
	uint16_t snd_window;  /* packets the peer can remember */
	uint16_t lost;	      /* marked lost, not retransmitted yet */
	uint16_t sacked;      /* above snd_una */
	uint16_t probes;      /* timeouts in a row */
	uint16_t mss;	      /* bytes of stream in a full packet with a STREAM extension only */
	bool want_writable;
	bool lent; /* there is a loan */
	bool cork, cork_pushed, nagle;
	bool fin_wanted, fin_sent, fin_acked;
	bool probe_due; /* retransmit one packet whatever cwnd says */
	bool ping_due;	/* send an ACK that asks for an answer */
	bool init_due;	/* send INIT or INIT_ACK */
	bool recovering;
	bool cwnd_limited; /* the window was the limit in this round */
	bool owned;	   /* the application holds it: events go to user */
	uint8_t ask_every; /* packets: while the window is full, so many of them get an ACK */
	bool piece_due;	   /* send the next piece */
	uint16_t peer_ce;  /* the peer's CE count */
	uint16_t round_acked, round_marked;

	uint64_t pace_gap; /* ns between packets while the window is below one; 0: it is not */
	uint64_t packets_sent;
	uint64_t ackreq_psn; /* of the last packet that asked for an ACK */

	/* every acknowledgement */
	uint64_t round_end;	      /* PSN */
	uint8_t astray_tries;	      /* source ports drawn because of that */
	uint8_t good_rounds;	      /* since then, while that counts */
	uint64_t rack_time, rack_psn; /* the latest transmission known to have arrived */
	uint64_t rack_rtt;
	uint64_t highest;		/* one past the highest PSN known to have arrived */
	uint64_t srtt, rttvar, min_rtt; /* ns; srtt 0: no sample yet */
	uint64_t probe_interval;
	uint64_t min_rtt_since;
	uint64_t recovery_end; /* PSN */
	uint64_t reorder_at;   /* when a gap becomes a loss */
	uint64_t pace_at;      /* when the next one may leave; NEVER: now */
	uint64_t cc_state[TP_CC_STATE_MAX / 8];

	/* timeouts */
	struct tp_timer timer;
	uint64_t state_until; /* end of INIT_SENT, INIT_RECEIVED, FIN wait */
	uint64_t init_at;     /* next INIT */
	uint64_t cork_until, keep_at;

	/* recovery */
	uint64_t min_rtt_new, min_rtt_old; /* of this and the previous 10 s */
	uint16_t reorder_steps;		   /* of min_rtt / 4; 0: no reordering seen */
	uint16_t newly_lost;		   /* packets, since congestion control was last told */
	uint32_t undo_left;		   /* lost marks of this recovery not yet proved wrong */
	uint16_t answered_probes;	   /* timeouts before the last progress */
	uint16_t piece;			   /* bytes of packet snd_una, which goes in pieces, at the peer */
	uint8_t bad_rounds;		   /* round trips in a row with more packets marked than not */
	bool undo_possible;
	bool peer_bye;
	uint64_t peer_ack_delay;
	uint64_t rcv_high; /* one past the highest PSN received; with reorder */

	/* life */
	void *user;
	uint64_t init_interval;
	uint64_t keep_idle, keep_interval, keep_probed;
	uint64_t user_timeout;
	uint64_t nonce, peer_epoch;
	int error;
	uint32_t isn;
	uint32_t snd_max, rcv_max; /* bounds of the rings */
	uint16_t keep_probes, keep_sent;
	uint16_t reads, peer_reads; /* READ and atomic requests that we, and the peer, take at once */
	uint8_t attempt, refusal;
	uint8_t nak; /* why it failed, to be told to the peer whenever it asks; 0: it is not */
	bool initiator;
	bool reset_on_data;
	bool lingering;
	bool keep_queued; /* keep_at is its turn among many */
	bool rests;	  /* its rings' memory has been given back */
	struct tp_listener *listener;
	struct list lnode;	   /* on one of the listener's lists */
	struct tp_conn *hash_next; /* by peer_cid */
	struct tp_conn *free_next;
	union {
		uint8_t cookie[16];	   /* of INIT_SENT */
		struct tp_landing landing; /* later */
	};
	struct tp_path path;
	uint64_t rest_seen, rest_since; /* bytes written and received in all, and since when so many */
	uint64_t retransmits;
	uint8_t peer_token[16];
	struct tp_sent lone; /* of a packet alone */
};

struct tp_listener {
	struct tp *tp;
	bool messages;
	uint16_t reads; /* that queue pairs take at once */
	struct sd_addr local;
	unsigned backlog, ready_count, half_count;
	struct list ready; /* acceptable connections */
	struct list half;  /* half-open ones */
	struct tp_listener *next;
	void *user;
};

/* A packet without a connection, built and waiting. */
struct tp_control {
	struct tp_path path;
	uint16_t len;
	uint8_t data[WIRE_CONTROL_MAX];
};

/* Memory to give back when the caller may be asked to free. Lies in the block itself. */
struct tp_garbage {
	struct tp_garbage *next;
	size_t size;
};

struct tp_pool {
	struct tp_conn *conns;
	struct tp_garbage *rings; /* of ring_min bytes */
	struct tp_reorder *reorders;
	unsigned conn_count, ring_count, reorder_total;
	unsigned spare;	    /* how many connections should be in store for incoming INITs */
	bool shared;	    /* connections have given rings back while they live */
	unsigned ring_low;  /* the fewest in store since */
	uint64_t low_until; /* minus rest_ns, */
	unsigned surplus;   /* and so many were too many, the time before */
	struct tp_garbage *garbage;
	struct tp_garbage *slabs; /* everything connections live in */
	uint64_t rest_at;	  /* when idle connections are looked for next, and from where on */
	uint32_t rest_index;
};

/* What is remembered of another host, and the way to it from one of our addresses. */
struct tp_peer {
	struct sd_addr ip, local;
	uint64_t used;		 /* when it was last asked for; 0: never, the place is free */
	uint64_t epoch, checked; /* its latest boot, and when others were asked whether they live */
	/* of the path to it */
	uint16_t payload; /* UDP payload that arrives; 0: only what always does */
	uint16_t limit;	  /* this much does not; 0: nothing is known not to */
	uint16_t probed;  /* what is being tried, */
	uint16_t failed;  /* the largest that has failed, */
	uint8_t tries;	  /* how often, */
	uint64_t prober;  /* by which connection (id; 0: none), */
	uint64_t probe_psn;
	uint64_t probe_at; /* and when the next probe may leave */
};

/* The memory that requests may name. */
struct tp_regions {
	struct tp_mr **slots;
	uint32_t size;	/* of slots */
	uint32_t *free; /* a queue: the index that has been free for longest goes first */
	uint32_t free_head, free_count;
};

/* Packets that are sent without a copy of their payload. */
#define TP_HOLDS       2048u
#define TP_HOLD_PIECES 4

struct tp_hold {
	struct tp_mr *mr[TP_HOLD_PIECES]; /* NULL from the first that is not used */
	bool held;
};

struct tp_holds {
	struct tp_hold *ring; /* by ticket; NULL: no region is sent from directly */
	uint64_t next, done;  /* tickets: the next one, and below which all are released */
	struct list waiting;  /* queue pairs whose next completion waits for a release */
};

struct tp {
	uint64_t now;
	struct tp_parts *parts; /* of the packet being built; NULL: it is built in one piece */
	bool late;		/* tp_rx.late of the packet being handled */
	uint8_t backlog;	/* tp_set_backlog() */
	struct tp_conn **slots;
	uint32_t max_conns;
	unsigned out_run;     /* packets the head of out has sent in its turn */
	struct list out;      /* connections with something to send now */
	struct list ack_fifo; /* of delayed ACKs, by ack_at */
	struct tp_ops ops;
	void *ctx;
	const struct tp_cc_ops *cc;
	struct tp_config cfg;
	struct tp_stats stats;

	uint32_t *free_index; /* a queue: the index that has been free for longest goes first */
	uint32_t free_head, free_count, conn_count;
	uint32_t *finished;	/* by index: high half of the last id there that ended in good order */
	struct tp_conn **peers; /* hash of peer_cid */
	uint32_t peers_mask;
	unsigned half_open, lingering;
	uint64_t keep_turn; /* when the newest turn to ask a silent peer is, and how many have it */
	unsigned keep_turns;
	uint64_t epoch, id_counter;
	struct sd_sipkey key_id, key_hash, key_cookie, key_find, key_node;
	struct tp_listener *listeners[TP_PORT_BUCKETS];
	struct tp_pool pool;
	struct tp_peer peer_hosts[TP_PEER_HOSTS];
	uint64_t reset_tokens, reset_refill; /* token bucket for stateless RESETs */
	unsigned control_head, control_count;
	struct tp_control control[TP_CONTROL_QUEUE];
	struct tp_wheel wheel;
	struct tp_regions regions;
	struct tp_holds holds;
};

/* conn.c */
struct tp_conn *tp_conn_new(struct tp *t, enum conn_state state);
void tp_conn_free(struct tp_conn *c);
/* The same for one that has ended in good order, so that its peer can be told if it asks again. */
void tp_conn_finish(struct tp_conn *c);
void tp_conn_set_state(struct tp_conn *c, enum conn_state state);
void tp_conn_know_peer(struct tp_conn *c, uint64_t peer_cid);
struct tp_conn *tp_conn_by_peer(struct tp *t, uint64_t peer_cid, struct tp_conn *after);
/* Terminal: tells the application, or frees at once if there is none. */
void tp_conn_fail(struct tp_conn *c, int error);
/* The same after telling the peer. */
void tp_conn_abort(struct tp_conn *c, enum wire_reset why, int error);
void tp_conn_timeout(struct tp_conn *c, uint64_t now);
void tp_conn_opened(struct tp_conn *c);
/* Congestion control begins, with this window at least (packets); their size is known. */
void tp_conn_open_window(struct tp_conn *c, uint32_t window);
/* Nothing has been sent for long: the window is no larger than it is to begin with. */
void tp_conn_idle(struct tp_conn *c);
uint64_t tp_random_id(struct tp *t);

static inline struct tp_conn *tp_conn_by_cid(struct tp *t, uint64_t cid)
{
	uint32_t index = (uint32_t)cid & ((1u << TP_CID_BITS) - 1);
	struct tp_conn *c = index < t->max_conns ? t->slots[index] : NULL;

	return c && c->cid == cid ? c : NULL;
}

void tp_qp_event(struct tp_qp *qp, unsigned events);

static inline void tp_conn_event(struct tp_conn *c, unsigned events)
{
	if (__builtin_expect(c->messages && c->qp, 0))
		tp_qp_event(c->qp, events);
	else if (c->owned)
		c->tp->ops.event(c->tp->ctx, c, c->user, events);
}

/* Puts it on the output list. */
static inline void tp_conn_mark(struct tp_conn *c)
{
	if (!c->queued) {
		c->queued = true;
		list_push_back(&c->tp->out, &c->out);
	}
}

/* It is for a queue pair: it has no rings. */
void tp_conn_for_messages(struct tp_conn *c, unsigned reads);

/* Makes sure that tp_conn_timeout runs by then; it works out for itself what is due. */
static inline void tp_conn_timer(struct tp_conn *c, uint64_t due)
{
	if (due < c->timer.due)
		tp_timer_set(&c->tp->wheel, &c->timer, due);
}

/* Is a third of the ring free? */
static inline bool tp_is_roomy(uint64_t size, uint64_t queued)
{
	return 3 * queued <= 2 * size;
}

static inline uint32_t tp_timestamp(uint64_t now)
{
	uint32_t ts = (uint32_t)(now >> 7);

	return ts ? ts : 1; /* 0 says: none */
}

/* flight.c */
void tp_flight_init(struct tp_conn *c);
/* Room for so many packets, a power of two. -ENOMEM; only where memory may be asked for. */
int tp_flight_grow(struct tp_conn *c, uint32_t packets);
/* Nothing is in flight, or nothing of it matters any more. */
void tp_flight_drop(struct tp_conn *c);

/* pace.c: what congestion control says. */
void tp_pace_window(struct tp_conn *c, float window);
/* With a gap: a packet that the window counts has left. */
void tp_pace_sent(struct tp_conn *c, uint64_t now);
void tp_pace_timeout(struct tp_conn *c);

/* peer.c */
struct tp_peer *tp_peer_of(const struct tp_conn *c);
/* A host has accepted our connection or we have accepted its: is it still the one that we knew? */
void tp_peer_check_restart(struct tp_conn *c);

/* pmtu.c */
/* The UDP payload of a packet with so many bytes of a stream. */
static inline uint32_t tp_payload_with(const struct tp_conn *c, uint32_t mss)
{
	return mss + WIRE_BASE_LEN + WIRE_STREAM_LEN + (c->crc ? WIRE_CRC_LEN : 0);
}
/* What a packet in flight would be as bytes of a stream, to be compared with mss. */
static inline uint32_t tp_sent_size(const struct tp_conn *c, const struct tp_sent *s)
{
	return c->messages ? s->len + s->off - WIRE_STREAM_LEN : s->len;
}
/* What both take is known: how large packets are, to begin with, and the congestion window. */
void tp_pmtu_open(struct tp_conn *c);
/* A round trip is over. */
void tp_pmtu_round(struct tp_conn *c);
/* There is enough for a probe, of try_mss at most: is it still wanted? Then tp_pmtu_sent() follows. */
bool tp_pmtu_may_probe(struct tp_conn *c);
void tp_pmtu_sent(struct tp_conn *c, uint64_t psn, struct tp_sent *s);
/* It has to be sent again, now in pieces. */
void tp_pmtu_unanswered(struct tp_conn *c, struct tp_sent *s);
/* The peer has so many bytes of the oldest packet in flight, which goes in pieces. */
void tp_pmtu_piece(struct tp_conn *c, uint16_t bytes);
/* May the oldest packet in flight be too large for the path? Then the peer should be asked something small.
 */
bool tp_pmtu_doubts(const struct tp_conn *c);
/* It was, and has answered, with this echo, and acknowledged nothing new. */
void tp_pmtu_answered(struct tp_conn *c, uint32_t echo);
/* This packet is about to be sent again: has it met a black hole? mss is smaller then. */
void tp_pmtu_suspect(struct tp_conn *c, const struct tp_sent *s);

/* repath.c: another UDP source port. */
/* A round trip is over. */
void tp_repath_round(struct tp_conn *c, bool said);
/* Nothing is in flight, and something is about to be. */
void tp_repath_idle(struct tp_conn *c);
/* Nobody has answered again and again. */
void tp_repath_timeout(struct tp_conn *c);

/* pool.c */
/* -ENOMEM; only where memory may be asked for. */
int tp_pool_fill(struct tp *t, unsigned conns, unsigned rings);
struct tp_conn *tp_pool_conn(struct tp *t);
void tp_pool_conn_put(struct tp *t, struct tp_conn *c);
bool tp_pool_ring(struct tp *t, struct tp_ring *out);
/* For who may ask for memory as well: false, too, when packets may need what is left. */
bool tp_pool_ring_to_send(struct tp *t, struct tp_ring *out);
/* Takes a ring of the smallest size, because somebody else may need it. */
void tp_pool_ring_share(struct tp *t, struct tp_ring *r);
/* Takes a ring of any size; it is freed later. */
void tp_pool_ring_put(struct tp *t, struct tp_ring *r);
struct tp_reorder *tp_pool_reorder(struct tp *t);
static inline bool tp_pool_has_reorder(const struct tp *t)
{
	return t->pool.reorders != NULL;
}
/* -ENOMEM; only where memory may be asked for. */
int tp_pool_add_reorders(struct tp *t);
void tp_pool_reorder_put(struct tp *t, struct tp_reorder *r);
void tp_pool_discard(struct tp *t, void *p, size_t size);
/* Frees what is more than enough; only where the caller's free may be called. */
void tp_pool_trim(struct tp *t);
/* Every connection, those included that have failed and only the application holds. f may end it. */
void tp_pool_each(struct tp *t, void (*f)(struct tp_conn *c, void *ctx), void *ctx);
void tp_pool_destroy(struct tp *t);

/* setup.c */
void tp_setup_input(struct tp *t, const uint8_t *pkt, size_t len, const struct tp_rx *rx);
size_t tp_setup_build(struct tp_conn *c, uint64_t now, uint8_t *buf);
/* false: it was given up and has ended. */
bool tp_setup_timeout(struct tp_conn *c, uint64_t now);
/* A packet with the id that only INIT_ACK told has come: the initiator is where it says it is. echo is that
 * packet's, of INIT_ACK's timestamp. */
void tp_setup_validated(struct tp_conn *c, uint32_t echo);

/* listener.c */
struct tp_listener *tp_listener_find(struct tp *t, const struct sd_addr *local, bool messages);
void tp_listener_ready(struct tp_conn *c);

/* control.c */
struct tp_control *tp_control_new(struct tp *t, const struct tp_rx *rx);
void tp_control_token(const struct tp *t, uint64_t cid, uint8_t out[16]);
/* Of two tokens or cookies; the time it takes tells nothing about them. */
bool tp_control_same(const uint8_t a[16], const uint8_t b[16]);
void tp_control_reset(struct tp *t, const struct tp_conn *c, enum wire_reset why);
/* One that is no more because of what the peer has asked for, to its peer, who has not heard of it. */
void tp_control_again(struct tp *t, const struct tp_conn *c, size_t len, const struct tp_rx *rx);
void tp_control_unknown(struct tp *t, const uint8_t *pkt, size_t len, const struct tp_rx *rx);
void tp_control_reset_input(struct tp *t, const uint8_t *pkt, size_t len);

/* find.c */
void tp_find_input(struct tp *t, const uint8_t *pkt, size_t len, const struct tp_rx *rx);

static inline bool tp_crowded(const struct tp *t)
{
	return t->conn_count >= t->cfg.crowd;
}

/* receive.c */
/* Places a DATA packet's bytes; returns the events to tell. The connection may have ended: then false. */
bool tp_receive_data(struct tp_conn *c, const struct wire_packet *p, unsigned *events);
void tp_receive_window(struct tp_conn *c);
/* Gives the ring back to the pool, if nothing is in it; the promise of it stays. */
void tp_receive_leave(struct tp_conn *c);
static inline void tp_receive_drained(struct tp_conn *c)
{
	if (__builtin_expect(tp_crowded(c->tp), 0))
		tp_receive_leave(c);
}
/* Has this packet come before, ahead of its turn? Counted then. */
bool tp_early_known(struct tp_conn *c, uint64_t psn);
/* Notes one that has come ahead of its turn, to be filled in; NULL: there is no memory for it. */
struct tp_early *tp_early_add(struct tp_conn *c, uint64_t psn);
/* Some have had their turn. */
void tp_early_drained(struct tp_conn *c);

/* ack.c */
/* What p acknowledges; false: it contradicts what was sent and is to be ignored. */
bool tp_ack_input(struct tp_conn *c, uint64_t now, const struct wire_packet *p, unsigned *events);
/* An acknowledgement is owed: at once, or within the ACK delay. */
static inline void tp_ack_soon(struct tp_conn *c)
{
	c->ack_now = true;
	tp_conn_mark(c);
}
void tp_ack_later(struct tp_conn *c, uint64_t now);
/* The next packet in order has come, with these flags. */
static inline void tp_ack_received(struct tp_conn *c, unsigned flags)
{
	if (flags & (WIRE_F_FIN | WIRE_F_ACKREQ) || ++c->ack_pending >= TP_ACK_EVERY)
		tp_ack_soon(c);
	else
		tp_ack_later(c, c->tp->now);
}
static inline void tp_ack_cancel(struct tp_conn *c)
{
	if (c->ack_at != NEVER) {
		c->ack_at = NEVER;
		list_remove(&c->ack_node);
	}
}

/* recovery.c */
/* Learns from an echoed timestamp of ours; returns the round trip time in ns, 0: there is none in it. */
uint64_t tp_recovery_echo(struct tp_conn *c, uint32_t echo);
void tp_recovery_reordered(struct tp_conn *c, bool spurious);
void tp_recovery_spurious(struct tp_conn *c);
void tp_recovery_detect(struct tp_conn *c, uint64_t now);
/* false: the peer is taken for dead and the connection has ended. */
bool tp_recovery_timeout(struct tp_conn *c, uint64_t now);
void tp_recovery_arm(struct tp_conn *c, uint64_t now);
/* The peer lives, with nothing new to acknowledge. */
void tp_recovery_answered(struct tp_conn *c, uint64_t now);
uint64_t tp_recovery_rto(const struct tp_conn *c, unsigned backoff);
/* Whatever is in flight will not arrive. */
void tp_recovery_give_up(struct tp_conn *c);

/* output.c */
bool tp_output_new_data(const struct tp_conn *c);
void tp_output_check(struct tp_conn *c);

/* warm.c */
/* The turn of this one is now, that of those behind it comes. */
void tp_warm_output(const struct tp *t, const struct tp_conn *c);
/* That of the next timer comes. */
void tp_warm_timer(const struct tp *t);

/* stream.c */
/* With a loan: where the bytes from off on are, and how many of len are there in one piece. */
size_t tp_loan_at(const struct tp_conn *c, uint64_t off, size_t len, const uint8_t **at);
/* Corked bytes wait; not for ever. */
void tp_cork_start(struct tp_conn *c);

/* save.c */
/* Is the byte of struct tp_conn at this offset saved, or left out on purpose? For tests. */
bool tp_save_covers(size_t at);

/* close.c */
/* For a connection without its application: moves on when everything has been delivered and when the peer's
 * FIN has come. false: it has ended. */
bool tp_close_progress(struct tp_conn *c);

#endif
