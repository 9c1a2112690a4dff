/* SPDX-License-Identifier: BSD-3-Clause */
/* control: commands to the device over its control queue (5.1.6.5). */
#ifndef SD_DRIVERS_VIRTIO_CONTROL_H
#define SD_DRIVERS_VIRTIO_CONTROL_H

#include "drivers/virtio/device.h"

/* The control queue, with those for traffic. */
int vn_control_up(struct vn_dev *d);
void vn_control_free(struct vn_dev *d);
/* One command. Errors: -ENOTSUP (the device has none such, or says no), -ETIMEDOUT (it does not answer; it is
 * reset), -ENOTCONN (it does not run), -EMSGSIZE. */
int vn_control(struct vn_dev *d, uint8_t class, uint8_t cmd, const void *data, size_t len);
/* After a reset: all that the owner has asked for. */
void vn_control_restore(struct vn_dev *d);
/* As the owner wants them now. */
int vn_control_rx_mode(struct vn_dev *d);
int vn_control_macs(struct vn_dev *d);
int vn_control_vlan(struct vn_dev *d, uint16_t id, bool on);

#endif
