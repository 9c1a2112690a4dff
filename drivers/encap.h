/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * encap: Ethernet, IPv4/IPv6 and UDP headers around a transport packet. Pure functions.
 */
#ifndef SD_DRIVERS_ENCAP_H
#define SD_DRIVERS_ENCAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"

#define ENCAP_MAX 62 /* 14 + 40 + 8 */
#define ENCAP_V4  42
#define ENCAP_V6  62

struct encap_flow {
	uint8_t src_mac[6], dst_mac[6];
	struct sd_addr src, dst; /* ports are UDP's */
	uint8_t ecn;		 /* two bits; 2 is ECT(0) */
};

/* Writes a header template (DF set, TTL 64) to hdr; returns its length. Lengths are zero, the checksum fields
 * hold the sums of what is known already, so that completing a copy is cheap. */
unsigned encap_template(const struct encap_flow *f, uint8_t hdr[ENCAP_MAX]);
/* Gives a template another UDP source port, and flow label. */
void encap_set_entropy(uint8_t *hdr, unsigned hdr_len, uint16_t port);
/* Completes a copied template in front of payload_len bytes: lengths, IPv4 header checksum, and the UDP
 * checksum: all of it, or with offload the pseudo header's sum for the NIC to finish. */
void encap_finish(uint8_t *frame, unsigned hdr_len, size_t payload_len, bool offload);
/* The NIC's part of an offloaded checksum, for a frame that encap_finish(offload) has completed. */
void encap_finish_offload(uint8_t *frame, size_t len);

struct encap_view {
	struct encap_flow flow;
	const uint8_t *payload; /* UDP payload */
	size_t payload_len;
	bool ce;
	bool csum_ok; /* verified here (only with verify) or absent (IPv4 zero checksum) */
};

/* Checks and takes apart one frame. Rejects (-EINVAL) truncated or inconsistent lengths, fragments, IPv4
 * options with bad lengths, wrong IPv4 header checksums, VLAN tags and anything that is not UDP to dst_port;
 * with verify also wrong UDP checksums. Trailing Ethernet padding is cut off. Any bytes are safe. */
int encap_parse(const uint8_t *frame, size_t len, uint16_t dst_port, bool verify, struct encap_view *out);

/* The headers of an accepted frame. Most frames come in rows from one host: those behind the first need not
 * be taken apart. */
struct encap_known {
	uint8_t head[64];
	uint8_t hdr_len; /* 0: none */
};

/* Remembers a frame that encap_parse has made this view of. */
void encap_know(struct encap_known *k, const uint8_t *frame, size_t len, const struct encap_view *v);
/* Would encap_parse, without verify, accept the frame and say the same of it, but for the source port? Then
 * *v tells of it, given what it told of the known one. Any bytes are safe. */
bool encap_is_known(const struct encap_known *k, const uint8_t *frame, size_t len, struct encap_view *v);

/* Internet checksum (RFC 1071) of data, added to sum; not folded, not complemented. Only the last piece of a
 * chain may have an odd length. */
uint64_t encap_csum_add(uint64_t sum, const void *data, size_t len);
/* Folded to 16 bits in memory order, not complemented. */
uint16_t encap_csum_fold(uint64_t sum);

#endif
