/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * keepawake: keeps every processor from going idle while something is measured, and takes no time from it:
 * one SCHED_IDLE thread spins on each. On a virtual machine a halted processor wakes up in tens of
 * microseconds, which would flatter whoever polls. Ends after SECONDS, or with the process that started it.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

static void *spin(void *arg)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET((int)(intptr_t)arg, &one);
	pthread_setaffinity_np(pthread_self(), sizeof one, &one);
	for (;;)
		__builtin_ia32_pause();
	return NULL;
}

int main(int argc, char **argv)
{
	static const struct sched_param lowest = {0};
	int seconds = argc == 2 ? atoi(argv[1]) : 0;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	pid_t parent = getppid();
	pthread_t thread;

	if (seconds < 1) {
		fprintf(stderr, "Usage: keepawake SECONDS\n");
		return 2;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent || sched_setscheduler(0, SCHED_IDLE, &lowest)) {
		perror("keepawake");
		return 1;
	}
	for (long i = 0; i < cpus; i++)
		if (pthread_create(&thread, NULL, spin, (void *)(intptr_t)i))
			return 1;
	sleep((unsigned)seconds);
	return 0;
}
