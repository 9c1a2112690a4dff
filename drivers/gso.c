/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * gso: segmentation and checksums in software, as the kernel's own (net/ipv4/tcp_offload.c, udp_offload.c) do
 * them. Sums are kept in memory order, as in encap.c. Offsets count from the Ethernet header; a packet that
 * IP can describe ends below 2^17, so none of them overflows.
 */
#include "drivers/gso.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "drivers/encap.h"

enum {
	ETH_LEN = 14,
	VLAN_LEN = 4,
	VLAN_TAGS = 2,
	IP4_LEN = 20,
	IP6_LEN = 40,
	TCP_LEN = 20,
	UDP_LEN = 8,
	TYPE_IP4 = 0x0800,
	TYPE_IP6 = 0x86dd,
	TYPE_VLAN = 0x8100,
	TYPE_QINQ = 0x88a8,
	PROTO_HOPS = 0,
	PROTO_TCP = 6,
	PROTO_UDP = 17,
	PROTO_ROUTING = 43,
	PROTO_OPTIONS = 60,
	TCP_CSUM = 16,
	UDP_CSUM = 6,
	TCP_FLAGS = 13,
	TCP_FIN = 0x01,
	TCP_PSH = 0x08,
	TCP_CWR = 0x80,
	IP4_FRAGMENT = 0x3fff, /* MF and the offset */
	FRAME_MAX = 1 << 17,
};

static uint16_t load16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof v);
	return v;
}

static void store16(uint8_t *p, uint16_t v)
{
	memcpy(p, &v, sizeof v);
}

/* A number below 2^16 as a piece of a sum in memory order. */
static uint64_t term(uint32_t v)
{
	return __builtin_bswap16((uint16_t)v);
}

/* --- one checksum --- */

int gso_finish_csum(uint8_t *frame, size_t len, unsigned start, unsigned offset)
{
	uint16_t sum;

	if (start < ETH_LEN || start > len || len - start < 2 || offset > len - start - 2)
		return -EINVAL;
	sum = (uint16_t)~encap_csum_fold(encap_csum_add(0, frame + start, len - start));
	store16(frame + start + offset, sum ? sum : 0xffff);
	return 0;
}

bool gso_port_finishes(const uint8_t *frame, size_t len, const struct virtio_net_hdr *hdr)
{
	unsigned start = hdr->csum_start;

	if (hdr->csum_offset != UDP_CSUM || len < start + UDP_LEN)
		return false;
	if (start == ETH_LEN + IP4_LEN) {
		if (be16_get(frame + 12) != TYPE_IP4 || frame[14] != 0x45 || frame[23] != PROTO_UDP ||
			be16_get(frame + 20) & IP4_FRAGMENT || be16_get(frame + 16) != len - ETH_LEN)
			return false;
	} else if (start == ETH_LEN + IP6_LEN) {
		if (be16_get(frame + 12) != TYPE_IP6 || frame[14] >> 4 != 6 || frame[20] != PROTO_UDP ||
			be16_get(frame + 18) != len - start)
			return false;
	} else {
		return false;
	}
	return be16_get(frame + start + 4) == len - start;
}

/* --- taking the headers apart --- */

/* Past the MAC addresses and VLAN tags to the IP header; its EtherType, or 0. */
static unsigned parse_link(struct gso *g, size_t len)
{
	unsigned type = 0, tags = 0;

	g->l3 = ETH_LEN;
	for (; len >= g->l3; g->l3 += VLAN_LEN) {
		type = be16_get(g->frame + g->l3 - 2);
		if (type != TYPE_VLAN && type != TYPE_QINQ)
			return type;
		if (tags++ == VLAN_TAGS)
			break;
	}
	return 0;
}

/* Of the two parsers: the protocol of what lies at l4, or -EINVAL. They set l4 and end, l4 <= end <= len. */
static int parse_ip4(struct gso *g, size_t len)
{
	const uint8_t *ip = g->frame + g->l3;
	unsigned ihl, total;

	if (len - g->l3 < IP4_LEN || ip[0] >> 4 != 4)
		return -EINVAL;
	ihl = (ip[0] & 15u) * 4;
	total = be16_get(ip + 2);
	if (ihl < IP4_LEN || total < ihl || total > len - g->l3 || be16_get(ip + 6) & IP4_FRAGMENT)
		return -EINVAL;
	g->l4 = g->l3 + ihl;
	g->end = g->l3 + total;
	return ip[9];
}

/* routed: a routing header has the final destination, which is the one that counts for checksums. */
static int parse_ip6(struct gso *g, size_t len, bool *routed)
{
	const uint8_t *ip = g->frame + g->l3;
	unsigned next;

	if (len - g->l3 < IP6_LEN || ip[0] >> 4 != 6 || be16_get(ip + 4) > len - g->l3 - IP6_LEN)
		return -EINVAL;
	next = ip[6];
	g->l4 = g->l3 + IP6_LEN;
	g->end = g->l4 + be16_get(ip + 4);
	while (next == PROTO_HOPS || next == PROTO_ROUTING || next == PROTO_OPTIONS) {
		const uint8_t *ext = g->frame + g->l4;
		unsigned n;

		if (g->end - g->l4 < 8)
			return -EINVAL;
		n = (ext[1] + 1u) * 8;
		if (n > g->end - g->l4)
			return -EINVAL;
		if (next == PROTO_ROUTING && ext[3])
			*routed = true;
		next = ext[0];
		g->l4 += n;
	}
	return (int)next; /* fragments are not among those we know */
}

/* Where the payload begins. */
static int parse_l4(struct gso *g)
{
	unsigned len = g->udp ? UDP_LEN : TCP_LEN;

	if (g->end - g->l4 < len)
		return -EINVAL;
	if (!g->udp)
		len = (g->frame[g->l4 + 12] >> 4) * 4u;
	if (len < (g->udp ? UDP_LEN : TCP_LEN) || g->end - g->l4 < len)
		return -EINVAL;
	g->payload = g->l4 + len;
	return 0;
}

/* Works the pseudo header's sum out, without the length, which each segment has its own. */
static int find_pseudo(struct gso *g, const struct virtio_net_hdr *hdr, bool routed)
{
	unsigned field = g->udp ? UDP_CSUM : TCP_CSUM;
	uint64_t sum;

	if (hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
		if (hdr->csum_start != g->l4 || hdr->csum_offset != field)
			return -EINVAL;
		sum = load16(g->frame + g->l4 + field) + (uint64_t)(uint16_t)~term(g->end - g->l4);
	} else {
		if (routed)
			return -EINVAL;
		sum = encap_csum_add(term(g->udp ? PROTO_UDP : PROTO_TCP),
			g->frame + g->l3 + (g->v6 ? 8 : 12), g->v6 ? 32 : 8);
	}
	g->pseudo = encap_csum_fold(sum);
	return 0;
}

int gso_open(struct gso *g, const uint8_t *frame, size_t len, const struct virtio_net_hdr *hdr)
{
	unsigned type, kind = hdr->gso_type & ~(unsigned)VIRTIO_NET_HDR_GSO_ECN;
	bool routed = false;
	int proto, e;

	*g = (struct gso){.frame = frame, .size = hdr->gso_size, .udp = kind == GSO_UDP_L4};
	if (len > FRAME_MAX || !g->size)
		return -EINVAL;
	if (kind != VIRTIO_NET_HDR_GSO_TCPV4 && kind != VIRTIO_NET_HDR_GSO_TCPV6 && kind != GSO_UDP_L4)
		return -EINVAL;
	type = parse_link(g, len);
	g->v6 = type == TYPE_IP6;
	if ((type != TYPE_IP4 && type != TYPE_IP6) || (kind == VIRTIO_NET_HDR_GSO_TCPV4 && g->v6) ||
		(kind == VIRTIO_NET_HDR_GSO_TCPV6 && !g->v6))
		return -EINVAL;
	proto = g->v6 ? parse_ip6(g, len, &routed) : parse_ip4(g, len);
	if (proto != (g->udp ? PROTO_UDP : PROTO_TCP))
		return -EINVAL;
	e = parse_l4(g);
	if (!e)
		e = find_pseudo(g, hdr, routed);
	g->at = g->payload;
	g->more = !e;
	return e;
}

/* --- cutting --- */

size_t gso_largest(const struct gso *g)
{
	uint32_t most = g->end - g->payload;

	return g->payload + (most < g->size ? most : g->size);
}

uint32_t gso_left(const struct gso *g)
{
	uint32_t left = g->end - g->at;

	if (!g->more)
		return 0;
	return left ? (left + g->size - 1) / g->size : 1; /* without payload it is one segment */
}

static void finish_ip4(const struct gso *g, uint8_t *ip, uint32_t len)
{
	unsigned ihl = g->l4 - g->l3;

	be16_put(ip + 2, (uint16_t)len);
	be16_put(ip + 4, (uint16_t)(be16_get(ip + 4) + g->count));
	store16(ip + 10, 0);
	store16(ip + 10, (uint16_t)~encap_csum_fold(encap_csum_add(0, ip, ihl)));
}

static void finish_tcp(const struct gso *g, uint8_t *tcp, bool last)
{
	be32_put(tcp + 4, be32_get(tcp + 4) + (g->at - g->payload));
	if (!last)
		tcp[TCP_FLAGS] &= (uint8_t) ~(TCP_FIN | TCP_PSH);
	if (g->count)
		tcp[TCP_FLAGS] &= (uint8_t)~TCP_CWR;
}

int gso_next(struct gso *g, uint8_t *out, size_t room)
{
	uint32_t n = g->end - g->at < g->size ? g->end - g->at : g->size;
	uint32_t len = g->payload + n, l4_len = len - g->l4;
	bool last = g->at + n == g->end;
	uint8_t *ip = out + g->l3, *l4 = out + g->l4, *field = l4 + (g->udp ? UDP_CSUM : TCP_CSUM);
	uint16_t sum;

	if (!g->more)
		return 0;
	if (len > room)
		return -EMSGSIZE;
	memcpy(out, g->frame, g->payload);
	memcpy(out + g->payload, g->frame + g->at, n);
	if (g->v6)
		be16_put(ip + 4, (uint16_t)(len - g->l3 - IP6_LEN));
	else
		finish_ip4(g, ip, len - g->l3);
	if (g->udp)
		be16_put(l4 + 4, (uint16_t)l4_len);
	else
		finish_tcp(g, l4, last);
	store16(field, 0);
	sum = (uint16_t)~encap_csum_fold(encap_csum_add(g->pseudo + term(l4_len), l4, l4_len));
	store16(field, g->udp && !sum ? 0xffff : sum);
	g->at += n;
	g->count++;
	g->more = !last;
	return (int)len;
}
