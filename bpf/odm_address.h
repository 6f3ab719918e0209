/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Addresses as 128 bits, and the destinations that are left alone (docs/architecture.md). */
#ifndef ODM_ADDRESS_H
#define ODM_ADDRESS_H

#define ODM_MAPPED bpf_htonl(0x0000ffff)

static __always_inline struct odm_addr odm_addr4(__be32 addr)
{
	return (struct odm_addr){ .w = { 0, 0, ODM_MAPPED, addr } };
}

/* IPv6 fields of contexts, sockets and socket addresses are read and written by the word. */
#define ODM_ADDR6(field)                                                                           \
	((struct odm_addr){ .w = { (field)[0], (field)[1], (field)[2], (field)[3] } })

#define ODM_SET_ADDR6(field, addr)                                                                 \
	do {                                                                                       \
		(field)[0] = (addr)->w[0];                                                         \
		(field)[1] = (addr)->w[1];                                                         \
		(field)[2] = (addr)->w[2];                                                         \
		(field)[3] = (addr)->w[3];                                                         \
	} while (0)

static __always_inline bool odm_is_v4(const struct odm_addr *a)
{
	return a->w[0] == 0 && a->w[1] == 0 && a->w[2] == ODM_MAPPED;
}

static __always_inline bool odm_same_addr(const struct odm_addr *a, const struct odm_addr *b)
{
	return a->w[0] == b->w[0] && a->w[1] == b->w[1] && a->w[2] == b->w[2] && a->w[3] == b->w[3];
}

/* The wildcard of either family, in either form. */
static __always_inline bool odm_is_any(const struct odm_addr *a)
{
	return !a->w[0] && !a->w[1] && (!a->w[2] || a->w[2] == ODM_MAPPED) && !a->w[3];
}

static __always_inline bool odm_is_exempt4(__be32 addr)
{
	__u32 a = bpf_ntohl(addr);

	return a == 0 ||               /* unspecified: loopback */
	       (a >> 24) == 127 ||     /* loopback */
	       (a >> 16) == 0xa9fe ||  /* link-local, 169.254/16 */
	       (a >> 8) == 0xe00000 || /* link-scope multicast, 224.0.0/24 */
	       a == 0xffffffff;        /* limited broadcast */
}

/* Destinations (and bound addresses) that types are not for. */
static __always_inline bool odm_is_exempt_inline(const struct odm_addr *a)
{
	__u32 top = bpf_ntohl(a->w[0]);

	if (odm_is_v4(a))
		return odm_is_exempt4(a->w[3]);
	if (!a->w[0] && !a->w[1] && !a->w[2])
		return !a->w[3] || a->w[3] == bpf_htonl(1); /* unspecified, loopback */
	return (top >> 22) == (0xfe80 >> 6) ||              /* link-local, fe80::/10 */
	       (top & 0xff0f0000) == 0xff020000 ||          /* link-scope multicast, ff?2:: */
	       (top & 0xff0f0000) == 0xff010000;            /* interface-scope multicast */
}

ODM_FUNCTION(1, int, odm_is_exempt, struct odm_addr);
int odm_is_exempt_body(const struct odm_addr *a)
{
	return a && odm_is_exempt_inline(a);
}

/* Addresses that never leave the host, whichever interfaces it has; and none at all. */
static __always_inline bool odm_is_loopback(const struct odm_addr *a)
{
	if (odm_is_v4(a))
		return !a->w[3] || (bpf_ntohl(a->w[3]) >> 24) == 127;
	return !a->w[0] && !a->w[1] && !a->w[2] && (!a->w[3] || a->w[3] == bpf_htonl(1));
}

static __always_inline bool odm_is_multicast(const struct odm_addr *a)
{
	if (odm_is_v4(a))
		return (bpf_ntohl(a->w[3]) >> 28) == 0xe;
	return (bpf_ntohl(a->w[0]) >> 24) == 0xff;
}

/*
 * The address that a socket is bound to. The verifier takes no computed offset into a socket, which two
 * loads in two branches become.
 */
static __always_inline void odm_local_of(const struct bpf_sock *sk, struct odm_addr *addr)
{
	__be32 v4 = sk->src_ip4;

	asm volatile("" : "+r"(v4)); /* loaded here and nowhere else */
	if (sk->family == AF_INET) {
		*addr = odm_addr4(v4);
		return;
	}
	*addr = ODM_ADDR6(sk->src_ip6);
}

#endif
