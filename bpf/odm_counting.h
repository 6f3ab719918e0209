/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The rows in which tracked sockets are counted, and the caps on them: odm_usage by class and type,
 * odm_live by address, too. Hooks never remove a row, so no count is added to one that is going; the agent
 * removes rows of addresses that have not been configured, and so were added to by no hook, for a minute.
 */
#ifndef ODM_COUNTING_H
#define ODM_COUNTING_H

/* What a reservation asks of the caps. */
#define ODM_RESERVE_SOCKET 0x01
#define ODM_RESERVE_REQUEST 0x02
#define ODM_RESERVE_ENFORCE 0x04 /* beyond a cap: refuse, instead of counting all the same */

/* The part of a socket's storage that is changed together. */
struct odm_reservation {
	struct odm_addr addr;
	__u16 class_id;
	__u8 type;
	__u8 holds; /* ODM_HELD_*; 0: nothing is reserved */
};

/*
 * GCRA: `next_ns` is when the next request conforms; one that comes earlier by more than the burst does
 * not. The row's lock is held.
 */
static __always_inline bool odm_conforms(struct odm_usage *usage, const struct odm_cap *cap,
					 u64 now)
{
	u64 next = usage->next_ns > now ? usage->next_ns : now;

	if (next - now > cap->burst_ns)
		return false;
	usage->next_ns = next + cap->interval_ns;
	return true;
}

/*
 * Count one socket more, one request more, or both (ODM_RESERVE_*); 0, or the reason why a cap says no.
 * Checked and raised under one lock, so that no two CPUs take the last that a cap allows.
 */
static __always_inline u8 odm_usage_add(u16 class_id, u8 type, u8 flags)
{
	u32 index = odm_usage_index(class_id, type);
	struct odm_usage *usage = odm_usage.lookup(&index);
	struct odm_cap *cap = odm_caps.lookup(&index);
	u64 now = bpf_ktime_get_boot_ns();
	u8 reason = 0;

	if (!usage || !cap)
		return 0;
	bpf_spin_lock(&usage->lock);
	if (flags & ODM_RESERVE_SOCKET && cap->sockets && usage->live >= cap->sockets)
		reason = ODM_R_CAP_SOCKETS;
	else if (flags & ODM_RESERVE_REQUEST && cap->interval_ns && !odm_conforms(usage, cap, now))
		reason = ODM_R_CAP_REQUESTS;
	if (flags & ODM_RESERVE_SOCKET && (!reason || !(flags & ODM_RESERVE_ENFORCE)))
		usage->live++;
	bpf_spin_unlock(&usage->lock);
	return reason;
}

/* Count one socket less. */
static __always_inline void odm_usage_subtract(u16 class_id, u8 type)
{
	u32 index = odm_usage_index(class_id, type);
	struct odm_usage *usage = odm_usage.lookup(&index);

	if (!usage)
		return;
	bpf_spin_lock(&usage->lock);
	if (usage->live) /* never negative, whatever was lost */
		usage->live--;
	bpf_spin_unlock(&usage->lock);
}

/* Would a cap refuse one socket more? For decisions that are taken before there is a socket (a SYN). */
static __always_inline bool odm_at_cap(u16 class_id, u8 type)
{
	u32 index = odm_usage_index(class_id, type);
	struct odm_usage *usage = odm_usage.lookup(&index);
	struct odm_cap *cap = odm_caps.lookup(&index);

	return usage && cap && cap->sockets && usage->live >= cap->sockets;
}

static __always_inline struct odm_live_key odm_live_key_of(const struct odm_reservation *of)
{
	struct odm_live_key key = { .addr = of->addr, .class_id = of->class_id, .type = of->type };

	if (of->holds & ODM_HELD_UNCONFIGURED) {
		key.addr = (struct odm_addr){};
		if (odm_is_v4(&of->addr))
			key.addr.w[2] = ODM_MAPPED;
	}
	return key;
}

/* Count by address, and note in which row. */
static __always_inline void odm_live_add(struct odm_reservation *now)
{
	struct odm_live_key key;
	u64 one = 1, *live;

	if (!odm_origins.lookup(&now->addr))
		now->holds |= ODM_HELD_UNCONFIGURED;
	key = odm_live_key_of(now);
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
	now->holds |= ODM_HELD_ROWLESS;
	odm_lost(ODM_LOST_ADDRESS);
}

static __always_inline void odm_live_subtract(const struct odm_reservation *before)
{
	struct odm_live_key key;
	u64 *live;

	if (before->holds & ODM_HELD_ROWLESS)
		return;
	key = odm_live_key_of(before);
	live = odm_live.lookup(&key);
	if (live)
		__sync_fetch_and_add(live, -1);
}

#endif
