/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * rawloop: what a port can do with no protocol above it, to compare with. Frames of a type of their own, so
 * that a device on the same port leaves them alone, and takes no notice of those that are left over.
 */
#ifndef SD_BENCH_RAWLOOP_H
#define SD_BENCH_RAWLOOP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "drivers/port.h"
#include "histogram.h"

#define RAW_SMALL 64 /* bytes of a small frame */

/* What the receiving process has counted. */
struct raw_count {
	_Atomic uint64_t frames, bytes, bad; /* bytes: of payload */
};

/* One small frame there and back, for so long. */
void raw_ping(struct port *p, uint64_t ns, struct histogram *h);
void raw_echo(struct port *p, const _Atomic int *command);
/* Frames of len bytes one way; checked: each with the CRC32C of its payload behind it. The payload is copied
 * from memory, round and round; NULL: it is whatever the frame has. */
void raw_send(struct port *p, unsigned len, bool checked, const uint8_t *memory, size_t size, uint64_t ns);
/* Takes them; what is checked has its CRC looked at and its payload copied, once, to memory, round and round.
 */
void raw_sink(struct port *p, bool checked, uint8_t *memory, size_t size, struct raw_count *count,
	const _Atomic int *command);

#endif
