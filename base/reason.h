/* SPDX-License-Identifier: BSD-3-Clause */
/* Why a connection took its path. The numbers are stable: they are counted, shown and documented. */
#ifndef SD_BASE_REASON_H
#define SD_BASE_REASON_H

/* X(number, NAME, what happened and what to do) */
#define SD_REASONS(X)                                                                                        \
	X(0, SAN, "on the SAN path")                                                                         \
	X(1, LOOP, "both ends are in this process: joined in memory")                                        \
	X(2, RULE, "a rule of the configuration sends it to TCP")                                            \
	X(3, NO_PORT, "no SAN port is configured; add a [port] section")                                     \
	X(4, NO_ROUTE, "the kernel's route to the peer does not leave by a SAN interface")                   \
	X(5, GATEWAY, "the peer is behind a router; the SAN serves its own segment")                         \
	X(6, LOCAL, "the peer is another process of this host")                                              \
	X(7, PEER_SILENT, "nobody at this address answers on the SAN")                                       \
	X(8, PEER_NO_LISTENER, "the peer is on the SAN, but this port is not listened on there")             \
	X(9, PEER_REFUSED, "the peer's policy or full backlog refused it")                                   \
	X(10, PEER_VERSION, "the peer speaks no common protocol version; upgrade the older side")            \
	X(11, PORT_BUSY, "another process has the SAN port; give this one a port of its own")                \
	X(12, PORT_DOWN, "the SAN port has no link")                                                         \
	X(13, START_FAILED, "the SAN port could not be opened; the log has the cause")                       \
	X(14, LIMIT_NOFILE, "RLIMIT_NOFILE is too small for the SAN engine; raise ulimit -n")                \
	X(15, LIMIT_AS, "RLIMIT_AS is too small for the SAN engine; raise ulimit -v")                        \
	X(16, FORKED, "this process is a forked child of one that owns the SAN port")                        \
	X(17, OPTION, "the socket has an option that the SAN path does not carry")                           \
	X(18, PEER_TCP, "the peer connected over TCP")                                                       \
	X(19, FASTOPEN, "connected by sendto with MSG_FASTOPEN")                                             \
	X(20, NO_MEMORY, "out of memory or connections for the SAN path")                                    \
	X(21, DISABLED, "switched off by SANDIRECT=off or by the launcher")                                  \
	X(22, NOT_YET, "a socket that is not connected yet")                                                 \
	X(23, BACKLOG, "accepted over TCP while the SAN side was not started")                               \
	X(24, INHERITED, "connected before this program was executed")                                       \
	X(25, NO_DAEMON, "the daemon does not answer; start sandirectd")                                     \
	X(26, LIMIT_USER, "this user has as many connections as the daemon allows")

enum sd_reason {
#define X(n, name, text) SD_REASON_##name = n,
	SD_REASONS(X)
#undef X
		SD_REASON_COUNT
};

const char *sd_reason_name(enum sd_reason r); /* "PEER_SILENT"; "UNKNOWN" for others */
const char *sd_reason_text(enum sd_reason r);

#endif
