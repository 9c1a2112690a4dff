/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/reason.h"

static const char *const names[] = {
#define X(n, name, text) [n] = #name,
	SD_REASONS(X)
#undef X
};

static const char *const texts[] = {
#define X(n, name, text) [n] = text,
	SD_REASONS(X)
#undef X
};

const char *sd_reason_name(enum sd_reason r)
{
	return (unsigned)r < SD_REASON_COUNT ? names[r] : "UNKNOWN";
}

const char *sd_reason_text(enum sd_reason r)
{
	return (unsigned)r < SD_REASON_COUNT ? texts[r] : "an unknown reason";
}
