/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How much of a type a class has: its live sockets, its requests, and the caps on both. */
#ifndef ODM_USAGE_H
#define ODM_USAGE_H

static __always_inline u32 odm_usage_index(u16 class_id, u8 type)
{
	return (u32)class_id * ODM_TYPES + type;
}

/* May this request go on? The row's lock is held; time runs by itself, so nothing refills it. */
static __always_inline bool odm_in_time(struct odm_usage *usage, const struct odm_cap *cap, u64 now)
{
	u64 next = usage->next_ns > now ? usage->next_ns : now;

	if (next - now > cap->burst_ns)
		return false;
	usage->next_ns = next + cap->interval_ns;
	return true;
}

/*
 * One socket more, one request more, or both; 0, or the reason why not. Checked and raised under one
 * lock, so that no two CPUs take the same last place. Without `enforce` (audit) the socket is counted
 * all the same.
 */
static __always_inline u8 odm_use(u16 class_id, u8 type, bool socket, bool request, bool enforce)
{
	u32 index = odm_usage_index(class_id, type);
	struct odm_usage *usage = odm_usage.lookup(&index);
	struct odm_cap *cap = odm_caps.lookup(&index);
	u64 now = bpf_ktime_get_boot_ns();
	u8 reason = 0;

	if (!usage || !cap)
		return 0;
	bpf_spin_lock(&usage->lock);
	if (socket && cap->sockets && usage->live >= cap->sockets)
		reason = ODM_R_CAP_SOCKETS;
	else if (request && cap->interval_ns && !odm_in_time(usage, cap, now))
		reason = ODM_R_CAP_REQUESTS;
	if (socket && (!reason || !enforce))
		usage->live++;
	bpf_spin_unlock(&usage->lock);
	return reason;
}

/* One socket less. */
static __always_inline void odm_unuse(u16 class_id, u8 type)
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

/* Is there no place left? For decisions that are taken before there is a socket (a SYN). */
static __always_inline bool odm_at_cap(u16 class_id, u8 type)
{
	u32 index = odm_usage_index(class_id, type);
	struct odm_usage *usage = odm_usage.lookup(&index);
	struct odm_cap *cap = odm_caps.lookup(&index);

	return usage && cap && cap->sockets && usage->live >= cap->sockets;
}

#endif
