/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sandirect: for programs that link libsandirect.so instead of having it preloaded.
 *
 * Nothing has to be called: the library takes the place of the C library's socket functions. These tell what
 * it decided. Any thread; not from a signal handler.
 */
#ifndef SANDIRECT_H
#define SANDIRECT_H

#ifdef __cplusplus
extern "C" {
#endif

enum sandirect_path {
	SANDIRECT_TCP = 0, /* the kernel's TCP/IP */
	SANDIRECT_SAN = 1, /* a NIC port, without the kernel; for a listener: there too */
};

/* The path that carries the TCP socket fd. -1 with errno EBADF (not open) or ENOTSOCK (not a TCP socket that
 * this library knows). */
int sandirect_path(int fd);
/* Why: a name such as "SAN" or "PEER_SILENT" (docs/configuration.md lists them), static. NULL with errno as
 * above. */
const char *sandirect_reason(int fd);
/* "0.1.0", static. */
const char *sandirect_version(void);

#ifdef __cplusplus
}
#endif

#endif
