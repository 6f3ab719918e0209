/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An address of its own for every socket: interface identifiers that a keyed hash (SipHash-2-4) makes of the
 * socket's cookie. The kernel gives each cookie once, so no two sockets of a boot share an address; a socket
 * keeps its own over all its connections and datagrams without that anything is noted; and who lacks the key
 * can tell neither which two addresses belong to one host nor in which order they were made (RFC 8981).
 */
#ifndef ODM_FRESH_H
#define ODM_FRESH_H

/* Bits of a cookie: above them stands how many addresses the socket has had, so that no two numbers are the same. */
#define ODM_TURN_SHIFT 40

#define ODM_ROTATE(x, by) ((x) << (by) | (x) >> (64 - (by)))

#define ODM_SIP_ROUND(v0, v1, v2, v3)                                                              \
	do {                                                                                       \
		v0 += v1;                                                                          \
		v1 = ODM_ROTATE(v1, 13) ^ v0;                                                      \
		v0 = ODM_ROTATE(v0, 32);                                                           \
		v2 += v3;                                                                          \
		v3 = ODM_ROTATE(v3, 16) ^ v2;                                                      \
		v0 += v3;                                                                          \
		v3 = ODM_ROTATE(v3, 21) ^ v0;                                                      \
		v2 += v1;                                                                          \
		v1 = ODM_ROTATE(v1, 17) ^ v2;                                                      \
		v2 = ODM_ROTATE(v2, 32);                                                           \
	} while (0)

/* SipHash-2-4 of one word, little endian. */
static __always_inline u64 odm_siphash(const u64 key[2], u64 word)
{
	u64 v0 = key[0] ^ 0x736f6d6570736575ULL, v1 = key[1] ^ 0x646f72616e646f6dULL;
	u64 v2 = key[0] ^ 0x6c7967656e657261ULL, v3 = key[1] ^ 0x7465646279746573ULL;
	u64 length = 8ULL << 56;

	v3 ^= word;
	ODM_SIP_ROUND(v0, v1, v2, v3);
	ODM_SIP_ROUND(v0, v1, v2, v3);
	v0 ^= word;
	v3 ^= length;
	ODM_SIP_ROUND(v0, v1, v2, v3);
	ODM_SIP_ROUND(v0, v1, v2, v3);
	v0 ^= length;
	v2 ^= 0xff;
	ODM_SIP_ROUND(v0, v1, v2, v3);
	ODM_SIP_ROUND(v0, v1, v2, v3);
	ODM_SIP_ROUND(v0, v1, v2, v3);
	ODM_SIP_ROUND(v0, v1, v2, v3);
	return v0 ^ v1 ^ v2 ^ v3;
}

/* Identifiers that no host may make up (RFC 5453): subnet-router anycast, IANA's block, subnet anycast. */
static __always_inline bool odm_is_reserved_id(u64 id)
{
	return !id || id >> 24 == 0x02005efffeULL || (id | 0x7f) == 0xfdffffffffffffffULL;
}

/* The interface identifier of the socket with this cookie, in host order. */
static __always_inline u64 odm_fresh_id(const u64 key[2], u64 cookie)
{
	u64 id = odm_siphash(key, cookie);

	return odm_is_reserved_id(id) ? id ^ 1ULL << 63 : id;
}

#endif
