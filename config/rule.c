/* SPDX-License-Identifier: BSD-3-Clause */
/* Rules: which connections go where. Called by config.c while it parses and by the switch for every
 * connection. */
#include <string.h>

#include "config/internal.h"
#include "config/value.h"

static bool parse_prefix(char *s, struct sd_addr *net, unsigned *len)
{
	char *slash = strchr(s, '/');
	uint64_t bits;

	if (slash)
		*slash++ = '\0';
	if (sd_addr_parse(s, net) || net->port)
		return false;
	*len = sd_addr_ip_len(net) * 8;
	if (!slash)
		return true;
	if (!cfg_value_count(slash, &bits) || bits > *len)
		return false;
	*len = (unsigned)bits;
	return true;
}

static bool parse_ports(char *s, uint16_t *first, uint16_t *last)
{
	char *dash = strchr(s, '-');
	uint64_t a, b;

	if (dash)
		*dash++ = '\0';
	if (!cfg_value_count(s, &a) || !cfg_value_count(dash ? dash : s, &b) || a > b || b > UINT16_MAX)
		return false;
	*first = (uint16_t)a;
	*last = (uint16_t)b;
	return true;
}

static bool parse_action(const char *s, enum cfg_action *out)
{
	if (!strcmp(s, "san"))
		*out = CFG_SAN;
	else if (!strcmp(s, "tcp"))
		*out = CFG_TCP;
	else if (!strcmp(s, "both"))
		*out = CFG_BOTH;
	else
		return false;
	return true;
}

/* One name=value word. */
static const char *parse_condition(char *name, char *value, struct cfg_rule *r)
{
	if (!strcmp(name, "program")) {
		if (!*value || strlen(value) >= sizeof r->program)
			return "must be a program name of 1 to 63 characters; write for instance "
			       "program=redis-*";
		strcpy(r->program, value);
	} else if (!strcmp(name, "role")) {
		if (strcmp(value, "client") && strcmp(value, "server"))
			return "must be role=client or role=server";
		r->role = *value == 'c' ? CFG_CLIENT : CFG_SERVER;
	} else if (!strcmp(name, "dst")) {
		if (!parse_prefix(value, &r->net, &r->net_len))
			return "is no address or prefix; write for instance dst=10.77.0.0/24 or "
			       "dst=fd77::/64";
	} else if (!strcmp(name, "port")) {
		if (!parse_ports(value, &r->port_first, &r->port_last))
			return "is no port or range; write for instance port=6379 or port=8000-8999";
	} else {
		return "is no condition of a rule; there are program=, role=, dst= and port=";
	}
	return NULL;
}

const char *cfg_rule_parse(char *text, struct cfg_rule *out, const char **what)
{
	static const char blanks[] = " \t";
	char *rest, *word = strtok_r(text, blanks, &rest);
	const char *wrong;

	*out = (struct cfg_rule){.port_last = UINT16_MAX};
	*what = word ? word : "rule";
	if (!word || !parse_action(word, &out->action))
		return "must begin with san, tcp or both; write for instance: rule = tcp port=22";
	while ((word = strtok_r(NULL, blanks, &rest))) {
		char *value = strchr(word, '=');

		*what = word;
		if (!value)
			return "is no condition; write name=value without blanks around the =";
		*value++ = '\0';
		wrong = parse_condition(word, value, out);
		if (wrong)
			return wrong;
	}
	return NULL;
}

static bool matches(
	const struct cfg_rule *r, enum cfg_role role, const char *program, const struct sd_addr *addr)
{
	if (r->role != CFG_ANY_ROLE && role != CFG_ANY_ROLE && r->role != role)
		return false;
	if (addr->port < r->port_first || addr->port > r->port_last)
		return false;
	if (r->net.family && !sd_addr_in_prefix(addr, &r->net, r->net_len))
		return false;
	return !r->program[0] || cfg_value_glob(r->program, program);
}

enum cfg_action cfg_match(
	const struct cfg *c, enum cfg_role role, const char *program, const struct sd_addr *addr)
{
	for (unsigned i = 0; i < c->n_rules; i++)
		if (matches(&c->rules[i], role, program, addr))
			return c->rules[i].action;
	return CFG_BOTH;
}
