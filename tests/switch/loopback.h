/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * loopback: connections within one process, over the SAN path or the kernel's, for tests of a program that is
 * linked to the switch. The SAN "port" stands for lo, so that 127.0.0.1 is on the SAN and joins sockets of
 * one process in memory; 127.0.0.2 is not an address of an interface and stays with the kernel.
 */
#ifndef SD_TESTS_SWITCH_LOOPBACK_H
#define SD_TESTS_SWITCH_LOOPBACK_H

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>

enum path { KERNEL, SAN };

/* Writes a configuration and makes this process use it; before the first socket. Removed at exit. */
void loopback_begin(void);
const char *loopback_dir(void);
/* A listening socket on a free port. */
int loopback_listen(enum path p);
/* Connects to a listener; the connected descriptor. fd < 0: a new socket. */
int loopback_connect(int listener, int fd);
/* Both ends of a connection over p, as checked. */
void loopback_pair(enum path p, int fds[2]);
/* Starts the engine: a process that was not joined in memory only. */
void loopback_start_engine(void);
/* What carries a connected socket. */
enum path loopback_path(int fd);

#endif
