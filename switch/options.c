/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which options the SAN path carries, which it does not, and how they get from the kernel's socket to the
 * endpoint. Values are read back from the kernel's socket, which has checked, rounded and limited them. An
 * accepted connection may do without one: what programs set on all of theirs is judged here, and only other
 * options make it have one.
 */
#include "switch/options.h"

#include <errno.h>
#include <limits.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <string.h>

#include "base/clock.h"
#include "switch/libc.h"

/* Newer than the C library's headers, or only in the kernel's. */
#define OPT_SO_TIMESTAMP_NEW	  63
#define OPT_SO_TIMESTAMPNS_NEW	  64
#define OPT_SO_TIMESTAMPING_NEW	  65
#define OPT_SO_RCVTIMEO_NEW	  66
#define OPT_SO_SNDTIMEO_NEW	  67
#define OPT_SO_BUF_LOCK		  72
#define OPT_SNDBUF_LOCKED	  1
#define OPT_RCVBUF_LOCKED	  2
#define OPT_TCP_AO_ADD_KEY	  38
#define OPT_IPV6_MINHOPCOUNT	  73
#define OPT_KEEP_IDLE_DEFAULT	  7200 /* tcp(7) */
#define OPT_KEEP_INTERVAL_DEFAULT 75
#define OPT_KEEP_COUNT_DEFAULT	  9

/* --- what is carried --- */

#define BOOLEAN 0, 0

/* The integers among them. initial: what a fresh kernel socket has. What it takes is Linux's
 * (net/ipv4/tcp.c). */
static const struct carried {
	int level, name;
	size_t field;
	int initial;
	int min, max;
} carried[] = {
	{IPPROTO_TCP, TCP_NODELAY, offsetof(struct pv_options, nodelay), 0, BOOLEAN},
	{IPPROTO_TCP, TCP_CORK, offsetof(struct pv_options, cork), 0, BOOLEAN},
	{IPPROTO_TCP, TCP_USER_TIMEOUT, offsetof(struct pv_options, user_timeout_ms), 0, 0, INT_MAX},
	{SOL_SOCKET, SO_KEEPALIVE, offsetof(struct pv_options, keepalive), 0, BOOLEAN},
	{IPPROTO_TCP, TCP_KEEPIDLE, offsetof(struct pv_options, keep_idle_s), OPT_KEEP_IDLE_DEFAULT, 1,
		32767},
	{IPPROTO_TCP, TCP_KEEPINTVL, offsetof(struct pv_options, keep_interval_s), OPT_KEEP_INTERVAL_DEFAULT,
		1, 32767},
	{IPPROTO_TCP, TCP_KEEPCNT, offsetof(struct pv_options, keep_count), OPT_KEEP_COUNT_DEFAULT, 1, 127},
};
#define N_CARRIED  (sizeof carried / sizeof *carried)
#define FIRST_KEEP 4 /* only these need reading when keepalive is on */

static int *field_of(struct pv_options *o, const struct carried *c)
{
	return (int *)((char *)o + c->field);
}

static const struct carried *find_carried(int level, int name)
{
	for (unsigned i = 0; i < N_CARRIED; i++) {
		if (level == carried[i].level && name == carried[i].name)
			return &carried[i];
	}
	return NULL;
}

int sw_option_int(int fd, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof value;

	return sw_libc.getsockopt(fd, level, name, &value, &len) ? -1 : value;
}

static uint64_t read_timeout(int fd, int name)
{
	struct timeval t = {0};
	socklen_t len = sizeof t;

	if (sw_libc.getsockopt(fd, SOL_SOCKET, name, &t, &len))
		return 0;
	return (uint64_t)t.tv_sec * SD_S + (uint64_t)t.tv_usec * SD_US;
}

static void read_linger(struct sw_sock *s)
{
	socklen_t len = sizeof s->linger;

	if (sw_libc.getsockopt(sw_sock_kernel_fd(s), SOL_SOCKET, SO_LINGER, &s->linger, &len))
		s->linger = (struct linger){0};
}

/* The kernel shows twice what was asked for. */
static int64_t read_buffer(int fd, int name)
{
	return sw_option_int(fd, SOL_SOCKET, name) / 2;
}

static void read_low(struct sw_sock *s)
{
	int low = sw_option_int(sw_sock_kernel_fd(s), SOL_SOCKET, SO_RCVLOWAT);

	s->recv_low = low > 1 ? low : 1;
}

/* A buffer that was not set keeps growing with its use. */
static void read_buffers(struct sw_sock *s)
{
	int locked = sw_option_int(sw_sock_kernel_fd(s), SOL_SOCKET, OPT_SO_BUF_LOCK);

	if (locked <= 0)
		return;
	if (locked & OPT_SNDBUF_LOCKED)
		s->options.send_buffer = read_buffer(sw_sock_kernel_fd(s), SO_SNDBUF);
	if (locked & OPT_RCVBUF_LOCKED)
		s->options.recv_buffer = read_buffer(sw_sock_kernel_fd(s), SO_RCVBUF);
}

/* --- what is not --- */

/* Any value but zero. What changes only how the kernel queues or marks packets is not here. */
static const struct {
	int level, name;
} kernels_own[] = {
	{IPPROTO_TCP, TCP_MD5SIG},
	{IPPROTO_TCP, TCP_MD5SIG_EXT},
	{IPPROTO_TCP, OPT_TCP_AO_ADD_KEY},
	{IPPROTO_TCP, TCP_REPAIR},
	{IPPROTO_TCP, TCP_ULP},
	{IPPROTO_TCP, TCP_FASTOPEN_CONNECT},
	{IPPROTO_TCP, TCP_SAVE_SYN},
	{IPPROTO_TCP, TCP_INQ},
	{IPPROTO_TCP, TCP_TX_DELAY},
	{SOL_SOCKET, SO_ATTACH_FILTER},
	{SOL_SOCKET, SO_ATTACH_BPF},
	{SOL_SOCKET, SO_ZEROCOPY},
	{SOL_SOCKET, SO_TXTIME},
	{SOL_SOCKET, SO_TIMESTAMP},
	{SOL_SOCKET, SO_TIMESTAMPNS},
	{SOL_SOCKET, SO_TIMESTAMPING},
	{SOL_SOCKET, OPT_SO_TIMESTAMP_NEW},
	{SOL_SOCKET, OPT_SO_TIMESTAMPNS_NEW},
	{SOL_SOCKET, OPT_SO_TIMESTAMPING_NEW},
	{IPPROTO_IP, IP_TRANSPARENT},
	{IPPROTO_IP, IP_OPTIONS},
	{IPPROTO_IP, IP_MINTTL},
	{IPPROTO_IP, IP_IPSEC_POLICY},
	{IPPROTO_IP, IP_XFRM_POLICY},
	{IPPROTO_IPV6, IPV6_TRANSPARENT},
	{IPPROTO_IPV6, OPT_IPV6_MINHOPCOUNT},
	{IPPROTO_IPV6, IPV6_IPSEC_POLICY},
	{IPPROTO_IPV6, IPV6_XFRM_POLICY},
	{IPPROTO_IPV6, IPV6_HOPOPTS},
	{IPPROTO_IPV6, IPV6_RTHDR},
	{IPPROTO_IPV6, IPV6_DSTOPTS},
};

static bool is_zero(const void *value, socklen_t len)
{
	const char *p = value;

	for (socklen_t i = 0; i < len; i++) {
		if (p[i])
			return false;
	}
	return true;
}

static int first_int(const void *value, socklen_t len, int otherwise)
{
	int v = otherwise;

	if (len >= sizeof v)
		memcpy(&v, value, sizeof v);
	return v;
}

static bool is_san_netdev(const char *name)
{
	for (unsigned i = 0; sw_rt.cfg && i < sw_rt.cfg->n_ports; i++) {
		if (!strcmp(sw_rt.cfg->ports[i].netdev, name))
			return true;
	}
	return false;
}

static bool is_other_device(const void *value, socklen_t len)
{
	char name[IF_NAMESIZE] = {0};

	memcpy(name, value, len < sizeof name ? len : sizeof name - 1);
	return *name && !is_san_netdev(name);
}

static bool is_other_index(int index)
{
	char name[IF_NAMESIZE];

	return index > 0 && (!if_indextoname((unsigned)index, name) || !is_san_netdev(name));
}

bool sw_options_bind_to_kernel(int level, int name, const void *value, socklen_t len)
{
	if (!value || !len)
		return false;
	if (level == SOL_SOCKET && name == SO_BINDTODEVICE)
		return is_other_device(value, len);
	if (level == SOL_SOCKET && name == SO_BINDTOIFINDEX)
		return is_other_index(first_int(value, len, 0));
	if (level == SOL_SOCKET && name == SO_PEEK_OFF)
		return first_int(value, len, -1) >= 0;
	if (level == SOL_SOCKET && name == SO_MAX_PACING_RATE)
		return first_int(value, len, -1) != -1; /* ~0: unlimited */
	for (unsigned i = 0; i < sizeof kernels_own / sizeof *kernels_own; i++) {
		if (level == kernels_own[i].level && name == kernels_own[i].name)
			return !is_zero(value, len);
	}
	return false;
}

/* Those that a listener may have brought from a program that was executed before (socket activation). */
static void read_bound(struct sw_sock *s)
{
	char device[IF_NAMESIZE] = {0};
	socklen_t len = sizeof device;
	bool v6 = s->domain == AF_INET6;

	if (!sw_libc.getsockopt(sw_sock_kernel_fd(s), SOL_SOCKET, SO_BINDTODEVICE, device, &len) &&
		is_other_device(device, sizeof device))
		s->kernel_bound = true;
	if (sw_option_int(sw_sock_kernel_fd(s), v6 ? IPPROTO_IPV6 : IPPROTO_IP,
		    v6 ? IPV6_TRANSPARENT : IP_TRANSPARENT) > 0)
		s->kernel_bound = true;
}

/* --- from the kernel's socket --- */

void sw_options_read(struct sw_sock *s)
{
	int saved_errno = errno;
	bool listener = s->state == SW_LISTENING;

	if (s->known && !listener)
		return; /* mirrored all along */

	for (unsigned i = 0; i < N_CARRIED; i++) {
		if (i == FIRST_KEEP && !listener && s->options.keepalive <= 0)
			break;
		*field_of(&s->options, &carried[i]) =
			sw_option_int(sw_sock_kernel_fd(s), carried[i].level, carried[i].name);
	}
	read_buffers(s);
	read_linger(s);
	read_low(s);
	s->recv_timeout_ns = read_timeout(sw_sock_kernel_fd(s), SO_RCVTIMEO);
	s->send_timeout_ns = read_timeout(sw_sock_kernel_fd(s), SO_SNDTIMEO);
	if (listener)
		read_bound(s);
	errno = saved_errno;
}

void sw_options_apply(struct sw_sock *s)
{
	if (s->ep)
		s->ep->ops->set_options(s->ep, &s->options);
}

static void tell_endpoint(struct sw_sock *s, const struct pv_options *changed)
{
	if (s->ep)
		s->ep->ops->set_options(s->ep, changed);
}

static void mirror_buffer(struct sw_sock *s, int name)
{
	struct pv_options changed = PV_OPTIONS_NONE;

	if (name == SO_SNDBUF)
		s->options.send_buffer = changed.send_buffer = read_buffer(sw_sock_kernel_fd(s), name);
	else
		s->options.recv_buffer = changed.recv_buffer = read_buffer(sw_sock_kernel_fd(s), name);
	tell_endpoint(s, &changed);
}

static void mirror_socket(struct sw_sock *s, int name)
{
	switch (name) {
	case SO_SNDBUF:
	case SO_SNDBUFFORCE:
		mirror_buffer(s, SO_SNDBUF);
		break;
	case SO_RCVBUF:
	case SO_RCVBUFFORCE:
		mirror_buffer(s, SO_RCVBUF);
		break;
	case SO_LINGER:
		read_linger(s);
		break;
	case SO_RCVLOWAT:
		read_low(s);
		sw_sock_wake(s, PV_IN); /* what is there may be enough now */
		break;
	case SO_RCVTIMEO:
	case OPT_SO_RCVTIMEO_NEW:
		s->recv_timeout_ns = read_timeout(sw_sock_kernel_fd(s), SO_RCVTIMEO);
		break;
	case SO_SNDTIMEO:
	case OPT_SO_SNDTIMEO_NEW:
		s->send_timeout_ns = read_timeout(sw_sock_kernel_fd(s), SO_SNDTIMEO);
		break;
	}
}

/* What a program that asks is told. */
static int value_of(struct sw_sock *s, const struct carried *c)
{
	int value = *field_of(&s->options, c);

	if (!sw_sock_lacks_kernel(s))
		return sw_option_int(sw_sock_kernel_fd(s), c->level, c->name);
	return value < 0 ? c->initial : value;
}

static void mirror_int(struct sw_sock *s, const struct carried *c, int value)
{
	struct pv_options changed = PV_OPTIONS_NONE;

	*field_of(&s->options, c) = *field_of(&changed, c) = value;
	/* Their values had no meaning before. */
	for (unsigned i = FIRST_KEEP; changed.keepalive > 0 && i < N_CARRIED; i++)
		*field_of(&s->options, &carried[i]) = *field_of(&changed, &carried[i]) =
			value_of(s, &carried[i]);
	tell_endpoint(s, &changed);
}

void sw_options_mirror(struct sw_sock *s, int level, int name)
{
	const struct carried *c = find_carried(level, name);
	int saved_errno = errno;

	if (c)
		mirror_int(s, c, value_of(s, c));
	if (level == SOL_SOCKET)
		mirror_socket(s, name);
	errno = saved_errno;
}

/* --- without a kernel socket --- */

int sw_options_set(struct sw_sock *s, int level, int name, const void *value, socklen_t len)
{
	const struct carried *c = find_carried(level, name);
	int v;

	if (!sw_sock_lacks_kernel(s) || !c || !value)
		return SW_KERNELS;
	if (len < sizeof v || len > INT_MAX)
		return -EINVAL;
	memcpy(&v, value, sizeof v);
	if (c->min == c->max)
		v = v != 0;
	else if (v < c->min || v > c->max)
		return -EINVAL;
	mirror_int(s, c, v);
	return 0;
}

int sw_options_get(struct sw_sock *s, int level, int name, int *value)
{
	const struct carried *c = find_carried(level, name);

	if (!sw_sock_lacks_kernel(s))
		return SW_KERNELS;
	if (c)
		*value = value_of(s, c);
	else if (level == SOL_SOCKET && name == SO_TYPE)
		*value = SOCK_STREAM;
	else if (level == SOL_SOCKET && name == SO_PROTOCOL)
		*value = IPPROTO_TCP;
	else if (level == SOL_SOCKET && name == SO_DOMAIN)
		*value = s->domain;
	else if (level == SOL_SOCKET && name == SO_ACCEPTCONN)
		*value = 0;
	else
		return SW_KERNELS;
	return 0;
}

/* --- to a fresh kernel socket --- */

static void set_timeout(int fd, int name, uint64_t ns)
{
	struct timeval t = {.tv_sec = (time_t)(ns / SD_S), .tv_usec = (suseconds_t)(ns % SD_S / SD_US)};

	if (ns)
		sw_libc.setsockopt(fd, SOL_SOCKET, name, &t, sizeof t);
}

static void set_int(int fd, int level, int name, int value)
{
	sw_libc.setsockopt(fd, level, name, &value, sizeof value);
}

void sw_options_inherit(const struct sw_sock *listener, struct sw_sock *s)
{
	s->options = listener->options;
	s->linger = listener->linger;
	s->recv_low = listener->recv_low;
	s->recv_timeout_ns = listener->recv_timeout_ns;
	s->send_timeout_ns = listener->send_timeout_ns;
}

void sw_options_to_kernel(struct sw_sock *s)
{
	int saved_errno = errno, fd = sw_sock_kernel_fd(s);

	for (unsigned i = 0; i < N_CARRIED; i++) {
		int value = *field_of(&s->options, &carried[i]);

		if (value >= 0 && value != carried[i].initial)
			set_int(fd, carried[i].level, carried[i].name, value);
	}
	if (s->options.send_buffer >= 0)
		set_int(fd, SOL_SOCKET, SO_SNDBUF, (int)s->options.send_buffer);
	if (s->options.recv_buffer >= 0)
		set_int(fd, SOL_SOCKET, SO_RCVBUF, (int)s->options.recv_buffer);
	if (s->linger.l_onoff)
		sw_libc.setsockopt(fd, SOL_SOCKET, SO_LINGER, &s->linger, sizeof s->linger);
	if (s->recv_low > 1)
		set_int(fd, SOL_SOCKET, SO_RCVLOWAT, s->recv_low);
	set_timeout(fd, SO_RCVTIMEO, s->recv_timeout_ns);
	set_timeout(fd, SO_SNDTIMEO, s->send_timeout_ns);
	errno = saved_errno;
}
