/* SPDX-License-Identifier: MIT */
/*
 * A client that is told what becomes of its address, as soon as it changes.
 *
 *	cc -I bpf/uapi -D_POSIX_C_SOURCE=200809L -o notices examples/c/notices.c
 *	./notices HOST PORT [COUNT]
 *
 * Connects a UDP socket, and prints its notices, so many of them: the state, the address, its successor.
 */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif

#include <arpa/inet.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "odm.h"

static const char *const STATES[] = { "none", "unbound", "preferred", "deprecated", "over" };

/* Connected to a host's first address; -1: it can't be. */
static int connected(const char *host, const char *port)
{
	struct addrinfo hints, *peer;
	int fd, error;

	memset(&hints, 0, sizeof(hints));
	hints.ai_socktype = SOCK_DGRAM;
	error = getaddrinfo(host, port, &hints, &peer);
	if (error) {
		fprintf(stderr, "%s: %s\n", host, gai_strerror(error));
		return -1;
	}
	fd = socket(peer->ai_family, peer->ai_socktype, peer->ai_protocol);
	if (fd == -1 || connect(fd, peer->ai_addr, peer->ai_addrlen) == -1)
		perror("connect");
	freeaddrinfo(peer);
	return fd;
}

/* An address as people write it; "-" for none. */
static const char *written(const struct in6_addr *address, char *text, socklen_t size)
{
	if (IN6_IS_ADDR_UNSPECIFIED(address))
		return "-";
	if (IN6_IS_ADDR_V4MAPPED(address))
		return inet_ntop(AF_INET, &address->s6_addr[12], text, size);
	return inet_ntop(AF_INET6, address, text, size);
}

static void print(const struct odm_address_notice *notice)
{
	char held[INET6_ADDRSTRLEN], next[INET6_ADDRSTRLEN];

	printf("%s %s %s\n", STATES[notice->state], written(&notice->address, held, sizeof(held)),
	       written(&notice->successor, next, sizeof(next)));
	fflush(stdout);
}

/* Wait until there may be something new; a descriptor to wait at the next time, or -1. */
static int waited(int watch, int timeout_ms)
{
	struct pollfd poller = { watch, POLLIN, 0 };

	if (watch == -1) { /* no agent can be reached: look once a second */
		poll(NULL, 0, 1000);
		return odm_watch();
	}
	poll(&poller, 1, timeout_ms);
	if (odm_watched(watch))
		return watch;
	close(watch);
	return -1;
}

int main(int argc, char **argv)
{
	struct odm_address_notice notice, last;
	int fd, watch, count = argc > 3 ? atoi(argv[3]) : -1;

	if (argc < 3) {
		fprintf(stderr, "usage: %s HOST PORT [COUNT]\n", argv[0]);
		return 2;
	}
	fd = connected(argv[1], argv[2]);
	if (fd == -1)
		return 1;
	memset(&last, 0, sizeof(last));
	watch = odm_watch();
	while (count && odm_notice(fd, &notice) == 1) {
		if (memcmp(&notice, &last, sizeof(notice)) != 0) {
			print(&notice);
			last = notice;
			count--;
		} else {
			watch = waited(watch, odm_notice_timeout(&notice));
		}
	}
	if (count)
		fprintf(stderr, "the socket is none of odm-agent's\n");
	if (watch != -1)
		close(watch);
	close(fd);
	return 0;
}
