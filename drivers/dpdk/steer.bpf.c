// SPDX-License-Identifier: BSD-3-Clause
/*
 * steer: the XDP program of an AF_XDP port. Of what arrives on the interface SAN packets go to the port's
 * socket, all else to the kernel, as if the port were not there; SAN packets too while nobody has it.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#define SECTION(name) __attribute__((section(name), used))
#define SAN_PORT      7747 /* PORT_UDP_PORT */
#define QUEUES	      64

static long (*redirect_map)(void *map, __u64 key, __u64 flags) = (void *)BPF_FUNC_redirect_map;

/* By its name net_af_xdp finds it; the types are read from the debugging information (BTF). */
struct {
	int (*type)[BPF_MAP_TYPE_XSKMAP];
	int (*max_entries)[QUEUES];
	__u32 *key;
	__u32 *value;
} xsks_map SECTION(".maps");

/* The UDP header of a packet without options or extension headers, as SAN packets are; NULL: another one. */
static inline struct udphdr *udp_of(void *at, void *end)
{
	struct ethhdr *eth = at;
	struct iphdr *v4 = at + sizeof *eth;
	struct ipv6hdr *v6 = at + sizeof *eth;

	if (at + sizeof *eth + sizeof *v4 > end)
		return 0;
	if (eth->h_proto == __builtin_bswap16(ETH_P_IP))
		return v4->version == 4 && v4->ihl == 5 && v4->protocol == IPPROTO_UDP &&
				       !(v4->frag_off & __builtin_bswap16(0x3fff))
			       ? (void *)(v4 + 1)
			       : 0;
	if (at + sizeof *eth + sizeof *v6 > end)
		return 0;
	return eth->h_proto == __builtin_bswap16(ETH_P_IPV6) && v6->nexthdr == IPPROTO_UDP ? (void *)(v6 + 1)
											   : 0;
}

SECTION("xdp") int sandirect_steer(struct xdp_md *c)
{
	void *end = (void *)(long)c->data_end;
	struct udphdr *udp = udp_of((void *)(long)c->data, end);

	if (!udp || (void *)(udp + 1) > end || udp->dest != __builtin_bswap16(SAN_PORT))
		return XDP_PASS;
	return redirect_map(&xsks_map, c->rx_queue_index, XDP_PASS);
}

char terms[] SECTION("license") = "BSD";
