/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * monitor: an onlooker on the wire that knows the protocol's rules but nothing of the implementation's state.
 * It is shown every packet when it is sent, undamaged, and objects to what no endpoint may do.
 */
#ifndef SD_TESTS_TRANSPORT_MONITOR_H
#define SD_TESTS_TRANSPORT_MONITOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct monitor;

struct monitor *monitor_new(void);
void monitor_free(struct monitor *m);
/* NULL, or what is wrong with it. */
const char *monitor_packet(struct monitor *m, const uint8_t *pkt, size_t len);

#endif
