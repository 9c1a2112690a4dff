/* SPDX-License-Identifier: BSD-3-Clause */
/* The writer of statfile.h: one record per tracked socket. Domain entered, but for stat_close. */
#ifndef SD_SWITCH_STATWRITE_H
#define SD_SWITCH_STATWRITE_H

#include "switch/sock.h"

/* Makes or rewrites the record of s (none while its state is SW_IDLE). Cheap enough for connect, accept and
 * close. */
void stat_update(struct sw_sock *s);
void stat_remove(struct sw_sock *s);
/* Counts a decision: a connection took the SAN (SAN, LOOP) or TCP for this reason. */
void stat_count(enum sd_reason reason);
/* From the domain's tick: brings the records up to date, if a reader asked or anyway. */
void stat_refresh(bool anyway);
/* At exit. */
void stat_close(void);

#endif
