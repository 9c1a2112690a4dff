/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/sockaddr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

/* UDP's connect() sends nothing, so that any port will do. */
#define DISCARD_PORT 9

socklen_t sd_sockaddr_from(union sd_sockaddr *out, const struct sd_addr *a)
{
	memset(out, 0, sizeof *out);
	if (a->family == 4) {
		out->v4.sin_family = AF_INET;
		out->v4.sin_port = htons(a->port);
		memcpy(&out->v4.sin_addr, a->ip, 4);
		return sizeof out->v4;
	}
	out->v6.sin6_family = AF_INET6;
	out->v6.sin6_port = htons(a->port);
	out->v6.sin6_scope_id = a->scope;
	memcpy(&out->v6.sin6_addr, a->ip, 16);
	return sizeof out->v6;
}

bool sd_sockaddr_to(const struct sockaddr *sa, socklen_t len, struct sd_addr *out)
{
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;

	*out = (struct sd_addr){0};
	if (!sa || len < sizeof sa->sa_family)
		return false;
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
		return true;
	}
	return false;
}

int sd_sockaddr_bound(int fd, struct sd_addr *out)
{
	union sd_sockaddr name;
	socklen_t len = sizeof name;

	*out = (struct sd_addr){0};
	if (getsockname(fd, &name.any, &len))
		return -errno;
	return sd_sockaddr_to(&name.any, len, out) ? 0 : -EAFNOSUPPORT;
}

int sd_sockaddr_source(const struct sd_addr *peer, struct sd_addr *out)
{
	struct sd_addr to = *peer;
	union sd_sockaddr name;
	socklen_t len;
	int fd, r;

	*out = (struct sd_addr){0};
	to.port = DISCARD_PORT;
	len = sd_sockaddr_from(&name, &to);
	fd = socket(name.any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	r = connect(fd, &name.any, len) ? -errno : sd_sockaddr_bound(fd, out);
	close(fd);
	out->port = 0;
	return r;
}
