/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which prefix and address serves a type. User space has put the prefixes in order. */
#ifndef ODM_CHOOSE_H
#define ODM_CHOOSE_H

/* The pool as one word, read once: the agent may put another in its place at any moment. */
static __always_inline u64 odm_pool_of(const struct odm_prefix *prefix)
{
	return *(const volatile u64 *)&prefix->pool;
}

/* The best prefix for a type and family; of the socket's own device, where it is bound to one. */
static __always_inline struct odm_prefix *odm_choose_prefix(__u8 type, __u8 family, u32 ifindex)
{
	u32 index = type * ODM_FAMILIES + family, i, id;
	struct odm_choice *choice = odm_choices.lookup(&index);
	struct odm_prefix *prefix;

	if (!choice)
		return NULL;
	for (i = 0; i < ODM_MAX_CHOICES; i++) {
		if (i >= choice->count)
			break;
		id = choice->prefix_ids[i];
		prefix = odm_prefixes.lookup(&id);
		if (prefix && ODM_POOL_SIZE(odm_pool_of(prefix)) &&
		    (!ifindex || prefix->ifindex == ifindex))
			return prefix;
	}
	return NULL;
}

/*
 * How many of a pool's addresses serve: all, or where each must exist (IPv6 without FREEBIND) only
 * the configured ones.
 */
static __always_inline u32 odm_serving(u64 pool, bool any_ip)
{
	return any_ip ? ODM_POOL_SIZE(pool) : ODM_POOL_CONFIGURED(pool);
}

/* One address of a pool; any of them is as good as the other. NULL: the pool has just gone. */
static __always_inline struct odm_addr *odm_pick(const struct odm_prefix *prefix, bool any_ip)
{
	u64 pool = odm_pool_of(prefix);
	u32 index = ODM_POOL_FIRST(pool), among = odm_serving(pool, any_ip);

	if (!among)
		return NULL;
	if (among > 1)
		index += bpf_get_prandom_u32() % among;
	return odm_pools.lookup(&index);
}

/* The address that the prefix's mark selects. */
static __always_inline struct odm_addr *odm_first(const struct odm_prefix *prefix)
{
	u64 pool = odm_pool_of(prefix);
	u32 index = ODM_POOL_FIRST(pool);

	return ODM_POOL_SIZE(pool) ? odm_pools.lookup(&index) : NULL;
}

/* Can a socket be bound to any-IP addresses of this prefix? */
static __always_inline bool odm_binds_any_ip(const struct odm_prefix *prefix,
					     const struct odm_socket *sock)
{
	return prefix->family == ODM_IPV4 || (sock && sock->flags & ODM_SOCKET_FREEBIND);
}

#endif
