/* SPDX-License-Identifier: MIT */
/*
 * A client that would like a session-lasting address and works without one as well.
 *
 *	cc -I bpf/uapi -o client examples/c/client.c
 *	./client HOST PORT [TEXT]
 *
 * Says on stderr what became of its wish; prints its own address, then what the server answered.
 */
#define _DEFAULT_SOURCE /* getaddrinfo() and its constants, in strict C99 */

#include <netdb.h>
#include <stdio.h>
#include <string.h>

#include "odm.h"

/* What to tell the user; the connection is made either way. */
static const char *refusal(int error)
{
	switch (error) {
	case ENOTSUP:
		return "address types are not supported here";
	case EACCES:
		return "this program may not use that type";
	case EADDRNOTAVAIL:
		return "there is no such address at the moment";
	default:
		return strerror(error);
	}
}

/* Connect with a type; UNSPECIFIED_IP_ADDRESS is the plain way. A socket, or -1 with errno. */
static int connect_from(const struct addrinfo *peer, int type)
{
	int fd = socket(peer->ai_family, peer->ai_socktype, peer->ai_protocol);
	int error;

	if (fd == -1)
		return -1;
	if ((type == UNSPECIFIED_IP_ADDRESS || odm_set_type(fd, type) == 0) &&
	    connect(fd, peer->ai_addr, peer->ai_addrlen) == 0)
		return fd;
	error = errno;
	close(fd);
	errno = error;
	return -1;
}

static int print_own_address(int fd)
{
	struct sockaddr_storage own;
	socklen_t size = sizeof(own);
	char text[NI_MAXHOST];

	if (getsockname(fd, (struct sockaddr *)&own, &size) == -1 ||
	    getnameinfo((struct sockaddr *)&own, size, text, sizeof(text), NULL, 0,
			NI_NUMERICHOST) != 0)
		return -1;
	printf("from %s\n", text);
	return 0;
}

int main(int argc, char **argv)
{
	const char *text = argc > 3 ? argv[3] : "hello";
	struct addrinfo hints, *peers, *peer;
	char answer[256];
	ssize_t size;
	int fd = -1, error;

	if (argc < 3) {
		fprintf(stderr, "usage: %s HOST PORT [TEXT]\n", argv[0]);
		return 2;
	}
	memset(&hints, 0, sizeof(hints));
	hints.ai_socktype = SOCK_STREAM;
	error = getaddrinfo(argv[1], argv[2], &hints, &peers);
	if (error) {
		fprintf(stderr, "%s: %s\n", argv[1], gai_strerror(error));
		return 1;
	}
	for (peer = peers; peer && fd == -1; peer = peer->ai_next) {
		fd = connect_from(peer, SESSION_LASTING_IP_ADDRESS);
		if (fd == -1 && (errno == ENOTSUP || errno == EACCES || errno == EADDRNOTAVAIL)) {
			fprintf(stderr, "%s: going on without\n", refusal(errno));
			fd = connect_from(peer, UNSPECIFIED_IP_ADDRESS);
		}
	}
	freeaddrinfo(peers);
	if (fd == -1) {
		perror("connect");
		return 1;
	}
	if (print_own_address(fd) == -1 || write(fd, text, strlen(text)) == -1 ||
	    shutdown(fd, SHUT_WR) == -1) {
		perror("talking to the server");
		return 1;
	}
	while ((size = read(fd, answer, sizeof(answer))) > 0)
		fwrite(answer, 1, (size_t)size, stdout);
	close(fd);
	return size == 0 ? 0 : 1;
}
