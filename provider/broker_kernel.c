/* SPDX-License-Identifier: BSD-3-Clause */
/* What the broker asks the kernel: who listens where now, which UNIX sockets there are, and which addresses
 * are this host's. A program's word is not enough for either. Its socket's name is not, too: anybody may bind
 * to any address (IP_FREEBIND), and who once has listened somewhere may have stopped. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/sockaddr.h"
#include "provider/broker_private.h"

/* TCP_LISTEN of the kernel's, whose header does not go with the C library's. */
#define LISTENS	       10
#define LOOPBACK_INDEX 1u /* of `lo` in each network namespace */
#define MANY_ADDRESSES 256u
/* An address that has gone is believed in for that long. */
#define LOCAL_NS SD_S

/* Without these on old systems connections are left to kernel TCP. */
#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

static uint64_t number_option(int fd, int name)
{
	uint64_t value = 0;
	socklen_t len = sizeof value;

	return getsockopt(fd, SOL_SOCKET, name, &value, &len) ? 0 : value;
}

uint64_t netns_of(int fd)
{
	return number_option(fd, SO_NETNS_COOKIE);
}

uint64_t cookie_of(int fd)
{
	return number_option(fd, SO_COOKIE);
}

/* --- listeners --- */

/* Sends what begins with a header. */
static int put(int fd, struct nlmsghdr *q, size_t len, unsigned flags, uint32_t number)
{
	q->nlmsg_len = (uint32_t)len;
	q->nlmsg_type = SOCK_DIAG_BY_FAMILY;
	q->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
	q->nlmsg_seq = number;
	return send(fd, q, len, MSG_DONTWAIT) == (ssize_t)len ? 0 : -errno;
}

static int error_of(const struct nlmsghdr *h)
{
	int error;

	memcpy(&error, NLMSG_DATA(h), sizeof error);
	return error ? error : -EIO;
}

/* One question, one answer. */
static int ask(int fd, struct nlmsghdr *q, size_t len, void *out, size_t out_len)
{
	static _Thread_local uint32_t number;
	union {
		struct nlmsghdr header;
		char bytes[1024];
	} a;
	ssize_t n;
	int r = put(fd, q, len, 0, ++number);

	if (r)
		return r;
	/* The kernel answers before send returns. */
	do
		n = recv(fd, &a, sizeof a, MSG_DONTWAIT);
	while (n >= (ssize_t)sizeof a.header && a.header.nlmsg_seq != number);
	if (n < (ssize_t)NLMSG_LENGTH(sizeof(int)))
		return -EIO;
	if (a.header.nlmsg_type == NLMSG_ERROR)
		return error_of(&a.header);
	if (a.header.nlmsg_type != SOCK_DIAG_BY_FAMILY || n < (ssize_t)NLMSG_LENGTH(out_len))
		return -EIO;
	memcpy(out, NLMSG_DATA(&a.header), out_len);
	return 0;
}

static uint64_t whole_cookie(const uint32_t half[2])
{
	return (uint64_t)half[1] << 32 | half[0];
}

static int ask_listener(int fd, const struct sd_addr *local, const struct sd_addr *from, uint64_t *cookie)
{
	struct {
		struct nlmsghdr header;
		struct inet_diag_req_v2 body;
	} q = {.body = {.sdiag_family = local->family == 6 ? AF_INET6 : AF_INET,
		       .sdiag_protocol = IPPROTO_TCP,
		       .idiag_states = 1u << LISTENS}};
	struct inet_diag_sockid *id = &q.body.id;
	struct inet_diag_msg m = {0};
	int r;

	/* No port of the other side's: connections are not looked for. */
	id->idiag_sport = htons(local->port);
	memcpy(id->idiag_src, local->ip, sizeof id->idiag_src);
	memcpy(id->idiag_dst, from->ip, sizeof id->idiag_dst);
	id->idiag_if = local->scope ? local->scope : LOOPBACK_INDEX;
	id->idiag_cookie[0] = id->idiag_cookie[1] = INET_DIAG_NOCOOKIE;
	r = ask(fd, &q.header, sizeof q, &m, sizeof m);
	if (!r && m.idiag_state != LISTENS)
		r = -ENOENT;
	if (!r)
		*cookie = whole_cookie(m.id.idiag_cookie);
	return r;
}

/* It may be there and know nothing of TCP, and would say of any socket that there is none: this one there is.
 */
static bool finds_listeners(int diag)
{
	/* At any address: there may be no other yet. */
	struct sockaddr_in in = {.sin_family = AF_INET};
	struct sd_addr at = {.family = 4, .ip = {127, 0, 0, 1}};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof in;
	uint64_t cookie = 0;

	if (fd < 0)
		return false;
	if (!bind(fd, (struct sockaddr *)&in, sizeof in) && !listen(fd, 1) &&
		!getsockname(fd, (struct sockaddr *)&in, &len)) {
		at.port = ntohs(in.sin_port);
		if (ask_listener(diag, &at, &at, &cookie))
			cookie = 0;
	}
	close(fd);
	return cookie;
}

void kernel_open(struct broker *b)
{
	b->diag = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	if (b->diag < 0)
		return;
	b->netns = netns_of(b->diag);
	if (b->netns && finds_listeners(b->diag))
		return;
	sd_warn("the kernel does not say which socket listens (CONFIG_INET_DIAG; modprobe tcp_diag): "
		"programs' own "
		"word is taken for it");
	close(b->diag);
	b->diag = -1;
}

void kernel_close(struct broker *b)
{
	if (b->diag >= 0)
		close(b->diag);
}

bool kernel_knows(const struct broker *b, uint64_t netns)
{
	return b->diag >= 0 && b->netns == netns;
}

uint64_t kernel_listener(struct broker *b, const struct sd_addr *local, const struct sd_addr *from)
{
	uint64_t cookie;

	return ask_listener(b->diag, local, from, &cookie) ? 0 : cookie;
}

/* --- UNIX sockets --- */

struct unix_question {
	struct nlmsghdr header;
	struct unix_diag_req body;
};

void kernel_unix_reopen(int *fd)
{
	sd_fd_close(fd);
	*fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
}

int kernel_unix_list(int fd)
{
	struct unix_question q = {.body = {.sdiag_family = AF_UNIX, .udiag_states = ~0u}};

	return put(fd, &q.header, sizeof q, NLM_F_DUMP, 0);
}

int kernel_unix_next(int fd, void (*saw)(void *ctx, uint64_t cookie), void *ctx)
{
	union {
		struct nlmsghdr header;
		char bytes[32768]; /* it gives no more at once */
	} a;
	ssize_t n = recv(fd, &a, sizeof a, MSG_DONTWAIT);
	const struct nlmsghdr *h = &a.header;

	if (n <= 0)
		return n ? -errno : -EIO;
	for (size_t left = (size_t)n; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
		const struct unix_diag_msg *m = NLMSG_DATA(h);

		if (h->nlmsg_type == NLMSG_DONE)
			return 0;
		if (h->nlmsg_type == NLMSG_ERROR)
			return error_of(h);
		if (h->nlmsg_type == SOCK_DIAG_BY_FAMILY && h->nlmsg_len >= NLMSG_LENGTH(sizeof *m))
			saw(ctx, whole_cookie(m->udiag_cookie));
	}
	return 1;
}

int kernel_unix_socket(int fd, uint32_t inode, uint64_t cookie)
{
	struct unix_question q = {.body = {.sdiag_family = AF_UNIX,
					  .udiag_states = ~0u,
					  .udiag_ino = inode,
					  .udiag_cookie = {(uint32_t)cookie, (uint32_t)(cookie >> 32)}}};
	struct unix_diag_msg m;
	int r = ask(fd, &q.header, sizeof q, &m, sizeof m);

	return r == -ESTALE ? -ENOENT : r;
}

/* --- addresses --- */

static bool is_loopback(const struct sd_addr *a)
{
	static const uint8_t one[16] = {[15] = 1};

	return a->family == 4 ? a->ip[0] == 127 : !memcmp(a->ip, one, sizeof one);
}

/* IPv4, in whatever network namespace the socket is in. */
static bool is_of_interface(int socket, const struct sd_addr *a)
{
	struct ifreq list[MANY_ADDRESSES];
	struct ifconf c = {.ifc_len = sizeof list, .ifc_req = list};

	if (ioctl(socket, SIOCGIFCONF, &c))
		return false;
	for (unsigned i = 0; i < c.ifc_len / sizeof *list; i++) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)&list[i].ifr_addr;

		if (in->sin_family == AF_INET && !memcmp(&in->sin_addr, a->ip, 4))
			return true;
	}
	return false;
}

/* In our own network namespace: from where would a packet to it leave? */
static bool is_own_source(const struct sd_addr *a)
{
	struct sd_addr source;

	return !sd_sockaddr_source(a, &source) && sd_addr_same_ip(&source, a);
}

bool kernel_has_address(struct broker *b, int socket, uint64_t netns, const struct sd_addr *a, uint64_t now)
{
	struct local *l;
	bool is;

	if (is_loopback(a))
		return true;
	l = &b->locals[(a->ip[a->family == 6 ? 15 : 3] ^ netns) % BROKER_LOCALS];
	if (l->netns == netns && sd_addr_same_ip(&l->addr, a) && l->addr.scope == a->scope &&
		now - l->since < LOCAL_NS)
		return true;
	if (netns == b->netns)
		is = is_own_source(a);
	else
		is = a->family == 4 && is_of_interface(socket, a);
	if (is)
		*l = (struct local){.netns = netns, .addr = *a, .since = now};
	return is;
}
