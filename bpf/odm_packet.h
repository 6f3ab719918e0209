/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What egress and ingress read of a packet; offset 0 is the IP header there. */
#ifndef ODM_PACKET_H
#define ODM_PACKET_H

#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define ODM_TCP_SYN 0x02
#define ODM_TCP_ACK 0x10
#define ODM_MAX_EXTENSIONS 8

static __always_inline bool odm_packet_source(struct __sk_buff *skb, struct odm_addr *addr)
{
	__be32 v4;

	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return !bpf_skb_load_bytes(skb, 8, addr, sizeof(*addr));
	if (skb->protocol != bpf_htons(ETH_P_IP) || bpf_skb_load_bytes(skb, 12, &v4, sizeof(v4)))
		return false;
	*addr = odm_addr4(v4);
	return true;
}

static __always_inline bool odm_packet_destination(struct __sk_buff *skb, struct odm_addr *addr)
{
	__be32 v4;

	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return !bpf_skb_load_bytes(skb, 24, addr, sizeof(*addr));
	if (skb->protocol != bpf_htons(ETH_P_IP) || bpf_skb_load_bytes(skb, 16, &v4, sizeof(v4)))
		return false;
	*addr = odm_addr4(v4);
	return true;
}

/* Both addresses of a packet. Read in place where the header lies there, as it does but for odd packets. */
static __always_inline bool odm_packet_ends(struct __sk_buff *skb, struct odm_addr *source,
					    struct odm_addr *destination)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__be32 *v4 = data + 12, *v6 = data + 8;

	if (skb->protocol == bpf_htons(ETH_P_IP) && data + 20 <= end) {
		*source = odm_addr4(v4[0]);
		*destination = odm_addr4(v4[1]);
		return true;
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6) && data + 40 <= end) {
		*source = ODM_ADDR6(v6);
		v6 += 4;
		*destination = ODM_ADDR6(v6);
		return true;
	}
	return odm_packet_source(skb, source) && odm_packet_destination(skb, destination);
}

/* Has a packet a destination that is not its source? Read in place, and only what is asked for is copied. */
static __always_inline bool odm_leads_elsewhere(struct __sk_buff *skb, struct odm_addr *destination)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__be32 *v4 = data + 12, *v6 = data + 8;
	struct odm_addr source;

	if (skb->protocol == bpf_htons(ETH_P_IP) && data + 20 <= end) {
		*destination = odm_addr4(v4[1]);
		return v4[0] != v4[1];
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6) && data + 40 <= end) {
		*destination = ODM_ADDR6(v6 + 4);
		return v6[0] != v6[4] || v6[1] != v6[5] || v6[2] != v6[6] || v6[3] != v6[7];
	}
	return odm_packet_ends(skb, &source, destination) && !odm_same_addr(&source, destination);
}

/*
 * Skip hop-by-hop, routing, fragment, destination options and AH, which may stand before the
 * transport. A fragment header is still there only where one fragment is the whole (RFC 6946).
 */
static __always_inline bool odm_is_extension(__u8 next)
{
	return next == 0 || next == 43 || next == 44 || next == 60 || next == 51;
}

static __always_inline u32 odm_extension_size(__u8 kind, __u8 length)
{
	if (kind == 44)
		return 8;
	return kind == 51 ? (length + 2) * 4 : (length + 1) * 8;
}

/* Protocol and offset of the transport header; -1 where there is none that we could read. */
static __always_inline int odm_transport(struct __sk_buff *skb, u32 *offset)
{
	__u8 head[2], next;
	int i;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, 0, head, 1) || bpf_skb_load_bytes(skb, 9, &next, 1))
			return -1;
		*offset = (head[0] & 0x0f) * 4;
		return next;
	}
	if (skb->protocol != bpf_htons(ETH_P_IPV6) || bpf_skb_load_bytes(skb, 6, &next, 1))
		return -1;
	*offset = 40;
	for (i = 0; i < ODM_MAX_EXTENSIONS; i++) {
		if (!odm_is_extension(next))
			return next;
		if (bpf_skb_load_bytes(skb, *offset, head, sizeof(head)))
			return -1;
		*offset += odm_extension_size(next, head[1]);
		next = head[0];
	}
	return -1;
}

/*
 * How many IP bytes a packet is on the wire: one that is still to be cut into segments has its headers in each of
 * them. Too few only for UDP that IP cuts into fragments later, and for more headers than we read.
 */
static __always_inline u32 odm_packet_weight(struct __sk_buff *skb)
{
	u32 segments = skb->gso_segs, headers = 0;
	int protocol;
	__u8 offset;

	if (segments <= 1)
		return skb->len;
	protocol = odm_transport(skb, &headers);
	if (protocol == IPPROTO_TCP && !bpf_skb_load_bytes(skb, headers + 12, &offset, 1))
		headers += (offset >> 4) * 4;
	else if (protocol == IPPROTO_UDP)
		headers += 8;
	return skb->len + (segments - 1) * headers;
}

/*
 * Not ours to judge: a socket of another network namespace, or the kernel's own socket (control
 * sockets of TCP, ICMP, neighbour discovery and MLD are raw; users' raw ones carry a flag).
 */
static __always_inline bool odm_is_outsider(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct odm_socket *sock;

	if (!sk)
		return true;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return false;
	sock = odm_socket_of(sk);
	if (sock && sock->flags & ODM_SOCKET_FOREIGN)
		return true;
	return sk->type == SOCK_RAW && !(sock && sock->flags & ODM_SOCKET_RAW);
}

#endif
