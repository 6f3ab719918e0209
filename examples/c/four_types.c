/* SPDX-License-Identifier: MIT */
/*
 * Four sockets of four types in one process: the type belongs to the socket, not to the program.
 *
 *	cc -I bpf/uapi -o four_types examples/c/four_types.c
 *	./four_types ADDRESS PORT
 *
 * Prints the source address that each UDP socket gets towards a destination; sends nothing.
 */
#define _DEFAULT_SOURCE /* getaddrinfo() and its constants, in strict C99 */

#include <netdb.h>
#include <stdio.h>
#include <string.h>

#include "odm.h"

static const char *const words[] = { "unspecified", "fixed", "session-lasting", "nonpersistent",
				     "graceful-replacement" };

/* One line: the type, and the address or what prevented it. */
static int show(const struct addrinfo *peer, int type)
{
	struct sockaddr_storage own;
	socklen_t size = sizeof(own);
	char text[NI_MAXHOST];
	int fd = socket(peer->ai_family, peer->ai_socktype, peer->ai_protocol);

	if (fd == -1) {
		perror("socket");
		return -1;
	}
	if (odm_set_type(fd, type) == -1) {
		printf("%-20s - (%s)\n", words[type], strerror(errno));
	} else if (connect(fd, peer->ai_addr, peer->ai_addrlen) == -1) {
		printf("%-20s - (%s)\n", words[type], strerror(errno));
	} else if (getsockname(fd, (struct sockaddr *)&own, &size) == -1 ||
		   getnameinfo((struct sockaddr *)&own, size, text, sizeof(text), NULL, 0,
			       NI_NUMERICHOST) != 0) {
		perror("own address");
		close(fd);
		return -1;
	} else {
		printf("%-20s %s\n", words[type], text);
	}
	close(fd);
	return 0;
}

int main(int argc, char **argv)
{
	struct addrinfo hints, *peer;
	int type, error, failed = 0;

	if (argc != 3) {
		fprintf(stderr, "usage: %s ADDRESS PORT\n", argv[0]);
		return 2;
	}
	memset(&hints, 0, sizeof(hints));
	hints.ai_socktype = SOCK_DGRAM;
	error = getaddrinfo(argv[1], argv[2], &hints, &peer);
	if (error) {
		fprintf(stderr, "%s: %s\n", argv[1], gai_strerror(error));
		return 1;
	}
	for (type = FIXED_IP_ADDRESS; type <= GRACEFUL_REPLACEMENT_IP_ADDRESS; type++)
		failed |= show(peer, type);
	freeaddrinfo(peer);
	return failed ? 1 : 0;
}
