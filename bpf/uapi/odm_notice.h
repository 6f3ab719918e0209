/* SPDX-License-Identifier: MIT */
/*
 * What becomes of the address that a socket has, and which one it would be given in its place. odm.h includes this:
 *
 *	struct odm_address_notice notice;
 *
 *	if (odm_notice(fd, &notice) == 1 && notice.state != ODM_ADDRESS_PREFERRED)
 *		...; // go on from notice.successor
 */
#ifndef ODM_NOTICE_H
#define ODM_NOTICE_H

#include <string.h>

#include "odm.h"

#ifdef __cplusplus
extern "C" {
#endif

enum odm_address_state {
	ODM_ADDRESS_UNBOUND =
		1, /* the socket has no address yet; `successor` is what it would be given */
	ODM_ADDRESS_PREFERRED = 2,  /* sockets are given its address */
	ODM_ADDRESS_DEPRECATED = 3, /* it goes on, but sockets are given others */
	ODM_ADDRESS_OVER = 4        /* no packet leaves from it any more */
};

/*
 * What getsockopt() tells to who reads just this. Addresses are IPv6, IPv4 as ::ffff:a.b.c.d, the wildcard for none.
 * Dates are of CLOCK_BOOTTIME, 0 if no end is known: it may come all the same, by a change of network.
 */
struct odm_address_notice {
	uint32_t value; /* as in odm_option */
	uint8_t state;  /* enum odm_address_state */
	uint8_t type;   /* enum odm_address_type: of the address, or else that the socket wants */
	uint16_t pad;
	uint64_t preferred_until_ns; /* until then sockets are given the address */
	uint64_t valid_until_ns;     /* until then packets leave from it */
	struct in6_addr address;
	struct in6_addr successor; /* unless it is preferred: what the socket would be given now */
	uint64_t room[3];
};

/*
 * 1: it is told. 0: the socket is none of ours, since neither its address nor what it wants has a type, its
 * application has no class, or nobody enforces types here; `notice` is zeros. -1 with errno: EBADF, ...
 * The kernel tells it, whether or not an agent runs. An MPTCP socket's address is that of its first subflow.
 */
static inline int odm_notice(int fd, struct odm_address_notice *notice)
{
	socklen_t size = sizeof(*notice), cookie_size = sizeof(uint64_t);
	uint64_t cookie;
	int code;

	memset(notice, 0, sizeof(*notice));
	/* An address of the socket's own is made of its cookie, which it has when it was asked for. */
	if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &cookie_size) == -1 && errno == EBADF)
		return -1;
	code = getsockopt(fd, IPPROTO_IPV6, ODM_SOCKOPT, notice, &size);
	if (code == 0 && size == sizeof(*notice) && notice->state)
		return 1;
	memset(notice, 0, sizeof(*notice));
	return code == 0 || odm_is_unsupported_(errno) ? 0 : -1;
}

#ifdef __cplusplus
}
#endif

#endif
