/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is kept with a socket, if anything is. */
#ifndef ODM_STORAGE_H
#define ODM_STORAGE_H

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
	struct odm_socket *sock = odm_sockets.sk_storage_get(sk, 0, 0), *parent;

	if (sock && !(sock->flags & ODM_SOCKET_SUBFLOW))
		return sock;
	parent = odm_parent_of(sk);
	return parent ? parent : sock;
}

#endif
