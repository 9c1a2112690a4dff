/* SPDX-License-Identifier: BSD-3-Clause */
/* Mutated configurations: whatever comes in, the parser stays in its bounds and says what is wrong in one
 * line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "config/config.h"

#define ROUNDS 20000

static const char seed_text[] =
	"[global]\nenabled = on\nlog = warn\nlog_file = /a\nruntime_dir = /run/sandirect\nspin = 50us\n"
	"find_timeout = 50ms\nnegative_ttl = 30s\n[transport]\ncrc = on\ncongestion = swift\nwindow_packets "
	"= 512\n"
	"ring_min = 16K\nring_max = 4M\n[port san0]\nnetdev = san0\ndevice = net_vhost0,iface=/x,client=1\n"
	"mtu = 9000\nmac = 02:00:00:00:00:01\nloss = 0.1%\ndelay = 1.5us\nrate = 2.5G\nseed = 9\n"
	"[rules]\nrule = tcp port=22\nrule = san program=redis-* role=client dst=fd77::/64 port=1-2 # c\n";

static size_t mutate(struct sd_rng *r, char *text, size_t len, size_t cap)
{
	static const char spice[] = "[]=#;. \t\n\r%/-*?:,0123456789KMGusnm\0\xff\x80\xef";

	for (uint64_t n = 1 + sd_rng_below(r, 6); n && len; n--) {
		size_t at = sd_rng_below(r, len), span = 1 + sd_rng_below(r, 30);

		if (span > len - at)
			span = len - at;
		switch (sd_rng_below(r, 4)) {
		case 0:
			text[at] = spice[sd_rng_below(r, sizeof spice - 1)];
			break;
		case 1:
			text[at] = (char)sd_rng_next(r);
			break;
		case 2: /* remove a span */
			memmove(text + at, text + at + span, len - at - span);
			len -= span;
			break;
		case 3: /* double a span */
			if (len + span > cap)
				break;
			memmove(text + at + span, text + at, len - at);
			len += span;
			break;
		}
	}
	return len;
}

static void check_good(const struct cfg *c)
{
	assert_true(c->n_ports <= CFG_MAX_PORTS && c->n_rules <= CFG_MAX_RULES);
	assert_true(c->ring_min <= c->ring_max && !(c->ring_min & (c->ring_min - 1)));
	assert_true(c->window_packets >= 32 && c->window_packets <= 1024);
	assert_true(!(c->window_packets & (c->window_packets - 1)));
	assert_true(c->runtime_dir[0] == '/' && memchr(c->runtime_dir, 0, sizeof c->runtime_dir));
	for (unsigned i = 0; i < c->n_ports; i++) {
		assert_true(
			c->ports[i].netdev[0] && memchr(c->ports[i].netdev, 0, sizeof c->ports[i].netdev));
		assert_true(memchr(c->ports[i].device, 0, sizeof c->ports[i].device) != NULL);
		assert_true(c->ports[i].loss >= 0 && c->ports[i].loss <= 1);
	}
	for (unsigned i = 0; i < c->n_rules; i++)
		assert_true(c->rules[i].net_len <= sd_addr_ip_len(&c->rules[i].net) * 8);
}

static void parse__mutated_text(void **state)
{
	static struct cfg c;
	struct sd_addr addr = {.family = 6, .port = 1, .ip = {0xfd, 0x77}};
	unsigned good = 0, bad = 0;
	struct sd_rng r;

	sd_rng_seed(&r, 1);
	for (unsigned i = 0; i < ROUNDS; i++) {
		size_t cap = sizeof seed_text + 256, len = sizeof seed_text - 1;
		char *text = malloc(cap), *exact, err[CFG_ERR_LEN] = "";
		int rc;

		memcpy(text, seed_text, len);
		len = mutate(&r, text, len, cap);
		exact = malloc(len ? len : 1); /* so that a read past the end is seen by the sanitizer */
		memcpy(exact, text, len);
		rc = cfg_parse(&c, "m", exact, len, err, sizeof err);
		free(exact);
		free(text);
		if (rc) {
			bad++;
			assert_int_equal(rc, -22);
			assert_true(!strncmp(err, "m:", 2) && strlen(err) > 10 && !strchr(err, '\n'));
		} else {
			good++;
			check_good(&c);
			cfg_match(&c, CFG_CLIENT, "redis-cli", &addr);
		}
	}
	assert_true(good > ROUNDS / 100 && bad > ROUNDS / 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(parse__mutated_text)};

	return cmocka_run_group_tests_name("config_mutate", tests, NULL, NULL);
}
