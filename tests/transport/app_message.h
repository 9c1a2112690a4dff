/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * app_message: the programs of two queue pairs between two puppets. Each knows what the other has posted, so
 * what arrives, what is read and what completes can be told right from wrong.
 */
#ifndef SD_TESTS_TRANSPORT_APP_MESSAGE_H
#define SD_TESTS_TRANSPORT_APP_MESSAGE_H

#include "puppet.h"
#include "script.h"
#include "transport/qp.h"

#define MESSAGE_OPS  16u /* posted and not completed */
#define MESSAGE_SIZE 768u

/* What was posted. */
struct op {
	enum tp_opcode opcode;
	uint32_t len, imm;
	uint64_t seed, expect;
};

struct message_end {
	struct puppet *host;
	struct tp_pd *pd;
	struct tp_mr *mr;
	struct tp_cq *scq, *rcq;
	struct tp_qp *qp;
	uint8_t *mem;
	struct op ops[MESSAGE_OPS];
	uint32_t posted, done;	      /* requests */
	struct op messages[64];	      /* of those: what takes a receive */
	uint32_t told, heard;	      /* messages posted; the peer's that have arrived */
	uint32_t receives;	      /* posted */
	uint32_t writes, writes_seen; /* with immediate: posted, and seen by the peer */
	uint64_t adds;		      /* to the peer's counter */
	bool asked, failed;
};

struct channel {
	struct message_end end[2]; /* who connects, who accepts */
	unsigned index;
	struct tp_listener *listener; /* of its own */
};

void message_open(struct channel *ch, unsigned index, struct puppet *a, struct puppet *b);
void message_connect(struct channel *ch);
void message_accept(struct channel *ch);
/* One thing that the script's program does at one end. */
void message_step(struct channel *ch, unsigned end, struct script *script);
/* Takes what has come, keeps receives posted, and disconnects when all is done; true: something has moved. */
bool message_drain(struct channel *ch);
/* Nothing is left to be done but destroying. */
bool message_over(const struct channel *ch);
void message_check(const struct channel *ch, bool may_fail);
void message_close(struct channel *ch);

#endif
