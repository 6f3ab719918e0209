/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which prefix and address serves a type. User space has put the prefixes in order. */
#ifndef ODM_CHOOSE_H
#define ODM_CHOOSE_H

/* How many slots of a pool are looked at for one that is open: all that can have leases of their own. */
#define ODM_MAX_TRIES 32

/* The pool as one word, read once: the agent may put another in its place at any moment. */
static __always_inline u64 odm_pool_of(const struct odm_prefix *prefix)
{
	return *(const volatile u64 *)&prefix->pool;
}

/*
 * How many of a pool's addresses serve: all, or where each must exist (IPv6 without FREEBIND) only
 * the configured ones.
 */
static __always_inline u32 odm_serving(u64 pool, bool any_ip)
{
	return any_ip ? ODM_POOL_SIZE(pool) : ODM_POOL_CONFIGURED(pool);
}

/* Of which prefix is a slot wanted, and may it be one that no interface has? */
struct odm_search {
	u32 prefix_id;
	u32 any_ip;
};

/*
 * A slot of a prefix whose lease is open: any of those that are as good as the other, else the first spare.
 * The slot's index, or -1.
 */
static __always_inline int odm_open_slot_inline(const struct odm_prefix *prefix, bool any_ip)
{
	u64 pool = odm_pool_of(prefix);
	u32 among = odm_serving(pool, any_ip), spares = prefix->spares, start = 0, i, index;
	u32 equal = spares < among ? among - spares : 0;
	struct odm_slot *slot;

	if (equal > 1)
		start = bpf_get_prandom_u32() % equal;
	for (i = 0; i < ODM_MAX_TRIES; i++) {
		if (i >= among)
			break;
		index = i;
		if (i < equal) {
			index += start;
			if (index >= equal)
				index -= equal;
		}
		index += ODM_POOL_FIRST(pool);
		slot = odm_slots.lookup(&index);
		if (slot && odm_lease_open(slot->lease))
			return index;
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
	prefix = odm_prefixes.lookup(&id);
	return prefix ? odm_open_slot_inline(prefix, search->any_ip) : -1;
}

/* What a socket wants. `ifindex`: its own device, 0 if it is bound to none. */
struct odm_wish {
	u32 ifindex;
	u8 type;
	u8 family;
	u8 any_ip; /* it may have an address that no interface has */
	u8 pad;
};

/* The best prefix that serves a wish, and the slot: prefix id << 32 | slot; 0: none does. */
ODM_FUNCTION(5, u64, odm_choose, struct odm_wish);
u64 odm_choose_body(const struct odm_wish *wish)
{
	struct odm_search search = {};
	struct odm_choice *choice;
	struct odm_prefix *prefix;
	u32 index, i, id;
	int slot;

	if (!wish)
		return 0;
	index = wish->type * ODM_FAMILIES + wish->family;
	choice = odm_choices.lookup(&index);
	if (!choice)
		return 0;
	for (i = 0; i < ODM_MAX_CHOICES; i++) {
		if (i >= choice->count)
			break;
		id = choice->prefix_ids[i];
		prefix = odm_prefixes.lookup(&id);
		if (!prefix || (wish->ifindex && prefix->ifindex != wish->ifindex))
			continue;
		search.prefix_id = id;
		search.any_ip = wish->any_ip;
		slot = odm_open_slot(&search);
		if (slot >= 0)
			return (u64)id << 32 | (u32)slot;
	}
	return 0;
}

/* What a wish is served with; `prefix` NULL: with nothing. */
struct odm_offer {
	struct odm_prefix *prefix;
	struct odm_slot *slot;
	u32 index; /* of the slot */
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
		offer.prefix = odm_prefixes.lookup(&id);
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
