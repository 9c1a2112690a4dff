/* SPDX-License-Identifier: BSD-3-Clause */
/* CRC32C (Castagnoli, RFC 3720 appendix B.4), with the processor's instructions where it has them. */
#ifndef SD_BASE_CRC32C_H
#define SD_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Chainable: sd_crc32c(sd_crc32c(0, a, n), b, m) is the CRC of a followed by b. Thread-safe. */
uint32_t sd_crc32c(uint32_t crc, const void *data, size_t len);
/* The portable implementation, for tests and processors without the instruction. */
uint32_t sd_crc32c_portable(uint32_t crc, const void *data, size_t len);

#endif
