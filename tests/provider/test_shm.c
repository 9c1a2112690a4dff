/* SPDX-License-Identifier: BSD-3-Clause */
/* The shm provider's ends, and the pair of descriptors that they are. */
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fd.h"
#include "provider/domain.h"
#include "provider/registry.h"
#include "provider/segment.h"
#include "provider/shm_private.h"

static struct shm_ep *shm_ep_of(struct pv_ep *ep)
{
	return container_of(ep, struct shm_ep, ep);
}

static struct pv_domain *domain;
static struct pv *shm;
static struct pv_ep *end[2];
static int half[2]; /* the same files as the ends */
static unsigned raised[2];
static uint64_t later; /* than it is */

static void on_ready(void *user, unsigned events)
{
	*(unsigned *)user |= events;
}

static int setup(void **state)
{
	const struct pv_domain_config dc = {.size = sizeof dc};
	struct pv_shm_end e = {.local = {.family = 4, .port = 1, .ip = {127, 0, 0, 1}},
		.peer = {.family = 4, .port = 2, .ip = {127, 0, 0, 1}}};
	int memory, pair[2];

	if (pv_domain_open(&dc, &domain) || pv_shm_open("", on_ready, &shm) || pv_domain_add(domain, shm) ||
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) ||
		segment_create(&e.local, &e.peer, 4, &memory))
		return -1;
	pv_enter(domain);
	for (unsigned i = 0; i < 2; i++) {
		half[i] = fcntl(pair[i], F_DUPFD_CLOEXEC, 0);
		e.end = i;
		e.fd = pair[i];
		e.memory = fcntl(memory, F_DUPFD_CLOEXEC, 0);
		if (pv_shm_attach(shm, &e, &raised[i], &end[i]))
			return -1;
	}
	close(memory);
	return 0;
}

static void close_half(unsigned i)
{
	if (end[i])
		end[i]->ops->close(end[i], PV_CLOSE_ABORT);
	end[i] = NULL;
	if (half[i] >= 0)
		close(half[i]);
	half[i] = -1;
}

static int teardown(void **state)
{
	close_half(0);
	close_half(1);
	pv_leave(domain);
	pv_domain_drain(domain, 0);
	return 0;
}

/* So much later than the last time. */
static void progress(uint64_t after)
{
	later += after;
	raised[0] = raised[1] = 0;
	shm->ops->progress(shm, pv_now(domain) + later);
}

static void ring(unsigned from, unsigned times)
{
	while (times--)
		assert_int_equal(send(half[from], "", 1, MSG_NOSIGNAL), 1);
}

static int unread(unsigned i)
{
	int n = -1;

	assert_int_equal(ioctl(half[i], SIOCINQ, &n), 0);
	return n;
}

static ssize_t write_to(unsigned from, const char *byte)
{
	const struct iovec iov = {(void *)byte, 1};

	return end[from]->ops->send(end[from], &iov, 1, 0);
}

/* Who is idle keeps no bytes in the kernel, which needs much memory for each. */
static void idle__takes_its_rings(void **state)
{
	progress(2 * SD_MS);
	for (unsigned i = 0; i < 5; i++) {
		ring(0, 1);
		progress(2 * SD_MS);
	}
	assert_int_equal(unread(1), 5);
	progress(6 * SD_S);
	assert_int_equal(unread(1), 5); /* it was used */
	progress(2 * SD_MS);		/* another round is due: five seconds after the clock's time */
	assert_int_equal(unread(1), 0);
	/* The next one is heard. */
	assert_int_equal(write_to(0, "x"), 1);
	ring(0, 1);
	progress(2 * SD_MS);
	assert_true(raised[1] & PV_IN);
}

/* Of an end that others have, too, one stays: they would not hear of the next. */
static void idle__leaves_one_to_others(void **state)
{
	end[1]->ops->share(end[1]);
	for (unsigned i = 0; i < 5; i++) {
		ring(0, 1);
		progress(2 * SD_MS);
	}
	progress(6 * SD_S);
	progress(6 * SD_S);
	progress(6 * SD_S);
	assert_int_equal(unread(1), 1);
}

static void ended__by_a_hang_up(void **state)
{
	progress(2 * SD_MS);
	shutdown(half[0], SHUT_WR);
	progress(2 * SD_MS);
	assert_false(end[1]->ops->state(end[1]) & (PV_RDHUP | PV_HUP | PV_ERR));
	assert_int_equal(write_to(0, "x"), 1);
	/* As if all of its processes were killed. */
	shutdown(half[0], SHUT_RDWR);
	progress(2 * SD_MS);
	assert_true(raised[1] & PV_IN);
	assert_true(end[1]->ops->state(end[1]) & PV_RDHUP);
}

/* What is passed beside a ring is closed without a wait for it, and nothing is heard of that end again. */
static void rings__with_descriptors(void **state)
{
	int pipes[2];
	char byte;

	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	for (unsigned i = 0; i < 16; i++) {
		assert_int_equal(sd_fd_send(half[0], "", 1, &pipes[1], i == 15), 1);
		progress(2 * SD_MS);
	}
	close(pipes[1]);
	assert_true(end[1]->ops->state(end[1]) & PV_ERR);
	assert_int_equal(read(pipes[0], &byte, 1), 0); /* nobody has the other side of it */
	close(pipes[0]);
}

/* The daemon says how a connection with another host ends. If it does not, it was killed. */
static void ended__without_a_word_of_the_daemon(void **state)
{
	char byte;
	const struct iovec iov = {&byte, 1};

	progress(2 * SD_MS);
	shm_ep_of(end[1])->net = true;
	assert_int_equal(write_to(0, "x"), 1);
	shutdown(half[0], SHUT_RDWR);
	progress(2 * SD_MS);
	assert_int_equal(end[1]->ops->recv(end[1], &iov, 1, 0), 1);
	assert_int_equal(end[1]->ops->recv(end[1], &iov, 1, 0), -ECONNRESET);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(idle__takes_its_rings),
		CASE(idle__leaves_one_to_others),
		CASE(ended__by_a_hang_up),
		CASE(ended__without_a_word_of_the_daemon),
		CASE(rings__with_descriptors),
	};

	alarm(60); /* a hang is a failure too */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
