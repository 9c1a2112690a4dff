/* SPDX-License-Identifier: BSD-3-Clause */
#include "switch/stattable.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "provider/registry.h"

_Static_assert(SD_REASON_COUNT <= sizeof((struct statfile_header *)0)->by_reason / sizeof(uint64_t),
	"a reason has no counter");

/* --- the file --- */

/* RUNTIME_DIR/stat, where every user's programs may write. Made with the first of them. */
static int open_dir(const char *runtime_dir)
{
	char path[sizeof((struct stattable *)0)->path];
	bool made;
	int dir;

	mkdir(runtime_dir, 0755);
	snprintf(path, sizeof path, "%s/stat", runtime_dir);
	made = !mkdir(path, 0755);
	dir = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir >= 0 && made)
		fchmod(dir, 01777); /* whatever the umask */
	return dir;
}

static int create_file(struct stattable *t, const char *runtime_dir, pid_t pid)
{
	int dir = open_dir(runtime_dir), fd;
	char name[16];

	if (dir < 0)
		return -1;
	snprintf(name, sizeof name, "%d", (int)pid);
	snprintf(t->path, sizeof t->path, "%s/stat/%s", runtime_dir, name);
	/* One of a process that had this number before us, or of the program before exec. */
	unlinkat(dir, name, 0);
	fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	sd_fd_close(&dir);
	return fd;
}

/* Growing beyond RLIMIT_FSIZE would be a SIGXFSZ. */
static bool may_grow_to(size_t size)
{
	struct rlimit limit;

	return !getrlimit(RLIMIT_FSIZE, &limit) && limit.rlim_cur >= size;
}

static void *map_file(struct stattable *t, int fd)
{
	struct stat st;
	void *p;

	if (fchmod(fd, 0644) || fstat(fd, &st) || !may_grow_to(t->size) || ftruncate(fd, (off_t)t->size))
		return NULL;
	p = mmap(NULL, t->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return NULL;
	if (madvise(p, t->size, MADV_DONTFORK)) {
		munmap(p, t->size);
		return NULL;
	}
	t->dev = st.st_dev;
	t->ino = st.st_ino;
	return p;
}

bool stattable_reach(struct stattable *t, size_t end)
{
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);

	end = (end + page - 1) / page * page;
	if (end <= t->present)
		return true;
	if (madvise((char *)t->h + t->present, end - t->present, MADV_POPULATE_WRITE))
		return false;
	t->present = end;
	return true;
}

void stattable_remove(const struct stattable *t)
{
	struct stat st;

	if (t->h && !lstat(t->path, &st) && st.st_dev == t->dev && st.st_ino == t->ino)
		unlink(t->path);
}

/* --- who --- */

/* Field 22 of /proc/self/stat. */
static uint64_t start_time(void)
{
	int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
	char text[1024], *s;
	ssize_t n;

	if (fd < 0)
		return 0;
	n = pread(fd, text, sizeof text - 1, 0);
	sd_fd_close(&fd);
	text[n > 0 ? n : 0] = '\0';
	s = strrchr(text, ')'); /* the name before it may hold anything */
	for (int field = 2; s && field < 22; field++)
		s = strchr(s + 1, ' ');
	return s ? strtoull(s, NULL, 10) : 0;
}

static void say_who(struct statfile_header *h, pid_t pid, const char *program, unsigned records)
{
	struct stat ns = {0};

	if (stat("/proc/self/ns/net", &ns))
		ns.st_ino = 0;
	h->header_size = sizeof *h;
	h->record_size = sizeof(struct statfile_record);
	h->records = records;
	h->pid = pid;
	h->start_time = start_time();
	h->netns = ns.st_ino;
	snprintf(h->program, sizeof h->program, "%s", program);
	h->version = STATFILE_VERSION;
	atomic_thread_fence(memory_order_release);
	h->magic = STATFILE_MAGIC;
}

bool stattable_make(
	struct stattable *t, const char *runtime_dir, pid_t pid, const char *program, unsigned records)
{
	int fd;

	memset(t, 0, sizeof *t);
	t->size = sizeof *t->h + records * sizeof(struct statfile_record);
	fd = create_file(t, runtime_dir, pid);
	if (fd < 0)
		return false;
	t->h = map_file(t, fd);
	sd_fd_close(&fd);
	if (t->h && stattable_reach(t, sizeof *t->h)) {
		say_who(t->h, pid, program, records);
		return true;
	}
	unlink(t->path);
	if (t->h)
		munmap(t->h, t->size);
	t->h = NULL;
	return false;
}

/* --- ports --- */

static void copy_text(char *out, size_t len, const char *text)
{
	snprintf(out, len, "%s", text ? text : "");
}

static void describe(struct statfile_port *to, const struct pv_port_report *r)
{
	const struct port_info *info = &r->info;

	copy_text(to->name, sizeof to->name, r->name);
	copy_text(to->netdev, sizeof to->netdev, r->netdev);
	copy_text(to->device, sizeof to->device, r->device);
	copy_text(to->driver, sizeof to->driver, info->driver);
	memcpy(to->mac, info->mac, sizeof to->mac);
	to->link_up = info->link_up;
	to->mtu = info->mtu;
	to->queues = info->queues;
	to->numa_node = info->numa_node;
}

static void add(struct statfile_port *to, const struct port_stats *s)
{
	to->rx_frames += s->rx_frames;
	to->rx_bytes += s->rx_bytes;
	to->rx_handed += s->rx_handed;
	to->rx_missed += s->rx_missed;
	to->rx_errors += s->rx_errors;
	to->tx_frames += s->tx_frames;
	to->tx_bytes += s->tx_bytes;
	to->tx_full += s->tx_full;
}

void stattable_ports(struct stattable *t, const struct pv *const ethers[], unsigned n)
{
	struct statfile_port told[STATFILE_PORTS] = {0};
	unsigned n_told = 0;

	for (unsigned m = 0; m < n; m++) {
		struct pv_port_report ports[STATFILE_PORTS];
		unsigned n_ports = pv_ether_ports(ethers[m], ports, STATFILE_PORTS);

		if (!m)
			n_told = n_ports;
		for (unsigned i = 0; i < n_ports && i < n_told; i++) {
			if (!m)
				describe(&told[i], &ports[i]);
			if (!m || told[i].queues > 1)
				add(&told[i], &ports[i].stats);
			else /* the first one's are of all that the port has carried */
				told[i].rx_missed += ports[i].stats.rx_missed;
			told[i].at_ns = sd_clock_ns();
		}
	}
	memcpy(t->h->ports, told, n_told * sizeof *told);
	t->h->n_ports = n_told;
}
