/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * guest: a plain C sockets program of the end-to-end scenarios. It knows nothing of Sandirect; its peer is an
 * echo server. Each command prints what it saw as "key value" lines and exits with 0, or says what went wrong
 * on standard error and exits with 1.
 */
#ifndef SD_TESTS_E2E_GUEST_H
#define SD_TESTS_E2E_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Says what went wrong, with errno if that is not 0, and exits. */
void guest_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
#define guest_check(condition, ...)                                                                          \
	do {                                                                                                 \
		if (!(condition))                                                                            \
			guest_fail(__VA_ARGS__);                                                             \
	} while (0)

/* A connected blocking socket. */
int guest_connect(const char *address, const char *port);
void guest_send(int fd, const void *data, size_t len);
void guest_recv(int fd, void *data, size_t len);
/* Sends len bytes, receives them and compares. */
void guest_echo(int fd, unsigned seed, size_t len);
uint64_t guest_now_ms(void);

/* The commands, with argv[0] being the first argument after the command's name. */
void guest_state(int argc, char **argv);
void guest_closefrom(int argc, char **argv);
void guest_signals(int argc, char **argv);
void guest_forks(int argc, char **argv);
void guest_threads(int argc, char **argv);
void guest_cancel(int argc, char **argv);
void guest_wait(int argc, char **argv);
void guest_endings(int argc, char **argv);
void guest_transfer(int argc, char **argv);

#endif
