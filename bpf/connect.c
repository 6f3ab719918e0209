/* SPDX-License-Identifier: GPL-2.0-or-later */
/* connect(): a typed socket without an address gets one; a bound one must hold one it may use. */

/* Take our bits off again: what follows is not for the table of the prefix chosen before. */
static __always_inline void odm_unmark(struct bpf_sock_addr *ctx, const struct bpf_sock *sk,
				       const struct odm_settings *settings)
{
	u32 mark = sk->mark;

	if (!(mark & settings->mark_mask) || (mark & ~settings->mark_mask))
		return;
	mark = 0;
	bpf_setsockopt(ctx, SOL_SOCKET, SO_MARK, &mark, sizeof(mark));
}

/* The prefix's routing table chooses the source. Somebody else's mark is never touched. */
static __always_inline bool odm_may_mark(const struct bpf_sock *sk,
					 const struct odm_settings *settings, u32 wanted)
{
	return wanted && !(sk->mark & ~settings->mark_mask);
}

static __always_inline bool odm_set_mark(struct bpf_sock_addr *ctx, const struct bpf_sock *sk,
					 u32 wanted)
{
	if (sk->mark == wanted)
		return true;
	return !bpf_setsockopt(ctx, SOL_SOCKET, SO_MARK, &wanted, sizeof(wanted));
}

/* Port 0: none is reserved, the kernel picks one as for any unbound socket. */
static __always_inline int odm_bind_to(struct bpf_sock_addr *ctx, const struct bpf_sock *sk,
				       const struct odm_addr *addr)
{
	struct sockaddr_in6 sa6 = { .sin6_family = AF_INET6 };
	struct sockaddr_in sa4 = { .sin_family = AF_INET };

	if (sk->family == AF_INET) {
		sa4.sin_addr = addr->w[3];
		return bpf_bind(ctx, (struct sockaddr *)&sa4, sizeof(sa4));
	}
	sa6.sin6_addr[0] = addr->w[0];
	sa6.sin6_addr[1] = addr->w[1];
	sa6.sin6_addr[2] = addr->w[2];
	sa6.sin6_addr[3] = addr->w[3];
	return bpf_bind(ctx, (struct sockaddr *)&sa6, sizeof(sa6));
}

/*
 * Give a source: bpf_bind where nothing is lost by it, else a mark. A socket with a port can't be
 * bound again; a UDP socket over IPv6 must stay free, since resolvers connect one socket to
 * destinations of both families in turn.
 */
static __always_inline struct odm_decision
odm_assign(struct bpf_sock_addr *ctx, struct bpf_sock *sk, const struct odm_settings *settings,
	   const struct odm_want *want, const struct odm_prefix *prefix)
{
	bool has_port = sk->src_port,
	     keep_free = sk->family == AF_INET6 && sk->protocol != IPPROTO_TCP,
	     by_mark = (has_port || keep_free) && odm_may_mark(sk, settings, prefix->mark);
	struct odm_decision place;
	struct odm_addr *addr;

	if (has_port && !by_mark)
		return odm_without_address(want, ODM_R_FOREIGN_MARK);
	addr = by_mark ? odm_first(prefix) : odm_pick(prefix, odm_binds_any_ip(prefix, want->sock));
	if (!addr)
		return odm_without_address(want, ODM_R_NOT_LOCAL);
	place = odm_take_place(ctx, sk, want, addr, want->type, ODM_HELD_BY_USER, ODM_H_CONNECT);
	if (place.verdict == ODM_REFUSE)
		return place;
	if (by_mark ? odm_set_mark(ctx, sk, prefix->mark) : !odm_bind_to(ctx, sk, addr))
		return ODM_DECIDE(ODM_ASSIGN, by_mark ? ODM_R_MARKED : ODM_R_BOUND, want->type);
	odm_leave_place(ctx, want);
	return odm_without_address(want, ODM_R_NOT_LOCAL);
}

/* A socket of a class with neither request nor default: as stock, unless the class is strict. */
static __always_inline struct odm_decision odm_connect_untyped(const struct odm_want *want)
{
	if (want->class->flags & ODM_CLASS_STRICT)
		return ODM_DECIDE(ODM_REFUSE, ODM_R_STRICT, 0);
	return ODM_LEAVE_ALONE;
}

/*
 * A UDP server connects to the peer that it answers: the prefix and type of the address asked, in
 * `prefix` and `answer`. No hook can bind its socket any more, so the prefix's mark gives the source,
 * its first address. An untyped one can't be chosen at all: that is left to the kernel (ACCEPT).
 */
static __always_inline struct odm_decision
odm_answer_by_mark(struct bpf_sock_addr *ctx, struct bpf_sock *sk,
		   const struct odm_settings *settings, const struct odm_addr *peer,
		   struct odm_want *answer, struct odm_prefix **prefix)
{
	struct odm_addr asked = {};
	struct odm_decision d = odm_answer(settings, answer, sk, peer, ctx->user_port, &asked);
	u32 prefix_id;

	if (d.verdict != ODM_ASSIGN)
		return d;
	if (!d.type)
		return ODM_DECIDE(ODM_ACCEPT, ODM_R_ANSWERED, 0);
	prefix_id = odm_source_of(&asked).prefix_id;
	*prefix = odm_prefixes.lookup(&prefix_id);
	if (*prefix)
		answer->type = d.type;
	return ODM_LEAVE_ALONE;
}

/* The prefix of the type that the socket wants; `d` says why there is none, and what follows then. */
static __always_inline struct odm_prefix *odm_wanted_prefix(const struct odm_settings *settings,
							    const struct odm_want *want,
							    __u8 family, u32 ifindex,
							    struct odm_decision *d)
{
	struct odm_prefix *prefix;

	*d = want->type ? odm_check_want(settings, want, ODM_H_CONNECT) : odm_connect_untyped(want);
	if (!want->type || d->verdict == ODM_REFUSE)
		return NULL;
	prefix = odm_choose_prefix(want->type, family, ifindex);
	if (!prefix)
		*d = odm_without_address(want, ODM_R_NO_ADDRESS);
	return prefix;
}

static __always_inline struct odm_decision
odm_decide_connect(struct bpf_sock_addr *ctx, struct bpf_sock *sk,
		   const struct odm_settings *settings, const struct odm_want *want, __u8 family,
		   const struct odm_addr *destination, const struct odm_addr *source)
{
	struct odm_prefix *prefix = NULL;
	struct odm_want wanted = *want;
	struct odm_decision d, place;

	if (!odm_is_any(source) && !odm_is_exempt(source)) {
		d = odm_check_source(want->class, odm_source_of(source), want->asked);
		if (d.verdict == ODM_REFUSE || !d.type)
			return d;
		place = odm_take_place(ctx, sk, want, source, d.type,
				       ODM_HELD_BY_USER | ODM_HELD_BOUND, ODM_H_CONNECT);
		return place.verdict == ODM_REFUSE ? place : d;
	}
	if (odm_may_answer(want, sk, source)) {
		d = odm_answer_by_mark(ctx, sk, settings, destination, &wanted, &prefix);
		if (!d.silent)
			return d;
	}
	if (!prefix)
		prefix = odm_wanted_prefix(settings, want, family, sk->bound_dev_if, &d);
	return prefix ? odm_assign(ctx, sk, settings, &wanted, prefix) : d;
}

static __always_inline int odm_connect(struct bpf_sock_addr *ctx, struct bpf_sock *sk, __u8 family,
				       const struct odm_addr *destination,
				       const struct odm_addr *source)
{
	struct odm_settings *settings = odm_settings_get();
	struct odm_want want = {};
	struct odm_cgroup cgroup;
	struct odm_decision d;

	if (!settings)
		return 1;
	cgroup = odm_class_of_caller(settings);
	if (!cgroup.class_id)
		return odm_legacy_source(ctx, settings, source, ODM_H_CONNECT);
	if (!odm_want_of(ctx, sk, settings, cgroup, &want))
		return 1;
	if ((odm_wants_nothing(&want) && odm_is_any(source) &&
	     !odm_may_answer(&want, sk, source)) ||
	    odm_leaves_alone(settings, destination)) {
		odm_unmark(ctx, sk, settings);
		if (odm_is_any(source))
			odm_leave_place(ctx, &want);
		return 1;
	}
	d = odm_decide_connect(ctx, sk, settings, &want, family, destination, source);
	if (d.reason != ODM_R_MARKED) /* nor may one stay that the application has set */
		odm_unmark(ctx, sk, settings);
	if (d.verdict == ODM_ACCEPT && odm_is_any(source))
		odm_leave_place(ctx, &want); /* that an earlier connect had taken */
	return odm_conclude(want.class_id, d, want.class->mode, ODM_H_CONNECT);
}

int odm_connect4(struct bpf_sock_addr *ctx)
{
	struct odm_addr destination = odm_addr4(ctx->user_ip4), source;
	struct bpf_sock *sk = ctx->sk;

	if (!sk)
		return 1;
	source = odm_addr4(sk->src_ip4);
	return odm_connect(ctx, sk, ODM_IPV4, &destination, &source);
}

int odm_connect6(struct bpf_sock_addr *ctx)
{
	struct odm_addr destination = { .w = { ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2],
					       ctx->user_ip6[3] } };
	struct bpf_sock *sk = ctx->sk;
	struct odm_addr source;

	if (!sk)
		return 1;
	source.w[0] = sk->src_ip6[0];
	source.w[1] = sk->src_ip6[1];
	source.w[2] = sk->src_ip6[2];
	source.w[3] = sk->src_ip6[3];
	return odm_connect(ctx, sk, odm_is_v4(&destination) ? ODM_IPV4 : ODM_IPV6, &destination,
			   &source);
}
