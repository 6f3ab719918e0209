/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A call of a classified process, and what its socket wants: the start of bind, connect and sendmsg alike. */
#ifndef ODM_CALL_H
#define ODM_CALL_H

/* What decisions about a socket need; a hook fills what it has. */
struct odm_call {
	void *ctx; /* of the hook */
	struct bpf_sock *sk;
	const struct odm_settings *settings;
	struct odm_class *class;              /* the caller's */
	struct odm_socket *sock;              /* NULL: it never asked for anything */
	struct odm_socket_lifetime *lifetime; /* that the socket asked for; NULL: none */
	__u16 class_id;
	__u8 hook;   /* enum odm_hook */
	__u8 family; /* enum odm_family, of the address that the call is about */
	__u8 asked;  /* the type that the socket itself asked for */
	__u8 type;   /* that, or else the default of its class */
};

static __always_inline bool odm_is_home(const struct odm_call *call)
{
	return bpf_get_netns_cookie(call->ctx) == call->settings->home_netns;
}

/*
 * Find class and wish of the caller's socket; false where a hook has nothing to do with it: it is of another
 * network namespace, or its class is off.
 */
static __always_inline bool odm_begin(struct odm_call *call, struct odm_cgroup cgroup)
{
	if (!odm_is_home(call))
		return false;
	call->class_id = cgroup.class_id;
	call->class = odm_class_row(cgroup.class_id);
	if (!call->class || call->class->mode == ODM_MODE_OFF)
		return false;
	call->sock = odm_socket_of(call->sk);
	call->asked = call->sock ? call->sock->type : 0;
	call->type = call->asked;
	if (call->asked && call->sock->flags & ODM_SOCKET_ENDING)
		call->lifetime = odm_lifetime_of(call->sk);
	if (!call->type)
		call->type = odm_default_of(call->class, cgroup);
	return true;
}

/* Count a decision, and answer the kernel. */
static __always_inline int odm_end(const struct odm_call *call, struct odm_decision d)
{
	return odm_conclude(call->class_id, d, call->class->mode, call->hook);
}

/* Neither request nor default, and an untyped source is no matter: most sockets of most classes. */
static __always_inline bool odm_wants_nothing(const struct odm_call *call)
{
	return !call->type && !call->sock && !(call->class->flags & ODM_CLASS_STRICT);
}

/*
 * Refuse for a reason of policy before the call is decided. In audit the refusal is counted and the
 * call gets what it would get without the policy.
 */
static __always_inline struct odm_decision odm_deny(const struct odm_call *call, u8 reason, u8 type)
{
	if (call->class->mode == ODM_MODE_ENFORCE)
		return ODM_DECIDE(ODM_REFUSE, reason, type);
	odm_count(call->class_id, ODM_DECIDE(ODM_AUDIT, reason, type), call->hook);
	return ODM_LEAVE_ALONE;
}

/* Why a class may not use a type. */
static __always_inline __u8 odm_why_not(__u16 class_id)
{
	return class_id == ODM_UNDECIDED_CLASS ? ODM_R_UNDECIDED : ODM_R_CLASS;
}

/*
 * Can the caller's socket be bound to addresses that no interface has? Where the host allows it to all (nonlocal_bind),
 * a connected UDP socket that has its type by default is not, since it would keep its source for ever.
 */
static __always_inline bool odm_binds_any_ip(const struct odm_call *call)
{
	if (call->family == ODM_IPV4 || (call->sock && call->sock->flags & ODM_SOCKET_FREEBIND))
		return true;
	return call->settings->nonlocal_bind && (call->asked || call->sk->protocol == IPPROTO_TCP);
}

/* What the socket wants. `keeps`: what it is given stays with the socket. */
static __always_inline struct odm_wish odm_wish_of(const struct odm_call *call, bool any_ip,
						   bool keeps)
{
	struct odm_wish wish = {
		.ifindex = call->sk->bound_dev_if,
		.type = call->type,
		.family = call->family,
		.any_ip = any_ip,
		.class_id = call->class_id,
	};

	if (!keeps && call->family == ODM_IPV4)
		wish.cookie = odm_cookie(call->ctx);
	if (odm_has_ended(call->lifetime))
		wish.avoid = call->lifetime->addr;
	if (call->asked) {
		wish.on_net = !!(call->sock->flags & ODM_SOCKET_ON_NET);
		wish.fresh = !!(call->sock->flags & ODM_SOCKET_FRESH);
		wish.seed = call->sock->seed;
		wish.drawn = !!(call->sock->flags & ODM_SOCKET_DRAWN);
	}
	return wish;
}

/* Has the socket asked for a new address? */
static __always_inline bool odm_asks_new(const struct odm_call *call)
{
	return call->asked && call->sock->flags & ODM_SOCKET_FRESH;
}

/* Is the socket given an address of its own? `any_ip`: it may have one that no interface has. */
static __always_inline bool odm_has_own(const struct odm_call *call,
					const struct odm_prefix *prefix, bool any_ip)
{
	if (!prefix->fresh[0] || !any_ip || call->family != ODM_IPV6)
		return false;
	return !(prefix->flags & ODM_PREFIX_ON_REQUEST) || odm_asks_new(call);
}

/* What the socket's own address is made of: its cookie, and which of its addresses it is. */
static __always_inline u64 odm_own_number(const struct odm_call *call, u64 cookie)
{
	u64 turn = call->sock ? call->sock->turn : 0;

	if (call->lifetime)
		turn += call->lifetime->turn + odm_has_ended(call->lifetime);
	return cookie ^ turn << ODM_TURN_SHIFT;
}

/* The address of a prefix that is a socket's own by this number. */
static __always_inline struct odm_addr odm_own_address(const struct odm_offer *offer, u64 number)
{
	u64 key[2] = { offer->prefix->fresh[0], offer->prefix->fresh[1] };
	u64 id = odm_fresh_id(key, number);
	struct odm_addr addr = offer->slot->addr;

	addr.w[2] = bpf_htonl(id >> 32);
	addr.w[3] = bpf_htonl(id);
	return addr;
}

/* The address that is offered: that of the slot, or one of the socket's own. */
static __always_inline struct odm_addr odm_offered(const struct odm_call *call,
						   const struct odm_offer *offer, bool any_ip)
{
	if (!odm_has_own(call, offer->prefix, any_ip))
		return offer->slot->addr;
	return odm_own_address(offer,
			       odm_own_number(call, call->hook == ODM_H_SENDMSG
							    ? odm_cookie(call->ctx)
							    : odm_cookie_of(call->ctx, call->sk)));
}

/*
 * A group of multicast beyond the link, from a socket that has its type by default and is bound to no
 * device: as without us. Which interface a group is meant for is said by IP_MULTICAST_IF, a control
 * message, the scope of the address or the host's multicast route, none of which a hook sees; a typed
 * source would fail the routers' reverse-path check elsewhere, and sends IPv4 to `lo`.
 */
static __always_inline bool odm_leaves_group(const struct odm_call *call,
					     const struct odm_addr *destination)
{
	return odm_is_multicast(destination) && !call->sk->bound_dev_if && !call->asked &&
	       !(call->class->flags & ODM_CLASS_STRICT);
}

/* May caller and asker use the wanted type? ODM_LEAVE_ALONE: they may, or are in audit. */
static __always_inline struct odm_decision odm_check_want(const struct odm_call *call)
{
	struct odm_class *asker;
	u16 asker_id;

	if (!odm_may(call->class, call->type))
		return odm_deny(call, odm_why_not(call->class_id), call->type);
	if (call->asked) {
		asker_id = odm_class_of_asker(call->sock, call->settings->epoch);
		if (asker_id != call->class_id) {
			asker = odm_class_row(asker_id);
			if (!asker || !odm_may(asker, call->type))
				return odm_deny(call, ODM_R_CREATOR, call->type);
		}
	}
	return ODM_LEAVE_ALONE;
}

/* A socket of a class with neither request nor default: as stock, unless the class is strict. */
static __always_inline struct odm_decision odm_untyped(const struct odm_call *call)
{
	if (call->class->flags & ODM_CLASS_STRICT)
		return ODM_DECIDE(ODM_REFUSE, ODM_R_STRICT, 0);
	return ODM_LEAVE_ALONE;
}

/*
 * No address to give. A socket with its class's default goes on without one where the class fails
 * open or is in audit. A socket that asked never does.
 */
static __always_inline struct odm_decision odm_without_address(const struct odm_call *call,
							       __u8 reason)
{
	if (call->asked)
		return ODM_DECIDE(ODM_REFUSE, reason, call->type);
	if (!(call->class->flags & ODM_CLASS_FAIL_CLOSED))
		return ODM_DECIDE(ODM_ACCEPT, ODM_R_FAIL_OPEN, call->type);
	return ODM_DECIDE(call->class->mode == ODM_MODE_AUDIT ? ODM_AUDIT : ODM_REFUSE, reason,
			  call->type);
}

/*
 * May a caller of no class go on with the typed source that its socket has? A connected UDP socket keeps
 * what we gave it, which no hook can take. What its user had bound stays where the class of the caller's
 * cgroup has ended, but not where a process has taken it out of the class.
 */
static __always_inline bool odm_keeps_source(struct bpf_sock *sk, struct odm_cgroup cgroup,
					     __u8 type)
{
	struct odm_socket *sock = odm_socket_of(sk);

	return odm_is_given(sk, sock) ||
	       (sock && sock->flags & ODM_SOCKET_BOUND && odm_kept(cgroup, type));
}

/*
 * Is this a DHCP client, which renews the lease of an address from there (RFC 2131, section 4.3.2)? The port is
 * root's. Whoever manages the address must not lose it for being of no class.
 */
static __always_inline bool odm_renews_lease(const struct odm_call *call)
{
	const struct bpf_sock_addr *ctx = call->ctx;

	if (call->sk->protocol != IPPROTO_UDP)
		return false;
	if (call->hook == ODM_H_BIND)
		return ctx->user_port == bpf_htons(ODM_DHCP_CLIENT);
	return call->sk->src_port == ODM_DHCP_CLIENT &&
	       ctx->user_port == bpf_htons(ODM_DHCP_SERVER);
}

/* Is the source the socket's own, and not one that bind() or a control message names? */
static __always_inline bool odm_is_bound_to(const struct bpf_sock *sk,
					    const struct odm_addr *source)
{
	struct odm_addr bound;

	odm_local_of(sk, &bound);
	return odm_same_addr(&bound, source);
}

/*
 * A socket of no class that names its source: the one thing of it that we look at. Only a typed
 * source is refused, and only in our namespace.
 */
static __always_inline int odm_legacy_source(const struct odm_call *call, struct odm_cgroup cgroup,
					     const struct odm_addr *addr)
{
	struct odm_source source;
	struct odm_class *class;

	if (odm_is_any(addr) || odm_is_in_untyped_block(addr) || odm_is_exempt(addr))
		return 1;
	source = odm_source_of(addr);
	if (!source.type || odm_is_shared(source) || !odm_is_home(call))
		return 1;
	if (source.flags & ODM_SOURCE_MANAGED && odm_renews_lease(call))
		return 1;
	if (odm_is_bound_to(call->sk, addr) && odm_keeps_source(call->sk, cgroup, source.type))
		return 1;
	class = odm_class_row(0);
	if (!class || class->mode == ODM_MODE_OFF)
		return 1;
	return odm_conclude(0, odm_check_source(class, 0, source, 0), class->mode, call->hook);
}

#endif
