/* SPDX-License-Identifier: BSD-3-Clause */
/* libFuzzer target: any bytes as a struct virtio_net_hdr and a frame behind it. What is not refused has to
 * come out as segments that carry the payload on, each complete and with sums that are right. */
#include <stdlib.h>
#include <string.h>

#include "drivers/gso.h"
#include "tests/fuzz.h"

enum {
	SEGMENTS = 400, /* looked at: thousands of one byte say no more */
	SEGMENT_MAX = 1 << 17,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static uint32_t plain_sum(uint32_t sum, const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		sum += i % 2 ? p[i] : (uint32_t)p[i] << 8;
		sum = (sum & 0xffff) + (sum >> 16);
	}
	return sum;
}

static unsigned get16(const uint8_t *p)
{
	return (unsigned)p[0] << 8 | p[1];
}

static void check_ip(const struct gso *g, const uint8_t *out, size_t len)
{
	const uint8_t *ip = out + g->l3;

	if (g->v6) {
		require(ip[0] >> 4 == 6 && 40 + get16(ip + 4) == len - g->l3);
		return;
	}
	require(ip[0] >> 4 == 4 && get16(ip + 2) == len - g->l3);
	require(plain_sum(0, ip, g->l4 - g->l3) == 0xffff);
}

/* Without the kernel's sum, which may be anything, the whole is to be right. */
static void check_l4(const struct gso *g, const uint8_t *out, size_t len)
{
	const uint8_t *ip = out + g->l3;
	uint8_t tail[4] = {0, g->udp ? 17 : 6, (uint8_t)((len - g->l4) >> 8), (uint8_t)(len - g->l4)};
	uint32_t sum = plain_sum(0, ip + (g->v6 ? 8 : 12), g->v6 ? 32 : 8);

	sum = plain_sum(plain_sum(sum, tail, sizeof tail), out + g->l4, len - g->l4);
	require(sum == 0xffff);
}

static void check_cut(const uint8_t *frame, size_t len, const struct virtio_net_hdr *hdr)
{
	struct gso g;
	size_t at;

	if (gso_open(&g, frame, len, hdr))
		return;
	require(g.l3 < g.l4 && g.l4 < g.payload && g.payload <= g.end && g.end <= len);
	at = g.payload;
	for (unsigned i = 0; i < SEGMENTS && g.more; i++) {
		size_t most = gso_largest(&g), n;
		uint32_t left = gso_left(&g);
		uint8_t *out;
		int r;

		require(most <= SEGMENT_MAX && left);
		out = malloc(most); /* exact, so that a sanitizer sees a byte too far */
		require(out);
		r = gso_next(&g, out, most);
		require(r > 0 && (size_t)r <= most && (size_t)r >= g.payload);
		n = (size_t)r - g.payload;
		require(gso_left(&g) == left - 1);
		require(n == (g.more ? hdr->gso_size : g.end - at));
		require(!memcmp(out + g.payload, frame + at, n));
		check_ip(&g, out, (size_t)r);
		if (!(hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
			check_l4(&g, out, (size_t)r);
		at += n;
		free(out);
	}
	require(g.more || (at == g.end && !gso_next(&g, NULL, 0)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct virtio_net_hdr hdr;
	uint8_t *frame;

	if (len < sizeof hdr)
		return 0;
	memcpy(&hdr, data, sizeof hdr);
	len -= sizeof hdr;
	frame = malloc(len ? len : 1);
	require(frame);
	memcpy(frame, data + sizeof hdr, len);
	check_cut(frame, len, &hdr);
	gso_port_finishes(frame, len, &hdr);
	if (!gso_finish_csum(frame, len, hdr.csum_start, hdr.csum_offset))
		require(hdr.csum_start + hdr.csum_offset + 2u <= len);
	free(frame);
	return 0;
}
