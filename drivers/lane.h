/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lane: frames on their way from the thread that has received them to the one that they are for, and back.
 * Each direction has one writer and one reader: nothing is locked, and a frame is not copied unless it is for
 * several.
 */
#ifndef SD_DRIVERS_LANE_H
#define SD_DRIVERS_LANE_H

#include <stdatomic.h>

#include "drivers/port.h"

#define LANE_RING      512u /* a power of two */
#define LANE_COPIES    32u
#define LANE_COPY_SIZE 512u /* what is for several is short */

struct lane_ring {
	_Alignas(64) _Atomic uint32_t tail; /* the writer's */
	_Alignas(64) _Atomic uint32_t head; /* the reader's */
	struct port_frame frames[LANE_RING];
};

struct lane {
	struct lane_ring in, done;
	/* The receiver's. */
	uint32_t most;	    /* frames that may be under way, less than a ring has room for */
	uint32_t under_way; /* handed over and not back */
	uint8_t *copies, *free_copies[LANE_COPIES];
	unsigned n_free;
	bool fresh;		 /* something was handed over since this was cleared */
	_Atomic uint64_t missed; /* lost, as there was no room */
};

/* For at most so many frames at once. NULL: no memory. */
struct lane *lane_new(uint32_t most);
void lane_free(struct lane *l);

/* By the receiver. False: the frame is lost, and stays the caller's. */
bool lane_hand(struct lane *l, const struct port_frame *f);
/* Hands over a copy; the frame stays the caller's. */
void lane_hand_copy(struct lane *l, const struct port_frame *f);
/* By the receiver: up to max frames that have come back, which go back to the port; how many. Less than max:
 * there are no more. */
unsigned lane_reclaim(struct lane *l, struct port_frame *frames, unsigned max);
/* By the user: takes what there is. */
unsigned lane_take(struct lane *l, struct port_frame *frames, unsigned max);
/* By the user: one that it took. */
void lane_give_back(struct lane *l, const struct port_frame *f);

#endif
