/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Notations of values. Not strtod(3), fnmatch(3) and the like: those follow the locale that the host program
 * has set, and "0.5%" must mean the same in every program.
 */
#include "config/value.h"

#include <string.h>

#define CORE_MAX 1023u /* of a cpu_set_t */

/* mantissa / 10^decimals */
struct decimal {
	uint64_t mantissa;
	unsigned decimals;
};

struct unit {
	const char *name;
	uint64_t factor;
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool push_digit(struct decimal *d, char c)
{
	return !__builtin_mul_overflow(d->mantissa, 10u, &d->mantissa) &&
	       !__builtin_add_overflow(d->mantissa, (uint64_t)(c - '0'), &d->mantissa);
}

/* Reads digits[.digits]; returns what follows, or NULL. */
static const char *read_decimal(const char *s, struct decimal *d)
{
	*d = (struct decimal){0};
	if (!is_digit(*s))
		return NULL;
	for (; is_digit(*s); s++)
		if (!push_digit(d, *s))
			return NULL;
	if (*s != '.')
		return s;
	if (!is_digit(*++s))
		return NULL;
	for (; is_digit(*s); s++, d->decimals++)
		if (d->decimals == 9 || !push_digit(d, *s))
			return NULL;
	return s;
}

/* A fraction below the unit's resolution is cut off. */
static bool scale(const struct decimal *d, uint64_t factor, uint64_t *out)
{
	unsigned __int128 v = (unsigned __int128)d->mantissa * factor;

	for (unsigned i = 0; i < d->decimals; i++)
		v /= 10;
	if (v > UINT64_MAX)
		return false;
	*out = (uint64_t)v;
	return true;
}

/* A number and one of units; a bare number other than 0 only if there is a unit without a name. */
static bool read_with_unit(const char *s, const struct unit *units, uint64_t *out)
{
	struct decimal d;

	s = read_decimal(s, &d);
	if (!s)
		return false;
	if (!*s && !d.mantissa) {
		*out = 0;
		return true;
	}
	for (; units->name; units++)
		if (!strcmp(s, units->name))
			return scale(&d, units->factor, out);
	return false;
}

bool cfg_value_count(const char *s, uint64_t *out)
{
	struct decimal d;

	s = read_decimal(s, &d);
	if (!s || *s || d.decimals)
		return false;
	*out = d.mantissa;
	return true;
}

bool cfg_value_size(const char *s, uint64_t *out)
{
	static const struct unit units[] = {
		{"", 1}, {"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}, {NULL, 0}};

	return read_with_unit(s, units, out);
}

bool cfg_value_time(const char *s, uint64_t *ns)
{
	static const struct unit units[] = {
		{"ns", 1}, {"us", 1000}, {"ms", 1000000}, {"s", 1000000000}, {NULL, 0}};

	return read_with_unit(s, units, ns);
}

bool cfg_value_rate(const char *s, uint64_t *bps)
{
	static const struct unit units[] = {
		{"", 1}, {"K", 1000}, {"M", 1000000}, {"G", 1000000000}, {NULL, 0}};

	return read_with_unit(s, units, bps);
}

bool cfg_value_percent(const char *s, double *out)
{
	struct decimal d;
	double v;

	s = read_decimal(s, &d);
	if (!s || (strcmp(s, "%") && (*s || d.mantissa)))
		return false;
	v = (double)d.mantissa;
	for (unsigned i = 0; i < d.decimals; i++)
		v /= 10;
	if (v > 100)
		return false;
	*out = v / 100;
	return true;
}

bool cfg_value_bool(const char *s, bool *out)
{
	static const char *const yes[] = {"on", "yes", "true", "1"};
	static const char *const no[] = {"off", "no", "false", "0"};

	for (unsigned i = 0; i < sizeof yes / sizeof *yes; i++) {
		if (!strcmp(s, yes[i]) || !strcmp(s, no[i])) {
			*out = !strcmp(s, yes[i]);
			return true;
		}
	}
	return false;
}

static int hex_digit(char c)
{
	if (is_digit(c))
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

bool cfg_value_mac(const char *s, uint8_t out[6])
{
	uint8_t mac[6];

	for (unsigned i = 0; i < 6; i++) {
		int high = hex_digit(s[0]), low = high < 0 ? -1 : hex_digit(s[1]);

		if (low < 0 || s[2] != (i < 5 ? ':' : '\0'))
			return false;
		mac[i] = (uint8_t)(high << 4 | low);
		s += 3;
	}
	if (mac[0] & 1)
		return false;
	memcpy(out, mac, sizeof mac);
	return true;
}

static const char *read_core(const char *s, unsigned *out)
{
	if (!is_digit(*s))
		return NULL;
	for (*out = 0; is_digit(*s); s++) {
		*out = *out * 10 + (unsigned)(*s - '0');
		if (*out > CORE_MAX)
			return NULL;
	}
	return s;
}

static bool has_core(const uint16_t *cores, unsigned n, unsigned core)
{
	while (n--) {
		if (cores[n] == core)
			return true;
	}
	return false;
}

bool cfg_value_cores(const char *s, uint16_t *out, unsigned max, unsigned *n)
{
	uint16_t cores[CORE_MAX + 1];
	unsigned first, last, count = 0;

	for (;; s++) {
		s = read_core(s, &first);
		last = first;
		if (s && *s == '-')
			s = read_core(s + 1, &last);
		if (!s || last < first)
			return false;
		for (; first <= last; first++) {
			if (count == max || has_core(cores, count, first))
				return false;
			cores[count++] = (uint16_t)first;
		}
		if (*s != ',')
			break;
	}
	if (*s)
		return false;
	memcpy(out, cores, count * sizeof *out);
	*n = count;
	return true;
}

bool cfg_value_level(const char *s, enum sd_log_level *out)
{
	static const char *const names[] = {"error", "warn", "info", "debug"};

	for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
		if (!strcmp(s, names[i])) {
			*out = (enum sd_log_level)(SD_LOG_ERROR + i);
			return true;
		}
	}
	return false;
}

/* Going back only to the last '*' is enough, so this takes at most |pattern| * |text| steps. */
bool cfg_value_glob(const char *pattern, const char *text)
{
	const char *star = NULL, *resume = NULL;

	while (*text) {
		if (*pattern == '*') {
			star = ++pattern;
			resume = text;
		} else if (*pattern == '?' || *pattern == *text) {
			pattern++;
			text++;
		} else if (star) {
			pattern = star;
			text = ++resume;
		} else {
			return false;
		}
	}
	while (*pattern == '*')
		pattern++;
	return !*pattern;
}
