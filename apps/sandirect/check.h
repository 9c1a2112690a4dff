/* SPDX-License-Identifier: BSD-3-Clause */
/* The findings of `sandirect check`. Each check_* function looks at one part of the machine and reports on
 * it. */
#ifndef SD_APPS_CHECK_H
#define SD_APPS_CHECK_H

#include "config/config.h"

enum check_level {
	CHECK_OK,
	CHECK_WARN,    /* the SAN works, but slower or not with everything */
	CHECK_MISSING, /* the SAN cannot work */
};

struct check_report;

/* One finding. remedy: what to do; NULL when nothing needs doing. */
void check_add(struct check_report *r, enum check_level level, const char *name, const char *remedy,
	const char *fmt, ...) __attribute__((format(printf, 5, 6)));

void check_memory(struct check_report *r);
void check_limits(struct check_report *r);
void check_kernel(struct check_report *r);
void check_processor(struct check_report *r);
void check_devices(struct check_report *r);
void check_library(struct check_report *r);
void check_dpdk(struct check_report *r, const struct cfg *cfg);
void check_ports(struct check_report *r, const struct cfg *cfg);
void check_filters(struct check_report *r);

#endif
