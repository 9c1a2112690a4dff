/* SPDX-License-Identifier: BSD-3-Clause */
/* Large packets cut into segments: each compared, byte by byte, with a packet built for itself, and every
 * kind of nonsense refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "drivers/gso.h"

enum {
	FIN = 0x01,
	SYN = 0x02,
	PSH = 0x08,
	ACK = 0x10,
	ECE = 0x40,
	CWR = 0x80,
	TCP = 6,
	UDP = 17,
	LARGE = 66000,
	MUTATIONS = 300000,
};

/* What a packet is like, apart from what differs between segments. */
struct shape {
	bool v6, udp;
	unsigned tags;	     /* VLAN */
	unsigned ip_options; /* bytes of IPv4 options */
	const uint8_t *ext;  /* IPv6 extension headers; the last one's next header is filled in */
	unsigned ext_len, ext_last;
	unsigned tcp_options;
};

struct segment {
	uint32_t seq;
	uint16_t id;
	uint8_t flags;
	const uint8_t *payload;
	size_t len;
};

/* Offsets of a built packet. */
struct layout {
	size_t l3, l4, payload, len;
};

/* --- packets, built as simply as can be said --- */

static uint32_t plain_sum(uint32_t sum, const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		sum += i % 2 ? p[i] : (uint32_t)p[i] << 8;
		sum = (sum & 0xffff) + (sum >> 16);
	}
	return sum;
}

static void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static uint32_t pseudo_sum(const uint8_t *ip, unsigned proto, size_t l4_len)
{
	bool v6 = ip[0] >> 4 == 6;
	uint8_t tail[4] = {0, (uint8_t)proto, (uint8_t)(l4_len >> 8), (uint8_t)l4_len};

	return plain_sum(plain_sum(0, ip + (v6 ? 8 : 12), v6 ? 32 : 8), tail, sizeof tail);
}

static size_t build_ip(const struct shape *s, const struct segment *seg, uint8_t *ip, size_t l4_len)
{
	unsigned proto = s->udp ? UDP : TCP;

	if (s->v6) {
		static const uint8_t head[40] = {0x60, 0x12, 0x34, 0x56, 0, 0, 0, 64, 0xfd,
			0x77, [23] = 1, [24] = 0xfd, [25] = 0x77, [39] = 2};

		memcpy(ip, head, sizeof head);
		put16(ip + 4, (unsigned)(s->ext_len + l4_len));
		ip[6] = (uint8_t)proto;
		if (s->ext_len) {
			ip[6] = s->ext[0]; /* kept in front of the headers themselves */
			memcpy(ip + 40, s->ext + 1, s->ext_len);
			ip[40 + s->ext_last] = (uint8_t)proto;
		}
		return 40 + s->ext_len;
	}
	memset(ip, 0, 20 + s->ip_options);
	ip[0] = (uint8_t)(0x40 | (5 + s->ip_options / 4));
	ip[1] = 2;
	put16(ip + 2, (unsigned)(20 + s->ip_options + l4_len));
	put16(ip + 4, seg->id);
	ip[6] = 0x40;
	ip[8] = 64;
	ip[9] = (uint8_t)proto;
	memcpy(ip + 12, (uint8_t[]){10, 77, 0, 1, 10, 77, 0, 2}, 8);
	memset(ip + 20, 1, s->ip_options);
	put16(ip + 10, ~plain_sum(0, ip, 20 + s->ip_options) & 0xffff);
	return 20 + s->ip_options;
}

/* partial: the checksum field is left with the pseudo header's sum. */
static struct layout build(const struct shape *s, const struct segment *seg, bool partial, uint8_t *out)
{
	static const uint8_t macs[12] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1};
	unsigned l4_hdr = s->udp ? 8 : 20 + s->tcp_options;
	size_t l4_len = l4_hdr + seg->len;
	struct layout at = {.l3 = 14 + 4 * s->tags};
	uint8_t *l4, *field;
	uint32_t sum;

	memcpy(out, macs, 12);
	for (unsigned i = 0; i < s->tags; i++) {
		put16(out + 12 + 4 * i, s->tags == 2 && !i ? 0x88a8 : 0x8100);
		put16(out + 14 + 4 * i, 100 + i);
	}
	put16(out + at.l3 - 2, s->v6 ? 0x86dd : 0x0800);
	at.l4 = at.l3 + build_ip(s, seg, out + at.l3, l4_len);
	at.payload = at.l4 + l4_hdr;
	at.len = at.payload + seg->len;
	l4 = out + at.l4;
	memset(l4, 0, l4_hdr);
	put16(l4, 40000);
	put16(l4 + 2, 80);
	if (s->udp) {
		put16(l4 + 4, (unsigned)l4_len);
	} else {
		put16(l4 + 4, seg->seq >> 16);
		put16(l4 + 6, seg->seq);
		memcpy(l4 + 8, "\1\2\3\4", 4);
		l4[12] = (uint8_t)(l4_hdr / 4 << 4);
		l4[13] = seg->flags;
		put16(l4 + 14, 0x1000);
		for (unsigned i = 0; i < s->tcp_options; i++)
			l4[20 + i] = (uint8_t)(1 + i % 5);
	}
	memcpy(out + at.payload, seg->payload, seg->len);
	field = l4 + (s->udp ? 6 : 16);
	sum = pseudo_sum(out + at.l3, s->udp ? UDP : TCP, l4_len);
	if (!partial)
		sum = ~plain_sum(sum, l4, l4_len) & 0xffff;
	put16(field, !partial && s->udp && !sum ? 0xffff : sum);
	return at;
}

static struct virtio_net_hdr header(const struct shape *s, const struct layout *at, unsigned size)
{
	return (struct virtio_net_hdr){
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = s->udp  ? GSO_UDP_L4
			    : s->v6 ? VIRTIO_NET_HDR_GSO_TCPV6
				    : VIRTIO_NET_HDR_GSO_TCPV4,
		.hdr_len = (uint16_t)at->payload,
		.gso_size = (uint16_t)size,
		.csum_start = (uint16_t)at->l4,
		.csum_offset = s->udp ? 6 : 16,
	};
}

/* --- the shapes --- */

/* The first byte is the protocol number of the first header. */
static const uint8_t hop_by_hop[] = {0, /**/ 0, 0, 5, 2, 0, 0, 1, 0};
static const uint8_t two_headers[] = {
	0, /**/ 60, 0, 5, 2, 0, 0, 1, 0, /**/ 0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
static const uint8_t routing_done[] = {
	43, /**/ 0, 2, 4, 0, 0, 0, 0, 0, 0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9};

static const struct shape shapes[] = {
	{.tcp_options = 12},
	{.tcp_options = 0},
	{.v6 = true, .tcp_options = 12},
	{.tcp_options = 40, .ip_options = 40},
	{.tags = 1, .tcp_options = 12},
	{.tags = 2, .v6 = true},
	{.v6 = true, .ext = hop_by_hop, .ext_len = 8},
	{.v6 = true, .ext = two_headers, .ext_len = 24, .ext_last = 8, .tcp_options = 12},
	{.v6 = true, .ext = routing_done, .ext_len = 24},
	{.udp = true},
	{.udp = true, .v6 = true},
	{.udp = true, .ip_options = 4, .tags = 1},
};

#define SHAPES (sizeof shapes / sizeof *shapes)

static uint8_t payload[LARGE], large[LARGE + 256], room[LARGE + 256], want[LARGE + 256];

/* --- the cases --- */

/* Written out, from another implementation. */
static void cuts_as_known(void **state)
{
	static const uint8_t in[] = {0x02, 0x00, 0x00, 0x00, 0x00, 0x02, 0x02, 0x00, 0x00, 0x00, 0x00, 0x01,
		0x08, 0x00, 0x45, 0x00, 0x00, 0x2d, 0xff, 0xff, 0x40, 0x00, 0x40, 0x06, 0x26, 0x2f, 0x0a,
		0x4d, 0x00, 0x01, 0x0a, 0x4d, 0x00, 0x02, 0x9c, 0x40, 0x00, 0x50, 0xff, 0xff, 0xff, 0xfe,
		0x01, 0x02, 0x03, 0x04, 0x50, 0x99, 0x10, 0x00, 0x14, 0xbc, 0x00, 0x00, 'h', 'e', 'l', 'l',
		'o'};
	static const uint8_t one[] = {0x02, 0x00, 0x00, 0x00, 0x00, 0x02, 0x02, 0x00, 0x00, 0x00, 0x00, 0x01,
		0x08, 0x00, 0x45, 0x00, 0x00, 0x2b, 0xff, 0xff, 0x40, 0x00, 0x40, 0x06, 0x26, 0x31, 0x0a,
		0x4d, 0x00, 0x01, 0x0a, 0x4d, 0x00, 0x02, 0x9c, 0x40, 0x00, 0x50, 0xff, 0xff, 0xff, 0xfe,
		0x01, 0x02, 0x03, 0x04, 0x50, 0x90, 0x10, 0x00, 0x15, 0xba, 0x00, 0x00, 'h', 'e', 'l'};
	static const uint8_t two[] = {0x02, 0x00, 0x00, 0x00, 0x00, 0x02, 0x02, 0x00, 0x00, 0x00, 0x00, 0x01,
		0x08, 0x00, 0x45, 0x00, 0x00, 0x2a, 0x00, 0x00, 0x40, 0x00, 0x40, 0x06, 0x26, 0x32, 0x0a,
		0x4d, 0x00, 0x01, 0x0a, 0x4d, 0x00, 0x02, 0x9c, 0x40, 0x00, 0x50, 0x00, 0x00, 0x00, 0x01,
		0x01, 0x02, 0x03, 0x04, 0x50, 0x19, 0x10, 0x00, 0x7e, 0x26, 0x00, 0x00, 'l', 'o'};
	struct virtio_net_hdr hdr = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN,
		.gso_size = 3,
		.csum_start = 34,
		.csum_offset = 16};
	struct gso g;

	assert_int_equal(gso_open(&g, in, sizeof in, &hdr), 0);
	assert_int_equal(gso_left(&g), 2);
	assert_int_equal(gso_largest(&g), sizeof one);
	assert_int_equal(gso_next(&g, room, sizeof room), sizeof one);
	assert_memory_equal(room, one, sizeof one);
	assert_int_equal(gso_left(&g), 1);
	assert_int_equal(gso_next(&g, room, sizeof room), sizeof two);
	assert_memory_equal(room, two, sizeof two);
	assert_int_equal(gso_left(&g), 0);
	assert_int_equal(gso_next(&g, room, sizeof room), 0);
}

static uint8_t flags_of(uint8_t flags, bool first, bool last)
{
	if (!first)
		flags &= (uint8_t)~CWR;
	return last ? flags : flags & (uint8_t) ~(FIN | PSH);
}

/* Cuts len bytes into pieces of size and compares each with one built for itself. */
static void check(const struct shape *s, size_t len, unsigned size, uint8_t flags, bool partial)
{
	struct segment whole = {0xfffffff0u, 0xfffe, flags, payload, len};
	struct layout at = build(s, &whole, partial, large);
	struct virtio_net_hdr hdr = header(s, &at, size);
	uint32_t count = len ? (uint32_t)((len + size - 1) / size) : 1;
	struct gso g;

	if (!partial)
		hdr.flags = hdr.csum_start = hdr.csum_offset = 0;
	assert_int_equal(gso_open(&g, large, at.len, &hdr), 0);
	assert_int_equal(gso_largest(&g), at.payload + (len < size ? len : size));
	for (uint32_t i = 0; i < count; i++) {
		size_t from = (size_t)i * size, n = len - from < size ? len - from : size;
		struct segment seg = {whole.seq + (uint32_t)from, (uint16_t)(whole.id + i),
			flags_of(flags, !i, i == count - 1), payload + from, n};
		struct layout cut = build(s, &seg, false, want);

		assert_int_equal(gso_left(&g), count - i);
		assert_int_equal(gso_next(&g, room, cut.len - 1), -EMSGSIZE);
		assert_int_equal(gso_next(&g, room, cut.len), cut.len);
		assert_memory_equal(room, want, cut.len);
	}
	assert_int_equal(gso_left(&g), 0);
	assert_int_equal(gso_next(&g, room, sizeof room), 0);
}

static void cuts_every_shape(void **state)
{
	for (size_t i = 0; i < SHAPES; i++) {
		for (unsigned flags = 0; flags < 256; flags++)
			check(&shapes[i], 3000, 1400, (uint8_t)flags, true);
		check(&shapes[i], 3000, 1400, ACK | PSH | CWR, false);
	}
}

static void cuts_around_multiples(void **state)
{
	static const unsigned sizes[] = {1, 2, 7, 536, 1208, 1448, 8948};

	for (size_t i = 0; i < SHAPES; i++)
		for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++)
			for (unsigned times = 0; times <= 4; times++)
				for (unsigned more = 0; more <= 2; more++)
					if (times * sizes[k] + more > 0)
						check(&shapes[i], times * sizes[k] + more - 1, sizes[k],
							ACK | PSH | FIN | ECE | CWR, true);
}

static void cuts_every_length(void **state)
{
	for (size_t len = 0; len < 600; len++) {
		check(&shapes[len % 3], len, 97, ACK | PSH, true);
		check(&shapes[9 + len % 3], len, 97, 0, true);
	}
}

static void cuts_the_largest(void **state)
{
	for (size_t i = 0; i < SHAPES; i++) {
		const struct shape *s = &shapes[i];
		size_t l4 = s->udp ? 8 : 20 + s->tcp_options;
		size_t most = s->v6 ? 65535 - l4 - s->ext_len : 65535 - 20 - s->ip_options - l4;

		check(s, most, 1448, ACK | PSH, true);
		check(s, most, 65535, ACK | PSH, true);
		check(s, most, 1, ACK, true);
	}
}

/* A sum that comes out as zero stays zero with TCP and becomes 0xffff with UDP. */
static void stores_zero_sums(void **state)
{
	static const struct shape tcp = {.v6 = true}, udp = {.udp = true};
	unsigned zeros = 0, ones = 0;

	for (unsigned v = 0; v < 65536; v++) {
		put16(payload, v);
		check(&tcp, 2, 2, ACK, true);
		zeros += !room[14 + 40 + 16] && !room[14 + 40 + 17];
		check(&udp, 2, 2, 0, true);
		ones += room[14 + 20 + 6] == 0xff && room[14 + 20 + 7] == 0xff;
	}
	assert_in_range(zeros, 1, 2);
	assert_in_range(ones, 1, 2);
}

/* Bytes behind the IP packet belong to none of the segments. */
static void leaves_padding_out(void **state)
{
	for (size_t i = 0; i < SHAPES; i++) {
		struct segment whole = {1, 1, ACK, payload, 20};
		struct layout at = build(&shapes[i], &whole, true, large);
		struct virtio_net_hdr hdr = header(&shapes[i], &at, 10);
		struct gso g;

		assert_int_equal(gso_open(&g, large, at.len + 7, &hdr), 0);
		assert_int_equal(gso_left(&g), 2);
		assert_int_equal(gso_next(&g, room, sizeof room), at.payload + 10);
		assert_int_equal(gso_next(&g, room, sizeof room), at.payload + 10);
		assert_int_equal(gso_next(&g, room, sizeof room), 0);
	}
}

static void assert_refused(const uint8_t *frame, size_t len, const struct virtio_net_hdr *hdr)
{
	uint8_t *exact = malloc(len ? len : 1); /* so that a sanitizer sees a byte too far */
	struct gso g;

	assert_non_null(exact);
	memcpy(exact, frame, len);
	assert_int_equal(gso_open(&g, exact, len, hdr), -EINVAL);
	assert_int_equal(gso_left(&g), 0);
	assert_int_equal(gso_next(&g, room, sizeof room), 0);
	free(exact);
}

static void refuses_truncation(void **state)
{
	for (size_t i = 0; i < SHAPES; i++) {
		struct segment whole = {1, 1, ACK, payload, 50};
		struct layout at = build(&shapes[i], &whole, true, large);
		struct virtio_net_hdr hdr = header(&shapes[i], &at, 10);

		for (size_t cut = 0; cut < at.len; cut++)
			assert_refused(large, cut, &hdr);
	}
}

static void refuses_odd_headers(void **state)
{
	static const struct {
		int size, start, offset, type; /* added to the right ones; type: instead */
	} wrong[] = {
		{-10, 0, 0, 0}, /* gso_size 0 */
		{0, 1, 0, 0},
		{0, -1, 0, 0},
		{0, 60000, 0, 0},
		{0, 0, 1, 0},
		{0, 0, -6, 0},
		{0, 0, 60000, 0},
		{0, 0, 0, VIRTIO_NET_HDR_GSO_UDP}, /* fragmentation, which we do not offer */
		{0, 0, 0, 2},
		{0, 0, 0, 0x40},
		{0, 0, 0, 0xff},
	};

	for (size_t i = 0; i < SHAPES; i++) {
		struct segment whole = {1, 1, ACK, payload, 50};
		struct layout at = build(&shapes[i], &whole, true, large);

		for (size_t k = 0; k < sizeof wrong / sizeof *wrong; k++) {
			struct virtio_net_hdr hdr = header(&shapes[i], &at, 10);

			hdr.gso_size = (uint16_t)(hdr.gso_size + wrong[k].size);
			hdr.csum_start = (uint16_t)(hdr.csum_start + wrong[k].start);
			hdr.csum_offset = (uint16_t)(hdr.csum_offset + wrong[k].offset);
			if (wrong[k].type)
				hdr.gso_type = (uint8_t)wrong[k].type;
			assert_refused(large, at.len, &hdr);
		}
		for (unsigned type = 0; type < 256; type++) {
			struct virtio_net_hdr hdr = header(&shapes[i], &at, 10);

			if ((type & 0x7f) == hdr.gso_type)
				continue;
			hdr.gso_type = (uint8_t)type;
			assert_refused(large, at.len, &hdr);
		}
		/* hdr_len means nothing to us. */
		for (unsigned len = 0; len <= 65535; len += 4369) {
			struct virtio_net_hdr hdr = header(&shapes[i], &at, 10);
			struct gso g;

			hdr.hdr_len = (uint16_t)len;
			assert_int_equal(gso_open(&g, large, at.len, &hdr), 0);
		}
	}
}

static void refuses_odd_frames(void **state)
{
	static const struct {
		const struct shape shape;
		unsigned at;
		uint8_t value;
	} wrong[] = {
		{{0}, 12, 0x86},	  /* no such EtherType */
		{{0}, 14, 0x65},	  /* version */
		{{0}, 14, 0x44},	  /* header too short */
		{{0}, 14, 0x4f},	  /* TCP's header does not fit behind it */
		{{0}, 16, 0x40},	  /* total length beyond the frame */
		{{0}, 17, 39},		  /* no room for TCP */
		{{0}, 20, 0x20},	  /* more fragments */
		{{0}, 20, 0x1f},	  /* a later fragment */
		{{0}, 21, 1},		  /* a later fragment */
		{{0}, 23, UDP},		  /* another protocol */
		{{0}, 46, 0x40},	  /* TCP's header too short */
		{{0}, 46, 0xf0},	  /* and longer than the packet */
		{{.udp = true}, 23, TCP}, /* another protocol */
		{{.tags = 1}, 16, 0x81},  /* a tag in a tag, roughly */
		{{.tags = 2}, 21, 0x01},  /* no IP behind two tags */
		{{.v6 = true}, 14, 0x40}, /* version */
		{{.v6 = true}, 18, 0x40}, /* payload length beyond the frame */
		{{.v6 = true}, 19, 19},	  /* no room for TCP */
		{{.v6 = true}, 19, 0},	  /* a jumbogram */
		{{.v6 = true}, 20, 44},	  /* a fragment */
		{{.v6 = true}, 20, 50},	  /* ESP */
		{{.v6 = true}, 20, 59},	  /* nothing */
		{{.v6 = true}, 20, 0},	  /* TCP's header taken for options */
		{{.v6 = true}, 66, 0x40}, /* TCP's header too short */
		{{.v6 = true, .ext = hop_by_hop, .ext_len = 8}, 54, 0},	  /* options for ever */
		{{.v6 = true, .ext = hop_by_hop, .ext_len = 8}, 54, 44},  /* a fragment behind options */
		{{.v6 = true, .ext = hop_by_hop, .ext_len = 8}, 55, 200}, /* options beyond the packet */
		{{.v6 = true, .ext = hop_by_hop, .ext_len = 8}, 55, 2},	  /* options up to TCP's middle */
	};

	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		struct segment whole = {0, 1, ACK, payload, 12};
		struct layout at = build(&wrong[i].shape, &whole, true, large);
		struct virtio_net_hdr hdr = header(&wrong[i].shape, &at, 10);
		struct gso g;

		assert_int_equal(gso_open(&g, large, at.len, &hdr), 0);
		large[wrong[i].at] = wrong[i].value;
		assert_refused(large, at.len, &hdr);
	}
}

/* The final destination is in the routing header, and the kernel has reckoned with it: its sum is kept. */
static void trusts_the_sum_of_routed_packets(void **state)
{
	struct shape s = {.v6 = true, .ext = routing_done, .ext_len = 24};
	struct segment whole = {1, 1, ACK, payload, 20};
	struct layout at = build(&s, &whole, true, large);
	struct virtio_net_hdr hdr = header(&s, &at, 10);
	uint8_t last[16] = {0xfd, 0x77, [15] = 9}, *ip = room + 14;
	struct gso g;

	memcpy(large + 14 + 24, last, 16); /* sum for this one */
	put16(large + at.l4 + 16, pseudo_sum(large + 14, TCP, 40));
	large[14 + 39] = 2; /* and send it there */
	large[14 + 40 + 3] = 1;
	assert_int_equal(gso_open(&g, large, at.len, &hdr), 0);
	assert_int_equal(gso_next(&g, room, sizeof room), at.payload + 10);
	assert_int_equal(ip[39], 2);
	memcpy(ip + 24, last, 16);
	assert_int_equal(plain_sum(pseudo_sum(ip, TCP, 30), room + at.l4, 30), 0xffff);
	hdr.flags = 0; /* without the kernel's sum there is no telling */
	assert_refused(large, at.len, &hdr);
}

/* A packet at random, nearly right, in memory of exactly its size: refused, or cut into segments that
 * together have its payload and are sound. */
static void survives_mutation(void **state)
{
	unsigned cut = 0;
	struct sd_rng rng;

	sd_rng_seed(&rng, 11);
	for (unsigned i = 0; i < MUTATIONS; i++) {
		const struct shape *s = &shapes[sd_rng_below(&rng, SHAPES)];
		struct segment whole = {1, 1, ACK, payload, sd_rng_below(&rng, 120)};
		struct layout at = build(s, &whole, true, large);
		struct virtio_net_hdr hdr = header(s, &at, 1 + (unsigned)sd_rng_below(&rng, 100));
		uint8_t out[512], *exact;
		size_t total = 0, headers;
		struct gso g;
		int n;

		for (uint64_t flips = sd_rng_below(&rng, 4); flips; flips--)
			large[12 + sd_rng_below(&rng, at.payload - 12)] = (uint8_t)sd_rng_next(&rng);
		if (!sd_rng_below(&rng, 4))
			((uint8_t *)&hdr)[sd_rng_below(&rng, sizeof hdr)] = (uint8_t)sd_rng_next(&rng);
		if (!sd_rng_below(&rng, 4))
			at.len = sd_rng_below(&rng, at.len + 1);
		exact = malloc(at.len ? at.len : 1);
		assert_non_null(exact);
		memcpy(exact, large, at.len);
		if (!gso_open(&g, exact, at.len, &hdr)) {
			cut++;
			headers = g.payload;
			while ((n = gso_next(&g, out, sizeof out)) > 0)
				total += (size_t)n - headers;
			assert_int_equal(n, 0);
			assert_true(headers + total <= at.len);
		}
		gso_finish_csum(exact, at.len, hdr.csum_start, hdr.csum_offset);
		gso_port_finishes(exact, at.len, &hdr);
		free(exact);
	}
	assert_in_range(cut, MUTATIONS / 10, MUTATIONS);
}

/* --- one checksum --- */

static void finishes_checksums(void **state)
{
	for (size_t i = 0; i < SHAPES; i++) {
		for (size_t len = 0; len < 100; len++) {
			struct segment seg = {1, 1, ACK, payload, len};
			struct layout at = build(&shapes[i], &seg, false, want);

			build(&shapes[i], &seg, true, large);
			assert_int_equal(
				gso_finish_csum(large, at.len, (unsigned)at.l4, shapes[i].udp ? 6 : 16), 0);
			assert_memory_equal(large, want, at.len);
		}
	}
}

static void refuses_checksums_outside(void **state)
{
	enum { LEN = 60 };
	uint8_t *exact = malloc(LEN);

	assert_non_null(exact);
	memset(exact, 7, LEN);
	for (unsigned start = 0; start < 80; start++) {
		for (unsigned offset = 0; offset < 80; offset++) {
			bool inside = start >= 14 && start + offset + 2 <= LEN;

			assert_int_equal(gso_finish_csum(exact, LEN, start, offset), inside ? 0 : -EINVAL);
		}
	}
	assert_int_equal(gso_finish_csum(exact, LEN, 65535, 65535), -EINVAL);
	assert_int_equal(gso_finish_csum(exact, LEN, 20, UINT32_MAX), -EINVAL);
	assert_int_equal(gso_finish_csum(exact, LEN, UINT32_MAX, 2), -EINVAL);
	free(exact);
}

/* Ports know the shape of the SAN's packets and no other. */
static void knows_what_ports_finish(void **state)
{
	static const struct {
		bool v6;
		unsigned at;
		uint8_t value;
	} wrong[] = {
		{false, 12, 0x86},
		{false, 14, 0x46},
		{false, 14, 0x65},
		{false, 17, 49},
		{false, 17, 47},
		{false, 20, 0x20},
		{false, 21, 1},
		{false, 23, TCP},
		{false, 39, 27},
		{false, 38, 1},
		{true, 12, 8},
		{true, 14, 0x45},
		{true, 19, 27},
		{true, 20, 0},
		{true, 20, 44},
		{true, 59, 27},
	};
	static const uint8_t ext_udp[] = {60, /**/ UDP, 0, 1, 4, 0, 0, 0, 0};

	for (size_t i = 0; i < SHAPES; i++) {
		struct segment seg = {1, 1, ACK, payload, 20};
		struct layout at = build(&shapes[i], &seg, true, large);
		struct virtio_net_hdr hdr = header(&shapes[i], &at, 0);
		bool plain = shapes[i].udp && !shapes[i].tags && !shapes[i].ip_options;

		assert_int_equal(gso_port_finishes(large, at.len, &hdr), plain);
		assert_false(gso_port_finishes(large, at.len - 1, &hdr));
		assert_false(gso_port_finishes(large, at.len + 1, &hdr));
		assert_false(gso_port_finishes(large, 0, &hdr));
		hdr.csum_start++;
		assert_false(gso_port_finishes(large, at.len, &hdr));
	}
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		struct shape s = {.udp = true, .v6 = wrong[i].v6};
		struct segment seg = {.payload = payload, .len = 20};
		struct layout at = build(&s, &seg, true, large);
		struct virtio_net_hdr hdr = header(&s, &at, 0);

		assert_true(gso_port_finishes(large, at.len, &hdr));
		large[wrong[i].at] = wrong[i].value;
		assert_false(gso_port_finishes(large, at.len, &hdr));
	}
	{
		struct shape s = {.udp = true, .v6 = true, .ext = ext_udp, .ext_len = 8};
		struct segment seg = {.payload = payload, .len = 20};
		struct layout at = build(&s, &seg, true, large);
		struct virtio_net_hdr hdr = header(&s, &at, 0);

		assert_false(gso_port_finishes(large, at.len, &hdr));
	}
}

static int set_up(void **state)
{
	struct sd_rng rng;

	sd_rng_seed(&rng, 3);
	for (size_t i = 0; i < sizeof payload; i++)
		payload[i] = sd_rng_below(&rng, 4) ? (uint8_t)sd_rng_next(&rng) : 0xff;
	return 0;
}

int main(void)
{
	const struct CMUnitTest cases[] = {
		cmocka_unit_test(cuts_as_known),
		cmocka_unit_test(cuts_every_shape),
		cmocka_unit_test(cuts_around_multiples),
		cmocka_unit_test(cuts_every_length),
		cmocka_unit_test(cuts_the_largest),
		cmocka_unit_test(stores_zero_sums),
		cmocka_unit_test(leaves_padding_out),
		cmocka_unit_test(refuses_truncation),
		cmocka_unit_test(refuses_odd_headers),
		cmocka_unit_test(refuses_odd_frames),
		cmocka_unit_test(trusts_the_sum_of_routed_packets),
		cmocka_unit_test(survives_mutation),
		cmocka_unit_test(finishes_checksums),
		cmocka_unit_test(refuses_checksums_outside),
		cmocka_unit_test(knows_what_ports_finish),
	};

	return cmocka_run_group_tests_name("gso", cases, set_up, NULL);
}
