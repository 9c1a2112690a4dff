/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The kernel's view of a port. Without arguments: the interface itself, and frames of every odd kind; a
 * socket takes the place of /dev/net/tun for those that the kernel would not send. With an MTU: two kernels
 * that speak TCP, UDP and ICMP with each other.
 */
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/crc32c.h"
#include "base/rng.h"
#include "drivers/encap.h"
#include "drivers/gso.h"
#include "two_kernels.h"

enum {
	SKIPPED = 77,
	TIMEOUT = 8000, /* ms */
	TRANSFER = 64 << 20,
	BLOCK = 1 << 20,
	CHUNK = 256 << 10,
	PORT = 7000,
	ROOM = 1600,
	ODD_PACKETS = 30000,
};

/* --- what the kernel says of the interface --- */

static struct ifreq ask(unsigned host, unsigned long what)
{
	struct ifreq req = {.ifr_name = TWO_KERNELS_NAME};
	int fd;

	two_kernels_enter(host);
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	assert_true(fd >= 0);
	assert_int_equal(ioctl(fd, what, &req), 0);
	close(fd);
	return req;
}

static bool exists(unsigned host)
{
	two_kernels_enter(host);
	return if_nametoindex(TWO_KERNELS_NAME);
}

static bool has_text(unsigned host, const char *command, const char *text)
{
	char out[4096] = "";
	size_t n;
	FILE *f;

	two_kernels_enter(host);
	f = popen(command, "r");
	assert_non_null(f);
	n = fread(out, 1, sizeof out - 1, f);
	out[n] = '\0';
	pclose(f);
	return strstr(out, text);
}

static struct miniport *open_one(const struct miniport_config *cfg)
{
	struct miniport *m = NULL;
	char err[200] = "";
	int e;

	two_kernels_enter(0);
	e = miniport_open(cfg, &m, err, sizeof err);
	if (e)
		fail_msg("%s (%s)", err, strerror(-e));
	return m;
}

/* --- the interface --- */

static void makes_the_interface(void **state)
{
	struct miniport_config cfg = two_kernels_config(0);
	struct miniport *m;
	struct ifreq req;

	cfg.mtu = 4321;
	m = open_one(&cfg);
	req = ask(0, SIOCGIFHWADDR);
	assert_memory_equal(req.ifr_hwaddr.sa_data, cfg.mac, 6);
	req = ask(0, SIOCGIFMTU);
	assert_int_equal(req.ifr_mtu, 4321);
	req = ask(0, SIOCGIFINDEX);
	assert_int_equal(miniport_index(m), req.ifr_ifindex);
	req = ask(0, SIOCGIFFLAGS);
	assert_false(req.ifr_flags & IFF_UP); /* that is the administrator's */
	assert_true(miniport_fd(m) >= 0);
	assert_false(miniport_is_gone(m));
	miniport_close(m);
	assert_false(exists(0));
}

static void refuses_names(void **state)
{
	static const char *const names[] = {
		NULL, "", "a/b", "a:b", "san 0", "san%d", ".", "..", "sixteen-bytes-xx", "san0\n"};
	struct miniport_config cfg = two_kernels_config(0);
	struct miniport *m = NULL;
	char err[200];

	two_kernels_enter(0);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		*err = '\0';
		cfg.name = names[i];
		assert_int_equal(miniport_open(&cfg, &m, err, sizeof err), -EINVAL);
		assert_true(*err);
	}
	cfg.name = "fifteen-bytes-x";
	m = open_one(&cfg);
	assert_true(if_nametoindex(cfg.name));
	miniport_close(m);
}

static void refuses_what_others_have(void **state)
{
	struct miniport_config cfg = two_kernels_config(0);
	struct miniport *m = open_one(&cfg), *other = NULL;
	char err[200] = "";

	assert_int_equal(miniport_open(&cfg, &other, err, sizeof err), -EBUSY);
	assert_true(*err);
	miniport_close(m);
	cfg.name = "lo";
	*err = '\0';
	assert_int_equal(miniport_open(&cfg, &other, err, sizeof err), -EEXIST);
	assert_true(*err);
	cfg.name = TWO_KERNELS_NAME;
	cfg.mtu = 5; /* no Ethernet: and nothing is left behind */
	cfg.persist = true;
	*err = '\0';
	assert_int_equal(miniport_open(&cfg, &other, err, sizeof err), -EINVAL);
	assert_true(*err);
	assert_false(exists(0));
	assert_null(other);
}

static void follows_the_mtu(void **state)
{
	struct miniport_config cfg = two_kernels_config(0);
	struct miniport *m = open_one(&cfg);

	assert_int_equal(miniport_set_mtu(m, 9000), 0);
	assert_int_equal(ask(0, SIOCGIFMTU).ifr_mtu, 9000);
	assert_int_equal(miniport_set_mtu(m, 5), -EINVAL);
	assert_int_equal(ask(0, SIOCGIFMTU).ifr_mtu, 9000);
	/* Its name is the administrator's affair, and so is the namespace that we are in. */
	assert_true(two_kernels_ip(0, "link set " TWO_KERNELS_NAME " name other0"));
	two_kernels_enter(1);
	assert_int_equal(miniport_set_mtu(m, 1400), 0);
	assert_true(miniport_index(m) > 0);
	assert_true(has_text(0, "ip link show dev other0", "mtu 1400"));
	miniport_close(m);
}

/* The next announcement of the carrier of interface index has to be this. */
static void await_carrier(struct mnl_socket *nl, int index, bool up)
{
	uint64_t give_up = sd_clock_ns() + TIMEOUT * SD_MS;

	while (sd_clock_ns() < give_up) {
		struct pollfd p = {.fd = mnl_socket_get_fd(nl), .events = POLLIN};
		char buffer[8192];
		const struct nlmsghdr *nlh = (const struct nlmsghdr *)buffer;
		const struct nlattr *attr;
		int n;

		if (poll(&p, 1, 100) <= 0)
			continue;
		n = (int)mnl_socket_recvfrom(nl, buffer, sizeof buffer);
		for (; mnl_nlmsg_ok(nlh, n); nlh = mnl_nlmsg_next(nlh, &n)) {
			const struct ifinfomsg *info = mnl_nlmsg_get_payload(nlh);

			if (nlh->nlmsg_type != RTM_NEWLINK || info->ifi_index != index)
				continue;
			mnl_attr_for_each(attr, nlh, sizeof *info)
			{
				if (mnl_attr_get_type(attr) == IFLA_CARRIER && mnl_attr_get_u8(attr) == up &&
					!(info->ifi_flags & IFF_RUNNING) == !up)
					return;
			}
		}
	}
	fail_msg("the carrier did not go %s", up ? "up" : "down");
}

static void follows_the_link(void **state)
{
	struct miniport_config cfg = two_kernels_config(0);
	struct mnl_socket *nl;
	struct miniport *m;
	int index;

	cfg.link_up = false;
	m = open_one(&cfg);
	index = miniport_index(m);
	nl = mnl_socket_open(NETLINK_ROUTE);
	assert_non_null(nl);
	assert_int_equal(mnl_socket_bind(nl, RTMGRP_LINK, MNL_SOCKET_AUTOPID), 0);
	assert_true(two_kernels_ip(0, "link set " TWO_KERNELS_NAME " up"));
	await_carrier(nl, index, false);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(miniport_set_link(m, true), 0);
		await_carrier(nl, index, true);
		assert_int_equal(miniport_set_link(m, false), 0);
		await_carrier(nl, index, false);
	}
	mnl_socket_close(nl);
	miniport_close(m);
}

/* The kernel tells of a carrier that is lost a little later. */
static void await_idle(void)
{
	uint64_t give_up = sd_clock_ns() + TIMEOUT * SD_MS;

	while (ask(0, SIOCGIFFLAGS).ifr_flags & IFF_RUNNING) {
		if (sd_clock_ns() > give_up)
			fail_msg("nobody has it open, and its carrier is there");
		usleep(10000);
	}
}

static void outlives_its_daemon(void **state)
{
	struct miniport_config cfg = two_kernels_config(0);
	struct miniport *m;
	int index;

	cfg.persist = true;
	m = open_one(&cfg);
	index = miniport_index(m);
	assert_true(two_kernels_ip(0, "link set " TWO_KERNELS_NAME " up"));
	assert_true(two_kernels_ip(0, "addr add 10.79.0.1/24 dev " TWO_KERNELS_NAME));
	assert_true(two_kernels_ip(0, "route add 10.80.0.0/16 via 10.79.0.2"));
	for (unsigned i = 0; i < 2; i++) {
		miniport_close(m);
		assert_true(exists(0));
		await_idle();
		cfg.mtu = (uint16_t)(1500 + i);
		cfg.mac[5] = (uint8_t)(9 + i);
		cfg.offloads = i % 2 ? MINIPORT_OFFLOAD_ALL : 0;
		m = open_one(&cfg);
		assert_int_equal(miniport_index(m), index);
		assert_int_equal(ask(0, SIOCGIFMTU).ifr_mtu, 1500 + i);
		assert_memory_equal(ask(0, SIOCGIFHWADDR).ifr_hwaddr.sa_data, cfg.mac, 6);
		assert_true(ask(0, SIOCGIFFLAGS).ifr_flags & IFF_UP);
		assert_true(has_text(0, "ip addr show dev " TWO_KERNELS_NAME, "10.79.0.1/24"));
		assert_true(has_text(0, "ip route", "10.80.0.0/16 via 10.79.0.2"));
	}
	/* From now on no more. */
	miniport_close(m);
	cfg.persist = false;
	m = open_one(&cfg);
	assert_int_equal(miniport_index(m), index);
	miniport_close(m);
	assert_false(exists(0));
}

static void notices_its_end(void **state)
{
	struct miniport_config cfg = two_kernels_config(0);
	struct miniport *m = open_one(&cfg);
	struct pollfd p = {.fd = miniport_fd(m), .events = POLLIN};
	uint8_t memory[ROOM] = {0};
	struct port_frame f = {.data = memory, .len = ROOM};
	struct miniport_stats stats;

	assert_true(two_kernels_ip(0, "link del " TWO_KERNELS_NAME));
	assert_int_equal(poll(&p, 1, TIMEOUT), 1);
	assert_int_equal(miniport_from_kernel(m, &f, 1), 0);
	assert_true(miniport_is_gone(m));
	f.len = 60;
	assert_int_equal(miniport_to_kernel(m, &f, 1), 0);
	miniport_stats(m, &stats);
	assert_int_equal(stats.up_dropped, 1);
	assert_int_equal(miniport_set_mtu(m, 1400), -ENODEV);
	assert_int_equal(miniport_set_link(m, true), -ENODEV);
	assert_int_equal(miniport_index(m), 0);
	miniport_close(m);
	m = open_one(&cfg);
	assert_true(exists(0));
	miniport_close(m);
}

static void drops_while_down(void **state)
{
	struct miniport_config cfg = two_kernels_config(0);
	struct miniport *m = open_one(&cfg);
	uint8_t memory[64] = {2, 0, 0, 0, 0x79, 1, 2, 0, 0, 0, 0x79, 2, 8, 6};
	struct port_frame frames[3] = {
		{.data = memory, .len = 60}, {.data = memory, .len = 13}, {.data = memory, .len = 60}};
	struct miniport_stats stats;

	assert_int_equal(miniport_to_kernel(m, frames, 3), 0);
	assert_true(two_kernels_ip(0, "link set " TWO_KERNELS_NAME " up"));
	assert_int_equal(miniport_to_kernel(m, frames, 3), 2); /* one is no Ethernet frame */
	miniport_stats(m, &stats);
	assert_int_equal(stats.up_frames, 2);
	assert_int_equal(stats.up_bytes, 120);
	assert_int_equal(stats.up_dropped, 4);
	miniport_close(m);
}

/* --- frames that the kernel would not send --- */

struct odd {
	struct miniport *m;
	int far; /* plays the kernel */
};

static struct odd open_odd(uint32_t port_caps)
{
	struct miniport_config cfg = two_kernels_config(0);
	struct odd o;
	int pair[2];

	cfg.port_caps = port_caps;
	o.m = open_one(&cfg);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair), 0);
	assert_true(dup2(pair[0], miniport_fd(o.m)) >= 0);
	close(pair[0]);
	o.far = pair[1];
	return o;
}

static void close_odd(struct odd *o)
{
	close(o->far);
	miniport_close(o->m);
}

static void send_odd(const struct odd *o, const struct virtio_net_hdr *hdr, const uint8_t *frame, size_t len)
{
	uint8_t packet[sizeof *hdr + 65536];

	assert_true(len <= 65536);
	memcpy(packet, hdr, sizeof *hdr);
	memcpy(packet + sizeof *hdr, frame, len);
	assert_int_equal(send(o->far, packet, sizeof *hdr + len, 0), sizeof *hdr + len);
}

/* An IPv4 packet with len bytes behind the headers, its checksum left to the NIC; the length of the frame. */
static size_t build(uint8_t *frame, bool udp, size_t len, struct virtio_net_hdr *hdr)
{
	unsigned l4_hdr = udp ? 8 : 20, proto = udp ? 17 : 6, total = (unsigned)(20 + l4_hdr + len);
	uint8_t *ip = frame + 14, *l4 = ip + 20;
	uint16_t sum;

	memset(frame, 0, 34 + l4_hdr);
	memcpy(frame, (uint8_t[]){2, 0, 0, 0, 0x79, 2, 2, 0, 0, 0, 0x79, 1, 8, 0}, 14);
	memcpy(ip,
		(uint8_t[]){0x45, 0, (uint8_t)(total >> 8), (uint8_t)total, 0, 1, 0x40, 0, 64, (uint8_t)proto,
			0, 0, 10, 79, 0, 1, 10, 79, 0, 2},
		20);
	sum = (uint16_t)~encap_csum_fold(encap_csum_add(0, ip, 20));
	memcpy(ip + 10, &sum, 2);
	memcpy(l4, (uint8_t[]){0x20, 0, 0x1e, 0x43}, 4); /* not the SAN's */
	if (udp)
		memcpy(l4 + 4, (uint8_t[]){(uint8_t)((8 + len) >> 8), (uint8_t)(8 + len)}, 2);
	else
		l4[12] = 0x50;
	sum = encap_csum_fold(encap_csum_add(
		htons((uint16_t)proto) + (uint64_t)htons((uint16_t)(l4_hdr + len)), ip + 12, 8));
	memcpy(l4 + (udp ? 6 : 16), &sum, 2);
	for (size_t i = 0; i < len; i++)
		l4[l4_hdr + i] = (uint8_t)(i * 3 + (i >> 8));
	*hdr = (struct virtio_net_hdr){.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.hdr_len = (uint16_t)(34 + l4_hdr),
		.csum_start = 34,
		.csum_offset = udp ? 6 : 16};
	return 14 + total;
}

static void leaves_sums_to_the_port(void **state)
{
	struct odd o = open_odd(PORT_CAP_TX_CSUM);
	uint8_t frame[ROOM], memory[ROOM], finished[ROOM];
	struct port_frame f;
	struct virtio_net_hdr hdr;
	struct miniport_stats stats;
	size_t len = build(frame, true, 500, &hdr);

	memcpy(finished, frame, len);
	assert_int_equal(gso_finish_csum(finished, len, 34, 6), 0);
	/* What a port can finish. */
	f = (struct port_frame){.data = memory, .len = ROOM, .flags = 99};
	send_odd(&o, &hdr, frame, len);
	assert_int_equal(miniport_from_kernel(o.m, &f, 1), 1);
	assert_int_equal(f.len, len);
	assert_int_equal(f.flags, PORT_TX_CSUM);
	assert_memory_equal(memory, frame, len);
	encap_finish_offload(memory, len);
	assert_memory_equal(memory, finished, len);
	/* The same when it can no longer. */
	miniport_set_caps(o.m, 0);
	f = (struct port_frame){.data = memory, .len = ROOM, .flags = 99};
	send_odd(&o, &hdr, frame, len);
	assert_int_equal(miniport_from_kernel(o.m, &f, 1), 1);
	assert_int_equal(f.flags, 0);
	assert_memory_equal(memory, finished, len);
	/* TCP's is ours always. */
	miniport_set_caps(o.m, PORT_CAP_TX_CSUM);
	len = build(frame, false, 500, &hdr);
	f = (struct port_frame){.data = memory, .len = ROOM, .flags = 99};
	send_odd(&o, &hdr, frame, len);
	assert_int_equal(miniport_from_kernel(o.m, &f, 1), 1);
	assert_int_equal(f.flags, 0);
	gso_finish_csum(frame, len, 34, 16);
	assert_memory_equal(memory, frame, len);
	miniport_stats(o.m, &stats);
	assert_int_equal(stats.summed, 2);
	assert_int_equal(stats.down_frames, 3);
	close_odd(&o);
}

static void tells_the_kernel_of_good_sums(void **state)
{
	static const struct {
		uint32_t flags;
		uint8_t said;
	} cases[] = {{0, 0}, {PORT_RX_CSUM_OK, VIRTIO_NET_HDR_F_DATA_VALID}, {PORT_RX_CSUM_BAD, 0},
		{PORT_RX_CSUM_OK | PORT_RX_CSUM_BAD, 0}};
	struct odd o = open_odd(0);
	uint8_t frame[ROOM], got[ROOM];
	struct virtio_net_hdr hdr;
	size_t len = build(frame, true, 100, &hdr);

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct port_frame f = {.data = frame, .len = (uint32_t)len, .flags = cases[i].flags};

		assert_int_equal(miniport_to_kernel(o.m, &f, 1), 1);
		assert_int_equal(recv(o.far, got, sizeof got, 0), sizeof hdr + len);
		memcpy(&hdr, got, sizeof hdr);
		assert_int_equal(hdr.flags, cases[i].said);
		assert_int_equal(hdr.gso_type, VIRTIO_NET_HDR_GSO_NONE);
		assert_memory_equal(got + sizeof hdr, frame, len);
	}
	close_odd(&o);
}

/* A kernel that takes nothing any more: frames are dropped, and nobody waits. */
static void never_waits(void **state)
{
	struct odd o = open_odd(0);
	uint8_t frame[ROOM] = {0};
	struct port_frame f = {.data = frame, .len = 1514};
	struct miniport_stats stats;
	unsigned took = 0;

	for (unsigned i = 0; i < 10000; i++)
		took += miniport_to_kernel(o.m, &f, 1);
	miniport_stats(o.m, &stats);
	assert_in_range(took, 1, 9999);
	assert_int_equal(stats.up_frames, took);
	assert_int_equal(stats.up_dropped, 10000 - took);
	f.len = ROOM;
	assert_int_equal(miniport_from_kernel(o.m, &f, 1), 0);
	assert_int_equal(f.len, ROOM);
	close_odd(&o);
}

/* However many frames there are at a time, the segments come one after the other. */
static void continues_large_packets(void **state)
{
	enum { LEN = 60000, SIZE = 1448 };
	struct odd o = open_odd(0);
	uint8_t *frame = malloc(65536), *got = malloc(65536);

	assert_non_null(frame);
	assert_non_null(got);
	for (unsigned at_once = 1; at_once <= 7; at_once++) {
		static uint8_t memory[8][ROOM];
		struct virtio_net_hdr hdr;
		size_t len = build(frame, false, LEN, &hdr), total = 0;
		struct miniport_stats stats;
		unsigned n;

		hdr.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
		hdr.gso_size = SIZE;
		send_odd(&o, &hdr, frame, len);
		len = build(frame, true, 10, &hdr); /* another one behind it */
		send_odd(&o, &hdr, frame, len);
		do {
			struct port_frame frames[8];

			for (unsigned i = 0; i < at_once; i++)
				frames[i] = (struct port_frame){.data = memory[i], .len = ROOM};
			n = miniport_from_kernel(o.m, frames, at_once);
			for (unsigned i = 0; i < n; i++) {
				if (memory[i][23] == 17) {
					assert_int_equal(total, LEN); /* after the last segment */
					continue;
				}
				memcpy(got + total, memory[i] + 54, frames[i].len - 54);
				total += frames[i].len - 54;
			}
			for (unsigned i = n; i < at_once; i++)
				assert_int_equal(frames[i].len, ROOM);
		} while (n == at_once);
		assert_int_equal(total, LEN);
		build(frame, false, LEN, &hdr);
		assert_memory_equal(got, frame + 54, LEN);
		miniport_stats(o.m, &stats);
		assert_int_equal(stats.cut, at_once);
		assert_int_equal(stats.down_dropped, 0);
	}
	free(frame);
	free(got);
	close_odd(&o);
}

/* What is too long for the port is lost and counted, and the next frame comes all the same. */
static void drops_what_is_too_long(void **state)
{
	static const size_t lengths[] = {1500 - 28 + 1, 1600, 4000, 65000};
	struct odd o = open_odd(0);
	uint8_t *frame = malloc(65536 + 64), memory[2 * ROOM];
	struct miniport_stats stats;
	struct virtio_net_hdr hdr;
	unsigned dropped = 0;
	size_t len;

	assert_non_null(frame);
	for (size_t i = 0; i < 2 * sizeof lengths / sizeof *lengths; i++) {
		struct port_frame f = {.data = memory, .len = i % 2 ? ROOM : sizeof memory};

		len = build(frame, true, lengths[i / 2], &hdr);
		send_odd(&o, &hdr, frame, len);
		assert_int_equal(miniport_from_kernel(o.m, &f, 1), 0);
		len = build(frame, true, 1500 - 28, &hdr);
		send_odd(&o, &hdr, frame, len);
		assert_int_equal(miniport_from_kernel(o.m, &f, 1), 1);
		assert_int_equal(f.len, 1514);
		dropped++;
	}
	/* Segments too. */
	len = build(frame, false, 9000, &hdr);
	hdr.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
	for (unsigned size = 1459; size <= 1461; size++) {
		struct port_frame frames[8];
		static uint8_t rooms[8][ROOM];

		for (unsigned i = 0; i < 8; i++)
			frames[i] = (struct port_frame){.data = rooms[i], .len = ROOM};
		hdr.gso_size = (uint16_t)size;
		send_odd(&o, &hdr, frame, len);
		assert_int_equal(miniport_from_kernel(o.m, frames, 8), size <= 1460 ? 7 : 0);
		dropped += size > 1460;
	}
	miniport_stats(o.m, &stats);
	assert_int_equal(stats.down_dropped, dropped);
	/* Room that is too small for the MTU. */
	{
		struct port_frame f = {.data = memory, .len = 100};

		hdr.gso_size = 1448;
		send_odd(&o, &hdr, frame, len);
		assert_int_equal(miniport_from_kernel(o.m, &f, 1), 0);
		assert_int_equal(f.len, 100);
		f.len = ROOM;
		assert_int_equal(miniport_from_kernel(o.m, &f, 1), 0);
	}
	free(frame);
	close_odd(&o);
}

/* Any bytes at all; the memory of each frame is exactly as large as it says. */
static void survives_anything(void **state)
{
	struct odd o = open_odd(PORT_CAP_TX_CSUM);
	uint8_t *frame = malloc(70000);
	unsigned came = 0;
	struct sd_rng rng;

	assert_non_null(frame);
	sd_rng_seed(&rng, 17);
	for (unsigned i = 0; i < ODD_PACKETS; i++) {
		size_t room = sd_rng_below(&rng, 8) ? 1564 : sd_rng_below(&rng, 1564);
		struct port_frame f = {.data = malloc(room ? room : 1), .len = (uint32_t)room};
		struct virtio_net_hdr hdr;
		size_t len = build(frame, sd_rng_below(&rng, 2), sd_rng_below(&rng, 3000), &hdr);

		assert_non_null(f.data);
		hdr.gso_type = (uint8_t[]){0, 1, 4, 5, 3, 0x81, 77, 0}[sd_rng_below(&rng, 8)];
		hdr.gso_size = (uint16_t)sd_rng_below(&rng, sd_rng_below(&rng, 2) ? 1500 : 65536);
		for (uint64_t flips = sd_rng_below(&rng, 4); flips; flips--)
			frame[12 + sd_rng_below(&rng, 50)] = (uint8_t)sd_rng_next(&rng);
		if (!sd_rng_below(&rng, 3))
			((uint8_t *)&hdr)[sd_rng_below(&rng, sizeof hdr)] = (uint8_t)sd_rng_next(&rng);
		if (!sd_rng_below(&rng, 4))
			len = sd_rng_below(&rng, len + 1);
		if (sd_rng_below(&rng, 50))
			send_odd(&o, &hdr, frame, len);
		else /* not even the header */
			assert_true(send(o.far, frame, sd_rng_below(&rng, sizeof hdr) + 1, 0) > 0);
		while (miniport_from_kernel(o.m, &f, 1)) {
			assert_true(f.len <= room && f.len <= 1522);
			came++;
			f.len = (uint32_t)room;
		}
		assert_int_equal(f.len, room);
		free(f.data);
	}
	assert_true(came > ODD_PACKETS / 20);
	free(frame);
	close_odd(&o);
}

/* --- two kernels --- */

static uint16_t mtu;
static uint8_t *pattern; /* 2 * BLOCK: a piece that begins anywhere in the first half is there in one */

struct transfer {
	int fd;
	uint32_t crc;
	uint64_t bytes;
};

static void *send_all(void *arg)
{
	struct transfer *t = arg;

	while (t->bytes < TRANSFER) {
		const uint8_t *at = pattern + t->bytes * 7 / 3 % BLOCK;
		size_t want = TRANSFER - t->bytes < CHUNK ? TRANSFER - t->bytes : CHUNK;
		ssize_t n = send(t->fd, at, want, MSG_NOSIGNAL);

		if (n <= 0)
			break;
		t->crc = sd_crc32c(t->crc, at, (size_t)n);
		t->bytes += (uint64_t)n;
	}
	shutdown(t->fd, SHUT_WR);
	return NULL;
}

static void receive_all(struct transfer *t)
{
	uint8_t *buffer = malloc(CHUNK);
	ssize_t n;

	assert_non_null(buffer);
	while ((n = recv(t->fd, buffer, CHUNK, 0)) > 0) {
		t->crc = sd_crc32c(t->crc, buffer, (size_t)n);
		t->bytes += (uint64_t)n;
	}
	assert_int_equal(n, 0);
	free(buffer);
}

static int new_socket(unsigned host, unsigned family, int type)
{
	struct timeval limit = {.tv_sec = TIMEOUT / 1000};
	int fd;

	two_kernels_enter(host);
	fd = socket(family == 4 ? AF_INET : AF_INET6, type | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
	return fd;
}

static void connect_both(unsigned family, const char *device, int *from, int *to)
{
	struct sockaddr_storage name;
	socklen_t len = two_kernels_addr(1, family, PORT, &name);
	int listener = new_socket(1, family, SOCK_STREAM);

	assert_int_equal(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)), 0);
	if (device) {
		memset(&name, 0, sizeof name);
		((struct sockaddr_in *)&name)->sin_family = AF_INET;
		((struct sockaddr_in *)&name)->sin_port = htons(PORT);
		((struct sockaddr_in *)&name)->sin_addr.s_addr = htonl(0x0a510002);
	}
	assert_int_equal(bind(listener, (struct sockaddr *)&name, len), 0);
	assert_int_equal(listen(listener, 1), 0);
	*from = new_socket(0, family, SOCK_STREAM);
	assert_int_equal(connect(*from, (struct sockaddr *)&name, len), 0);
	*to = accept(listener, NULL, NULL);
	assert_true(*to >= 0);
	assert_int_equal(setsockopt(*to, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){TIMEOUT / 1000, 0},
				 sizeof(struct timeval)),
		0);
	close(listener);
}

static void transfer(unsigned family, const char *device)
{
	struct transfer out = {0}, in = {0};
	uint64_t start = sd_clock_ns();
	pthread_t sender;

	connect_both(family, device, &out.fd, &in.fd);
	assert_int_equal(pthread_create(&sender, NULL, send_all, &out), 0);
	receive_all(&in);
	pthread_join(sender, NULL);
	assert_int_equal(out.bytes, TRANSFER);
	assert_int_equal(in.bytes, TRANSFER);
	assert_int_equal(in.crc, out.crc);
	close(out.fd);
	close(in.fd);
	print_message("64 MiB, IPv%u, MTU %u%s: %llu ms\n", family, mtu, device ? ", VLAN" : "",
		(unsigned long long)((sd_clock_ns() - start) / SD_MS));
}

static void finish(struct miniport_stats stats[2])
{
	const char *fault = two_kernels_stop();

	if (fault)
		fail_msg("%s", fault);
	for (unsigned host = 0; host < 2; host++)
		miniport_stats(two_kernels_port(host), &stats[host]);
	two_kernels_close();
	assert_int_equal(stats[0].down_dropped + stats[1].down_dropped, 0);
	assert_int_equal(stats[0].up_dropped + stats[1].up_dropped, 0);
}

static void carries_tcp(uint32_t offloads, uint32_t port_caps)
{
	struct miniport_stats stats[2];

	two_kernels_open(mtu, offloads, port_caps);
	transfer(4, NULL);
	transfer(6, NULL);
	finish(stats);
	if (offloads & MINIPORT_TSO)
		assert_true(stats[0].cut > 0);
	else
		assert_int_equal(stats[0].cut, 0);
	if (!(offloads & MINIPORT_CSUM))
		assert_int_equal(stats[0].summed, 0);
}

static void carries_tcp_with_tso(void **state)
{
	carries_tcp(MINIPORT_OFFLOAD_ALL, PORT_CAP_TX_CSUM);
}

static void carries_tcp_without_tso(void **state)
{
	carries_tcp(MINIPORT_CSUM, 0);
}

static void carries_tcp_without_offloads(void **state)
{
	carries_tcp(0, 0);
}

static void carries_tcp_in_a_vlan(void **state)
{
	struct miniport_stats stats[2];
	bool there = true;

	two_kernels_open(mtu, MINIPORT_OFFLOAD_ALL, PORT_CAP_TX_CSUM);
	for (unsigned host = 0; host < 2 && there; host++) {
		there = two_kernels_ip(
			host, "link add link " TWO_KERNELS_NAME " name vlan5 type vlan id 5 2>/dev/null");
		if (there) {
			assert_true(two_kernels_ip(host, "link set vlan5 up"));
			assert_true(two_kernels_ip(host, "addr add 10.81.0.%u/24 dev vlan5", host + 1));
		}
	}
	if (there)
		transfer(4, "vlan5");
	finish(stats);
	if (!there) {
		print_message("this kernel has no VLAN interfaces\n");
		skip();
	}
}

static void answers_pings(void **state)
{
	static const size_t sizes[] = {
		0, 1, 17, 18, 56, 999, 1400, 1452, 1453, 1472, 1473, 4001, 9000, 16000};
	struct miniport_stats stats[2];

	two_kernels_open(mtu, MINIPORT_OFFLOAD_ALL, 0);
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		for (unsigned family = 4; family <= 6; family += 2) {
			bool came = false;

			for (unsigned k = 0; k < 5 && !came; k++)
				came = two_kernels_ping(family, sizes[i], TIMEOUT / 5);
			if (!came)
				fail_msg("no answer to %zu bytes by IPv%u", sizes[i], family);
		}
	}
	finish(stats);
}

/* With UDP_SEGMENT the kernel sends many datagrams as one packet. */
static void carries_udp_trains(void **state)
{
	enum { DATAGRAMS = 25, SIZE = 1001, LAST = 300 };
	struct miniport_stats stats[2];

	for (unsigned round = 0; round < 4; round++) {
		unsigned family = round % 2 ? 6 : 4;
		struct sockaddr_storage name;
		socklen_t len = two_kernels_addr(1, family, PORT, &name);
		int from, to, size = SIZE;

		if (!(round % 2))
			two_kernels_open(
				mtu, round < 2 ? MINIPORT_OFFLOAD_ALL : 0, round < 2 ? PORT_CAP_TX_CSUM : 0);
		to = new_socket(1, family, SOCK_DGRAM);
		assert_int_equal(bind(to, (struct sockaddr *)&name, len), 0);
		from = new_socket(0, family, SOCK_DGRAM);
		assert_int_equal(connect(from, (struct sockaddr *)&name, len), 0);
		assert_int_equal(setsockopt(from, IPPROTO_UDP, 103 /* UDP_SEGMENT */, &size, sizeof size), 0);
		assert_int_equal(send(from, pattern, DATAGRAMS * SIZE + LAST, 0), DATAGRAMS * SIZE + LAST);
		for (unsigned i = 0; i <= DATAGRAMS; i++) {
			uint8_t got[2000];

			assert_int_equal(recv(to, got, sizeof got, 0), i < DATAGRAMS ? SIZE : LAST);
			assert_memory_equal(got, pattern + i * SIZE, i < DATAGRAMS ? SIZE : LAST);
		}
		close(from);
		close(to);
		if (round % 2) {
			finish(stats);
			print_message("%llu cut in software\n", (unsigned long long)stats[0].cut);
			if (round == 3)
				assert_int_equal(stats[0].cut, 0);
		}
	}
}

static int make_pattern(void **state)
{
	struct sd_rng rng;

	pattern = malloc(2 * BLOCK);
	if (!pattern)
		return -1;
	sd_rng_seed(&rng, 23);
	for (size_t i = 0; i < BLOCK; i++)
		pattern[i] = (uint8_t)sd_rng_next(&rng);
	memcpy(pattern + BLOCK, pattern, BLOCK);
	return 0;
}

/* A case that failed has left it running. */
static int stop_wire(void **state)
{
	two_kernels_close();
	return 0;
}

static int free_pattern(void **state)
{
	free(pattern);
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest alone[] = {
		cmocka_unit_test(makes_the_interface),
		cmocka_unit_test(refuses_names),
		cmocka_unit_test(refuses_what_others_have),
		cmocka_unit_test(follows_the_mtu),
		cmocka_unit_test(follows_the_link),
		cmocka_unit_test(outlives_its_daemon),
		cmocka_unit_test(notices_its_end),
		cmocka_unit_test(drops_while_down),
		cmocka_unit_test(leaves_sums_to_the_port),
		cmocka_unit_test(tells_the_kernel_of_good_sums),
		cmocka_unit_test(never_waits),
		cmocka_unit_test(continues_large_packets),
		cmocka_unit_test(drops_what_is_too_long),
		cmocka_unit_test(survives_anything),
	};
	const struct CMUnitTest together[] = {
		cmocka_unit_test_teardown(answers_pings, stop_wire),
		cmocka_unit_test_teardown(carries_udp_trains, stop_wire),
		cmocka_unit_test_teardown(carries_tcp_with_tso, stop_wire),
		cmocka_unit_test_teardown(carries_tcp_without_tso, stop_wire),
		cmocka_unit_test_teardown(carries_tcp_without_offloads, stop_wire),
		cmocka_unit_test_teardown(carries_tcp_in_a_vlan, stop_wire),
	};
	const char *why = two_kernels_begin();

	if (why) {
		fprintf(stderr, "skipped: %s\n", why);
		return SKIPPED;
	}
	if (argc < 2)
		return cmocka_run_group_tests_name("miniport", alone, NULL, NULL);
	mtu = (uint16_t)atoi(argv[1]);
	return cmocka_run_group_tests_name("miniport between kernels", together, make_pattern, free_pattern);
}
