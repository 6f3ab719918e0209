/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tracked sockets: those that asked for a type themselves, and those of classes with caps. All other
 * sockets are counted by nobody here and pay nothing.
 */
#ifndef ODM_TRACK_H
#define ODM_TRACK_H

/* BCC declares the helper with 32 bits. */
static __always_inline u64 odm_cookie(void *ctx)
{
	u64 (*cookie64)(void *) = (void *)BPF_FUNC_get_socket_cookie;

	return cookie64(ctx);
}

static __always_inline struct odm_socket *odm_tracked(struct odm_socket *sock)
{
	return sock && sock->flags & ODM_SOCKET_TRACKED ? sock : NULL;
}

/*
 * Whose notes the hooks of a process change. A subflow is not its user's, since it is never released:
 * the place that a process takes for one is noted with the MPTCP socket, until the subflow connects or
 * listens. No hook that sees the subflow can ask for the cookie of the MPTCP socket, and `release` can,
 * but does not see the subflow; so that the notes of a listener are not taken for those of an accepted
 * socket, an MPTCP socket is told by where it is in memory, which `release` knows too.
 */
static __always_inline u64 odm_owner(void *ctx, struct bpf_sock *sk)
{
	void *msk = ODM_MPTCP_SOCKET(sk);

	return msk ? (u64)msk : odm_cookie(ctx);
}

/* As `release` sees it, whose context is the socket. */
static __always_inline u64 odm_owner_released(struct bpf_sock *ctx)
{
	return ctx->protocol == IPPROTO_MPTCP ? (u64)ctx : odm_cookie(ctx);
}

/* Storage for a socket that has done without; of a subflow, for its MPTCP socket. */
static __always_inline struct odm_socket *odm_keep(struct bpf_sock *sk, u16 class_id, u16 flags)
{
	void *msk = ODM_MPTCP_SOCKET(sk);

	return msk ? odm_new_socket(msk, class_id, flags) : odm_new_socket(sk, class_id, flags);
}

/* What a socket of this class would be counted as, at this address. */
static __always_inline struct odm_held odm_place_at(const struct odm_addr *addr, u16 class_id,
						    u8 type, u8 holds)
{
	return (struct odm_held){
		.addr = *addr, .class_id = class_id, .type = type, .holds = holds
	};
}

/* What a cap says: `reason` is 0 where nothing exceeds it. */
static __always_inline struct odm_decision odm_exceeds(const struct odm_want *want, u8 reason,
						       u8 type, u8 hook)
{
	return reason ? odm_deny(want, reason, type, hook) : ODM_LEAVE_ALONE;
}

/* The place of a tracked socket that gets `addr` among those of its class and type. */
static __always_inline struct odm_decision odm_place(u64 owner, struct odm_socket *sock,
						     const struct odm_want *want,
						     const struct odm_addr *addr, u8 type, u8 holds,
						     u8 hook)
{
	struct odm_held place = odm_place_at(addr, want->class_id, type, holds), none = {};
	u8 reason;

	if (odm_join(sock, owner, &place))
		return ODM_LEAVE_ALONE;
	reason = odm_hold(sock, owner, &place, &none, !want->asked,
			  want->class->mode == ODM_MODE_ENFORCE);
	return odm_exceeds(want, reason, type, hook);
}

/*
 * Before the caller's socket gets `addr`, which it may use: is there a place for it?
 * ODM_LEAVE_ALONE: it has one now, or is not counted.
 */
static __always_inline struct odm_decision odm_take_place(void *ctx, struct bpf_sock *sk,
							  const struct odm_want *want,
							  const struct odm_addr *addr, u8 type,
							  u8 holds, u8 hook)
{
	struct odm_socket *sock = odm_tracked(want->sock);

	if (!sock && !(want->class->flags & ODM_CLASS_CAPPED))
		return ODM_LEAVE_ALONE;
	if (!sock) /* older than the cap, or of no use until now */
		sock = odm_keep(sk, want->class_id, ODM_SOCKET_TRACKED);
	if (sock)
		return odm_place(odm_owner(ctx, sk), sock, want, addr, type, holds, hook);
	odm_lost(ODM_LOST_SOCKET);
	return want->class->flags & ODM_CLASS_FAIL_CLOSED
		       ? odm_deny(want, ODM_R_NO_STORAGE, type, hook)
		       : ODM_LEAVE_ALONE;
}

/* The address did not become the socket's after all, or is not any more. */
static __always_inline void odm_leave_place(void *ctx, struct bpf_sock *sk,
					    const struct odm_want *want)
{
	struct odm_socket *sock = odm_tracked(want->sock);

	if (sock && sock->holds & ODM_HELD_BY_USER)
		odm_let_go(sock, odm_owner(ctx, sk), ODM_HELD_BY_USER | ODM_HELD_BOUND);
}

#endif
