/* SPDX-License-Identifier: BSD-3-Clause */
/* What config.c and rule.c share. */
#ifndef SD_CONFIG_INTERNAL_H
#define SD_CONFIG_INTERNAL_H

#include "config/config.h"

/* Parses what follows "rule =" (text is cut up). NULL, or what is wrong; *what is the word it is about. */
const char *cfg_rule_parse(char *text, struct cfg_rule *out, const char **what);

#endif
