/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * probe: the frames that port tests send, and the far end that answers them. Every frame is a sound
 * Ethernet/IPv4/UDP frame, because some ports look at the headers; what it carries follows from its number
 * and its length, so any damage shows.
 */
#ifndef SD_TESTS_PROBE_H
#define SD_TESTS_PROBE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "drivers/port.h"

enum {
	PROBE_HEADERS = 42,
	PROBE_MIN = 24, /* least payload */
	PROBE_LATER_MS = 60,
};

enum probe_command {
	PROBE_ECHO,  /* answer at once */
	PROBE_LATER, /* answer after PROBE_LATER_MS */
	PROBE_SINK,  /* do not answer */
	PROBE_ANSWER,
};

/* One end of a link. */
struct probe_end {
	struct port *port;
	uint32_t caps;
	uint8_t mac[6], peer_mac[6];
	struct sd_addr ip, peer_ip;
};

struct probe {
	uint32_t session; /* frames of others are strays */
	uint32_t seq;
	uint32_t payload; /* bytes, PROBE_MIN at least */
	uint8_t command;
};

/* second: which of the two addresses is this end's. */
void probe_end_init(struct probe_end *e, struct port *p, bool second);
/* Builds a probe in an empty frame as the engine does: the payload first, then the headers before it, with
 * frame->data moved on. offload: let the NIC finish the checksum, if it can. */
void probe_build(const struct probe_end *e, const struct probe *p, bool offload, struct port_frame *frame);
/* Takes a received frame apart; 0, -EINVAL (none of ours, or a wrong checksum) or -EBADMSG (damaged inside).
 */
int probe_parse(
	const struct probe_end *e, const struct port_frame *frame, struct probe *p, uint8_t src_mac[6]);

/* Writes a device's name with dir in place of the first "%s", if there is one. */
void probe_device(char *out, size_t len, const char *device, const char *dir);

/* Answers probes until *stop. */
void probe_answer(struct port *p, const atomic_bool *stop);

#endif
