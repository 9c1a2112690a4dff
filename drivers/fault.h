/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fault: what a bad link does to frames. The judge decides, pure and from its seed; the line holds frames
 * until they are due. Both the simulated wire and the fault injector are made of these. One thread at a time.
 */
#ifndef SD_DRIVERS_FAULT_H
#define SD_DRIVERS_FAULT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/rng.h"
#include "drivers/port.h"

struct fault_judge {
	struct port_faults faults;
	struct sd_rng rng;
	uint64_t link_free; /* when the last bit of the frame before is out, at the given rate */
	uint64_t last_due;  /* jitter alone keeps the order */
};

struct fault_verdict {
	unsigned copies; /* 0: lost */
	uint64_t due;	 /* when the copies arrive */
	bool corrupt;
	bool touched; /* more than delayed */
};

/* Streams of one seed are independent of each other. */
void fault_judge_init(struct fault_judge *j, const struct port_faults *f, unsigned stream);
struct fault_verdict fault_judge_frame(struct fault_judge *j, uint64_t now, uint32_t len);
/* Flips one to three bits anywhere. */
void fault_judge_corrupt(struct fault_judge *j, uint8_t *data, uint32_t len);
bool port_faults_any(const struct port_faults *f);

struct fault_frame {
	uint64_t due, seq; /* frames due at one time leave in the order in which they came */
	uint32_t len, flags;
	uint8_t *data;
};

struct fault_line {
	struct fault_frame *frames; /* all there are */
	struct fault_frame **heap;  /* those held, earliest first */
	struct fault_frame **idle;
	uint8_t *memory;
	unsigned held, idle_count;
	uint32_t capacity;
	uint64_t next_seq;
};

/* Room for `slots` frames of at most capacity bytes; 0 or -ENOMEM. */
int fault_line_open(struct fault_line *l, unsigned slots, uint32_t capacity);
void fault_line_close(struct fault_line *l);
/* Copies the frame in; returns the copy, or NULL when the line is full. Fits: len <= capacity. */
struct fault_frame *fault_line_push(
	struct fault_line *l, uint64_t due, const uint8_t *data, uint32_t len, uint32_t flags);
/* The earliest frame, still on the line, or NULL. */
const struct fault_frame *fault_line_peek(const struct fault_line *l);
/* Takes the earliest frame off; it is the caller's until fault_line_release(). */
struct fault_frame *fault_line_pop(struct fault_line *l);
void fault_line_release(struct fault_line *l, struct fault_frame *f);

#endif
