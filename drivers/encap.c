/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * encap: builds and takes apart the headers of every SAN packet. Pure, so any thread may call it; what comes
 * in is hostile until encap_parse has accepted it. Sums are kept in memory order (RFC 1071 section 2(B)): a
 * folded sum is stored as it is, without swapping.
 */
#include "drivers/encap.h"

#include <errno.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/bytes.h"

enum {
	ETH_LEN = 14,
	IP4_LEN = 20,
	IP6_LEN = 40,
	UDP_LEN = 8,
	TYPE_IP4 = 0x0800,
	TYPE_IP6 = 0x86dd,
	PROTO_UDP = 17,
	HOP_LIMIT = 64,
	IP4_DF = 0x4000,
	IP4_FRAGMENT = 0xbfff, /* reserved bit, MF and the offset */
	ECN_CE = 3,
};

static uint64_t load64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof v);
	return v;
}

static uint32_t load32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof v);
	return v;
}

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

#if defined(__x86_64__)
/* len is a multiple of 64. 64-bit lanes collect 32-bit words, so no carry is lost. */
__attribute__((target("avx2"))) static uint64_t sum_avx2(const uint8_t *p, size_t len)
{
	const __m256i low = _mm256_set1_epi64x(0xffffffff);
	__m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
	uint64_t lane[4];

	for (const uint8_t *end = p + len; p < end; p += 64) {
		__m256i v = _mm256_loadu_si256((const __m256i *)p);
		__m256i w = _mm256_loadu_si256((const __m256i *)(p + 32));

		a = _mm256_add_epi64(a, _mm256_and_si256(v, low));
		b = _mm256_add_epi64(b, _mm256_srli_epi64(v, 32));
		c = _mm256_add_epi64(c, _mm256_and_si256(w, low));
		d = _mm256_add_epi64(d, _mm256_srli_epi64(w, 32));
	}
	a = _mm256_add_epi64(_mm256_add_epi64(a, b), _mm256_add_epi64(c, d));
	_mm256_storeu_si256((__m256i *)lane, a);
	return lane[0] + lane[1] + lane[2] + lane[3];
}
#endif

uint64_t encap_csum_add(uint64_t sum, const void *data, size_t len)
{
	const uint8_t *p = data;

#if defined(__x86_64__)
	if (len >= 256 && __builtin_cpu_supports("avx2")) {
		size_t whole = len & ~(size_t)63;

		sum += sum_avx2(p, whole);
		p += whole;
		len -= whole;
	}
#endif
	for (; len >= 8; p += 8, len -= 8) {
		uint64_t v = load64(p);

		sum += (v & 0xffffffff) + (v >> 32);
	}
	if (len & 4) {
		sum += load32(p);
		p += 4;
	}
	if (len & 2) {
		sum += load16(p);
		p += 2;
	}
	if (len & 1)
		sum += *p;
	return sum;
}

uint16_t encap_csum_fold(uint64_t sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)(sum + (sum >> 16));
}

/* Twenty bytes without options, the shape of all that we send and nearly all that we get. */
static uint64_t sum_ip4(const uint8_t *ip)
{
	uint64_t a = load64(ip), b = load64(ip + 8);

	return (a & 0xffffffff) + (a >> 32) + (b & 0xffffffff) + (b >> 32) + load32(ip + 16);
}

/* The pseudo header of RFC 768 and RFC 8200 section 8.1 without its length; addrs is source and destination.
 */
static uint64_t sum_pseudo(const uint8_t *addrs, bool v6)
{
	uint64_t sum = load64(addrs);

	sum = (sum & 0xffffffff) + (sum >> 32) + ((uint64_t)PROTO_UDP << 8);
	return v6 ? encap_csum_add(sum, addrs + 8, 24) : sum;
}

unsigned encap_template(const struct encap_flow *f, uint8_t hdr[ENCAP_MAX])
{
	bool v6 = f->dst.family == 6;
	uint8_t *ip = hdr + ETH_LEN, *udp = ip + (v6 ? IP6_LEN : IP4_LEN);

	memset(hdr, 0, ENCAP_MAX);
	memcpy(hdr, f->dst_mac, 6);
	memcpy(hdr + 6, f->src_mac, 6);
	be16_put(hdr + 12, v6 ? TYPE_IP6 : TYPE_IP4);
	if (v6) {
		/* The flow label repeats the source port: it spreads flows where ports are not hashed (RFC
		 * 6438). */
		be32_put(ip, 6u << 28 | (uint32_t)(f->ecn & 3) << 20 | f->src.port);
		ip[6] = PROTO_UDP;
		ip[7] = HOP_LIMIT;
		memcpy(ip + 8, f->src.ip, 16);
		memcpy(ip + 24, f->dst.ip, 16);
	} else {
		ip[0] = 0x45;
		ip[1] = f->ecn & 3;
		be16_put(ip + 6, IP4_DF); /* atomic, so the identification stays zero (RFC 6864) */
		ip[8] = HOP_LIMIT;
		ip[9] = PROTO_UDP;
		memcpy(ip + 12, f->src.ip, 4);
		memcpy(ip + 16, f->dst.ip, 4);
		store16(ip + 10, encap_csum_fold(sum_ip4(ip)));
	}
	be16_put(udp, f->src.port);
	be16_put(udp + 2, f->dst.port);
	store16(udp + 6, encap_csum_fold(sum_pseudo(ip + (v6 ? 8 : 12), v6)));
	return v6 ? ENCAP_V6 : ENCAP_V4;
}

void encap_set_entropy(uint8_t *hdr, unsigned hdr_len, uint16_t port)
{
	if (hdr_len == ENCAP_V6)
		be16_put(hdr + ETH_LEN + 2, port); /* the lower 16 bits of the flow label */
	be16_put(hdr + hdr_len - UDP_LEN, port);
}

void encap_finish(uint8_t *frame, unsigned hdr_len, size_t payload_len, bool offload)
{
	bool v6 = hdr_len == ENCAP_V6;
	uint8_t *ip = frame + ETH_LEN, *udp = frame + hdr_len - UDP_LEN;
	uint16_t udp_len = __builtin_bswap16((uint16_t)(UDP_LEN + payload_len));
	uint64_t sum = load16(udp + 6) + (uint64_t)udp_len;
	uint16_t folded;

	if (v6) {
		store16(ip + 4, udp_len);
	} else {
		uint16_t total = __builtin_bswap16((uint16_t)(IP4_LEN + UDP_LEN + payload_len));

		store16(ip + 2, total);
		store16(ip + 10, (uint16_t)~encap_csum_fold(load16(ip + 10) + (uint64_t)total));
	}
	store16(udp + 4, udp_len);
	if (offload) {
		store16(udp + 6, encap_csum_fold(sum));
		return;
	}
	sum += load32(udp) + (uint64_t)udp_len;
	folded = (uint16_t)~encap_csum_fold(encap_csum_add(sum, udp + UDP_LEN, payload_len));
	store16(udp + 6, folded ? folded : 0xffff); /* 0 would say "none" */
}

void encap_finish_offload(uint8_t *frame, size_t len)
{
	unsigned hdr_len = be16_get(frame + 12) == TYPE_IP6 ? ENCAP_V6 : ENCAP_V4;
	uint8_t *udp = frame + hdr_len - UDP_LEN;
	uint16_t folded;

	if (len < hdr_len)
		return;
	folded = (uint16_t)~encap_csum_fold(encap_csum_add(0, udp, len - (hdr_len - UDP_LEN)));
	store16(udp + 6, folded ? folded : 0xffff);
}

/* RFC 791 section 3.1: every option but the two of one byte carries its length. */
static bool options_valid(const uint8_t *p, unsigned len)
{
	while (len && *p) {
		unsigned n = *p == 1 ? 1 : len >= 2 ? p[1] : 0;

		if (!n || (n == 1 && *p != 1) || n > len)
			return false;
		p += n;
		len -= n;
	}
	return true;
}

/* In whole words, as it is compared: a load that needs several stores has to wait until they have reached the
 * cache, and so have all before them. */
static void put_ip4(struct sd_addr *a, const uint8_t *ip)
{
	uint64_t first = load32(ip), rest = 0;

	*a = (struct sd_addr){.family = 4};
	memcpy(a->ip, &first, sizeof first);
	memcpy(a->ip + 8, &rest, sizeof rest);
}

/* Of the two parsers: the UDP datagram's length as IP tells it and *udp, or -EINVAL. len counts from ip. */
static int parse_ip4(const uint8_t *ip, size_t len, struct encap_flow *f, const uint8_t **udp)
{
	unsigned ihl, total;

	if (len < IP4_LEN + UDP_LEN || ip[0] >> 4 != 4)
		return -EINVAL;
	ihl = (ip[0] & 15u) * 4;
	total = be16_get(ip + 2);
	if (ihl < IP4_LEN || total < ihl + UDP_LEN || total > len)
		return -EINVAL;
	if (be16_get(ip + 6) & IP4_FRAGMENT || ip[9] != PROTO_UDP)
		return -EINVAL;
	if (encap_csum_fold(ihl == IP4_LEN ? sum_ip4(ip) : encap_csum_add(0, ip, ihl)) != 0xffff)
		return -EINVAL;
	if (ihl > IP4_LEN && !options_valid(ip + IP4_LEN, ihl - IP4_LEN))
		return -EINVAL;
	if (!ip[12] || ip[12] >= 224) /* RFC 1122 section 3.2.1.3: never a source */
		return -EINVAL;
	f->ecn = ip[1] & 3;
	put_ip4(&f->src, ip + 12);
	put_ip4(&f->dst, ip + 16);
	*udp = ip + ihl;
	return (int)(total - ihl);
}

static int parse_ip6(const uint8_t *ip, size_t len, struct encap_flow *f, const uint8_t **udp)
{
	unsigned payload;

	if (len < IP6_LEN + UDP_LEN || ip[0] >> 4 != 6)
		return -EINVAL;
	payload = be16_get(ip + 4);
	if (payload < UDP_LEN || payload > len - IP6_LEN)
		return -EINVAL;
	/* No extension header is ours, fragments included; sources are neither multicast nor "::". */
	if (ip[6] != PROTO_UDP || ip[8] == 0xff || !(load64(ip + 8) | load64(ip + 16)))
		return -EINVAL;
	f->ecn = ip[1] >> 4 & 3;
	f->src = (struct sd_addr){.family = 6};
	f->dst = (struct sd_addr){.family = 6};
	memcpy(f->src.ip, ip + 8, 16);
	memcpy(f->dst.ip, ip + 24, 16);
	*udp = ip + IP6_LEN;
	return (int)payload;
}

int encap_parse(const uint8_t *frame, size_t len, uint16_t dst_port, bool verify, struct encap_view *out)
{
	struct encap_flow *f = &out->flow;
	const uint8_t *ip = frame + ETH_LEN, *udp;
	bool v6;
	int udp_len;

	if (len < ETH_LEN + IP4_LEN + UDP_LEN || frame[6] & 1) /* no group is a source */
		return -EINVAL;
	v6 = be16_get(frame + 12) == TYPE_IP6;
	if (v6)
		udp_len = parse_ip6(ip, len - ETH_LEN, f, &udp);
	else if (be16_get(frame + 12) == TYPE_IP4)
		udp_len = parse_ip4(ip, len - ETH_LEN, f, &udp);
	else
		return -EINVAL;
	if (udp_len < 0 || be16_get(udp + 4) != udp_len || be16_get(udp + 2) != dst_port)
		return -EINVAL;
	out->csum_ok = verify;
	if (!load16(udp + 6)) {
		if (v6) /* RFC 8200 section 8.1 */
			return -EINVAL;
		out->csum_ok = true;
	} else if (verify) {
		uint64_t sum = sum_pseudo(ip + (v6 ? 8 : 12), v6) + __builtin_bswap16((uint16_t)udp_len);

		if (encap_csum_fold(encap_csum_add(sum, udp, (size_t)udp_len)) != 0xffff)
			return -EINVAL;
	}
	memcpy(f->dst_mac, frame, 6);
	memcpy(f->src_mac, frame + 6, 6);
	f->src.port = be16_get(udp);
	f->dst.port = dst_port;
	out->payload = udp + UDP_LEN;
	out->payload_len = (size_t)udp_len - UDP_LEN;
	out->ce = f->ecn == ECN_CE;
	return 0;
}

void encap_know(struct encap_known *k, const uint8_t *frame, size_t len, const struct encap_view *v)
{
	size_t hdr_len = (size_t)(v->payload - frame);

	k->hdr_len = 0;
	if (len < sizeof k->head || hdr_len != (v->flow.dst.family == 6 ? ENCAP_V6 : ENCAP_V4))
		return; /* IPv4 with options */
	memcpy(k->head, frame, sizeof k->head);
	k->hdr_len = (uint8_t)hdr_len;
}

/* Where the headers of a and b differ, but for what is free to. */
static uint64_t differences(const uint8_t *a, const uint8_t *b, const uint64_t *free, unsigned words)
{
	uint64_t d = 0;

	for (unsigned i = 0; i < words; i++)
		d |= (load64(a + 8 * i) ^ load64(b + 8 * i)) & ~free[i];
	return d;
}

/* 16 bits at this offset of the headers. */
#define FREE(at) [at] = 0xff, [(at) + 1] = 0xff

bool encap_is_known(const struct encap_known *k, const uint8_t *frame, size_t len, struct encap_view *v)
{
	static const union {
		uint8_t bytes[64];
		uint64_t words[8];
	} /* lengths, checksums, source port; IPv6: flow label, and what is behind the headers */
	free4 = {{FREE(16), FREE(24), FREE(34), FREE(38)}},
	free6 = {{FREE(16), FREE(18), FREE(54), FREE(58), FREE(60), FREE(62)}};
	const uint8_t *ip = frame + ETH_LEN, *udp = frame + k->hdr_len - UDP_LEN;
	unsigned udp_len;

	if (len < sizeof k->head || !k->hdr_len)
		return false;
	if (k->hdr_len == ENCAP_V4) {
		if (differences(frame, k->head, free4.words, 5) || encap_csum_fold(sum_ip4(ip)) != 0xffff)
			return false;
		udp_len = be16_get(ip + 2) - (unsigned)IP4_LEN;
	} else {
		if (differences(frame, k->head, free6.words, 8) || !load16(udp + 6))
			return false;
		udp_len = be16_get(ip + 4);
	}
	if (udp_len != be16_get(udp + 4) || udp_len < UDP_LEN || udp_len > len - (size_t)(udp - frame))
		return false;
	v->payload = udp + UDP_LEN;
	v->payload_len = udp_len - UDP_LEN;
	return true;
}
