/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * script: a fuzz target's input, read as a program. What is over reads as zeros, so that every input is a
 * whole program, and one that is cut or joined with another still means something.
 */
#ifndef SD_TESTS_TRANSPORT_SCRIPT_H
#define SD_TESTS_TRANSPORT_SCRIPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct script {
	const uint8_t *at, *end;
};

/* What must hold whatever the input is. */
#define require(ok) ((ok) ? (void)0 : script_broken(__FILE__, __LINE__, #ok))

static inline void script_broken(const char *file, int line, const char *what)
{
	fprintf(stderr, "%s:%d: this does not hold: %s\n", file, line, what);
	abort();
}

static inline bool script_over(const struct script *s)
{
	return s->at >= s->end;
}

static inline uint8_t script_byte(struct script *s)
{
	return s->at < s->end ? *s->at++ : 0;
}

static inline unsigned script_below(struct script *s, unsigned n)
{
	return script_byte(s) % n;
}

static inline uint32_t script_word(struct script *s)
{
	uint32_t v = 0;

	for (int i = 0; i < 4; i++)
		v = v << 8 | script_byte(s);
	return v;
}

static inline uint64_t script_long(struct script *s)
{
	uint64_t high = script_word(s);

	return high << 32 | script_word(s);
}

/* Nearly always exactly right; else near it, on either side; rarely anything. */
static inline int64_t script_error(struct script *s)
{
	unsigned b = script_byte(s);

	if (b < 0xc0)
		return 0;
	if (b < 0xf8)
		return (int64_t)(b & 31) - 8;
	return (int32_t)script_word(s);
}

#endif
