/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * verbs: messages and remote memory over a connection of the transport. The words are those of InfiniBand's
 * verbs (IBTA specification, volume 1, chapters 10 and 11; libibverbs): work requests are posted to a queue
 * pair and end as completions in completion queues, in the order in which they were posted.
 *
 * What differs, and why:
 *   - Memory is addressed by a region and an offset in it, here and at the peer: no virtual address is ever
 *     told to another host.
 *   - There are no receiver-not-ready storms: a SEND leaves when the peer has posted a receive for it.
 *   - Completion queues do not overrun: a request that might find no room there is refused (-EAGAIN).
 *   - Signalled or not, a request's place in its queue is free as soon as it has completed.
 *
 *   - A request completes when its bytes are not needed any more: when the peer has them, and what is sent
 *     without a copy has left the port.
 *
 * Threading, errors and time are as in transport.h. Regions, queues and protection domains belong to one
 * struct tp.
 */
#ifndef SD_TRANSPORT_VERBS_H
#define SD_TRANSPORT_VERBS_H

#include "transport/transport.h"

struct tp_pd; /* protection domain: regions are for the queue pairs of the same one */
struct tp_mr; /* memory region */
struct tp_cq; /* completion queue */
struct tp_qp; /* queue pair: one connection of messages */

#define TP_MAX_SGE     16
#define TP_MAX_INLINE  1024u	  /* bytes */
#define TP_MAX_MESSAGE (1u << 30) /* bytes */
#define TP_MAX_WR      16384u	  /* of a queue; credits are told by their low 16 bits */
#define TP_MAX_READS   255u	  /* READ and atomic requests under way, each way */
#define TP_MAX_REGIONS (1u << 24)

/* --- regions ----------------------------------------------------------------------------------------- */

enum tp_access {
	TP_LOCAL_WRITE = 1 << 0, /* receives and READ results may land there */
	TP_REMOTE_WRITE = 1 << 1,
	TP_REMOTE_READ = 1 << 2,
	TP_REMOTE_ATOMIC = 1 << 3,
};

int tp_pd_create(struct tp *t, struct tp_pd **out); /* -ENOMEM */
/* -EBUSY: it has regions or queue pairs. */
int tp_pd_destroy(struct tp_pd *pd);
/* len bytes at addr, which stay the caller's and have to stay where they are. Remote rights to write need
 * TP_LOCAL_WRITE (-EINVAL). -ENOMEM, -ENOSPC (TP_MAX_REGIONS). */
int tp_mr_register(struct tp_pd *pd, void *addr, size_t len, unsigned access, struct tp_mr **out);
/* What a peer needs to reach it: 24 bits of index and 40 random ones. Never 0, nor another region's. */
uint64_t tp_mr_rkey(const struct tp_mr *mr);
/* From now on neither peers nor requests reach the memory, and queue pairs with requests that refer to it, of
 * their own or of their peers, are in error. 0: nothing refers to it any more, and mr is gone. -EBUSY:
 * packets that are sent without a copy (tp_hold) still do; the memory must stay until another call returns 0.
 */
int tp_mr_deregister(struct tp_mr *mr);
/* The caller of tp_output_parts() can send from this region without a copy; at first it cannot. -ENOMEM. */
int tp_mr_set_direct(struct tp_mr *mr);

/* --- completions ------------------------------------------------------------------------------------- */

enum tp_wc_status {
	TP_WC_SUCCESS,
	TP_WC_LENGTH,	      /* the message was longer than the memory of its receive */
	TP_WC_PROTECTION,     /* a region it refers to has been deregistered */
	TP_WC_FLUSHED,	      /* the queue pair was in error before it was its turn */
	TP_WC_REMOTE_ACCESS,  /* no region of that key, rights or bounds at the peer */
	TP_WC_REMOTE_INVALID, /* the peer could not take it: longer than its receive, not aligned */
	TP_WC_REMOTE_FAILED,  /* the connection was reset */
	TP_WC_TIMEOUT,	      /* the peer does not answer */
};

enum tp_opcode {
	TP_SEND,
	TP_WRITE,
	TP_WRITE_IMM, /* takes one of the peer's receives, for the immediate value */
	TP_READ,
	TP_COMPARE_SWAP,
	TP_FETCH_ADD,
	TP_RECV,       /* of completions: a SEND has arrived, */
	TP_RECV_WRITE, /* or a WRITE with immediate */
};

struct tp_wc {
	uint64_t wr_id;
	struct tp_qp *qp;
	enum tp_wc_status status;
	enum tp_opcode opcode; /* what follows holds on success */
	uint32_t len;	       /* TP_RECV, TP_RECV_WRITE, TP_READ: bytes */
	uint32_t imm;
	bool has_imm;
};

/* Room for capacity completions, and that many requests of all its queue pairs can be posted and not
 * completed, or completed and not polled. -ENOMEM, -EINVAL. */
int tp_cq_create(struct tp *t, uint32_t capacity, void *user, struct tp_cq **out);
/* -EBUSY: queue pairs use it. */
int tp_cq_destroy(struct tp_cq *cq);
/* The oldest completions, at most max; how many. */
unsigned tp_cq_poll(struct tp_cq *cq, struct tp_wc *wc, unsigned max);
/* tp_ops.completion is called once, with the next completion; solicited: with the next one in error or of a
 * message that was sent with TP_SOLICITED. What is there already does not count: poll after this. */
void tp_cq_notify(struct tp_cq *cq, bool solicited);

/* --- queue pairs -------------------------------------------------------------------------------------- */

struct tp_qp_attr {
	size_t size; /* sizeof(struct tp_qp_attr) */
	struct tp_pd *pd;
	struct tp_cq *send_cq, *recv_cq;   /* may be the same */
	uint32_t max_send_wr, max_recv_wr; /* at least 1, and rounded up to a power of two */
	uint16_t max_inline;		   /* bytes of a TP_INLINE request */
	uint8_t max_sge;		   /* of a request; 0: 1 */
	uint8_t max_reads, max_peer_reads; /* READ and atomic requests under way: ours, which the peer may
					    * limit further, and the peer's; 0: none */
	bool signal_all;
	void *user;
};

/* -EINVAL; -ENOMEM. */
int tp_qp_create(struct tp *t, const struct tp_qp_attr *attr, struct tp_qp **out);
/* Ends the connection, in good order only if both sides have disconnected; completions that were not polled
 * are gone. */
void tp_qp_destroy(struct tp_qp *qp, uint64_t now);
/* As tp_connect; TP_EV_OPEN or TP_EV_FAILED follows by tp_ops.qp_event. -EISCONN, or tp_qp_error(). Requests
 * may be posted before it is open. */
int tp_qp_connect(struct tp_qp *qp, uint64_t now, const struct tp_path *path);
/* As tp_listen, for queue pairs: they and streams do not meet, also on one port. Peers are told that they may
 * have max_peer_reads READ and atomic requests under way (-EINVAL: more than TP_MAX_READS). */
int tp_qp_listen(struct tp *t, const struct sd_addr *local, unsigned backlog, unsigned max_peer_reads,
	void *user, struct tp_listener **out);
/* The oldest acceptable connection. -EAGAIN: none; -EISCONN; -EINVAL: the queue pair takes fewer READ and
 * atomic requests than its peer was told. TP_EV_READABLE at once if the peer has disconnected before. */
int tp_qp_accept(struct tp_qp *qp, struct tp_listener *l);
/* After what has been posted to send the peer gets TP_EV_READABLE: it is disconnected. Idempotent. Nothing
 * can be posted to send then (-EPIPE). TP_EV_DRAINED: it knows. */
void tp_qp_disconnect(struct tp_qp *qp);
/* Its connection, for tp_info() and settings; NULL: none yet. */
struct tp_conn *tp_qp_conn(const struct tp_qp *qp);
/* 0, or why it is in error. */
int tp_qp_error(const struct tp_qp *qp);

/* A piece of local memory: bytes [offset, offset + len) of the region. */
struct tp_sge {
	struct tp_mr *mr;
	uint64_t offset;
	uint32_t len;
};

enum tp_send_flag {
	TP_SIGNALED = 1 << 0,  /* completes with a completion; in error every request does */
	TP_FENCE = 1 << 1,     /* begins when all READ and atomic requests before it have completed */
	TP_SOLICITED = 1 << 2, /* SEND, WRITE_IMM */
	TP_INLINE = 1 << 3, /* SEND, WRITE: data and len instead of pieces; it may change when this returns */
	TP_HAS_IMM = 1 << 4, /* SEND */
};

struct tp_send_wr {
	uint64_t wr_id;
	enum tp_opcode opcode;
	unsigned flags; /* enum tp_send_flag */
	/* In the order of the bytes. Of a READ: where they go to; of atomics: where the eight bytes go that
	 * were there before, in host order. They must not change until the request has completed. */
	const struct tp_sge *sg;
	unsigned n_sg;
	const void *data; /* TP_INLINE */
	uint32_t len;
	uint32_t imm;
	uint64_t rkey, remote_offset; /* WRITE, READ, atomics (a multiple of 8 from an aligned start) */
	uint64_t operand, compare;    /* the value to swap in or to add; COMPARE_SWAP: if this is there */
};

struct tp_recv_wr {
	uint64_t wr_id;
	const struct tp_sge *sg;
	unsigned n_sg;
};

/* -EAGAIN: the queue is full, or the completion queue might be: poll it; -EINVAL: no such request, or one
 * that is too long; -EACCES: not the queue pair's regions, or not their rights or bounds; -EPIPE:
 * disconnected; or tp_qp_error(). */
int tp_post_send(struct tp_qp *qp, const struct tp_send_wr *wr);
/* The same, but for -EPIPE. */
int tp_post_recv(struct tp_qp *qp, const struct tp_recv_wr *wr);
/* A request will be posted to send. A hint for those who have thousands of queue pairs, to be given for step
 * 0 and then 1, with other requests between them. */
void tp_expect_post(const struct tp_qp *qp, unsigned step);

#endif
