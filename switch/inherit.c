/* SPDX-License-Identifier: BSD-3-Clause */
#include "switch/inherit.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/log.h"
#include "provider/registry.h"
#include "switch/libc.h"
#include "switch/options.h"
#include "switch/statwrite.h"

#define NOTE_VERSION 1u

/* It may have been written by anybody who has the connection: each field is looked at. */
struct sw_note {
	uint8_t version;
	uint8_t v6; /* the socket's domain is AF_INET6, whatever its addresses are */
	uint8_t role;
	uint8_t nodelay, keepalive;
};
_Static_assert(sizeof(struct sw_note) <= PV_NOTE_SIZE, "the note has its place");

/* --- recognising --- */

static bool is_listening_tcp(int fd)
{
	return sw_option_int(fd, SOL_SOCKET, SO_ACCEPTCONN) == 1 &&
	       sw_option_int(fd, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_TCP;
}

static struct sw_sock *track(int fd)
{
	struct sw_sock *s = NULL;

	if (pv_shm_is_end(fd)) {
		s = sw_sock_new(fd, AF_INET, SW_DEAD);
		if (s)
			s->passed = true;
	} else if (is_listening_tcp(fd)) {
		s = sw_sock_new(fd, sw_option_int(fd, SOL_SOCKET, SO_DOMAIN), SW_LISTENING);
		if (s) {
			s->late = true;
			s->backlog = -1; /* nobody can be asked */
		}
	}
	if (!s)
		return NULL;
	s->reason = SD_REASON_INHERITED;
	s->nonblock = sw_libc.fcntl(fd, F_GETFL) & O_NONBLOCK;
	sw_sock_retag(s);
	return s;
}

/* --- becoming a connection --- */

size_t sw_note_of(const struct sw_sock *s, uint8_t out[PV_NOTE_SIZE])
{
	const struct sw_note n = {.version = NOTE_VERSION,
		.v6 = s->domain == AF_INET6,
		.role = s->role == SW_SERVER,
		.nodelay = s->options.nodelay > 0,
		.keepalive = s->options.keepalive > 0};

	memcpy(out, &n, sizeof n);
	return sizeof n;
}

static void become(struct sw_sock *s)
{
	uint8_t bytes[PV_NOTE_SIZE];
	struct sw_note n;
	struct pv_info info;
	int r = -ENOTSUP;

	s->passed = false;
	if (sw_rt.shm)
		r = sw_rt.shm->ops->adopt(sw_rt.shm, s->fd, s, bytes, sizeof bytes, &s->ep);
	if (r) {
		sd_warn("descriptor %d is a connection over the SAN that another process has begun, and "
			"cannot be used here: %s",
			s->fd, r == -ENOTSUP ? "this program has no daemon configured" : strerror(-r));
		return;
	}
	memcpy(&n, bytes, sizeof n);
	if (n.version != NOTE_VERSION)
		memset(&n, 0, sizeof n);
	s->ep->ops->info(s->ep, &info);
	s->local = info.local;
	s->peer = info.peer;
	s->domain = n.v6 || info.local.family == 6 ? AF_INET6 : AF_INET;
	s->role = n.role ? SW_SERVER : SW_CLIENT;
	s->placed = true; /* the kernel's socket stayed behind */
	s->options.nodelay = n.nodelay != 0;
	s->options.keepalive = n.keepalive != 0;
	s->reason = SD_REASON_SAN;
	stat_count(s->reason);
	sw_sock_set_state(s, SW_CONNECTED);
}

void sw_inherit_settle(void)
{
	for (int fd = sw_fd_next(0); fd >= 0; fd = sw_fd_next(fd + 1)) {
		struct sw_sock *s = sw_sock_at(fd);

		if (!s || s->fd != fd)
			continue;
		/* Closed meanwhile where it was not seen. */
		if ((s->passed && !pv_shm_is_end(fd)) || (s->late && !is_listening_tcp(fd))) {
			sw_fd_drop(fd);
			continue;
		}
		if (s->passed)
			become(s);
		/* A port of this process's own: the other's has what comes for the SAN side. */
		if (s->late && !sw_rt.shm) {
			s->late = false;
			sw_sock_set_state(s, SW_LISTENING);
		}
	}
}

void sw_inherit_listener(struct sw_sock *s)
{
	s->late = false;
	s->role = SW_LISTENER;
	if (!sw_name_bound(s->fd, &s->local))
		return;
	sw_options_read(s);
	if (s->kernel_bound)
		s->reason = SD_REASON_OPTION;
	else
		sw_listen_on_san(s);
	sw_runtime_start_listeners();
	stat_update(s);
}

/* --- arriving --- */

static bool is_new_here(int fd)
{
	struct sw_obj *o = sw_fd_obj(fd);

	/* A number that was closed inside the C library. */
	if (o && sw_enter()) {
		sw_fd_drop(fd);
		sw_leave();
	}
	return !sw_fd_slot(fd);
}

void sw_inherit_fd(int fd)
{
	struct sw_sock *s;
	int saved_errno = errno;

	if (is_new_here(fd) && (pv_shm_is_end(fd) || is_listening_tcp(fd)) && sw_enter()) {
		s = track(fd);
		if (s && s->passed)
			become(s);
		else if (s && !sw_rt.shm)
			s->late = false;
		sw_leave();
	}
	errno = saved_errno;
}

/* What was there when this program was executed. No thread is there yet. */
__attribute__((constructor(103))) static void look_around(void)
{
	int saved_errno = errno;
	DIR *d = opendir("/proc/self/fd");
	const struct dirent *e;

	while (d && (e = readdir(d))) {
		int fd = atoi(e->d_name);

		if (*e->d_name != '.' && fd != dirfd(d))
			track(fd);
	}
	if (d)
		closedir(d);
	errno = saved_errno;
}

/* --- leaving --- */

/*
 * Without a daemon a listener's SAN side is this process's alone. If nobody here has waited for it, whoever
 * gets it now is to accept from it, it seems: what comes over the SAN would wait for ever.
 */
static bool is_for_others(struct sw_sock *s)
{
	return s->state == SW_LISTENING && !sw_rt.shm && s->n_listeners && !s->served &&
	       !sw_sock_acceptable(s);
}

void sw_share(struct sw_sock *s)
{
	if (s->state == SW_CONNECTED)
		s->ep->ops->share(s->ep);
	else if (is_for_others(s))
		sw_sock_listen_late(s);
}

void sw_share_all(void)
{
	for (int fd = sw_fd_next(0); fd >= 0; fd = sw_fd_next(fd + 1)) {
		struct sw_sock *s = sw_sock_at(fd);

		if (s && s->fd == fd)
			sw_share(s);
	}
}
