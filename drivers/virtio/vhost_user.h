/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vhost_user: the bus whose devices are back ends behind a UNIX socket, with memory in common (the vhost-user
 * protocol, in which this is the front end). A back end may come, go and come back at any time.
 */
#ifndef SD_DRIVERS_VIRTIO_VHOST_USER_H
#define SD_DRIVERS_VIRTIO_VHOST_USER_H

#include "drivers/virtio/device.h"

/* d is to reach its device at path: as the one who listens (server) or who connects. Starts looking for it.
 * Errors: -EINVAL (path too long), -EADDRINUSE, -ENOMEM and those of socket(2) and bind(2). */
int vn_vhost_user_open(struct vn_dev *d, const char *path, bool server);

#endif
