/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A socket's birth: kinds of socket that its class has closed are refused, and what no later hook can
 * find out is noted, only for rare sockets.
 */

/* The kind, as a class may close it; 0: TCP and UDP, which every later hook sees. */
static __always_inline u8 odm_kind_of(const struct bpf_sock *sk)
{
	if (sk->type == SOCK_RAW)
		return ODM_REFUSE_RAW;
	if (sk->protocol == IPPROTO_MPTCP)
		return ODM_REFUSE_MPTCP;
	if (sk->protocol == IPPROTO_UDPLITE)
		return ODM_REFUSE_UDPLITE;
	if (sk->type == SOCK_DGRAM &&
	    (sk->protocol == IPPROTO_ICMP || sk->protocol == IPPROTO_ICMPV6))
		return ODM_REFUSE_PING;
	return 0;
}

/*
 * On kernels before 6.18 egress has no way to tell the network namespace, so sockets of a foreign one
 * are flagged (no storage: home); and users' raw sockets are flagged, to be told from the kernel's.
 */
static __always_inline void odm_note_birth(struct bpf_sock *sk, u16 class_id, u16 flags)
{
	if (flags && !odm_new_socket(sk, class_id, flags))
		odm_lost(ODM_LOST_SOCKET);
}

/* The first prefix that serves a type; NULL: none does. */
static __always_inline struct odm_prefix *odm_serving(u8 type, u8 family)
{
	u32 index = type * ODM_FAMILIES + family, id;
	struct odm_choice *choice = odm_choices.lookup(&index);

	if (!choice || !choice->count)
		return NULL;
	id = choice->prefix_ids[0];
	return odm_offers.lookup(&id);
}

/*
 * The mark of the prefix that serves a class's default type, if its addresses are shared: for a UDP socket that
 * is never connected it must be there before the first datagram. Whatever it is used for else takes it off.
 */
static __always_inline void odm_mark_birth(struct bpf_sock *sk, const struct odm_class *class,
					   u8 type)
{
	struct odm_prefix *prefix = NULL;

	if (!type || sk->protocol != IPPROTO_UDP)
		return;
	if (sk->family == AF_INET6)
		prefix = odm_serving(type, ODM_IPV6);
	/* Both versions of an uplink have the same mark; who fails open may yet send by IPv6 untyped. */
	if (sk->family == AF_INET || (!prefix && class->flags & ODM_CLASS_FAIL_CLOSED))
		prefix = odm_serving(type, ODM_IPV4);
	if (prefix && prefix->flags & ODM_PREFIX_SHARED)
		sk->mark = prefix->mark;
}

/* Must the class be known already? Where no class closes or counts anything, and no address is shared: no. */
static __always_inline bool odm_asks_class(const struct odm_settings *settings,
					   const struct bpf_sock *sk)
{
	return settings->watched_classes ||
	       (settings->shared_prefixes && sk->protocol == IPPROTO_UDP);
}

/* cgroup/sock_create: where no class closes or counts anything, as nearly always, it asks no class. */
int odm_sock_create(struct bpf_sock *ctx)
{
	struct odm_decision d = ODM_DECIDE(ODM_REFUSE, ODM_R_CLOSED, 0);
	struct odm_settings *settings = odm_settings_get();
	struct odm_class *class = NULL;
	struct odm_cgroup cgroup = {};
	__u16 flags = 0;

	if (!settings)
		return 1; /* never: an array has its row */
	if (ctx->type == SOCK_RAW)
		flags |= ODM_SOCKET_RAW;
	if (bpf_get_netns_cookie(ctx) != settings->home_netns) {
		odm_note_birth(ctx, 0, flags | ODM_SOCKET_FOREIGN);
		return 1; /* of another namespace: flagged, so that egress lets it go */
	}
	if (odm_asks_class(settings, ctx)) {
		cgroup = odm_class_of_caller(settings);
		class = odm_class_row(cgroup.class_id);
	}
	if (class && class->mode != ODM_MODE_OFF) {
		if (class->refuse & odm_kind_of(ctx) &&
		    !odm_conclude(cgroup.class_id, d, class->mode, ODM_H_SOCK_CREATE))
			return 0;
		if (class->flags & ODM_CLASS_CAPPED)
			flags |= ODM_SOCKET_TRACKED;
		if (settings->shared_prefixes)
			odm_mark_birth(ctx, class, odm_default_of(class, cgroup));
	}
	odm_note_birth(ctx, cgroup.class_id, flags);
	return 1;
}
