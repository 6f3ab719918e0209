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

/* A subflow is not its user's: it has no RELEASE, and only the kernel holds its address. */
static __always_inline bool odm_is_subflow(struct bpf_sock *sk)
{
#ifdef ODM_WITH_MPTCP
	return sk->protocol == IPPROTO_TCP && bpf_skc_to_mptcp_sock(sk);
#else
	return false;
#endif
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
static __always_inline struct odm_decision odm_place(void *ctx, struct odm_socket *sock,
						     const struct odm_want *want,
						     const struct odm_addr *addr, u8 type, u8 holds,
						     u8 hook)
{
	struct odm_held place = odm_place_at(addr, want->class_id, type, holds);
	u8 reason = odm_hold(sock, odm_cookie(ctx), &place, !want->asked,
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
	u8 reason;

	if (!sock && !(want->class->flags & ODM_CLASS_CAPPED))
		return ODM_LEAVE_ALONE;
	if (odm_is_subflow(sk)) { /* counted once it connects: nothing would end it before */
		reason = odm_use(want->class_id, type, false, !want->asked, true);
		if (!reason && odm_at_cap(want->class_id, type))
			reason = ODM_R_CAP_SOCKETS;
		return odm_exceeds(want, reason, type, hook);
	}
	if (!sock) /* older than the cap */
		sock = odm_new_socket(sk, want->class_id, ODM_SOCKET_TRACKED);
	if (sock)
		return odm_place(ctx, sock, want, addr, type, holds, hook);
	odm_lost(ODM_LOST_SOCKET);
	return want->class->flags & ODM_CLASS_FAIL_CLOSED
		       ? odm_deny(want, ODM_R_NO_STORAGE, type, hook)
		       : ODM_LEAVE_ALONE;
}

/* The address did not become the socket's after all, or is not any more. */
static __always_inline void odm_leave_place(void *ctx, const struct odm_want *want)
{
	struct odm_socket *sock = odm_tracked(want->sock);

	if (sock && sock->holds & ODM_HELD_BY_USER)
		odm_let_go(sock, odm_cookie(ctx), ODM_HELD_BY_USER | ODM_HELD_BOUND);
}

#endif
