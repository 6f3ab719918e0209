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
	return ODM_POOL_SIZE(odm_pool_of(prefix)) == 1;
}

/* What a socket is to get, or has: decided first, then counted, then given. */
struct odm_gift {
	struct odm_addr addr;
	u32 mark;
};

/* By bpf_bind where nothing is lost by it, or where the socket has no port yet; else by a mark. */
static __always_inline struct odm_decision
odm_choose_gift(const struct bpf_sock *sk, const struct odm_settings *settings,
		const struct odm_want *want, const struct odm_prefix *prefix, struct odm_gift *gift)
{
	bool by_mark = (sk->src_port || odm_stays_free(sk, prefix)) &&
		       odm_may_mark(sk, settings, prefix->mark);
	struct odm_addr *addr;

	if (sk->src_port && !by_mark)
		return odm_without_address(want, ODM_R_FOREIGN_MARK);
	addr = by_mark ? odm_first(prefix) : odm_pick(prefix, odm_binds_any_ip(prefix, want->sock));
	if (!addr)
		return odm_without_address(want, ODM_R_NOT_LOCAL);
	gift->addr = *addr;
	gift->mark = prefix->mark;
	return ODM_DECIDE(ODM_ASSIGN, by_mark ? ODM_R_MARKED : ODM_R_BOUND, want->type);
}

/* A connected UDP socket keeps the source, whatever it is connected to next, and whatever its class. */
static __always_inline void odm_note_given(struct bpf_sock *sk)
{
	struct odm_socket *sock = odm_sockets.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);

	if (!sock) {
		odm_lost(ODM_LOST_SOCKET);
		return;
	}
	sock->version = ODM_STORAGE_TAG;
	sock->flags |= ODM_SOCKET_GIVEN;
}

static __always_inline struct odm_decision odm_give(struct bpf_sock_addr *ctx, struct bpf_sock *sk,
						    const struct odm_want *want,
						    const struct odm_gift *gift,
						    struct odm_decision d)
{
	if (d.reason == ODM_R_MARKED ? !odm_set_mark(ctx, sk, gift->mark)
				     : odm_bind_to(ctx, sk, &gift->addr))
		return odm_without_address(want, ODM_R_NOT_LOCAL);
	return d;
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
		   const struct odm_addr *destination, struct odm_gift *gift)
{
	struct odm_prefix *prefix = NULL;
	struct odm_want wanted = *want;
	struct odm_decision d;

	if (!odm_is_any(&gift->addr) && !odm_is_exempt(&gift->addr))
		return odm_check_source(want->class, odm_source_of(&gift->addr), want->asked);
	if (odm_may_answer(want, sk, &gift->addr)) {
		d = odm_answer_by_mark(ctx, sk, settings, destination, &wanted, &prefix);
		if (!d.silent)
			return d;
	}
	if (!prefix)
		prefix = odm_wanted_prefix(settings, want, family, sk->bound_dev_if, &d);
	return prefix ? odm_choose_gift(sk, settings, &wanted, prefix, gift) : d;
}

/*
 * Count, then give: a socket whose class is at its cap gets no address. One that gets none, or that has
 * chosen none, releases what an earlier connect() had reserved.
 */
static __always_inline struct odm_decision odm_serve(struct bpf_sock_addr *ctx, struct bpf_sock *sk,
						     const struct odm_want *want,
						     const struct odm_gift *gift,
						     struct odm_decision d)
{
	u8 holds = d.verdict == ODM_ASSIGN ? ODM_HELD_BY_USER : ODM_HELD_BY_USER | ODM_HELD_BOUND;
	struct odm_decision cap;

	if (d.verdict == ODM_ASSIGN || d.reason == ODM_R_ALLOWED) {
		cap = odm_reserve_source(ctx, sk, want, &gift->addr, d.type, holds, ODM_H_CONNECT);
		if (cap.verdict == ODM_REFUSE)
			return cap;
	} else if (d.verdict == ODM_ACCEPT && odm_is_any(&gift->addr)) {
		odm_release_source(ctx, sk, want);
	}
	return d.verdict == ODM_ASSIGN ? odm_give(ctx, sk, want, gift, d) : d;
}

/* A caller of no class: nothing that was given to the socket in a class may hold it up. */
static __always_inline int odm_connect_legacy(struct bpf_sock_addr *ctx, struct bpf_sock *sk,
					      const struct odm_settings *settings,
					      struct odm_cgroup cgroup, struct odm_addr *source)
{
	struct odm_class *class;

	odm_unmark(ctx, sk, settings);
	if (odm_may_be_given(sk, source) && bpf_get_netns_cookie(ctx) == settings->home_netns) {
		class = odm_class_row(0);
		if (class && class->mode == ODM_MODE_ENFORCE) /* else it may have bound it itself */
			odm_take_back(ctx, sk, odm_socket_of(sk), settings, source);
	}
	return odm_legacy_source(ctx, sk, settings, cgroup, source, true, ODM_H_CONNECT);
}

static __always_inline int odm_connect(struct bpf_sock_addr *ctx, struct bpf_sock *sk, __u8 family,
				       const struct odm_addr *destination, struct odm_addr *source)
{
	struct odm_decision d = ODM_LEAVE_ALONE;
	struct odm_settings *settings = odm_settings_get();
	struct odm_gift gift = {};
	struct odm_want want = {};
	struct odm_cgroup cgroup;

	if (!settings)
		return 1; /* never: an array has its row */
	cgroup = odm_class_of_caller(settings);
	if (!cgroup.class_id)
		return odm_connect_legacy(ctx, sk, settings, cgroup, source);
	if (!odm_want_of(ctx, sk, settings, cgroup, &want)) {
		odm_unmark(ctx, sk, settings);
		return 1; /* another namespace, or a class that is off */
	}
	if (odm_may_be_given(sk, source))
		odm_take_back(ctx, sk, want.sock, settings, source);
	gift.addr = *source;
	if (!(odm_wants_nothing(&want) && odm_is_any(source) &&
	      !odm_may_answer(&want, sk, source)) &&
	    !(odm_is_any(source) && odm_leaves_group(&want, sk, destination)) &&
	    !odm_leaves_alone(settings, destination))
		d = odm_decide_connect(ctx, sk, settings, &want, family, destination, &gift);
	odm_blur_addr(&gift.addr, settings->zero);
	d = odm_blur(odm_serve(ctx, sk, &want, &gift, d), settings->zero);
	if (d.verdict == ODM_ASSIGN && sk->protocol == IPPROTO_UDP)
		odm_note_given(sk);
	if (d.reason != ODM_R_MARKED) /* nor may one stay that the application has set */
		odm_unmark(ctx, sk, settings);
	return odm_conclude(want.class_id, d, want.class->mode, ODM_H_CONNECT);
}

int odm_connect4(struct bpf_sock_addr *ctx)
{
	struct odm_addr destination = odm_addr4(ctx->user_ip4), source;
	struct bpf_sock *sk = ctx->sk;

	if (!sk)
		return 1; /* never: a connect has its socket */
	source = odm_addr4(sk->src_ip4);
	return odm_connect(ctx, sk, ODM_IPV4, &destination, &source);
}

int odm_connect6(struct bpf_sock_addr *ctx)
{
	struct odm_addr destination = ODM_ADDR6(ctx->user_ip6);
	struct bpf_sock *sk = ctx->sk;
	struct odm_addr source;

	if (!sk)
		return 1; /* never: a connect has its socket */
	source = ODM_ADDR6(sk->src_ip6);
	return odm_connect(ctx, sk, odm_is_v4(&destination) ? ODM_IPV4 : ODM_IPV6, &destination,
			   &source);
}
