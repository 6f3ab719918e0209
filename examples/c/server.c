/* SPDX-License-Identifier: MIT */
/*
 * A server on a Fixed address: one that may stand in the DNS, since it outlives every move.
 *
 *	cc -I bpf/uapi -o server examples/c/server.c
 *	./server -4|-6 PORT [CONNECTIONS]
 *
 * It binds the wildcard address as servers do: because the socket asked for a type, that becomes
 * the host's Fixed address. Without an agent it stays the wildcard. Prints where it listens, then
 * tells each client the address it is seen from.
 */
#define _DEFAULT_SOURCE /* getaddrinfo() and its constants, in strict C99 */

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "odm.h"

/* "ADDRESS PORT" of one end of a socket, as given by getsockname() or accept(). */
static int name(const struct sockaddr_storage *end, socklen_t size, char *text, size_t space)
{
	char host[NI_MAXHOST], port[NI_MAXSERV];

	if (getnameinfo((const struct sockaddr *)end, size, host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return -1;
	snprintf(text, space, "%s %s", host, port);
	return 0;
}

/* Answer one client: its own address, then the end of the connection. */
static int serve(int listener)
{
	struct sockaddr_storage peer;
	socklen_t size = sizeof(peer);
	char text[NI_MAXHOST + NI_MAXSERV + 2], request[256];
	int fd = accept(listener, (struct sockaddr *)&peer, &size);

	if (fd == -1)
		return -1;
	if (name(&peer, size, text, sizeof(text) - 1) == 0) {
		strcat(text, "\n");
		if (write(fd, text, strlen(text)) == -1)
			perror("answering");
	}
	shutdown(fd, SHUT_WR);
	while (read(fd, request, sizeof(request)) > 0)
		; /* closing with unread data would reset the connection */
	close(fd);
	return 0;
}

int main(int argc, char **argv)
{
	struct addrinfo hints, *here;
	struct sockaddr_storage own;
	socklen_t size = sizeof(own);
	char text[NI_MAXHOST + NI_MAXSERV + 2];
	int fd, error, yes = 1;
	long rest;

	if (argc < 3 || (strcmp(argv[1], "-4") != 0 && strcmp(argv[1], "-6") != 0)) {
		fprintf(stderr, "usage: %s -4|-6 PORT [CONNECTIONS]\n", argv[0]);
		return 2;
	}
	memset(&hints, 0, sizeof(hints));
	hints.ai_family = argv[1][1] == '6' ? AF_INET6 : AF_INET;
	hints.ai_socktype = SOCK_STREAM;
	hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
	error = getaddrinfo(NULL, argv[2], &hints, &here);
	if (error) {
		fprintf(stderr, "%s: %s\n", argv[2], gai_strerror(error));
		return 1;
	}
	fd = socket(here->ai_family, here->ai_socktype, here->ai_protocol);
	if (fd == -1) {
		perror("socket");
		return 1;
	}
	if (odm_set_type(fd, FIXED_IP_ADDRESS) == -1)
		fprintf(stderr, "no fixed address (%s): listening on all addresses\n",
			strerror(errno));
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) == -1 ||
	    bind(fd, here->ai_addr, here->ai_addrlen) == -1 || listen(fd, 16) == -1 ||
	    getsockname(fd, (struct sockaddr *)&own, &size) == -1 ||
	    name(&own, size, text, sizeof(text)) == -1) {
		perror("listening");
		return 1;
	}
	freeaddrinfo(here);
	printf("listening on %s\n", text);
	fflush(stdout);
	for (rest = argc > 3 ? strtol(argv[3], NULL, 10) : -1; rest != 0; rest -= rest > 0) {
		if (serve(fd) == -1) {
			perror("accept");
			return 1;
		}
	}
	close(fd);
	return 0;
}
