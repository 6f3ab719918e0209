/* SPDX-License-Identifier: GPL-2.0-or-later */
/* sendto() and sendmsg() of UDP: each datagram of an unconnected socket leaves from its type. */

/* The kernel checks nothing of what is written here for IPv6: only addresses that exist. */
static __always_inline struct odm_decision odm_send_from_type(const struct odm_want *want,
							      struct bpf_sock *sk, __u8 family,
							      struct odm_addr *source)
{
	struct odm_prefix *prefix = odm_choose_prefix(want->type, family, sk->bound_dev_if);
	struct odm_addr *picked;

	if (!prefix)
		return odm_without_address(want, ODM_R_NO_ADDRESS);
	picked = odm_pick(prefix, want->asked);
	if (!picked)
		return odm_without_address(want, ODM_R_NO_ADDRESS);
	*source = *picked;
	return ODM_DECIDE(ODM_ASSIGN, ODM_R_REWRITTEN, want->type);
}

static __always_inline struct odm_decision odm_decide_sendmsg(struct bpf_sock_addr *ctx,
							      struct bpf_sock *sk,
							      const struct odm_settings *settings,
							      const struct odm_want *want,
							      __u8 family, struct odm_addr *source)
{
	struct odm_decision d;

	if (!odm_is_any(source))
		return odm_check_source(want->class, odm_source_of(source), want->asked);
	if (!want->type)
		return odm_connect_untyped(want);
	d = odm_check_want(settings, want, ODM_H_SENDMSG);
	if (d.verdict == ODM_REFUSE)
		return d;
	return odm_send_from_type(want, sk, family, source);
}

/* Is the source the socket's own, and not one that a control message names? */
static __always_inline bool odm_is_bound_to(const struct bpf_sock *sk,
					    const struct odm_addr *source)
{
	struct odm_addr bound;

	odm_local_of(sk, &bound);
	return odm_same_addr(&bound, source);
}

static __always_inline int odm_sendmsg(struct bpf_sock_addr *ctx, struct bpf_sock *sk, __u8 family,
				       const struct odm_addr *peer, struct odm_addr *source)
{
	struct odm_settings *settings = odm_settings_get();
	struct odm_want want = {};
	struct odm_decision d = ODM_LEAVE_ALONE, cap;
	struct odm_cgroup cgroup;

	if (!settings)
		return 1; /* never: an array has its row */
	odm_unmark(ctx, sk, settings);
	cgroup = odm_class_of_caller(settings);
	if (!cgroup.class_id && odm_is_any(source))
		return 1; /* of no class, and no source named: as without us */
	if (!cgroup.class_id)
		return odm_legacy_source(ctx, sk, settings, cgroup, source,
					 odm_is_bound_to(sk, source), ODM_H_SENDMSG);
	if (!odm_want_of(ctx, sk, settings, cgroup, &want))
		return 1; /* another namespace, or a class that is off */
	if (odm_may_answer(&want, sk, source))
		d = odm_answer(settings, &want, sk, peer, ctx->user_port, source);
	if (d.silent) {
		if ((odm_wants_nothing(&want) && odm_is_any(source)) ||
		    (odm_is_any(source) && odm_leaves_group(&want, sk, peer)) ||
		    odm_leaves_alone(settings, peer))
			return 1; /* nothing is wanted, or types are not for this peer */
		d = odm_decide_sendmsg(ctx, sk, settings, &want, family, source);
	}
	if (d.verdict != ODM_REFUSE && d.type && !odm_is_any(source)) {
		cap = odm_reserve_source(ctx, sk, &want, source, d.type, ODM_HELD_BY_USER,
					 ODM_H_SENDMSG);
		if (cap.verdict == ODM_REFUSE)
			d = cap;
	}
	return odm_conclude(want.class_id, d, want.class->mode, ODM_H_SENDMSG);
}

int odm_sendmsg4(struct bpf_sock_addr *ctx)
{
	struct odm_addr peer = odm_addr4(ctx->user_ip4), source = odm_addr4(ctx->msg_src_ip4);
	struct bpf_sock *sk = ctx->sk;
	int verdict;

	if (!sk)
		return 1; /* never: a datagram has its socket */
	if (!peer.w[3])   /* connected: the peer is not named again */
		peer.w[3] = sk->dst_ip4;
	verdict = odm_sendmsg(ctx, sk, ODM_IPV4, &peer, &source);
	if (verdict && source.w[3] != ctx->msg_src_ip4)
		ctx->msg_src_ip4 = source.w[3];
	return verdict;
}

int odm_sendmsg6(struct bpf_sock_addr *ctx)
{
	struct odm_addr peer = ODM_ADDR6(ctx->user_ip6);
	struct odm_addr source = ODM_ADDR6(ctx->msg_src_ip6);
	struct bpf_sock *sk = ctx->sk;
	bool any = odm_is_any(&source);
	int verdict;

	if (!sk)
		return 1; /* never: a datagram has its socket */
	if (odm_is_any(&peer)) {
		peer = ODM_ADDR6(sk->dst_ip6);
	}
	verdict = odm_sendmsg(ctx, sk, odm_is_v4(&peer) ? ODM_IPV4 : ODM_IPV6, &peer, &source);
	if (verdict && any && !odm_is_any(&source)) {
		ODM_SET_ADDR6(ctx->msg_src_ip6, &source);
	}
	return verdict;
}
