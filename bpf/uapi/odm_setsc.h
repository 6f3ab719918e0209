/* SPDX-License-Identifier: MIT */
/*
 * setsc() of RFC 8653, appendix A: ask for a type, wait until there is an address, and be told which. odm.h includes
 * this:
 *
 *	struct in6_addr source;
 *
 *	if (setsc(fd, &source, SESSION_LASTING_IP_ADDRESS) == 0)
 *		bind(fd, ...source...);
 */
#ifndef ODM_SETSC_H
#define ODM_SETSC_H

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "odm.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * What getsockopt() tells to who reads just this: with which address the socket can count.
 * `address` has IPv4 as ::ffff:a.b.c.d.
 */
struct odm_prospect {
	struct odm_option option;
	struct in6_addr address;
	uint64_t ticket; /* by which to wait for an address at the agent; 0: none was missing */
	uint32_t state;
	uint32_t pad;
};
enum odm_source_state {
	ODM_SOURCE_NONE = 0,    /* no address serves the socket */
	ODM_SOURCE_HELD = 1,    /* it has `address` */
	ODM_SOURCE_OFFERED = 2, /* it has none, and would be given `address` now */
	ODM_SOURCE_UNTOLD = 3   /* it would be given one of its own, which can't be told yet */
};

/*
 * Where the agent lets applications wait. Who can't reach it (a container in which the folder is not mounted) waits
 * all the same, by asking the kernel again and again, and hears no cause. ODM_WAIT_SOCKET in the environment names
 * another path.
 */
#ifndef ODM_WAIT_SOCKET
#define ODM_WAIT_SOCKET "/run/odm/wait.sock"
#endif

/* What is asked there, and answered (odm_agent/control/wait_server.py); `length` bytes of text follow. */
struct odm_wait_request_ {
	char magic[4];
	uint32_t milliseconds;
	uint32_t ticket[2]; /* of odm_prospect, in the host's order of bytes, unaligned */
};
struct odm_wait_answer_ {
	uint32_t said;
	uint32_t length;
};
enum odm_wait_said_ {
	ODM_WAIT_READY_ = 0,
	ODM_WAIT_UNSUPPORTED_ = 1,
	ODM_WAIT_FAILED_ = 2,
	ODM_WAIT_LATE_ = 3,
	ODM_WAIT_UNKNOWN_ = 4,
	ODM_WAIT_UNREACHABLE_ = 5,
	ODM_WAIT_CHANGED_ = 6 /* to who watches (odm_watch.h) */
};

/*
 * The errors of setsc() in draft-ietf-dmm-ondemand-mobility-12 to -17. The drafts give them no numbers; these clash
 * with no EAI_ value of a C library.
 */
#define EAI_REQUIREDIPNOTSUPPORTED (-8653) /* nobody here, or in this network, knows the type */
#define EAI_REQUIREDIPFAILED (-8654)       /* there is no address of the type; errno says why */

static inline int64_t odm_now_ms_(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Milliseconds until a moment, at most a minute; a moment below 0 never comes. */
static inline int odm_left_ms_(int64_t until_ms)
{
	int64_t left = until_ms < 0 ? 60000 : until_ms - odm_now_ms_();

	return left < 0 ? 0 : left > 60000 ? 60000 : (int)left;
}

/* Do nothing for a while, but not beyond `until_ms`. */
static inline void odm_pause_(int64_t until_ms, int milliseconds)
{
	int left = odm_left_ms_(until_ms);

	poll(NULL, 0, left < milliseconds ? left : milliseconds);
}

/* The agent's socket; -1: it can't be reached, or many wait already. */
static inline int odm_wait_open_(void)
{
	const char *path = getenv("ODM_WAIT_SOCKET");
	struct sockaddr_un to;
	int fd;

	if (!path)
		path = ODM_WAIT_SOCKET;
	memset(&to, 0, sizeof(to));
	to.sun_family = AF_UNIX;
	if (strlen(path) >= sizeof(to.sun_path))
		return -1;
	strcpy(to.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (fd == -1)
		return -1;
	if (fcntl(fd, F_SETFD, FD_CLOEXEC) == -1 || fcntl(fd, F_SETFL, O_NONBLOCK) == -1 ||
	    connect(fd, (struct sockaddr *)&to, sizeof(to)) == -1) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Wait at the agent, until a moment or for a minute: one of enum odm_wait_said_. */
static inline int odm_wait_(uint64_t ticket, int64_t until_ms)
{
	struct odm_wait_request_ request = { { 'O', 'D', 'M', 'w' }, 0, { 0, 0 } };
	struct odm_wait_answer_ answer = { ODM_WAIT_UNREACHABLE_, 0 };
	int said = ODM_WAIT_UNREACHABLE_, fd = odm_wait_open_();
	struct pollfd poller;
	ssize_t got;

	if (fd == -1)
		return said;
	request.milliseconds = (uint32_t)odm_left_ms_(until_ms);
	memcpy(request.ticket, &ticket, sizeof(ticket));
	if (send(fd, &request, sizeof(request), MSG_NOSIGNAL) == (ssize_t)sizeof(request)) {
		poller.fd = fd;
		poller.events = POLLIN;
		while (poll(&poller, 1, odm_left_ms_(until_ms) + 1000) == -1 && errno == EINTR)
			continue;
		got = recv(fd, &answer, sizeof(answer), 0);
		if (got == (ssize_t)sizeof(answer) && answer.said <= ODM_WAIT_UNREACHABLE_)
			said = (int)answer.said;
	}
	close(fd);
	return said;
}

/* What the socket can count with: 1; 0: nobody tells; -1 with errno. */
static inline int odm_prospect_(int fd, struct odm_prospect *prospect)
{
	socklen_t size = sizeof(*prospect), cookie_size = sizeof(uint64_t);
	uint64_t cookie;
	int tries;

	for (tries = 0; tries < 2; tries++) {
		if (getsockopt(fd, IPPROTO_IPV6, ODM_SOCKOPT, prospect, &size) == -1)
			return odm_is_unsupported_(errno) ? 0 : -1;
		if (size != sizeof(*prospect))
			return 0;
		if (prospect->state != ODM_SOURCE_UNTOLD)
			return 1;
		/* An address of its own is made of the socket's cookie, which it has when it was asked for. */
		if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &cookie_size) == -1)
			return -1;
	}
	return 1;
}

/* The option as it was: 0 takes a type back, and preferences alone would leave it. */
static inline void odm_restore_(int fd, uint32_t before)
{
	uint32_t none = 0;

	setsockopt(fd, IPPROTO_IPV6, ODM_SOCKOPT, &none, sizeof(none));
	if (before)
		setsockopt(fd, IPPROTO_IPV6, ODM_SOCKOPT, &before, sizeof(before));
}

static inline int odm_sc_fails_(int code, int error)
{
	errno = error;
	return code;
}

/* Ask for a type; 0, or what setsc() returns. */
static inline int odm_sc_ask_(int fd, int type)
{
	if (odm_set_type(fd, type) == 0)
		return 0;
	if (errno == ENOTSUP)
		return EAI_REQUIREDIPNOTSUPPORTED;
	return errno == EACCES || errno == EDQUOT ? EAI_REQUIREDIPFAILED : EAI_SYSTEM;
}

/* Wait for the address of the type that the socket has asked for: what setsc() returns. */
static inline int odm_sc_await_(int fd, int type, int64_t until_ms, struct in6_addr *source)
{
	int64_t asked_ms = odm_now_ms_();
	struct odm_prospect prospect;
	int code = 0, heard, said = ODM_WAIT_LATE_, before;

	while (!code) {
		heard = odm_prospect_(fd, &prospect);
		if (heard == -1)
			return EAI_SYSTEM;
		if (!heard)
			return odm_sc_fails_(EAI_REQUIREDIPNOTSUPPORTED, ENOTSUP);
		if (prospect.state == ODM_SOURCE_UNTOLD)
			return odm_sc_fails_(EAI_REQUIREDIPFAILED, ENOTCONN);
		if (prospect.state != ODM_SOURCE_NONE) {
			*source = prospect.address;
			return 0;
		}
		if (!odm_left_ms_(until_ms))
			return odm_sc_fails_(EAI_REQUIREDIPFAILED, ETIMEDOUT);
		before = said;
		said = prospect.ticket ? odm_wait_(prospect.ticket, until_ms) : ODM_WAIT_UNKNOWN_;
		if (said == ODM_WAIT_READY_ && before == ODM_WAIT_READY_)
			said = ODM_WAIT_UNKNOWN_; /* there is one, but not for this socket: ask anew */
		if (said == ODM_WAIT_UNSUPPORTED_)
			return odm_sc_fails_(EAI_REQUIREDIPNOTSUPPORTED, EADDRNOTAVAIL);
		if (said == ODM_WAIT_FAILED_)
			return odm_sc_fails_(EAI_REQUIREDIPFAILED, EADDRNOTAVAIL);
		if (said == ODM_WAIT_UNREACHABLE_ || said == ODM_WAIT_UNKNOWN_)
			odm_pause_(until_ms, 50);
		/* The request is made anew before the agent forgets that somebody wanted it. */
		if (said == ODM_WAIT_UNKNOWN_ || odm_now_ms_() - asked_ms > 15000) {
			asked_ms = odm_now_ms_();
			code = odm_sc_ask_(fd, type);
		}
	}
	return code;
}

/*
 * Ask for a type, and wait until there is an address of it, requested of the network if need be; for `timeout_ms` at
 * most (below 0: for as long as it takes). The address that the socket will be given is written to `source`, IPv4 as
 * ::ffff:a.b.c.d. The socket is not bound: bind() to the address, or go on without, which gives it the same one unless
 * that has ended, or other addresses are as good. ODM_ON_NET and ODM_FRESH may be or'ed to the type.
 *
 * 0 on success. Else the option is as it was, so that the socket can be used without a type; and
 *	EAI_REQUIREDIPNOTSUPPORTED	no agent enforces types for this socket (errno ENOTSUP), or the network can't
 *					be asked for the type (EADDRNOTAVAIL)
 *	EAI_REQUIREDIPFAILED		errno EADDRNOTAVAIL: the network could not give one; ETIMEDOUT: not in time;
 *					EACCES, EDQUOT: as odm_set_type(); ENOTCONN: it can't be told before
 *					connect() (a kernel without BTF)
 *	EAI_SYSTEM			errno has any other error: EBADF, EINVAL, ...
 */
static inline int odm_setsc(int fd, int type, int timeout_ms, struct in6_addr *source)
{
	int64_t until_ms = timeout_ms < 0 ? -1 : odm_now_ms_() + timeout_ms;
	uint32_t before;
	int code, error;

	if (type <= UNSPECIFIED_IP_ADDRESS)
		return odm_sc_fails_(EAI_SYSTEM, EINVAL);
	if (odm_read_(fd, &before) == -1)
		return EAI_SYSTEM;
	code = odm_sc_ask_(fd, type); /* which leaves the option alone if it fails */
	if (code)
		return code;
	code = odm_sc_await_(fd, type, until_ms, source);
	error = errno;
	if (code)
		odm_restore_(fd, before);
	return code ? odm_sc_fails_(code, error) : 0;
}

/* setsc() of the drafts (draft-ietf-dmm-ondemand-mobility-17, section 6.1), which waits for as long as it takes. */
static inline int setsc(int fd, struct in6_addr *source, int type)
{
	return odm_setsc(fd, type, -1, source);
}

#ifdef __cplusplus
}
#endif

#endif
