/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * gso: does to a frame what the kernel leaves to a NIC: finishes a checksum, cuts a large packet into
 * segments.
 *
 * Pure functions without I/O, allocation or state of their own; any thread may call them. Neither the frame
 * nor the struct virtio_net_hdr before it is trusted: any bytes are safe, and what does not hold together is
 * refused (-EINVAL). hdr_len is not believed and not looked at.
 */
#ifndef SD_DRIVERS_GSO_H
#define SD_DRIVERS_GSO_H

#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GSO_UDP_L4 5 /* VIRTIO_NET_HDR_GSO_UDP_L4, which older headers of the kernel lack */

/* Completes the Internet checksum of frame from start to the end of the frame, whose field, offset bytes
 * behind start, holds the sum of the pseudo header. A result of zero is stored as 0xffff, as the kernel does
 * for every protocol (RFC 768 demands it for UDP). */
int gso_finish_csum(uint8_t *frame, size_t len, unsigned start, unsigned offset);

/* Can a port with PORT_CAP_TX_CSUM finish the checksum of this frame? Such ports know the shape of the SAN's
 * own packets only: UDP right behind an IPv4 header without options or an IPv6 header without extensions, no
 * VLAN tag, no fragment, and nothing behind the datagram. */
bool gso_port_finishes(const uint8_t *frame, size_t len, const struct virtio_net_hdr *hdr);

/* A packet that is being cut. Plain data; frame must stay as it is until the last segment is out. */
struct gso {
	const uint8_t *frame;
	uint32_t l3, l4, payload; /* offsets of the IP header, the TCP or UDP header, and what follows it */
	uint32_t at, end;	  /* of the payload that is still to come */
	uint32_t size;		  /* payload bytes of each segment but the last */
	uint32_t count;		  /* segments that are out */
	uint16_t pseudo;	  /* sum over the pseudo header without its length, folded, in memory order */
	bool v6, udp, more;
};

/* Starts to cut a frame of gso_type TCPV4, TCPV6 (either with ECN) or UDP_L4. Up to two VLAN tags, IPv4
 * options and IPv6 extension headers are carried along; fragments are refused, as are IP and TCP headers that
 * do not fit, a gso_size of zero, and checksum fields that are not TCP's or UDP's. Bytes behind the IP packet
 * are left out. With VIRTIO_NET_HDR_F_NEEDS_CSUM the checksum field is taken to hold the pseudo header's sum,
 * as the kernel leaves it; without, that is worked out anew from the addresses. */
int gso_open(struct gso *g, const uint8_t *frame, size_t len, const struct virtio_net_hdr *hdr);
/* Bytes of the largest segment, headers included. */
size_t gso_largest(const struct gso *g);
/* How many segments are still to come; at least one after gso_open. */
uint32_t gso_left(const struct gso *g);
/* Writes the next segment to out, complete with all checksums, and returns its length; 0: there are no more;
 * -EMSGSIZE: room is too small, and nothing has changed. out must not overlap the frame.
 *
 * Every segment has a copy of all headers. Lengths and checksums are its own; the IPv4 identification grows
 * by one. TCP (RFC 9293, RFC 3168 section 6.1.2): the sequence number advances with the payload, FIN and PSH
 * are in the last segment only, CWR in the first only. */
int gso_next(struct gso *g, uint8_t *out, size_t room);

#endif
