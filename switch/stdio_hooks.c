/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Streams on TCP sockets. The C library's own streams read and write by calls inside it that nobody can hook,
 * so fdopen(3) of a TCP socket gives a stream that calls ours; fileno(3) still knows its number. dprintf(3)
 * has the same problem, and none of this helps standard output when a connection is put in its place.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "switch/libc.h"
#include "switch/sock.h"

/* Found by fileno without a lock, so that a forked child finds none held; reused and never freed. */
struct stream {
	struct stream *next;
	_Atomic(FILE *) file;
	_Atomic bool taken;
	int fd;
};

static _Atomic(struct stream *) streams;

static struct stream *new_stream(void)
{
	struct stream *s;
	bool no;

	for (s = atomic_load(&streams); s; s = s->next) {
		no = false;
		if (atomic_compare_exchange_strong(&s->taken, &no, true))
			return s;
	}
	s = calloc(1, sizeof *s);
	if (!s)
		return NULL;
	s->taken = true;
	s->next = atomic_load(&streams);
	while (!atomic_compare_exchange_weak(&streams, &s->next, s))
		;
	return s;
}

static const struct stream *find_stream(FILE *file)
{
	for (const struct stream *s = atomic_load(&streams); s; s = s->next) {
		if (atomic_load(&s->file) == file)
			return s;
	}
	return NULL;
}

/* --- what a stream does --- */

static ssize_t stream_read(void *cookie, char *buf, size_t len)
{
	return read(((struct stream *)cookie)->fd, buf, len);
}

static size_t write_all(int fd, const char *buf, size_t len)
{
	size_t done = 0;
	ssize_t n;

	while (done < len && (n = write(fd, buf + done, len - done)) > 0)
		done += (size_t)n;
	return done;
}

static ssize_t stream_write(void *cookie, const char *buf, size_t len)
{
	return (ssize_t)write_all(((struct stream *)cookie)->fd, buf, len);
}

static int stream_seek(void *cookie, off64_t *offset, int whence)
{
	errno = ESPIPE;
	return -1;
}

static int stream_close(void *cookie)
{
	struct stream *s = cookie;
	int fd = s->fd;

	atomic_store(&s->file, NULL);
	atomic_store(&s->taken, false);
	return close(fd);
}

static const cookie_io_functions_t functions = {stream_read, stream_write, stream_seek, stream_close};

static FILE *open_stream(int fd, const char *mode)
{
	struct stream *s = new_stream();
	FILE *f = NULL;

	if (!s)
		return NULL;
	s->fd = fd;
	f = fopencookie(s, mode, functions);
	atomic_store(&s->file, f);
	if (!f)
		atomic_store(&s->taken, false);
	return f;
}

/* --- the hooks --- */

/* Found when first needed: other libraries' constructors may come before ours. */
#define NEXT(type, name)                                                                                     \
	({                                                                                                   \
		static type *next_##name;                                                                    \
		if (!next_##name)                                                                            \
			next_##name = (type *)sw_libc_symbol(#name);                                         \
		next_##name;                                                                                 \
	})
typedef FILE *fdopen_fn(int fd, const char *mode);
typedef int fileno_fn(FILE *file);
typedef int vdprintf_fn(int fd, const char *format, va_list ap);
typedef int vdprintf_chk_fn(int fd, int flag, const char *format, va_list ap);

/* Nothing of this process will ever be on the SAN. */
static bool is_off(void)
{
	return sw_rt.cfg && sw_rt.off != SD_REASON_SAN;
}

SW_EXPORT FILE *fdopen(int fd, const char *mode)
{
	if (sw_is_internal() || is_off() || !sw_sock_is_tcp(fd))
		return NEXT(fdopen_fn, fdopen)(fd, mode);
	return open_stream(fd, mode);
}

SW_EXPORT int fileno(FILE *file)
{
	const struct stream *s = find_stream(file);

	return s ? s->fd : NEXT(fileno_fn, fileno)(file);
}

SW_EXPORT int fileno_unlocked(FILE *file)
{
	return fileno(file);
}

static int print(int fd, const char *format, va_list ap)
{
	char *text;
	int len = vasprintf(&text, format, ap), saved_errno;

	if (len < 0)
		return len;
	if (write_all(fd, text, (size_t)len) < (size_t)len)
		len = -1;
	saved_errno = errno;
	free(text);
	errno = saved_errno;
	return len;
}

SW_EXPORT int vdprintf(int fd, const char *format, va_list ap)
{
	return sw_fd_hot(fd) ? print(fd, format, ap) : NEXT(vdprintf_fn, vdprintf)(fd, format, ap);
}

SW_EXPORT int dprintf(int fd, const char *format, ...)
{
	va_list ap;
	int r;

	va_start(ap, format);
	r = vdprintf(fd, format, ap);
	va_end(ap);
	return r;
}

/* With _FORTIFY_SOURCE. */
vdprintf_chk_fn __vdprintf_chk;
int __dprintf_chk(int fd, int flag, const char *format, ...);

SW_EXPORT int __vdprintf_chk(int fd, int flag, const char *format, va_list ap)
{
	return sw_fd_hot(fd) ? print(fd, format, ap)
			     : NEXT(vdprintf_chk_fn, __vdprintf_chk)(fd, flag, format, ap);
}

SW_EXPORT int __dprintf_chk(int fd, int flag, const char *format, ...)
{
	va_list ap;
	int r;

	va_start(ap, format);
	r = __vdprintf_chk(fd, flag, format, ap);
	va_end(ap);
	return r;
}
