/* SPDX-License-Identifier: BSD-3-Clause */
/* rights: descriptors that travel over UNIX sockets (SCM_RIGHTS, unix(7)). Outside the domain; errno stays.
 */
#ifndef SD_SWITCH_RIGHTS_H
#define SD_SWITCH_RIGHTS_H

#include <sys/socket.h>

/* About to be sent: what is in it is used by two processes from now on. */
void sw_rights_leave(const struct msghdr *msg);
/* Was received: what is in it may be ours. */
void sw_rights_arrive(struct msghdr *msg);

#endif
