/* SPDX-License-Identifier: GPL-2.0-or-later */
/* sendto() and sendmsg() of UDP: each datagram of an unconnected socket leaves from its type. */

/* The kernel checks nothing of what is written here for IPv6. A pool has what is local, if only by a route. */
static __always_inline struct odm_decision odm_send_from_type(const struct odm_call *call,
							      struct odm_addr *source)
{
	struct odm_offer offer = odm_offer_for(call, true, false);

	if (!offer.prefix)
		return odm_without_address(call, ODM_R_NO_ADDRESS);
	*source = odm_offered(call, &offer, true);
	return ODM_DECIDE(ODM_ASSIGN, ODM_R_REWRITTEN, call->type);
}

static __always_inline struct odm_decision odm_decide_sendmsg(const struct odm_call *call,
							      struct odm_addr *source)
{
	struct odm_decision d;

	if (!odm_is_any(source))
		return odm_check_source(call->class, odm_source_of(source), call->asked);
	if (!call->type)
		return odm_untyped(call);
	d = odm_check_want(call);
	return d.verdict == ODM_REFUSE ? d : odm_send_from_type(call, source);
}

/* Is it left to the kernel from where the datagram is sent? */
static __always_inline bool odm_sends_alone(const struct odm_call *call,
					    const struct odm_addr *peer,
					    const struct odm_addr *source)
{
	if (odm_is_any(source) && (odm_wants_nothing(call) || odm_leaves_group(call, peer)))
		return true;
	return odm_leaves_alone(call->settings, peer);
}

/* Is the source the socket's own, and not one that a control message names? */
static __always_inline bool odm_is_bound_to(const struct bpf_sock *sk,
					    const struct odm_addr *source)
{
	struct odm_addr bound;

	odm_local_of(sk, &bound);
	return odm_same_addr(&bound, source);
}

static __always_inline int odm_sendmsg(struct odm_call *call, const struct odm_addr *peer,
				       struct odm_addr *source)
{
	const struct bpf_sock_addr *ctx = call->ctx;
	struct odm_decision d = ODM_LEAVE_ALONE, cap;
	struct odm_cgroup cgroup;
	bool may_answer;

	call->hook = ODM_H_SENDMSG;
	call->settings = odm_settings_get();
	if (!call->settings) /* never: an array has its row */
		return 1;
	odm_unmark(call);
	cgroup = odm_class_of_caller(call->settings);
	if (!cgroup.class_id && odm_is_any(source))
		return 1; /* of no class, and no source named: as without us */
	if (!cgroup.class_id)
		return odm_legacy_source(call, cgroup, source, odm_is_bound_to(call->sk, source));
	if (!odm_begin(call, cgroup))
		return 1; /* another namespace, or a class that is off */
	may_answer = odm_may_answer(call, source);
	if (may_answer)
		d = odm_answer(call, peer, ctx->user_port, source);
	if (d.silent) {
		if (odm_sends_alone(call, peer, source))
			return 1; /* nothing is wanted, or types are not for this peer */
		d = odm_decide_sendmsg(call, source);
		if (may_answer && d.verdict == ODM_ASSIGN)
			odm_begin_dialogue(call, peer, ctx->user_port, source);
	}
	if (d.verdict != ODM_REFUSE && d.type && !odm_is_any(source)) {
		cap = odm_reserve_source(call, source, d.type, ODM_HELD_BY_USER);
		if (cap.verdict == ODM_REFUSE)
			d = cap;
		else if (d.verdict == ODM_ASSIGN)
			odm_begin_lifetime(call->lifetime, source);
	}
	return odm_end(call, d);
}

int odm_sendmsg4(struct bpf_sock_addr *ctx)
{
	struct odm_addr peer = odm_addr4(ctx->user_ip4), source = odm_addr4(ctx->msg_src_ip4);
	struct odm_call call = { .ctx = ctx, .sk = ctx->sk, .family = ODM_IPV4 };
	int verdict;

	if (!call.sk) /* never: who sends has a socket */
		return 1;
	if (!peer.w[3]) /* connected: the peer is not named again */
		peer.w[3] = call.sk->dst_ip4;
	verdict = odm_sendmsg(&call, &peer, &source);
	if (verdict && source.w[3] != ctx->msg_src_ip4)
		ctx->msg_src_ip4 = source.w[3];
	return verdict;
}

int odm_sendmsg6(struct bpf_sock_addr *ctx)
{
	struct odm_addr peer = ODM_ADDR6(ctx->user_ip6), source = ODM_ADDR6(ctx->msg_src_ip6);
	struct odm_call call = { .ctx = ctx, .sk = ctx->sk };
	bool any = odm_is_any(&source);
	int verdict;

	if (!call.sk)
		return 1; /* never: a datagram has its socket */
	if (odm_is_any(&peer))
		peer = ODM_ADDR6(call.sk->dst_ip6);
	call.family = odm_is_v4(&peer) ? ODM_IPV4 : ODM_IPV6;
	verdict = odm_sendmsg(&call, &peer, &source);
	if (verdict && any && !odm_is_any(&source))
		ODM_SET_ADDR6(ctx->msg_src_ip6, &source);
	return verdict;
}
