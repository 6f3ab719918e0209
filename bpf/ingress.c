/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What arrives decides about listeners: a SYN for a typed address that the listener's class may not
 * have is dropped, since an answer by SYN cookie passes no later hook. And the address that a UDP
 * peer asked is noted, so that a wildcard server can answer from it.
 */

static __always_inline struct odm_decision odm_decide_syn(const struct odm_class *class,
							  struct odm_cgroup cgroup,
							  struct odm_source destination)
{
	if (!destination.type) {
		if (class->flags & ODM_CLASS_STRICT)
			return ODM_DECIDE(ODM_REFUSE, ODM_R_STRICT, 0);
	} else if (!odm_may_have(class, cgroup.class_id, destination) &&
		   !odm_kept(cgroup, destination.type)) {
		return ODM_DECIDE(ODM_REFUSE, odm_why_not_have(class, destination),
				  destination.type);
	} else if (!odm_lease_valid(destination.lease)) {
		return ODM_DECIDE(ODM_REFUSE, ODM_R_ENDED, destination.type);
	} else if (class->flags & ODM_CLASS_CAPPED &&
		   odm_at_cap(cgroup.class_id, destination.type)) {
		return ODM_DECIDE(ODM_REFUSE, ODM_R_CAP_SOCKETS, destination.type);
	}
	return ODM_LEAVE_ALONE;
}

static __always_inline int odm_ingress_syn(struct __sk_buff *skb, const struct bpf_sock *sk,
					   const struct odm_settings *settings)
{
	bool marked = sk->mark & settings->mark_mask;
	struct odm_addr destination;
	struct odm_source source;
	struct odm_cgroup cgroup;
	struct odm_class *class;
	struct odm_decision d;

	if (!odm_packet_destination(skb, &destination))
		return 1; /* neither IPv4 nor IPv6: no type has it */
	source = odm_source_of_inline(&destination);
	if ((!source.type || (odm_is_shared(source) && !marked)) &&
	    (!settings->strict_classes || odm_is_exempt_inline(&destination)))
		return 1; /* untyped, and nobody minds */
	cgroup = odm_class_of_packet(skb, settings);
	if (!source.type && !cgroup.class_id)
		return 1; /* untyped: nothing to those of no class */
	class = odm_class_row(cgroup.class_id);
	if (!class || class->mode == ODM_MODE_OFF)
		return 1; /* off: as without us */
	source = odm_seen_in(class, source, marked);
	d = odm_decide_syn(class, cgroup, source);
	if (d.silent || odm_is_outsider(skb))
		return 1; /* as it should be, or not ours to judge */
	d = odm_soften(d, class->mode);
	odm_count(cgroup.class_id, d, ODM_H_INGRESS);
	return d.verdict != ODM_REFUSE;
}

/* Unconnected and bound to a wildcard: the only kind of socket whose answers may need the note. */
static __always_inline bool odm_is_wildcard_server(const struct bpf_sock *sk)
{
	struct odm_addr bound;

	if (sk->dst_port)
		return false;
	if (sk->family == AF_INET)
		return !sk->src_ip4;
	bound = ODM_ADDR6(sk->src_ip6);
	return odm_is_any(&bound);
}

/*
 * What peers send to a socket that asked for a type would be noted for the next one that the kernel
 * gives its port, and lead that to another type than its class's default.
 */
static __always_inline bool odm_needs_note(struct bpf_sock *sk)
{
	struct odm_socket *sock = odm_own_storage(sk);

	return !sock || !(sock->type || sock->flags & ODM_SOCKET_FOREIGN);
}

static __always_inline int odm_ingress_udp(struct __sk_buff *skb, struct bpf_sock *sk)
{
	struct odm_settings *settings = odm_settings_get();
	struct odm_addr peer, asked;
	struct odm_dialogue_key key;
	struct odm_source source;
	struct odm_cgroup cgroup;
	struct odm_class *class;
	u32 offset = 0;
	__be16 port;

	if (!settings || sk->type != SOCK_DGRAM)
		return 1; /* a raw one, that hears UDP */
	cgroup = odm_class_of_packet(skb, settings);
	if (!cgroup.class_id)
		return 1; /* of no class: as without us */
	class = odm_class_row(cgroup.class_id);
	if (!class || !class->mode || !odm_needs_note(sk))
		return 1; /* off, or it asked for a type itself */
	if (odm_transport(skb, &offset) != sk->protocol || !odm_packet_source(skb, &peer) ||
	    !odm_packet_destination(skb, &asked) ||
	    bpf_skb_load_bytes(skb, offset, &port, sizeof(port)))
		return 1; /* it can't be read: answered as if unasked */
	if (skb->ifindex == LOOPBACK_IFINDEX && odm_is_loopback(&asked))
		return 1; /* the kernel answers from there by itself */
	if (odm_is_multicast(&asked) && !odm_is_exempt_inline(&asked))
		return 1; /* asked of many hosts, wherever they are: answered as if unasked */
	if (!odm_default_of(class, cgroup)) {
		source = odm_source_of_inline(&asked);
		if (!source.type || odm_is_shared(source))
			return 1; /* as without us */
	}
	key = odm_dialogue_key(sk, &peer, port, cgroup.class_id);
	odm_hear(settings, &key, &asked);
	return 1;
}

static __always_inline int odm_ingress_listener(struct __sk_buff *skb, const struct bpf_sock *sk)
{
	struct odm_settings *settings = odm_settings_get();
	u32 offset = 0;
	__u8 flags;
	int protocol;

	protocol = odm_transport(skb, &offset);
	if (!settings)
		return 1; /* never: an array has its row */
	if (protocol < 0) /* behind more headers than we read: as if it were a SYN */
		return odm_ingress_syn(skb, sk, settings);
	if (protocol != IPPROTO_TCP || bpf_skb_load_bytes(skb, offset + 13, &flags, 1) ||
	    (flags & (ODM_TCP_SYN | ODM_TCP_ACK)) != ODM_TCP_SYN)
		return 1; /* of a connection, or of none */
	return odm_ingress_syn(skb, sk, settings);
}

/*
 * Most packets are for a connection, or for a socket that is bound to an address, which is read of the socket without
 * asking whether it is a whole one: they are not read. Over `lo` only UDP matters: local clients may ask whom they
 * like, but answers to them, too, are from where they asked.
 */
int odm_ingress(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	bool listens;

	if (!sk)
		return 1; /* no socket is asked yet, or any more */
	listens = sk->state == BPF_TCP_LISTEN;
	if (listens ? skb->ifindex == LOOPBACK_IFINDEX : !odm_is_wildcard_server(sk))
		return 1; /* local, which egress has seen; or its answers know their source */
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 1; /* a handshake */
	if (listens)
		return odm_ingress_listener(skb, sk);
	if (sk->protocol == IPPROTO_UDP || sk->protocol == IPPROTO_UDPLITE)
		return odm_ingress_udp(skb, sk);
	return 1; /* raw, or bound to nothing yet */
}
