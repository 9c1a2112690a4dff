/* SPDX-License-Identifier: BSD-3-Clause */
/* Messages to a person: what happened and what to do. Never called on a path that packets control. */
#ifndef SD_BASE_LOG_H
#define SD_BASE_LOG_H

#include <stdbool.h>

/* Notices are answers to what somebody has asked for: they are written at every level. */
enum sd_log_level { SD_LOG_NOTICE, SD_LOG_ERROR, SD_LOG_WARN, SD_LOG_INFO, SD_LOG_DEBUG };

/* Receives finished lines without a newline. Must be async-signal-safe if signals may log. */
typedef void sd_log_sink(void *ctx, enum sd_log_level level, const char *line);

/* Messages above level are dropped. sink NULL: write(2) to standard error with the prefix "sandirect: ". */
void sd_log_open(enum sd_log_level level, sd_log_sink *sink, void *ctx);
bool sd_log_enabled(enum sd_log_level level);
/* Leaves errno as it was. Of each level at most 50 lines a second are written; the number of dropped ones
 * follows. */
void sd_log(enum sd_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define sd_notice(...) sd_log(SD_LOG_NOTICE, __VA_ARGS__)
#define sd_error(...)  sd_log(SD_LOG_ERROR, __VA_ARGS__)
#define sd_warn(...)   sd_log(SD_LOG_WARN, __VA_ARGS__)
#define sd_info(...)   sd_log(SD_LOG_INFO, __VA_ARGS__)
#define sd_debug(...)                                                                                        \
	do {                                                                                                 \
		if (sd_log_enabled(SD_LOG_DEBUG))                                                            \
			sd_log(SD_LOG_DEBUG, __VA_ARGS__);                                                   \
	} while (0)

#endif
