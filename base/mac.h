/* SPDX-License-Identifier: BSD-3-Clause */
/* Ethernet addresses. */
#ifndef SD_BASE_MAC_H
#define SD_BASE_MAC_H

#include <stdbool.h>
#include <stdint.h>

/* All zero. */
bool sd_mac_is_none(const uint8_t mac[6]);
/* Any locally administered unicast address (IEEE 802, section 8.2), other than the next one. */
void sd_mac_draw(uint8_t mac[6]);

#endif
