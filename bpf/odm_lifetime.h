/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The lifetime that an application asked for (RFC 8653, section 5): for how long, and for how many bytes, its socket
 * is given the same address. It begins with each address anew. What the socket has when it is over, it keeps:
 * connections are not cut, but the next connect or datagram is given another address, or fails.
 */
#ifndef ODM_LIFETIME_H
#define ODM_LIFETIME_H

#define ODM_NS_PER_S 1000000000ULL

/* Has any socket ever asked for one? Spares packets a lookup each. */
static __always_inline bool odm_any_lifetime(void)
{
	u32 zero = 0;
	u64 *count = odm_lifetimes_asked.lookup(&zero);

	return count && *count;
}

/* The lifetime of a socket; of a subflow, that of its MPTCP socket. NULL: it asked for none. */
static __always_inline struct odm_socket_lifetime *odm_lifetime_of(struct bpf_sock *sk)
{
	struct odm_socket_lifetime *own = odm_lifetimes.sk_storage_get(sk, 0, 0);
	void *msk;

	if (own)
		return own;
	msk = ODM_MPTCP_SOCKET(sk);
	return msk ? odm_lifetimes.sk_storage_get(msk, 0, 0) : NULL;
}

/* What a set asks for beside the type; a fixed address is for ever, and nothing ends without a type. */
static __always_inline bool odm_read_lifetime(const struct bpf_sockopt *ctx, u8 type,
					      struct odm_socket_lifetime *wanted)
{
	const struct odm_request *request = ctx->optval;

	if (ctx->optlen != ODM_REQUEST_SIZE || (void *)request + ODM_REQUEST_SIZE > ctx->optval_end)
		return true; /* the type alone */
	wanted->length_ns = request->seconds * ODM_NS_PER_S;
	wanted->budget = request->bytes;
	if (wanted->budget > ODM_MAX_LIFETIME_BYTES)
		return false;
	return !(wanted->length_ns || wanted->budget) || type > ODM_FIXED;
}

/*
 * Hold what is asked for against how long the class's addresses live: the reason why it may not be, or 0. Where
 * nothing was said it is so long.
 */
static __always_inline u8 odm_limit_lifetime(struct odm_socket_lifetime *wanted, u16 class_id,
					     u8 type)
{
	u32 index = odm_usage_index(class_id, type);
	struct odm_limit *limit = odm_limits.lookup(&index);
	u8 reason = 0;

	if (!limit)
		return 0; /* never: ids are those of rows */
	if ((limit->longest_ns && wanted->length_ns > limit->longest_ns) ||
	    (limit->bytes && wanted->budget > limit->bytes))
		reason = ODM_R_LIFETIME;
	if (!wanted->length_ns)
		wanted->length_ns = limit->longest_ns;
	if (!wanted->budget)
		wanted->budget = limit->bytes;
	return reason;
}

/* Is it time that the socket is given another address than it has? */
static __always_inline bool odm_has_ended(const struct odm_socket_lifetime *own)
{
	return own && !odm_is_any(&own->addr) &&
	       (own->over || odm_is_over(own->ends_ns) ||
		(own->budget && own->bytes >= own->budget));
}

/* Its own addresses go on as if it had a lifetime yet: none comes twice. */
static __always_inline void odm_drop_lifetime(struct bpf_sock *sk, struct odm_socket *sock)
{
	struct odm_socket_lifetime *own = NULL;

	if (sock->flags & ODM_SOCKET_ENDING)
		own = odm_lifetimes.sk_storage_get(sk, 0, 0);
	if (own) {
		sock->turn += own->turn + odm_has_ended(own);
		odm_lifetimes.sk_storage_delete(sk);
	}
	sock->flags &= ~ODM_SOCKET_ENDING;
}

/*
 * Keep a lifetime with a socket; none where nothing ends. The address that it has, it keeps for no longer than the
 * new lifetime says; not at all if it wants a `fresh` one. False: there is no memory.
 */
static __always_inline bool odm_store_lifetime(struct bpf_sock *sk, struct odm_socket *sock,
					       const struct odm_socket_lifetime *wanted, bool fresh)
{
	bool ends = wanted->length_ns || wanted->budget;
	struct odm_socket_lifetime *own;
	u32 zero = 0;
	u64 *count;

	if (!ends && !fresh) {
		odm_drop_lifetime(sk, sock);
		return true;
	}
	own = odm_lifetimes.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!own)
		return false;
	own->length_ns = wanted->length_ns;
	own->budget = wanted->budget;
	own->ends_ns = wanted->length_ns ? bpf_ktime_get_boot_ns() + wanted->length_ns : 0;
	own->turn += own->over && fresh; /* what it could have had, and has not used, is past too */
	own->over = fresh;
	sock->flags |= ODM_SOCKET_ENDING;
	count = odm_lifetimes_asked.lookup(&zero);
	if (count && ends)
		__sync_fetch_and_add(count, 1);
	return true;
}

/* The socket is given `addr`: if that is another one than it had, its lifetime begins. */
static __always_inline void odm_begin_lifetime(struct odm_socket_lifetime *own,
					       const struct odm_addr *addr)
{
	if (!own || odm_same_addr(&own->addr, addr))
		return;
	if (odm_has_ended(own))
		own->turn++;
	own->addr = *addr;
	own->over = 0;
	own->bytes = 0;
	own->ends_ns = own->length_ns ? bpf_ktime_get_boot_ns() + own->length_ns : 0;
}

/* A packet of `weight` bytes leaves from `addr`. */
static __always_inline void odm_spend_lifetime(struct bpf_sock *sk, const struct odm_addr *addr,
					       u32 weight)
{
	struct odm_socket_lifetime *own;

	if (!odm_any_lifetime() || !sk)
		return;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return;
	own = odm_lifetime_of(sk);
	if (own && odm_same_addr(&own->addr, addr))
		__sync_fetch_and_add(&own->bytes, weight);
}

/* The rest of a number, which is none at its end. */
static __always_inline u64 odm_left(u64 whole, u64 used)
{
	return whole > used ? whole - used : 0;
}

/* What was asked for beside the type, and what is left of it; false: there is no room. */
static __always_inline bool odm_write_lifetime(const struct bpf_sockopt *ctx, struct bpf_sock *sk,
					       const struct odm_socket *sock)
{
	struct odm_socket_lifetime none = {}, *own = NULL;
	struct odm_request *request = ctx->optval;
	u64 left_ns;

	if ((void *)(request + 1) > ctx->optval_end)
		return false;
	if (sock->flags & ODM_SOCKET_ENDING)
		own = odm_lifetimes.sk_storage_get(sk, 0, 0);
	if (!own)
		own = &none;
	left_ns = odm_left(own->ends_ns, bpf_ktime_get_boot_ns());
	request->seconds = own->length_ns / ODM_NS_PER_S;
	request->bytes = own->budget;
	request->seconds_left = (left_ns + ODM_NS_PER_S - 1) / ODM_NS_PER_S;
	request->pad = 0;
	request->bytes_left = odm_left(own->budget, own->bytes);
	return true;
}

#endif
