/* SPDX-License-Identifier: BSD-3-Clause */
/* What systemd is told (sd_notify(3)): a datagram to the socket that it names; nothing without it. */
#ifndef SD_APPS_NOTIFY_H
#define SD_APPS_NOTIFY_H

void notify(const char *state);

#endif
