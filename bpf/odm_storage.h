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

/*
 * The storage of a socket. That of an MPTCP socket hangs on the MPTCP socket, while hooks with
 * addresses, and those of packets, see its subflow.
 */
static __always_inline struct odm_socket *odm_socket_of(struct bpf_sock *sk)
{
	struct odm_socket *sock = odm_sockets.sk_storage_get(sk, 0, 0);
#ifdef ODM_WITH_MPTCP
	struct mptcp_sock *msk;

	if (!sock && sk->protocol == IPPROTO_TCP) {
		msk = bpf_skc_to_mptcp_sock(sk);
		if (msk)
			sock = odm_sockets.sk_storage_get(msk, 0, 0);
	}
#endif
	return sock;
}

#endif
