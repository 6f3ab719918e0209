/* SPDX-License-Identifier: GPL-2.0-or-later */
/* connect(): a typed socket without an address gets one; a bound one must hold one it may use. */

/*
 * Must the socket stay unbound? A bound IPv6 socket can't go on to IPv4, and resolvers connect one UDP
 * socket to many destinations in turn, loopback among them. Only TCP over IPv4 is bound, since that is the
 * faster way there, and can be taken back (odm_given.h). But a mark selects one address only.
 */
static __always_inline bool odm_stays_free(const struct bpf_sock *sk,
					   const struct odm_prefix *prefix)
{
	if (sk->family == AF_INET6 && sk->protocol != IPPROTO_TCP)
		return true;
	if (sk->family == AF_INET && sk->protocol == IPPROTO_TCP)
		return false;
	return odm_current(prefix) == 1;
}

/* What a socket is to get, or has: decided first, then counted, then given. */
struct odm_gift {
	struct odm_addr addr;
	u32 mark;
};

/* The slot that the mark selects, if the socket may be served by the mark. */
static __always_inline struct odm_slot *odm_marked_slot(const struct odm_call *call,
							const struct odm_offer *offer)
{
	struct odm_prefix *prefix = offer->prefix;
	bool free = !call->sk->src_port && !(prefix->flags & ODM_PREFIX_SHARED);
	struct odm_slot *slot;

	if (free && (odm_has_own(call, prefix, odm_binds_any_ip(call)) || odm_asks_new(call) ||
		     !odm_stays_free(call->sk, prefix)))
		return NULL;
	slot = odm_may_mark(call, prefix->mark) ? odm_first(prefix) : NULL;
	if (slot && odm_has_ended(call->lifetime) &&
	    odm_same_addr(&slot->addr, &call->lifetime->addr))
		return NULL; /* the socket has had it for as long as it asked */
	if (slot && offer->index != ODM_POOL_FIRST(odm_pool_of(prefix)) &&
	    !odm_lease_open(slot->lease))
		return NULL; /* over, and the agent has not yet led the mark elsewhere */
	return slot;
}

/* By bpf_bind where nothing is lost by it, or where the socket has no port yet; else by a mark. */
static __always_inline struct odm_decision
odm_choose_gift(const struct odm_call *call, const struct odm_offer *offer, struct odm_gift *gift)
{
	struct odm_slot *marked = odm_marked_slot(call, offer);

	if ((call->sk->src_port || offer->prefix->flags & ODM_PREFIX_SHARED) && !marked)
		return odm_without_address(call, odm_may_mark(call, offer->prefix->mark)
							 ? ODM_R_NO_ADDRESS
							 : ODM_R_FOREIGN_MARK);
	gift->addr = marked ? marked->addr : odm_offered(call, offer, odm_binds_any_ip(call));
	gift->mark = offer->prefix->mark;
	return ODM_DECIDE(ODM_ASSIGN, marked ? ODM_R_MARKED : ODM_R_BOUND, call->type);
}

static __always_inline struct odm_decision
odm_give(const struct odm_call *call, const struct odm_gift *gift, struct odm_decision d)
{
	if (d.reason == ODM_R_MARKED ? odm_set_mark(call, gift->mark)
				     : !odm_bind_to(call, &gift->addr))
		return d;
	return odm_without_address(call, ODM_R_NOT_LOCAL);
}

/*
 * A UDP server connects to the peer that it answers: the prefix and type of the address asked, in
 * `offer` and `answer`. No hook can bind its socket any more, so the prefix's mark gives the source,
 * its first address. An untyped one can't be chosen at all: that is left to the kernel (ACCEPT).
 */
static __always_inline struct odm_decision
odm_answer_by_mark(struct odm_call *answer, const struct odm_addr *peer, struct odm_offer *offer)
{
	const struct bpf_sock_addr *ctx = answer->ctx;
	struct odm_dialogue_key key =
		odm_dialogue_key(answer->sk, peer, ctx->user_port, answer->class_id);
	struct odm_addr asked = {};
	struct odm_decision d = odm_answer(answer, odm_dialogues.lookup(&key), &asked);
	u32 prefix_id;

	if (d.verdict != ODM_ASSIGN)
		return d;
	if (!d.type)
		return ODM_DECIDE(ODM_ACCEPT, ODM_R_ANSWERED, 0);
	prefix_id = odm_source_of(&asked).prefix_id;
	offer->prefix = odm_offers.lookup(&prefix_id);
	if (!offer->prefix)
		return ODM_LEAVE_ALONE;
	offer->slot = odm_first(offer->prefix);
	offer->index = ODM_POOL_FIRST(odm_pool_of(offer->prefix));
	if (offer->slot && odm_lease_valid(offer->slot->lease))
		answer->type = d.type;
	else
		offer->prefix = NULL;
	return ODM_LEAVE_ALONE;
}

/* What there is of the type that the socket wants; without a prefix, `d` says what follows. */
static __always_inline struct odm_offer odm_wanted(const struct odm_call *call,
						   struct odm_decision *d)
{
	struct odm_offer offer = {};

	*d = call->type ? odm_check_want(call) : odm_untyped(call);
	if (!call->type || d->verdict == ODM_REFUSE)
		return offer;
	offer = odm_offer_for(call, odm_binds_any_ip(call), true);
	if (!offer.prefix)
		*d = odm_without_address(call, ODM_R_NO_ADDRESS);
	return offer;
}

static __always_inline struct odm_decision odm_decide_connect(const struct odm_call *call,
							      const struct odm_addr *destination,
							      struct odm_gift *gift)
{
	struct odm_call wanted = *call;
	struct odm_offer offer = {};
	struct odm_decision d;

	if (!odm_is_any(&gift->addr) && !odm_is_exempt(&gift->addr))
		return odm_check_source(call->class, call->class_id, odm_source_of(&gift->addr),
					call->asked);
	if (odm_may_answer(call, &gift->addr)) {
		d = odm_answer_by_mark(&wanted, destination, &offer);
		if (!d.silent)
			return d;
	}
	if (!offer.prefix)
		offer = odm_wanted(call, &d);
	return offer.prefix ? odm_choose_gift(&wanted, &offer, gift) : d;
}

/*
 * Count, then give: a socket whose class is at its cap gets no address. One that gets none, or that has
 * chosen none, releases what an earlier connect() had reserved.
 */
static __always_inline struct odm_decision
odm_serve(const struct odm_call *call, const struct odm_gift *gift, struct odm_decision d)
{
	u8 holders = d.verdict == ODM_ASSIGN ? ODM_HELD_BY_USER : ODM_HELD_BY_USER | ODM_HELD_BOUND;
	struct odm_decision cap;

	if (d.verdict == ODM_ASSIGN || d.reason == ODM_R_ALLOWED) {
		cap = odm_reserve_source(call, &gift->addr, d.type, holders);
		if (cap.verdict == ODM_REFUSE)
			return cap;
	} else if (d.verdict == ODM_ACCEPT && odm_is_any(&gift->addr)) {
		odm_release_source(call);
	}
	if (d.verdict != ODM_ASSIGN)
		return d;
	d = odm_give(call, gift, d);
	if (d.verdict == ODM_ASSIGN)
		odm_begin_lifetime(call->lifetime, &gift->addr);
	return d;
}

/* A caller of no class: nothing that was given to the socket in a class may hold it up. */
static __always_inline int odm_connect_legacy(const struct odm_call *call, struct odm_cgroup cgroup,
					      struct odm_addr *source)
{
	struct odm_class *class;

	odm_unmark(call);
	if (odm_is_any(source))
		return 1; /* nearly all of them */
	if (odm_may_be_given(call->sk, source) && odm_is_home(call)) {
		class = odm_class_row(0);
		if (class && class->mode == ODM_MODE_ENFORCE) /* else it may have bound it itself */
			odm_take_back(call, odm_socket_of(call->sk), source);
	}
	return odm_legacy_source(call, cgroup, source);
}

static __always_inline int odm_connect(struct odm_call *call, const struct odm_addr *destination,
				       struct odm_addr *source)
{
	struct odm_decision d = ODM_LEAVE_ALONE;
	struct odm_gift gift = {};
	struct odm_cgroup cgroup;

	call->hook = ODM_H_CONNECT;
	call->settings = odm_settings_get();
	if (!call->settings) /* never: an array has its row */
		return 1;
	cgroup = odm_class_of_caller(call->settings);
	if (!cgroup.class_id)
		return odm_connect_legacy(call, cgroup, source);
	if (!odm_begin(call, cgroup)) {
		odm_unmark(call);
		return 1; /* another namespace, or a class that is off */
	}
	if (odm_may_be_given(call->sk, source))
		odm_take_back(call, call->sock, source);
	gift.addr = *source;
	/* Not a function of its own: its answer, as a number, would double what is verified. */
	if (!(odm_wants_nothing(call) && odm_is_any(source) && !odm_may_answer(call, source)) &&
	    !(odm_is_any(source) && odm_leaves_group(call, destination)) &&
	    !odm_leaves_alone(call->settings, destination))
		d = odm_decide_connect(call, destination, &gift);
	d = odm_serve(call, &gift, d);
	if (d.verdict == ODM_ASSIGN && call->sk->protocol == IPPROTO_UDP)
		odm_note_given(call->sk, d.reason ^ ODM_R_MARKED);
	if (d.reason != ODM_R_MARKED && !odm_mark_shared(call, &gift.addr, d))
		odm_unmark(call); /* nor may one stay that the application has set */
	return odm_end(call, d);
}

int odm_connect4(struct bpf_sock_addr *ctx)
{
	struct odm_call call = { .ctx = ctx, .sk = ctx->sk, .family = ODM_IPV4 };
	struct odm_addr destination = odm_addr4(ctx->user_ip4), source;

	if (!call.sk) /* never: a connect has its socket */
		return 1;
	source = odm_addr4(call.sk->src_ip4);
	return odm_connect(&call, &destination, &source);
}

int odm_connect6(struct bpf_sock_addr *ctx)
{
	struct odm_call call = { .ctx = ctx, .sk = ctx->sk };
	struct odm_addr destination = ODM_ADDR6(ctx->user_ip6), source;

	if (!call.sk)
		return 1; /* never: a connect has its socket */
	source = ODM_ADDR6(call.sk->src_ip6);
	call.family = odm_is_v4(&destination) ? ODM_IPV4 : ODM_IPV6;
	return odm_connect(&call, &destination, &source);
}
