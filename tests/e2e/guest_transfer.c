/* SPDX-License-Identifier: BSD-3-Clause */
/* Calls that move bytes between a socket and something else. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "guest.h"

enum { BYTES = 1 << 20, PIECE = 16 << 10 };

static unsigned char out[BYTES], in[BYTES];

static void expect_same(const char *what, size_t len)
{
	guest_check(!memcmp(in, out, len), "%s: other bytes came back", what);
	memset(in, 0, len);
}

/* len bytes by a pipe there, and by the pipe back. */
static void splice_echo(int fd, size_t len)
{
	size_t sent = 0, got = 0;
	int p[2];

	guest_check(!pipe(p), "pipe");
	while (got < len) {
		size_t n = len - sent < PIECE ? len - sent : PIECE;
		ssize_t r;

		guest_check(write(p[1], out + sent, n) == (ssize_t)n, "write to a pipe");
		for (size_t done = 0; done < n; done += (size_t)r) {
			r = splice(p[0], NULL, fd, NULL, n - done, 0);
			guest_check(r > 0, "splice to the socket: %zd", r);
		}
		for (sent += n; got < sent; got += (size_t)r) {
			r = splice(fd, NULL, p[1], NULL, sent - got, 0);
			guest_check(r > 0, "splice from the socket: %zd", r);
			guest_check(read(p[0], in + got, (size_t)r) == r, "read from a pipe");
		}
	}
	close(p[0]);
	close(p[1]);
	expect_same("splice", len);
}

static void file_echo(int fd)
{
	char name[] = "/tmp/guest-XXXXXX";
	int file = mkstemp(name);
	off_t at = 0;

	guest_check(file >= 0, "mkstemp");
	unlink(name);
	guest_check(write(file, out, BYTES) == BYTES, "write to a file");
	while (at < BYTES) {
		off_t from = at;
		ssize_t n = sendfile(fd, file, &at, PIECE);

		guest_check(n > 0 && at == from + n, "sendfile: %zd", n);
		guest_recv(fd, in + from, (size_t)n);
	}
	close(file);
	expect_same("sendfile", BYTES);
}

/* The first bytes of a connection, many, and some after all has been acknowledged. */
void guest_transfer(int argc, char **argv)
{
	int fd = guest_connect(argv[0], argv[1]);

	for (size_t i = 0; i < BYTES; i++)
		out[i] = (unsigned char)(i * 31 + i / 4099);
	splice_echo(fd, 100);
	splice_echo(fd, BYTES);
	usleep(100000);
	splice_echo(fd, 100);
	puts("splice yes");
	file_echo(fd);
	puts("sendfile yes");
	puts("holding");
	getchar();
}
