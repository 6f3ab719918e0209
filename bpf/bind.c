/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bind(): an explicit address is checked; a wildcard becomes an address of the type asked for. */

/* The address that a wildcard becomes, in `addr`. A class's default never narrows a wildcard. */
static __always_inline struct odm_decision odm_narrow(const struct odm_call *call,
						      struct odm_addr *addr)
{
	struct odm_decision d = odm_check_want(call);
	bool any_ip = odm_binds_any_ip(call);
	struct odm_offer offer;

	if (d.verdict == ODM_REFUSE)
		return d;
	offer = odm_offer_for(call, any_ip, true);
	if (!offer.prefix)
		return ODM_DECIDE(ODM_REFUSE, ODM_R_NO_ADDRESS, call->type);
	*addr = odm_offered(call, &offer, any_ip);
	return ODM_DECIDE(ODM_ASSIGN, ODM_R_REWRITTEN, call->type);
}

/* FREEBIND that only our option has put on must not let a bind pass that stock would refuse. */
static __always_inline bool odm_frees_bind(const struct odm_settings *settings,
					   const struct odm_socket *sock,
					   const struct odm_addr *addr)
{
	u16 freed = sock ? sock->flags & (ODM_SOCKET_FREEBIND | ODM_SOCKET_NONLOCAL) : 0;

	return freed == ODM_SOCKET_FREEBIND && !odm_is_own(settings, addr);
}

static __always_inline struct odm_decision odm_check_bind(const struct odm_call *call,
							  const struct odm_addr *addr)
{
	struct odm_source source = odm_source_of(addr);

	if (!source.type && odm_frees_bind(call->settings, call->sock, addr))
		return ODM_DECIDE(ODM_REFUSE, ODM_R_NOT_LOCAL, call->asked);
	return odm_check_source(call->class, call->class_id, source, call->asked);
}

/*
 * A tracked socket reserves its address after its bind (post_bind), so that one that fails reserves none;
 * but where that hook does not run (IP_BIND_ADDRESS_NO_PORT), or sees a subflow, it does here. If the
 * bind then fails, the reservation is released when the socket is closed, or gets something else.
 */
static __always_inline bool odm_reserves_early(const struct odm_call *call)
{
	const struct bpf_sock_addr *ctx = call->ctx;
	struct bpf_sock *sk = call->sk;

	return sk->protocol == IPPROTO_TCP && !sk->src_port &&
	       (!ctx->user_port || ODM_MPTCP_SOCKET(sk));
}

/*
 * The application has chosen a typed source itself: that is noted, so that no connect() takes it for one
 * that we have given, and takes it back.
 */
static __always_inline struct odm_decision
odm_note_bound(struct odm_call *call, const struct odm_addr *addr, struct odm_decision d)
{
	u16 flags = call->class->flags & ODM_CLASS_CAPPED ? ODM_SOCKET_TRACKED : 0;
	struct odm_decision cap;
	u8 type = odm_seen_by(call->class, odm_source_of(addr)).type;

	if (d.verdict == ODM_REFUSE || !type)
		return d;
	if (!call->sock)
		call->sock = odm_keep(call->sk, call->class_id, flags);
	if (!call->sock) {
		odm_lost(ODM_LOST_SOCKET);
		return d;
	}
	if (odm_tracked(call->sock) && odm_reserves_early(call)) {
		cap = odm_reserve_for(call, odm_owner(call->ctx, call->sk), call->sock, addr, type,
				      ODM_HELD_BY_USER | ODM_HELD_BOUND);
		if (cap.verdict == ODM_REFUSE)
			return cap;
	}
	call->sock->flags |= ODM_SOCKET_BOUND;
	odm_begin_lifetime(call->lifetime, addr);
	return d;
}

/* S6: of no class; only a typed source is looked at, and what a request has left on an IPv6 socket. */
static __always_inline int odm_bind_legacy(const struct odm_call *call, struct odm_cgroup cgroup,
					   const struct odm_addr *addr)
{
	int verdict;

	odm_unmark(call);
	verdict = odm_legacy_source(call, cgroup, addr);
	if (!verdict || call->sk->family != AF_INET6 || odm_is_any(addr) || odm_is_exempt(addr) ||
	    odm_is_multicast(addr) ||
	    !odm_frees_bind(call->settings, odm_own_storage(call->sk), addr))
		return verdict;
	return odm_conclude(0, ODM_DECIDE(ODM_REFUSE, ODM_R_NOT_LOCAL, 0), ODM_MODE_ENFORCE,
			    ODM_H_BIND);
}

/* The whole of a bind; `*addr` is what the application gave, and what it gets. */
static __always_inline int odm_bind(struct bpf_sock_addr *ctx, __u8 family, struct odm_addr *addr)
{
	struct odm_call call = { .ctx = ctx, .sk = ctx->sk, .hook = ODM_H_BIND, .family = family };
	struct odm_cgroup cgroup;
	struct odm_decision d;

	call.settings = odm_settings_get();
	if (!call.settings || !call.sk) /* never: an array has its row, a bind its socket */
		return 1;
	cgroup = odm_class_of_caller(call.settings);
	if (!cgroup.class_id)
		return odm_bind_legacy(&call, cgroup, addr);
	if (!odm_begin(&call, cgroup)) {
		odm_unmark(&call);
		return 1; /* another namespace, or a class that is off */
	}
	if (odm_is_any(addr)) {
		if (call.sock)
			call.sock->flags &= ~ODM_SOCKET_BOUND;
		if (!call.asked) {          /* a default narrows no wildcard */
			if (ctx->user_port) /* a server: it answers from where it is asked */
				odm_unmark(&call);
			return 1;
		}
		d = odm_narrow(&call, addr);
	} else if (odm_is_exempt(addr) || odm_is_multicast(addr)) {
		odm_unmark(&call);
		return 1; /* types are not for these */
	} else {
		d = odm_check_bind(&call, addr);
	}
	d = odm_blur(odm_soften(d, call.class->mode), call.settings->zero);
	odm_blur_addr(addr, call.settings->zero);
	d = odm_note_bound(&call, addr, d);
	if (!odm_mark_shared(&call, addr, d))
		odm_unmark(&call);
	return odm_end(&call, d);
}

int odm_bind4(struct bpf_sock_addr *ctx)
{
	struct odm_addr addr = odm_addr4(ctx->user_ip4);
	int verdict = odm_bind(ctx, ODM_IPV4, &addr);

	if (verdict && addr.w[3] != ctx->user_ip4)
		ctx->user_ip4 = addr.w[3];
	return verdict;
}

int odm_bind6(struct bpf_sock_addr *ctx)
{
	struct odm_addr addr = ODM_ADDR6(ctx->user_ip6);
	bool mapped = odm_is_v4(&addr), any = odm_is_any(&addr);
	int verdict = odm_bind(ctx, mapped ? ODM_IPV4 : ODM_IPV6, &addr);

	if (verdict && any && !odm_is_any(&addr)) {
		ODM_SET_ADDR6(ctx->user_ip6, &addr);
	}
	return verdict;
}
