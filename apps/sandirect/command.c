/* SPDX-License-Identifier: BSD-3-Clause */
#include "command.h"

#include <stdarg.h>
#include <stdio.h>

static void speak(const char *fmt, va_list ap)
{
	fflush(stdout);
	fputs("sandirect: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
}

void command_warn(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	speak(fmt, ap);
	va_end(ap);
}

int command_fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	speak(fmt, ap);
	va_end(ap);
	return 1;
}
