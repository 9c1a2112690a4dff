/* SPDX-License-Identifier: BSD-3-Clause */
#include "two_kernels.h"

#include <fcntl.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "drivers/encap.h"

enum {
	BURST = 32,
	ROOM = 9100,
	CANARY = 0xa5,
	CANARY_LEN = 16,
	PING_MAX = 20000,
	MEETING_TIME = 5000, /* ms */
};

static int namespaces[2] = {-1, -1};
static struct miniport *ports[2];
static pthread_t wire;
static bool wire_runs;
static atomic_bool stopping;
static uint16_t wire_mtu;
static char fault[160];

/* --- hosts --- */

static bool write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return ok;
}

/* Root of a user namespace: also for the programs that we run. */
static bool become_root(void)
{
	char uid[32], gid[32];

	snprintf(uid, sizeof uid, "0 %u 1", geteuid());
	snprintf(gid, sizeof gid, "0 %u 1", getegid());
	return !unshare(CLONE_NEWUSER) && write_file("/proc/self/uid_map", uid) &&
	       write_file("/proc/self/setgroups", "deny") && write_file("/proc/self/gid_map", gid);
}

static bool new_namespace(int *fd)
{
	if (unshare(CLONE_NEWNET))
		return false;
	*fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	return *fd >= 0;
}

const char *two_kernels_begin(void)
{
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return "/dev/net/tun is not there, or may not be opened";
	close(fd);
	if (!new_namespace(&namespaces[0]) && (!become_root() || !new_namespace(&namespaces[0])))
		return "may not make network namespaces";
	if (!new_namespace(&namespaces[1]))
		return "may not make a second network namespace";
	for (unsigned host = 0; host < 2; host++)
		if (!two_kernels_ip(host, "link set lo up"))
			return "ip(8) is not there, or may not change a namespace of our own";
	return NULL;
}

void two_kernels_enter(unsigned host)
{
	if (setns(namespaces[host], CLONE_NEWNET)) {
		perror("setns");
		abort();
	}
}

bool two_kernels_ip(unsigned host, const char *format, ...)
{
	char command[256] = "ip ";
	va_list args;

	va_start(args, format);
	vsnprintf(command + 3, sizeof command - 3, format, args);
	va_end(args);
	two_kernels_enter(host);
	return !system(command);
}

struct miniport_config two_kernels_config(unsigned host)
{
	return (struct miniport_config){
		.size = sizeof(struct miniport_config),
		.name = TWO_KERNELS_NAME,
		.mac = {2, 0, 0, 0, 0x79, (uint8_t)(host + 1)},
		.mtu = 1500,
		.offloads = MINIPORT_OFFLOAD_ALL,
		.link_up = true,
	};
}

socklen_t two_kernels_addr(unsigned host, unsigned family, uint16_t port, struct sockaddr_storage *out)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};

	memset(out, 0, sizeof *out);
	if (family == 4) {
		v4.sin_addr.s_addr = htonl(0x0a4f0001 + host);
		memcpy(out, &v4, sizeof v4);
		return sizeof v4;
	}
	memcpy(&v6.sin6_addr, (uint8_t[16]){0xfd, 0x79, [15] = (uint8_t)(host + 1)}, 16);
	memcpy(out, &v6, sizeof v6);
	return sizeof v6;
}

/* --- the wire --- */

static uint32_t plain_sum(uint32_t sum, const uint8_t *p, size_t len)
{
	uint64_t wide = sum;

	for (size_t i = 0; i + 1 < len; i += 2)
		wide += (uint32_t)p[i] << 8 | p[i + 1];
	if (len % 2)
		wide += (uint32_t)p[len - 1] << 8;
	while (wide >> 16)
		wide = (wide & 0xffff) + (wide >> 16);
	return (uint32_t)wide;
}

static unsigned get16(const uint8_t *p)
{
	return (unsigned)p[0] << 8 | p[1];
}

/* Are the sums of a TCP, UDP or ICMPv6 packet without options and fragments right? True for all others. */
static bool sums_right(const uint8_t *frame, size_t len)
{
	bool tagged = get16(frame + 12) == 0x8100;
	const uint8_t *ip = frame + (tagged ? 18 : 14);
	unsigned type = get16(ip - 2), proto, l4_len;
	uint8_t tail[4] = {0};
	uint32_t sum;

	if (type == 0x0800 && ip[0] == 0x45) {
		if (plain_sum(0, ip, 20) != 0xffff)
			return false;
		proto = ip[9];
		l4_len = get16(ip + 2) - 20;
		if (get16(ip + 6) & 0x3fff || (proto != IPPROTO_TCP && proto != IPPROTO_UDP))
			return true;
		sum = plain_sum(0, ip + 12, 8);
		ip += 20;
	} else if (type == 0x86dd) {
		proto = ip[6];
		l4_len = get16(ip + 4);
		if (proto != IPPROTO_TCP && proto != IPPROTO_UDP && proto != IPPROTO_ICMPV6)
			return true;
		sum = plain_sum(0, ip + 8, 32);
		ip += 40;
	} else {
		return true;
	}
	tail[1] = (uint8_t)proto;
	tail[2] = (uint8_t)(l4_len >> 8);
	tail[3] = (uint8_t)l4_len;
	return ip + l4_len <= frame + len && plain_sum(plain_sum(sum, tail, 4), ip, l4_len) == 0xffff;
}

static void complain(const char *what, const struct port_frame *f)
{
	if (!*fault)
		snprintf(fault, sizeof fault, "%s: %u bytes, type %04x, protocol %u or %u", what, f->len,
			get16(f->data + 12), f->data[23], f->data[20]);
}

static void inspect(struct port_frame *f, uint32_t room)
{
	size_t most = 14u + wire_mtu + (get16(f->data + 12) == 0x8100 ? 4 : 0);

	for (unsigned i = 0; i < CANARY_LEN; i++)
		if (f->data[room + i] != CANARY)
			complain("written behind its room", f);
	if (f->len < 60 || f->len > most)
		complain("no frame for this port", f);
	if (f->flags & PORT_TX_CSUM)
		encap_finish_offload(f->data, f->len);
	if (!sums_right(f->data, f->len))
		complain("a wrong checksum", f);
}

static unsigned carry(struct miniport *from, struct miniport *to)
{
	static uint8_t memory[BURST][ROOM + CANARY_LEN];
	uint32_t room = wire_mtu + 64u;
	struct port_frame frames[BURST];
	unsigned n;

	for (unsigned i = 0; i < BURST; i++) {
		memset(memory[i] + room, CANARY, CANARY_LEN);
		frames[i] = (struct port_frame){.data = memory[i], .len = room};
	}
	n = miniport_from_kernel(from, frames, BURST);
	for (unsigned i = 0; i < n; i++) {
		inspect(&frames[i], room);
		frames[i].flags = PORT_RX_CSUM_OK;
	}
	miniport_to_kernel(to, frames, n);
	return n;
}

static void *run_wire(void *arg)
{
	while (!atomic_load(&stopping)) {
		struct pollfd fds[2] = {
			{.fd = miniport_fd(ports[0]), .events = POLLIN},
			{.fd = miniport_fd(ports[1]), .events = POLLIN},
		};

		if (!(carry(ports[0], ports[1]) + carry(ports[1], ports[0])))
			poll(fds, 2, 10);
	}
	return NULL;
}

void two_kernels_start(void)
{
	*fault = '\0';
	atomic_store(&stopping, false);
	if (pthread_create(&wire, NULL, run_wire, NULL))
		abort();
	wire_runs = true;
}

const char *two_kernels_stop(void)
{
	atomic_store(&stopping, true);
	if (wire_runs)
		pthread_join(wire, NULL);
	wire_runs = false;
	return *fault ? fault : NULL;
}

struct miniport *two_kernels_port(unsigned host)
{
	return ports[host];
}

static void configure(unsigned host)
{
	if (!two_kernels_ip(host, "link set " TWO_KERNELS_NAME " up") ||
		!two_kernels_ip(host, "addr add 10.79.0.%u/24 dev " TWO_KERNELS_NAME, host + 1) ||
		!two_kernels_ip(host, "addr add fd79::%u/64 dev " TWO_KERNELS_NAME " nodad", host + 1)) {
		fprintf(stderr, "cannot configure host %u\n", host);
		abort();
	}
}

void two_kernels_open(uint16_t mtu, uint32_t offloads, uint32_t port_caps)
{
	uint64_t give_up = sd_clock_ns() + MEETING_TIME * SD_MS;

	wire_mtu = mtu;
	for (unsigned host = 0; host < 2; host++) {
		struct miniport_config cfg = two_kernels_config(host);
		char err[200] = "";

		cfg.mtu = mtu;
		cfg.offloads = offloads;
		cfg.port_caps = port_caps;
		two_kernels_enter(host);
		if (miniport_open(&cfg, &ports[host], err, sizeof err)) {
			fprintf(stderr, "%s\n", err);
			abort();
		}
		configure(host);
	}
	two_kernels_start();
	/* The kernel brings a link's IPv6 to life some time after the link itself. */
	while (sd_clock_ns() < give_up && !(two_kernels_ping(4, 56, 200) && two_kernels_ping(6, 56, 200)))
		usleep(10000);
}

void two_kernels_close(void)
{
	two_kernels_stop();
	for (unsigned host = 0; host < 2; host++) {
		if (ports[host])
			miniport_close(ports[host]);
		ports[host] = NULL;
	}
}

/* --- echo --- */

/* Fills in a request; all that its answer repeats begins at the fifth byte. */
static void fill_echo(uint8_t *p, size_t len, unsigned family)
{
	static uint16_t count;
	uint16_t id = (uint16_t)getpid();

	count++;
	memset(p, 0, 8);
	p[0] = family == 4 ? ICMP_ECHO : ICMP6_ECHO_REQUEST;
	memcpy(p + 4, &id, 2);
	memcpy(p + 6, &count, 2);
	for (size_t i = 8; i < len; i++)
		p[i] = (uint8_t)(i * 7 + count + (i >> 8));
	if (family == 4) { /* the kernel does it for ICMPv6 */
		uint32_t sum = ~plain_sum(0, p, len) & 0xffff;

		p[2] = (uint8_t)(sum >> 8);
		p[3] = (uint8_t)sum;
	}
}

bool two_kernels_ping(unsigned family, size_t len, unsigned timeout_ms)
{
	static uint8_t request[PING_MAX], answer[PING_MAX + 60];
	uint64_t give_up = sd_clock_ns() + timeout_ms * SD_MS;
	struct sockaddr_storage peer;
	socklen_t peer_len = two_kernels_addr(1, family, 0, &peer);
	size_t skip = family == 4 ? 20 : 0; /* raw IPv4 sockets show the header */
	bool came = false;
	int fd;

	two_kernels_enter(0);
	fd = socket(family == 4 ? AF_INET : AF_INET6, SOCK_RAW | SOCK_CLOEXEC,
		family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
	len += 8;
	fill_echo(request, len, family);
	if (fd < 0 || sendto(fd, request, len, 0, (struct sockaddr *)&peer, peer_len) != (ssize_t)len) {
		if (fd >= 0)
			close(fd);
		return false;
	}
	while (!came && sd_clock_ns() < give_up) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t n;

		if (poll(&p, 1, 10) <= 0)
			continue;
		n = recv(fd, answer, sizeof answer, MSG_DONTWAIT);
		came = n == (ssize_t)(len + skip) &&
		       answer[skip] == (family == 4 ? ICMP_ECHOREPLY : ICMP6_ECHO_REPLY) &&
		       !memcmp(answer + skip + 4, request + 4, len - 4);
	}
	close(fd);
	return came;
}
