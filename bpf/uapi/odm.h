/* SPDX-License-Identifier: MIT */
/*
 * On-demand source addresses for applications (RFC 8653): header only, C99 and C++.
 *
 * A socket asks for a type of source address before it connects, binds or sends:
 *
 *	if (odm_set_type(fd, SESSION_LASTING_IP_ADDRESS) == -1)
 *		warn("no session-lasting address, going on without");
 *	connect(fd, ...);
 *
 * IPv6 and IPv4 sockets, TCP, UDP and MPTCP. Nothing has to be linked: the type travels in a
 * field of the socket option IPV6_ADDR_PREFERENCES, which odm-agent adds to the running kernel.
 * Where no agent enforces, the functions say ENOTSUP and the socket is as it was.
 */
#ifndef ODM_H
#define ODM_H

#include <asm/socket.h> /* SO_DOMAIN, SO_PROTOCOL, SO_COOKIE: which strict C99 hides in sys/socket.h */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdint.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The types of RFC 8653, section 3.2, by the names of its appendix A. */
enum odm_address_type {
	UNSPECIFIED_IP_ADDRESS = 0,
	FIXED_IP_ADDRESS = 1,
	SESSION_LASTING_IP_ADDRESS = 2,
	NON_PERSISTENT_IP_ADDRESS = 3,
	GRACEFUL_REPLACEMENT_IP_ADDRESS = 4
};

/*
 * The option: level IPPROTO_IPV6 (on AF_INET and MPTCP sockets too), one 32-bit value.
 * Bits 0-11 are the preferences of RFC 5014, which a type overrides (RFC 8653, appendix A).
 */
#define ODM_SOCKOPT 72 /* IPV6_ADDR_PREFERENCES */
#define ODM_ON_DEMAND_SHIFT 16
#define ODM_ON_DEMAND_MASK 0x00070000u
#define ODM_RFC5014_MASK 0x00000fffu
/*
 * Beside a type, or'ed to it wherever a function takes one: an address that the network serves to which the host is
 * attached now; another address than the socket has or would be given, though there is one (of no fixed address).
 */
#define ODM_ON_NET 0x00080000u
#define ODM_FRESH 0x00100000u

/*
 * How long, and for how many IP bytes that it sends, a socket is given the same address (RFC 8653, section 5). 0: no
 * end. When it is over a connection goes on; the next connect() or datagram is given another address, or fails with
 * EADDRNOTAVAIL if there is none.
 */
struct odm_lifetime {
	uint32_t seconds;
	uint64_t bytes;
};

/* The option's value with a lifetime. What is set ends before `seconds_left`; all of it can be read. */
struct odm_option {
	uint32_t value;
	uint32_t seconds;
	uint64_t bytes;
	uint32_t seconds_left;
	uint32_t pad;
	uint64_t bytes_left;
};
#define ODM_OPTION_SET_SIZE 16

/* True if the error means "nobody here knows the option", as a stock kernel says it. */
static inline int odm_is_unsupported_(int error)
{
	return error == ENOPROTOOPT || error == EOPNOTSUPP;
}

/* The whole option; 0 where the kernel has none for this socket, -1 with errno on real errors. */
static inline int odm_read_(int fd, uint32_t *value)
{
	socklen_t size = sizeof(*value);

	*value = 0;
	if (getsockopt(fd, IPPROTO_IPV6, ODM_SOCKOPT, value, &size) == 0 ||
	    odm_is_unsupported_(errno))
		return 0;
	return -1;
}

/*
 * The type that the socket asked for: one of enum odm_address_type, or -1 with errno.
 * UNSPECIFIED_IP_ADDRESS: it asked for none, whether or not types are supported.
 */
static inline int odm_get_type(int fd)
{
	uint32_t value;

	if (odm_read_(fd, &value) == -1)
		return -1;
	return (int)((value & ODM_ON_DEMAND_MASK) >> ODM_ON_DEMAND_SHIFT);
}

/* The option in full, whose other fields stay as they are where nobody knows lifetimes. 1: it is known, 0, -1 with errno. */
static inline int odm_read_option_(int fd, struct odm_option *option)
{
	socklen_t size = sizeof(*option);

	if (getsockopt(fd, IPPROTO_IPV6, ODM_SOCKOPT, option, &size) == 0)
		return size == sizeof(*option);
	return odm_is_unsupported_(errno) ? 0 : -1;
}

/*
 * The lifetime that the socket asked for, or has by its class, and what is left of it for the address that it has
 * now; either pointer may be NULL. 1 if there is one, 0 if there is none (both are zeros then), or -1 with errno.
 */
static inline int odm_get_lifetime(int fd, struct odm_lifetime *asked, struct odm_lifetime *left)
{
	struct odm_option option = { 0, 0, 0, 0, 0, 0 };

	if (odm_read_option_(fd, &option) == -1)
		return -1;
	if (asked) {
		asked->seconds = option.seconds;
		asked->bytes = option.bytes;
	}
	if (left) {
		left->seconds = option.seconds_left;
		left->bytes = option.bytes_left;
	}
	return option.seconds || option.bytes;
}

/* Set the first `size` bytes of an option, and make sure that somebody heard them; else it is as before. */
static inline int odm_ask_(int fd, const struct odm_option *wanted, socklen_t size)
{
	struct odm_option answer = { 0, 0, 0, 0, 0, 0 };
	uint32_t before, heard;

	if (odm_read_(fd, &before) == -1)
		return -1;
	if (setsockopt(fd, IPPROTO_IPV6, ODM_SOCKOPT, wanted, size) == -1) {
		if (!odm_is_unsupported_(errno))
			return -1;
		if (!wanted->value)
			return 0; /* there is nothing to take back */
		errno = ENOTSUP;
		return -1;
	}
	if (odm_read_(fd, &heard) == -1)
		return -1;
	if ((heard & ~ODM_RFC5014_MASK) !=
	    wanted->value) /* a kernel that dropped it took the rest as "no preferences" */
		before &= ODM_RFC5014_MASK;
	else if (size == sizeof(wanted->value) || odm_read_option_(fd, &answer) == 1)
		return 0;
	setsockopt(fd, IPPROTO_IPV6, ODM_SOCKOPT, &before, sizeof(before));
	errno = ENOTSUP;
	return -1;
}

/* The option's value that asks for a type, with its bits; 0 for none. -1, with errno: there is no such type. */
static inline int odm_value_(int type, uint32_t *value)
{
	uint32_t bits = (uint32_t)type & (ODM_ON_NET | ODM_FRESH);
	uint32_t alone = (uint32_t)type & ~(ODM_ON_NET | ODM_FRESH);

	if (alone > GRACEFUL_REPLACEMENT_IP_ADDRESS || (bits && !alone)) {
		errno = EINVAL;
		return -1;
	}
	*value = alone << ODM_ON_DEMAND_SHIFT | bits;
	return 0;
}

/*
 * Ask for a type and make sure that somebody heard it. It holds for the next connect(), bind() or
 * sendto(). UNSPECIFIED_IP_ADDRESS takes the request back, and the RFC 5014 preferences with it. ODM_ON_NET and
 * ODM_FRESH may be or'ed to any other: odm_set_type(fd, SESSION_LASTING_IP_ADDRESS | ODM_FRESH).
 *
 * 0 on success. -1 with errno:
 *	ENOTSUP	no agent enforces types for this socket: use it as it is, it is unchanged
 *	EACCES	the application's class may not use this type: use it as it is, or give up
 *	EDQUOT	the class has as many sockets of the type as it may, or asks too often
 *	EINVAL	no such type, or a fixed address that is to be fresh
 *	other	as setsockopt(2): EBADF, ENOTSOCK, ...
 * Whether an address of the type exists shows at connect(), bind() or sendto(): EADDRNOTAVAIL.
 */
static inline int odm_set_type(int fd, int type)
{
	struct odm_option option = { 0, 0, 0, 0, 0, 0 };

	if (odm_value_(type, &option.value) == -1)
		return -1;
	return odm_ask_(fd, &option, sizeof(option.value));
}

/*
 * The same, and each address serves the socket for so long. Beside the errors of odm_set_type():
 *	EDQUOT	the class's addresses do not live as long as that
 *	EINVAL	no lifetime (nothing ends), or that of a fixed address, which is for ever
 *	ENOTSUP	also where an agent enforces types and knows no lifetimes
 */
static inline int odm_set_type_for(int fd, int type, const struct odm_lifetime *lifetime)
{
	struct odm_option option = { 0, 0, 0, 0, 0, 0 };

	if (odm_value_(type, &option.value) == -1)
		return -1;
	if (!option.value || !(lifetime->seconds || lifetime->bytes)) {
		errno = EINVAL;
		return -1;
	}
	option.seconds = lifetime->seconds;
	option.bytes = lifetime->bytes;
	return odm_ask_(fd, &option, ODM_OPTION_SET_SIZE);
}

/*
 * 1 if types are enforced for sockets like this one (family, protocol, network namespace), 0 if
 * not, -1 with errno if that can't be found out. The socket is left alone: another one is asked.
 * Before a request this is a detour: ask by odm_set_type(), whose ENOTSUP says the same.
 */
static inline int odm_supported(int fd)
{
	int domain, kind, protocol, twin, answer;
	socklen_t size = sizeof(domain);

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == -1)
		return -1;
	size = sizeof(kind);
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &kind, &size) == -1)
		return -1;
	size = sizeof(protocol);
	if (getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) == -1)
		return -1;
	twin = socket(domain, kind, protocol);
	if (twin == -1)
		return -1;
	answer = odm_set_type(twin, NON_PERSISTENT_IP_ADDRESS) == 0 || errno == EACCES;
	if (!answer && errno != ENOTSUP)
		answer = -1;
	close(twin);
	return answer;
}

#ifdef __cplusplus
}
#endif

#include "odm_notice.h"

/* setsc() and odm_watch() need POSIX: compilers that are told -std=c99 hide that, unless _POSIX_C_SOURCE is 200112L or more. */
#if defined(CLOCK_MONOTONIC) && defined(EAI_SYSTEM)
#include "odm_setsc.h"
#include "odm_watch.h"
#endif

#endif
