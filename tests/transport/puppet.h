/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * puppet: one struct tp under a test's hand, and peers made of nothing but packets. A peer says what the test
 * makes it say, right or wrong; what the endpoint sends is taken out and looked at.
 */
#ifndef SD_TESTS_TRANSPORT_PUPPET_H
#define SD_TESTS_TRANSPORT_PUPPET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "transport/conn.h"

#define PUPPET_PORT 80

struct puppet {
	struct tp *tp;
	struct tp_config cfg;
	uint64_t now;
	struct sd_addr local, peer; /* of what arrives */
	bool ce, late, astray;
	uint16_t max_payload;
	struct tp_listener *listener;
	/* what the endpoint has told */
	unsigned events; /* all since the test last cleared them */
	unsigned acceptable, found, repaths;
	unsigned qp_events, completions;
	struct tp_found last_found;
	/* the packet it sent last; control packets are not decoded */
	uint8_t out[65536];
	size_t out_len;
	const struct tp_path *out_path;
	struct wire_packet w; /* decoded, if it is DATA or ACK */
	/* memory */
	size_t blocks;
	unsigned rests; /* rings that were given back, and filled with garbage */
	bool may_alloc, no_memory, broke_rules;
	unsigned allocs_left; /* 0: no limit; 1: none */
};

/* The far end of a connection. */
struct peer {
	uint64_t cid, their_cid, nonce;
	uint32_t isn, their_isn;
	uint32_t psn, ack; /* next to send; next expected */
	uint64_t off, window;
	uint8_t token[16], their_token[16];
	uint32_t ts, their_ts;
	struct tp_conn *c;
	bool crc;
	bool messages;	 /* it is a queue pair, which */
	uint16_t reads;	 /* takes so many READ and atomic requests at once, */
	uint16_t credit; /* and messages of numbers below this */
	struct {
		bool is, more;
		uint16_t off;
	} piece; /* DATA is one of its packet; an ACK tells how much has come */
};

/* Defaults, fixed seeds, IPv4, no port listened on. Change p->cfg before puppet_start. */
void puppet_init(struct puppet *p);
void puppet_start(struct puppet *p);
/* tp_create's result. */
int puppet_create(struct puppet *p);
/* Listens on the wildcard of the local address's family. */
void puppet_listen(struct puppet *p, unsigned backlog);
/* Destroys it. True if all memory came back and none was asked for at the wrong time. */
bool puppet_stop(struct puppet *p);

void puppet_input(struct puppet *p, const uint8_t *pkt, size_t len);
/* Takes the next packet out; false: there is none. */
bool puppet_output(struct puppet *p);
/* Takes out all there is; returns how many. The last one stays to be looked at. */
unsigned puppet_flush(struct puppet *p);
/* Lets time pass; timers run when they are due, output stays. */
void puppet_wait(struct puppet *p, uint64_t ns);
/* The same, but stops when there is output; true: there is. */
bool puppet_wait_output(struct puppet *p, uint64_t ns);

/* A fresh peer that would connect; n makes its ids. */
void peer_init(struct puppet *p, struct peer *q, unsigned n);
/* Puts its INIT into buf, to be changed before it is sent; returns its length. */
size_t peer_put_init(const struct puppet *p, const struct peer *q, const uint8_t cookie[16], uint8_t *buf);
/* Sends INIT, takes INIT_ACK, sends an ACK, accepts. False: one of these did not happen. */
bool peer_connect(struct puppet *p, struct peer *q, unsigned n);
/* puppet_start, and q is connected to the one listener. Nothing is left to be sent, or to be told. */
void puppet_open(struct puppet *p, struct peer *q);
/* Bytes to tell apart. */
void puppet_pattern(uint8_t *bytes, size_t len);
/* The endpoint connects, the peer answers. Leaves no output. */
bool peer_accept(struct puppet *p, struct peer *q, unsigned n);
/* Answers the INIT that it has learnt from, which was for dst_port from src_port. */
void peer_init_ack(struct puppet *p, const struct peer *q, uint16_t src_port, uint16_t dst_port);
/* Learns from an INIT or INIT_ACK that is in p->out. */
bool peer_learn(const struct puppet *p, struct peer *q);
/* DATA with the peer's next PSN and offset. */
void peer_send(struct puppet *p, struct peer *q, const void *data, size_t len, unsigned flags);
/* DATA as told; counts nothing. */
void peer_data(struct puppet *p, struct peer *q, uint32_t psn, uint64_t off, const void *data, size_t len,
	unsigned flags);
/* The same, but only a piece of it: its bytes from that place on, which is off in the stream. */
void peer_piece(struct puppet *p, struct peer *q, uint32_t psn, size_t from, bool more, uint64_t off,
	const void *data, size_t len, unsigned flags);
/* The same of a queue pair: one fragment, or FIN. */
void peer_message(struct puppet *p, struct peer *q, uint32_t psn, const struct wire_message *m,
	const void *data, size_t len, unsigned flags);
/* ACK of everything below ack, with words of SACK and the peer's window. */
void peer_ack(
	struct puppet *p, struct peer *q, uint32_t ack, const uint64_t *sack, unsigned words, unsigned flags);
void peer_reset(struct puppet *p, const struct peer *q, unsigned reason, const uint8_t token[16]);

#endif
