/* SPDX-License-Identifier: BSD-3-Clause */
/* words: a line's words, and the numbers, times and names that they are. */
#include "script.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

const struct name errors[] = {
	{"EPIPE", EPIPE},
	{"ETIMEDOUT", ETIMEDOUT},
	{"ECONNRESET", ECONNRESET},
	{"ECONNREFUSED", ECONNREFUSED},
	{"ECONNABORTED", ECONNABORTED},
	{"EAGAIN", EAGAIN},
	{"EINVAL", EINVAL},
	{"ENOMEM", ENOMEM},
	{"ENOBUFS", ENOBUFS},
	{"EADDRINUSE", EADDRINUSE},
	{"EACCES", EACCES},
	{"EBUSY", EBUSY},
	{"EISCONN", EISCONN},
	NAMES_END,
};
const struct name codes[] = {
	{"OK", TP_OK},
	{"NO_LISTENER", TP_NO_LISTENER},
	{"REFUSED", TP_REFUSED},
	{"VERSION", TP_VERSION},
	{"BUSY", TP_BUSY},
	NAMES_END,
};
const struct name reasons[] = {
	{"UNKNOWN", WIRE_RESET_UNKNOWN},
	{"ABORT", WIRE_RESET_ABORT},
	{"CLOSED", WIRE_RESET_CLOSED},
	{"PROTOCOL", WIRE_RESET_PROTOCOL},
	{"TIMEOUT", WIRE_RESET_TIMEOUT},
	{"FINISHED", WIRE_RESET_FINISHED},
	{"ACCESS", WIRE_RESET_ACCESS},
	{"INVALID", WIRE_RESET_INVALID},
	{"FAILED", WIRE_RESET_FAILED},
	NAMES_END,
};
const struct name flags[] = {
	{"ACKREQ", WIRE_F_ACKREQ},
	{"RETX", WIRE_F_RETX},
	{"FIN", WIRE_F_FIN},
	{"SE", WIRE_F_SE},
	{"LIMITED", WIRE_F_LIMITED},
	{"BYE", WIRE_F_BYE},
	{"LATE", WIRE_F_LATE},
	{"READY", WIRE_F_READY},
	NAMES_END,
};
const struct name opcodes[] = {
	{"NONE", WIRE_OP_NONE},
	{"DATA", WIRE_OP_STREAM},
	{"SEND", WIRE_OP_SEND},
	{"WRITE", WIRE_OP_WRITE},
	{"WRITE_IMM", WIRE_OP_WRITE_IMM},
	{"READ_REQ", WIRE_OP_READ_REQ},
	{"READ_RESP", WIRE_OP_READ_RESP},
	{"SWAP", WIRE_OP_SWAP},
	{"ADD", WIRE_OP_ADD},
	NAMES_END,
};
const struct name features[] = {
	{"CRC", WIRE_FEAT_CRC},
	{"MESSAGES", WIRE_FEAT_MESSAGES},
	NAMES_END,
};
const struct name event_names[] = {
	{"OPEN", TP_EV_OPEN},
	{"READABLE", TP_EV_READABLE},
	{"WRITABLE", TP_EV_WRITABLE},
	{"FAILED", TP_EV_FAILED},
	{"DRAINED", TP_EV_DRAINED},
	NAMES_END,
};

void words_split(struct script *s, const char *line)
{
	size_t len = strcspn(line, "#\r\n");
	char *save, *word;

	s->n_words = s->at = 0;
	if (len >= sizeof s->text)
		script_fail(s, "the line is longer than %zu characters", sizeof s->text - 1);
	memcpy(s->text, line, len);
	s->text[len] = '\0';
	for (word = strtok_r(s->text, " \t", &save); word; word = strtok_r(NULL, " \t", &save)) {
		if (s->n_words == SCRIPT_WORDS)
			script_fail(s, "the line has more than %d words", SCRIPT_WORDS);
		s->words[s->n_words++] = word;
	}
}

const char *word_peek(const struct script *s)
{
	return s->at < s->n_words ? s->words[s->at] : NULL;
}

const char *word_next(struct script *s, const char *what)
{
	if (s->at == s->n_words)
		script_fail(s, "%s is missing", what);
	return s->words[s->at++];
}

bool word_is(struct script *s, const char *word)
{
	if (s->at == s->n_words || strcmp(s->words[s->at], word))
		return false;
	s->at++;
	return true;
}

void words_end(struct script *s)
{
	if (s->at < s->n_words)
		script_fail(s, "'%s' is one word too many", s->words[s->at]);
}

/* Digits, hexadecimal with 0x, and K, M or G after them. */
bool parse_number(const char *word, uint64_t *out)
{
	unsigned shift = 0;
	char *end;

	if (!isdigit((unsigned char)*word))
		return false;
	errno = 0;
	*out = strtoull(word, &end, 0);
	if (*end && strchr("KMG", *end)) {
		shift = *end == 'K' ? 10 : *end == 'M' ? 20 : 30;
		end++;
	}
	if (*end || errno || *out > UINT64_MAX >> shift)
		return false;
	*out <<= shift;
	return true;
}

bool parse_time(const char *word, uint64_t *ns)
{
	static const struct name units[] = {{"ns", 1}, {"us", SD_US}, {"ms", SD_MS}, {"s", SD_S}, NAMES_END};
	uint64_t unit, whole = 0, part = 0, scale = 1;

	if (!isdigit((unsigned char)*word))
		return false;
	for (; isdigit((unsigned char)*word); word++) {
		whole = whole * 10 + (uint64_t)(*word - '0');
		if (whole > 1000000000)
			return false;
	}
	if (*word == '.') {
		for (word++; isdigit((unsigned char)*word) && scale < 1000000000; word++, scale *= 10)
			part = part * 10 + (uint64_t)(*word - '0');
	}
	if (!*word && !whole && !part) {
		*ns = 0;
		return true;
	}
	if (!find_name(units, word, &unit))
		return false;
	*ns = whole * unit + part * unit / scale;
	return true;
}

bool parse_piece(const char *word, uint64_t *off, uint64_t *len)
{
	const char *colon = strchr(word, ':');
	char left[32];

	if (!colon || (size_t)(colon - word) >= sizeof left)
		return false;
	memcpy(left, word, (size_t)(colon - word));
	left[colon - word] = '\0';
	return parse_number(left, off) && parse_number(colon + 1, len);
}

uint64_t number_of(struct script *s, const char *word, const char *what, uint64_t max)
{
	uint64_t v;

	if (!parse_number(word, &v))
		script_fail(s, "%s is '%s', which is not a number", what, word);
	if (v > max)
		script_fail(s, "%s is %s, and must not be above %llu", what, word, (unsigned long long)max);
	return v;
}

uint64_t time_of(struct script *s, const char *word, const char *what)
{
	uint64_t ns;

	if (!parse_time(word, &ns))
		script_fail(s, "%s is '%s', which is not a time such as 50us, 1.5ms or 2s", what, word);
	return ns;
}

uint64_t next_number(struct script *s, const char *what, uint64_t max)
{
	return number_of(s, word_next(s, what), what, max);
}

uint64_t next_time(struct script *s, const char *what)
{
	return time_of(s, word_next(s, what), what);
}

bool next_switch(struct script *s, const char *what)
{
	const char *word = word_next(s, what);

	if (strcmp(word, "on") && strcmp(word, "off"))
		script_fail(s, "%s is on or off, not '%s'", what, word);
	return !strcmp(word, "on");
}

bool find_name(const struct name *names, const char *word, uint64_t *out)
{
	for (; names->name; names++) {
		if (!strcmp(names->name, word)) {
			*out = names->value;
			return true;
		}
	}
	return false;
}

const char *name_of(const struct name *names, uint64_t value)
{
	for (; names->name; names++)
		if (names->value == value)
			return names->name;
	return NULL;
}

uint64_t next_name(struct script *s, const struct name *names, const char *what)
{
	const char *word = word_next(s, what);
	uint64_t v;

	if (!find_name(names, word, &v))
		script_fail(s, "there is no %s '%s'", what, word);
	return v;
}

uint64_t bits_of(struct script *s, const struct name *names, const char *word, const char *what)
{
	uint64_t all = 0, bit;
	char one[32];

	if (!strcmp(word, "none"))
		return 0;
	while (*word) {
		size_t len = strcspn(word, "|,");

		if (len >= sizeof one)
			script_fail(s, "there is no %s '%s'", what, word);
		memcpy(one, word, len);
		one[len] = '\0';
		if (!find_name(names, one, &bit))
			script_fail(s, "there is no %s '%s'", what, one);
		all |= bit;
		word += len + (word[len] != '\0');
	}
	return all;
}

struct sd_addr address_of(struct script *s, const char *word)
{
	struct sd_addr a = {.family = 4};

	if (inet_pton(AF_INET, word, a.ip) == 1)
		return a;
	a.family = 6;
	if (inet_pton(AF_INET6, word, a.ip) == 1)
		return a;
	script_fail(s, "'%s' is not an IP address", word);
}

void copy_name(struct script *s, char *to, size_t size, const char *from)
{
	if (strlen(from) >= size)
		script_fail(s, "the name '%s' is too long", from);
	if (!isalpha((unsigned char)*from))
		script_fail(s, "'%s' is not a name: these begin with a letter", from);
	strcpy(to, from);
}

const char *time_text(uint64_t ns)
{
	static char ring[4][40];
	static unsigned next;
	char *text = ring[next++ % 4];
	uint64_t unit = ns >= SD_S ? SD_S : ns >= SD_MS ? SD_MS : SD_US;
	size_t len = (size_t)snprintf(text, sizeof *ring, "%llu.%0*llu", (unsigned long long)(ns / unit),
		unit == SD_S	? 9
		: unit == SD_MS ? 6
				: 3,
		(unsigned long long)(ns % unit));

	while (text[len - 1] == '0')
		len--;
	len -= text[len - 1] == '.';
	strcpy(text + len, unit == SD_S ? "s" : unit == SD_MS ? "ms" : "us");
	return ns ? text : "0";
}
