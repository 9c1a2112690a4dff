/* SPDX-License-Identifier: BSD-3-Clause */
/* devargs: what a user can say of a device when it is opened. */
#ifndef SD_DRIVERS_VIRTIO_DEVARGS_H
#define SD_DRIVERS_VIRTIO_DEVARGS_H

#include "drivers/virtio/device.h"

/* For RTE_PMD_REGISTER_PARAM_STRING: those of all buses. */
#define VN_DEVARGS_COMMON                                                                                    \
	"packed_vq=<0|1> in_order=<0|1> event_idx=<0|1> mrg_rxbuf=<0|1> queue_size=<n> speed=<Mbit/s> "
#define VN_DEVARGS_VDEV "path=<socket> server=<0|1> queues=<n> mac=<address> "

struct vn_devargs {
	struct vn_options options;
	char path[108]; /* vdev only */
	bool server;
};

/* Reads text, or NULL. vdev: also those of a virtual device. -EINVAL: an argument is unknown or its value
 * wrong, which has been logged under name. */
int vn_devargs_parse(const char *name, const char *text, bool vdev, struct vn_devargs *out);

#endif
