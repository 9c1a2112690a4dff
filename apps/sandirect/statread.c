/* SPDX-License-Identifier: BSD-3-Clause */
#include "statread.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "netns.h"

#define REFRESH_WAIT_MS 150
#define READ_TRIES	4
#define TABLE_SIZE	(sizeof(struct statfile_header) + STATFILE_RECORDS * sizeof(struct statfile_record))

_Static_assert(SD_REASON_COUNT <= sizeof((struct statfile_header *)0)->by_reason / sizeof(uint64_t),
	"a reason has no counter");

struct candidate {
	pid_t pid;
	int fd;
	uint64_t wanted; /* the refresh that was asked for */
};

struct candidates {
	struct candidate *items;
	unsigned n, cap;
};

/* Field 22 of /proc/PID/stat; 0: no such process, or one that has ended and only waits for its parent. */
static uint64_t start_time_of(pid_t pid)
{
	char path[64], text[1024], state;
	unsigned long long start = 0;
	long threads;
	const char *s;
	ssize_t n;
	int fd;

	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	n = read(fd, text, sizeof text - 1);
	close(fd);
	if (n <= 0)
		return 0;
	text[n] = '\0';
	s = strrchr(text, ')'); /* field 2, the name, may hold anything */
	if (!s || sscanf(s + 1,
			  " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %ld %*s %llu",
			  &state, &threads, &start) != 3)
		return 0;
	/* A program may end its first thread and live on in others. */
	return state == 'Z' && threads <= 1 ? 0 : start;
}

static bool read_header(int fd, struct statfile_header *h)
{
	return pread(fd, h, sizeof *h, 0) == sizeof *h && h->magic == STATFILE_MAGIC &&
	       h->version == STATFILE_VERSION && h->header_size == sizeof *h &&
	       h->record_size == sizeof(struct statfile_record) && h->records <= STATFILE_RECORDS;
}

/* A file speaks for a process only if root or the process's own user wrote it. */
static bool is_trusted_owner(int fd, pid_t pid)
{
	struct stat file, proc;
	char path[64];

	snprintf(path, sizeof path, "/proc/%d", pid);
	if (fstat(fd, &file) || !S_ISREG(file.st_mode) || stat(path, &proc))
		return false;
	return file.st_uid == 0 || file.st_uid == proc.st_uid;
}

/* Readers that ask at the same time may lose an increment to each other; any of them has the effect. */
static uint64_t ask_refresh(int fd, const struct statfile_header *h)
{
	uint64_t wanted = h->refresh_wanted + 1;

	if (pwrite(fd, &wanted, sizeof wanted, offsetof(struct statfile_header, refresh_wanted)) !=
		sizeof wanted)
		return 0;
	return wanted;
}

static void add_candidate(struct candidates *c, int dir, const char *name, pid_t pid)
{
	static const int flags = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
	struct candidate new = {.pid = pid, .fd = openat(dir, name, O_RDWR | flags)};
	struct statfile_header h;
	struct candidate *items;
	uint64_t start;
	bool known;

	if (new.fd < 0)
		new.fd = openat(dir, name, O_RDONLY | flags);
	if (new.fd < 0)
		return;
	known = read_header(new.fd, &h) && h.pid == pid;
	start = start_time_of(pid);
	if (!start || (known && start != h.start_time))
		unlinkat(dir, name, 0);
	if (!start || !known || start != h.start_time || !is_trusted_owner(new.fd, pid))
		goto drop;
	if (c->n == c->cap) {
		items = realloc(c->items, (c->cap ? 2 * c->cap : 16) * sizeof *items);
		if (!items)
			goto drop;
		c->items = items;
		c->cap = c->cap ? 2 * c->cap : 16;
	}
	new.wanted = ask_refresh(new.fd, &h);
	c->items[c->n++] = new;
	return;
drop:
	close(new.fd);
}

static int compare_pid(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	return x->pid < y->pid ? -1 : x->pid > y->pid;
}

static int find_candidates(const char *runtime_dir, pid_t only, struct candidates *c)
{
	char path[256];
	struct dirent *e;
	DIR *dir;

	snprintf(path, sizeof path, "%s/stat", runtime_dir);
	dir = opendir(path);
	if (!dir)
		return errno == ENOENT ? 0 : -errno;
	while ((e = readdir(dir))) {
		char *end;
		long pid = strtol(e->d_name, &end, 10);

		if (isdigit((unsigned char)e->d_name[0]) && !*end && pid > 0 && pid <= INT32_MAX &&
			(!only || pid == only))
			add_candidate(c, dirfd(dir), e->d_name, (pid_t)pid);
	}
	closedir(dir);
	if (c->n)
		qsort(c->items, c->n, sizeof *c->items, compare_pid);
	return 0;
}

static bool is_refreshed(const struct candidate *c)
{
	uint64_t done;

	return !c->wanted || (pread(c->fd, &done, sizeof done, offsetof(struct statfile_header, refreshed)) ==
					     sizeof done &&
				     done >= c->wanted);
}

static void wait_refreshed(const struct candidates *c)
{
	static const struct timespec ms = {0, 1000000};
	unsigned i = 0;

	for (unsigned waited = 0; i < c->n && waited < REFRESH_WAIT_MS; waited++) {
		while (i < c->n && is_refreshed(&c->items[i]))
			i++;
		if (i < c->n)
			nanosleep(&ms, NULL);
	}
}

static void make_printable(char *s, size_t size)
{
	s[size - 1] = '\0';
	for (; *s; s++)
		if (!isprint((unsigned char)*s))
			*s = '?';
}

static void clean_addr(struct sd_addr *a)
{
	if (a->family != 4 && a->family != 6)
		*a = (struct sd_addr){0};
}

static void clean_record(struct statfile_record *r)
{
	make_printable(r->provider, sizeof r->provider);
	make_printable(r->state, sizeof r->state);
	clean_addr(&r->local);
	clean_addr(&r->peer);
	if (r->path > 1)
		r->path = 0;
	if (r->role > 2)
		r->role = 0;
	if (r->reason >= SD_REASON_COUNT)
		r->reason = SD_REASON_COUNT;
}

static bool in_use(const struct statfile_record *r)
{
	return r->seq != 0;
}

/*
 * A record was consistent if two reads of it, one after the other, gave the same bytes with an even sequence
 * count: had the writer been at it during the first, the count would have been odd then or other in the
 * second.
 */
static bool read_stable(int fd, unsigned index, struct statfile_record *r)
{
	off_t at = (off_t)(sizeof(struct statfile_header) + index * sizeof *r);
	struct statfile_record again;

	for (unsigned i = 0; i < READ_TRIES; i++) {
		if (pread(fd, r, sizeof *r, at) != sizeof *r ||
			pread(fd, &again, sizeof again, at) != sizeof again)
			return false;
		if (!(r->seq & 1) && !memcmp(r, &again, sizeof again))
			return in_use(r);
	}
	return false;
}

/* Takes the records that are in use out of a first, perhaps torn, look at the whole table. */
static int read_records(int fd, struct stat_file *f, const struct statfile_record *seen, unsigned n)
{
	struct statfile_record *records;
	unsigned used = 0, got = 0;

	for (unsigned i = 0; i < n; i++)
		used += in_use(&seen[i]);
	records = calloc(used ? used : 1, sizeof *records);
	if (!records)
		return -ENOMEM;
	for (unsigned i = 0; i < n; i++)
		if (in_use(&seen[i]) && read_stable(fd, i, &records[got]))
			clean_record(&records[got++]);
	f->records = records;
	f->n_records = got;
	return 0;
}

static void clean_ports(struct statfile_header *h)
{
	if (h->n_ports > STATFILE_PORTS)
		h->n_ports = 0;
	for (unsigned i = 0; i < h->n_ports; i++) {
		struct statfile_port *p = &h->ports[i];

		make_printable(p->name, sizeof p->name);
		make_printable(p->netdev, sizeof p->netdev);
		make_printable(p->device, sizeof p->device);
		make_printable(p->driver, sizeof p->driver);
	}
}

static int read_table(const struct candidate *c, struct stat_file *out)
{
	uint8_t *table = malloc(TABLE_SIZE);
	struct statfile_header *h = &out->header;
	ssize_t n;
	int rc = -EINVAL;

	if (!table)
		return -ENOMEM;
	n = pread(c->fd, table, TABLE_SIZE, 0);
	if (n >= (ssize_t)sizeof *h && read_header(c->fd, h) && h->pid == c->pid) {
		size_t fit = ((size_t)n - sizeof *h) / sizeof(struct statfile_record);

		make_printable(h->program, sizeof h->program);
		make_printable(h->engine, sizeof h->engine);
		clean_ports(h);
		rc = read_records(c->fd, out, (const struct statfile_record *)(table + sizeof *h),
			(unsigned)(fit < h->records ? fit : h->records));
	}
	free(table);
	return rc;
}

struct naming {
	struct stat_file *files;
	unsigned n;
};

static void name_netns(void *ctx, const char *name)
{
	struct naming *naming = ctx;
	struct netns_id id;

	if (netns_identify(name, &id))
		return;
	for (unsigned i = 0; i < naming->n; i++)
		if (naming->files[i].header.netns == id.ino)
			snprintf(naming->files[i].host, sizeof naming->files[i].host, "%s", name);
}

static void name_hosts(struct naming *naming)
{
	struct stat own = {0};

	stat("/proc/self/ns/net", &own);
	for (unsigned i = 0; i < naming->n; i++) {
		struct stat_file *f = &naming->files[i];

		snprintf(f->host, sizeof f->host, f->header.netns == own.st_ino ? "-" : "net:[%llu]",
			(unsigned long long)f->header.netns);
	}
	netns_each("", name_netns, naming);
}

static void close_candidates(struct candidates *c)
{
	for (unsigned i = 0; i < c->n; i++)
		close(c->items[i].fd);
	free(c->items);
}

void stat_sweep(const char *runtime_dir)
{
	struct candidates c = {0};
	char path[256];

	find_candidates(runtime_dir, 0, &c);
	close_candidates(&c);
	snprintf(path, sizeof path, "%s/stat", runtime_dir);
	rmdir(path);
}

int stat_read_all(const char *runtime_dir, pid_t pid, struct stat_file **out)
{
	struct candidates c = {0};
	struct naming naming = {0};
	int rc = find_candidates(runtime_dir, pid, &c);

	if (!rc && !(naming.files = calloc(c.n ? c.n : 1, sizeof *naming.files)))
		rc = -ENOMEM;
	if (!rc)
		wait_refreshed(&c);
	for (unsigned i = 0; !rc && i < c.n; i++)
		if (!read_table(&c.items[i], &naming.files[naming.n]))
			naming.n++;
	close_candidates(&c);
	if (rc) {
		free(naming.files);
		return rc;
	}
	name_hosts(&naming);
	*out = naming.files;
	return (int)naming.n;
}

unsigned stat_with_connections(struct stat_file *files, unsigned n)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < n; i++) {
		if (files[i].header.records)
			files[kept++] = files[i];
		else
			free(files[i].records);
	}
	return kept;
}

void stat_free_all(struct stat_file *files, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		free(files[i].records);
	free(files);
}
