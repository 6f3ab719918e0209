/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A socket wants a type that no prefix serves (RFC 8653, 3.1): the agent is told, and may ask the network for it. Only
 * what was permitted is told. The event is a hint; who waits shows his ticket, which only a hook can have made.
 */
#ifndef ODM_NEED_H
#define ODM_NEED_H

struct odm_need {
	u16 class_id;
	u8 type;
	u8 family;
	u8 wish;   /* ODM_WISH_*: what it asks for beside the type */
	u8 waits;  /* not 0: it may wait, and needs a ticket */
	u8 capped; /* not 0: it counts as a request */
	u8 pad;
};

/* How many tickets of each class are kept; a power of 2. */
static __always_inline u32 odm_needs_share(const struct odm_settings *settings)
{
	return settings->dialogue_share / ODM_NEEDS_OF_CLASS;
}

/* A word of which no two are the same, and which nobody guesses. */
static __always_inline u64 odm_ticket(const struct odm_need *need, u32 turn)
{
	return (u64)need->class_id << ODM_NEED_CLASS_SHIFT |
	       (u64)need->type << ODM_NEED_TYPE_SHIFT | (u64)need->family << ODM_NEED_FAMILY_SHIFT |
	       (u64)need->wish << ODM_NEED_WISH_SHIFT |
	       (u64)(turn & ODM_NEED_TURN_MASK) << ODM_NEED_TURN_SHIFT | bpf_get_prandom_u32();
}

/* Where it stands when a need was told last: one for another address than there are is one of its own. */
static __always_inline u32 odm_told_index(const struct odm_need *need)
{
	u32 index = need->type * ODM_FAMILIES + need->family;

	return (need->wish & ODM_WISH_FRESH ? index + 8 : index) & 15;
}

/*
 * Tell of a need, unless the class had the same one a moment ago, or has asked as often as it may. Two CPUs at once
 * may both tell.
 */
static __always_inline void odm_tell_need(const struct odm_need *need, struct odm_need_turn *turn)
{
	struct odm_event event = {
		.class_id = need->class_id,
		.kind = ODM_E_NEED,
		.type = need->type,
		.family = need->family,
		.wish = need->wish,
	};
	u64 *told_ns = &turn->told_ns[odm_told_index(need)];

	event.boot_ns = bpf_ktime_get_boot_ns();
	if (*told_ns && event.boot_ns < *told_ns + ODM_NEED_NS)
		return;
	if (need->capped && odm_usage_add(need->class_id, need->type, ODM_RESERVE_REQUEST))
		return;
	*told_ns = event.boot_ns;
	odm_tell(&event, BPF_RB_FORCE_WAKEUP);
}

/* Note a need: the ticket, if one is wanted, or 0. */
ODM_FUNCTION(7, u64, odm_note_need, struct odm_need);
u64 odm_note_need_body(const struct odm_need *need)
{
	struct odm_settings *settings = odm_settings_get();
	struct odm_need_turn *turn;
	u32 class_id, index, share;
	u64 ticket, *row;

	if (!need || !settings)
		return 0;
	class_id = need->class_id;
	turn = odm_need_turns.lookup(&class_id);
	if (!turn)
		return 0;
	odm_tell_need(need, turn);
	if (!need->waits)
		return 0;
	bpf_spin_lock(&turn->lock);
	index = turn->next++;
	bpf_spin_unlock(&turn->lock);
	ticket = odm_ticket(need, index);
	share = odm_needs_share(settings);
	index = (class_id - 1) * share + (index & ODM_NEED_TURN_MASK & (share - 1));
	row = odm_needs.lookup(&index);
	if (!row)
		return 0;
	*row = ticket;
	return ticket;
}

/* Does nothing serve the wish, on any interface? What is bound to a device is no matter of the network's. */
static __always_inline bool odm_is_need(const struct odm_wish *wish)
{
	struct odm_wish anywhere = *wish;

	if (!wish->ifindex)
		return true;
	anywhere.ifindex = 0;
	return !odm_choose(&anywhere);
}

/* What of a wish that nothing serves is more than a type: another address is one, where there are others. */
static __always_inline u8 odm_beside_type(const struct odm_wish *wish)
{
	u8 bits = wish->on_net ? ODM_WISH_ON_NET : 0;
	struct odm_wish any = *wish;

	if (!wish->fresh || odm_is_any(&wish->avoid))
		return bits;
	any.ifindex = 0;
	any.avoid = (struct odm_addr){};
	return odm_choose(&any) ? bits | ODM_WISH_FRESH : bits;
}

/*
 * The caller's socket, which may not wait, finds nothing. A default type is a request as much as one by the option, and
 * is counted as that, and so is each attempt to have a new address; one too many is not told. Nor is what a class may
 * only use because it is in audit.
 */
static __always_inline void odm_need_of_call(const struct odm_call *call,
					     const struct odm_wish *wish)
{
	struct odm_need need = {
		.class_id = call->class_id,
		.type = call->type,
		.family = call->family,
		.wish = odm_beside_type(wish),
	};

	need.capped = (!call->asked || need.wish & ODM_WISH_FRESH) &&
		      call->class->flags & ODM_CLASS_CAPPED;
	if (odm_may(call->class, call->type) && odm_is_need(wish))
		odm_note_need(&need);
}

/* What there is of the type that the socket wants; nothing is a need. */
static __always_inline struct odm_offer odm_offer_for(const struct odm_call *call, bool any_ip,
						      bool keeps)
{
	struct odm_wish wish = odm_wish_of(call, any_ip, keeps);
	struct odm_offer offer = odm_offer_of(&wish);

	if (!offer.prefix)
		odm_need_of_call(call, &wish);
	return offer;
}

#endif
