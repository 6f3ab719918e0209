/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What an address is: typed, untyped and local, or somebody else's; and who may send from it. */
#ifndef ODM_SOURCE_H
#define ODM_SOURCE_H

/* The ports of DHCP (RFC 2131, section 4.1). */
#define ODM_DHCP_SERVER 67
#define ODM_DHCP_CLIENT 68

/* Type of an address as a source. Only addresses that are not configured ever reach the trie. */
static __always_inline struct odm_source odm_source_of_inline(const struct odm_addr *addr)
{
	struct odm_span_key key = { .prefix_length = 128, .addr = *addr };
	struct odm_source *row = odm_origins.lookup(&key.addr);

	if (!row)
		row = odm_spans.lookup(&key);
	return row ? *row : (struct odm_source){};
}

ODM_FUNCTION(2, u64, odm_source_row, struct odm_addr);
u64 odm_source_row_body(const struct odm_addr *addr)
{
	union {
		struct odm_source source;
		u64 word;
	} row = {};

	if (addr)
		row.source = odm_source_of_inline(addr);
	return row.word;
}

static __always_inline struct odm_source odm_source_of(const struct odm_addr *addr)
{
	union {
		u64 word;
		struct odm_source source;
	} row = { odm_source_row(addr) };

	return row.source;
}

/*
 * The row of an address of the host's own, or of a subnet's broadcast address; NULL: somebody else's.
 * The trie is asked only where some span is local as a whole.
 */
static __always_inline struct odm_source *odm_own_row(const struct odm_settings *settings,
						      const struct odm_addr *addr)
{
	struct odm_span_key key = { .prefix_length = 128, .addr = *addr };
	struct odm_source *row = odm_origins.lookup(&key.addr);

	if (row || !settings->any_ip_spans)
		return row;
	row = odm_spans.lookup(&key);
	return row && (row->flags & ODM_SOURCE_ANY_IP) ? row : NULL;
}

/* A destination that is left alone, as it does not leave the host or its link. */
static __always_inline bool odm_is_own(const struct odm_settings *settings,
				       const struct odm_addr *addr)
{
	return odm_own_row(settings, addr);
}

/* An address that the host holds: packets to it arrive here, unlike those to a broadcast address. */
static __always_inline bool odm_is_held(const struct odm_settings *settings,
					const struct odm_addr *addr)
{
	struct odm_source *row = odm_own_row(settings, addr);

	return row && !(row->flags & ODM_SOURCE_BROADCAST);
}

static __always_inline bool odm_leaves_alone(const struct odm_settings *settings,
					     const struct odm_addr *destination)
{
	return odm_is_exempt(destination) || odm_is_own(settings, destination);
}

static __always_inline bool odm_may(const struct odm_class *class, __u8 type)
{
	return class->allow & (1 << (type & 7));
}

/* Is an address one class's own, and not this one's? */
static __always_inline bool odm_is_others(struct odm_source source, u16 class_id)
{
	struct odm_prefix *seat;
	u32 prefix_id;

	if (!(source.flags & ODM_SOURCE_OF_CLASS))
		return false;
	prefix_id = source.prefix_id;
	seat = odm_offers.lookup(&prefix_id);
	return !seat || seat->class_id != class_id;
}

/* May a class have an address: is it of a type that it may use, and no other class's own? */
static __always_inline bool odm_may_have(const struct odm_class *class, u16 class_id,
					 struct odm_source source)
{
	return odm_may(class, source.type) && !odm_is_others(source, class_id);
}

/* Why it may not. */
static __always_inline __u8 odm_why_not_have(const struct odm_class *class,
					     struct odm_source source)
{
	return odm_may(class, source.type) ? ODM_R_OTHER_CLASS : ODM_R_CLASS;
}

/*
 * An address that others manage, which stays everybody's: of a type to classes that may use it, to all others
 * untyped, as without us.
 */
static __always_inline bool odm_is_shared(struct odm_source source)
{
	return source.flags & ODM_SOURCE_SHARED;
}

/* What a source is to a class. */
static __always_inline struct odm_source odm_seen_by(const struct odm_class *class,
						     struct odm_source source)
{
	if (odm_is_shared(source) && !odm_may(class, source.type))
		source = (struct odm_source){};
	return source;
}

/*
 * What a source is to packets of a class. A shared one is typed where the socket's mark says that it was given or
 * chosen; to a strict class always, since it has no untyped one.
 */
static __always_inline struct odm_source odm_seen_in(const struct odm_class *class,
						     struct odm_source source, bool marked)
{
	if (odm_is_shared(source) && !marked && !(class->flags & ODM_CLASS_STRICT))
		source = (struct odm_source){};
	return odm_seen_by(class, source);
}

/*
 * May a socket hold this source, which it chose itself (bind, control message)?
 * `asked` is the type that the socket itself asked for: an explicit choice never beats that,
 * but it beats the class's default, unless the class is strict.
 */
static __always_inline struct odm_decision
odm_check_source(const struct odm_class *class, u16 class_id, struct odm_source source, __u8 asked)
{
	source = odm_seen_by(class, source);
	if (asked && source.type != asked)
		return ODM_DECIDE(ODM_REFUSE, ODM_R_OTHER_TYPE, asked);
	if (!source.type) {
		if (class->flags & ODM_CLASS_STRICT)
			return ODM_DECIDE(ODM_REFUSE, ODM_R_STRICT, 0);
		return ODM_LEAVE_ALONE;
	}
	if (!odm_may_have(class, class_id, source))
		return ODM_DECIDE(ODM_REFUSE, odm_why_not_have(class, source), source.type);
	if (!odm_lease_valid(source.lease))
		return ODM_DECIDE(ODM_REFUSE, ODM_R_ENDED, source.type);
	return ODM_DECIDE(ODM_ACCEPT, ODM_R_ALLOWED, source.type);
}

/* The mark by which packets from a shared address leave by its uplink, with its type: type << 32 | mark; else 0. */
ODM_FUNCTION(8, u64, odm_shared_mark, struct odm_addr);
u64 odm_shared_mark_body(const struct odm_addr *addr)
{
	struct odm_prefix *prefix;
	struct odm_source source;
	u32 prefix_id;

	if (!addr)
		return 0;
	source = odm_source_of_inline(addr);
	if (!odm_is_shared(source))
		return 0;
	prefix_id = source.prefix_id;
	prefix = odm_offers.lookup(&prefix_id);
	return prefix ? (u64)source.type << 32 | prefix->mark : 0;
}

#endif
