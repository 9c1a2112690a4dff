/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/mac.h"

#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fnv.h"

bool sd_mac_is_none(const uint8_t mac[6])
{
	static const uint8_t none[6];

	return !memcmp(mac, none, sizeof none);
}

void sd_mac_draw(uint8_t mac[6])
{
	if (getrandom(mac, 6, GRND_NONBLOCK) != 6) {
		const uint64_t here_and_now[] = {(uint64_t)getpid(), sd_clock_ns()};
		uint64_t h = sd_fnv(SD_FNV_BASIS, here_and_now, sizeof here_and_now);

		memcpy(mac, &h, 6);
	}
	mac[0] = 0x02;
}
