/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * log: formats one line and hands it to the sink, or writes it to standard error with a single write. Any
 * thread may log. Nothing is locked, so a fork or a signal in the middle cannot leave a lock behind; the
 * budget of lines is a pair of atomics that concurrent callers may overrun by a few.
 */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"

#define LINE_MAX_BYTES	 1024
#define LINES_PER_SECOND 50

static _Atomic int log_level = SD_LOG_WARN;
static _Atomic(sd_log_sink *) log_sink;
static void *_Atomic log_ctx;

/* Of each level its own: what somebody else's library has to say on debug must not cost a word of ours. */
static struct {
	_Atomic uint64_t start;
	_Atomic unsigned lines, dropped;
} windows[SD_LOG_DEBUG + 1];

void sd_log_open(enum sd_log_level level, sd_log_sink *sink, void *ctx)
{
	atomic_store(&log_sink, NULL);
	atomic_store(&log_ctx, ctx);
	atomic_store(&log_sink, sink);
	atomic_store(&log_level, level);
}

bool sd_log_enabled(enum sd_log_level level)
{
	return (int)level <= atomic_load_explicit(&log_level, memory_order_relaxed);
}

static void write_stderr(const char *line)
{
	char buf[LINE_MAX_BYTES + 16];
	int n = snprintf(buf, sizeof buf, "sandirect: %s\n", line);

	/* Straight to the kernel: write() may be one of our own hooks. */
	if (n > 0)
		syscall(SYS_write, STDERR_FILENO, buf, (size_t)n);
}

static void emit(enum sd_log_level level, const char *line)
{
	sd_log_sink *sink = atomic_load(&log_sink);

	if (sink)
		sink(atomic_load(&log_ctx), level, line);
	else
		write_stderr(line);
}

/* Takes one line from the level's budget for this second. */
static bool take_line(enum sd_log_level level)
{
	uint64_t now = sd_clock_ns(), start = atomic_load(&windows[level].start);
	unsigned n;

	/* Signed: another thread may have begun the second after this one read the clock. */
	if ((int64_t)(now - start) >= (int64_t)SD_S &&
		atomic_compare_exchange_strong(&windows[level].start, &start, now)) {
		atomic_store(&windows[level].lines, 0);
		n = atomic_exchange(&windows[level].dropped, 0);
		if (n) {
			char line[64];

			snprintf(line, sizeof line, "%u messages dropped", n);
			emit(SD_LOG_WARN, line);
		}
	}
	if (atomic_fetch_add(&windows[level].lines, 1) < LINES_PER_SECOND)
		return true;
	atomic_fetch_add(&windows[level].dropped, 1);
	return false;
}

void sd_log(enum sd_log_level level, const char *fmt, ...)
{
	int saved = errno;
	char line[LINE_MAX_BYTES];
	va_list ap;

	if (sd_log_enabled(level) && take_line(level)) {
		va_start(ap, fmt);
		vsnprintf(line, sizeof line, fmt, ap);
		va_end(ap);
		for (char *p = line; (p = strchr(p, '\n'));)
			*p = ' ';
		emit(level, line);
	}
	errno = saved;
}
