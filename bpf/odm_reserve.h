/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A tracked socket *reserves* the address that it has: it is counted (odm_counting.h). Its *holders* are
 * its user (until sock_release) and the kernel (a connection, until state CLOSE): sock_release is not the
 * end of a TCP socket that still has something to send, and a child that nobody accepts has none. With the
 * last holder the reservation is *released*.
 *
 * Nothing is subtracted that was not added. What is added, is added before the socket's notes say so, and
 * subtracted only by whoever has changed those notes, under their lock, to say something else. The notes
 * also say in which row of odm_live the socket is counted, if in any: whether an address is configured,
 * and whether the map has room, may be otherwise by then.
 */
#ifndef ODM_RESERVE_H
#define ODM_RESERVE_H

#define ODM_HELD (ODM_HELD_BY_USER | ODM_HELD_BY_KERNEL)
#define ODM_HELD_ROW (ODM_HELD_UNCONFIGURED | ODM_HELD_ROWLESS)

/* What the socket has reserved, if these are its own notes and not those of its listener. */
static __always_inline struct odm_reservation odm_reservation_of(const struct odm_socket *sock,
								 u64 owner)
{
	struct odm_reservation noted = {};

	if (sock->owner != owner)
		return noted;
	noted.addr = sock->held;
	noted.class_id = sock->held_class;
	noted.type = sock->held_type;
	noted.holds = sock->holds;
	return noted;
}

static __always_inline bool odm_is_counted(const struct odm_reservation *of)
{
	return of->holds & ODM_HELD;
}

/* Is `before` counted, and in the row of odm_usage that `now` is for? */
static __always_inline bool odm_same_usage(const struct odm_reservation *before,
					   const struct odm_reservation *now)
{
	return odm_is_counted(before) && before->class_id == now->class_id &&
	       before->type == now->type;
}

/* The address is reserved already: it may have one holder more, and nothing is to be counted. */
static __always_inline bool odm_add_holder(struct odm_socket *sock, u64 owner,
					   const struct odm_reservation *now)
{
	struct odm_reservation before = odm_reservation_of(sock, owner);
	bool same;

	if (!odm_same_usage(&before, now) || !odm_same_addr(&before.addr, &now->addr))
		return false;
	if ((before.holds & now->holds) == now->holds)
		return true;
	bpf_spin_lock(&sock->lock);
	before = odm_reservation_of(sock, owner);
	same = odm_same_usage(&before, now) && odm_same_addr(&before.addr, &now->addr);
	if (same)
		sock->holds |= now->holds;
	bpf_spin_unlock(&sock->lock);
	return same;
}

/* Note what is reserved from now on; what was before is answered, for the counts. */
static __always_inline struct odm_reservation
odm_note_reservation(struct odm_socket *sock, u64 owner, const struct odm_reservation *now)
{
	struct odm_reservation before;

	bpf_spin_lock(&sock->lock);
	before = odm_reservation_of(sock, owner);
	sock->owner = owner;
	sock->held = now->addr;
	sock->held_class = now->class_id;
	sock->held_type = now->type;
	sock->holds = now->holds | (before.holds & ~ODM_HELD_ROW);
	bpf_spin_unlock(&sock->lock);
	return before;
}

/* Note that `holders` are none any more; if no other is left, what they held is answered. */
static __always_inline struct odm_reservation odm_remove_holders(struct odm_socket *sock, u64 owner,
								 u8 holders)
{
	struct odm_reservation before;
	u8 left;

	bpf_spin_lock(&sock->lock);
	before = odm_reservation_of(sock, owner);
	left = before.holds & ~holders;
	if (!(left & ODM_HELD))
		left = 0;
	if (sock->owner == owner)
		sock->holds = left;
	bpf_spin_unlock(&sock->lock);
	if (left)
		before.holds = 0;
	return before;
}

/*
 * The socket reserves an address, or another one than before; 0, or the reason why it may not (then
 * nothing has changed). It is counted before it is noted: two threads that send by one socket for the
 * first time are both counted, and the second is subtracted again. `kept` was reserved for this socket
 * elsewhere, and is taken over or released (holds 0: nothing was).
 */
static __always_inline u8 odm_reserve(struct odm_socket *sock, u64 owner,
				      struct odm_reservation *now,
				      const struct odm_reservation *kept, u8 flags)
{
	struct odm_reservation before = odm_reservation_of(sock, owner);
	bool added = odm_same_usage(kept, now);
	u8 reason = 0;

	if (!added && !odm_same_usage(&before, now)) {
		reason = odm_usage_add(now->class_id, now->type, flags | ODM_RESERVE_SOCKET);
		if (reason && flags & ODM_RESERVE_ENFORCE) {
			if (odm_is_counted(kept)) {
				odm_live_subtract(kept);
				odm_usage_subtract(kept->class_id, kept->type);
			}
			return reason;
		}
		added = true;
	}
	odm_live_add(now);
	before = odm_note_reservation(sock, owner, now);
	if (odm_is_counted(kept)) {
		odm_live_subtract(kept);
		if (!odm_same_usage(kept, now))
			odm_usage_subtract(kept->class_id, kept->type);
	}
	if (odm_is_counted(&before)) {
		odm_live_subtract(&before);
		if (added || !odm_same_usage(&before, now))
			odm_usage_subtract(before.class_id, before.type);
	}
	if (!added && !odm_same_usage(&before, now)) /* just released by another thread */
		odm_usage_add(now->class_id, now->type, ODM_RESERVE_SOCKET);
	return reason;
}

/* `holders` are none any more; with the last of them the reservation is released. */
static __always_inline void odm_release_holders(struct odm_socket *sock, u64 owner, u8 holders)
{
	struct odm_reservation before = odm_remove_holders(sock, owner, holders);

	if (!odm_is_counted(&before))
		return;
	odm_usage_subtract(before.class_id, before.type);
	odm_live_subtract(&before);
}

/* A cap's `reason` as a decision; 0: no cap is exceeded. */
static __always_inline struct odm_decision odm_exceeds(const struct odm_call *call, u8 reason,
						       u8 type)
{
	return reason ? odm_deny(call, reason, type) : ODM_LEAVE_ALONE;
}

/* Reserve `addr` for a tracked socket that has it, or gets it. ODM_LEAVE_ALONE: no cap is exceeded. */
static __always_inline struct odm_decision odm_reserve_for(const struct odm_call *call, u64 owner,
							   struct odm_socket *sock,
							   const struct odm_addr *addr, u8 type,
							   u8 holders)
{
	struct odm_reservation now = {
		.addr = *addr, .class_id = call->class_id, .type = type, .holds = holders
	};
	struct odm_reservation none = {};
	u8 flags = call->class->mode == ODM_MODE_ENFORCE ? ODM_RESERVE_ENFORCE : 0;

	if (odm_add_holder(sock, owner, &now))
		return ODM_LEAVE_ALONE;
	if (!call->asked)
		flags |= ODM_RESERVE_REQUEST;
	return odm_exceeds(call, odm_reserve(sock, owner, &now, &none, flags), type);
}

/*
 * Before the caller's socket gets `addr`, which it may use: reserve it. ODM_LEAVE_ALONE: it is, or the
 * socket is not counted.
 */
static __always_inline struct odm_decision
odm_reserve_source(const struct odm_call *call, const struct odm_addr *addr, u8 type, u8 holders)
{
	struct odm_socket *sock = odm_tracked(call->sock);

	if (!sock && !(call->class->flags & ODM_CLASS_CAPPED))
		return ODM_LEAVE_ALONE;
	if (!sock) /* older than the cap, or of no use until now */
		sock = odm_keep(call->sk, call->class_id, ODM_SOCKET_TRACKED);
	if (sock)
		return odm_reserve_for(call, odm_owner(call->ctx, call->sk), sock, addr, type,
				       holders);
	odm_lost(ODM_LOST_SOCKET);
	return call->class->flags & ODM_CLASS_FAIL_CLOSED ? odm_deny(call, ODM_R_NO_STORAGE, type)
							  : ODM_LEAVE_ALONE;
}

/* The address did not become the socket's after all, or is not any more. */
static __always_inline void odm_release_source(const struct odm_call *call)
{
	struct odm_socket *sock = odm_tracked(call->sock);

	if (sock && sock->holds & ODM_HELD_BY_USER)
		odm_release_holders(sock, odm_owner(call->ctx, call->sk),
				    ODM_HELD_BY_USER | ODM_HELD_BOUND);
}

#endif
