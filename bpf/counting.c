/* SPDX-License-Identifier: GPL-2.0-or-later */
/* When a tracked socket reserves its address, and when it is released (odm_reserve.h). */

/* After a bind that succeeded; here too a class at its cap is told so, and the bind is undone. */
static __always_inline int odm_post_bind(struct bpf_sock *sk, const struct odm_addr *addr)
{
	struct odm_call call = { .ctx = sk, .sk = sk, .hook = ODM_H_BIND };
	struct odm_socket *sock = odm_tracked(odm_own_storage(sk));
	struct odm_source source;

	if (!sock || odm_is_any(addr) || sock->flags & ODM_SOCKET_SUBFLOW)
		return 1; /* not counted, or with its connection */
	source = odm_source_of(addr);
	call.settings = odm_settings_get();
	if (!source.type || !call.settings)
		return 1; /* untyped: not counted */
	call.class_id = odm_class_of_asker(sock, call.settings->epoch);
	call.class = odm_class_row(call.class_id);
	call.asked = sock->type;
	if (!call.class || call.class->mode == ODM_MODE_OFF)
		return 1; /* off: as without us */
	source = odm_seen_by(call.class, source);
	if (!source.type)
		return 1; /* untyped to the class: not counted */
	return odm_end(&call, odm_reserve_for(&call, odm_cookie(sk), sock, addr, source.type,
					      ODM_HELD_BY_USER | ODM_HELD_BOUND));
}

int odm_post_bind4(struct bpf_sock *ctx)
{
	struct odm_addr addr = odm_addr4(ctx->src_ip4);

	return odm_post_bind(ctx, &addr);
}

int odm_post_bind6(struct bpf_sock *ctx)
{
	struct odm_addr addr = ODM_ADDR6(ctx->src_ip6);

	return odm_post_bind(ctx, &addr);
}

/* The notes of a TCP socket. A subflow gets its own, with what its MPTCP socket had asked for. */
static __always_inline struct odm_socket *odm_notes_of(struct bpf_sock *sk,
						       struct odm_socket *parent)
{
	struct odm_socket *sock = odm_own_storage(sk);

	if (sock || !odm_tracked(parent))
		return sock;
	sock = odm_sockets.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!sock) {
		odm_lost(ODM_LOST_SOCKET);
		return NULL;
	}
	sock->version = ODM_STORAGE_TAG;
	sock->type = parent->type;
	sock->flags = parent->flags | ODM_SOCKET_SUBFLOW;
	sock->class_id = parent->class_id;
	sock->cgroup = parent->cgroup;
	return sock;
}

/*
 * A connection is reserved for before, or was let in by the cap at ingress. Only listen() has no hook
 * before, and what a failed connect() has left on a socket may be what it listens on: beyond the cap such
 * a listener is not counted, and hears nothing (ingress).
 */
static __always_inline bool odm_is_capped(u32 op, u16 class_id)
{
	struct odm_class *class = odm_class_row(class_id);

	return op == BPF_SOCK_OPS_TCP_LISTEN_CB && class && class->mode == ODM_MODE_ENFORCE;
}

/* A connection or listener comes to be: its true source is known here, whoever chose it. */
static __always_inline void odm_opened(struct bpf_sock_ops *ctx, struct bpf_sock *sk, u32 op)
{
	struct odm_reservation before, now, kept = {};
	struct odm_socket *sock, *parent;
	struct odm_settings *settings;
	struct odm_source source;
	struct odm_addr addr;
	u64 cookie;

	parent = odm_parent_of(sk);
	sock = odm_notes_of(sk, parent);
	settings = odm_settings_get();
	if (!sock || !(sock->flags & ODM_SOCKET_TRACKED) || !settings)
		return;
	odm_local_of(sk, &addr);
	source = odm_source_of(&addr);
	cookie = odm_cookie(ctx);
	if (!source.type || (odm_is_shared(source) && !(sk->mark & settings->mark_mask)))
		return; /* untyped, as far as the socket has it */
	if (parent)     /* what bind or connect has reserved is the subflow's from now on */
		kept = odm_remove_holders(parent, odm_owner(ctx, sk), ODM_HELD | ODM_HELD_BOUND);
	before = odm_reservation_of(sock, cookie);
	now = (struct odm_reservation){
		.addr = addr,
		.class_id = odm_class_of_asker(sock, settings->epoch),
		.type = source.type,
		.holds = ODM_HELD_BY_KERNEL,
	};
	if (odm_is_counted(&before))
		now.class_id = before.class_id;
	else if (odm_is_counted(&kept))
		now.class_id = kept.class_id;
	if (odm_is_counted(&kept) || !odm_add_holder(sock, cookie, &now))
		odm_reserve(sock, cookie, &now, &kept,
			    odm_is_capped(op, now.class_id) ? ODM_RESERVE_ENFORCE : 0);
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
}

/* The kernel is done with it; what bind() gave stays until the socket is closed. */
static __always_inline void odm_closed(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	struct odm_socket *sock = odm_tracked(odm_own_storage(sk));
	u8 who = ODM_HELD_BY_KERNEL;

	if (!sock)
		return;
	if (!(sock->holds & ODM_HELD_BOUND))
		who |= ODM_HELD_BY_USER;
	odm_release_holders(sock, odm_cookie(ctx), who);
}

/*
 * A socket that was connected before it listens: what it answers and accepts is for no table of ours, unless it is
 * bound to a shared address, which answers by its own uplink.
 */
static __always_inline void odm_unmark_listener(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	struct odm_call call = { .ctx = ctx, .sk = sk, .settings = odm_settings_get() };
	struct odm_addr addr;

	if (!call.settings || !(sk->mark & call.settings->mark_mask))
		return;
	odm_local_of(sk, &addr);
	if (odm_is_any(&addr) || !odm_is_shared(odm_source_of(&addr)))
		odm_unmark(&call);
}

/* sock_ops: all but three events of a connection leave by the first test. */
int odm_sock_ops(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk;
	u32 op = ctx->op;

	if (op != BPF_SOCK_OPS_STATE_CB && op != BPF_SOCK_OPS_TCP_CONNECT_CB &&
	    op != BPF_SOCK_OPS_TCP_LISTEN_CB && op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return 1; /* an event that begins and ends nothing */
	sk = ctx->sk;
	if (!sk)
		return 1; /* no full socket: a request is counted when it is one */
	if (op == BPF_SOCK_OPS_TCP_LISTEN_CB)
		odm_unmark_listener(ctx, sk);
	if (op != BPF_SOCK_OPS_STATE_CB)
		odm_opened(ctx, sk, op);
	else if (ctx->args[1] == BPF_TCP_CLOSE)
		odm_closed(ctx, sk);
	return 1;
}

/* cgroup/sock_release: the last descriptor is closed. */
int odm_sock_release(struct bpf_sock *ctx)
{
	struct odm_socket *sock = odm_tracked(odm_own_storage(ctx));

	if (sock && sock->holds)
		odm_release_holders(sock, odm_owner_released(ctx),
				    ODM_HELD_BY_USER | ODM_HELD_BOUND);
	return 1;
}
