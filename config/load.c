/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where the configuration comes from: the file, then the environment. A program with raised privileges
 * (setuid) is not told anything by its environment.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/config.h"
#include "config/value.h"

#define FILE_MAX_SIZE (1 << 20)

/* Reads all of fd into a new buffer. */
static int read_all(int fd, char **text, size_t *len)
{
	char *buf = malloc(FILE_MAX_SIZE + 1);
	size_t n = 0;

	if (!buf)
		return -ENOMEM;
	while (n <= FILE_MAX_SIZE) {
		ssize_t got = read(fd, buf + n, FILE_MAX_SIZE + 1 - n);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			int rc = -errno;

			free(buf);
			return rc;
		}
		if (!got)
			break;
		n += (size_t)got;
	}
	if (n > FILE_MAX_SIZE) {
		free(buf);
		return -EFBIG;
	}
	*text = buf;
	*len = n;
	return 0;
}

static int read_file(const char *file, char **text, size_t *len)
{
	/* O_NONBLOCK: a FIFO must not hang the program. */
	int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), rc;

	if (fd < 0)
		return -errno;
	rc = read_all(fd, text, len);
	close(fd);
	return rc;
}

static int complain_file(const char *file, int rc, char *err, size_t err_len)
{
	if (rc == -EFBIG)
		snprintf(
			err, err_len, "%s: more than %d bytes; is this the right file?", file, FILE_MAX_SIZE);
	else
		snprintf(err, err_len, "%s: cannot be read (%s); name another one with SANDIRECT_CONFIG",
			file, strerrordesc_np(-rc));
	return rc;
}

int cfg_load_file(struct cfg *out, const char *file, char *err, size_t err_len)
{
	char *text = NULL;
	size_t len = 0;
	int rc = read_file(file, &text, &len);

	if (rc) {
		cfg_defaults(out);
		return complain_file(file, rc, err, err_len);
	}
	rc = cfg_parse(out, file, text, len, err, err_len);
	free(text);
	return rc;
}

static int complain_env(const char *name, const char *value, const char *expected, char *err, size_t err_len)
{
	snprintf(err, err_len, "%s=%.60s in the environment: must be %s; change or unset it", name, value,
		expected);
	return -EINVAL;
}

static int apply_env(struct cfg *c, char *err, size_t err_len)
{
	const char *v;
	uint64_t us;

	v = secure_getenv("SANDIRECT");
	if (v && *v && !cfg_value_bool(v, &c->enabled))
		return complain_env("SANDIRECT", v, "on or off", err, err_len);
	v = secure_getenv("SANDIRECT_LOG");
	if (v && *v && !cfg_value_level(v, &c->log_level))
		return complain_env("SANDIRECT_LOG", v, "error, warn, info or debug", err, err_len);
	v = secure_getenv("SANDIRECT_SPIN_US");
	if (v && *v) {
		if (!cfg_value_count(v, &us) || us > 10000000)
			return complain_env("SANDIRECT_SPIN_US", v, "a number of microseconds up to 10000000",
				err, err_len);
		c->spin_ns = us * 1000;
	}
	v = secure_getenv("SANDIRECT_RUNTIME_DIR");
	if (v && *v) {
		if (*v != '/' || strlen(v) >= sizeof c->runtime_dir)
			return complain_env("SANDIRECT_RUNTIME_DIR", v,
				"an absolute path of less than 128 bytes", err, err_len);
		strcpy(c->runtime_dir, v);
	}
	v = secure_getenv("SANDIRECT_DAEMON");
	if (v && *v) {
		if (*v != '/' || strlen(v) >= sizeof c->daemon)
			return complain_env("SANDIRECT_DAEMON", v, "an absolute path of less than 108 bytes",
				err, err_len);
		strcpy(c->daemon, v);
	}
	return 0;
}

int cfg_load(struct cfg *out, char *err, size_t err_len)
{
	const char *file = secure_getenv("SANDIRECT_CONFIG");
	int rc;

	if (file && *file) {
		rc = cfg_load_file(out, file, err, err_len);
	} else {
		rc = cfg_load_file(out, CFG_FILE, err, err_len);
		if (rc == -ENOENT)
			rc = 0;
	}
	if (!rc)
		rc = apply_env(out, err, err_len);
	if (rc)
		cfg_defaults(out);
	return rc;
}
