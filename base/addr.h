/* SPDX-License-Identifier: BSD-3-Clause */
/* A transport address (IP and port) without the kernel's sockaddr, so that every layer may use it. */
#ifndef SD_BASE_ADDR_H
#define SD_BASE_ADDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct sd_addr {
	uint8_t family; /* 4, 6, or 0: none */
	uint8_t pad;
	uint16_t port;	/* host byte order */
	uint32_t scope; /* interface index of an IPv6 link-local address, else 0 */
	uint8_t ip[16]; /* network byte order; IPv4 uses the first four bytes, the rest is zero */
};

static inline unsigned sd_addr_ip_len(const struct sd_addr *a)
{
	return a->family == 4 ? 4 : a->family == 6 ? 16 : 0;
}

static inline bool sd_addr_same_ip(const struct sd_addr *a, const struct sd_addr *b)
{
	return a->family == b->family && !memcmp(a->ip, b->ip, sizeof a->ip);
}

static inline bool sd_addr_equal(const struct sd_addr *a, const struct sd_addr *b)
{
	return a->port == b->port && sd_addr_same_ip(a, b);
}

/* 0.0.0.0 or :: */
static inline bool sd_addr_is_any(const struct sd_addr *a)
{
	static const uint8_t zero[16] = {0};

	return !memcmp(a->ip, zero, sizeof zero);
}

/* An IPv4-mapped IPv6 address (::ffff:a.b.c.d) becomes plain IPv4; others stay as they are. */
void sd_addr_unmap(struct sd_addr *a);

#define SD_ADDR_STRLEN 64
/* Writes "1.2.3.4:80" or "[fd00::1]:80" into out; returns out. */
char *sd_addr_format(const struct sd_addr *a, char out[SD_ADDR_STRLEN]);
/* Parses "IP", "IP:PORT" or "[IP6]:PORT"; 0 or -EINVAL. */
int sd_addr_parse(const char *s, struct sd_addr *out);
/* Does a lie in net/len (len in bits)? */
bool sd_addr_in_prefix(const struct sd_addr *a, const struct sd_addr *net, unsigned len);

#endif
