/* SPDX-License-Identifier: BSD-3-Clause */
/* defroute: which interfaces carry a default route, by any of the kernel's routing tables. */
#ifndef SD_APPS_DEFROUTE_H
#define SD_APPS_DEFROUTE_H

/*
 * Does a route of IPv4 or IPv6 that takes all destinations, or a half of them as VPNs have it, lead out of
 * this interface, alone or as one of several next hops, or somewhere that is not told? 1 or 0; -errno: the
 * kernel does not tell.
 */
int defroute_by(unsigned ifindex);

#endif
