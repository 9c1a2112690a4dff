/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * qp: what region.c, cq.c, qp.c (life and posting), requester.c and responder.c share. A queue pair hangs on
 * a connection, which has the packet numbers, the acknowledgements and the timers; here are the requests that
 * the packets are made of.
 *
 * Numbers. SSN counts messages that take one of the receiver's receives (SEND, WRITE with immediate), RSN
 * counts requests that are answered (READ, atomics); both from 0 for each direction and modulo 2^32. A
 * receive's place is known by the SSN, so that a fragment can be placed whatever came before it.
 */
#ifndef SD_TRANSPORT_QP_H
#define SD_TRANSPORT_QP_H

#include "transport/conn.h"
#include "transport/verbs.h"

struct tp_pd {
	struct tp *tp;
	struct list qps; /* tp_qp.of_pd */
	uint32_t n_regions;
};

struct tp_mr {
	struct tp_pd *pd; /* NULL: it is being deregistered */
	struct tp_pd *home;
	uint8_t *addr;
	size_t len;
	uint64_t rkey;
	unsigned access;
	uint32_t uses; /* by requests */
	uint32_t held; /* by packets that are sent from it */
	bool direct;   /* packets can be */
};

struct tp_cq {
	struct tp *tp;
	void *user;
	struct tp_wc *ring;
	uint32_t mask;
	uint32_t head, tail;	  /* completions not polled */
	uint32_t posted;	  /* requests that may still become completions */
	uint32_t capacity, users; /* queue pairs, one for each of their two queues */
	bool armed, solicited;
};

/* A request posted to send. Its pieces, or its bytes, follow. */
struct tp_swqe {
	uint64_t wr_id, rkey, remote, operand, compare;
	uint64_t end_psn; /* one past its last packet's; when it has begun */
	uint64_t ticket;  /* one past the last that refers to its memory */
	uint32_t len, sent;
	uint32_t imm;
	uint32_t number;      /* SSN or RSN */
	uint8_t opcode, n_sg; /* none if it has its bytes with it */
	uint8_t flags;	      /* enum tp_send_flag */
	bool begun;	      /* its first packet has left */
	bool over;	      /* its last one has; READ and atomics: answered */
	struct tp_sge sg[];
};

struct tp_rwqe {
	uint64_t wr_id;
	uint32_t len;
	uint32_t imm;
	bool has_imm, solicited;
	uint8_t n_sg;
	struct tp_sge sg[];
};

/* A peer's READ or atomic request. */
enum incoming_state { INCOMING_FREE, INCOMING_EARLY, INCOMING_ANSWERED };

struct tp_incoming {
	uint8_t state; /* enum incoming_state */
	uint8_t op;    /* enum wire_opcode */
	uint32_t len, sent;
	struct tp_mr *mr; /* when its turn has come; NULL: an atomic's result */
	uint64_t rkey, offset, operand, compare;
	uint64_t end_psn;
	uint8_t result[8];
};

/* Where a packet's bytes come from, for sending it again: by PSN. */
enum source { SOURCE_REQUEST, SOURCE_ANSWER, SOURCE_FIN };

struct tp_source {
	uint8_t kind;	 /* enum source */
	uint32_t index;	 /* of the request in the send queue, or the RSN */
	uint32_t offset; /* in it */
};

struct tp_wq {
	uint8_t *wqes;
	uint32_t stride, mask;
	uint32_t head, tail; /* the oldest one, and the next to be posted */
};

struct tp_qp {
	struct tp *tp;
	struct tp_conn *conn; /* NULL: none yet, or no more */
	struct tp_pd *pd;
	struct tp_cq *scq, *rcq;
	void *user;
	struct list of_pd;
	struct tp_qp_attr attr;
	int error;
	bool answers_turn; /* of answers and requests, these are next */

	/* requester */
	struct tp_wq sq;
	uint32_t sq_next;  /* the first that has not wholly left */
	uint32_t ssn_next; /* of the next one posted */
	uint32_t rsn_begun, rsn_done;
	uint32_t peer_credit; /* SSNs below this may leave */
	bool peer_ready;
	uint32_t max_reads;	   /* as agreed */
	uint32_t answer_off;	   /* bytes in order of the answer to rsn_done */
	uint32_t *readers;	   /* index in the send queue, by RSN & readers_mask */
	struct tp_source *sources; /* by PSN & sources_mask */
	uint32_t sources_mask, readers_mask;
	const struct tp_mr *lost_mr; /* that is being deregistered */
	struct list of_waiting;	     /* on tp_holds.waiting */
	uint64_t nak_psn;	     /* of ours, that the peer could not take */
	uint8_t nak;		     /* enum wire_reset */

	/* responder */
	struct tp_wq rq; /* head is the SSN expected in order */
	uint32_t credit_told;
	uint32_t msg_off;	      /* bytes in order of a SEND that has begun */
	uint8_t within;		      /* SEND or WRITE (enum wire_opcode): one has begun; NONE */
	uint32_t write_len;	      /* the same of a WRITE */
	struct tp_incoming *incoming; /* by RSN & incoming_mask */
	uint32_t incoming_mask;
	uint32_t in_next, in_send,
		in_done; /* RSNs: expected in order, to be answered, answer not acknowledged */
};

static inline struct tp_swqe *swqe_at(const struct tp_qp *qp, uint32_t n)
{
	return (struct tp_swqe *)(qp->sq.wqes + (size_t)(n & qp->sq.mask) * qp->sq.stride);
}

static inline struct tp_rwqe *rwqe_at(const struct tp_qp *qp, uint32_t n)
{
	return (struct tp_rwqe *)(qp->rq.wqes + (size_t)(n & qp->rq.mask) * qp->rq.stride);
}

static inline struct tp_incoming *incoming_at(const struct tp_qp *qp, uint32_t rsn)
{
	return &qp->incoming[rsn & qp->incoming_mask];
}

/* The power of two that n fit in; n at most 2^31. */
static inline uint32_t tp_queue_size(uint32_t n)
{
	uint32_t size = 1;

	while (size < n)
		size *= 2;
	return size;
}

static inline bool is_read(const struct tp_swqe *w)
{
	return w->opcode == TP_READ || w->opcode == TP_COMPARE_SWAP || w->opcode == TP_FETCH_ADD;
}

static inline bool takes_receive(enum tp_opcode op)
{
	return op == TP_SEND || op == TP_WRITE_IMM;
}

/* region.c */
/* The region that gives this right to these bytes; NULL: none. */
struct tp_mr *tp_region_of(
	const struct tp_qp *qp, uint64_t rkey, unsigned access, uint64_t offset, uint64_t len);
void tp_regions_free(struct tp *t);
/* Is one of the pieces of this region? */
bool tp_sge_names(const struct tp_sge *sg, unsigned n, const struct tp_mr *mr);
/* Copies between a buffer and bytes [off, off + len) of what the pieces name. */
void tp_sge_gather(const struct tp_sge *sg, uint32_t off, void *to, size_t len);
void tp_sge_scatter(const struct tp_sge *sg, uint32_t off, const void *from, size_t len);
/* Are all of them the domain's, within bounds and of these rights? Their sum in *len. 0, -EACCES, -EINVAL. */
int tp_sge_check(const struct tp_pd *pd, const struct tp_sge *sg, unsigned n, unsigned access, uint64_t *len);

/* The same as pieces, and whose they are. */
void tp_sge_pieces(const struct tp_sge *sg, uint32_t off, size_t len, struct tp_parts *parts);

/* hold.c */
/* Payloads of this length are worth to be handed out in pieces. */
#define TP_PIECES_MIN 256u
static inline struct tp_parts *tp_parts_for(const struct tp *t, size_t len)
{
	return len >= TP_PIECES_MIN ? t->parts : NULL;
}
/* mr: whose memory it is; NULL: no region's. */
static inline void tp_parts_add(struct tp_parts *parts, struct tp_mr *mr, const uint8_t *at, size_t len)
{
	parts->mr[parts->n] = mr;
	parts->piece[parts->n++] = (struct tp_piece){at, (uint32_t)len};
}
/* Does no packet refer to the memory of this request? If one does, tp_qp_released() follows. */
bool tp_hold_is_over(struct tp_qp *qp, const struct tp_swqe *w);
void tp_holds_free(struct tp *t);

/* cq.c */
/* A request is posted whose completion goes there; false: there may be no room. */
static inline bool tp_cq_reserve(struct tp_cq *cq)
{
	if (cq->posted + (cq->tail - cq->head) >= cq->capacity)
		return false;
	cq->posted++;
	return true;
}
void tp_cq_complete(struct tp_cq *cq, const struct tp_wc *wc, bool solicited);
static inline void tp_cq_release(struct tp_cq *cq)
{
	cq->posted--; /* it completes without a word */
}
/* Drops what is there of the queue pair. */
void tp_cq_forget(struct tp_cq *cq, const struct tp_qp *qp);

/* qp.c */
/* Its connection has ended. */
void tp_qp_failed(struct tp_qp *qp, int error);
/* Packets that it waited for have been released. */
void tp_qp_released(struct tp_qp *qp);
/* A region that its requests refer to is no more. */
void tp_qp_lost_region(struct tp_qp *qp, const struct tp_mr *mr);
/* What the peer has said when the connection was set up is known. */
void tp_qp_agree(struct tp_qp *qp);
/* Requests do not refer to these any more. */
void tp_qp_release(const struct tp_sge *sg, unsigned n);
/* The head of the receive queue completes; status, opcode and len are given. */
void tp_qp_received(struct tp_qp *qp, struct tp_wc *wc);
/* The head of the send queue does. */
void tp_qp_sent(struct tp_qp *qp, enum tp_wc_status status);

/* requester.c */
/* Could a packet leave now, congestion aside? */
bool tp_requester_has(const struct tp_qp *qp);
/* Something waits for the peer, and nothing is under way that would bring news of it. */
bool tp_requester_waits(const struct tp_qp *qp);
/* Does what is to be sent next not fit into one packet? */
bool tp_requester_exceeds(const struct tp_qp *qp);
/* Chooses what the packet of this number carries, from now on, and says how many bytes and whether it is FIN.
 */
void tp_requester_take(struct tp_qp *qp, uint64_t psn, struct tp_sent *s);
/* Writes the extension and the bytes [from, from + len) of the packet of this number; the extension's length.
 * *flags gets what belongs to it. */
size_t tp_requester_put(const struct tp_qp *qp, uint64_t psn, uint32_t from, size_t len, uint8_t *ext,
	enum wire_opcode *op, unsigned *flags);
/* The peer has acknowledged something, or answered. */
void tp_requester_progress(struct tp_qp *qp);
void tp_requester_credit(struct tp_qp *qp, const struct wire_packet *p);

/* responder.c */
/* As tp_receive_data, for a packet whose number is not old. */
bool tp_responder_input(struct tp_conn *c, const struct wire_packet *p, uint32_t ahead, unsigned *events);
/* A receive has been posted. */
void tp_responder_posted(struct tp_qp *qp);
/* What has been answered and acknowledged is forgotten; all of it. */
void tp_responder_progress(struct tp_qp *qp);
void tp_responder_forget(struct tp_qp *qp);

#endif
