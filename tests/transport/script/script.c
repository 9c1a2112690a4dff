/* SPDX-License-Identifier: BSD-3-Clause */
/* script: runs a script line by line: its time, its connection, and what happens then. */
#include "script.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_TOLERANCE (17 * SD_US) /* timers are up to 16.4 us late, never early */
#define MAX_REPEAT	  100000u
#define MAX_TIME	  (3600 * SD_S)
#define MAX_SCRIPT	  (1u << 20)
#define SEEN_LINES	  40u

/* The newest packets, and how many there were before them. */
static void print_seen(struct script *s)
{
	const char *from;
	unsigned lines = 0, before = 0;

	fflush(s->seen);
	for (from = s->seen_text + s->seen_len; from > s->seen_text; from--)
		if (from[-1] == '\n' && ++lines > SEEN_LINES)
			break;
	for (const char *c = s->seen_text; c < from; c++)
		before += *c == '\n';
	fputs("\npackets so far:\n", s->report);
	if (before)
		fprintf(s->report, "    %u more\n", before);
	fputs(s->seen_len ? from : "    none\n", s->report);
}

void script_fail(struct script *s, const char *fmt, ...)
{
	va_list ap;

	fprintf(s->report, "%s:%u: ", s->name, s->line);
	va_start(ap, fmt);
	vfprintf(s->report, fmt, ap);
	va_end(ap);
	if (s->line_text)
		fprintf(s->report, "\n    | %.*s", (int)strcspn(s->line_text, "\r\n"), s->line_text);
	print_seen(s);
	longjmp(s->out, 1);
}

bool script_is_pattern(const uint8_t *bytes, size_t len, uint64_t from)
{
	for (size_t i = 0; i < len; i++)
		if (bytes[i] != script_byte(from + i))
			return false;
	return true;
}

/* --- names --- */

struct link *script_link(struct script *s, const char *name)
{
	struct link *l;

	for (unsigned i = 0; i < s->n_links; i++)
		if (!strcmp(s->links[i].name, name))
			return &s->links[i];
	if (s->n_links == SCRIPT_LINKS)
		script_fail(s, "there are more than %d connections", SCRIPT_LINKS);
	l = &s->links[s->n_links++];
	if (*name)
		copy_name(s, l->name, sizeof l->name, name);
	peer_init(&s->puppet, &l->q, s->n_links);
	l->addr = s->puppet.peer;
	l->win = s->messages ? 0 : l->q.window;
	return l;
}

struct link *script_link_by_id(struct script *s, uint64_t id)
{
	for (unsigned i = 0; i < s->n_links; i++)
		if (s->links[i].q.cid == id || (s->links[i].known && s->links[i].q.their_cid == id))
			return &s->links[i];
	return NULL;
}

int script_label(struct script *s, const char *name, bool make)
{
	for (unsigned i = 0; i < s->n_labels; i++)
		if (!strcmp(s->labels[i].name, name + 1))
			return (int)i;
	if (!make)
		return -1;
	if (s->n_labels == SCRIPT_LABELS)
		script_fail(s, "more than %d packets have names", SCRIPT_LABELS);
	copy_name(s, s->labels[s->n_labels].name, sizeof s->labels->name, name + 1);
	return (int)s->n_labels++;
}

struct tp_conn *script_conn(struct script *s, const struct link *l)
{
	if (l->qp)
		return tp_qp_conn(l->qp);
	if (l->q.c)
		return l->q.c;
	return l->known ? tp_conn_by_cid(s->puppet.tp, l->q.their_cid) : NULL;
}

/* --- lines --- */

static void begin(struct script *s)
{
	if (s->created)
		return;
	if (puppet_create(&s->puppet))
		script_fail(s, "the endpoint refuses these settings");
	s->created = true;
	s->start = s->puppet.now;
	if (s->messages)
		requests_begin(s);
}

/* "+50us~10us": from then on, and until when at the latest. */
static void parse_when(struct script *s, uint64_t *from, uint64_t *until)
{
	const char *word = word_peek(s), *tilde;
	uint64_t t, late;
	char first[32];
	size_t len;

	*from = *until = s->puppet.now;
	if (!word || (*word != '+' && !isdigit((unsigned char)*word)) || word[strlen(word) - 1] == 'x')
		return;
	s->at++;
	tilde = strchr(word, '~');
	len = tilde ? (size_t)(tilde - word) : strlen(word);
	if (len >= sizeof first)
		script_fail(s, "'%s' is not a time", word);
	memcpy(first, word, len);
	first[len] = '\0';
	t = time_of(s, first + (*first == '+'), "the time");
	late = tilde ? time_of(s, tilde + 1, "the tolerance") : s->tolerance;
	*from = (*first == '+' ? s->puppet.now : s->start) + t;
	*until = *from + (*from == s->puppet.now && !tilde ? 0 : late);
	if (*until - s->start > MAX_TIME)
		script_fail(s, "a script is over after an hour");
}

static unsigned parse_repeat(struct script *s)
{
	const char *word = word_peek(s);
	size_t len = word ? strlen(word) : 0;
	char number[16];

	if (!word || !isdigit((unsigned char)*word) || word[len - 1] != 'x' || len > sizeof number)
		return 1;
	s->at++;
	memcpy(number, word, len - 1);
	number[len - 1] = '\0';
	return (unsigned)number_of(s, number, "the number of repetitions", MAX_REPEAT);
}

static struct link *parse_link(struct script *s)
{
	const char *word = word_peek(s);
	size_t len = word ? strlen(word) : 0;
	char name[sizeof s->links->name + 1];

	if (len < 2 || word[len - 1] != ':')
		return script_link(s, "");
	s->at++;
	if (len > sizeof name)
		script_fail(s, "the name '%s' is too long", word);
	memcpy(name, word, len - 1);
	name[len - 1] = '\0';
	return script_link(s, name);
}

static void run_once(struct script *s, unsigned *repeat)
{
	uint64_t from, until;
	struct link *l;
	const char *verb;

	parse_when(s, &from, &until);
	*repeat = parse_repeat(s);
	l = parse_link(s);
	verb = word_next(s, "what happens then");
	if (!strcmp(verb, ">")) {
		script_expect(s, l, from, until);
		return;
	}
	script_advance(s, from);
	if (!strcmp(verb, "<"))
		script_inject(s, l);
	else if (!script_call(s, l, verb) && !script_request(s, l, verb) && !script_check(s, l, verb))
		script_fail(s, "there is no '%s'", verb);
}

static void run(struct script *s, const char *line)
{
	unsigned repeat = 1;

	words_split(s, line);
	if (!s->n_words)
		return;
	if (!s->created) {
		s->at = 1;
		if (script_setting(s, s->words[0])) {
			words_end(s);
			return;
		}
		begin(s);
	}
	for (unsigned i = 0; i < repeat; i++) {
		words_split(s, line);
		run_once(s, &repeat);
		words_end(s);
	}
}

void script_line(struct script *s, const char *fmt, ...)
{
	char text[SCRIPT_LINE];
	unsigned unused;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	words_split(s, text);
	run_once(s, &unused);
	words_end(s);
}

static void run_lines(struct script *s, const char *text)
{
	while (*text) {
		s->line++;
		s->line_text = text;
		run(s, text);
		text += strcspn(text, "\n");
		text += *text == '\n';
	}
	s->line_text = NULL;
	begin(s);
	words_split(s, "> nothing");
	s->at = 1;
	script_expect(s, script_link(s, ""), s->puppet.now, s->puppet.now);
}

/* --- runs --- */

static bool finish(struct script *s)
{
	bool clean = true;

	if (s->created) {
		requests_end(s);
		clean = puppet_stop(&s->puppet);
	}
	for (unsigned i = 0; i < s->n_labels; i++)
		free(s->labels[i].bytes);
	fclose(s->seen);
	free(s->seen_text);
	return clean;
}

/* False: script_fail() has ended it. */
static bool guarded(struct script *s, const char *text)
{
	if (setjmp(s->out))
		return false;
	run_lines(s, text);
	return true;
}

bool script_run(const char *name, const char *text, FILE *report)
{
	struct script *s = calloc(1, sizeof *s);
	bool ok, clean;

	if (!s)
		abort();
	s->name = name;
	s->report = report;
	s->tolerance = DEFAULT_TOLERANCE;
	s->peer_reads = s->reads = 4;
	s->queue = 16;
	s->seen = open_memstream(&s->seen_text, &s->seen_len);
	if (!s->seen)
		abort();
	puppet_init(&s->puppet);
	s->puppet.cfg.cc = &tp_cc_fixed;
	for (size_t i = 0; i < sizeof s->source; i++)
		s->source[i] = script_byte(i);
	ok = guarded(s, text);
	clean = finish(s);
	if (ok && !clean)
		fprintf(report, "%s: the endpoint kept memory, or asked for it at a wrong time\n", name);
	free(s);
	return ok && clean;
}

bool script_run_file(const char *path, FILE *report)
{
	FILE *f = fopen(path, "r");
	char *text;
	size_t len;
	bool ok;

	if (!f) {
		fprintf(report, "%s: cannot be read\n", path);
		return false;
	}
	text = calloc(1, MAX_SCRIPT + 1);
	if (!text)
		abort();
	len = fread(text, 1, MAX_SCRIPT, f);
	fclose(f);
	if (len == MAX_SCRIPT || strlen(text) != len) {
		fprintf(report, "%s: not a text, or larger than %u bytes\n", path, MAX_SCRIPT);
		ok = false;
	} else {
		ok = script_run(path, text, report);
	}
	free(text);
	return ok;
}
