/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * wire: the packet format, alone. Encoders and checked decoders; docs/protocol.md says what the fields mean.
 * Decoders take any bytes. Everything is big-endian; lengths exclude the CRC32C trailer unless said
 * otherwise.
 */
#ifndef SD_TRANSPORT_WIRE_H
#define SD_TRANSPORT_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/bytes.h"

#define WIRE_VERSION	 1
#define WIRE_CRC_LEN	 4
#define WIRE_BASE_LEN	 32 /* DATA and ACK packets before their extensions */
#define WIRE_STREAM_LEN	 12 /* STREAM extension */
#define WIRE_ACK_LEN	 12 /* ACK extension without SACK words */
#define WIRE_SACK_WORDS	 14 /* at most; a pure ACK then has the largest header */
#define WIRE_PIECE_LEN	 8  /* PIECE extension */
#define WIRE_INIT_LEN	 104
#define WIRE_NAK_LEN	 32
#define WIRE_COOKIE_LEN	 40
#define WIRE_RESET_LEN	 32
#define WIRE_FIND_LEN	 32
#define WIRE_CONTROL_MAX (WIRE_INIT_LEN + WIRE_CRC_LEN)
#define WIRE_MIN_PAYLOAD 256 /* smallest max_payload a peer may claim */

enum wire_type {
	WIRE_DATA = 1,
	WIRE_ACK = 2,
	WIRE_INIT = 3,
	WIRE_INIT_ACK = 4,
	WIRE_INIT_NAK = 5,
	WIRE_COOKIE = 6,
	WIRE_RESET = 7,
	WIRE_FIND = 8,
	WIRE_FIND_REPLY = 9,
};

enum wire_flag {
	WIRE_F_ACKREQ = 1 << 0,	 /* answer at once */
	WIRE_F_RETX = 1 << 1,	 /* not the first transmission of this PSN (for people) */
	WIRE_F_FIN = 1 << 2,	 /* the stream ends with this packet */
	WIRE_F_SE = 1 << 3,	 /* solicited event: whoever waits for the message is to be woken */
	WIRE_F_LIMITED = 1 << 4, /* more bytes wait, but the window is used up */
	WIRE_F_BYE = 1 << 5,	 /* the sender's application has gone: it reads no more */
	WIRE_F_LATE = 1 << 6, /* what is echoed was found late: it had waited for a CPU, not in the network */
	WIRE_F_READY = 1 << 7, /* messages: the sender's queue pair takes requests */
};

enum wire_opcode {
	WIRE_OP_NONE = 0,
	WIRE_OP_STREAM = 1,
	WIRE_OP_SEND = 2,
	WIRE_OP_WRITE = 3,
	WIRE_OP_WRITE_IMM = 4, /* the last packet of such a write */
	WIRE_OP_READ_REQ = 5,
	WIRE_OP_READ_RESP = 6,
	WIRE_OP_SWAP = 7,
	WIRE_OP_ADD = 8,
};

enum wire_ext {
	WIRE_X_STREAM = 1,
	WIRE_X_ACK = 2,
	WIRE_X_SEND = 3,
	WIRE_X_WRITE = 4,
	WIRE_X_READ_REQ = 5,
	WIRE_X_READ_RESP = 6,
	WIRE_X_ATOMIC = 7,
	WIRE_X_PIECE = 0x81,
	WIRE_X_CRITICAL = 0x80, /* a packet with an unknown extension that has this bit is dropped */
};

#define WIRE_SEND_LEN	   12
#define WIRE_SEND_IMM_LEN  16
#define WIRE_WRITE_LEN	   20
#define WIRE_WRITE_IMM_LEN 28
#define WIRE_READ_REQ_LEN  28
#define WIRE_READ_RESP_LEN 12
#define WIRE_ATOMIC_LEN	   40
#define WIRE_MAX_MESSAGE   (1u << 30)
#define WIRE_M_LAST	   1u /* in the extension's flags: the last fragment */
#define WIRE_P_MORE	   1u /* in those of PIECE: not the packet's last piece */
#define WIRE_A_ASTRAY	   1u /* in those of ACK: the newest packet came to a receive queue of others */

enum wire_feature { WIRE_FEAT_CRC = 1 << 0, WIRE_FEAT_MESSAGES = 1 << 1 };

/* Why a RESET was sent; for people, but for FINISHED. */
enum wire_reset {
	WIRE_RESET_UNKNOWN = 0,	 /* no such connection */
	WIRE_RESET_ABORT = 1,	 /* the application said so, or left bytes unread */
	WIRE_RESET_CLOSED = 2,	 /* data for an application that has gone */
	WIRE_RESET_PROTOCOL = 3, /* the peer broke the protocol */
	WIRE_RESET_TIMEOUT = 4,	 /* the peer was silent for too long */
	WIRE_RESET_FINISHED = 5, /* the connection is over and all that the peer sent has arrived */
	WIRE_RESET_ACCESS = 6,	 /* a request names memory that it may not use that way; psn says which */
	WIRE_RESET_INVALID = 7,	 /* a request cannot be carried out; psn says which */
	WIRE_RESET_FAILED = 8,	 /* something here has failed that the peer cannot help */
};

/* What a DATA packet of a queue pair says, by its opcode. */
struct wire_message {
	enum wire_opcode op;
	bool last;	 /* SEND, WRITE, WRITE_IMM, READ_RESP: nothing follows; the others always are */
	bool has_imm;	 /* SEND, with last; WRITE_IMM always has */
	uint32_t number; /* SEND, WRITE_IMM: SSN; READ_REQ, READ_RESP, SWAP, ADD: RSN */
	uint32_t imm;
	uint32_t offset;	   /* SEND, READ_RESP: of the payload in the message */
	uint32_t len;		   /* READ_REQ: what is asked for */
	uint64_t rkey, remote;	   /* WRITE, WRITE_IMM, READ_REQ, SWAP, ADD: region, and the place in it */
	uint64_t operand, compare; /* SWAP, ADD */
};

/* A decoded DATA or ACK packet. Pointers point into the packet. */
struct wire_packet {
	uint8_t type, flags;
	uint16_t credit; /* of messages: SSNs below this may be sent, low half */
	bool has_window;
	bool piece;	    /* DATA: only a part of the packet with this PSN, */
	bool more;	    /* not the last one, */
	uint16_t piece_off; /* from here on. ACK: so many bytes of packet ack have come */
	uint16_t ce_count;
	uint16_t sack_words;
	uint32_t psn, ack, ts, echo;
	uint64_t window;	 /* with has_window, */
	uint8_t backlog;	 /* and these: of the sender's receive queue, in 256ths; */
	bool astray;		 /* ours come to another one than the connection's */
	uint64_t offset;	 /* DATA of a stream */
	struct wire_message msg; /* other DATA; op is STREAM or NONE (FIN) as well */
	const uint8_t *payload;
	size_t payload_len;
	const uint8_t *sack;
};

struct wire_init {
	uint8_t attempt; /* counts the initiator's transmissions */
	uint16_t src_port, dst_port;
	uint64_t dst_cid, src_cid, nonce, epoch, window;
	uint32_t isn, max_ack_delay_us, ts, echo;
	uint16_t max_payload, features, window_packets, reads;
	uint8_t token[16], cookie[16];
};

struct wire_nak {
	uint8_t code;
	uint64_t dst_cid, nonce;
};

struct wire_cookie {
	uint64_t dst_cid, nonce;
	uint8_t cookie[16];
};

struct wire_reset_packet {
	uint8_t reason;
	uint32_t psn;	  /* ACCESS, INVALID */
	uint64_t src_cid; /* the connection id that the sender of the RESET does not have, or gives up */
	uint8_t token[16];
};

struct wire_find {
	uint8_t code; /* FIND_REPLY */
	uint64_t nonce;
	struct sd_addr target;
};

static inline unsigned tp_wire_version(const uint8_t *pkt)
{
	return pkt[0] >> 4;
}

static inline unsigned tp_wire_type(const uint8_t *pkt)
{
	return pkt[0] & 15;
}

/* The connection a packet of at least 16 bytes is for (not for INIT, RESET, FIND). */
static inline uint64_t tp_wire_cid(const uint8_t *pkt)
{
	return be64_get(pkt + 8);
}

/* Is the trailer of this packet (len with trailer) right? */
bool tp_wire_crc_ok(const uint8_t *pkt, size_t len);
/* Appends the trailer to len bytes; returns the new length. */
size_t tp_wire_seal(uint8_t *pkt, size_t len);

/* Decode a whole DATA or ACK packet; false: malformed. */
bool tp_wire_decode(const uint8_t *pkt, size_t len, struct wire_packet *out);

/* The fields common to DATA and ACK; ext_len is that of all extensions. */
static inline void tp_wire_put_base(uint8_t *b, enum wire_type type, unsigned flags, enum wire_opcode op,
	size_t ext_len, const struct wire_packet *p, uint64_t cid)
{
	b[0] = (uint8_t)(WIRE_VERSION << 4 | type);
	b[1] = (uint8_t)flags;
	b[2] = (uint8_t)op;
	b[3] = (uint8_t)((WIRE_BASE_LEN + ext_len) / 4);
	be16_put(b + 4, p->credit);
	be16_put(b + 6, p->ce_count);
	be64_put(b + 8, cid);
	be32_put(b + 16, p->psn);
	be32_put(b + 20, p->ack);
	be32_put(b + 24, p->ts);
	be32_put(b + 28, p->echo);
}

static inline void tp_wire_put_stream(uint8_t *b, uint64_t offset)
{
	b[0] = WIRE_X_STREAM;
	b[1] = WIRE_STREAM_LEN / 4;
	be16_put(b + 2, 0);
	be64_put(b + 4, offset);
}

static inline void tp_wire_put_piece(uint8_t *b, size_t offset, bool more)
{
	b[0] = WIRE_X_PIECE;
	b[1] = WIRE_PIECE_LEN / 4;
	be16_put(b + 2, more ? WIRE_P_MORE : 0);
	be32_put(b + 4, (uint32_t)offset);
}

/* Returns the extension's length; 0: the opcode has none. */
size_t tp_wire_put_message(uint8_t *b, const struct wire_message *m);

/* Returns the extension's length; the words follow with tp_wire_put_sack. */
static inline size_t tp_wire_put_ack(uint8_t *b, uint64_t window, unsigned sack_words)
{
	b[0] = WIRE_X_ACK;
	b[1] = (uint8_t)(WIRE_ACK_LEN / 4 + 2 * sack_words);
	be16_put(b + 2, 0);
	be64_put(b + 4, window);
	return WIRE_ACK_LEN + 8 * (size_t)sack_words;
}

/* Of the sender's receive queue: how full it is, in 256ths, and whether it is another one than it should be.
 */
static inline void tp_wire_put_queue(uint8_t *ext, uint8_t backlog, bool astray)
{
	ext[2] = backlog;
	ext[3] = astray ? WIRE_A_ASTRAY : 0;
}

/* Bit i (from the least significant) of word k says that PSN ack + 1 + 64 k + i has been received. */
static inline void tp_wire_put_sack(uint8_t *ext, unsigned k, uint64_t word)
{
	be64_put(ext + WIRE_ACK_LEN + 8 * (size_t)k, word);
}

static inline uint64_t tp_wire_get_sack(const struct wire_packet *p, unsigned k)
{
	return be64_get(p->sack + 8 * (size_t)k);
}

/* Control packets: encoders write the packet with its trailer and return its length; decoders take the length
 * with the trailer, which the caller has verified. */
size_t tp_wire_put_init(uint8_t *b, enum wire_type type, const struct wire_init *i);
bool tp_wire_get_init(const uint8_t *pkt, size_t len, struct wire_init *out);
size_t tp_wire_put_nak(uint8_t *b, const struct wire_nak *n);
bool tp_wire_get_nak(const uint8_t *pkt, size_t len, struct wire_nak *out);
size_t tp_wire_put_cookie(uint8_t *b, const struct wire_cookie *c);
bool tp_wire_get_cookie(const uint8_t *pkt, size_t len, struct wire_cookie *out);
size_t tp_wire_put_reset(uint8_t *b, const struct wire_reset_packet *r);
bool tp_wire_get_reset(const uint8_t *pkt, size_t len, struct wire_reset_packet *out);
size_t tp_wire_put_find(uint8_t *b, enum wire_type type, const struct wire_find *f);
bool tp_wire_get_find(const uint8_t *pkt, size_t len, struct wire_find *out);

#endif
