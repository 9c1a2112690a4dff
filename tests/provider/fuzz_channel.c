/* SPDX-License-Identifier: BSD-3-Clause */
/* libFuzzer target: any packet with any number of descriptors beside it. It is refused and nothing is left
 * of it, or it is a message that may be sent on. The first byte of the input says how many descriptors. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/fd.h"
#include "provider/channel.h"
#include "tests/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define MAX_FDS 80 /* more than a message takes */

static void send_raw(int to, const uint8_t *data, size_t len, unsigned n_fds)
{
	int fds[MAX_FDS];

	for (unsigned i = 0; i < n_fds; i++)
		fds[i] = to;
	fail_if(sd_fd_send(to, data, len, fds, n_fds) != (ssize_t)len);
}

static int lowest_free(int fd)
{
	int low = dup(fd);

	close(low);
	return low;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static int pair[2] = {-1, -1};
	struct channel_message m, again;
	int rc, low;

	if (pair[0] < 0)
		fail_if(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair));
	if (!len || len > 65536)
		return 0;
	low = lowest_free(pair[0]);
	send_raw(pair[1], data + 1, len - 1, data[0] % (MAX_FDS + 1));
	rc = channel_recv(pair[0], &m);
	if (!rc) {
		fail_if(channel_send(pair[1], &m) || channel_recv(pair[0], &again));
		fail_if(again.type != m.type || again.id != m.id || again.n_fds != m.n_fds);
		channel_close_fds(&again);
		channel_close_fds(&m);
	} else {
		fail_if(rc != -EPROTO || m.type || m.n_fds);
	}
	fail_if(lowest_free(pair[0]) != low || channel_recv(pair[0], &m) != -EAGAIN);
	return 0;
}
