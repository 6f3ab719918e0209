/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Was a socket given the source that it has? A connected UDP socket keeps what it was given, so its caller may go on
 * with it when its class has ended. What was given by a mark, the mark says, which none but us and the privileged can
 * set: nothing else has to be kept with the socket. There is a note for all else: for what bpf_bind gave, when the
 * mark is taken off, and where the user has set one.
 */
#ifndef ODM_EVIDENCE_H
#define ODM_EVIDENCE_H

/* Is it the mark of a prefix? Not of a shared one: sockets are born with those, and nothing of it stays. */
ODM_FUNCTION(9, int, odm_is_lasting_mark, u32);
int odm_is_lasting_mark_body(const u32 *mark)
{
	struct odm_settings *settings = odm_settings_get();
	struct odm_prefix *prefix;
	u32 mask, prefix_id;

	if (!mark || !settings)
		return 0;
	mask = settings->mark_mask;
	if (!(*mark & mask) || *mark & ~mask)
		return 0;
	prefix_id = *mark / (mask & -mask);
	prefix = odm_offers.lookup(&prefix_id);
	return prefix && prefix->mark == *mark && !(prefix->flags & ODM_PREFIX_SHARED);
}

/* Was a socket given its source, by whichever way? `sock`: its notes, if there are any. */
static __always_inline bool odm_is_given(const struct bpf_sock *sk, const struct odm_socket *sock)
{
	u32 mark = sk->mark;

	if (sock && sock->flags & (ODM_SOCKET_GIVEN | ODM_SOCKET_REMARKED))
		return sock->flags & ODM_SOCKET_GIVEN;
	return mark && sk->protocol == IPPROTO_UDP && odm_is_lasting_mark(&mark);
}

/*
 * Note that a UDP socket was given its source: with its other notes, if it has any, and else only if `unmarked` is not 0,
 * since a mark says so by itself. (Without a branch, which the verifier would follow for each kind of decision.)
 */
static __always_inline void odm_note_given(struct bpf_sock *sk, u8 unmarked)
{
	u64 create = (unmarked + 0xffu) >> 8 & BPF_SK_STORAGE_GET_F_CREATE;
	struct odm_socket *sock = odm_sockets.sk_storage_get(sk, 0, create);

	if (sock) {
		sock->version = ODM_STORAGE_TAG;
		sock->flags |= ODM_SOCKET_GIVEN;
	} else if (create) {
		odm_lost(ODM_LOST_SOCKET);
	}
}

/* The mark is about to go, and a note takes its place. */
static __always_inline void odm_note_for_mark(struct bpf_sock *sk)
{
	if (odm_is_given(sk, odm_own_storage(sk)))
		odm_note_given(sk, true);
}

#endif
