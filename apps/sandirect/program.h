/* SPDX-License-Identifier: BSD-3-Clause */
/* Will the dynamic loader preload a library into a program? Looks at the file, runs nothing. */
#ifndef SD_APPS_PROGRAM_H
#define SD_APPS_PROGRAM_H

/* NULL: yes, or it cannot be told (no such file, not readable). Else why not, as the end of a sentence. */
const char *program_obstacle(const char *name);

#endif
