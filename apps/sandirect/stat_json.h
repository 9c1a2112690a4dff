/* SPDX-License-Identifier: BSD-3-Clause */
/* What JSON texts have in common. */
#ifndef SD_APPS_STAT_JSON_H
#define SD_APPS_STAT_JSON_H

#include <jansson.h>

#include "statread.h"

json_t *stat_port_json(const struct statfile_port *p);

#endif
