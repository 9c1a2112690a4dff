/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * script: a language of packets, calls and times for table tests of one endpoint, after packetdrill. The
 * script plays the endpoint's peers, its application and the clock; README.md is the language. This header is
 * what the parts of the interpreter share. What is wrong with a script, or with the endpoint, ends the run by
 * script_fail(), which does not return: nothing here is called back from the transport.
 */
#ifndef SD_TESTS_TRANSPORT_SCRIPT_SCRIPT_H
#define SD_TESTS_TRANSPORT_SCRIPT_SCRIPT_H

#include <setjmp.h>
#include <stdio.h>

#include "tests/transport/puppet.h"
#include "transport/verbs.h"

#define SCRIPT_LINKS	16
#define SCRIPT_LABELS	32
#define SCRIPT_REGIONS	8
#define SCRIPT_WORDS	64
#define SCRIPT_LINE	1024
#define SCRIPT_MEMORY	(256u << 10) /* of each buffer that requests use */
#define SCRIPT_PACKET	65536
#define SCRIPT_RANGES	64
#define SCRIPT_REMEMBER 1024 /* packets, for looking at what is sent again */
#define SCRIPT_REQUESTS 256

/* --- packets: the fields that a script may name --- */

enum field {
	F_OP, /* DATA: enum wire_opcode */
	F_PSN,
	F_ACK,
	F_OFF, /* with F_LEN: off:len */
	F_LEN,
	F_WIN,
	F_CREDIT,
	F_CE,
	F_SSN,
	F_RSN,
	F_IMM,
	F_RKEY,
	F_OPERAND,
	F_COMPARE,
	F_PIECE, /* DATA: where in its packet the payload begins; ACK: bytes that have come */
	F_VALUE, /* READ_RESP: what the eight bytes say */
	F_ATTEMPT,
	F_SPORT,
	F_DPORT,
	F_EPOCH,
	F_ISN,
	F_DELAY,
	F_MAX,
	F_FEATURES,
	F_PACKETS,
	F_READS,
	F_CODE,
	F_REASON,
	F_PORT,
	F_ADDRESS,
	F_NONCE,
	F_ID,
	F_TS,
	F_ECHO,
	F_COUNT,
};

#define BIT(f) (1ull << (f))

struct range {
	uint32_t from, to; /* relative PSNs, both included */
};

/* Numbers of packets are relative to the initial ones. */
struct packet {
	uint8_t type; /* enum wire_type */
	uint64_t has; /* BIT(enum field) */
	uint64_t v[F_COUNT];
	unsigned flags; /* enum wire_flag */
	bool last, more;
	unsigned n_sack;
	struct range sack[SCRIPT_RANGES];
	uint8_t cookie[16], token[16];
	const uint8_t *payload;
	size_t payload_len;
};

struct patch {
	uint16_t at;
	uint8_t value;
};

/* A packet as a line of a script describes it. */
struct spec {
	struct packet p;
	uint64_t absent;    /* BIT(): must not be there */
	unsigned not_flags; /* must not be set */
	bool exact_flags;   /* nor any other than p.flags */
	bool has_sack, not_last, not_more;
	bool has_cookie;
	bool any;     /* whoever it is for */
	int label;    /* what it is to be called; -1: nothing */
	int again;    /* inject this one's bytes once more; -1: no */
	bool nothing; /* no packet at all */
	/* injected packets only */
	bool ce, late, bad_crc, no_crc, bad_token, fresh;
	unsigned cut, pad;
	unsigned n_patches;
	struct patch patches[8];
	struct sd_addr from, to; /* family 0: where its connection is, and the endpoint */
};

struct label {
	char name[24];
	bool set;
	struct packet p;
	uint8_t *bytes;
	size_t len;
};

/* A connection: its peer, which the script plays, and the endpoint's side of it. */
struct link {
	char name[24];
	struct peer q;
	bool known; /* the endpoint's id is */
	struct sd_addr addr;
	uint16_t max; /* bytes of the largest packet, as agreed */
	/* what the peer says unless told otherwise */
	uint32_t psn, ack; /* relative */
	uint64_t off, win;
	uint16_t credit, ce;
	uint32_t heard; /* timestamp of the endpoint's last packet that asked for an answer */
	struct {
		bool sent;
		uint8_t op;
		uint32_t psn;
		uint64_t off, len;
		unsigned fin;
	} first[SCRIPT_REMEMBER]; /* what the endpoint has sent */
	uint64_t asked[SCRIPT_REQUESTS],
		asks[SCRIPT_REQUESTS]; /* by RSN: where the peer, the endpoint reads */
	struct tp_qp *qp;
};

struct region {
	char name[24];
	struct tp_mr *mr;
	uint64_t rkey;
	uint8_t *memory;
	size_t len;
};

struct script {
	struct puppet puppet;
	uint64_t start; /* time 0 of the script */
	bool created;
	FILE *report;
	FILE *seen; /* the packets so far, as text */
	char *seen_text;
	size_t seen_len;
	jmp_buf out;
	const char *name, *line_text; /* the script's, and what stands in the line */
	unsigned line;
	/* the line being run */
	char text[SCRIPT_LINE];
	char *words[SCRIPT_WORDS];
	unsigned n_words, at;
	/* settings */
	uint64_t tolerance;
	bool messages, has_isn;
	uint32_t isn;
	unsigned reads, peer_reads, queue;
	/* what there is */
	struct link links[SCRIPT_LINKS];
	unsigned n_links;
	struct label labels[SCRIPT_LABELS];
	unsigned n_labels;
	struct region regions[SCRIPT_REGIONS];
	unsigned n_regions;
	struct tp_pd *pd, *other_pd;
	struct tp_cq *cq;
	struct tp_mr *source_mr, *landing_mr, *receive_mr;
	uint8_t source[SCRIPT_MEMORY], landing[SCRIPT_MEMORY], receive[SCRIPT_MEMORY];
	unsigned n_fresh;
	uint32_t receive_next, receive_at[SCRIPT_REQUESTS], landing_at[SCRIPT_REQUESTS];
	uint8_t packet[SCRIPT_PACKET + 256];
};

/* Runs a script. False: something was not as it says; report then has what, in which line. */
bool script_run(const char *name, const char *text, FILE *report);
bool script_run_file(const char *path, FILE *report);

/* script.c */
__attribute__((format(printf, 2, 3), noreturn)) void script_fail(struct script *s, const char *fmt, ...);
struct link *script_link(struct script *s, const char *name);
/* The connection that this id, the peer's or the endpoint's, is of; NULL: none. */
struct link *script_link_by_id(struct script *s, uint64_t id);
/* Runs one more line of text in place of a part of the line being run. */
__attribute__((format(printf, 2, 3))) void script_line(struct script *s, const char *fmt, ...);
/* The name's label, made if make; -1: there is none. */
int script_label(struct script *s, const char *name, bool make);
static inline uint64_t script_now(const struct script *s)
{
	return s->puppet.now - s->start;
}
/* What byte n of everything is. */
static inline uint8_t script_byte(uint64_t n)
{
	return (uint8_t)(n * 31 + (n >> 8) * 7 + 1);
}
bool script_is_pattern(const uint8_t *bytes, size_t len, uint64_t from);
/* The endpoint's connection; NULL: there is none any more. */
struct tp_conn *script_conn(struct script *s, const struct link *l);

/* words.c: all fail the script unless the next word is such a one */
struct name {
	const char *name;
	uint64_t value;
};
#define NAMES_END                                                                                            \
	{                                                                                                    \
		NULL, 0                                                                                      \
	}
extern const struct name errors[], codes[], reasons[], flags[], opcodes[], features[], event_names[];

void words_split(struct script *s, const char *line);
const char *word_next(struct script *s, const char *what);
/* NULL: the line is over. */
const char *word_peek(const struct script *s);
/* Takes the next word if it is this one. */
bool word_is(struct script *s, const char *word);
void words_end(struct script *s);
bool parse_number(const char *word, uint64_t *out);
bool parse_time(const char *word, uint64_t *ns);
/* "off:len" */
bool parse_piece(const char *word, uint64_t *off, uint64_t *len);
uint64_t number_of(struct script *s, const char *word, const char *what, uint64_t max);
uint64_t time_of(struct script *s, const char *word, const char *what);
uint64_t next_number(struct script *s, const char *what, uint64_t max);
uint64_t next_time(struct script *s, const char *what);
bool next_switch(struct script *s, const char *what);
/* A name's value; false: it is none of these. */
bool find_name(const struct name *names, const char *word, uint64_t *out);
const char *name_of(const struct name *names, uint64_t value);
uint64_t next_name(struct script *s, const struct name *names, const char *what);
/* Names with '|' or ',' between them, or "none". */
uint64_t bits_of(struct script *s, const struct name *names, const char *word, const char *what);
struct sd_addr address_of(struct script *s, const char *word);
void copy_name(struct script *s, char *to, size_t size, const char *from);
/* "12.5ms", in a buffer that the fourth next call uses again */
const char *time_text(uint64_t ns);

/* packet.c: to bytes from the peer of l, and to fields from the endpoint's bytes */
size_t packet_encode(struct script *s, const struct link *l, struct spec *spec, uint8_t *buf);
/* NULL, or what is wrong with it */
const char *packet_decode(const struct link *l, const uint8_t *pkt, size_t len, struct packet *out);

/* text.c: between words and fields */
void spec_parse(struct script *s, struct spec *out, bool injected);
void packet_print(const struct script *s, FILE *to, const struct packet *p);
void field_print(const struct script *s, FILE *to, enum field f, uint64_t v);
const char *field_name(enum field f);

/* inject.c */
void script_inject(struct script *s, struct link *l);
/* Gives a label its packet; -1: none. */
void script_remember(struct script *s, int label, const struct packet *p, const uint8_t *bytes, size_t len);
/* After what may have begun a connection. */
void script_settle_isn(struct script *s);

/* match.c */
void script_expect(struct script *s, struct link *l, uint64_t from, uint64_t until);
/* Time passes, and no packet leaves. */
void script_advance(struct script *s, uint64_t until);

/* calls.c, settings.c, checks.c, requests.c: false: no such word */
bool script_call(struct script *s, struct link *l, const char *verb);
bool script_setting(struct script *s, const char *verb);
bool script_check(struct script *s, struct link *l, const char *verb);
bool script_request(struct script *s, struct link *l, const char *verb);
/* Queue pairs, made when a connection begins. */
void requests_begin(struct script *s);
void requests_qp(struct script *s, struct link *l);
void requests_end(struct script *s);
/* Compares a call's result with what follows '=', or else with usual. */
void call_result(struct script *s, int64_t result, int64_t usual);

#endif
