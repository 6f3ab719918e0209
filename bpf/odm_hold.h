/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which address a tracked socket holds, for exact counts. A socket holds it because its user does
 * (until RELEASE) or because the kernel does (a connection, until state CLOSE): RELEASE is not the end
 * of a TCP socket that still has something to send, and a child that nobody accepts has no RELEASE.
 * It is counted once while any of both holds.
 *
 * Nothing is taken back that was not added. What is added, is added before the socket's notes say so,
 * and taken back only by whoever has changed those notes, under their lock, to say something else. The
 * notes also say in which row of odm_live the socket is counted, if in any: whether an address is
 * configured, and whether the map has room, may be otherwise by then. Hooks never remove a row, so no
 * count is added to one that is going; the agent removes rows of addresses that have not been
 * configured, and so were added to by no hook, for a minute.
 */
#ifndef ODM_HOLD_H
#define ODM_HOLD_H

#define ODM_HELD (ODM_HELD_BY_USER | ODM_HELD_BY_KERNEL)
#define ODM_HELD_ROW (ODM_HELD_UNCONFIGURED | ODM_HELD_ROWLESS)

/* Part of a socket's storage that is changed together. */
struct odm_held {
	struct odm_addr addr;
	__u16 class_id;
	__u8 type;
	__u8 holds;
};

static __always_inline struct odm_live_key odm_row_of(const struct odm_held *held)
{
	struct odm_live_key key = {
		.addr = held->addr,
		.class_id = held->class_id,
		.type = held->type,
	};

	if (held->holds & ODM_HELD_UNCONFIGURED) {
		key.addr = (struct odm_addr){};
		if (odm_is_v4(&held->addr))
			key.addr.w[2] = ODM_MAPPED;
	}
	return key;
}

/* Count by address, and note in which row. */
static __always_inline void odm_add_row(struct odm_held *held)
{
	struct odm_live_key key;
	u64 one = 1, *live;

	if (!odm_sources.lookup(&held->addr))
		held->holds |= ODM_HELD_UNCONFIGURED;
	key = odm_row_of(held);
	live = odm_live.lookup(&key);
	if (!live) {
		if (!odm_live.insert(&key, &one))
			return;
		live = odm_live.lookup(&key); /* another CPU was faster, or it is full */
	}
	if (live) {
		__sync_fetch_and_add(live, 1);
		return;
	}
	held->holds |= ODM_HELD_ROWLESS;
	odm_lost(ODM_LOST_ADDRESS);
}

static __always_inline void odm_leave_row(const struct odm_held *held)
{
	struct odm_live_key key;
	u64 *live;

	if (held->holds & ODM_HELD_ROWLESS)
		return;
	key = odm_row_of(held);
	live = odm_live.lookup(&key);
	if (live)
		__sync_fetch_and_add(live, -1);
}

/* What the socket held, if these are its own notes and not those of the listener it came from. */
static __always_inline struct odm_held odm_held_of(const struct odm_socket *sock, u64 owner)
{
	struct odm_held held = {};

	if (sock->owner != owner)
		return held;
	held.addr = sock->held;
	held.class_id = sock->held_class;
	held.type = sock->held_type;
	held.holds = sock->holds;
	return held;
}

static __always_inline bool odm_is_counted(const struct odm_held *held)
{
	return held->holds & ODM_HELD;
}

/* Held, and counted among those of the same class and type. */
static __always_inline bool odm_shares_place(const struct odm_held *before,
					     const struct odm_held *now)
{
	return odm_is_counted(before) && before->class_id == now->class_id &&
	       before->type == now->type;
}

/* The address is held already: it may have one holder more, and nothing is to be counted. */
static __always_inline bool odm_join(struct odm_socket *sock, u64 owner, const struct odm_held *now)
{
	struct odm_held before = odm_held_of(sock, owner);
	bool joined;

	if (!odm_shares_place(&before, now) || !odm_same_addr(&before.addr, &now->addr))
		return false;
	if ((before.holds & now->holds) == now->holds)
		return true;
	bpf_spin_lock(&sock->lock);
	before = odm_held_of(sock, owner);
	joined = odm_shares_place(&before, now) && odm_same_addr(&before.addr, &now->addr);
	if (joined)
		sock->holds |= now->holds;
	bpf_spin_unlock(&sock->lock);
	return joined;
}

/* Note what is held from now on; what was held is answered, for the counts. */
static __always_inline struct odm_held odm_note(struct odm_socket *sock, u64 owner,
						const struct odm_held *now)
{
	struct odm_held before;

	bpf_spin_lock(&sock->lock);
	before = odm_held_of(sock, owner);
	sock->owner = owner;
	sock->held = now->addr;
	sock->held_class = now->class_id;
	sock->held_type = now->type;
	sock->holds = now->holds | (before.holds & ~ODM_HELD_ROW);
	bpf_spin_unlock(&sock->lock);
	return before;
}

/* Note that `who` holds nothing any more; what was held is answered, if nobody is left. */
static __always_inline struct odm_held odm_unnote(struct odm_socket *sock, u64 owner, u8 who)
{
	struct odm_held before;
	u8 left;

	bpf_spin_lock(&sock->lock);
	before = odm_held_of(sock, owner);
	left = before.holds & ~who;
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
 * The socket holds an address from now on, or another one than before; 0, or the reason why it may
 * not (then nothing has changed). A place in the count is taken before the note: two threads that
 * send by one socket for the first time both take one, and the second gives its own back. `kept` is a
 * place that was taken for this socket elsewhere, and that it takes over or gives back (holds 0: none).
 */
static __always_inline u8 odm_hold(struct odm_socket *sock, u64 owner, struct odm_held *now,
				   const struct odm_held *kept, bool request, bool enforce)
{
	struct odm_held before = odm_held_of(sock, owner);
	bool taken = odm_shares_place(kept, now);
	u8 reason = 0;

	if (!taken && !odm_shares_place(&before, now)) {
		reason = odm_use(now->class_id, now->type, true, request, enforce);
		if (reason && enforce) {
			if (odm_is_counted(kept)) {
				odm_leave_row(kept);
				odm_unuse(kept->class_id, kept->type);
			}
			return reason;
		}
		taken = true;
	}
	odm_add_row(now);
	before = odm_note(sock, owner, now);
	if (odm_is_counted(kept)) {
		odm_leave_row(kept);
		if (!odm_shares_place(kept, now))
			odm_unuse(kept->class_id, kept->type);
	}
	if (odm_is_counted(&before)) {
		odm_leave_row(&before);
		if (taken || !odm_shares_place(&before, now))
			odm_unuse(before.class_id, before.type);
	}
	if (!taken && !odm_shares_place(&before, now)) /* just given up by another thread */
		odm_use(now->class_id, now->type, true, false, false);
	return reason;
}

/* One who held it does not any more; with the last of them the address is free. */
static __always_inline void odm_let_go(struct odm_socket *sock, u64 owner, u8 who)
{
	struct odm_held before = odm_unnote(sock, owner, who);

	if (!odm_is_counted(&before))
		return;
	odm_unuse(before.class_id, before.type);
	odm_leave_row(&before);
}

#endif
