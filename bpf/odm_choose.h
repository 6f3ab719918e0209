/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which prefix and address serves a type. User space has put the prefixes in order. */
#ifndef ODM_CHOOSE_H
#define ODM_CHOOSE_H

/* How many spares of a pool are looked at for one that is open, if all ODM_MAX_LEASED others are over. */
#define ODM_MAX_SPARES 64

/* The pool as one word, read once: the agent may put another in its place at any moment. */
static __always_inline u64 odm_pool_of(const struct odm_prefix *prefix)
{
	return *(const volatile u64 *)&prefix->pool;
}

/* The part of a pool that serves a socket, as slots: `equal` from `first`, and if all are over `spares` more. */
struct odm_part {
	u32 first;
	u32 equal;
	u32 first_spare;
	u32 spares;
};

/* All of a pool, or where each address must exist (IPv6 without FREEBIND) only the configured ones. */
static __always_inline struct odm_part odm_part_of(const struct odm_prefix *prefix, bool any_ip)
{
	u64 pool = odm_pool_of(prefix);
	u32 size = ODM_POOL_SIZE(pool), spares = prefix->spares;
	u32 current = spares < size ? size - spares : 0, configured = ODM_POOL_CONFIGURED(pool);

	return (struct odm_part){
		.first = ODM_POOL_FIRST(pool),
		.equal = any_ip || configured > current ? current : configured,
		.first_spare = ODM_POOL_FIRST(pool) + current,
		.spares = any_ip ? spares : prefix->configured_spares,
	};
}

/* Is a slot one to be given, and not the address `avoid`? */
struct odm_candidate {
	struct odm_addr avoid;
	u32 index;
};

ODM_FUNCTION(6, int, odm_is_candidate, struct odm_candidate);
int odm_is_candidate_body(const struct odm_candidate *candidate)
{
	struct odm_slot *slot;
	u32 index;

	if (!candidate)
		return 0;
	index = candidate->index;
	slot = odm_slots.lookup(&index);
	return slot && odm_lease_open(slot->lease) &&
	       !odm_same_addr(&slot->addr, &candidate->avoid);
}

/* What a socket wants. `ifindex`: its own device, 0 if it is bound to none. */
struct odm_wish {
	struct odm_addr avoid; /* an address that it is not given any more */
	u64 cookie;            /* of a socket that does not keep what it is given */
	u32 ifindex;
	u32 seed; /* where it starts; 0: anywhere */
	u8 type;
	u8 family;
	u8 any_ip; /* it may have an address that no interface has */
	u8 drawn;  /* `seed` is its turn */
	u8 on_net; /* only what the present network serves */
	u8 fresh;  /* it asked for a new address: one of its own is none that there is */
	u16 class_id;
};

/* Of which prefix is a slot wanted, and what of a wish decides which one. */
struct odm_search {
	struct odm_addr avoid;
	u64 cookie;
	u32 prefix_id;
	u32 seed;
	u8 any_ip;
	u8 drawn;
	u16 pad[3];
};

/* The next turn in a prefix's pool. */
static __always_inline u32 odm_next_turn(u32 prefix_id)
{
	struct odm_turn *turn = odm_turns.lookup(&prefix_id);
	u32 next;

	if (!turn)
		return 0;
	bpf_spin_lock(&turn->lock);
	next = turn->next++;
	bpf_spin_unlock(&turn->lock);
	return next;
}

/*
 * Where among so many slots a socket starts: anywhere, since one is as good as the other, but always the same for a
 * socket that asked (`seed`). But where sockets have addresses of their own and share none while there is another
 * (IPv4), each takes the next one; or always the same, if its address is not kept with it (`cookie`).
 */
static __always_inline u32 odm_start(const struct odm_search *search,
				     const struct odm_prefix *prefix, u32 among)
{
	u64 key[2] = { prefix->fresh[0], prefix->fresh[1] };
	u32 from;

	if (among < 2)
		return 0;
	if (search->drawn) /* whichever turn that is: the first one is 0 */
		from = search->seed;
	else if (!key[0] || prefix->family != ODM_IPV4)
		from = search->seed ? search->seed : bpf_get_prandom_u32();
	else if (search->cookie)
		from = odm_fresh_id(key, search->cookie);
	else
		from = odm_next_turn(search->prefix_id);
	return from % among;
}

/*
 * A slot of a prefix whose lease is open: any of those that are as good as the other, else the first spare.
 * The slot's index, or -1.
 */
static __always_inline int odm_open_slot_inline(const struct odm_search *search,
						const struct odm_prefix *prefix)
{
	struct odm_candidate candidate = { .avoid = search->avoid };
	struct odm_part part = odm_part_of(prefix, search->any_ip);
	u32 start = odm_start(search, prefix, part.equal), i;

	for (i = 0; i < ODM_MAX_LEASED; i++) {
		ODM_KEEP_COUNT(i);
		if (i >= part.equal)
			break;
		candidate.index = start + i < part.equal ? start + i : start + i - part.equal;
		candidate.index += part.first;
		if (odm_is_candidate(&candidate))
			return candidate.index;
	}
	for (i = 0; i < ODM_MAX_SPARES; i++) {
		ODM_KEEP_COUNT(i);
		if (i >= part.spares)
			break;
		candidate.index = part.first_spare + i;
		if (odm_is_candidate(&candidate))
			return candidate.index;
	}
	return -1;
}

ODM_FUNCTION(4, int, odm_open_slot, struct odm_search);
int odm_open_slot_body(const struct odm_search *search)
{
	struct odm_prefix *prefix;
	u32 id;

	if (!search)
		return -1;
	id = search->prefix_id;
	prefix = odm_offers.lookup(&id);
	return prefix ? odm_open_slot_inline(search, prefix) : -1;
}

/* Could a prefix serve a wish at all? */
static __always_inline bool odm_fits(const struct odm_wish *wish, const struct odm_prefix *prefix)
{
	if (wish->ifindex && prefix->ifindex != wish->ifindex)
		return false;
	return !wish->on_net || prefix->flags & ODM_PREFIX_ON_NET;
}

/* Is who asked for a new address given one of his own there? Then no address of the pool is in his way. */
static __always_inline bool odm_makes_own(const struct odm_wish *wish,
					  const struct odm_prefix *prefix)
{
	return wish->fresh && wish->any_ip && wish->family == ODM_IPV6 && prefix->fresh[0];
}

/*
 * The best prefix that serves a wish, and the slot: prefix id << 32 | slot; 0: none does. Where each class has
 * addresses of its own it is the class's seat, from which on all is as with a prefix that is its alone.
 */
ODM_FUNCTION(5, u64, odm_choose, struct odm_wish);
u64 odm_choose_body(const struct odm_wish *wish)
{
	struct odm_search search = {};
	struct odm_choice *choice;
	struct odm_prefix *prefix;
	u32 i, id, *seat; /* one key for all lookups: stack is scarce */
	int slot;

	if (!wish)
		return 0;
	search.cookie = wish->cookie;
	search.seed = wish->seed;
	search.any_ip = wish->any_ip;
	search.drawn = wish->drawn;
	id = wish->type * ODM_FAMILIES + wish->family;
	choice = odm_choices.lookup(&id);
	if (!choice)
		return 0;
	for (i = 0; i < ODM_MAX_CHOICES; i++) {
		if (i >= choice->count)
			break;
		id = choice->prefix_ids[i];
		prefix = odm_offers.lookup(&id);
		if (!prefix || !odm_fits(wish, prefix))
			continue;
		if (prefix->flags & ODM_PREFIX_BY_CLASS) {
			id |= wish->class_id << ODM_SEAT_CLASS_SHIFT;
			seat = odm_seats.lookup(&id);
			if (!seat)
				continue;
			id = *seat;
		}
		search.prefix_id = id;
		search.avoid = wish->avoid;
		if (odm_makes_own(wish, prefix))
			search.avoid = (struct odm_addr){};
		slot = odm_open_slot(&search);
		if (slot >= 0)
			return (u64)search.prefix_id << 32 | (u32)slot;
	}
	return 0;
}

/* What a wish is served with; `prefix` NULL: with nothing. */
struct odm_offer {
	struct odm_prefix *prefix;
	struct odm_slot *slot;
	u32 index; /* of the slot */
	u32 prefix_id;
};

static __always_inline struct odm_offer odm_offer_of(const struct odm_wish *wish)
{
	u64 chosen = odm_choose(wish);
	struct odm_offer offer = { .index = (u32)chosen };
	u32 id = chosen >> 32, index = offer.index;

	if (!id)
		return offer;
	offer.slot = odm_slots.lookup(&index);
	if (offer.slot)
		offer.prefix = odm_offers.lookup(&id);
	offer.prefix_id = id;
	return offer;
}

/* The slot that the prefix's mark selects; NULL: there is nothing to hand out. */
static __always_inline struct odm_slot *odm_first(const struct odm_prefix *prefix)
{
	u64 pool = odm_pool_of(prefix);
	u32 index = ODM_POOL_FIRST(pool);

	return ODM_POOL_SIZE(pool) ? odm_slots.lookup(&index) : NULL;
}

/* How many addresses of a prefix sockets are given at present: spares are none of them. */
static __always_inline u32 odm_current(const struct odm_prefix *prefix)
{
	u32 size = ODM_POOL_SIZE(odm_pool_of(prefix));

	return prefix->spares < size ? size - prefix->spares : size;
}

#endif
