/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * process: what fork, exec and exit mean for the switch.
 *
 * In a forked child the domain's memory is wiped, the rings and the EAL are not there. The child's handler
 * forgets the parent's engine, closes the guarded descriptors, marks SAN connections dead (SW_DEAD) and takes
 * the SAN side from listeners. When the child next uses the switch, sw_runtime_open makes a runtime of its
 * own and calls sw_process_reborn.
 */
#ifndef SD_SWITCH_PROCESS_H
#define SD_SWITCH_PROCESS_H

#include <stdbool.h>

/* Is this a forked child whose runtime is still to be made again? */
bool sw_process_was_forked(void);
/* A new runtime has come to life in a forked child: if the parent's engine had not been started, listeners
 * get their SAN side back; else the runtime's `off` becomes FORKED. Outside the domain, inside > 0. */
void sw_process_reborn(void);
/* At exit: closes every SAN socket gracefully, so that what was sent is delivered. Domain entered. */
void sw_process_close_sockets(void);

#endif
