/* SPDX-License-Identifier: BSD-3-Clause */
/* pcap: the classic format with nanoseconds; packets begin with their IP header. */
#include "pcap.h"

#include <string.h>

#include "base/bytes.h"
#include "transport/transport.h"

enum {
	MAGIC = 0xa1b23c4d, /* times in nanoseconds */
	LINK_RAW = 101,
	IP4_LEN = 20,
	IP6_LEN = 40,
	UDP_LEN = 8,
	UDP = 17,
	SOURCE_PORT = 49152,
};

FILE *pcap_open(const char *path)
{
	const uint32_t head[] = {MAGIC, 4u << 16 | 2, 0, 0, 65535, LINK_RAW}; /* version 2.4 */
	FILE *f = path ? fopen(path, "wb") : NULL;

	if (f)
		fwrite(head, sizeof head, 1, f);
	return f;
}

static uint32_t sum(uint32_t s, const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		s += i % 2 ? p[i] : (uint32_t)p[i] << 8;
	return s;
}

static uint16_t checksum(uint32_t s)
{
	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	return (uint16_t)~s;
}

static size_t put_ip(uint8_t *b, const struct sd_addr *from, const struct sd_addr *to, size_t len)
{
	if (from->family == 6) {
		b[0] = 0x60;
		be16_put(b + 4, (uint16_t)len);
		b[6] = UDP;
		b[7] = 64;
		memcpy(b + 8, from->ip, 16);
		memcpy(b + 24, to->ip, 16);
		return IP6_LEN;
	}
	b[0] = 0x45;
	be16_put(b + 2, (uint16_t)(IP4_LEN + len));
	b[6] = 0x40; /* DF */
	b[8] = 64;
	b[9] = UDP;
	memcpy(b + 12, from->ip, 4);
	memcpy(b + 16, to->ip, 4);
	be16_put(b + 10, checksum(sum(0, b, IP4_LEN)));
	return IP4_LEN;
}

void pcap_packet(FILE *f, uint64_t now, const struct sd_addr *from, const struct sd_addr *to,
	const uint8_t *payload, size_t len)
{
	uint8_t head[IP6_LEN + UDP_LEN] = {0}, *udp;
	uint32_t record[4], total;
	uint16_t udp_sum;
	size_t ip_len, addresses = from->family == 6 ? 32 : 8;

	if (!f)
		return;
	ip_len = put_ip(head, from, to, UDP_LEN + len);
	udp = head + ip_len;
	be16_put(udp, SOURCE_PORT);
	be16_put(udp + 2, TP_UDP_PORT);
	be16_put(udp + 4, (uint16_t)(UDP_LEN + len));
	total = sum(UDP + (uint32_t)(UDP_LEN + len), udp - addresses, addresses);
	udp_sum = checksum(sum(sum(total, udp, UDP_LEN), payload, len));
	be16_put(udp + 6, udp_sum ? udp_sum : 0xffff); /* 0 would say that there is none */
	record[0] = (uint32_t)(now / 1000000000);
	record[1] = (uint32_t)(now % 1000000000);
	record[2] = record[3] = (uint32_t)(ip_len + UDP_LEN + len);
	fwrite(record, sizeof record, 1, f);
	fwrite(head, ip_len + UDP_LEN, 1, f);
	fwrite(payload, len, 1, f);
}
