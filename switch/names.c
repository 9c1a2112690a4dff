/* SPDX-License-Identifier: BSD-3-Clause */
/* Between the kernel's socket addresses and ours. */
#include <string.h>

#include "switch/libc.h"
#include "switch/sock.h"

bool sw_addr_from(const struct sockaddr *sa, socklen_t len, struct sd_addr *out)
{
	if (!sd_sockaddr_to(sa, len, out))
		return false;
	sd_addr_unmap(out);
	return true;
}

bool sw_name_bound(int fd, struct sd_addr *out)
{
	union sd_sockaddr name;
	socklen_t len = sizeof name;

	return !sw_libc.getsockname(fd, &name.any, &len) && sw_addr_from(&name.any, len, out);
}

socklen_t sw_addr_to(const struct sd_addr *a, int domain, union sd_sockaddr *out)
{
	struct sd_addr as = *a;

	if (domain == AF_INET6 && a->family == 4) {
		memset(as.ip, 0, 10);
		memset(as.ip + 10, 0xff, 2);
		memcpy(as.ip + 12, a->ip, 4);
	}
	as.family = domain == AF_INET ? 4 : 6;
	return sd_sockaddr_from(out, &as);
}

void sw_name_give(const struct sd_addr *a, int domain, struct sockaddr *out, socklen_t *len)
{
	union sd_sockaddr full;
	socklen_t n = sw_addr_to(a, domain, &full);

	memcpy(out, &full, *len < n ? *len : n);
	*len = n;
}
