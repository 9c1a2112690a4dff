/* SPDX-License-Identifier: BSD-3-Clause */
/* Between the kernel's socket addresses and ours. Pure. */
#include <arpa/inet.h>
#include <string.h>

#include "switch/sock.h"

bool sw_addr_from(const struct sockaddr *sa, socklen_t len, struct sd_addr *out)
{
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;

	if (!sa || len < sizeof sa->sa_family)
		return false;
	memset(out, 0, sizeof *out);
	if (sa->sa_family == AF_INET && len >= sizeof v4) {
		memcpy(&v4, sa, sizeof v4);
		out->family = 4;
		out->port = ntohs(v4.sin_port);
		memcpy(out->ip, &v4.sin_addr, 4);
		return true;
	}
	/* The scope was not there in RFC 2133; the kernel takes the short form too. */
	if (sa->sa_family == AF_INET6 && len >= offsetof(struct sockaddr_in6, sin6_scope_id)) {
		memset(&v6, 0, sizeof v6);
		memcpy(&v6, sa, len < sizeof v6 ? len : sizeof v6);
		out->family = 6;
		out->port = ntohs(v6.sin6_port);
		memcpy(out->ip, &v6.sin6_addr, 16);
		if (IN6_IS_ADDR_LINKLOCAL(&v6.sin6_addr))
			out->scope = v6.sin6_scope_id;
		sd_addr_unmap(out);
		return true;
	}
	return false;
}

socklen_t sw_addr_to(const struct sd_addr *a, int domain, struct sockaddr_storage *out)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)out;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;

	memset(out, 0, sizeof *out);
	if (domain == AF_INET) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(a->port);
		memcpy(&v4->sin_addr, a->ip, 4);
		return sizeof *v4;
	}
	v6->sin6_family = AF_INET6;
	v6->sin6_port = htons(a->port);
	v6->sin6_scope_id = a->scope;
	if (a->family == 4) {
		memset(v6->sin6_addr.s6_addr + 10, 0xff, 2);
		memcpy(v6->sin6_addr.s6_addr + 12, a->ip, 4);
	} else {
		memcpy(&v6->sin6_addr, a->ip, 16);
	}
	return sizeof *v6;
}

void sw_name_give(const struct sd_addr *a, int domain, struct sockaddr *out, socklen_t *len)
{
	struct sockaddr_storage full;
	socklen_t n = sw_addr_to(a, domain, &full);

	memcpy(out, &full, *len < n ? *len : n);
	*len = n;
}
