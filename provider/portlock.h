/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * portlock: keeps a NIC port to one process. A POSIX record lock on a file per (device, network namespace):
 * the kernel drops it when the process dies, however that happens, and a forked child does not inherit it.
 */
#ifndef SD_PROVIDER_PORTLOCK_H
#define SD_PROVIDER_PORTLOCK_H

/* The descriptor that holds the lock, -EBUSY: another process has the port, -EAGAIN: locking is impossible
 * here (no such directory and no right to make it) and the port must do without. */
int portlock_take(const char *dir, const char *device);
void portlock_release(int fd);

#endif
