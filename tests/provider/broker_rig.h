/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * broker_rig: a broker (b) that is driven by hand, and programs that speak to it over its socket. Everything
 * is in this process; whatever is not as it should be fails the test.
 */
#ifndef SD_TESTS_PROVIDER_BROKER_RIG_H
#define SD_TESTS_PROVIDER_BROKER_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <cmocka.h>

#include "provider/broker.h"
#include "provider/channel.h"

extern struct broker *b;
extern uint64_t now;	    /* what it is told */
extern unsigned n_open;	    /* descriptors of this process when it was opened */
extern uint64_t max_memory; /* of a user; 0: the broker's default */
extern const struct sd_addr lo, lo6, any4, any6;

struct queue {
	int fd, lease;
};

/* A program's half of a connection. */
struct half {
	int end, memory;
	uint64_t cookie; /* of the end */
	struct sd_addr local, peer;
};

/* The broker does what there is to do; after a while. */
void turn(void);
void pass(uint64_t ns);
/* Whatever ends were closed, it has noticed that. */
void notice(void);
struct broker_stats stats(void);

/* A fresh one; max_memory is its limit, too. */
void open_broker(uint32_t max_connections);
void reopen_broker(uint32_t max_connections);

/* The broker has nothing of what it had, and no descriptor more than at its start. */
void nothing_left(void);

/* For each test: a broker that nobody has called, and its end. */
int rig_setup(void **state);
int rig_teardown(void **state);
#define CASE(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

/* Effective uid; back with 0. */
void be(uid_t uid);
bool is_root(void);

/* A program that has not said anything yet; one that has. */
int call(void);

/* What the broker has said to it. */
struct channel_message hear(int fd);
void hears_nothing(int fd);
bool is_hung_up(int fd);

/* Sends a request and takes its answer. */
struct channel_message ask(int fd, struct channel_message m);
int program(void);
void refused(struct channel_message a, int error, int reason);

/* Addresses and sockets. */
struct sd_addr at(struct sd_addr a, uint16_t port);
uint16_t port_of(int fd);
int bind_to(int fd, const struct sd_addr *a);
int new_socket(const struct sd_addr *a);
void set(int fd, int level, int name, int value);
int bound(struct sd_addr a);
int listening(struct sd_addr a);

/* Requests, answered anyhow or as wished. */
struct channel_message try_listen(int p, int socket, struct sd_addr a, uint32_t backlog);
struct queue listen_at(int p, int socket, struct sd_addr a, uint32_t backlog);
void leave(struct queue *q);
/* The end of a test with one listener and two programs. */
void all_leave(struct queue *q, int socket, int client, int server);
struct half half_of(const struct channel_message *m);
void drop(struct half *h);
struct channel_message try_connect(int p, struct sd_addr from, struct sd_addr to);
struct half connect_to(int p, struct sd_addr from, struct sd_addr to);

/* An offer, not accepted yet. */
struct half take(struct queue *q);

/* Says what a program says of an end: ACCEPTED by the queue, CLOSED by its channel. */
void tell(int fd, enum channel_type type, uint64_t cookie);

/* The next one, accepted. */
struct half accept_from(struct queue *q);
ino_t inode(int fd);

/* Another broker goes on with what was saved. */
int restore(
	const struct sd_pack *p, size_t len, int listening, uint32_t max_connections, struct broker **out);

/* b is another one from then on, with all that it had. */
void hand_over(uint32_t max_connections);

#endif
