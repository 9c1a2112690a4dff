/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ledger: what was posted to a queue pair, what its peer has asked for, and so what may be sent and brought,
 * and what must complete. Whatever contradicts it ends the program.
 */
#ifndef SD_TESTS_TRANSPORT_LEDGER_H
#define SD_TESTS_TRANSPORT_LEDGER_H

#include "area.h"
#include "transport/qp.h"

#define LEDGER_SIZE   64u /* requests of a queue that are not known to have completed, at most */
#define LEDGER_ASKED  512u
#define LEDGER_PIECES 3u
#define LEDGER_INLINE 40u
#define LEDGER_BYTES  (LEDGER_PIECES * AREA_MAX)

/* A request that was posted. */
struct entry {
	enum tp_opcode opcode;
	unsigned flags;
	struct piece piece[LEDGER_PIECES];
	unsigned n_pieces;
	uint32_t len, imm;
	uint32_t number;     /* SSN or RSN, if it has one */
	uint32_t rsn_before; /* of the first that asks after those before it */
	uint64_t rkey, remote, operand, compare;
	bool left; /* wholly; its last packet was */
	uint64_t psn;
	uint8_t data[LEDGER_INLINE];
	uint8_t brought[LEDGER_BYTES / 8]; /* bytes that have come for it, a bit each */
};

/* What the peer has asked for, which may never have been heard. */
struct asked {
	enum wire_opcode op;
	uint32_t psn, number, len;
	uint64_t rkey, offset;
};

struct ledger {
	struct area *areas;
	unsigned n_areas;
	struct tp_qp *qp;
	struct entry sends[LEDGER_SIZE], receives[LEDGER_SIZE];
	uint64_t sent, sent_done, received,
		received_done; /* posted, and known to have completed: all below */
	uint64_t leaving;      /* no request before it begins to be sent any more */
	uint32_t base;	       /* SSNs and RSNs begin with it */
	uint32_t ssn, rsn;     /* of the next one posted */
	uint32_t granted;      /* SSNs below this may be sent */
	uint32_t seen_psn;     /* one past the newest sent */
	unsigned peer_reads;   /* that the peer takes at once */
	struct asked asked[LEDGER_ASKED];
	unsigned n_asked;
};

void ledger_open(struct ledger *l, struct tp_qp *qp, struct area *areas, unsigned n_areas, uint32_t base);
/* The next entry of a queue, to be filled and then posted; NULL: there is no room for one more. */
struct entry *ledger_next_send(struct ledger *l);
struct entry *ledger_next_receive(struct ledger *l);
/* It has been posted. */
void ledger_posted_send(struct ledger *l);
/* Does a request that has not completed name the area? */
bool ledger_uses(const struct ledger *l, const struct area *a);

/* The peer says that SSNs below this may be sent: its low half. */
void ledger_credit(struct ledger *l, uint16_t credit);
/* A DATA packet has left. */
void ledger_check_sent(struct ledger *l, const struct wire_packet *w);

/* Where a packet's bytes go: to a request's pieces, or to a region. */
struct landing {
	struct entry *entry;
	struct area *area;
};

/* May the queue pair take a packet that says this, and where do len bytes of it go then? */
bool ledger_allows(struct ledger *l, const struct wire_message *m, size_t len, struct landing *to);
/* It has. */
void ledger_bring(const struct landing *to, const struct wire_message *m, const uint8_t *data, size_t len);
/* An atomic request in order, after which nothing else has been done. */
void ledger_execute(struct ledger *l, const struct wire_message *m);
/* What the requests with these numbers have done to memory is right, whatever it is. */
void ledger_trust_atomics(struct ledger *l, uint32_t from_psn, uint32_t to_psn);

/* A completion of one of the two queues. */
void ledger_check_sent_wc(struct ledger *l, const struct tp_wc *wc);
void ledger_check_received_wc(struct ledger *l, const struct tp_wc *wc);
/* The queue pair is in error, and all completions have been polled. */
void ledger_check_over(const struct ledger *l);

#endif
