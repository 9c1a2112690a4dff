/* SPDX-License-Identifier: BSD-3-Clause */
/* tcpinfo: TCP_INFO of a connection on the SAN path, in the kernel's terms. */
#ifndef SD_SWITCH_TCPINFO_H
#define SD_SWITCH_TCPINFO_H

#include "switch/sock.h"

/* Writes at most len bytes of the kernel's struct tcp_info; returns how many. s has an endpoint; domain
 * entered. */
size_t sw_tcpinfo(const struct sw_sock *s, void *out, size_t len);

#endif
