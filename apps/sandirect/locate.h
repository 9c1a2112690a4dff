/* SPDX-License-Identifier: BSD-3-Clause */
/* Where the parts of this installation are: beside the running binary, in its build directory, or installed.
 */
#ifndef SD_APPS_LOCATE_H
#define SD_APPS_LOCATE_H

#include <stddef.h>

/* The absolute path of libsandirect.so, which the loader can preload. 0, -ENOENT, or -EINVAL: its path has a
 * blank or a colon, which LD_PRELOAD cannot express. */
int locate_library(char *out, size_t len);
/* The same for libsandirect-dpdk.so, which libsandirect.so opens when a port needs it. */
int locate_backend(char *out, size_t len);
/* The same for sandirectd. */
int locate_daemon(char *out, size_t len);

#endif
