/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The grammar: sections, keys and what their values may be, as tables. Works on text in memory and touches
 * nothing else; load.c reads the file and the environment.
 *
 * The lines are taken apart here and not by a library for INI files, because this code is loaded into any
 * program: the usual one keeps its settings in writable globals that the program may have changed, and cuts
 * lines at 200 bytes.
 */
#include "config/config.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "config/internal.h"
#include "config/value.h"

#define LINE_MAX_LEN 1000

enum kind { TEXT, PATH, BOOL, COUNT, POWER, SIZE, TIME, PERCENT, RATE, MAC, LEVEL, CHOICE, MTU, CORES };

struct key {
	const char *name;
	enum kind kind;
	size_t offset, size;  /* in struct cfg or struct cfg_port */
	uint64_t min, max;    /* of numbers, in the struct's unit */
	const char *expected; /* for the message; of CHOICE also what is accepted, separated by ", " */
	const char *example;
};

#define IN(type, field) offsetof(struct type, field), sizeof(((struct type *)0)->field)

#define SECOND 1000000000ull

static const struct key global_keys[] = {
	{"enabled", BOOL, IN(cfg, enabled), 0, 0, "on or off", "on"},
	{"log", LEVEL, IN(cfg, log_level), 0, 0, "error, warn, info or debug", "warn"},
	{"log_file", PATH, IN(cfg, log_file), 0, 0, "an absolute path", "/var/log/sandirect.log"},
	{"runtime_dir", PATH, IN(cfg, runtime_dir), 0, 0, "an absolute path", "/run/sandirect"},
	{"daemon", PATH, IN(cfg, daemon), 0, 0, "an absolute path", "/run/sandirect/sandirectd.sock"},
	{"cores", CORES, IN(cfg, cores), 0, 0, "up to 16 different cores", "2,4-6"},
	{"spin", TIME, IN(cfg, spin_ns), 0, 10 * SECOND, "a time up to 10s", "50us"},
	{"find_timeout", TIME, IN(cfg, find_timeout_ns), 1000000, 10 * SECOND, "a time from 1ms to 10s",
		"50ms"},
	{"negative_ttl", TIME, IN(cfg, negative_ttl_ns), 1000000, 86400 * SECOND, "a time from 1ms to 86400s",
		"30s"},
	{"positive_ttl", TIME, IN(cfg, positive_ttl_ns), 1000000, 86400 * SECOND, "a time from 1ms to 86400s",
		"60s"},
	{"exit_linger", TIME, IN(cfg, exit_linger_ns), 0, 60 * SECOND, "a time up to 60s", "2s"},
	{NULL},
};

static const struct key transport_keys[] = {
	{"crc", BOOL, IN(cfg, crc), 0, 0, "on or off", "on"},
	{"congestion", CHOICE, IN(cfg, congestion), 0, 0, "swift, dctcp, fixed", "swift"},
	{"window_packets", POWER, IN(cfg, window_packets), 32, 1024, "a power of two from 32 to 1024", "512"},
	{"ring_min", SIZE, IN(cfg, ring_min), 4096, 1u << 30, "a power of two from 4K to 1G", "16K"},
	{"ring_max", SIZE, IN(cfg, ring_max), 4096, 1u << 30, "a power of two from 4K to 1G", "4M"},
	{"dead_timeout", TIME, IN(cfg, dead_timeout_ns), 100000000, 3600 * SECOND,
		"a time from 100ms to 3600s", "5s"},
	{"keepalive", TIME, IN(cfg, keepalive_ns), 100000000, 86400 * SECOND, "a time from 100ms to 86400s",
		"2s"},
	{"connect_timeout", TIME, IN(cfg, connect_timeout_ns), 1000000, 60 * SECOND, "a time from 1ms to 60s",
		"200ms"},
	{NULL},
};

static const struct key port_keys[] = {
	{"netdev", TEXT, IN(cfg_port, netdev), 0, 0, "the name of a network interface", "san0"},
	{"device", TEXT, IN(cfg_port, device), 0, 0, "udp or a DPDK device", "0000:03:00.1"},
	{"standby", TEXT, IN(cfg_port, standby), 0, 0, "a second DPDK device on the same network",
		"0000:04:00.1"},
	{"miniport", BOOL, IN(cfg_port, miniport), 0, 0, "on or off", "off"},
	{"mtu", MTU, IN(cfg_port, mtu), 576, 9600, "a whole number from 576 to 9600", "1500"},
	{"mac", MAC, IN(cfg_port, mac), 0, 0, "a unicast Ethernet address", "02:00:00:00:00:01"},
	{"hugepages", CHOICE, IN(cfg_port, hugepages), 0, 0, "auto, on, off", "auto"},
	{"eal_args", TEXT, IN(cfg_port, eal_args), 0, 0, "arguments for the DPDK EAL",
		"--log-level=lib.eal:debug"},
	{"rx_descriptors", COUNT, IN(cfg_port, rx_descriptors), 0, 32768, "a whole number up to 32768",
		"1024"},
	{"tx_descriptors", COUNT, IN(cfg_port, tx_descriptors), 0, 32768, "a whole number up to 32768",
		"1024"},
	{"loss", PERCENT, IN(cfg_port, loss), 0, 0, "a percentage from 0% to 100%", "0.1%"},
	{"duplicate", PERCENT, IN(cfg_port, duplicate), 0, 0, "a percentage from 0% to 100%", "1%"},
	{"reorder", PERCENT, IN(cfg_port, reorder), 0, 0, "a percentage from 0% to 100%", "5%"},
	{"corrupt", PERCENT, IN(cfg_port, corrupt), 0, 0, "a percentage from 0% to 100%", "0.1%"},
	{"delay", TIME, IN(cfg_port, delay_ns), 0, 10 * SECOND, "a time up to 10s", "10us"},
	{"jitter", TIME, IN(cfg_port, jitter_ns), 0, 10 * SECOND, "a time up to 10s", "5us"},
	{"rate", RATE, IN(cfg_port, rate_bps), 0, UINT64_MAX, "bits per second", "10G"},
	{"seed", COUNT, IN(cfg_port, fault_seed), 0, UINT64_MAX, "a whole number", "1"},
	{NULL},
};

enum section { NONE, IN_GLOBAL, IN_TRANSPORT, IN_PORT, IN_RULES };

struct parser {
	struct cfg *cfg;
	const char *name;
	unsigned line;
	enum section section;
	char *err;
	size_t err_len;
};

/* Writes "FILE:LINE: message"; always -EINVAL. */
static int __attribute__((format(printf, 2, 3))) complain(struct parser *p, const char *fmt, ...)
{
	va_list ap;
	int n = snprintf(p->err, p->err_len, "%s:%u: ", p->name, p->line);

	if (n >= 0 && (size_t)n < p->err_len) {
		va_start(ap, fmt);
		vsnprintf(p->err + n, p->err_len - (size_t)n, fmt, ap);
		va_end(ap);
	}
	return -EINVAL;
}

void cfg_defaults(struct cfg *out)
{
	*out = (struct cfg){
		.enabled = true,
		.log_level = SD_LOG_WARN,
		.runtime_dir = "/run/sandirect",
		.spin_ns = 100000,
		.find_timeout_ns = 50000000,
		.negative_ttl_ns = 30 * SECOND,
		.positive_ttl_ns = 60 * SECOND,
		.exit_linger_ns = 2 * SECOND,
		.crc = true,
		.congestion = "swift",
		.window_packets = 512,
		.ring_min = 16 << 10,
		.ring_max = 4 << 20,
		.dead_timeout_ns = 5 * SECOND,
		.keepalive_ns = 2 * SECOND,
		.connect_timeout_ns = 200000000,
	};
}

static void store(void *field, size_t size, uint64_t v)
{
	uint32_t v32 = (uint32_t)v;
	uint16_t v16 = (uint16_t)v;

	if (size == sizeof v)
		memcpy(field, &v, size);
	else if (size == sizeof v32)
		memcpy(field, &v32, size);
	else
		memcpy(field, &v16, size);
}

static bool set_number(const struct key *k, void *field, const char *value)
{
	uint64_t v;
	bool ok = k->kind == SIZE   ? cfg_value_size(value, &v)
		  : k->kind == TIME ? cfg_value_time(value, &v)
		  : k->kind == RATE ? cfg_value_rate(value, &v)
				    : cfg_value_count(value, &v);

	if (!ok || v < k->min || v > k->max || ((k->kind == SIZE || k->kind == POWER) && (v & (v - 1))))
		return false;
	store(field, k->size, v);
	return true;
}

/* Is value one of the words of list, which are separated by ", "? */
static bool is_choice(const char *list, const char *value)
{
	size_t len = strlen(value);

	while (list) {
		if (!strncmp(list, value, len) && (list[len] == ',' || !list[len]))
			return len > 0;
		list = strchr(list, ' ');
		list = list ? list + 1 : NULL;
	}
	return false;
}

static bool set_text(const struct key *k, char *field, const char *value)
{
	if (strlen(value) >= k->size)
		return false;
	strcpy(field, value);
	return true;
}

static bool set_cores(struct cfg_cores *c, const char *value)
{
	return cfg_value_cores(value, c->core, CFG_MAX_CORES, &c->n);
}

static bool set_value(const struct key *k, void *field, const char *value)
{
	switch (k->kind) {
	case TEXT:
		return set_text(k, field, value);
	case PATH:
		return value[0] == '/' && set_text(k, field, value);
	case CHOICE:
		return is_choice(k->expected, value) && set_text(k, field, value);
	case BOOL:
		return cfg_value_bool(value, field);
	case PERCENT:
		return cfg_value_percent(value, field);
	case MAC:
		return cfg_value_mac(value, field);
	case LEVEL:
		return cfg_value_level(value, field);
	case CORES:
		return set_cores(field, value);
	case COUNT:
	case POWER:
	case SIZE:
	case TIME:
	case RATE:
	case MTU:
		return set_number(k, field, value);
	}
	return false;
}

/* The keys of a section, for the message about one that is not among them. */
static int complain_unknown(struct parser *p, const struct key *keys, const char *name)
{
	char known[256] = "";
	size_t n = 0;

	for (; keys->name; keys++)
		n += (size_t)snprintf(known + n, sizeof known - n, " %s", keys->name);
	return complain(p, "\"%.40s\" is no key of this section; there are:%s", name, known);
}

static int set_key(struct parser *p, const struct key *keys, void *base, const char *name, const char *value)
{
	const struct key *k = keys;

	while (k->name && strcmp(k->name, name))
		k++;
	if (!k->name)
		return complain_unknown(p, keys, name);
	if ((k->kind == TEXT || k->kind == PATH) && strlen(value) >= k->size)
		return complain(
			p, "%s: the value has more than %zu characters; shorten it", name, k->size - 1);
	if (!set_value(k, (char *)base + k->offset, value))
		return complain(p, "%s = %.60s: must be %s; write for instance: %s = %s", name, value,
			k->expected, name, k->example);
	return 0;
}

static int add_rule(struct parser *p, const char *name, char *value)
{
	struct cfg *c = p->cfg;
	const char *wrong, *what;

	if (strcmp(name, "rule"))
		return complain(
			p, "\"%.40s\" is no key of [rules]; write: rule = ACTION [CONDITION...]", name);
	if (c->n_rules == CFG_MAX_RULES)
		return complain(
			p, "more than %d rules; join some of them by prefixes and ranges", CFG_MAX_RULES);
	wrong = cfg_rule_parse(value, &c->rules[c->n_rules], &what);
	if (wrong)
		return complain(p, "rule: \"%.60s\" %s", what, wrong);
	c->rules[c->n_rules++].line = p->line;
	return 0;
}

static int parse_setting(struct parser *p, char *name, char *value)
{
	switch (p->section) {
	case NONE:
		break;
	case IN_GLOBAL:
		return set_key(p, global_keys, p->cfg, name, value);
	case IN_TRANSPORT:
		return set_key(p, transport_keys, p->cfg, name, value);
	case IN_PORT:
		return set_key(p, port_keys, &p->cfg->ports[p->cfg->n_ports - 1], name, value);
	case IN_RULES:
		return add_rule(p, name, value);
	}
	return complain(p, "\"%.40s\" stands before any section; put [global] above it", name);
}

static bool is_name(const char *s)
{
	size_t len = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.");

	return len && !s[len];
}

static int open_port(struct parser *p, const char *name)
{
	struct cfg *c = p->cfg;
	struct cfg_port *port;

	if (!is_name(name) || strlen(name) >= sizeof port->name)
		return complain(p,
			"[port %.40s]: a port needs a name of 1 to %zu letters, digits, '-', '_' or '.'; "
			"write for instance: [port san0]",
			name, sizeof port->name - 1);
	for (unsigned i = 0; i < c->n_ports; i++)
		if (!strcmp(c->ports[i].name, name))
			return complain(p, "[port %s] was begun on line %u already; join the two", name,
				c->ports[i].line);
	if (c->n_ports == CFG_MAX_PORTS)
		return complain(p, "more than %d ports; remove some", CFG_MAX_PORTS);
	port = &c->ports[c->n_ports++];
	*port = (struct cfg_port){.device = "udp", .hugepages = "auto", .fault_seed = 1, .line = p->line};
	strcpy(port->name, name);
	p->section = IN_PORT;
	return 0;
}

static char *trim(char *s)
{
	char *end;

	s += strspn(s, " \t\r");
	for (end = s + strlen(s); end > s && strchr(" \t\r", end[-1]); end--)
		;
	*end = '\0';
	return s;
}

static int parse_section(struct parser *p, char *s)
{
	char *end = strchr(s, ']');

	if (!end || end[1])
		return complain(p, "\"%.60s\" is no section; write for instance: [global]", s);
	*end = '\0';
	s = trim(s + 1);
	if (!strncmp(s, "port", 4) && (!s[4] || strchr(" \t", s[4])))
		return open_port(p, trim(s + 4));
	if (!strcmp(s, "global"))
		p->section = IN_GLOBAL;
	else if (!strcmp(s, "transport"))
		p->section = IN_TRANSPORT;
	else if (!strcmp(s, "rules"))
		p->section = IN_RULES;
	else
		return complain(p,
			"[%.40s] is no section; there are [global], [transport], [port NAME] and [rules]", s);
	return 0;
}

/* Comments begin with # or ; at the start of a line or after a blank. */
static void cut_comment(char *s)
{
	for (char *c = s; *c; c++) {
		if ((*c == '#' || *c == ';') && (c == s || c[-1] == ' ' || c[-1] == '\t')) {
			*c = '\0';
			return;
		}
	}
}

static int parse_line(struct parser *p, char *s)
{
	char *value;

	cut_comment(s);
	s = trim(s);
	if (!*s)
		return 0;
	if (*s == '[')
		return parse_section(p, s);
	value = strchr(s, '=');
	if (!value)
		return complain(p, "\"%.60s\" is no setting; write KEY = VALUE or [SECTION]", s);
	*value++ = '\0';
	return parse_setting(p, trim(s), trim(value));
}

/* The ports' devices and, between them, their standbys. */
static const char *device_of(const struct cfg *c, unsigned i)
{
	return i % 2 ? c->ports[i / 2].standby : c->ports[i / 2].device;
}

/* "udp" is one for each interface. */
static bool same_device(const char *a, const char *b)
{
	size_t len = strcspn(a, ",");

	return *a && strcmp(a, "udp") && len == strcspn(b, ",") && !memcmp(a, b, len);
}

/* What can be judged only with all lines read. */
static int check_whole(struct parser *p)
{
	const struct cfg *c = p->cfg;

	for (unsigned i = 0; i < c->n_ports; i++) {
		p->line = c->ports[i].line;
		if (!c->ports[i].netdev[0])
			return complain(p,
				"[port %s] has no netdev; add the interface whose addresses it serves, "
				"for instance: netdev = san0",
				c->ports[i].name);
		if (!c->ports[i].device[0])
			return complain(p, "[port %s] has an empty device; write for instance: device = udp",
				c->ports[i].name);
		if (c->ports[i].standby[0] &&
			(!strcmp(c->ports[i].device, "udp") || !strcmp(c->ports[i].standby, "udp")))
			return complain(p,
				"[port %s] has a standby; that and its device must be DPDK devices",
				c->ports[i].name);
	}
	for (unsigned i = 0; i < 2 * c->n_ports; i++) {
		for (unsigned k = 0; k < i; k++) {
			if (same_device(device_of(c, i), device_of(c, k))) {
				p->line = c->ports[i / 2].line;
				return complain(p,
					"[port %s]: %.100s is named twice; each device has one port",
					c->ports[i / 2].name, device_of(c, i));
			}
		}
	}
	if (c->ring_min > c->ring_max)
		return complain(p, "ring_min is greater than ring_max; raise ring_max in [transport]");
	return 0;
}

static int parse_text(struct parser *p, const char *text, size_t len)
{
	const char *end = text + len;
	char line[LINE_MAX_LEN + 1];

	if (len >= 3 && !memcmp(text, "\xef\xbb\xbf", 3))
		text += 3;
	while (text < end) {
		const char *eol = memchr(text, '\n', (size_t)(end - text));
		size_t n = (size_t)((eol ? eol : end) - text);
		int rc;

		p->line++;
		if (n > LINE_MAX_LEN)
			return complain(p, "a line of more than %d bytes; shorten it", LINE_MAX_LEN);
		if (memchr(text, '\0', n))
			return complain(p, "a NUL byte; is this a text file?");
		memcpy(line, text, n);
		line[n] = '\0';
		rc = parse_line(p, line);
		if (rc)
			return rc;
		text = eol ? eol + 1 : end;
	}
	return check_whole(p);
}

int cfg_parse(struct cfg *out, const char *name, const char *text, size_t len, char *err, size_t err_len)
{
	struct parser p = {.cfg = out, .name = name, .err = err, .err_len = err_len};
	int rc;

	cfg_defaults(out);
	rc = parse_text(&p, text, len);
	if (rc)
		cfg_defaults(out);
	else
		snprintf(out->file, sizeof out->file, "%s", name);
	return rc;
}
