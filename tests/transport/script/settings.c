/* SPDX-License-Identifier: BSD-3-Clause */
/* settings: the endpoint's configuration, which stands before everything that happens. */
#include <stddef.h>
#include <string.h>

#include "script.h"

static const struct {
	const char *name;
	size_t offset;
} times[] = {
	{"ack_delay", offsetof(struct tp_config, ack_delay_ns)},
	{"max_ack_delay", offsetof(struct tp_config, max_ack_delay_ns)},
	{"connect_timeout", offsetof(struct tp_config, connect_timeout_ns)},
	{"dead_timeout", offsetof(struct tp_config, dead_timeout_ns)},
	{"keepalive_time", offsetof(struct tp_config, keepalive_ns)},
};

static bool time_setting(struct script *s, const char *verb)
{
	for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
		if (!strcmp(times[i].name, verb)) {
			uint64_t ns = next_time(s, verb);

			memcpy((char *)&s->puppet.cfg + times[i].offset, &ns, sizeof ns);
			return true;
		}
	}
	return false;
}

static void set_cc(struct script *s)
{
	const char *word = word_next(s, "the congestion control");

	if (strcmp(word, "fixed") && strcmp(word, "swift"))
		script_fail(s, "there is no congestion control '%s'", word);
	s->puppet.cfg.cc = *word == 'f' ? &tp_cc_fixed : &tp_cc_swift;
}

static void set_ipv6(struct script *s)
{
	s->puppet.local = address_of(s, "fd00::1");
	s->puppet.peer = address_of(s, "fd00::2");
}

bool script_setting(struct script *s, const char *verb)
{
	struct tp_config *cfg = &s->puppet.cfg;

	if (!strcmp(verb, "crc")) {
		cfg->crc = next_switch(s, "crc");
	} else if (!strcmp(verb, "cc")) {
		set_cc(s);
	} else if (!strcmp(verb, "packets")) {
		cfg->window_packets = (uint32_t)next_number(s, "packets", 1024);
	} else if (!strcmp(verb, "ring")) {
		cfg->ring_min = (uint32_t)next_number(s, "the smallest ring", UINT32_MAX);
		cfg->ring_max = (uint32_t)next_number(s, "the largest ring", UINT32_MAX);
	} else if (!strcmp(verb, "max_conns")) {
		cfg->max_conns = (uint32_t)next_number(s, "max_conns", 65536);
	} else if (!strcmp(verb, "max_payload")) {
		s->puppet.max_payload = (uint16_t)next_number(s, "max_payload", UINT16_MAX);
	} else if (!strcmp(verb, "isn")) {
		s->isn = (uint32_t)next_number(s, "isn", UINT32_MAX);
		s->has_isn = true;
	} else if (!strcmp(verb, "tolerance")) {
		s->tolerance = next_time(s, "the tolerance");
	} else if (!strcmp(verb, "ipv6")) {
		set_ipv6(s);
	} else if (!strcmp(verb, "messages")) {
		s->messages = true;
	} else if (!strcmp(verb, "reads")) {
		s->reads = (unsigned)next_number(s, "reads", TP_MAX_READS);
	} else if (!strcmp(verb, "peer_reads")) {
		s->peer_reads = (unsigned)next_number(s, "peer_reads", TP_MAX_READS);
	} else if (!strcmp(verb, "queue")) {
		s->queue = (unsigned)next_number(s, "queue", 65536);
	} else {
		return time_setting(s, verb);
	}
	return true;
}
