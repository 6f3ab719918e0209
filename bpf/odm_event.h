/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the agent is told as it happens. Nothing depends on it: all of it can be found out by looking, and hooks
 * go on when nobody reads. The reader is woken only for what it has to do something about.
 */
#ifndef ODM_EVENT_H
#define ODM_EVENT_H

/* How long after one refusal of a class and type the next one is not told (they are counted all the same). */
#define ODM_REFUSED_NS 100000000ULL

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

#endif
