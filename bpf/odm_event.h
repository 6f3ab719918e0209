/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the agent is told as it happens, and what could not be noted. Nothing depends on it: all of it can be found
 * out by looking, and hooks go on when nobody reads. The reader is woken only for what it has to do something about.
 */
#ifndef ODM_EVENT_H
#define ODM_EVENT_H

/* Something could not be noted; nothing is refused for that by itself. */
static __always_inline void odm_lost(u32 what)
{
	u64 *count = odm_missed.lookup(&what);

	if (count)
		__sync_fetch_and_add(count, 1);
}

/* Bytes of the ring that the reader has not taken yet. */
static __always_inline u64 odm_unread(void)
{
	return odm_events.get_local_storage(BPF_RB_AVAIL_DATA);
}

static __always_inline void odm_tell(const struct odm_event *what, u64 flags)
{
	struct odm_event *event = odm_events.ringbuf_reserve(sizeof(*event));

	if (!event) {
		odm_lost(ODM_LOST_EVENT);
		return;
	}
	*event = *what;
	odm_events.ringbuf_submit(event, flags);
}

/* Tell once that a lease has reached a mark. */
static __always_inline void odm_tell_lease(struct odm_meter *meter, u32 lease, u8 kind,
					   u16 class_id, u8 type)
{
	struct odm_event event = {
		.lease = lease, .class_id = class_id, .kind = kind, .type = type
	};

	if (meter->told & (1u << kind))
		return;
	meter->told |= 1u << kind;
	event.boot_ns = bpf_ktime_get_boot_ns();
	odm_tell(&event, BPF_RB_FORCE_WAKEUP);
}

/*
 * Tell of a refusal, unless the class had one of this type a moment ago, or half of the ring is not read yet: all are
 * counted as verdicts, and who is refused in a loop, in however many classes, leaves room for what leases have to tell.
 * Nobody is woken for that. Two CPUs that refuse at once may both tell.
 */
static __always_inline void odm_tell_refused(const struct odm_verdict_key *key)
{
	struct odm_event event = {
		.class_id = key->class_id,
		.kind = ODM_E_REFUSED,
		.type = key->type,
		.reason = key->reason,
		.hook = key->hook,
	};
	u32 index = odm_usage_index(key->class_id, key->type);
	struct odm_usage *usage = odm_usage.lookup(&index);

	event.boot_ns = bpf_ktime_get_boot_ns();
	if (!usage || event.boot_ns < usage->told_ns + ODM_REFUSED_NS)
		return;
	if (odm_unread() > ODM_MAX_EVENTS / 2) {
		odm_lost(ODM_LOST_EVENT);
		return;
	}
	usage->told_ns = event.boot_ns;
	odm_tell(&event, BPF_RB_NO_WAKEUP);
}

#endif
