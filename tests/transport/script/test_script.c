/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Runs packet scripts: each *.pkt of a folder is one test. Named alone, scripts are run and their failures
 * shown. What a wrong script is told is tested, too.
 *
 *   test_script FOLDER | FILE.pkt...
 */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "script.h"

#define MAX_TESTS 512

/* --- what is wrong with a script is said --- */

static const struct {
	const char *script, *said;
} mistakes[] = {
	{"nonsense\n", "x:1: there is no 'nonsense'"},
	{"\n# comment\n+1 listen\n", "x:3: the time is '1', which is not a time"},
	{"+1ms\n", "what happens then is missing"},
	{"3601s check found 0\n", "a script is over after an hour"},
	{"crc maybe\n", "crc is on or off, not 'maybe'"},
	{"cc reno\n", "there is no congestion control 'reno'"},
	{"listen 5 6\n", "'6' is one word too many"},
	{"ring 5 5\nlisten\n", "the endpoint refuses these settings"},
	{"packets 2000\n", "packets is 2000, and must not be above 1024"},
	{"established\n< DATA len 9999999999999999999999\n", "which is not a number"},
	{"established\n< DATA psn 4294967296\n", "must not be above 4294967295"},
	{"established\n< DATA len 100K\n", "has no room for so many bytes"},
	{"established\n< DATA psn 0 psn 0 len 1\n", "psn is there twice"},
	{"established\n< ACK code BUSY\n", "such a packet has no code"},
	{"established\n< ACK sack 5-3\n", "ranges of packets are short and in their order"},
	{"established\n< ACK sack 0\n", "sack names packets from ack + 1"},
	{"established\n< ACK sack 2000\n", "sack names packets from ack + 1"},
	{"established\n< ACK echo @p\n", "no packet was called '@p'"},
	{"established\n< again @p\n", "no packet was called '@p'"},
	{"established\n< DATA WHAT\n", "'WHAT' cannot stand in such a packet"},
	{"established\n< DATA more\n", "'more' cannot stand in such a packet"},
	{"established\n< DATA @\n", "'' is not a name"},
	{"< ACK\n", "the endpoint has not told its id yet"},
	{"< WHAT\n", "there is no type of packet 'WHAT'"},
	{"<\n", "the packet's type is missing"},
	{"accept\n", "nobody listens"},
	{"listen\naccept\n", "there is no connection to be accepted"},
	{"write 1\n", "the application has no such connection"},
	{"established\nclose\nclose\n", "the application has no such connection"},
	{"connect\nconnect\n", "this connection is in use"},
	{"region a 8 read\n", "these begin with the line 'messages'"},
	{"messages\nregion a 8 read\nregion b 8 sing\n", "there is no right 'sing'"},
	{"messages\nregion a 8 read\nmemory a 1:8\n", "that is not a piece of it"},
	{"messages\npost recv 1 len 8\n", "there is no queue pair"},
	{"messages\nqueue 16385\nqp\n", "a queue pair with these settings is refused"},
	{"messages\nregion a 8 read\ndisconnect\n", "there is no queue pair"},
	{"check weather 1\n", "there is no 'weather' to be checked"},
	{"check state\n", "the value is missing"},
	{"check srtt 1\n", "there is no such connection"},
	{"established\n1s check state OPEN\n100ms check state OPEN\n", "100ms is over: it is 1s"},
	{"find nowhere 1\n", "'nowhere' is not an IP address"},
	{"established\nwrite 10 = many\n", "which is not a number"},
	/* what is expected, and is not so */
	{"listen\n< INIT\n", "expected no packet until now"},
	{"established\nwrite 10\n+1ms shutdown\n", "expected no packet until now"},
	{"established\n+1ms > ACK\n", "expected a packet; none came until 1.017ms"},
	{"established\nwrite 10\n> ACK\n", "another type of packet came"},
	{"established\nwrite 10\n> DATA 0:11\n", "the length is 10, expected 11"},
	{"established\nwrite 10\n> DATA !win win 3\n", "win is not there"},
	{"established\nwrite 10\n> DATA FIN\n", "FIN is not set"},
	{"established\nwrite 10\nshutdown\n> DATA !FIN\n", "FIN is set"},
	{"established\nwrite 10\nshutdown\n> DATA flags none\n", "FIN is set"},
	{"established\n< DATA psn 1 1:10\n> ACK sack 2\n", "the SACK words name other packets"},
	{"established\nwrite 10 = 11\n", "the result is 10, expected 11"},
	{"established\nevents OPEN\n", "the events are none, expected OPEN"},
	{"established\ncheck state CLOSING\n", "the state is OPEN, expected CLOSING"},
	{"established\ncheck in_flight > 3\n", "in_flight is 0, expected > 3"},
	{"established\n< DATA len 10\n+1us > ACK\n", "expected a packet; none came until 18us"},
	{"established\n< DATA len 10 ACKREQ\n+1us > ACK\n",
		"a packet came at 0, expected at 1us at the earliest"},
	{"established\n< DATA len 10 ACKREQ\n> nothing\n", "expected no packet until now"},
	{"established\n< DATA len 10 piece 0 more\n> ACK !piece\n", "piece is there"},
	{"established\n< DATA len 10 piece 0 more\n> ACK piece 9\n", "piece is 10, expected 9"},
	{"established\n< DATA len 10 @p\n+50us > ACK echo @p\n", "echo is 49.92us, expected 0"},
	{"messages\nestablished\n> ACK\ncomplete recv 1\n", "there is no completion"},
};

static void test_mistakes(void **state)
{
	for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
		char *text = NULL;
		size_t len;
		FILE *report = open_memstream(&text, &len);
		bool ok = script_run("x", mistakes[i].script, report);

		fclose(report);
		if (ok || !strstr(text, mistakes[i].said))
			print_error("script:\n%s\nwanted: %s\nsaid: %s\n", mistakes[i].script,
				mistakes[i].said, text);
		assert_false(ok);
		assert_non_null(strstr(text, mistakes[i].said));
		free(text);
	}
}

/* Whatever is cut off, or stands in another place, the interpreter says something or runs it. */
static void test_any_words(void **state)
{
	static const char *const words[] = {"<", ">", "+1ms", "3x", "a:", "DATA", "INIT", "INIT_ACK", "ACK",
		"RESET", "FIND", "HELLO", "listen", "accept", "connect", "write", "read", "close", "post",
		"recv", "send", "region", "qp", "messages", "established", "0:10", "len", "5", "@p", "again",
		"echo", "sack", "1-3", "check", "state", "OPEN", "=", "nothing", "SEND", "ssn", "imm", "LAST",
		"cookie", "none", "byte", "cut", "pad", "events", "complete", "isn", "\n"};
	uint64_t seed = 1;

	for (unsigned n = 0; n < 3000; n++) {
		char text[512] = "";
		char *said = NULL;
		size_t len;
		FILE *report = open_memstream(&said, &len);

		for (unsigned i = 0; i < 24; i++) {
			seed = seed * 6364136223846793005u + 1442695040888963407u;
			strcat(strcat(text, " "), words[(seed >> 33) % (sizeof words / sizeof *words)]);
		}
		if (!script_run("any", text, report)) {
			fflush(report);
			assert_true(len > 0);
		}
		fclose(report);
		free(said);
	}
}

/* --- scripts --- */

static void test_file(void **state)
{
	char *text = NULL;
	size_t len;
	FILE *report = open_memstream(&text, &len);
	bool ok = script_run_file(*state, report);

	fclose(report);
	if (!ok)
		print_error("%s", text);
	free(text);
	assert_true(ok);
}

static int is_script(const struct dirent *d)
{
	size_t len = strlen(d->d_name);

	return len > 4 && !strcmp(d->d_name + len - 4, ".pkt");
}

static int run_folder(const char *folder)
{
	static struct CMUnitTest tests[MAX_TESTS] = {
		cmocka_unit_test(test_mistakes), cmocka_unit_test(test_any_words)};
	struct dirent **files;
	int n = scandir(folder, &files, is_script, alphasort), r;
	size_t total = 2;

	if (n <= 0 || n > MAX_TESTS - 2) {
		fprintf(stderr, "%s: no scripts, or too many\n", folder);
		return 1;
	}
	for (int i = 0; i < n; i++) {
		char *path = malloc(strlen(folder) + strlen(files[i]->d_name) + 2);

		sprintf(path, "%s/%s", folder, files[i]->d_name);
		tests[total++] = (struct CMUnitTest){
			.name = files[i]->d_name, .test_func = test_file, .initial_state = path};
	}
	r = _cmocka_run_group_tests("scripts", tests, total, NULL, NULL);
	for (int i = 0; i < n; i++) {
		free(tests[i + 2].initial_state);
		free(files[i]);
	}
	free(files);
	return r;
}

int main(int argc, char **argv)
{
	int failed = 0;

	if (argc < 2) {
		fprintf(stderr, "usage: test_script FOLDER | FILE.pkt...\n");
		return 2;
	}
	if (!strstr(argv[1], ".pkt"))
		return run_folder(argv[1]);
	for (int i = 1; i < argc; i++)
		failed += !script_run_file(argv[i], stdout);
	printf("%d scripts, %d failed\n", argc - 1, failed);
	return failed > 0;
}
