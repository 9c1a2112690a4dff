/* SPDX-License-Identifier: BSD-3-Clause */
/* The configuration: values, grammar, messages, rules, sources. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "config/config.h"
#include "config/value.h"

static struct cfg cfg;
static char err[CFG_ERR_LEN];

static int parse(const char *text)
{
	*err = '\0';
	return cfg_parse(&cfg, "a.conf", text, strlen(text), err, sizeof err);
}

/* text must be refused with a message that begins with at and contains remedy. */
static void refused(const char *text, const char *at, const char *remedy)
{
	assert_int_equal(parse(text), -22);
	if (strncmp(err, at, strlen(at)) || !strstr(err, remedy))
		fail_msg("message \"%s\" is not about \"%s\" with \"%s\"", err, at, remedy);
}

static void value__time(void **state)
{
	uint64_t v = 7;

	assert_true(cfg_value_time("0", &v) && v == 0);
	assert_true(cfg_value_time("250ns", &v) && v == 250);
	assert_true(cfg_value_time("1.5ms", &v) && v == 1500000);
	assert_true(cfg_value_time("2s", &v) && v == 2000000000);
	assert_true(cfg_value_time("0.0000000019s", &v) == false);
	assert_true(cfg_value_time("18446744073s", &v));
	v = 7;
	static const char *const bad[] = {"", "5", "s", "-1s", "1 s", "1S", "1.s", ".5s", "1e3s",
		"18446744074s", "99999999999999999999s", "1us2", "0x10s"};
	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
		if (cfg_value_time(bad[i], &v))
			fail_msg("\"%s\" was taken for a time", bad[i]);
	assert_int_equal(v, 7);
}

static void value__size(void **state)
{
	uint64_t v;

	assert_true(cfg_value_size("16384", &v) && v == 16384);
	assert_true(cfg_value_size("16K", &v) && v == 16384);
	assert_true(cfg_value_size("1.5M", &v) && v == 3 << 19);
	assert_true(cfg_value_size("17179869183G", &v));
	assert_false(cfg_value_size("17179869184G", &v));
	assert_false(cfg_value_size("16k", &v));
	assert_false(cfg_value_size("16KB", &v));
}

static void value__percent_rate(void **state)
{
	double p;
	uint64_t v;

	assert_true(cfg_value_percent("0.1%", &p) && p > 0.000999 && p < 0.001001);
	assert_true(cfg_value_percent("100%", &p) && p == 1);
	assert_true(cfg_value_percent("0", &p) && p == 0);
	assert_false(cfg_value_percent("100.1%", &p));
	assert_false(cfg_value_percent("5", &p));
	assert_false(cfg_value_percent("nan%", &p));
	assert_true(cfg_value_rate("2.5G", &v) && v == 2500000000);
	assert_true(cfg_value_rate("800", &v) && v == 800);
	assert_false(cfg_value_rate("1Gbit", &v));
}

static void value__mac(void **state)
{
	uint8_t mac[6] = {0};

	assert_true(cfg_value_mac("02:0a:00:FF:00:01", mac));
	assert_memory_equal(mac, "\x02\x0a\x00\xff\x00\x01", 6);
	assert_false(cfg_value_mac("01:00:00:00:00:01", mac));
	assert_false(cfg_value_mac("02:00:00:00:00", mac));
	assert_false(cfg_value_mac("02:00:00:00:00:01:02", mac));
	assert_false(cfg_value_mac("02:00:00:00:00:0", mac));
	assert_false(cfg_value_mac("2:0:0:0:0:1", mac));
	assert_int_equal(mac[0], 2);
}

static void value__cores(void **state)
{
	static const struct {
		const char *text;
		unsigned n;
		uint16_t core[4];
	} good[] = {{"0", 1, {0}}, {"1023", 1, {1023}}, {"2-4", 3, {2, 3, 4}}, {"7,0-1", 3, {7, 0, 1}},
		{"5-5", 1, {5}}, {"3,2,1,0", 4, {3, 2, 1, 0}}};
	static const char *const bad[] = {"", "-", "1-", "-1", "1,", ",1", "1,,2", "2-1", "1,1", "0-2,2",
		"1024", "99999999999999999999", "1 2", "a", "1a", "0-4"};
	uint16_t core[4];
	unsigned n;

	for (unsigned i = 0; i < sizeof good / sizeof *good; i++) {
		assert_true(cfg_value_cores(good[i].text, core, 4, &n));
		assert_int_equal(n, good[i].n);
		assert_memory_equal(core, good[i].core, n * sizeof *core);
	}
	n = 77;
	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
		if (cfg_value_cores(bad[i], core, 4, &n) || n != 77)
			fail_msg("\"%s\" was taken", bad[i]);
	}
}

static void value__glob(void **state)
{
	static const struct {
		const char *pattern, *text;
		bool match;
	} t[] = {{"redis-*", "redis-server", true}, {"redis-*", "redis", false}, {"*", "", true},
		{"", "", true}, {"", "x", false}, {"?", "x", true}, {"?", "", false},
		{"a*b*c", "axxbyyc", true}, {"a*b*c", "axxbyyd", false}, {"*server", "redis-server", true},
		{"**x", "aax", true}, {"a?", "ab", true}};

	for (unsigned i = 0; i < sizeof t / sizeof *t; i++)
		if (cfg_value_glob(t[i].pattern, t[i].text) != t[i].match)
			fail_msg("glob \"%s\" against \"%s\"", t[i].pattern, t[i].text);
	/* Must not take exponential time. */
	assert_false(cfg_value_glob("*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
}

static void parse__defaults(void **state)
{
	assert_int_equal(parse(""), 0);
	assert_true(cfg.enabled && cfg.crc);
	assert_string_equal(cfg.runtime_dir, "/run/sandirect");
	assert_string_equal(cfg.daemon, "");
	assert_string_equal(cfg.congestion, "swift");
	assert_string_equal(cfg.file, "a.conf");
	assert_int_equal(cfg.n_ports, 0);
	assert_int_equal(cfg.dead_timeout_ns, 5000000000);
}

static void parse__every_section(void **state)
{
	assert_int_equal(parse("\xef\xbb\xbf# comment\r\n"
			       "[global]\r\n"
			       "log = debug ; why\r\n"
			       "  spin=20us\r\n"
			       "runtime_dir = /tmp/x\n"
			       "daemon = /run/d.sock\n"
			       "[ transport ]\n"
			       "crc = off\n"
			       "ring_max = 8M\n"
			       "congestion = fixed\n"
			       "[port a]\n"
			       "netdev = san0\n"
			       "device = net_virtio_user0,path=/x:y,server=1 # devargs have = and :\n"
			       "mtu = 9000\n"
			       "loss = 1%\n"
			       "delay = 10us\n"
			       "rate = 10G\n"
			       "seed = 42\n"
			       "rx_descriptors = 1024\n"
			       "[port b]\n"
			       "netdev = san1\n"
			       "[rules]\n"
			       "rule = tcp port=22\n"
			       "rule = san program=redis-* role=client dst=10.77.0.0/24 port=6379-6380"),
		0);
	assert_int_equal(cfg.log_level, SD_LOG_DEBUG);
	assert_int_equal(cfg.spin_ns, 20000);
	assert_string_equal(cfg.runtime_dir, "/tmp/x");
	assert_string_equal(cfg.daemon, "/run/d.sock");
	assert_false(cfg.crc);
	assert_int_equal(cfg.ring_max, 8 << 20);
	assert_string_equal(cfg.congestion, "fixed");
	assert_int_equal(cfg.n_ports, 2);
	assert_string_equal(cfg.ports[0].device, "net_virtio_user0,path=/x:y,server=1");
	assert_int_equal(cfg.ports[0].mtu, 9000);
	assert_true(cfg.ports[0].loss == 0.01);
	assert_int_equal(cfg.ports[0].delay_ns, 10000);
	assert_int_equal(cfg.ports[0].rate_bps, 10000000000);
	assert_int_equal(cfg.ports[0].fault_seed, 42);
	assert_int_equal(cfg.ports[0].rx_descriptors, 1024);
	assert_string_equal(cfg.ports[1].device, "udp");
	assert_int_equal(cfg.n_rules, 2);
	assert_int_equal(cfg.rules[1].action, CFG_SAN);
	assert_int_equal(cfg.rules[1].net_len, 24);
	assert_int_equal(cfg.rules[1].port_last, 6380);
	assert_int_equal(cfg.rules[1].line, 24);
}

static void parse__bad_line_has_place_and_remedy(void **state)
{
	refused("x = 1\n", "a.conf:1: ", "put [global] above");
	refused("[global]\n\nnonsense\n", "a.conf:3: ", "KEY = VALUE");
	refused("[global\n", "a.conf:1: ", "[global]");
	refused("[globl]\n", "a.conf:1: [globl] is no section", "[port NAME]");
	refused("[global]\nlgo = warn\n", "a.conf:2: \"lgo\"", " log ");
	refused("[global]\nlog = loud\n", "a.conf:2: log = loud: must be error, warn", "log = warn");
	refused("[global]\nspin = 50\n", "a.conf:2: spin = 50", "spin = 50us");
	refused("[global]\ncores = all\n", "a.conf:2: cores = all", "cores = 2,4-6");
	refused("[global]\nruntime_dir = here\n", "a.conf:2: runtime_dir", "absolute");
	refused("[global]\ndaemon = here\n", "a.conf:2: daemon", "absolute");
	refused("[transport]\nring_min = 5000\n", "a.conf:2: ring_min", "power of two");
	refused("[transport]\nwindow_packets = 2048\n", "a.conf:2: window_packets", "1024");
	refused("[transport]\nwindow_packets = 16\n", "a.conf:2: window_packets", "32");
	refused("[transport]\nwindow_packets = 100\n", "a.conf:2: window_packets", "power of two");
	refused("[transport]\ncongestion = swif\n", "a.conf:2: congestion", "swift, dctcp, fixed");
	refused("[transport]\ncongestion =\n", "a.conf:2: congestion", "swift, dctcp, fixed");
	refused("[port]\n", "a.conf:1: [port ]", "[port san0]");
	refused("[port a/b]\n", "a.conf:1: [port a/b]", "letters");
	refused("[port a]\nnetdev = x\n[port a]\n", "a.conf:3: ", "line 1");
	refused("[port a]\ndevice = udp\n", "a.conf:1: [port a] has no netdev", "netdev = san0");
	refused("[port a]\nmtu = 100\n", "a.conf:2: mtu = 100", "576 to 9600");
	refused("[port a]\nloss = 101%\n", "a.conf:2: loss", "percentage");
	refused("[port a]\nmac = 01:00:00:00:00:00\n", "a.conf:2: mac", "unicast");
	refused("[transport]\nring_min = 8M\n", "a.conf:2: ring_min is greater", "raise ring_max");
}

static void parse__bad_rule_has_place_and_remedy(void **state)
{
	refused("[rules]\nport = 22\n", "a.conf:2: ", "rule = ACTION");
	refused("[rules]\nrule =\n", "a.conf:2: rule", "san, tcp or both");
	refused("[rules]\nrule = udp\n", "a.conf:2: rule: \"udp\"", "san, tcp or both");
	refused("[rules]\nrule = tcp 22\n", "a.conf:2: rule: \"22\"", "name=value");
	refused("[rules]\nrule = tcp dport=22\n", "a.conf:2: rule: \"dport\"", "port=");
	refused("[rules]\nrule = tcp port=0-70000\n", "a.conf:2: ", "port=6379");
	refused("[rules]\nrule = tcp port=9-5\n", "a.conf:2: ", "port=6379");
	refused("[rules]\nrule = tcp dst=10.0.0.0/33\n", "a.conf:2: ", "dst=10.77.0.0/24");
	refused("[rules]\nrule = tcp dst=10.0.0.1:80\n", "a.conf:2: ", "dst=10.77.0.0/24");
	refused("[rules]\nrule = tcp role=both\n", "a.conf:2: ", "role=client");
	refused("[rules]\nrule = tcp program=\n", "a.conf:2: ", "program=redis-*");
}

static void parse__limits(void **state)
{
	static char text[64 * CFG_MAX_RULES];
	size_t n = 0;

	for (int i = 0; i < CFG_MAX_PORTS + 1; i++)
		n += (size_t)sprintf(text + n, "[port p%d]\nnetdev = n\n", i);
	refused(text, "a.conf:17: more than 8 ports", "remove");
	n = (size_t)sprintf(text, "[rules]\n");
	for (int i = 0; i < CFG_MAX_RULES; i++)
		n += (size_t)sprintf(text + n, "rule = tcp port=%d\n", i);
	assert_int_equal(parse(text), 0);
	assert_int_equal(cfg.n_rules, CFG_MAX_RULES);
	strcpy(text + n, "rule = tcp\n");
	refused(text, "a.conf:258: more than 256 rules", "join");
	memset(text, 'x', 2000);
	text[2000] = '\0';
	refused(text, "a.conf:1: ", "shorten");
	n = (size_t)sprintf(text, "[port a]\ndevice = ");
	memset(text + n, 'x', 256);
	text[n + 256] = '\0';
	refused(text, "a.conf:2: device", "255 characters");
	text[n + 255] = '\0';
	strcat(text, "\nnetdev = a");
	assert_int_equal(parse(text), 0);
	assert_int_equal(strlen(cfg.ports[0].device), 255);
}

static void parse__failure_leaves_defaults(void **state)
{
	refused("[transport]\ncrc = off\n[port a]\nnetdev = a\nmtu = x\n", "a.conf:5: ", "mtu");
	assert_true(cfg.crc);
	assert_int_equal(cfg.n_ports, 0);
}

static void parse__nul_and_short_error_buffer(void **state)
{
	char small[8] = "1234567";

	assert_int_equal(cfg_parse(&cfg, "a.conf", "[global]\nlog\0=warn\n", 20, err, sizeof err), -22);
	assert_non_null(strstr(err, "a.conf:2: a NUL byte"));
	assert_int_equal(cfg_parse(&cfg, "a.conf", "x", 1, small, 4), -22);
	assert_string_equal(small, "a.c");
	assert_string_equal(small + 4, "567");
}

static void parse__sample(void **state)
{
	assert_int_equal(cfg_load_file(&cfg, CONFIG_SAMPLE, err, sizeof err), 0);
	assert_string_equal(cfg.file, CONFIG_SAMPLE);
}

/* Uncommenting what the sample shows as defaults must be valid, and must be the defaults. */
static void parse__sample_shows_defaults(void **state)
{
	static char text[8192];
	struct cfg defaults;
	size_t n;
	FILE *f = fopen(CONFIG_SAMPLE, "r");

	assert_non_null(f);
	n = fread(text, 1, sizeof text - 1, f);
	fclose(f);
	*strstr(text, "# One section for each port") = '\0';
	for (size_t i = 0; i + 1 < n; i++)
		if (text[i] == '\n' && text[i + 1] == '#' && text[i + 2] >= 'a' && text[i + 2] <= 'z' &&
			strncmp(text + i + 2, "log_file", 8) && strncmp(text + i + 2, "daemon", 6) &&
			strncmp(text + i + 2, "cores", 5))
			text[i + 1] = ' ';
	assert_int_equal(parse(text), 0);
	cfg_defaults(&defaults);
	strcpy(defaults.file, "a.conf");
	assert_memory_equal(&cfg, &defaults, sizeof cfg);
}

static void match__first_rule_decides(void **state)
{
	struct sd_addr a = {.family = 4, .port = 6379, .ip = {10, 77, 0, 9}};

	assert_int_equal(parse("[rules]\n"
			       "rule = tcp port=22\n"
			       "rule = san program=redis-* role=client dst=10.77.0.0/24 port=6379-6380\n"
			       "rule = tcp dst=fd77::/64\n"
			       "rule = tcp role=server port=6379\n"),
		0);
	assert_int_equal(cfg_match(&cfg, CFG_CLIENT, "redis-cli", &a), CFG_SAN);
	assert_int_equal(cfg_match(&cfg, CFG_SERVER, "redis-cli", &a), CFG_TCP);
	assert_int_equal(cfg_match(&cfg, CFG_CLIENT, "nginx", &a), CFG_BOTH);
	a.port = 22;
	assert_int_equal(cfg_match(&cfg, CFG_CLIENT, "redis-cli", &a), CFG_TCP);
	a = (struct sd_addr){.family = 6, .port = 6379, .ip = {0xfd, 0x77, [15] = 1}};
	assert_int_equal(cfg_match(&cfg, CFG_CLIENT, "redis-cli", &a), CFG_TCP);
	a.ip[7] = 1;
	assert_int_equal(cfg_match(&cfg, CFG_CLIENT, "redis-cli", &a), CFG_BOTH);
}

static void clear_env(void)
{
	static const char *const names[] = {"SANDIRECT", "SANDIRECT_LOG", "SANDIRECT_SPIN_US",
		"SANDIRECT_RUNTIME_DIR", "SANDIRECT_DAEMON"};

	for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
		unsetenv(names[i]);
	setenv("SANDIRECT_CONFIG", "/dev/null", 1);
}

static void load__environment_wins(void **state)
{
	clear_env();
	setenv("SANDIRECT", "off", 1);
	setenv("SANDIRECT_LOG", "info", 1);
	setenv("SANDIRECT_SPIN_US", "7", 1);
	setenv("SANDIRECT_RUNTIME_DIR", "/tmp/r", 1);
	setenv("SANDIRECT_DAEMON", "/tmp/d", 1);
	assert_int_equal(cfg_load(&cfg, err, sizeof err), 0);
	assert_false(cfg.enabled);
	assert_int_equal(cfg.log_level, SD_LOG_INFO);
	assert_int_equal(cfg.spin_ns, 7000);
	assert_string_equal(cfg.runtime_dir, "/tmp/r");
	assert_string_equal(cfg.daemon, "/tmp/d");
}

static void load__bad_environment_is_refused(void **state)
{
	static const char *const bad[][2] = {{"SANDIRECT", "maybe"}, {"SANDIRECT_LOG", "loud"},
		{"SANDIRECT_SPIN_US", "5us"}, {"SANDIRECT_SPIN_US", "-1"},
		{"SANDIRECT_RUNTIME_DIR", "relative"}, {"SANDIRECT_DAEMON", "relative"}};

	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
		clear_env();
		setenv(bad[i][0], bad[i][1], 1);
		assert_int_equal(cfg_load(&cfg, err, sizeof err), -22);
		assert_non_null(strstr(err, bad[i][0]));
		assert_non_null(strstr(err, "change or unset it"));
		assert_true(cfg.enabled);
	}
	clear_env();
}

static void load__missing_or_odd_file(void **state)
{
	char dir[] = "/tmp/sdcfgXXXXXX", path[64];

	clear_env();
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/none", dir);
	setenv("SANDIRECT_CONFIG", path, 1);
	assert_int_equal(cfg_load(&cfg, err, sizeof err), -2);
	assert_non_null(strstr(err, path));
	setenv("SANDIRECT_CONFIG", dir, 1);
	assert_int_equal(cfg_load(&cfg, err, sizeof err), -21);
	assert_int_equal(mkfifo(path, 0600), 0);
	setenv("SANDIRECT_CONFIG", path, 1);
	assert_int_equal(cfg_load(&cfg, err, sizeof err), 0); /* and does not hang */
	setenv("SANDIRECT_CONFIG", "/dev/zero", 1);
	assert_int_equal(cfg_load(&cfg, err, sizeof err), -27);
	unlink(path);
	rmdir(dir);
	clear_env();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(value__cores),
		cmocka_unit_test(value__time),
		cmocka_unit_test(value__size),
		cmocka_unit_test(value__percent_rate),
		cmocka_unit_test(value__mac),
		cmocka_unit_test(value__glob),
		cmocka_unit_test(parse__defaults),
		cmocka_unit_test(parse__every_section),
		cmocka_unit_test(parse__bad_line_has_place_and_remedy),
		cmocka_unit_test(parse__bad_rule_has_place_and_remedy),
		cmocka_unit_test(parse__limits),
		cmocka_unit_test(parse__failure_leaves_defaults),
		cmocka_unit_test(parse__nul_and_short_error_buffer),
		cmocka_unit_test(parse__sample),
		cmocka_unit_test(parse__sample_shows_defaults),
		cmocka_unit_test(match__first_rule_decides),
		cmocka_unit_test(load__environment_wins),
		cmocka_unit_test(load__bad_environment_is_refused),
		cmocka_unit_test(load__missing_or_odd_file),
	};

	return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
