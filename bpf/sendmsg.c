/* SPDX-License-Identifier: GPL-2.0-or-later */
/* sendto() and sendmsg() of UDP: each datagram of an unconnected socket leaves from its type. */

/*
 * Does this datagram leave by the uplink of a prefix with shared addresses? The kernel has read the mark before the
 * hook runs, so one that is put on now leads the next one (`led`). Sockets are given it before they send: at their
 * birth, by their request for a type, or by their bind.
 */
static __always_inline bool odm_is_led(const struct odm_call *call, const struct odm_prefix *prefix,
				       bool *led)
{
	u32 mark = prefix->mark;

	if (call->sk->mark == mark)
		return true;
	*led = odm_may_mark(call, mark) && odm_set_mark(call, mark);
	return false;
}

/* The kernel checks nothing of what is written here for IPv6. A pool has what is local, if only by a route. */
static __always_inline struct odm_decision odm_send_from_type(const struct odm_call *call,
							      struct odm_addr *source, bool *led)
{
	struct odm_offer offer = odm_offer_for(call, true, false);

	if (!offer.prefix)
		return odm_without_address(call, ODM_R_NO_ADDRESS);
	if (offer.prefix->flags & ODM_PREFIX_SHARED && !odm_is_led(call, offer.prefix, led))
		return odm_without_address(call, ODM_R_NOT_LOCAL);
	*source = odm_offered(call, &offer, true);
	return ODM_DECIDE(ODM_ASSIGN, ODM_R_REWRITTEN, call->type);
}

static __always_inline struct odm_decision odm_decide_sendmsg(const struct odm_call *call,
							      struct odm_addr *source, bool *led)
{
	struct odm_decision d;

	if (!odm_is_any(source))
		return odm_check_source(call->class, call->class_id, odm_source_of(source),
					call->asked);
	if (!call->type)
		return odm_untyped(call);
	d = odm_check_want(call);
	return d.verdict == ODM_REFUSE ? d : odm_send_from_type(call, source, led);
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

/* A caller of no class: nearly all of them name no source, or an untyped one. */
static __always_inline int odm_send_legacy(const struct odm_call *call, struct odm_cgroup cgroup,
					   const struct odm_addr *source)
{
	odm_unmark(call);
	if (odm_is_any(source) || odm_is_in_untyped_block(source) ||
	    !odm_source_of_inline(source).type)
		return 1;
	return odm_legacy_source(call, cgroup, source);
}

/*
 * The mark for what the socket sends next, to whomever. An answer is no reason to put one on: the next one may be
 * from another address.
 */
static __always_inline void odm_keep_led(const struct odm_call *call, const struct odm_addr *source,
					 struct odm_decision d, bool led)
{
	if (led)
		return;
	if (d.reason == ODM_R_ANSWERED ? call->sk->mark && call->sk->mark == odm_mark_of(source, d)
				       : odm_mark_shared(call, source, d))
		return;
	odm_unmark(call);
}

static __always_inline int odm_sendmsg(struct odm_call *call, const struct odm_addr *peer,
				       struct odm_addr *source)
{
	const struct bpf_sock_addr *ctx = call->ctx;
	struct odm_decision d = ODM_LEAVE_ALONE, cap;
	struct odm_dialogue *known = NULL;
	struct odm_dialogue_key key = {};
	struct odm_cgroup cgroup;
	bool may_answer, led = false;

	call->hook = ODM_H_SENDMSG;
	call->settings = odm_settings_get();
	if (!call->settings) /* never: an array has its row */
		return 1;
	cgroup = odm_class_of_caller(call->settings);
	if (!cgroup.class_id)
		return odm_send_legacy(call, cgroup, source);
	if (!odm_begin(call, cgroup)) {
		odm_unmark(call);
		return 1; /* another namespace, or a class that is off */
	}
	may_answer = odm_may_answer(call, source);
	if (may_answer) {
		key = odm_dialogue_key(call->sk, peer, ctx->user_port, call->class_id);
		known = odm_dialogues.lookup(&key);
		d = odm_answer(call, known, source);
	}
	if (d.silent) {
		if (odm_sends_alone(call, peer, source)) {
			odm_unmark(call);
			return 1; /* nothing is wanted, or types are not for this peer */
		}
		d = odm_blur(odm_decide_sendmsg(call, source, &led), call->settings->zero);
		if (may_answer && d.verdict == ODM_ASSIGN)
			odm_note_dialogue(call->settings, &key, known, source, 1);
	}
	d = odm_blur(d, call->settings->zero);
	if (d.verdict != ODM_REFUSE && d.type && !odm_is_any(source)) {
		cap = odm_reserve_source(call, source, d.type, ODM_HELD_BY_USER);
		if (cap.verdict == ODM_REFUSE)
			d = cap;
		else if (d.verdict == ODM_ASSIGN)
			odm_begin_lifetime(call->lifetime, source);
	}
	odm_keep_led(call, source, d, led);
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
