/* SPDX-License-Identifier: BSD-3-Clause */
/* pcap: a capture file of what a simulation sends, for tcpdump and Wireshark. */
#ifndef SD_TESTS_TRANSPORT_PCAP_H
#define SD_TESTS_TRANSPORT_PCAP_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/addr.h"

/* Replaces the file. NULL: path is NULL, or it cannot be written. */
FILE *pcap_open(const char *path);
/* One UDP payload, with headers that are made up for it. f may be NULL: nothing happens. */
void pcap_packet(FILE *f, uint64_t now, const struct sd_addr *from, const struct sd_addr *to,
	const uint8_t *payload, size_t len);

#endif
