/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A request for a type, by the option: what it may be, what is kept of it with the socket, and what it is offered.
 * Beside a type stand two bits (docs/api.md): ON_NET, only an address that the network serves to which the host is
 * attached now; FRESH, another address than the socket has or would be given, though there is one.
 */
#ifndef ODM_REQUEST_H
#define ODM_REQUEST_H

static __always_inline bool odm_more_than_one(u32 bits)
{
	return bits & (bits - 1);
}

/* What the kernel would refuse as contradictory (RFC 5014, section 6). */
static __always_inline bool odm_flags_contradict(u32 flags)
{
	return odm_more_than_one(flags & (IPV6_PREFER_SRC_TMP | IPV6_PREFER_SRC_PUBLIC |
					  IPV6_PREFER_SRC_PUBTMP_DEFAULT)) ||
	       odm_more_than_one(flags & (IPV6_PREFER_SRC_HOME | IPV6_PREFER_SRC_COA)) ||
	       odm_more_than_one(flags & (IPV6_PREFER_SRC_CGA | IPV6_PREFER_SRC_NONCGA));
}

/* A fixed address is always the same one, so none is new. */
static __always_inline bool odm_is_bad_field(u32 value)
{
	u8 type = (value & ODM_FIELD_MASK) >> ODM_FIELD_SHIFT;

	if (!type)
		return value & ODM_BITS_MASK;
	return type >= ODM_TYPES || value & ODM_FIELD_ZERO ||
	       (type == ODM_FIXED && value & ODM_FRESH);
}

/* May the caller ask for this? Everything is checked before anything is stored. */
static __always_inline struct odm_decision odm_check_request(const struct odm_class *class,
							     u32 value)
{
	u8 type = (value & ODM_FIELD_MASK) >> ODM_FIELD_SHIFT;

	if (odm_is_bad_field(value))
		return ODM_DECIDE(ODM_REFUSE, ODM_R_BAD_FIELD, 0);
	if (odm_flags_contradict(value & ODM_FLAGS_MASK))
		return ODM_DECIDE(ODM_REFUSE, ODM_R_BAD_FLAGS, type);
	if (!odm_may(class, type))
		return ODM_DECIDE(ODM_REFUSE, ODM_R_CLASS, type);
	return ODM_DECIDE(ODM_ACCEPT, ODM_R_ACCEPTED_OPTION, type);
}

/* The bits of a request that stand beside its type, as the option has them. */
static __always_inline u32 odm_bits_of(const struct odm_socket *sock)
{
	return (sock->flags & ODM_SOCKET_ON_NET ? ODM_ON_NET : 0) |
	       (sock->flags & ODM_SOCKET_FRESH ? ODM_FRESH : 0);
}

/* What the socket wishes, by what is kept with it; nothing is given by this, so no turn is taken. */
static __always_inline struct odm_wish odm_wish_kept(const struct bpf_sock *sk,
						     const struct odm_socket *sock)
{
	return (struct odm_wish){
		.ifindex = sk->bound_dev_if,
		.seed = sock->seed,
		.type = sock->type,
		.family = sk->family == AF_INET ? ODM_IPV4 : ODM_IPV6,
		.any_ip = true,
		.drawn = true,
		.on_net = !!(sock->flags & ODM_SOCKET_ON_NET),
		.class_id = sock->class_id,
	};
}

/* Keep type, bits and lifetime with the socket, and who asked. NULL: there is no memory. */
static __always_inline struct odm_socket *
odm_store_request(struct bpf_sock *sk, u32 value, u16 class_id,
		  const struct odm_socket_lifetime *wanted)
{
	struct odm_socket *sock = odm_new_socket(sk, class_id, ODM_SOCKET_TRACKED);
	u8 type = (value & ODM_FIELD_MASK) >> ODM_FIELD_SHIFT;

	if (!sock)
		return NULL;
	if (sock->type != type)
		odm_drop_lifetime(sk, sock); /* that of an address of another type */
	if (!odm_store_lifetime(sk, sock, wanted, value & ODM_FRESH))
		return NULL;
	if (!(value & ODM_FRESH) || sock->type != type) {
		sock->seed = bpf_get_prandom_u32() | 1u << 31;
		sock->flags &= ~ODM_SOCKET_DRAWN;
	}
	sock->type = type;
	sock->flags &= ~(ODM_SOCKET_ON_NET | ODM_SOCKET_FRESH);
	if (value & ODM_ON_NET)
		sock->flags |= ODM_SOCKET_ON_NET;
	if (value & ODM_FRESH)
		sock->flags |= ODM_SOCKET_FRESH;
	return sock;
}

/* Was the address of a prefix made for others who asked for a new one, just now? Then it is new to all of them. */
static __always_inline bool odm_is_young(const struct odm_prefix *prefix)
{
	return bpf_ktime_get_boot_ns() < prefix->new_until_s * ODM_NS_PER_S;
}

/*
 * A new address is another one than the socket has; if it has none, than it would be given without asking: of what
 * there is, who knows who has it? Then the next one of the pool is in turn.
 */
static __always_inline void odm_want_another(struct bpf_sock *sk, struct odm_socket *sock,
					     struct odm_wish *wish)
{
	struct odm_socket_lifetime *own = odm_lifetimes.sk_storage_get(sk, 0, 0);
	struct odm_offer offer = odm_offer_of(wish);
	struct odm_addr had = {};

	if (!own)
		return; /* never: it was just made */
	odm_local_of(sk, &had);
	if (odm_source_of(&had).type == wish->type)
		own->addr = had;
	else if (odm_is_any(&own->addr) && offer.prefix && !odm_is_young(offer.prefix))
		own->addr = offer.slot->addr;
	wish->fresh = true;
	wish->avoid = own->addr;
	if (offer.prefix)
		wish->seed = odm_next_turn(offer.prefix_id);
}

/* The slot that was found stays the socket's. */
static __always_inline void odm_keep_turn(struct odm_socket *sock, const struct odm_offer *offer)
{
	if (!offer->prefix)
		return;
	sock->seed = offer->index - ODM_POOL_FIRST(odm_pool_of(offer->prefix));
	sock->flags |= ODM_SOCKET_DRAWN;
}

/* What serves an accepted request; nothing is a need, by whose ticket the application may wait. */
static __always_inline struct odm_offer odm_offer_to(struct bpf_sock *sk, struct odm_socket *sock,
						     u16 class_id)
{
	struct odm_wish wish = odm_wish_kept(sk, sock);
	struct odm_need need = {
		.class_id = class_id, .type = wish.type, .family = wish.family, .waits = true
	};
	bool fresh = sock->flags & ODM_SOCKET_FRESH;
	struct odm_offer offer;

	if (fresh)
		odm_want_another(sk, sock, &wish);
	offer = odm_offer_of(&wish);
	if (fresh)
		odm_keep_turn(sock, &offer);
	sock->ticket = 0;
	if (offer.prefix || !odm_is_need(&wish))
		return offer;
	need.wish = odm_beside_type(&wish);
	sock->ticket = odm_note_need(&need);
	return offer;
}

/* Does the socket take IPV6_FREEBIND? A connected MPTCP socket refuses it. */
static __always_inline bool odm_takes_freebind(const struct bpf_sock *sk)
{
	return sk->protocol != IPPROTO_MPTCP || sk->state == BPF_TCP_CLOSE;
}

/* May the socket be given an address that no interface has? Of what is not there yet nobody knows. */
static __always_inline bool odm_needs_freebind(const struct bpf_sock *sk,
					       const struct odm_socket *sock,
					       const struct odm_offer *offer)
{
	const struct odm_prefix *prefix = offer->prefix;
	u64 pool;

	if (!odm_takes_freebind(sk))
		return false;
	if (!prefix)
		return true;
	pool = odm_pool_of(prefix);
	if (ODM_POOL_SIZE(pool) > ODM_POOL_CONFIGURED(pool) + prefix->configured_spares)
		return true;
	return prefix->fresh[0] &&
	       (!(prefix->flags & ODM_PREFIX_ON_REQUEST) || sock->flags & ODM_SOCKET_FRESH);
}

/* The mark of the prefix with shared addresses that serves a request; 0: none does. */
static __always_inline u32 odm_mark_for(const struct odm_call *call, const struct odm_socket *sock)
{
	struct odm_wish wish = {
		.type = sock->type,
		.family = call->sk->family == AF_INET ? ODM_IPV4 : ODM_IPV6,
		.any_ip = true,
		.on_net = !!(sock->flags & ODM_SOCKET_ON_NET),
		.class_id = call->class_id,
	};
	struct odm_offer offer;

	if (!call->settings->shared_prefixes)
		return 0;
	offer = odm_offer_of(&wish);
	if (!offer.prefix && wish.family == ODM_IPV6) {
		wish.family = ODM_IPV4; /* both versions of an uplink have the same mark */
		offer = odm_offer_of(&wish);
	}
	return offer.prefix && offer.prefix->flags & ODM_PREFIX_SHARED ? offer.prefix->mark : 0;
}

/*
 * The kernel reads the mark of a datagram before the hook for it runs. So a UDP socket has it when it asks: that of a
 * prefix with shared addresses, or it would leave by another uplink; and no other prefix's, which it may have from a
 * connection that was dissolved.
 */
static __always_inline void odm_lead(struct bpf_sock *sk, const struct odm_settings *settings,
				     u32 mark)
{
	u32 known = sk->mark;

	if (known == mark || known & ~settings->mark_mask || sk->protocol != IPPROTO_UDP)
		return;
	if (sk->dst_port && !settings->shared_prefixes)
		return; /* connected: it keeps its source, and its mark with it */
	odm_note_for_mark(sk);
	bpf_setsockopt(sk, SOL_SOCKET, SO_MARK, &mark, sizeof(mark));
}

#endif
