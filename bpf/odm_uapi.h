/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The few values of the kernel's UAPI that the programs use; stable, so no header is needed. */
#ifndef ODM_UAPI_H
#define ODM_UAPI_H

#define __always_inline inline __attribute__((always_inline))

#define AF_INET 2
#define AF_INET6 10
#define AF_PACKET 17
#define AF_XDP 44
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define SOCK_RAW 3
#define SOL_SOCKET 1
#define SOL_PACKET 263
#define SOL_XDP 283
#define PACKET_QDISC_BYPASS 20
#define SO_MARK 36

#define IPPROTO_IP 0
#define IPPROTO_ICMP 1
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_IPV6 41
#define IPPROTO_ICMPV6 58
#define IPPROTO_UDPLITE 136
#define IPPROTO_MPTCP 262

#define IP_FREEBIND 15
#define IP_TRANSPARENT 19
#define IPV6_ADDR_PREFERENCES 72
#define IPV6_TRANSPARENT 75
#define IPV6_FREEBIND 78

#define IPV6_PREFER_SRC_TMP 0x0001
#define IPV6_PREFER_SRC_PUBLIC 0x0002
#define IPV6_PREFER_SRC_COA 0x0004
#define IPV6_PREFER_SRC_CGA 0x0008
#define IPV6_PREFER_SRC_PUBTMP_DEFAULT 0x0100
#define IPV6_PREFER_SRC_HOME 0x0400
#define IPV6_PREFER_SRC_NONCGA 0x0800

#define EACCES 13
#define EINVAL 22
#define ENOMEM 12
#define EPERM 1
#define EADDRNOTAVAIL 99
#define ENOPROTOOPT 92
#define EDQUOT 122

#define TC_ACT_UNSPEC (-1)
#define TC_ACT_SHOT 2

#define LOOPBACK_IFINDEX 1

struct sockaddr_in {
	__u16 sin_family;
	__be16 sin_port;
	__be32 sin_addr;
	__u8 zero[8];
};

struct sockaddr_in6 {
	__u16 sin6_family;
	__be16 sin6_port;
	__be32 sin6_flowinfo;
	__u32 sin6_addr[4];
	__u32 sin6_scope_id;
};

#endif
