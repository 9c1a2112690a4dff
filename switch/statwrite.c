/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The writer of the connection table. The file is sparse; a page is made present by madvise(2) before it is
 * first written, because a full file system would answer a plain write with SIGBUS. Whatever goes wrong,
 * there is just no table: nothing here is worth a failure of the program.
 *
 * The mapping is not inherited by a forked child, which makes a file of its own when it has something to say.
 */
#include "switch/statwrite.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "provider/registry.h"
#include "switch/libc.h"
#include "switch/statfile.h"

#define WORDS	(STATFILE_RECORDS / 64)
#define NO_ROOM (-2) /* sw_sock.stat_record */

_Static_assert(SD_REASON_COUNT <= sizeof((struct statfile_header *)0)->by_reason / sizeof(uint64_t),
	"a reason has no counter");

struct table {
	struct statfile_header h;
	struct statfile_record records[STATFILE_RECORDS];
};

static struct {
	pid_t pid; /* whose file it is, or who failed to make one */
	struct table *table;
	size_t present;	      /* bytes of it that may be written */
	uint64_t used[WORDS]; /* records, a bit each */
	unsigned first_free;  /* no word before this has room */
	char path[sizeof(((struct cfg *)0)->runtime_dir) + 32];
	dev_t dev;
	ino_t ino;
} writer;

/* --- the file --- */

/* RUNTIME_DIR/stat, where every user's programs may write. Made with the first of them. */
static int open_dir(void)
{
	char path[sizeof writer.path];
	bool made;
	int dir;

	mkdir(sw_rt.cfg->runtime_dir, 0755);
	snprintf(path, sizeof path, "%s/stat", sw_rt.cfg->runtime_dir);
	made = !mkdir(path, 0755);
	dir = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir >= 0 && made)
		fchmod(dir, 01777); /* whatever the umask */
	return dir;
}

static int create_file(void)
{
	int dir = open_dir(), fd;
	char name[16];

	if (dir < 0)
		return -1;
	snprintf(name, sizeof name, "%d", (int)writer.pid);
	snprintf(writer.path, sizeof writer.path, "%s/stat/%s", sw_rt.cfg->runtime_dir, name);
	/* One of a process that had this number before us, or of the program before exec. */
	unlinkat(dir, name, 0);
	fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	sw_libc.close(dir);
	return fd;
}

/* Growing beyond RLIMIT_FSIZE would be a SIGXFSZ. */
static bool may_grow_to(size_t size)
{
	struct rlimit limit;

	return !getrlimit(RLIMIT_FSIZE, &limit) && limit.rlim_cur >= size;
}

static void *map_file(int fd)
{
	struct stat st;
	void *p;

	if (fchmod(fd, 0644) || fstat(fd, &st) || !may_grow_to(sizeof(struct table)) ||
		ftruncate(fd, sizeof(struct table)))
		return NULL;
	p = mmap(NULL, sizeof(struct table), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return NULL;
	if (madvise(p, sizeof(struct table), MADV_DONTFORK)) {
		munmap(p, sizeof(struct table));
		return NULL;
	}
	writer.dev = st.st_dev;
	writer.ino = st.st_ino;
	return p;
}

/* Makes the table writable up to end. */
static bool have_pages(struct table *t, size_t end)
{
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);

	end = (end + page - 1) / page * page;
	if (end <= writer.present)
		return true;
	if (madvise((char *)t + writer.present, end - writer.present, MADV_POPULATE_WRITE))
		return false;
	writer.present = end;
	return true;
}

/* Field 22 of /proc/self/stat. */
static uint64_t start_time(void)
{
	int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
	char text[1024], *s;
	ssize_t n;

	if (fd < 0)
		return 0;
	n = sw_libc.read(fd, text, sizeof text - 1);
	sw_libc.close(fd);
	text[n > 0 ? n : 0] = '\0';
	s = strrchr(text, ')'); /* the name before it may hold anything */
	for (int field = 2; s && field < 22; field++)
		s = strchr(s + 1, ' ');
	return s ? strtoull(s, NULL, 10) : 0;
}

static void describe_engine(struct statfile_header *h)
{
	if (sw_rt.ether)
		pv_ether_describe(sw_rt.ether, h->engine, sizeof h->engine);
	else
		snprintf(h->engine, sizeof h->engine, "%s", sd_reason_text(sw_rt.off));
}

static void copy_text(char *out, size_t len, const char *text)
{
	snprintf(out, len, "%s", text ? text : "");
}

static void describe_ports(struct statfile_header *h)
{
	struct pv_port_report ports[STATFILE_PORTS];
	unsigned n = sw_rt.ether ? pv_ether_ports(sw_rt.ether, ports, STATFILE_PORTS) : 0;

	for (unsigned i = 0; i < n; i++) {
		const struct port_info *info = &ports[i].info;
		const struct port_stats *s = &ports[i].stats;
		struct statfile_port *p = &h->ports[i];

		copy_text(p->name, sizeof p->name, ports[i].name);
		copy_text(p->netdev, sizeof p->netdev, ports[i].netdev);
		copy_text(p->device, sizeof p->device, ports[i].device);
		copy_text(p->driver, sizeof p->driver, info->driver);
		memcpy(p->mac, info->mac, sizeof p->mac);
		p->link_up = info->link_up;
		p->mtu = info->mtu;
		p->queues = info->queues;
		p->numa_node = info->numa_node;
		p->rx_frames = s->rx_frames;
		p->rx_bytes = s->rx_bytes;
		p->tx_frames = s->tx_frames;
		p->tx_bytes = s->tx_bytes;
		p->rx_missed = s->rx_missed;
		p->rx_errors = s->rx_errors;
		p->tx_full = s->tx_full;
		p->at_ns = sd_clock_ns();
	}
	h->n_ports = n;
}

static void fill_header(struct statfile_header *h)
{
	struct stat ns = {0};

	if (stat("/proc/self/ns/net", &ns))
		ns.st_ino = 0;
	h->header_size = sizeof *h;
	h->record_size = sizeof(struct statfile_record);
	h->records = STATFILE_RECORDS;
	h->pid = writer.pid;
	h->start_time = start_time();
	h->netns = ns.st_ino;
	snprintf(h->program, sizeof h->program, "%s", sw_program_name());
	describe_engine(h);
	describe_ports(h);
	h->version = STATFILE_VERSION;
	atomic_thread_fence(memory_order_release);
	h->magic = STATFILE_MAGIC;
}

static struct table *make_table(void)
{
	int fd = create_file();
	struct table *t;

	if (fd < 0)
		return NULL;
	t = map_file(fd);
	sw_libc.close(fd);
	if (t && have_pages(t, sizeof t->h)) {
		fill_header(&t->h);
		return t;
	}
	unlink(writer.path);
	if (t)
		munmap(t, sizeof *t);
	return NULL;
}

/* This process's table, or NULL. */
static struct table *table(void)
{
	int saved_errno = errno;

	if (__builtin_expect(writer.pid != sw_rt.pid, 0)) {
		memset(&writer, 0, sizeof writer);
		writer.pid = sw_rt.pid;
		writer.table = make_table();
		errno = saved_errno;
	}
	return writer.table;
}

/* --- records --- */

static int take_record(struct table *t)
{
	unsigned w = writer.first_free, i;

	while (w < WORDS && !~writer.used[w])
		w++;
	writer.first_free = w;
	if (w == WORDS)
		return -1;
	i = w * 64 + (unsigned)__builtin_ctzll(~writer.used[w]);
	if (!have_pages(t, offsetof(struct table, records) + (i + 1) * sizeof *t->records))
		return -1;
	writer.used[w] |= 1ull << i % 64;
	return (int)i;
}

static void put_back(unsigned i)
{
	writer.used[i / 64] &= ~(1ull << i % 64);
	if (i / 64 < writer.first_free)
		writer.first_free = i / 64;
}

static uint64_t wall_clock(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * SD_S + (uint64_t)ts.tv_nsec;
}

/* The names of a connection that the kernel has made. */
static void learn_names(struct sw_sock *s)
{
	union sd_sockaddr name;
	socklen_t len = sizeof name;
	struct sd_addr local;

	if (sw_name_bound(s->fd, &local) && local.port)
		s->local = local; /* none before the connect */
	if (!sw_libc.getpeername(s->fd, &name.any, &len))
		sw_addr_from(&name.any, len, &s->peer);
}

static void describe_endpoint(const struct pv_ep *ep, struct statfile_record *r)
{
	struct pv_info i;

	ep->ops->info((struct pv_ep *)ep, &i);
	snprintf(r->provider, sizeof r->provider, "%s", ep->pv->ops->name);
	memcpy(r->state, i.state, sizeof r->state);
	r->bytes_out = i.bytes_out;
	r->bytes_in = i.bytes_in;
	r->packets_out = i.packets_out;
	r->packets_in = i.packets_in;
	r->retransmits = i.retransmits;
	r->srtt_ns = i.srtt_ns;
	r->min_rtt_ns = i.min_rtt_ns;
	r->cwnd = i.cwnd;
	r->in_flight = i.in_flight;
	r->send_queued = i.send_queued;
	r->recv_queued = i.recv_queued;
	r->mss = i.mss;
}

static const char *state_without_endpoint(const struct sw_sock *s)
{
	switch (s->state) {
	case SW_LISTENING:
		return "LISTEN";
	case SW_CONNECTING:
		return "SYN_SENT";
	case SW_CONNECTED:
	case SW_FAILED:
		return "CLOSED";
	case SW_IDLE:
	case SW_DEAD:
	case SW_KERNEL:
		break;
	}
	return "";
}

static void describe(struct sw_sock *s, struct statfile_record *r)
{
	const struct pv_ep *ep = s->ep;

	if (s->state == SW_KERNEL && s->fd >= 0 && (!s->peer.family || !s->local.family))
		learn_names(s);
	*r = (struct statfile_record){
		.fd = s->fd,
		.role = (uint8_t)s->role,
		.reason = (uint16_t)s->reason,
		.local = s->local,
		.peer = s->peer,
		.provider = "tcp",
	};
	snprintf(r->state, sizeof r->state, "%s", state_without_endpoint(s));
	/* The last one: loop stands before what it is a short cut for. */
	if (s->state == SW_LISTENING && s->n_listeners)
		ep = s->listeners[s->n_listeners - 1];
	if (!ep)
		return;
	r->path = 1;
	describe_endpoint(ep, r);
}

/* A reader that sees an odd count, or another one afterwards, looks again. */
static void publish(struct statfile_record *to, struct statfile_record *r)
{
	const size_t after_seq = offsetof(struct statfile_record, fd);
	uint32_t seq = atomic_load_explicit(&to->seq, memory_order_relaxed);

	r->opened_ns = seq ? to->opened_ns : wall_clock();
	atomic_store_explicit(&to->seq, seq + 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_release);
	memcpy((char *)to + after_seq, (char *)r + after_seq, sizeof *r - after_seq);
	seq += 2;
	atomic_store_explicit(&to->seq, seq ? seq : 2, memory_order_release);
}

void stat_update(struct sw_sock *s)
{
	struct statfile_record r;
	struct table *t;

	if (s->stat_record < 0 && (s->state == SW_IDLE || s->state == SW_DEAD))
		return;
	t = table();
	if (!t || s->stat_record == NO_ROOM)
		return;
	if (s->stat_record < 0)
		s->stat_record = take_record(t);
	if (s->stat_record < 0) {
		s->stat_record = NO_ROOM;
		atomic_fetch_add_explicit(&t->h.overflow, 1, memory_order_relaxed);
		return;
	}
	describe(s, &r);
	publish(&t->records[s->stat_record], &r);
	if (sw_rt.shm) {
		s->stat_out = &t->records[s->stat_record].bytes_out;
		s->stat_in = &t->records[s->stat_record].bytes_in;
	}
}

void stat_remove(struct sw_sock *s)
{
	if (s->stat_record < 0)
		return;
	if (writer.table && writer.pid == sw_rt.pid) {
		atomic_store_explicit(&writer.table->records[s->stat_record].seq, 0, memory_order_release);
		put_back((unsigned)s->stat_record);
	}
	s->stat_record = -1;
	s->stat_out = s->stat_in = NULL;
}

void stat_count(enum sd_reason reason)
{
	struct table *t = table();
	bool san = reason == SD_REASON_SAN || reason == SD_REASON_LOOP;

	if (!t)
		return;
	atomic_fetch_add_explicit(&t->h.by_reason[reason], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(san ? &t->h.san_total : &t->h.tcp_total, 1, memory_order_relaxed);
}

void stat_refresh(bool anyway)
{
	struct table *t = writer.pid == sw_rt.pid ? writer.table : NULL;
	uint64_t wanted;

	if (!t)
		return;
	wanted = atomic_load_explicit(&t->h.refresh_wanted, memory_order_acquire);
	if (!anyway && wanted == atomic_load_explicit(&t->h.refreshed, memory_order_relaxed))
		return;
	for (int fd = sw_fd_next(0); fd >= 0; fd = sw_fd_next(fd + 1)) {
		struct sw_sock *s = sw_sock_at(fd);

		if (s && s->fd == fd)
			stat_update(s);
	}
	describe_engine(&t->h);
	describe_ports(&t->h);
	atomic_store_explicit(&t->h.refreshed, wanted, memory_order_release);
}

void stat_close(void)
{
	struct stat st;

	if (sw_rt.confined)
		return; /* who reads it finds that the process is no more */

	/* After chroot(2) the path may lead to another's. */
	if (writer.table && writer.pid == getpid() && !lstat(writer.path, &st) && st.st_dev == writer.dev &&
		st.st_ino == writer.ino)
		unlink(writer.path);
}
