/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * miniport: a TAP interface as the kernel's end of a port. Each frame crosses with a struct virtio_net_hdr
 * before it, which says what the kernel has left to do; drivers/gso.c does it. A packet is read into the
 * caller's frame, and what does not fit there into a buffer of ours: so a plain frame is never copied, and
 * the part of a large one that lies in the frame is copied to the rest before it is cut. Owned by one thread
 * at a time.
 */
#include "drivers/miniport.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/log.h"
#include "drivers/gso.h"

/* Newer than some of the headers this is built with. */
#ifndef IFF_NO_CARRIER
#define IFF_NO_CARRIER 0x0040
#endif
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

enum {
	ETH_LEN = 14,
	ETH_LEAST = 60, /* without the frame check sequence */
	VLAN_LEN = 4,
	VLAN_TAGS = 2,
	TYPE_VLAN = 0x8100,
	TYPE_QINQ = 0x88a8,
	LARGE = 80 * 1024, /* more than the largest packet of the kernel, which IP limits to 64 KiB */
};

struct miniport {
	int fd, control; /* control: a socket of the interface's namespace, to set its MTU by */
	uint16_t mtu;
	uint32_t port_caps;
	bool gone;
	struct gso gso; /* the packet in large that is being given out */
	struct miniport_stats stats;
	uint8_t large[LARGE];
};

/* --- to the kernel --- */

static bool hand_up(struct miniport *m, const struct port_frame *f)
{
	struct virtio_net_hdr hdr = {
		.flags = (f->flags & (PORT_RX_CSUM_OK | PORT_RX_CSUM_BAD)) == PORT_RX_CSUM_OK
				 ? VIRTIO_NET_HDR_F_DATA_VALID
				 : 0,
	};
	struct iovec iov[] = {{&hdr, sizeof hdr}, {f->data, f->len}};

	if (writev(m->fd, iov, 2) >= 0)
		return true;
	if (errno == EBADFD)
		m->gone = true;
	return false;
}

unsigned miniport_to_kernel(struct miniport *m, const struct port_frame *frames, unsigned n)
{
	unsigned took = 0;

	for (unsigned i = 0; i < n; i++) {
		if (!hand_up(m, &frames[i]))
			continue;
		m->stats.up_bytes += frames[i].len;
		took++;
	}
	m->stats.up_frames += took;
	m->stats.up_dropped += n - took;
	return took;
}

/* --- from the kernel --- */

/* Bytes that a frame with this beginning may have: VLAN tags are not counted to the MTU. */
static size_t longest(const struct miniport *m, const uint8_t *frame, size_t len)
{
	size_t eth = ETH_LEN;

	for (unsigned tags = 0; tags < VLAN_TAGS && len >= eth; tags++, eth += VLAN_LEN) {
		unsigned type = be16_get(frame + eth - 2);

		if (type != TYPE_VLAN && type != TYPE_QINQ)
			break;
	}
	return eth + m->mtu;
}

static void give_out(struct miniport *m, struct port_frame *f, size_t len, uint32_t flags)
{
	size_t least = f->len < ETH_LEAST ? f->len : ETH_LEAST;

	if (len < least) {
		memset(f->data + len, 0, least - len);
		len = least;
	}
	f->len = (uint32_t)len;
	f->flags = flags;
	m->stats.down_frames++;
	m->stats.down_bytes += len;
}

/* The next segments of the packet at hand. */
static unsigned cut(struct miniport *m, struct port_frame *frames, unsigned n)
{
	unsigned k = 0;

	while (k < n && m->gso.more) {
		int len = gso_next(&m->gso, frames[k].data, frames[k].len);

		if (len <= 0) { /* no room: the rest is lost */
			m->gso.more = false;
			m->stats.down_dropped++;
			break;
		}
		give_out(m, &frames[k++], (size_t)len, 0);
	}
	return k;
}

static unsigned take_large(struct miniport *m, const struct virtio_net_hdr *hdr, size_t len,
	struct port_frame *frames, unsigned n)
{
	size_t here = len < frames->len ? len : frames->len;

	memcpy(m->large, frames->data, here);
	if (len == LARGE || gso_open(&m->gso, m->large, len, hdr) ||
		gso_largest(&m->gso) > longest(m, m->large, len)) {
		m->gso.more = false;
		m->stats.down_dropped++;
		return 0;
	}
	m->stats.cut++;
	return cut(m, frames, n);
}

static unsigned take_plain(
	struct miniport *m, const struct virtio_net_hdr *hdr, size_t len, struct port_frame *f)
{
	uint32_t flags = 0;

	if (len < ETH_LEN || len > f->len || len > longest(m, f->data, len)) {
		m->stats.down_dropped++;
		return 0;
	}
	if (hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
		if (m->port_caps & PORT_CAP_TX_CSUM && gso_port_finishes(f->data, len, hdr)) {
			flags = PORT_TX_CSUM;
		} else if (gso_finish_csum(f->data, len, hdr->csum_start, hdr->csum_offset)) {
			m->stats.down_dropped++;
			return 0;
		} else {
			m->stats.summed++;
		}
	}
	give_out(m, f, len, flags);
	return 1;
}

/* Reads a packet: its length, 0 for none that is worth looking at, or -1 when there is nothing to read. */
static ssize_t read_packet(struct miniport *m, struct virtio_net_hdr *hdr, const struct port_frame *f)
{
	size_t room = f->len < LARGE ? f->len : LARGE;
	struct iovec iov[] = {{hdr, sizeof *hdr}, {f->data, room}, {m->large + room, LARGE - room}};
	ssize_t n = readv(m->fd, iov, 3);

	if (n <= 0) {
		if (n < 0 && errno == EBADFD)
			m->gone = true;
		return -1;
	}
	if ((size_t)n <= sizeof *hdr) {
		m->stats.down_dropped++;
		return 0;
	}
	return n - (ssize_t)sizeof *hdr;
}

unsigned miniport_from_kernel(struct miniport *m, struct port_frame *frames, unsigned n)
{
	unsigned k = cut(m, frames, n);

	/* A packet may come to no frame: not more are read than frames are asked for. */
	for (unsigned reads = 0; k < n && reads < n; reads++) {
		struct virtio_net_hdr hdr;
		ssize_t len = read_packet(m, &hdr, &frames[k]);

		if (len < 0)
			break;
		if (!len)
			continue;
		if (hdr.gso_type == VIRTIO_NET_HDR_GSO_NONE)
			k += take_plain(m, &hdr, (size_t)len, &frames[k]);
		else
			k += take_large(m, &hdr, (size_t)len, &frames[k], n - k);
	}
	return k;
}

/* --- the interface --- */

/* Fills in the name that the interface has now, as it may have got another one. */
static int name_request(const struct miniport *m, struct ifreq *req)
{
	memset(req, 0, sizeof *req);
	if (ioctl(m->fd, TUNGETIFF, req))
		return errno == EBADFD ? -ENODEV : -errno;
	memset(&req->ifr_ifru, 0, sizeof req->ifr_ifru);
	return 0;
}

/* What is as it should be is left alone: an unprivileged owner may do that, and nobody is notified. */
static int set_mac(const struct miniport *m, const uint8_t mac[6])
{
	struct ifreq req;
	int e = name_request(m, &req);

	if (e)
		return e;
	if (!ioctl(m->control, SIOCGIFHWADDR, &req) && !memcmp(req.ifr_hwaddr.sa_data, mac, 6))
		return 0;
	req.ifr_hwaddr.sa_family = ARPHRD_ETHER;
	memcpy(req.ifr_hwaddr.sa_data, mac, 6);
	return ioctl(m->control, SIOCSIFHWADDR, &req) ? -errno : 0;
}

int miniport_set_mtu(struct miniport *m, uint16_t mtu)
{
	struct ifreq req;
	int e = name_request(m, &req);

	if (e)
		return e;
	if (ioctl(m->control, SIOCGIFMTU, &req) || req.ifr_mtu != mtu) {
		req.ifr_mtu = mtu;
		if (ioctl(m->control, SIOCSIFMTU, &req))
			return -errno;
	}
	m->mtu = mtu;
	return 0;
}

int miniport_set_link(struct miniport *m, bool up)
{
	int carrier = up;

	if (!ioctl(m->fd, TUNSETCARRIER, &carrier))
		return 0;
	return errno == EBADFD ? -ENODEV : -errno;
}

void miniport_set_caps(struct miniport *m, uint32_t port_caps)
{
	m->port_caps = port_caps;
}

int miniport_index(const struct miniport *m)
{
	struct ifreq req;

	if (name_request(m, &req) || ioctl(m->control, SIOCGIFINDEX, &req))
		return 0;
	return req.ifr_ifindex;
}

int miniport_fd(const struct miniport *m)
{
	return m->fd;
}

bool miniport_is_gone(const struct miniport *m)
{
	return m->gone;
}

void miniport_stats(const struct miniport *m, struct miniport_stats *out)
{
	*out = m->stats;
}

/* --- opening --- */

static bool name_valid(const char *name)
{
	size_t len = name ? strlen(name) : 0;

	/* The kernel would make a number of "%d". */
	return len && len < IFNAMSIZ && strcmp(name, ".") && strcmp(name, "..") &&
	       strcspn(name, "/:% \t\n\v\f\r") == len;
}

static int open_tun(struct miniport *m, char *err, size_t err_len)
{
	m->fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (m->fd < 0) {
		int e = errno == EACCES ? EPERM : errno == ENXIO ? ENODEV : errno;

		snprintf(err, err_len, "/dev/net/tun: %s%s", strerror(errno),
			e == EPERM		     ? "; run as root"
			: e == ENOENT || e == ENODEV ? "; load the kernel module tun"
						     : "");
		return -e;
	}
	m->control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (m->control < 0) {
		snprintf(err, err_len, "no socket: %s", strerror(errno));
		return -errno;
	}
	return 0;
}

static int attach(struct miniport *m, const struct miniport_config *cfg, char *err, size_t err_len)
{
	struct ifreq req = {0};

	memcpy(req.ifr_name, cfg->name, strlen(cfg->name));
	req.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (cfg->link_up ? 0 : IFF_NO_CARRIER);
	if (!ioctl(m->fd, TUNSETIFF, &req))
		return 0;
	switch (errno) {
	case EPERM:
		snprintf(err, err_len, "%s: may not make or use it; run with CAP_NET_ADMIN", cfg->name);
		return -EPERM;
	case EBUSY:
		snprintf(err, err_len, "%s: another process has it; is the daemon running already?",
			cfg->name);
		return -EBUSY;
	case EINVAL:
		snprintf(err, err_len,
			"%s: there is an interface of another kind; choose another name or remove it",
			cfg->name);
		return -EEXIST;
	default:
		snprintf(err, err_len, "%s: no TAP interface: %s", cfg->name, strerror(errno));
		return -errno;
	}
}

/* What the kernel has learned to offload later is asked for first. */
static int offer(struct miniport *m, uint32_t offloads)
{
	unsigned flags = offloads ? TUN_F_CSUM : 0;

	if (offloads & MINIPORT_TSO)
		flags |= TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
	if (offloads & MINIPORT_USO) {
		if (!ioctl(m->fd, TUNSETOFFLOAD, (unsigned long)(flags | TUN_F_USO4 | TUN_F_USO6)))
			return 0;
		sd_debug("miniport: no UDP segmentation offload: %s", strerror(errno));
	}
	return ioctl(m->fd, TUNSETOFFLOAD, (unsigned long)flags) ? -errno : 0;
}

static int set_up(struct miniport *m, const struct miniport_config *cfg, char *err, size_t err_len)
{
	int hdr_len = sizeof(struct virtio_net_hdr);
	const char *what = "frame header";
	int e = ioctl(m->fd, TUNSETVNETHDRSZ, &hdr_len) ? -errno : 0;

	if (!e) {
		what = "offloads";
		e = offer(m, cfg->offloads);
	}
	if (!e) {
		what = "MAC address";
		e = set_mac(m, cfg->mac);
	}
	if (!e) {
		what = "MTU";
		e = miniport_set_mtu(m, cfg->mtu);
	}
	if (!e) {
		what = "link state";
		e = miniport_set_link(m, cfg->link_up);
	}
	if (!e) { /* last, so that a new interface goes if anything fails */
		what = "persistence";
		e = ioctl(m->fd, TUNSETPERSIST, (unsigned long)cfg->persist) ? -errno : 0;
	}
	if (e == -ENOTTY || (e == -EINVAL && !strcmp(what, "offloads")))
		e = -ENOTSUP;
	if (e)
		snprintf(err, err_len, "%s: cannot set its %s: %s", cfg->name, what, strerror(-e));
	return e;
}

int miniport_open(const struct miniport_config *cfg, struct miniport **out, char *err, size_t err_len)
{
	struct miniport *m;
	int e;

	if (cfg->size < sizeof *cfg || !name_valid(cfg->name)) {
		snprintf(err, err_len, "an interface's name has 1 to 15 bytes, no blanks, '/', ':' or '%%'");
		return -EINVAL;
	}
	m = calloc(1, sizeof *m);
	if (!m) {
		snprintf(err, err_len, "%s: out of memory", cfg->name);
		return -ENOMEM;
	}
	m->fd = m->control = -1;
	m->port_caps = cfg->port_caps;
	e = open_tun(m, err, err_len);
	if (!e)
		e = attach(m, cfg, err, err_len);
	if (!e)
		e = set_up(m, cfg, err, err_len);
	if (e) {
		miniport_close(m);
		return e;
	}
	*out = m;
	return 0;
}

void miniport_close(struct miniport *m)
{
	sd_fd_close(&m->control);
	sd_fd_close(&m->fd);
	free(m);
}
