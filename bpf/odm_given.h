/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What connect() puts on a socket to give it a source, a mark or a bound address, and how it is taken off
 * again: both stay on the socket when its connection ends, and may not bind it then to what its caller,
 * its class or its destination no longer is.
 */
#ifndef ODM_GIVEN_H
#define ODM_GIVEN_H

/* Take our bits off again: what follows is not for the table of the prefix chosen before. */
static __always_inline void odm_unmark(const struct odm_call *call)
{
	u32 mark = call->sk->mark, mask = call->settings->mark_mask, none = 0;

	if (!(mark & mask) || mark & ~mask || !odm_is_home(call))
		return; /* none, or somebody else has set it */
	odm_note_for_mark(call->sk);
	bpf_setsockopt(call->ctx, SOL_SOCKET, SO_MARK, &none, sizeof(none));
}

/* The prefix's routing table chooses the source. Somebody else's mark is never touched. */
static __always_inline bool odm_may_mark(const struct odm_call *call, u32 wanted)
{
	return wanted && !(call->sk->mark & ~call->settings->mark_mask);
}

static __always_inline bool odm_set_mark(const struct odm_call *call, u32 wanted)
{
	if (call->sk->mark == wanted)
		return true;
	return !bpf_setsockopt(call->ctx, SOL_SOCKET, SO_MARK, &wanted, sizeof(wanted));
}

/* The mark by which a socket's packets from `addr` leave, if that is shared and the socket's by a decision; else 0. */
static __always_inline u32 odm_mark_of(const struct odm_addr *addr, struct odm_decision d)
{
	u64 marked;

	if (d.verdict == ODM_REFUSE || !d.type)
		return 0;
	marked = odm_shared_mark(addr);
	return marked >> 32 == d.type ? (u32)marked : 0;
}

/*
 * A shared address has no rule of its own, so the socket gets the mark: by that alone packets from it leave by its
 * uplink, and are typed. False: it gets none, or has somebody else's, which stays.
 */
static __always_inline bool odm_mark_shared(const struct odm_call *call,
					    const struct odm_addr *addr, struct odm_decision d)
{
	u32 mark = odm_mark_of(addr, d);

	return odm_may_mark(call, mark) && odm_set_mark(call, mark);
}

/* Port 0: none is reserved, the kernel picks one as for any unbound socket. */
static __always_inline int odm_bind_to(const struct odm_call *call, const struct odm_addr *addr)
{
	struct sockaddr_in6 sa6 = { .sin6_family = AF_INET6 };
	struct sockaddr_in sa4 = { .sin_family = AF_INET };

	if (call->sk->family == AF_INET) {
		sa4.sin_addr = addr->w[3];
		return bpf_bind(call->ctx, (struct sockaddr *)&sa4, sizeof(sa4));
	}
	ODM_SET_ADDR6(sa6.sin6_addr, addr);
	return bpf_bind(call->ctx, (struct sockaddr *)&sa6, sizeof(sa6));
}

/* Has it been connected before? The kernel forgets its port then, but not its peer's address. */
static __always_inline bool odm_is_reused(const struct bpf_sock *sk)
{
	if (sk->family == AF_INET)
		return sk->dst_ip4;
	return sk->dst_ip6[0] | sk->dst_ip6[1] | sk->dst_ip6[2] | sk->dst_ip6[3];
}

/* A socket that has a port was bound by its user, or is connected: nothing can be taken back. */
static __always_inline bool odm_may_be_given(const struct bpf_sock *sk,
					     const struct odm_addr *source)
{
	return !sk->src_port && !odm_is_any(source) && !odm_is_exempt(source);
}

/*
 * If the socket's source is one that an earlier connect() was given by bpf_bind: back to no source. To the
 * kernel it is bound as by bind(), so bind() notes on the socket what the application has chosen itself
 * (odm_note_bound). An address that is nobody's any more was given, if the socket has been connected
 * before. The kernel goes on thinking that it is bound, to the wildcard now.
 */
static __always_inline void odm_take_back(const struct odm_call *call,
					  const struct odm_socket *sock, struct odm_addr *source)
{
	struct odm_addr any = {};

	struct odm_source row;

	if (sock && sock->flags & ODM_SOCKET_BOUND)
		return;
	row = odm_source_of(source);
	if (odm_is_shared(row)) /* never given by bpf_bind */
		return;
	if (!row.type && (!odm_is_reused(call->sk) || odm_is_own(call->settings, source)))
		return;
	if (!odm_bind_to(call, &any))
		*source = any;
}

#endif
