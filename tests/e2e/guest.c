/* SPDX-License-Identifier: BSD-3-Clause */
#include "guest.h"

#include <errno.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

void guest_fail(const char *fmt, ...)
{
	int error = errno;
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, error ? ": %s\n" : "\n", strerror(error));
	exit(1);
}

int guest_connect(const char *address, const char *port)
{
	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM}, *ai;
	int fd;

	guest_check(!getaddrinfo(address, port, &hints, &ai), "%s port %s is no address", address, port);
	fd = socket(ai->ai_family, SOCK_STREAM, 0);
	guest_check(fd >= 0, "socket");
	guest_check(!connect(fd, ai->ai_addr, ai->ai_addrlen), "connect to %s port %s", address, port);
	freeaddrinfo(ai);
	errno = 0;
	return fd;
}

void guest_send(int fd, const void *data, size_t len)
{
	const char *p = data;

	while (len) {
		ssize_t n = send(fd, p, len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		guest_check(n > 0, "send of %zu bytes: %zd", len, n);
		p += n;
		len -= (size_t)n;
	}
}

void guest_recv(int fd, void *data, size_t len)
{
	char *p = data;

	while (len) {
		ssize_t n = recv(fd, p, len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		guest_check(n > 0, "recv of %zu bytes: %zd", len, n);
		p += n;
		len -= (size_t)n;
	}
}

void guest_echo(int fd, unsigned seed, size_t len)
{
	unsigned char out[4096], in[4096];

	guest_check(len <= sizeof out, "%zu bytes are too many", len);
	for (size_t i = 0; i < len; i++)
		out[i] = (unsigned char)(seed = seed * 1103515245 + 12345) >> 3;
	guest_send(fd, out, len);
	guest_recv(fd, in, len);
	errno = 0;
	guest_check(!memcmp(in, out, len), "other bytes came back");
}

uint64_t guest_now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static const struct {
	const char *name;
	void (*run)(int argc, char **argv);
	int argc;
} commands[] = {
	{"state", guest_state, 2},
	{"closefrom", guest_closefrom, 2},
	{"signals", guest_signals, 2},
	{"forks", guest_forks, 2},
	{"threads", guest_threads, 2},
	{"cancel", guest_cancel, 2},
	{"wait", guest_wait, 5},
	{"endings", guest_endings, 2},
	{"transfer", guest_transfer, 2},
};

int main(int argc, char **argv)
{
	for (size_t i = 0; argc > 1 && i < sizeof commands / sizeof *commands; i++) {
		if (strcmp(argv[1], commands[i].name) || argc - 2 != commands[i].argc)
			continue;
		setvbuf(stdout, NULL, _IOLBF, 0);
		commands[i].run(argc - 2, argv + 2);
		puts("done");
		return 0;
	}
	fputs("Usage: guest COMMAND ADDRESS PORT [ADDRESS PORT KIND]\n", stderr);
	return 2;
}
