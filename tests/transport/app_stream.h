/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * app_stream: both programs of a stream between two puppets. What each writes is known beforehand, so that
 * what the other one reads can be told right from wrong.
 */
#ifndef SD_TESTS_TRANSPORT_APP_STREAM_H
#define SD_TESTS_TRANSPORT_APP_STREAM_H

#include "puppet.h"
#include "script.h"

struct stream_end {
	struct puppet *host;
	struct tp_conn *c; /* NULL: not yet, or closed */
	uint64_t written, read;
	uint8_t *lent, *landing; /* memory of its own that the transport uses */
	size_t lent_len;
	bool shut, closed, eof, failed;
};

struct stream {
	struct stream_end end[2]; /* who connects, who accepts */
	unsigned index;
};

/* end[0]'s host is a. */
void stream_open(struct stream *s, unsigned index, struct puppet *a, struct puppet *b);
/* Who connects does so. */
void stream_connect(struct stream *s);
/* Whose connection of those n it is; accepts it. */
void stream_accept(struct puppet *host, struct stream *all, unsigned n);
/* One thing that the script's program does at one end. */
void stream_step(struct stream *s, unsigned end, struct script *script);
/* Reads all there is, and says that no more is written; true: something has moved. */
bool stream_drain(struct stream *s);
/* Nothing is left to be done but closing. */
bool stream_over(const struct stream *s);
/* What must be true then. may_fail: there was a reason for it. */
void stream_check(const struct stream *s, bool may_fail);
void stream_close(struct stream *s);

#endif
