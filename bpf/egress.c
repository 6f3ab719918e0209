/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The backstop: only here is the true source seen, whoever chose it. It can only drop. */

#define ODM_DROP_WITH_EPERM 0
#define ODM_DROP_AS_CONGESTED 2 /* NET_XMIT_DROP: no error to UDP, and TCP tries again soon */

/*
 * A marked packet whose table lost the source after a hook had chosen by it: nothing untyped leaves
 * instead. Audit lets it go where the class's default was lost, but not a type that was asked for. Groups are left
 * alone by a default (odm_leaves_group), but a mark from the socket's birth is on the first datagram.
 */
static __always_inline struct odm_decision odm_lost_source(struct __sk_buff *skb,
							   const struct odm_class *class,
							   const struct odm_addr *destination)
{
	struct bpf_sock *sk = skb->sk ? bpf_sk_fullsock(skb->sk) : NULL;
	struct odm_socket *sock = sk ? odm_socket_of(sk) : NULL;
	bool asked = sock && sock->type;

	if (!asked && odm_is_multicast(destination) && !(class->flags & ODM_CLASS_STRICT))
		return ODM_LEAVE_ALONE;
	return ODM_DECIDE(class->mode == ODM_MODE_AUDIT && !asked ? ODM_AUDIT : ODM_REFUSE,
			  ODM_R_NOT_LOCAL, 0);
}

/* Does it leave by an uplink, for where types are for? */
static __always_inline bool odm_leaves_host(struct __sk_buff *skb)
{
	struct odm_addr destination;
	u32 ifindex = skb->ifindex;

	if (!odm_uplinks.lookup(&ifindex) || !odm_packet_destination(skb, &destination))
		return false;
	return !odm_is_exempt_inline(&destination) && !odm_is_multicast(&destination);
}

/*
 * Is a typed source on its way out by an uplink that is not its own? Its tables never lead there, but
 * others' rules may, a socket's device, and the route of a raw socket that writes the header itself:
 * that one is chosen before the source is known. LAN, bridges and tunnels are nobody's uplink.
 */
static __always_inline bool odm_strays(struct __sk_buff *skb, struct odm_source source)
{
	u32 prefix_id = source.prefix_id;
	struct odm_prefix *prefix = odm_offers.lookup(&prefix_id);

	return prefix && prefix->ifindex && prefix->ifindex != skb->ifindex && odm_leaves_host(skb);
}

/*
 * Is no network known to which the source belongs, for the moment? Nothing leaves from it, whoever has it, and nobody
 * is told so.
 */
static __always_inline bool odm_waits(struct __sk_buff *skb, struct odm_source source)
{
	u32 prefix_id = source.prefix_id;
	struct odm_prefix *prefix = odm_offers.lookup(&prefix_id);

	return prefix && prefix->flags & ODM_PREFIX_WAITS && odm_leaves_host(skb);
}

/*
 * How a packet that waits is dropped. TCP tries to connect so many times only, and sooner after congestion; who
 * connects is not told of the error, either.
 */
static __always_inline int odm_drop_quietly(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk ? bpf_sk_fullsock(skb->sk) : NULL;

	return sk && sk->protocol == IPPROTO_TCP && sk->state == BPF_TCP_SYN_SENT
		       ? ODM_DROP_WITH_EPERM
		       : ODM_DROP_AS_CONGESTED;
}

/* Is the packet the first of a connection, or can't it be told? */
static __always_inline bool odm_is_syn(struct __sk_buff *skb)
{
	u32 offset = 0;
	__u8 flags;

	return odm_transport(skb, &offset) != IPPROTO_TCP ||
	       bpf_skb_load_bytes(skb, offset + 13, &flags, 1) ||
	       (flags & (ODM_TCP_SYN | ODM_TCP_ACK)) == ODM_TCP_SYN;
}

/*
 * Is the packet of a socket that had its source before its class ended? UDP sockets have a note or a mark, and bound
 * sockets a note; of TCP all is let go on but a new connection, since an accepted one has neither.
 */
static __always_inline bool odm_goes_on(struct __sk_buff *skb, struct odm_cgroup cgroup, __u8 type)
{
	struct bpf_sock *sk = skb->sk;
	struct odm_socket *sock;

	if (!odm_kept(cgroup, type) || !sk)
		return false;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return false;
	sock = odm_socket_of(sk);
	if (odm_is_given(sk, sock) || (sock && sock->flags & ODM_SOCKET_BOUND))
		return true;
	return sk->type == SOCK_STREAM && !odm_is_syn(skb);
}

/* Is it a DHCP client that renews the lease of its source? (odm_renews_lease) */
static __always_inline bool odm_is_renewal(struct __sk_buff *skb, struct odm_source source)
{
	u32 offset = 0;
	__be16 ports[2];

	return source.flags & ODM_SOURCE_MANAGED && odm_transport(skb, &offset) == IPPROTO_UDP &&
	       !bpf_skb_load_bytes(skb, offset, ports, sizeof(ports)) &&
	       ports[0] == bpf_htons(ODM_DHCP_CLIENT) && ports[1] == bpf_htons(ODM_DHCP_SERVER);
}

static __always_inline struct odm_decision
odm_decide_egress(struct __sk_buff *skb, const struct odm_class *class, struct odm_cgroup cgroup,
		  struct odm_source source, const struct odm_addr *destination, bool marked)
{
	if (!source.type) {
		if (marked)
			return odm_lost_source(skb, class, destination);
		if (class->flags & ODM_CLASS_STRICT)
			return ODM_DECIDE(ODM_REFUSE, ODM_R_STRICT, 0);
	} else if (!odm_may_have(class, cgroup.class_id, source) &&
		   !odm_goes_on(skb, cgroup, source.type)) {
		if (odm_is_renewal(skb, source))
			return ODM_LEAVE_ALONE;
		return ODM_DECIDE(ODM_REFUSE, odm_why_not_have(class, source), source.type);
	} else if (odm_strays(skb, source)) {
		return ODM_DECIDE(ODM_REFUSE, ODM_R_UPLINK, source.type);
	} else if (!odm_lease_valid(source.lease)) {
		return ODM_DECIDE(ODM_REFUSE, ODM_R_ENDED, source.type);
	}
	return ODM_LEAVE_ALONE;
}

/* A UDP socket whose source the kernel chose: only here is it known that it holds an address. */
static __always_inline struct odm_decision
odm_reserve_for_datagram(struct __sk_buff *skb, struct odm_class *class, u16 class_id,
			 const struct odm_addr *addr, u8 type)
{
	struct odm_call call = { .class = class, .class_id = class_id, .hook = ODM_H_EGRESS };
	struct bpf_sock *sk = skb->sk;

	sk = sk ? bpf_sk_fullsock(sk) : NULL;
	if (!sk || sk->protocol != IPPROTO_UDP)
		return ODM_LEAVE_ALONE;
	call.sock = odm_tracked(odm_own_storage(sk));
	if (!call.sock || call.sock->holds)
		return ODM_LEAVE_ALONE;
	return odm_reserve_for(&call, odm_cookie(skb), call.sock, addr, type, ODM_HELD_BY_USER);
}

/*
 * May this packet over `lo` have a source that the host holds, though the map lacks it? Somebody may
 * have added an address while no agent ran, and a program of no class goes on as without us where the
 * kernel has checked the source: IPv4 does when it sends, unless the socket is raw or asked not to be
 * checked. IPv6 does when the socket is bound, and a 32-bit system call that asks it not to runs no
 * hook: so only a connection passes, to which the typed address has agreed. A class that may not use
 * the type has no such benefit of the doubt.
 */
static __always_inline bool odm_may_be_held(struct __sk_buff *skb, u16 class_id)
{
	u16 unchecked = ODM_SOCKET_RAW | ODM_SOCKET_FREEBIND | ODM_SOCKET_NONLOCAL;
	struct bpf_sock *sk = skb->sk;
	struct odm_socket *sock;

	if (class_id || !sk)
		return false;
	sk = bpf_sk_fullsock(sk);
	if (!sk) /* a handshake that the kernel answers, from where a SYN has arrived */
		return true;
	if (skb->protocol == bpf_htons(ETH_P_IPV6) &&
	    (sk->protocol != IPPROTO_TCP || sk->state == BPF_TCP_SYN_SENT))
		return false;
	sock = odm_socket_of(sk);
	return !sock || !(sock->flags & unchecked);
}

/* Does the source of a packet to a typed address stay on this host, as the answer to it then does? */
static __always_inline bool odm_answer_stays(struct __sk_buff *skb,
					     const struct odm_settings *settings, u16 class_id,
					     const struct odm_addr *source)
{
	if (odm_is_v4(source) && skb->protocol == bpf_htons(ETH_P_IPV6))
		return false; /* a mapped address in an IPv6 header is nobody's */
	if (odm_is_loopback(source) || odm_is_held(settings, source))
		return true;
	return !odm_source_of_inline(source).type && odm_may_be_held(skb, class_id);
}

/*
 * A datagram to a group, over `lo` since IPv4 takes a source there for the wish to send there: it would be
 * lost without an error. Who has bound the socket to `lo` wants it so.
 */
static __always_inline bool odm_is_lost_group(struct __sk_buff *skb, u16 class_id)
{
	struct bpf_sock *sk = skb->sk;

	if (!class_id || !sk)
		return false;
	sk = bpf_sk_fullsock(sk);
	return sk && !sk->bound_dev_if;
}

/*
 * Over `lo`: to a typed address, from one that is not the host's. The kernel would answer it from the
 * typed address to whoever holds that source, by SYN cookies, resets, echo replies and errors that
 * quote the packet: that is sending from there.
 */
static __always_inline int odm_check_local(struct __sk_buff *skb)
{
	struct odm_settings *settings = odm_settings_get();
	struct odm_addr source, destination;
	struct odm_cgroup cgroup;
	struct odm_class *class;
	struct odm_decision d;
	struct odm_source typed;
	bool group;
	__u8 type;

	if (!settings || !odm_packet_ends(skb, &source, &destination) ||
	    odm_is_exempt_inline(&destination))
		return 1; /* to where types are not for */
	group = odm_is_v4(&destination) && odm_is_multicast(&destination);
	typed = odm_source_of_inline(group ? &source : &destination);
	type = typed.type;
	if (!type || odm_is_shared(typed))
		return 1; /* nothing typed is asked, nor sends to a group */
	cgroup = odm_class_of_packet(skb, settings);
	class = odm_class_row(cgroup.class_id);
	if (!class || class->mode == ODM_MODE_OFF || odm_is_outsider(skb))
		return 1; /* off: as without us; or not ours to judge */
	if (group) {
		if (!odm_is_lost_group(skb, cgroup.class_id))
			return 1; /* bound to `lo`: its user wants it so */
		d = ODM_DECIDE(ODM_REFUSE, ODM_R_UPLINK, type);
	} else {
		if (odm_may_have(class, cgroup.class_id, typed) ||
		    odm_answer_stays(skb, settings, cgroup.class_id, &source))
			return 1; /* the class may, or the answer stays here */
		d = ODM_DECIDE(ODM_REFUSE, odm_why_not_have(class, typed), type);
	}
	d = odm_soften(d, class->mode);
	odm_count(cgroup.class_id, d, ODM_H_EGRESS);
	return d.verdict != ODM_REFUSE;
}

/* Most of what crosses `lo` goes from an address to itself, as the kernel chooses, and nearly all else to untyped ones. */
static __always_inline int odm_egress_local(struct __sk_buff *skb)
{
	struct odm_addr destination;

	if (!odm_leads_elsewhere(skb, &destination))
		return 1; /* to itself, or neither IPv4 nor IPv6 */
	if (odm_is_in_untyped_block(&destination) && !odm_is_multicast(&destination))
		return 1; /* nothing typed is asked; of a group the source counts */
	return odm_check_local(skb);
}

/* Count what leaves from a typed address; false: it may not, since the address's hard budget is used up. */
static __always_inline bool odm_account(struct __sk_buff *skb, u16 class_id,
					const struct odm_addr *addr, struct odm_source source)
{
	u32 index = odm_usage_index(class_id, source.type), weight = odm_packet_weight(skb);
	struct odm_traffic *traffic;

	if (source.lease && !odm_lease_spend(source.lease, weight, class_id, source.type)) {
		odm_count(class_id, ODM_DECIDE(ODM_REFUSE, ODM_R_ENDED, source.type), ODM_H_EGRESS);
		return false;
	}
	odm_spend_lifetime(skb->sk, addr, weight);
	traffic = odm_traffic.lookup(&index);
	if (traffic) { /* atomic: softirq may interrupt on this CPU */
		__sync_fetch_and_add(&traffic->bytes, weight);
		__sync_fetch_and_add(&traffic->packets, 1);
	}
	return true;
}

/* cgroup_skb/egress: an untyped source costs one lookup. */
int odm_egress(struct __sk_buff *skb)
{
	struct odm_settings *settings;
	struct odm_addr addr, destination;
	struct odm_source source;
	struct odm_cgroup cgroup;
	struct odm_class *class;
	struct odm_decision d;
	bool marked;

	if (skb->ifindex == LOOPBACK_IFINDEX)
		return odm_egress_local(skb);
	if (!odm_packet_ends(skb, &addr, &destination))
		return 1; /* neither IPv4 nor IPv6: no type has it */
	settings = odm_settings_get();
	if (!settings)
		return 1; /* never: an array has its row */
	marked = skb->mark & settings->mark_mask;
	if (!marked && !settings->strict_classes && odm_is_in_untyped_block(&addr))
		return 1; /* as below, for less */
	source = odm_source_of_inline(&addr);
	if ((!source.type || odm_is_shared(source)) && !marked && !settings->strict_classes)
		return 1; /* untyped, and nobody minds */
	if (source.type && odm_waits(skb, source) && !odm_is_outsider(skb))
		return odm_drop_quietly(skb);
	cgroup = odm_class_of_packet(skb, settings);
	if (odm_is_shared(source)) {
		class = odm_class_row(cgroup.class_id);
		if (class)
			source = odm_seen_in(class, source, marked);
	}
	if (!source.type) {
		if (!cgroup.class_id || odm_is_exempt_inline(&addr) ||
		    odm_leaves_alone(settings, &destination))
			return 1; /* untyped to a class, or left alone */
	}
	class = odm_class_row(cgroup.class_id);
	if (!class || class->mode == ODM_MODE_OFF)
		return 1; /* off: as without us */
	d = odm_decide_egress(skb, class, cgroup, source, &destination, marked);
	if (d.silent && source.type && class->flags & ODM_CLASS_CAPPED)
		d = odm_reserve_for_datagram(skb, class, cgroup.class_id, &addr, source.type);
	if (!d.silent) {
		if (odm_is_outsider(skb))
			return 1; /* not ours to judge */
		d = odm_soften(d, class->mode);
		odm_count(cgroup.class_id, d, ODM_H_EGRESS);
		if (d.verdict == ODM_REFUSE)
			return 0;
	}
	if (!source.type || odm_is_exempt_inline(&destination))
		return 1; /* what is counted is what leaves the link from a typed address */
	return odm_account(skb, cgroup.class_id, &addr, source);
}
