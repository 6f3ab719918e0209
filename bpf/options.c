/* SPDX-License-Identifier: GPL-2.0-or-later */
/* IPV6_ADDR_PREFERENCES with its on-demand field: an application asks for a type, and reads it back. */

/* Does the stock kernel know the option on this socket? */
static __always_inline bool odm_kernel_has_option(const struct bpf_sock *sk)
{
	return sk->family == AF_INET6 && sk->protocol != IPPROTO_MPTCP;
}

/*
 * Is the type acted upon? UDP-Lite's connect() runs no hook, raw and ping sockets run none at all: for
 * those the option is the kernel's alone, and reading it back says that nobody took the type.
 */
static __always_inline bool odm_serves(const struct bpf_sock *sk)
{
	if (sk->type == SOCK_DGRAM)
		return sk->protocol == IPPROTO_UDP;
#ifdef ODM_WITH_MPTCP
	if (sk->protocol == IPPROTO_MPTCP)
		return sk->type == SOCK_STREAM;
#endif
	return sk->type == SOCK_STREAM && sk->protocol == IPPROTO_TCP;
}

/*
 * The kernel answers as it would without us: it drops the bits of the type, or has no such option at
 * all. We hold a cut copy of a value that is longer than a page: the kernel uses the original.
 */
static __always_inline int odm_leave_to_kernel(struct bpf_sockopt *ctx)
{
	if (ctx->optlen > 4096)
		ctx->optlen = 0;
	return 1;
}

/*
 * What is left for the kernel of an accepted set. Only the type: nothing, since a kernel before
 * 6.7 takes 0 as "no change", a later one as "reset". Where the type has an any-IP pool, the
 * request becomes FREEBIND, without which connect could not bind to unconfigured addresses.
 */
static __always_inline void odm_pass_flags(struct bpf_sockopt *ctx, struct bpf_sock *sk, u32 value,
					   struct odm_socket *sock, const struct odm_offer *offer)
{
	u32 *optval = ctx->optval, flags = value & ODM_FLAGS_MASK;

	if (sk->family != AF_INET6 || (void *)(optval + 1) > ctx->optval_end) {
		ctx->optlen = -1;
		return;
	}
	if (flags && odm_kernel_has_option(sk)) {
		*optval = flags;
		return;
	}
	if (!odm_needs_freebind(sk, sock, offer)) {
		ctx->optlen = -1;
		return;
	}
	sock->flags |= ODM_SOCKET_FREEBIND;
	*optval = 1;
	ctx->optname = IPV6_FREEBIND;
}

/* 0 clears the type; the kernel clears its flags, where it has them. */
static __always_inline int odm_clear_type(struct bpf_sockopt *ctx, struct bpf_sock *sk)
{
	struct odm_socket *sock = odm_sockets.sk_storage_get(sk, 0, 0);
	struct odm_settings *settings = odm_settings_get();
	u32 mark = sk->mark;

	if (sock && sock->type) {
		if (settings && odm_is_lasting_mark(&mark) &&
		    bpf_get_netns_cookie(ctx) == settings->home_netns)
			odm_lead(sk, settings, 0);
		sock->type = 0;
		sock->flags &= ~(ODM_SOCKET_ON_NET | ODM_SOCKET_FRESH);
		odm_drop_lifetime(sk, sock);
		if (!odm_kernel_has_option(sk)) {
			ctx->optlen = -1;
			return 1;
		}
	}
	return odm_leave_to_kernel(ctx);
}

/* What is accepted stays so, unless there is a reason why it exceeds what the class may have. */
static __always_inline struct odm_decision odm_within(const struct odm_call *call,
						      struct odm_decision d, u8 reason)
{
	struct odm_decision cap = odm_exceeds(call, reason, d.type);

	return cap.verdict == ODM_REFUSE ? cap : d;
}

static __always_inline int odm_set_type(struct bpf_sockopt *ctx, struct bpf_sock *sk, u32 value)
{
	struct odm_call call = { .ctx = ctx, .sk = sk, .hook = ODM_H_SETSOCKOPT };
	struct odm_socket_lifetime wanted = {};
	struct odm_socket *sock = NULL;
	struct odm_offer offer;
	struct odm_decision d;

	call.settings = odm_settings_get();
	if (!call.settings || !odm_is_home(&call))
		return odm_leave_to_kernel(ctx); /* of another namespace */
	call.class_id = odm_class_of_caller(call.settings).class_id;
	call.class = odm_class_row(call.class_id);
	if (!call.class || call.class->mode == ODM_MODE_OFF)
		return odm_leave_to_kernel(ctx); /* off: as without us */
	d = odm_check_request(call.class, value);
	if (d.verdict == ODM_ACCEPT && !odm_read_lifetime(ctx, d.type, &wanted))
		d = ODM_DECIDE(ODM_REFUSE, ODM_R_BAD_FIELD, d.type);
	if (d.verdict == ODM_ACCEPT)
		d = odm_within(&call, d, odm_limit_lifetime(&wanted, call.class_id, d.type));
	if (d.verdict == ODM_ACCEPT && call.class->flags & ODM_CLASS_CAPPED)
		d = odm_within(&call, d, odm_usage_add(call.class_id, d.type, ODM_RESERVE_REQUEST));
	if (d.verdict == ODM_ACCEPT) {
		sock = odm_store_request(sk, value, call.class_id, &wanted);
		if (!sock)
			d = ODM_DECIDE(ODM_REFUSE, ODM_R_NO_STORAGE, d.type);
	}
	if (!odm_end(&call, d))
		return 0;
	if (!sock) /* in audit: nobody heard it, and reading back says so */
		return odm_leave_to_kernel(ctx);
	odm_lead(sk, call.settings, odm_mark_for(&call, sock));
	offer = odm_offer_to(sk, sock, call.class_id);
	odm_pass_flags(ctx, sk, value, sock, &offer);
	return 1;
}

/* Options by which frames would leave where no program sees them; for classes that closed that. */
static __always_inline int odm_check_frames(struct bpf_sockopt *ctx, u8 closed)
{
	struct odm_settings *settings = odm_settings_get();
	struct odm_decision d = ODM_DECIDE(ODM_REFUSE, ODM_R_CLOSED, 0);
	struct odm_cgroup cgroup;
	struct odm_class *class;

	if (!settings || bpf_get_netns_cookie(ctx) != settings->home_netns)
		return 1; /* of another namespace */
	cgroup = odm_class_of_caller(settings);
	class = odm_class_row(cgroup.class_id);
	if (!class || class->mode == ODM_MODE_OFF || !(class->refuse & closed))
		return 1; /* open to this class */
	return odm_conclude(cgroup.class_id, d, class->mode, ODM_H_SETSOCKOPT);
}

/* Options that let a socket be bound to addresses which are not the host's. */
static __always_inline bool odm_binds_nonlocal(int level, int option)
{
	if (level == IPPROTO_IPV6)
		return option == IPV6_FREEBIND || option == IPV6_TRANSPARENT;
	return level == IPPROTO_IP && (option == IP_FREEBIND || option == IP_TRANSPARENT);
}

/* Egress could not tell it: whether a socket's source was checked when it was bound. */
static __always_inline void odm_note_nonlocal(struct bpf_sockopt *ctx, struct bpf_sock *sk)
{
	struct odm_settings *settings = odm_settings_get();
	struct odm_socket *sock;

	if (!settings || bpf_get_netns_cookie(ctx) != settings->home_netns)
		return;
	sock = odm_own_storage(sk);
	if (!sock)
		sock = odm_new_socket(sk, odm_class_of_caller(settings).class_id, 0);
	if (sock)
		sock->flags |= ODM_SOCKET_NONLOCAL;
	else
		odm_lost(ODM_LOST_SOCKET);
}

/*
 * Who sets the mark of a UDP socket to one of ours could say by it that the source was given. From then on its mark
 * says nothing, but a note does.
 */
static __always_inline void odm_note_mark(struct bpf_sockopt *ctx, struct bpf_sock *sk)
{
	struct odm_settings *settings = odm_settings_get();
	u32 *optval = ctx->optval;
	u16 flags = ODM_SOCKET_REMARKED;
	struct odm_socket *sock;

	if (!settings || sk->protocol != IPPROTO_UDP || (void *)(optval + 1) > ctx->optval_end)
		return;
	if (!((*optval | sk->mark) & settings->mark_mask) ||
	    bpf_get_netns_cookie(ctx) != settings->home_netns)
		return; /* none of ours before nor after */
	sock = odm_own_storage(sk);
	if (odm_is_given(sk, sock))
		flags |= ODM_SOCKET_GIVEN;
	if (!sock)
		sock = odm_new_socket(sk, odm_class_of_caller(settings).class_id, 0);
	if (sock)
		sock->flags |= flags;
	else
		odm_lost(ODM_LOST_SOCKET);
}

/* cgroup/setsockopt: runs for every option of every socket, so it leaves by the first test. */
int odm_setsockopt(struct bpf_sockopt *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	u32 *optval = ctx->optval, value;

	if (ctx->level != IPPROTO_IPV6 || ctx->optname != IPV6_ADDR_PREFERENCES) {
		if (ctx->optlen > 4096) /* we hold a cut copy: let the kernel use the original */
			ctx->optlen = 0;
		if (ctx->level == SOL_XDP)
			return odm_check_frames(ctx, ODM_REFUSE_XDP);
		if (ctx->level == SOL_PACKET && ctx->optname == PACKET_QDISC_BYPASS)
			return odm_check_frames(ctx, ODM_REFUSE_PACKET);
		if (sk && ctx->level == SOL_SOCKET && ctx->optname == SO_MARK)
			odm_note_mark(ctx, sk);
		else if (sk && odm_binds_nonlocal(ctx->level, ctx->optname))
			odm_note_nonlocal(ctx, sk);
		return 1; /* another option: as without us */
	}
	if (!sk || ctx->optlen < 4 || (void *)(optval + 1) > ctx->optval_end || !odm_serves(sk))
		return odm_leave_to_kernel(ctx);
	value = *optval;
	if (value & (ODM_FIELD_MASK | ODM_BITS_MASK))
		return odm_set_type(ctx, sk, value);
	return value ? odm_leave_to_kernel(ctx) : odm_clear_type(ctx, sk);
}

/* Is the type of a socket acted upon when this caller uses it? Not where its class is off, or none. */
static __always_inline bool odm_holds_for_caller(struct odm_call *call, struct odm_cgroup *cgroup)
{
	call->settings = odm_settings_get();
	if (!call->settings)
		return false;
	*cgroup = odm_class_of_caller(call->settings);
	call->class_id = cgroup->class_id;
	call->class = odm_class_row(call->class_id);
	return call->class_id && call->class && call->class->mode != ODM_MODE_OFF;
}

/* Has the reader room for just so many bytes? */
static __always_inline bool odm_reads(const struct bpf_sockopt *ctx, u32 size)
{
	return ctx->optval + size <= ctx->optval_end && ctx->optval + size + 1 > ctx->optval_end;
}

/* What is told beside the type, to who reads just that; how many bytes the answer has. */
static __always_inline u32 odm_answer_in_full(const struct bpf_sockopt *ctx, struct odm_call *call)
{
	if (odm_reads(ctx, sizeof(struct odm_request)))
		return odm_write_lifetime(ctx, call->sk, call->sock) ? sizeof(struct odm_request)
								     : 4;
	if (!odm_reads(ctx, sizeof(struct odm_outlook)) ||
	    !odm_write_lifetime(ctx, call->sk, call->sock))
		return 4;
	call->family = call->sk->family == AF_INET ? ODM_IPV4 : ODM_IPV6;
	call->asked = call->sock->type;
	call->type = call->asked;
	if (call->sock->flags & ODM_SOCKET_ENDING)
		call->lifetime = odm_lifetimes.sk_storage_get(call->sk, 0, 0);
	return odm_write_outlook(ctx, call) ? sizeof(struct odm_outlook) : 4;
}

/* What becomes of the socket's address, whether or not it has asked for a type; how many bytes that is. */
static __always_inline u32 odm_answer_notice(const struct bpf_sockopt *ctx, struct odm_call *call,
					     struct odm_cgroup cgroup)
{
	if (call->sock)
		call->asked = call->sock->type;
	call->type = call->asked ? call->asked : odm_default_of(call->class, cgroup);
	if (call->asked && call->sock->flags & ODM_SOCKET_ENDING)
		call->lifetime = odm_lifetimes.sk_storage_get(call->sk, 0, 0);
	return odm_write_notice(ctx, call) ? sizeof(struct odm_notice) : 4;
}

/* cgroup/getsockopt: adds the type to what the kernel says, or answers where the kernel has none. */
int odm_getsockopt(struct bpf_sockopt *ctx)
{
	struct odm_call call = { .ctx = ctx, .sk = ctx->sk };
	u32 *optval = ctx->optval, flags = 0;
	struct odm_cgroup cgroup = {};
	bool notice;

	if (ctx->level != IPPROTO_IPV6 || ctx->optname != IPV6_ADDR_PREFERENCES) {
		if (ctx->optlen > 4096)
			ctx->optlen = 0;
		return 1; /* another option: as without us */
	}
	if (!call.sk || (void *)(optval + 1) > ctx->optval_end)
		return 1; /* no room for a type: as without us */
	notice = odm_reads(ctx, sizeof(struct odm_notice)) && odm_serves(call.sk);
	call.sock = odm_sockets.sk_storage_get(call.sk, 0, 0);
	if (!(call.sock && call.sock->type) && !notice)
		return 1; /* no type holds: as without us */
	if (!odm_holds_for_caller(&call, &cgroup) || (notice && !odm_is_home(&call)))
		return 1; /* the same, for this caller */
	if (odm_kernel_has_option(call.sk))
		flags = *optval & ODM_FLAGS_MASK;
	else
		ctx->retval = 0;
	if (call.sock && call.sock->type)
		flags |= (u32)call.sock->type << ODM_FIELD_SHIFT | odm_bits_of(call.sock);
	*optval = flags;
	ctx->optlen =
		notice ? odm_answer_notice(ctx, &call, cgroup) : odm_answer_in_full(ctx, &call);
	return 1;
}
