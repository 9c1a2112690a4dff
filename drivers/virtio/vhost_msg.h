/* SPDX-License-Identifier: BSD-3-Clause */
/* vhost_msg: the messages of the vhost-user protocol, and their way through a socket. */
#ifndef SD_DRIVERS_VIRTIO_VHOST_MSG_H
#define SD_DRIVERS_VIRTIO_VHOST_MSG_H

#include <stdbool.h>
#include <stdint.h>

enum vn_vhost_request {
	VN_GET_FEATURES = 1,
	VN_SET_FEATURES = 2,
	VN_SET_OWNER = 3,
	VN_SET_MEM_TABLE = 5,
	VN_SET_VRING_NUM = 8,
	VN_SET_VRING_ADDR = 9,
	VN_SET_VRING_BASE = 10,
	VN_GET_VRING_BASE = 11,
	VN_SET_VRING_KICK = 12,
	VN_SET_VRING_CALL = 13,
	VN_GET_PROTOCOL_FEATURES = 15,
	VN_SET_PROTOCOL_FEATURES = 16,
	VN_GET_QUEUE_NUM = 17,
	VN_SET_VRING_ENABLE = 18,
	VN_SET_STATUS = 39,
};

enum { VN_VHOST_F_PROTOCOL_FEATURES = 30 }; /* a feature bit */
enum { VN_PROTOCOL_MQ = 0, VN_PROTOCOL_REPLY_ACK = 3, VN_PROTOCOL_STATUS = 16 };
enum { VN_REGIONS_MAX = 8 };

struct vn_region {
	uint64_t device_addr; /* as it is in descriptors */
	uint64_t size;
	uint64_t addr; /* in this process, as it is in SET_VRING_ADDR */
	uint64_t offset;
} __attribute__((packed));

struct vn_vhost_msg {
	uint32_t request, flags, size;
	union {
		uint64_t u64;
		struct {
			uint32_t index, value;
		} vring;
		struct {
			uint32_t index, flags;
			uint64_t desc, used, avail, log;
		} addr;
		struct {
			uint32_t n, padding;
			struct vn_region regions[VN_REGIONS_MAX];
		} memory;
	};
} __attribute__((packed));

/* Sends a message whose request, size and payload are set, with n descriptors. -ENOTCONN: the peer has gone,
 * or takes nothing. */
int vn_vhost_send(int fd, struct vn_vhost_msg *m, const int *fds, unsigned n);
/* Receives what answers request, with that many bytes behind the header. -ENOTCONN: none came in time, or no
 * such one. */
int vn_vhost_receive(int fd, uint32_t request, uint32_t size, struct vn_vhost_msg *m);
/* Sends and waits until the peer says that it has done it, if it can say so. -EPROTO: it says that it could
 * not. */
int vn_vhost_do(int fd, struct vn_vhost_msg *m, const int *fds, unsigned n, bool answers);

#endif
