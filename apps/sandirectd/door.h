/* SPDX-License-Identifier: BSD-3-Clause */
/* The UNIX socket on which programs call. */
#ifndef SD_APPS_DOOR_H
#define SD_APPS_DOOR_H

/* Opens it for everybody, in a directory that is made if need be. A socket that a dead daemon left there is
 * replaced; a live one's is not. The descriptor, or -errno after a message. */
int door_open(const char *path);
/* Lets programs of all users leave their records for `sandirect stat` in runtime_dir/stat. */
void door_open_records(const char *runtime_dir);

#endif
