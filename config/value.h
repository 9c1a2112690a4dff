/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * value: the notations of configuration values. Pure functions of their text, independent of the locale; the
 * command line uses them too. Each returns false, and leaves *out alone, when s is not of its notation or
 * does not fit.
 */
#ifndef SD_CONFIG_VALUE_H
#define SD_CONFIG_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"

/* "512" */
bool cfg_value_count(const char *s, uint64_t *out);
/* "16384", "16K", "4M", "1G" (powers of 1024) */
bool cfg_value_size(const char *s, uint64_t *out);
/* "250ns", "50us", "1.5ms", "2s", "0" */
bool cfg_value_time(const char *s, uint64_t *ns);
/* Bits per second: "100M", "2.5G", "0" (powers of 1000) */
bool cfg_value_rate(const char *s, uint64_t *bps);
/* "1%", "0.05%", "0"; *out in [0, 1] */
bool cfg_value_percent(const char *s, double *out);
/* "on", "off", "yes", "no", "true", "false", "1", "0" */
bool cfg_value_bool(const char *s, bool *out);
/* "02:00:00:00:00:01", not a group address */
bool cfg_value_mac(const char *s, uint8_t out[6]);
/* Cores: "2", "0-3", "2,4-6"; each once, in the order given. At most max; *n of them */
bool cfg_value_cores(const char *s, uint16_t *out, unsigned max, unsigned *n);
/* "error", "warn", "info", "debug" */
bool cfg_value_level(const char *s, enum sd_log_level *out);
/* Is text matched by pattern, in which '*' stands for any characters and '?' for one? */
bool cfg_value_glob(const char *pattern, const char *text);

#endif
