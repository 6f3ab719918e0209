/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What becomes of the address that a socket has, told by getsockopt: whether sockets are given it, until when it serves,
 * and what the socket would be given in its place. All of it is read from maps and storage, so it holds with the agent
 * dead, too.
 */
#ifndef ODM_NOTICE_H
#define ODM_NOTICE_H

/* Do sockets find a prefix? A seat's is the one that it is a seat of. */
static __always_inline bool odm_is_chosen(const struct odm_prefix *prefix, u32 prefix_id)
{
	u32 i, id = prefix->type * ODM_FAMILIES + prefix->family, *seat;
	struct odm_choice *choice = odm_choices.lookup(&id);
	struct odm_prefix *chosen;

	if (!choice)
		return false;
	for (i = 0; i < ODM_MAX_CHOICES; i++) {
		if (i >= choice->count)
			break;
		id = choice->prefix_ids[i];
		if (id == prefix_id)
			return true;
		chosen = odm_offers.lookup(&id);
		if (!prefix->class_id || !chosen || !(chosen->flags & ODM_PREFIX_BY_CLASS))
			continue;
		id |= prefix->class_id << ODM_SEAT_CLASS_SHIFT;
		seat = odm_seats.lookup(&id);
		if (seat && *seat == prefix_id)
			return true;
	}
	return false;
}

/* Is a lease that of an address of the pool? One that lingers is not. */
static __always_inline bool odm_pool_has_lease(const struct odm_prefix *prefix, u32 lease)
{
	u64 pool = odm_pool_of(prefix);
	struct odm_slot *slot;
	u32 i, index;

	for (i = 0; i < 2 * ODM_MAX_LEASED; i++) {
		ODM_KEEP_COUNT(i);
		if (i >= ODM_POOL_SIZE(pool))
			break;
		index = ODM_POOL_FIRST(pool) + i;
		slot = odm_slots.lookup(&index);
		if (slot && slot->lease == lease)
			return true;
	}
	return false;
}

/* An address, and what its row says. */
struct odm_standing {
	struct odm_addr addr;
	struct odm_source source;
};

/* Are sockets given an address now, or will be when others' leases are over? */
ODM_FUNCTION(10, int, odm_is_given_out, struct odm_standing);
int odm_is_given_out_body(const struct odm_standing *standing)
{
	struct odm_prefix *prefix;
	struct odm_slot *first;
	u32 id;

	if (!standing)
		return 0;
	id = standing->source.prefix_id;
	prefix = odm_offers.lookup(&id);
	if (!prefix || !ODM_POOL_SIZE(odm_pool_of(prefix)) || !odm_is_chosen(prefix, id))
		return 0;
	if (prefix->flags & ODM_PREFIX_SHARED) { /* one of them is given, the mark selects which */
		first = odm_first(prefix);
		return first && odm_same_addr(&first->addr, &standing->addr);
	}
	if (!standing->source.lease)
		return 1;
	return odm_lease_open(standing->source.lease) &&
	       odm_pool_has_lease(prefix, standing->source.lease);
}

/* What a socket's address is to it: an address that is everybody's is typed where the socket wants the type. */
static __always_inline struct odm_source odm_standing_of(const struct odm_call *call,
							 const struct odm_addr *addr)
{
	struct odm_source source = odm_seen_by(call->class, odm_source_of(addr));

	if (odm_is_shared(source) && source.type != call->type)
		source = (struct odm_source){};
	return source;
}

/* Is an address that has no type one that the host has lost? Not if the socket's user may bind it to any. */
static __always_inline bool odm_is_lost(const struct odm_call *call, const struct odm_addr *addr)
{
	if (!call->type || odm_is_exempt(addr) || odm_is_own(call->settings, addr))
		return false;
	return !call->sock || !(call->sock->flags & ODM_SOCKET_NONLOCAL);
}

static __always_inline enum odm_notice_state
odm_state_of(const struct odm_call *call, const struct odm_addr *addr, struct odm_source source)
{
	struct odm_standing standing = { .addr = *addr, .source = source };

	if (odm_is_any(addr))
		return call->type ? ODM_NOTICE_UNBOUND : ODM_NOTICE_NONE;
	if (!source.type)
		return odm_is_lost(call, addr) ? ODM_NOTICE_OVER : ODM_NOTICE_NONE;
	if (!odm_lease_valid(source.lease))
		return ODM_NOTICE_OVER;
	return odm_is_given_out(&standing) && !odm_has_ended(call->lifetime)
		       ? ODM_NOTICE_PREFERRED
		       : ODM_NOTICE_DEPRECATED;
}

/* Until when an address serves; the lifetime that the socket asked for may end before its lease. */
static __always_inline void odm_write_dates(struct odm_notice *notice, const struct odm_call *call,
					    u32 lease_id)
{
	struct odm_lease *lease = lease_id ? odm_leases.lookup(&lease_id) : NULL;
	u64 preferred_ns = lease ? lease->preferred_ns : 0, own_ns = 0;

	if (call->lifetime && !odm_is_any(&call->lifetime->addr))
		own_ns = call->lifetime->ends_ns;
	if (own_ns && (!preferred_ns || own_ns < preferred_ns))
		preferred_ns = own_ns;
	notice->preferred_ns = preferred_ns;
	notice->valid_ns = lease ? lease->valid_ns : 0;
}

/* What the socket would be given now in the place of what it has; the wildcard: nothing, or it can't be told. */
static __always_inline struct odm_addr odm_successor(struct odm_call *call)
{
	struct odm_addr addr = {};

	if (odm_may(call->class, call->type) && odm_foresee(call, &addr) == ODM_OUTLOOK_OFFERED)
		return addr;
	return (struct odm_addr){};
}

/* All of it, from `state` on; false: there is no room. */
static __always_inline bool odm_write_notice(const struct bpf_sockopt *ctx, struct odm_call *call)
{
	struct odm_notice *notice = ctx->optval;
	struct odm_addr addr = {}, successor = {};
	enum odm_notice_state state;
	struct odm_source source;

	if ((void *)(notice + 1) > ctx->optval_end)
		return false;
	odm_local_of(call->sk, &addr);
	call->family = odm_is_any(&addr)  ? call->sk->family == AF_INET ? ODM_IPV4 : ODM_IPV6
		       : odm_is_v4(&addr) ? ODM_IPV4
					  : ODM_IPV6;
	source = odm_standing_of(call, &addr);
	state = odm_state_of(call, &addr, source);
	if (source.type && !call->asked)
		call->type = source.type;
	if (state != ODM_NOTICE_NONE && state != ODM_NOTICE_PREFERRED)
		successor = odm_successor(call);
	odm_write_dates(notice, call, source.lease);
	notice->state = state;
	notice->type = state == ODM_NOTICE_NONE ? 0 : source.type ? source.type : call->type;
	notice->pad = 0;
	notice->addr = addr;
	notice->successor = successor;
	notice->room[0] = 0;
	notice->room[1] = 0;
	notice->room[2] = 0;
	return true;
}

#endif
