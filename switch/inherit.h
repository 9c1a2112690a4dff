/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * inherit: sockets that come from another process, by execve(2) or over a UNIX socket (SCM_RIGHTS).
 *
 * With a daemon a connection's descriptor is an end of it (provider/channel.h), and works in whatever process
 * it gets to. One that is recognised is tracked as SW_DEAD with `passed` set, so that the first hook that
 * meets it enters the domain; whoever enters first makes a connection of it. A listening socket is tracked
 * with `late` set: its SAN side begins when somebody waits or accepts with it, as a process may have it
 * without wanting its connections.
 */
#ifndef SD_SWITCH_INHERIT_H
#define SD_SWITCH_INHERIT_H

#include "switch/sock.h"

/* A descriptor that has just come to this process: tracks it if it is one of ours. Outside the domain. */
void sw_inherit_fd(int fd);
/* All that were tracked become connections, or stay dead. A new runtime has come to life; domain entered. */
void sw_inherit_settle(void);
/* The same listening socket as in another process, which is to accept here too. */
void sw_inherit_listener(struct sw_sock *s);

/* What s takes along to another process; its size. */
size_t sw_note_of(const struct sw_sock *s, uint8_t out[PV_NOTE_SIZE]);
/* Before descriptors go to another process: their connections are used by two from now on, and a listener
 * that nobody has waited for here is for the other, it seems. */
void sw_share(struct sw_sock *s);
void sw_share_all(void);

#endif
