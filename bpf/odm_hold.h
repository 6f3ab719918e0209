/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which address a tracked socket holds, for exact counts. A socket holds it because its user does
 * (until RELEASE) or because the kernel does (a connection, until state CLOSE): RELEASE is not the end
 * of a TCP socket that still has something to send, and a child that nobody accepts has no RELEASE.
 * It is counted once while any of both holds.
 */
#ifndef ODM_HOLD_H
#define ODM_HOLD_H

#define ODM_HELD (ODM_HELD_BY_USER | ODM_HELD_BY_KERNEL)

/* Part of a socket's storage that is changed together. */
struct odm_held {
	struct odm_addr addr;
	__u16 class_id;
	__u8 type;
	__u8 holds;
};

static __always_inline void odm_live_add(const struct odm_held *held, s64 by)
{
	struct odm_live_key key = {
		.addr = held->addr,
		.class_id = held->class_id,
		.type = held->type,
	};
	u64 zero = 0, *live = odm_live.lookup(&key);

	if (!live && by > 0) {
		odm_live.insert(&key, &zero);
		live = odm_live.lookup(&key);
	}
	if (live)
		__sync_fetch_and_add(live, by);
	else
		odm_lost(ODM_LOST_ADDRESS);
}

/* What the socket held, if these are its own notes and not those of the listener it came from. */
static __always_inline struct odm_held odm_held_of(const struct odm_socket *sock, u64 cookie)
{
	struct odm_held held = {};

	if (sock->cookie != cookie)
		return held;
	held.addr = sock->held;
	held.class_id = sock->held_class;
	held.type = sock->held_type;
	held.holds = sock->holds;
	return held;
}

static __always_inline bool odm_same_row(const struct odm_held *a, const struct odm_held *b)
{
	return a->class_id == b->class_id && a->type == b->type;
}

/* Note what is held from now on; what was held is answered, for the counts. */
static __always_inline struct odm_held odm_note(struct odm_socket *sock, u64 cookie,
						const struct odm_held *now)
{
	struct odm_held before;

	bpf_spin_lock(&sock->lock);
	before = odm_held_of(sock, cookie);
	sock->cookie = cookie;
	sock->held = now->addr;
	sock->held_class = now->class_id;
	sock->held_type = now->type;
	sock->holds = now->holds | before.holds;
	bpf_spin_unlock(&sock->lock);
	return before;
}

/*
 * The socket holds an address from now on, or another one than before; 0, or the reason why it may
 * not (then nothing has changed). A place in the count is taken before the note: two threads that
 * send by one socket for the first time both take one, and the second gives its own back.
 */
static __always_inline u8 odm_hold(struct odm_socket *sock, u64 cookie, const struct odm_held *now,
				   bool request, bool enforce)
{
	struct odm_held before = odm_held_of(sock, cookie);
	bool again = (before.holds & ODM_HELD) && odm_same_row(&before, now);
	bool held, same;
	u8 reason = 0;

	if (again && odm_same_addr(&before.addr, &now->addr) &&
	    (before.holds & now->holds) == now->holds)
		return 0;
	if (!again)
		reason = odm_use(now->class_id, now->type, true, request, enforce);
	if (reason && enforce)
		return reason;
	before = odm_note(sock, cookie, now);
	held = before.holds & ODM_HELD;
	same = held && odm_same_row(&before, now);
	if (same && !again)
		odm_unuse(now->class_id, now->type);
	if (!same && again)
		odm_use(now->class_id, now->type, true, false, false);
	if (held && !same)
		odm_unuse(before.class_id, before.type);
	if (same && odm_same_addr(&before.addr, &now->addr))
		return reason;
	if (held)
		odm_live_add(&before, -1);
	odm_live_add(now, 1);
	return reason;
}

/* One who held it does not any more; with the last of them the address is free. */
static __always_inline void odm_let_go(struct odm_socket *sock, u64 cookie, u8 who)
{
	struct odm_held before;
	u8 left = 0;

	bpf_spin_lock(&sock->lock);
	before = odm_held_of(sock, cookie);
	if (sock->cookie == cookie) {
		left = before.holds & ~who;
		sock->holds = left;
	}
	bpf_spin_unlock(&sock->lock);
	if (!(before.holds & ODM_HELD) || (left & ODM_HELD))
		return;
	odm_unuse(before.class_id, before.type);
	odm_live_add(&before, -1);
}

#endif
