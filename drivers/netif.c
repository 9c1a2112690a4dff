/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * netif: keeps a copy of the kernel's links, addresses, rules and routes. One socket listens for changes, a
 * second one dumps. Changes that the kernel announces in full are applied one by one; those it does not (it
 * withdraws IPv4 routes silently when a link or an address goes, and drops announcements when our buffer is
 * full) make the copy stale, and it is dumped anew. Owned by one thread at a time; nothing is locked.
 */
#include "drivers/netif.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "drivers/netif_fib.h"

#define BUFFER_BYTES 32768 /* the kernel fills a dump's messages up to this size */
#define ATTR_MAX     64
#define DUMP_TRIES   5 /* a dump that a change interrupted is repeated */

struct link {
	int ifindex;
	unsigned flags;
	uint16_t mtu;
	char name[IF_NAMESIZE];
};

struct address {
	int ifindex;
	uint8_t prefix_len, scope;
	bool usable; /* as a source: neither tentative nor failed nor deprecated */
	struct sd_addr addr;
};

struct netif {
	struct mnl_socket *events, *dumps;
	struct link *links;
	struct address *addrs;
	unsigned link_count, link_cap, addr_count, addr_cap;
	struct fib fib;
	uint64_t generation;
	unsigned seq;
	bool stale;   /* the copy misses something: dump */
	bool loading; /* a dump is being read: routes are appended, and sorted at its end */
	_Alignas(struct nlmsghdr) char buffer[BUFFER_BYTES];
};

static int reserve(void **v, unsigned *cap, unsigned count, size_t size)
{
	unsigned want = *cap ? *cap * 2 : 16;
	void *grown;

	if (count < *cap)
		return 0;
	grown = reallocarray(*v, want, size);
	if (!grown)
		return -ENOMEM;
	*v = grown;
	*cap = want;
	return 0;
}

/* Attributes of the first level by type; unknown types are left out. */
static void parse_attrs(const struct nlmsghdr *nlh, size_t header, const struct nlattr *tb[ATTR_MAX])
{
	const struct nlattr *attr;

	memset(tb, 0, ATTR_MAX * sizeof *tb);
	mnl_attr_for_each(attr, nlh, header)
	{
		if (mnl_attr_get_type(attr) < ATTR_MAX)
			tb[mnl_attr_get_type(attr)] = attr;
	}
}

static uint32_t attr_u32(const struct nlattr *attr, uint32_t otherwise)
{
	return attr && mnl_attr_get_payload_len(attr) >= 4 ? mnl_attr_get_u32(attr) : otherwise;
}

/* The address in attr; family 0 when there is none or it has the wrong length. */
static struct sd_addr attr_addr(const struct nlattr *attr, unsigned char af)
{
	struct sd_addr a = {0};
	unsigned len = af == AF_INET ? 4 : 16;

	if (attr && (af == AF_INET || af == AF_INET6) && mnl_attr_get_payload_len(attr) >= len) {
		a.family = af == AF_INET ? 4 : 6;
		memcpy(a.ip, mnl_attr_get_payload(attr), len);
	}
	return a;
}

/* --- links --- */

static struct link *find_link(const struct netif *n, int ifindex)
{
	for (unsigned i = 0; i < n->link_count; i++)
		if (n->links[i].ifindex == ifindex)
			return &n->links[i];
	return NULL;
}

static int link_changed(struct netif *n, const struct nlmsghdr *nlh)
{
	const struct ifinfomsg *ifi = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *tb[ATTR_MAX];
	struct link *l = find_link(n, ifi->ifi_index);

	if (ifi->ifi_family != AF_UNSPEC) /* a bridge's view of one of its ports */
		return 0;
	if (nlh->nlmsg_type == RTM_DELLINK) {
		if (l)
			*l = n->links[--n->link_count];
		n->stale = true;
		return 0;
	}
	if (l && l->flags & IFF_UP && !(ifi->ifi_flags & IFF_UP))
		n->stale = true;
	if (!l) {
		if (reserve((void **)&n->links, &n->link_cap, n->link_count, sizeof *l))
			return -ENOMEM;
		l = &n->links[n->link_count++];
		memset(l, 0, sizeof *l);
	}
	parse_attrs(nlh, sizeof *ifi, tb);
	l->ifindex = ifi->ifi_index;
	l->flags = ifi->ifi_flags;
	if (tb[IFLA_MTU]) {
		uint32_t mtu = attr_u32(tb[IFLA_MTU], 0);

		l->mtu = mtu < UINT16_MAX ? (uint16_t)mtu : UINT16_MAX;
	}
	if (tb[IFLA_IFNAME]) {
		strncpy(l->name, mnl_attr_get_str(tb[IFLA_IFNAME]), sizeof l->name - 1);
		l->name[sizeof l->name - 1] = 0;
	}
	return 0;
}

/* --- addresses --- */

static int address_changed(struct netif *n, const struct nlmsghdr *nlh)
{
	const struct ifaddrmsg *ifa = mnl_nlmsg_get_payload(nlh);
	const uint32_t unusable = IFA_F_TENTATIVE | IFA_F_DADFAILED | IFA_F_DEPRECATED;
	const struct nlattr *tb[ATTR_MAX];
	struct address a = {
		.ifindex = (int)ifa->ifa_index, .prefix_len = ifa->ifa_prefixlen, .scope = ifa->ifa_scope};
	unsigned i;

	parse_attrs(nlh, sizeof *ifa, tb);
	/* On a point-to-point link IFA_ADDRESS is the peer. */
	a.addr = attr_addr(tb[IFA_LOCAL] ? tb[IFA_LOCAL] : tb[IFA_ADDRESS], ifa->ifa_family);
	if (!a.addr.family)
		return 0;
	a.usable = !(attr_u32(tb[IFA_FLAGS], ifa->ifa_flags) & unusable);
	for (i = 0; i < n->addr_count; i++)
		if (n->addrs[i].ifindex == a.ifindex && n->addrs[i].prefix_len == a.prefix_len &&
			sd_addr_same_ip(&n->addrs[i].addr, &a.addr))
			break;
	if (nlh->nlmsg_type == RTM_DELADDR) {
		if (i < n->addr_count) /* order matters: the first is the primary address */
			memmove(&n->addrs[i], &n->addrs[i + 1], (--n->addr_count - i) * sizeof a);
		n->stale = true;
		return 0;
	}
	if (i == n->addr_count) {
		if (reserve((void **)&n->addrs, &n->addr_cap, n->addr_count, sizeof a))
			return -ENOMEM;
		if (a.addr.family == 6 &&
			!n->loading) { /* of IPv6 addresses the kernel lists the newest first */
			memmove(&n->addrs[1], n->addrs, n->addr_count * sizeof a);
			i = 0;
		}
		n->addr_count++;
	}
	n->addrs[i] = a;
	return 0;
}

/* --- rules --- */

/* Would the rule apply to an unmarked packet of any source? */
static bool rule_applies(const struct fib_rule_hdr *frh, const struct nlattr *tb[ATTR_MAX])
{
	static const uint8_t selectors[] = {FRA_IIFNAME, FRA_OIFNAME, FRA_TUN_ID, FRA_L3MDEV, FRA_UID_RANGE,
		FRA_IP_PROTO, FRA_SPORT_RANGE, FRA_DPORT_RANGE};
	bool match = !attr_u32(tb[FRA_FWMARK], 0);

	if (frh->src_len || frh->dst_len || frh->tos || frh->action != FR_ACT_TO_TBL)
		return false;
	for (unsigned i = 0; i < sizeof selectors; i++)
		if (tb[selectors[i]])
			return false;
	return frh->flags & FIB_RULE_INVERT ? !match : match;
}

static int rule_dumped(struct netif *n, const struct nlmsghdr *nlh)
{
	const struct fib_rule_hdr *frh = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *tb[ATTR_MAX];
	struct fib_rule r;

	if (!n->loading) {
		n->stale = true;
		return 0;
	}
	if (frh->family != AF_INET && frh->family != AF_INET6)
		return 0;
	parse_attrs(nlh, sizeof *frh, tb);
	if (!rule_applies(frh, tb))
		return 0;
	r.family = frh->family == AF_INET ? 4 : 6;
	r.priority = attr_u32(tb[FRA_PRIORITY], 0);
	r.table = attr_u32(tb[FRA_TABLE], frh->table);
	r.suppress_len = (int)attr_u32(tb[FRA_SUPPRESS_PREFIXLEN], UINT32_MAX);
	return fib_append_rule(&n->fib, &r);
}

/* --- routes --- */

static int verdict_of(unsigned char type)
{
	switch (type) {
	case RTN_UNICAST:
		return FIB_UNICAST;
	case RTN_LOCAL:
		return FIB_LOCAL;
	case RTN_BROADCAST:
	case RTN_ANYCAST:
	case RTN_MULTICAST:
		return FIB_GROUP;
	case RTN_THROW:
		return FIB_THROW;
	default:
		return FIB_REFUSED;
	}
}

/* RTA_VIA: a gateway of another family. */
static struct sd_addr attr_via(const struct nlattr *attr)
{
	struct sd_addr a = {0};
	const struct rtvia *via;
	unsigned len;

	if (!attr || mnl_attr_get_payload_len(attr) < sizeof *via)
		return a;
	via = mnl_attr_get_payload(attr);
	len = via->rtvia_family == AF_INET ? 4 : via->rtvia_family == AF_INET6 ? 16 : 0;
	if (!len || mnl_attr_get_payload_len(attr) < sizeof *via + len)
		return a;
	a.family = len == 4 ? 4 : 6;
	memcpy(a.ip, via->rtvia_addr, len);
	return a;
}

/* Takes the first hop that is alive; false when none is. */
static bool first_hop(const struct nlattr *multipath, unsigned char af, struct fib_route *r)
{
	const struct rtnexthop *nh = mnl_attr_get_payload(multipath);
	int left = mnl_attr_get_payload_len(multipath);

	for (; RTNH_OK(nh, left); left -= (int)NLMSG_ALIGN(nh->rtnh_len), nh = RTNH_NEXT(nh)) {
		const struct nlattr *attr, *gateway = NULL, *via = NULL;

		if (nh->rtnh_flags & RTNH_F_DEAD)
			continue;
		mnl_attr_for_each_payload((void *)RTNH_DATA(nh), nh->rtnh_len - RTNH_LENGTH(0))
		{
			if (mnl_attr_get_type(attr) == RTA_GATEWAY)
				gateway = attr;
			else if (mnl_attr_get_type(attr) == RTA_VIA)
				via = attr;
		}
		r->ifindex = nh->rtnh_ifindex;
		r->gateway = gateway ? attr_addr(gateway, af) : attr_via(via);
		return true;
	}
	return false;
}

/* false: a route that is of no use here. */
static bool parse_route(const struct nlmsghdr *nlh, struct fib_route *r)
{
	const struct rtmsg *rtm = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *tb[ATTR_MAX];
	struct sd_addr dst;

	if ((rtm->rtm_family != AF_INET && rtm->rtm_family != AF_INET6) || rtm->rtm_tos || rtm->rtm_src_len ||
		rtm->rtm_flags & (RTM_F_CLONED | RTNH_F_DEAD))
		return false;
	if (rtm->rtm_dst_len > (rtm->rtm_family == AF_INET ? 32 : 128))
		return false;
	parse_attrs(nlh, sizeof *rtm, tb);
	memset(r, 0, sizeof *r);
	r->family = rtm->rtm_family == AF_INET ? 4 : 6;
	r->prefix_len = rtm->rtm_dst_len;
	dst = attr_addr(tb[RTA_DST], rtm->rtm_family);
	memcpy(r->dst, dst.ip, sizeof r->dst);
	r->table = attr_u32(tb[RTA_TABLE], rtm->rtm_table);
	r->metric = attr_u32(tb[RTA_PRIORITY], 0);
	r->verdict = (uint8_t)verdict_of(rtm->rtm_type);
	r->source = attr_addr(tb[RTA_PREFSRC], rtm->rtm_family);
	if (tb[RTA_MULTIPATH])
		return first_hop(tb[RTA_MULTIPATH], rtm->rtm_family, r);
	r->ifindex = (int)attr_u32(tb[RTA_OIF], 0);
	r->gateway = tb[RTA_GATEWAY] ? attr_addr(tb[RTA_GATEWAY], rtm->rtm_family) : attr_via(tb[RTA_VIA]);
	return true;
}

static enum fib_place place_of(uint16_t nlmsg_flags)
{
	if (nlmsg_flags & NLM_F_REPLACE)
		return FIB_INSTEAD_OF_FIRST;
	return nlmsg_flags & NLM_F_APPEND ? FIB_LAST : FIB_FIRST;
}

static int route_changed(struct netif *n, const struct nlmsghdr *nlh)
{
	struct fib_route r;

	if (!parse_route(nlh, &r))
		return 0;
	if (n->loading)
		return fib_append(&n->fib, &r);
	if (r.family == 6 &&
		fib_has_key(&n->fib, &r)) { /* to the kernel these are one, with several next hops */
		n->stale = true;
		return 0;
	}
	if (nlh->nlmsg_type == RTM_NEWROUTE)
		return fib_insert(&n->fib, &r, place_of(nlh->nlmsg_flags));
	if (!fib_remove(&n->fib, &r))
		n->stale = true;
	return 0;
}

/* --- the two sockets --- */

static int message(struct netif *n, const struct nlmsghdr *nlh)
{
	static const struct {
		uint16_t type;
		uint16_t header;
		int (*apply)(struct netif *n, const struct nlmsghdr *nlh);
	} kinds[] = {
		{RTM_NEWLINK, sizeof(struct ifinfomsg), link_changed},
		{RTM_DELLINK, sizeof(struct ifinfomsg), link_changed},
		{RTM_NEWADDR, sizeof(struct ifaddrmsg), address_changed},
		{RTM_DELADDR, sizeof(struct ifaddrmsg), address_changed},
		{RTM_NEWRULE, sizeof(struct fib_rule_hdr), rule_dumped},
		{RTM_DELRULE, sizeof(struct fib_rule_hdr), rule_dumped},
		{RTM_NEWROUTE, sizeof(struct rtmsg), route_changed},
		{RTM_DELROUTE, sizeof(struct rtmsg), route_changed},
	};

	for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++)
		if (kinds[i].type == nlh->nlmsg_type)
			return mnl_nlmsg_get_payload_len(nlh) < kinds[i].header ? 0 : kinds[i].apply(n, nlh);
	return 0;
}

/* Reads one dump's answer to its end. -EAGAIN: it was interrupted, so it may be inconsistent. */
static int read_dump(struct netif *n)
{
	bool interrupted = false;

	for (;;) {
		ssize_t got = mnl_socket_recvfrom(n->dumps, n->buffer, sizeof n->buffer);
		int left = (int)got, err;

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		for (const struct nlmsghdr *nlh = (void *)n->buffer; mnl_nlmsg_ok(nlh, left);
			nlh = mnl_nlmsg_next(nlh, &left)) {
			if (nlh->nlmsg_seq != n->seq)
				continue; /* the rest of a dump that was given up */
			if (nlh->nlmsg_flags & NLM_F_DUMP_INTR)
				interrupted = true;
			if (nlh->nlmsg_type == NLMSG_DONE)
				return interrupted ? -EAGAIN : 0;
			if (nlh->nlmsg_type == NLMSG_ERROR) {
				const struct nlmsgerr *e = mnl_nlmsg_get_payload(nlh);

				return mnl_nlmsg_get_payload_len(nlh) >= sizeof *e && e->error ? e->error
											       : -EPROTO;
			}
			err = message(n, nlh);
			if (err)
				return err;
		}
	}
}

static int dump_kind(struct netif *n, uint16_t type)
{
	char request[MNL_ALIGN(sizeof(struct nlmsghdr)) + sizeof(struct ifinfomsg)] = {0};
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(request);

	nlh->nlmsg_type = type;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	nlh->nlmsg_seq = ++n->seq;
	/* AF_UNSPEC, and zeros for the rest of whichever header it is. */
	mnl_nlmsg_put_extra_header(nlh, sizeof(struct ifinfomsg));
	if (mnl_socket_sendto(n->dumps, nlh, nlh->nlmsg_len) < 0)
		return -errno;
	return read_dump(n);
}

static int dump_all(struct netif *n)
{
	static const uint16_t kinds[] = {RTM_GETLINK, RTM_GETADDR, RTM_GETRULE, RTM_GETROUTE};
	int err = 0;

	n->link_count = n->addr_count = 0;
	n->fib.route_count = n->fib.rule_count = 0;
	memset(n->fib.lengths, 0, sizeof n->fib.lengths);
	n->loading = true;
	for (unsigned i = 0; i < sizeof kinds / sizeof *kinds && !err; i++)
		err = dump_kind(n, kinds[i]);
	n->loading = false;
	return err ? err : fib_sort(&n->fib);
}

/* Dumps until the answer is consistent. After an error the copy stays stale and the next poll tries again. */
static int refresh(struct netif *n)
{
	int err = -EAGAIN;

	for (int i = 0; i < DUMP_TRIES && err == -EAGAIN; i++)
		err = dump_all(n);
	n->stale = err != 0;
	n->generation++;
	return err;
}

static struct mnl_socket *open_socket(int flags)
{
	int fd = sd_fd_raise(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | flags, NETLINK_ROUTE));
	struct mnl_socket *s = fd < 0 ? NULL : mnl_socket_fdopen(fd);

	if (!s && fd >= 0)
		close(fd);
	return s;
}

static int open_sockets(struct netif *n)
{
	const unsigned groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE |
				RTMGRP_IPV6_ROUTE | RTMGRP_IPV4_RULE | 1u << (RTNLGRP_IPV6_RULE - 1);
	int bytes = 1 << 20;

	n->events = open_socket(SOCK_NONBLOCK);
	n->dumps = open_socket(0);
	if (!n->events || !n->dumps)
		return -errno;
	/* Only a larger buffer is lost without the privilege; an overrun is handled. */
	if (setsockopt(mnl_socket_get_fd(n->events), SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes))
		sd_debug("netif: no larger receive buffer: %s", strerror(errno));
	if (mnl_socket_bind(n->events, groups, MNL_SOCKET_AUTOPID) ||
		mnl_socket_bind(n->dumps, 0, MNL_SOCKET_AUTOPID))
		return -errno;
	return 0;
}

int netif_open(struct netif **out)
{
	struct netif *n = calloc(1, sizeof *n);
	int err;

	if (!n)
		return -ENOMEM;
	fib_init(&n->fib);
	err = open_sockets(n);
	if (!err)
		err = refresh(n);
	if (err) {
		netif_close(n);
		return err;
	}
	*out = n;
	return 0;
}

void netif_close(struct netif *n)
{
	if (n->events)
		mnl_socket_close(n->events);
	if (n->dumps)
		mnl_socket_close(n->dumps);
	fib_free(&n->fib);
	free(n->links);
	free(n->addrs);
	free(n);
}

int netif_fd(const struct netif *n)
{
	return mnl_socket_get_fd(n->events);
}

int netif_dump_fd(const struct netif *n)
{
	return mnl_socket_get_fd(n->dumps);
}

bool netif_poll(struct netif *n)
{
	uint64_t before = n->generation;

	for (;;) {
		ssize_t got = mnl_socket_recvfrom(n->events, n->buffer, sizeof n->buffer);
		int left = (int)got;

		if (got < 0) {
			if (errno == EINTR)
				continue;
			if (errno == EAGAIN || errno == EWOULDBLOCK)
				break;
			n->stale = true; /* ENOBUFS: announcements were lost; ENOSPC: one did not fit */
			if (errno != ENOBUFS && errno != ENOSPC)
				break;
			continue;
		}
		for (const struct nlmsghdr *nlh = (void *)n->buffer; mnl_nlmsg_ok(nlh, left);
			nlh = mnl_nlmsg_next(nlh, &left)) {
			if (message(n, nlh))
				n->stale = true;
			n->generation++;
		}
	}
	if (n->stale) {
		int err = refresh(n);

		if (err)
			sd_warn("netif: cannot read the kernel's routes: %s", strerror(-err));
	}
	return n->generation != before;
}

uint64_t netif_generation(const struct netif *n)
{
	return n->generation;
}

/* --- questions --- */

static unsigned common_bits(const struct sd_addr *a, const struct sd_addr *b)
{
	unsigned len = sd_addr_ip_len(a), i = 0;

	while (i < len && a->ip[i] == b->ip[i])
		i++;
	return i == len ? len * 8 : i * 8 + (unsigned)__builtin_clz((uint32_t)(a->ip[i] ^ b->ip[i]) << 24);
}

static unsigned min_unsigned(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

/* How well a serves as the source towards dst by ifindex: the rules of RFC 6724 section 5 that need no policy
 * table, and for IPv4 the kernel's: the first address of the next hop's subnet, else the first of that
 * interface. */
static unsigned source_merit(const struct address *a, const struct sd_addr *dst, int ifindex)
{
	bool same_link = a->ifindex == ifindex;
	bool link_dst = dst->family == 6 && dst->ip[0] == 0xfe && (dst->ip[1] & 0xc0) == 0x80;

	if (a->addr.family != dst->family || !a->usable || a->scope == RT_SCOPE_HOST)
		return 0;
	if ((a->scope == RT_SCOPE_LINK) != link_dst && dst->family == 6)
		return 0;
	if (!same_link && (link_dst || a->scope != RT_SCOPE_UNIVERSE))
		return 0;
	if (dst->family == 4)
		return 1 + same_link * 2 + (same_link && sd_addr_in_prefix(dst, &a->addr, a->prefix_len));
	return 1 + same_link * 256 + min_unsigned(common_bits(&a->addr, dst), a->prefix_len);
}

static struct sd_addr choose_source(
	const struct netif *n, const struct sd_addr *dst, const struct fib_route *r)
{
	const struct sd_addr *toward = dst->family == 4 && r->gateway.family == 4 ? &r->gateway : dst;
	struct sd_addr source = {0};
	unsigned best = 0;

	if (r->source.family)
		return r->source;
	for (unsigned i = 0; i < n->addr_count; i++) {
		unsigned merit = source_merit(&n->addrs[i], toward, r->ifindex);

		if (merit > best) {
			best = merit;
			source = n->addrs[i].addr;
		}
	}
	if (source.family == 6 && source.ip[0] == 0xfe && (source.ip[1] & 0xc0) == 0x80)
		source.scope = (uint32_t)r->ifindex;
	return source;
}

static bool is_group(const struct sd_addr *a)
{
	return a->family == 4 ? a->ip[0] >= 224 : a->ip[0] == 0xff;
}

int netif_route(const struct netif *n, const struct sd_addr *dst, struct netif_route *out)
{
	const struct fib_route *r;

	if ((dst->family != 4 && dst->family != 6) || is_group(dst))
		return -ENETUNREACH;
	if (sd_addr_is_any(dst)) { /* to the kernel that is this host */
		*out = (struct netif_route){.local = true, .onlink = true, .source = *dst};
		return 0;
	}
	r = fib_lookup(&n->fib, dst);
	if (!r || r->verdict == FIB_GROUP)
		return -ENETUNREACH;
	if (r->verdict == FIB_REFUSED)
		return -EHOSTUNREACH;
	memset(out, 0, sizeof *out);
	out->ifindex = r->ifindex;
	out->local = r->verdict == FIB_LOCAL;
	out->gateway = r->gateway;
	out->onlink = !r->gateway.family;
	if (out->local) {
		out->source = r->source.family ? r->source : *dst;
		out->source.port = 0;
	} else {
		out->source = choose_source(n, dst, r);
	}
	return 0;
}

int netif_index(const struct netif *n, const char *ifname)
{
	for (unsigned i = 0; i < n->link_count; i++)
		if (!strcmp(n->links[i].name, ifname))
			return n->links[i].ifindex;
	return 0;
}

/* Administratively: an address holder such as a bridge without ports has no carrier and still serves. */
bool netif_is_up(const struct netif *n, int ifindex)
{
	const struct link *l = find_link(n, ifindex);

	return l && l->flags & IFF_UP;
}

bool netif_has_addr(const struct netif *n, int ifindex, const struct sd_addr *a)
{
	for (unsigned i = 0; i < n->addr_count; i++)
		if ((!ifindex || n->addrs[i].ifindex == ifindex) && sd_addr_same_ip(&n->addrs[i].addr, a))
			return true;
	return false;
}

unsigned netif_addrs(const struct netif *n, int ifindex, struct sd_addr *out, unsigned max)
{
	unsigned found = 0;

	for (unsigned i = 0; i < n->addr_count; i++) {
		if (n->addrs[i].ifindex != ifindex)
			continue;
		if (found < max)
			out[found] = n->addrs[i].addr;
		found++;
	}
	return found;
}

uint16_t netif_mtu(const struct netif *n, int ifindex)
{
	const struct link *l = find_link(n, ifindex);

	return l ? l->mtu : 0;
}
