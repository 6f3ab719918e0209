/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who answers, answers from the address that was asked, or its clients take no notice. A UDP socket
 * that is bound to a wildcard can't know it, so ingress notes which address a peer has asked of a
 * port, and sendmsg and connect answer from there. The port is noted, not the socket: many servers
 * open a second socket on it to connect that to the peer. So that the answers which a client gets are not taken
 * for questions to the next socket that has its port, sendmsg notes where we have begun.
 */
#ifndef ODM_DIALOGUE_H
#define ODM_DIALOGUE_H

static __always_inline struct odm_dialogue_key odm_dialogue_key(const struct bpf_sock *sk,
								const struct odm_addr *peer,
								__be16 peer_port, u16 class_id)
{
	return (struct odm_dialogue_key){ .peer = *peer,
					  .peer_port = peer_port,
					  .port = sk->src_port,
					  .class_id = class_id,
					  .protocol = sk->protocol };
}

static __always_inline bool odm_same_dialogue(const struct odm_dialogue_key *a,
					      const struct odm_dialogue_key *b)
{
	return odm_same_addr(&a->peer, &b->peer) && a->peer_port == b->peer_port &&
	       a->port == b->port && a->class_id == b->class_id && a->protocol == b->protocol;
}

/* Does the note say so already, and is it in the younger half of its class's? */
static __always_inline bool odm_is_noted(const struct odm_dialogue *known,
					 const struct odm_addr *addr, u32 ours, u32 next, u32 share)
{
	return known && known->ours == ours && odm_same_addr(&known->addr, addr) &&
	       ((next - 1 - known->slot) & (share - 1)) < share / 2;
}

/*
 * Each class has its own slots, taken in turn, so it forgets its own oldest dialogue and no other
 * class's. A note that is used is renewed by half of the turns: what was noted is forgotten after half
 * of the class's share of other dialogues, not before. The row is written before the slot: so
 * whatever order two CPUs come in, each row is that of its slot, or is deleted by who takes the slot.
 */
static __always_inline void odm_note_dialogue(const struct odm_settings *settings,
					      struct odm_dialogue_key *key,
					      const struct odm_dialogue *known,
					      const struct odm_addr *addr, u32 ours)
{
	u32 class_id = key->class_id, share = settings->dialogue_share;
	struct odm_dialogue_turn *turn = odm_dialogue_turns.lookup(&class_id);
	struct odm_dialogue row = { .addr = *addr, .ours = ours };
	struct odm_dialogue_slot *slot;
	struct odm_dialogue_key before;

	if (!turn || odm_is_noted(known, addr, ours, turn->next, share))
		return;
	if (ours && known && known->ours)
		row.former = odm_same_addr(&known->addr, addr) ? known->former : known->addr;
	bpf_spin_lock(&turn->lock);
	row.slot = turn->next++;
	bpf_spin_unlock(&turn->lock);
	row.slot = (class_id - 1) * share + (row.slot & (share - 1));
	slot = odm_dialogue_slots.lookup(&row.slot);
	if (!slot || odm_dialogues.update(key, &row))
		return;
	bpf_spin_lock(&slot->lock);
	before = slot->key;
	slot->key = *key;
	bpf_spin_unlock(&slot->lock);
	if (odm_same_dialogue(&before, key))
		return;
	known = odm_dialogues.lookup(&before);
	if (known && known->slot == row.slot)
		odm_dialogues.delete(&before);
}

/*
 * A peer has sent a datagram to `asked`. What comes to an address from which we have begun is no question, but
 * an answer.
 */
static __always_inline void odm_hear(const struct odm_settings *settings,
				     struct odm_dialogue_key *key, const struct odm_addr *asked)
{
	struct odm_dialogue *known = odm_dialogues.lookup(key);

	if (known && known->ours &&
	    (odm_same_addr(&known->addr, asked) || odm_same_addr(&known->former, asked)))
		return;
	odm_note_dialogue(settings, key, known, asked, 0);
}

/* Might what this socket sends be an answer? Not without a port; nor if it asked for a type. */
static __always_inline bool odm_may_answer(const struct odm_call *call,
					   const struct odm_addr *source)
{
	const struct bpf_sock *sk = call->sk;

	return !call->asked && sk->src_port && odm_is_any(source) &&
	       (sk->protocol == IPPROTO_UDP || sk->protocol == IPPROTO_UDPLITE);
}

/* A question by broadcast is for the host's address on that link, which the kernel knows. */
static __always_inline struct odm_decision odm_answer_by_kernel(const struct odm_call *call)
{
	if (call->class->flags & ODM_CLASS_STRICT)
		return ODM_LEAVE_ALONE;
	return ODM_DECIDE(ODM_ACCEPT, ODM_R_ANSWERED, 0);
}

/*
 * From where to answer a peer, by what is known of the dialogue with it. ASSIGN: from `source`, which has the
 * decision's type. ACCEPT: from where the kernel will. ODM_LEAVE_ALONE: the peer has not begun, or not at an
 * address that holds still. One that the host has lost is none to answer from, and IPv6 would send from it all
 * the same.
 */
static __always_inline struct odm_decision
odm_answer(const struct odm_call *call, struct odm_dialogue *known, struct odm_addr *source)
{
	struct odm_addr *asked;
	struct odm_source *row;

	if (!known || known->ours)
		return ODM_LEAVE_ALONE;
	asked = &known->addr;
	if (odm_is_exempt(asked))
		return odm_answer_by_kernel(call);
	row = odm_own_row(call->settings, asked);
	if (!row)
		return ODM_LEAVE_ALONE;
	if (row->flags & ODM_SOURCE_BROADCAST)
		return odm_answer_by_kernel(call);
	if (odm_check_source(call->class, call->class_id, *row, 0).verdict == ODM_REFUSE)
		return ODM_LEAVE_ALONE;
	*source = *asked;
	return ODM_DECIDE(ODM_ASSIGN, ODM_R_ANSWERED, odm_seen_by(call->class, *row).type);
}

#endif
