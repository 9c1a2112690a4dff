/* SPDX-License-Identifier: BSD-3-Clause */
#include "drivers/dpdk/devargs.h"

#include <ctype.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/dpdk/xdp.h"

enum {
	DEFAULT_MTU = 1500,
	PACKET_FRAME_MIN = 2048,
	PACKET_OVERHEAD = 96, /* the kernel's header before a frame in the ring, and Ethernet's */
	PACKET_BLOCK = 65536,
	MEMIF_BUFFER = 2048,
	MEMIF_OVERHEAD = 64,
};

bool devargs_get(const char *device, const char *key, char *out, size_t out_len)
{
	size_t key_len = strlen(key);

	for (const char *p = strchr(device, ','); p; p = strchr(p, ',')) {
		p++;
		if (!strncmp(p, key, key_len) && p[key_len] == '=') {
			snprintf(out, out_len, "%.*s", (int)strcspn(p + key_len + 1, ","), p + key_len + 1);
			return true;
		}
	}
	return false;
}

bool devargs_is_on(const char *device, const char *key)
{
	char value[8];

	return devargs_get(device, key, value, sizeof value) && !strcmp(value, "1");
}

bool devargs_is_driver(const char *device, const char *driver)
{
	size_t len = strlen(driver);

	if (strncmp(device, driver, len))
		return false;
	while (isdigit((unsigned char)device[len]))
		len++;
	return !device[len] || device[len] == ',';
}

int devargs_check(const struct port_config *cfg, char *err, size_t err_len)
{
	char iface[IF_NAMESIZE] = "", queues[8], program[512];

	/* It settles on its queues with what answers before its peer has come (standin.h). */
	if (devargs_is_driver(cfg->device, "net_virtio_user") && devargs_is_on(cfg->device, "server") &&
		devargs_get(cfg->device, "queues", queues, sizeof queues) && strcmp(queues, "1")) {
		snprintf(err, err_len,
			"net_virtio_user with server=1 has one pair of queues; say queues=1 at both ends, or "
			"take net_sandirect_virtio");
		return -EINVAL;
	}

	if (devargs_is_driver(cfg->device, "net_tap") && !cfg->own_process) {
		snprintf(err, err_len,
			"net_tap takes a signal of the process, so programs cannot have it; use "
			"net_af_packet on the "
			"interface instead");
		return -EINVAL;
	}
	if ((devargs_is_driver(cfg->device, "net_af_packet") ||
		    devargs_is_driver(cfg->device, "net_af_xdp")) &&
		(!devargs_get(cfg->device, "iface", iface, sizeof iface) || !if_nametoindex(iface))) {
		snprintf(err, err_len, "%s: there is no interface \"%s\" here; ip link shows those there are",
			cfg->device, iface);
		return -ENODEV;
	}
	if (devargs_is_driver(cfg->device, "net_af_xdp") &&
		!devargs_get(cfg->device, "xdp_prog", program, sizeof program) &&
		xdp_program(program, sizeof program)) {
		snprintf(err, err_len,
			"Sandirect was built without its XDP program: install clang, and build it again");
		return -ENOTSUP;
	}
	return 0;
}

int devargs_complete(const struct port_config *cfg, char *out, size_t out_len)
{
	unsigned mtu = cfg->mtu ? cfg->mtu : DEFAULT_MTU, frame = PACKET_FRAME_MIN;
	const char *device = cfg->device;
	char value[16], program[512];
	int n;

	while (frame < mtu + PACKET_OVERHEAD)
		frame *= 2; /* a power of two, because blocks hold whole frames without gaps */
	if (devargs_is_driver(device, "net_af_packet") &&
		!devargs_get(device, "framesz", value, sizeof value))
		n = snprintf(out, out_len, "%s,framesz=%u,blocksz=%u", device, frame, PACKET_BLOCK);
	else if (devargs_is_driver(device, "net_af_xdp") &&
		 !devargs_get(device, "xdp_prog", program, sizeof program) &&
		 !xdp_program(program, sizeof program))
		n = snprintf(out, out_len, "%s,xdp_prog=%s", device, program);
	/* net_memif mixes up frames that take more than one buffer. */
	else if (devargs_is_driver(device, "net_memif") && mtu + MEMIF_OVERHEAD > MEMIF_BUFFER &&
		 !devargs_get(device, "bsize", value, sizeof value))
		n = snprintf(out, out_len, "%s,bsize=%u", device, (mtu + MEMIF_OVERHEAD + 63) & ~63u);
	/* DPDK's in-order transmit takes more frames than it says when it finds only part of the room it
	 * wants (virtio_xmit_pkts_inorder of 22.11): those it has sent and those it has not sent get mixed
	 * up. */
	else if (devargs_is_driver(device, "net_virtio_user") &&
		 !devargs_get(device, "in_order", value, sizeof value))
		n = snprintf(out, out_len, "%s,in_order=0", device);
	else
		n = snprintf(out, out_len, "%s", device);
	return n < 0 || (size_t)n >= out_len ? -EINVAL : 0;
}

unsigned devargs_frame_room(const char *device)
{
	char value[16];

	return devargs_is_driver(device, "net_af_packet") &&
			       devargs_get(device, "framesz", value, sizeof value)
		       ? (unsigned)strtoul(value, NULL, 0)
		       : 0;
}
