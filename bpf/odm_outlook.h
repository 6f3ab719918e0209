/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * With which address a socket can count, told by getsockopt: the one that it has, or what bind, connect or sendmsg
 * would choose for it now, by the same chooser. So who waits for an address needs the agent only while there is none.
 */
#ifndef ODM_OUTLOOK_H
#define ODM_OUTLOOK_H

/* Where IPv4 sockets take addresses in turn, the turn is taken now, and stays the socket's. */
static __always_inline bool odm_draws(const struct odm_call *call, const struct odm_offer *offer)
{
	return call->asked && call->family == ODM_IPV4 && offer->prefix->fresh[0] &&
	       !(call->sock->flags & ODM_SOCKET_DRAWN);
}

/* The address that the socket would be given now, in `addr`. */
static __always_inline enum odm_outlook_state odm_foresee(const struct odm_call *call,
							  struct odm_addr *addr)
{
	bool any_ip = odm_binds_any_ip(call);
	struct odm_wish wish = odm_wish_of(call, any_ip, true);
	struct odm_offer offer;
	u64 cookie;

	wish.drawn = true; /* no turn is taken yet */
	offer = odm_offer_of(&wish);
	if (offer.prefix && odm_draws(call, &offer)) {
		*addr = offer.slot->addr;
		call->sock->seed = odm_next_turn(odm_source_of(addr).prefix_id);
		call->sock->flags |= ODM_SOCKET_DRAWN;
		wish = odm_wish_of(call, any_ip, true);
		offer = odm_offer_of(&wish);
	}
	if (!offer.prefix)
		return ODM_OUTLOOK_NONE;
	if (!call->asked && call->family == ODM_IPV4 && offer.prefix->fresh[0])
		return ODM_OUTLOOK_UNTOLD; /* it takes its turn when it connects */
	*addr = offer.slot->addr;
	if (!odm_has_own(call, offer.prefix, any_ip))
		return ODM_OUTLOOK_OFFERED;
	cookie = odm_cookie_read(call->sk);
	if (!cookie)
		return ODM_OUTLOOK_UNTOLD;
	*addr = odm_own_address(&offer, odm_own_number(call, cookie));
	return ODM_OUTLOOK_OFFERED;
}

/* Will the address that the socket has be taken back, since it wants another one, with its next connect()? */
static __always_inline bool odm_gives_up(const struct odm_call *call)
{
	return !call->sk->src_port && odm_has_ended(call->lifetime) && call->lifetime->over;
}

/* All of it, behind the request; false: there is no room. */
static __always_inline bool odm_write_outlook(const struct bpf_sockopt *ctx,
					      const struct odm_call *call)
{
	struct odm_outlook *outlook = ctx->optval;
	enum odm_outlook_state state = ODM_OUTLOOK_HELD;
	struct odm_addr addr = {};

	if ((void *)(outlook + 1) > ctx->optval_end)
		return false;
	odm_local_of(call->sk, &addr);
	if (odm_is_any(&addr) || odm_gives_up(call))
		state = odm_may(call->class, call->type) ? odm_foresee(call, &addr)
							 : ODM_OUTLOOK_NONE;
	outlook->addr = state == ODM_OUTLOOK_NONE || state == ODM_OUTLOOK_UNTOLD
				? (struct odm_addr){}
				: addr;
	outlook->ticket = call->sock->ticket;
	outlook->state = state;
	outlook->pad = 0;
	return true;
}

#endif
