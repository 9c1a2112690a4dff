/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vectors: docs/vectors.json, packets that another codec has made. Fields are looked up by the names that
 * docs/protocol.md gives them; one that is not there fails the test.
 */
#ifndef SD_TESTS_TRANSPORT_VECTORS_H
#define SD_TESTS_TRANSPORT_VECTORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "transport/wire.h"

#define VECTOR_MAX 2048 /* bytes of a packet */

struct vector {
	const char *name;
	const char *dropped; /* why; NULL: it is good, and has fields */
	const json_t *fields;
	bool sent; /* good ones: as a sender makes them; else they are only understood */
	bool crc;  /* a trailer is expected */
	size_t len;
	uint8_t pkt[VECTOR_MAX];
};

/* Reads the file, or the one that the environment's VECTORS names, once; later calls return the same. */
const struct vector *vectors(size_t *n);
const struct vector *vector_named(const char *name);
/* The keyed values. */
const json_t *vectors_keyed(void);

bool vector_has(const json_t *o, const char *name);
uint64_t vector_number(const json_t *o, const char *name);
const char *vector_text(const json_t *o, const char *name);
/* Returns the length, at most max. */
size_t vector_bytes(const json_t *o, const char *name, uint8_t *out, size_t max);

/* A packet without its trailer; payload and sack point into *store. */
void vector_packet(const json_t *fields, struct wire_packet *p, uint8_t store[VECTOR_MAX]);
void vector_init(const json_t *fields, struct wire_init *i);
void vector_find(const json_t *fields, struct wire_find *f);

#endif
