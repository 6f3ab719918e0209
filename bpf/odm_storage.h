/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is kept with a socket, if anything is. Tracked are sockets that asked for a type themselves, and
 * those of classes with caps; all others are counted nowhere and pay nothing.
 */
#ifndef ODM_STORAGE_H
#define ODM_STORAGE_H

/* BCC declares the helper with 32 bits. */
static __always_inline u64 odm_cookie(void *ctx)
{
	u64 (*cookie64)(void *) = (void *)BPF_FUNC_get_socket_cookie;

	return cookie64(ctx);
}

static __always_inline struct odm_socket *odm_own_storage(struct bpf_sock *sk)
{
	return odm_sockets.sk_storage_get(sk, 0, 0);
}

/* Storage for the socket of the calling task; NULL: there is no memory for it. */
static __always_inline struct odm_socket *odm_new_socket(struct bpf_sock *sk, u16 class_id,
							 u16 flags)
{
	struct odm_socket *sock = odm_sockets.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);

	if (!sock)
		return NULL;
	sock->version = ODM_STORAGE_TAG;
	sock->flags |= flags;
	sock->class_id = class_id;
	sock->cgroup = bpf_get_current_cgroup_id();
	return sock;
}

#ifdef ODM_WITH_MPTCP
#define ODM_MPTCP_SOCKET(sk)                                                                       \
	((sk)->protocol == IPPROTO_TCP ? bpf_skc_to_mptcp_sock(sk) : (struct mptcp_sock *)NULL)
#else
#define ODM_MPTCP_SOCKET(sk) ((struct bpf_sock *)NULL)
#endif

/*
 * The cookie of a socket that the hook is not about, or for which it has no helper; 0: it was never asked for
 * (SO_COOKIE), or it can't be told.
 */
static __always_inline u64 odm_cookie_read(void *sk)
{
#ifdef ODM_SOCK_COOKIE
	void *pointer = sk;
	u64 address = 0, cookie = 0;

	/* The verifier lets nobody count from a socket's address while it knows it for one. */
	bpf_probe_read_kernel(&address, sizeof(address), &pointer);
	bpf_probe_read_kernel(&cookie, sizeof(cookie), (void *)(address + ODM_SOCK_COOKIE));
	return cookie;
#else
	return 0;
#endif
}

/*
 * The cookie by which a socket has an address of its own. Hooks see the subflow of an MPTCP socket, which is not there
 * before it connects: what was told before is by the MPTCP socket's own cookie, which was read then.
 */
static __always_inline u64 odm_cookie_of(void *ctx, struct bpf_sock *sk)
{
	void *msk = ODM_MPTCP_SOCKET(sk);
	u64 cookie = msk ? odm_cookie_read(msk) : 0;

	return cookie ? cookie : odm_cookie(ctx);
}

/* Storage for a socket that has done without; of a subflow, for its MPTCP socket. */
static __always_inline struct odm_socket *odm_keep(struct bpf_sock *sk, u16 class_id, u16 flags)
{
	void *msk = ODM_MPTCP_SOCKET(sk);

	return msk ? odm_new_socket(msk, class_id, flags) : odm_new_socket(sk, class_id, flags);
}

/* The storage of the MPTCP socket that `sk` is a subflow of; NULL: it is none, or there is none. */
static __always_inline struct odm_socket *odm_parent_of(struct bpf_sock *sk)
{
	void *msk = ODM_MPTCP_SOCKET(sk);

	return msk ? odm_sockets.sk_storage_get(msk, 0, 0) : NULL;
}

/*
 * The storage of a socket. That of an MPTCP socket hangs on the MPTCP socket, while hooks with
 * addresses, and those of packets, see its subflow, which has notes of its own once it connects or
 * listens. A subflow that fell back to plain TCP has nothing else.
 */
static __always_inline struct odm_socket *odm_socket_of(struct bpf_sock *sk)
{
	struct odm_socket *sock = odm_own_storage(sk), *parent;

	if (sock && !(sock->flags & ODM_SOCKET_SUBFLOW))
		return sock;
	parent = odm_parent_of(sk);
	return parent ? parent : sock;
}

static __always_inline struct odm_socket *odm_tracked(struct odm_socket *sock)
{
	return sock && sock->flags & ODM_SOCKET_TRACKED ? sock : NULL;
}

/*
 * Whose reservation the hooks of a process change. A subflow is not its user's, since it is never
 * released: what a process reserves for one is noted with the MPTCP socket, until the subflow connects
 * or listens. No hook that sees the subflow can ask for the cookie of the MPTCP socket, and
 * `sock_release` can, but does not see the subflow; so that the notes of a listener are not taken for
 * those of an accepted socket, an MPTCP socket is told by where it is in memory, which `sock_release`
 * knows too.
 */
static __always_inline u64 odm_owner(void *ctx, struct bpf_sock *sk)
{
	void *msk = ODM_MPTCP_SOCKET(sk);

	return msk ? (u64)msk : odm_cookie(ctx);
}

/* As `sock_release` sees it, whose context is the socket. */
static __always_inline u64 odm_owner_released(struct bpf_sock *ctx)
{
	return ctx->protocol == IPPROTO_MPTCP ? (u64)ctx : odm_cookie(ctx);
}

#endif
