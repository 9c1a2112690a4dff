/* SPDX-License-Identifier: BSD-3-Clause */
/* SipHash-2-4 (Aumasson and Bernstein 2012), a keyed hash: cookies, reset tokens, unguessable ids. */
#ifndef SD_BASE_SIPHASH_H
#define SD_BASE_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

struct sd_sipkey {
	uint64_t k[2];
};

uint64_t sd_siphash64(const struct sd_sipkey *key, const void *data, size_t len);
/* The 128-bit variant. */
void sd_siphash128(const struct sd_sipkey *key, const void *data, size_t len, uint8_t out[16]);

#endif
