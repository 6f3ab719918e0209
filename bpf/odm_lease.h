/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Until when, and for how many bytes, an address serves. "Open": sockets are given it. "Valid": packets leave
 * from it. Both are worked out of dates and meter at each use.
 */
#ifndef ODM_LEASE_H
#define ODM_LEASE_H

static __always_inline bool odm_is_over(u64 end_ns)
{
	return end_ns && bpf_ktime_get_boot_ns() >= end_ns;
}

static __always_inline bool odm_is_used_up(const struct odm_lease *lease,
					   const struct odm_meter *meter)
{
	return lease->budget && meter->bytes >= lease->budget;
}

/* Does a lease last: for a socket that is to be `given` its address, or for a packet that leaves from there? */
static __always_inline bool odm_lease_lasts(u32 id, bool given)
{
	struct odm_lease *lease;
	struct odm_meter *meter;

	if (!id)
		return true;
	lease = odm_leases.lookup(&id);
	meter = odm_meters.lookup(&id);
	if (!lease || !meter || odm_is_over(lease->valid_ns) ||
	    (given && odm_is_over(lease->preferred_ns)))
		return false;
	return !(given || lease->flags & ODM_LEASE_HARD) || !odm_is_used_up(lease, meter);
}

/* May packets leave from an address of this lease? */
static __always_inline bool odm_lease_valid(u32 id)
{
	return odm_lease_lasts(id, false);
}

/* May sockets be given an address of this lease? */
static __always_inline bool odm_lease_open(u32 id)
{
	return odm_lease_lasts(id, true);
}

/*
 * A packet of `weight` bytes leaves: count it. False: it may not, since a hard budget is used up. The packet that
 * reaches a budget is the last one of a hard one, whatever other CPUs send; of a soft one each CPU may be about
 * to count one more, and nothing stops what sockets have already.
 */
static __always_inline bool odm_lease_spend(u32 id, u32 weight, u16 class_id, u8 type)
{
	struct odm_lease *lease = odm_leases.lookup(&id);
	struct odm_meter *meter = odm_meters.lookup(&id);
	bool over = false;

	if (!lease || !meter)
		return true; /* never: ids are those of rows */
	if (lease->flags & ODM_LEASE_HARD) {
		bpf_spin_lock(&meter->lock);
		over = odm_is_used_up(lease, meter);
		if (!over) {
			meter->bytes += weight;
			meter->packets++;
		}
		bpf_spin_unlock(&meter->lock);
	} else {
		__sync_fetch_and_add(&meter->bytes, weight);
		__sync_fetch_and_add(&meter->packets, 1);
	}
	if (lease->warn && meter->bytes >= lease->warn)
		odm_tell_lease(meter, id, ODM_E_WARN, class_id, type);
	if (odm_is_used_up(lease, meter))
		odm_tell_lease(meter, id, ODM_E_SPENT, class_id, type);
	return !over;
}

#endif
