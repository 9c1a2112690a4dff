/* SPDX-License-Identifier: BSD-3-Clause */
/* Text forms and prefix arithmetic of transport addresses. Pure, but for the interface name behind a '%'. */
#include "base/addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>

void sd_addr_unmap(struct sd_addr *a)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

	if (a->family != 6 || memcmp(a->ip, mapped, sizeof mapped))
		return;
	memcpy(a->ip, a->ip + sizeof mapped, 4);
	memset(a->ip + 4, 0, sizeof a->ip - 4);
	a->family = 4;
	a->scope = 0;
}

char *sd_addr_format(const struct sd_addr *a, char out[SD_ADDR_STRLEN])
{
	char ip[44]; /* inet_ntop never writes the 45 characters of a fully spelt-out mapped address */

	if (a->family != 4 && a->family != 6) {
		snprintf(out, SD_ADDR_STRLEN, "none");
		return out;
	}
	inet_ntop(a->family == 4 ? AF_INET : AF_INET6, a->ip, ip, sizeof ip);
	if (a->family == 4)
		snprintf(out, SD_ADDR_STRLEN, "%s:%u", ip, a->port);
	else if (a->scope)
		snprintf(out, SD_ADDR_STRLEN, "[%s%%%u]:%u", ip, a->scope, a->port);
	else
		snprintf(out, SD_ADDR_STRLEN, "[%s]:%u", ip, a->port);
	return out;
}

/* A decimal number without sign or blanks. */
static int parse_number(const char *s, unsigned long max, unsigned long *out)
{
	char *end;

	if (*s < '0' || *s > '9')
		return -EINVAL;
	errno = 0;
	*out = strtoul(s, &end, 10);
	return *end || errno || *out > max ? -EINVAL : 0;
}

static int parse_scope(const char *s, uint32_t *scope)
{
	unsigned long n;

	if (!parse_number(s, UINT32_MAX, &n))
		*scope = n;
	else
		*scope = if_nametoindex(s);
	return *scope ? 0 : -EINVAL;
}

static int parse_ip(char *s, struct sd_addr *out)
{
	char *scope;

	if (inet_pton(AF_INET, s, out->ip) == 1) {
		out->family = 4;
		return 0;
	}
	scope = strchr(s, '%');
	if (scope)
		*scope++ = 0;
	if (inet_pton(AF_INET6, s, out->ip) != 1)
		return -EINVAL;
	out->family = 6;
	return scope ? parse_scope(scope, &out->scope) : 0;
}

int sd_addr_parse(const char *s, struct sd_addr *out)
{
	char buf[SD_ADDR_STRLEN + IF_NAMESIZE], *ip = buf, *port = NULL;
	struct sd_addr a = {0};
	unsigned long n;

	if (strlen(s) >= sizeof buf)
		return -EINVAL;
	strcpy(buf, s);
	if (buf[0] == '[') {
		char *end = strchr(buf, ']');

		if (!end || (end[1] && end[1] != ':'))
			return -EINVAL;
		if (end[1])
			port = end + 2;
		*end = 0;
		ip = buf + 1;
	} else {
		port = strchr(buf, ':');
		if (port && strchr(port + 1, ':'))
			port = NULL; /* IPv6 without brackets has no port */
		if (port)
			*port++ = 0;
	}
	if (parse_ip(ip, &a) || (buf[0] == '[' && a.family != 6))
		return -EINVAL;
	if (port) {
		if (parse_number(port, UINT16_MAX, &n))
			return -EINVAL;
		a.port = n;
	}
	*out = a;
	return 0;
}

bool sd_addr_in_prefix(const struct sd_addr *a, const struct sd_addr *net, unsigned len)
{
	unsigned whole = len / 8, rest = len % 8;

	if (a->family != net->family || len > sd_addr_ip_len(a) * 8)
		return false;
	if (memcmp(a->ip, net->ip, whole))
		return false;
	return !rest || !((a->ip[whole] ^ net->ip[whole]) >> (8 - rest));
}
