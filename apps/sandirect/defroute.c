/* SPDX-License-Identifier: BSD-3-Clause */
#include "defroute.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>
#include <stdbool.h>
#include <sys/socket.h>

#define TRIES  10
#define WIDEST 1 /* bits of a destination: 0.0.0.0/1 and 128.0.0.0/1 together are a default route */

struct search {
	unsigned ifindex;
	bool found;
};

static bool is_next_hop(const struct nlattr *list, unsigned ifindex)
{
	int left = mnl_attr_get_payload_len(list);

	for (const struct rtnexthop *hop = mnl_attr_get_payload(list); RTNH_OK(hop, left);
		left -= RTNH_ALIGN(hop->rtnh_len), hop = RTNH_NEXT(hop))
		if ((unsigned)hop->rtnh_ifindex == ifindex)
			return true;
	return false;
}

static int see_route(const struct nlmsghdr *nlh, void *ctx)
{
	const struct rtmsg *route = mnl_nlmsg_get_payload(nlh);
	struct search *s = ctx;
	bool elsewhere = false, unknown = false;
	struct nlattr *a;

	if (nlh->nlmsg_type != RTM_NEWROUTE || mnl_nlmsg_get_payload_len(nlh) < sizeof *route ||
		(route->rtm_family != AF_INET && route->rtm_family != AF_INET6) ||
		route->rtm_type != RTN_UNICAST || route->rtm_dst_len > WIDEST)
		return MNL_CB_OK;
	mnl_attr_for_each(a, nlh, sizeof *route)
	{
		unsigned type = mnl_attr_get_type(a);

		if ((type == RTA_OIF && !mnl_attr_validate(a, MNL_TYPE_U32) &&
			    mnl_attr_get_u32(a) == s->ifindex) ||
			(type == RTA_MULTIPATH && is_next_hop(a, s->ifindex)))
			s->found = true;
		elsewhere = elsewhere || type == RTA_OIF || type == RTA_MULTIPATH;
		unknown = unknown || type == RTA_NH_ID;
	}
	/* A next hop object alone (nexthop_compat_mode = 0) may lead anywhere. */
	s->found = s->found || (unknown && !elsewhere);
	return MNL_CB_OK;
}

static int read_routes(struct mnl_socket *nl, struct search *s)
{
	char buf[32768]; /* what the kernel fills at a time */
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	int more = 1;

	nlh->nlmsg_type = RTM_GETROUTE;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	nlh->nlmsg_seq = 1;
	mnl_nlmsg_put_extra_header(nlh, sizeof(struct rtmsg)); /* of all families and tables */
	if (mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) || mnl_socket_sendto(nl, nlh, nlh->nlmsg_len) < 0)
		return -errno;
	while (more > 0) {
		ssize_t got = mnl_socket_recvfrom(nl, buf, sizeof buf);

		more = got < 0 ? -1
			       : mnl_cb_run(buf, (size_t)got, 1, mnl_socket_get_portid(nl), see_route, s);
	}
	return more < 0 ? -errno : 0;
}

static int look(struct search *s)
{
	struct mnl_socket *nl = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	int r = nl ? read_routes(nl, s) : -errno;

	if (nl)
		mnl_socket_close(nl);
	return r;
}

int defroute_by(unsigned ifindex)
{
	struct search s = {.ifindex = ifindex};
	int r = -EINTR;

	/* Routes that change meanwhile interrupt it. */
	for (unsigned i = 0; r == -EINTR && i < TRIES; i++)
		r = look(&s);
	return s.found ? 1 : r;
}
