/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who answers, answers from the address that was asked, or its clients take no notice. A UDP socket
 * that is bound to a wildcard can't know it, so ingress notes which address a peer has asked of a
 * port, and sendmsg and connect answer from there. The port is noted, not the socket: many servers
 * open a second socket on it to connect that to the peer.
 */
#ifndef ODM_ASKED_H
#define ODM_ASKED_H

static __always_inline struct odm_asked_key odm_asked_key(const struct bpf_sock *sk,
							  const struct odm_addr *peer,
							  __be16 peer_port, u16 class_id)
{
	return (struct odm_asked_key){ .peer = *peer,
				       .peer_port = peer_port,
				       .port = sk->src_port,
				       .class_id = class_id,
				       .protocol = sk->protocol };
}

static __always_inline void odm_note_asked(struct odm_asked_key *key, struct odm_addr *asked)
{
	struct odm_addr *known = odm_asked.lookup(key);

	if (!known || !odm_same_addr(known, asked))
		odm_asked.update(key, asked);
}

/* Might what this socket sends be an answer? Not without a port; nor if it asked for a type. */
static __always_inline bool odm_may_answer(const struct odm_want *want, const struct bpf_sock *sk,
					   const struct odm_addr *source)
{
	return !want->asked && sk->src_port && odm_is_any(source) &&
	       (sk->protocol == IPPROTO_UDP || sk->protocol == IPPROTO_UDPLITE);
}

/* A question by broadcast is for the host's address on that link, which the kernel knows. */
static __always_inline struct odm_decision odm_answer_by_kernel(const struct odm_want *want)
{
	if (want->class->flags & ODM_CLASS_STRICT)
		return ODM_LEAVE_ALONE;
	return ODM_DECIDE(ODM_ACCEPT, ODM_R_ANSWERED, 0);
}

/*
 * From where to answer `peer`. ASSIGN: from `source`, which has the decision's type. ACCEPT: from where
 * the kernel will. ODM_LEAVE_ALONE: nobody has asked, or not at an address that holds still. One that
 * the host has lost is none to answer from, and IPv6 would send from it all the same.
 */
static __always_inline struct odm_decision odm_answer(const struct odm_settings *settings,
						      const struct odm_want *want,
						      const struct bpf_sock *sk,
						      const struct odm_addr *peer, __be16 peer_port,
						      struct odm_addr *source)
{
	struct odm_asked_key key = odm_asked_key(sk, peer, peer_port, want->class_id);
	struct odm_addr *asked = odm_asked.lookup(&key);
	struct odm_source *row;

	if (!asked)
		return ODM_LEAVE_ALONE;
	if (odm_is_exempt(asked))
		return odm_answer_by_kernel(want);
	row = odm_own_row(settings, asked);
	if (!row)
		return ODM_LEAVE_ALONE;
	if (row->flags & ODM_SOURCE_BROADCAST)
		return odm_answer_by_kernel(want);
	if (odm_check_source(want->class, *row, 0).verdict == ODM_REFUSE)
		return ODM_LEAVE_ALONE;
	*source = *asked;
	return ODM_DECIDE(ODM_ASSIGN, ODM_R_ANSWERED, row->type);
}

#endif
