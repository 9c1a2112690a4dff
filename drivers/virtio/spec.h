/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Layouts and numbers of the Virtual I/O Device specification 1.2 (OASIS), for a network device with a 1.x
 * interface. All fields are little-endian; this driver is for little-endian hosts.
 */
#ifndef SD_DRIVERS_VIRTIO_SPEC_H
#define SD_DRIVERS_VIRTIO_SPEC_H

#include <stdint.h>

/* Feature bits (2.2, 5.1.3, 6). */
enum {
	VN_F_CSUM = 0,
	VN_F_GUEST_CSUM = 1,
	VN_F_MTU = 3,
	VN_F_MAC = 5,
	VN_F_GUEST_TSO4 = 7,
	VN_F_GUEST_TSO6 = 8,
	VN_F_HOST_TSO4 = 11,
	VN_F_HOST_TSO6 = 12,
	VN_F_MRG_RXBUF = 15,
	VN_F_STATUS = 16,
	VN_F_CTRL_VQ = 17,
	VN_F_CTRL_RX = 18,
	VN_F_CTRL_VLAN = 19,
	VN_F_MQ = 22,
	VN_F_CTRL_MAC_ADDR = 23,
	VN_F_INDIRECT_DESC = 28,
	VN_F_EVENT_IDX = 29,
	VN_F_VERSION_1 = 32,
	VN_F_ACCESS_PLATFORM = 33,
	VN_F_RING_PACKED = 34,
	VN_F_IN_ORDER = 35,
	VN_F_ORDER_PLATFORM = 36,
	VN_F_NOTIFICATION_DATA = 38,
	VN_F_HOST_USO = 56,
	VN_F_RSS = 60,
	VN_F_SPEED_DUPLEX = 63,
};
#define VN_BIT(feature) (1ull << (feature))

/* Device status (2.1). */
enum {
	VN_S_ACKNOWLEDGE = 1,
	VN_S_DRIVER = 2,
	VN_S_DRIVER_OK = 4,
	VN_S_FEATURES_OK = 8,
	VN_S_NEEDS_RESET = 64,
	VN_S_FAILED = 128,
};

/* Descriptors of both rings (2.7.5, 2.8.13). */
enum {
	VN_DESC_NEXT = 1 << 0,
	VN_DESC_WRITE = 1 << 1, /* the device writes into it */
	VN_DESC_INDIRECT = 1 << 2,
	VN_DESC_AVAIL = 1 << 7, /* packed ring */
	VN_DESC_USED = 1 << 15,
};

struct vn_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};

struct vn_used_elem {
	uint32_t id;
	uint32_t len;
};

/* avail->flags and used->flags, without EVENT_IDX (2.7.7, 2.7.10). */
enum { VN_AVAIL_NO_INTERRUPT = 1, VN_USED_NO_NOTIFY = 1 };

struct vn_avail {
	uint16_t flags;
	uint16_t idx;
	uint16_t ring[]; /* and used_event behind the last */
};

struct vn_used {
	uint16_t flags;
	uint16_t idx;
	struct vn_used_elem ring[]; /* and avail_event behind the last */
};

struct vn_pdesc {
	uint64_t addr;
	uint32_t len;
	uint16_t id;
	uint16_t flags;
};

/* The packed ring's event suppression (2.8.14). */
enum { VN_EVENT_ENABLE = 0, VN_EVENT_DISABLE = 1, VN_EVENT_DESC = 2, VN_EVENT_WRAP = 1 << 15 };

struct vn_event {
	uint16_t off_wrap;
	uint16_t flags;
};

/* What is before each frame (5.1.6). */
enum { VN_HDR_NEEDS_CSUM = 1, VN_HDR_DATA_VALID = 2 };
enum { VN_GSO_NONE = 0, VN_GSO_TCPV4 = 1, VN_GSO_TCPV6 = 4, VN_GSO_UDP_L4 = 5, VN_GSO_ECN = 0x80 };

struct vn_hdr {
	uint8_t flags;
	uint8_t gso_type;
	uint16_t hdr_len;
	uint16_t gso_size;
	uint16_t csum_start;
	uint16_t csum_offset;
	uint16_t num_buffers;
};

/* The network device's configuration (5.1.4). */
struct vn_config {
	uint8_t mac[6];
	uint16_t status;
	uint16_t max_virtqueue_pairs;
	uint16_t mtu;
	uint32_t speed; /* Mbit/s; 0xffffffff: unknown */
	uint8_t duplex;
	uint8_t rss_max_key_size;
	uint16_t rss_max_indirection_table_length;
	uint32_t supported_hash_types;
} __attribute__((packed));
enum { VN_STATUS_LINK_UP = 1 };

/* The control queue's commands (5.1.6.5). */
enum { VN_CTRL_RX = 0, VN_CTRL_RX_PROMISC = 0, VN_CTRL_RX_ALLMULTI = 1 };
enum { VN_CTRL_MAC = 1, VN_CTRL_MAC_TABLE_SET = 0, VN_CTRL_MAC_ADDR_SET = 1 };
enum { VN_CTRL_VLAN = 2, VN_CTRL_VLAN_ADD = 0, VN_CTRL_VLAN_DEL = 1 };
enum { VN_CTRL_MQ = 4, VN_CTRL_MQ_PAIRS_SET = 0, VN_CTRL_MQ_RSS_CONFIG = 1 };
enum { VN_CTRL_OK = 0 };

struct vn_ctrl_hdr {
	uint8_t class, cmd;
};

_Static_assert(sizeof(struct vn_desc) == 16 && sizeof(struct vn_pdesc) == 16, "descriptors are 16 bytes");
_Static_assert(sizeof(struct vn_hdr) == 12, "the header of a 1.x device is 12 bytes");

#endif
