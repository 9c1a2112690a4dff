/* SPDX-License-Identifier: BSD-3-Clause */
/* libFuzzer target: any text, then a connection against whatever rules came out of it. */
#include "config/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct cfg c;
	char err[CFG_ERR_LEN];
	struct sd_addr addr = {.family = 4, .port = 80, .ip = {10, 77, 0, 1}};

	if (!cfg_parse(&c, "fuzz", (const char *)data, len, err, sizeof err))
		cfg_match(&c, CFG_CLIENT, "redis-server", &addr);
	return 0;
}
