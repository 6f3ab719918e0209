/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What packet sockets send passes no cgroup hook. On its way out of an interface (tc egress) it still
 * belongs to its socket: frames of classes that closed packet sockets are dropped there. Attached only
 * while there is such a class.
 */

int odm_frames(struct __sk_buff *skb)
{
	struct odm_decision d = ODM_DECIDE(ODM_REFUSE, ODM_R_CLOSED, 0);
	struct bpf_sock *sk = skb->sk;
	struct odm_settings *settings;
	struct odm_cgroup cgroup;
	struct odm_class *class;

	if (!sk)
		return TC_ACT_UNSPEC; /* forwarded, or the kernel's own: no class sent it */
	sk = bpf_sk_fullsock(sk);
	if (!sk || sk->family != AF_PACKET)
		return TC_ACT_UNSPEC; /* of another kind: egress sees it */
	settings = odm_settings_get();
	if (!settings)
		return TC_ACT_UNSPEC; /* never: an array has its row */
	cgroup = odm_class_of_packet(skb, settings);
	class = odm_class_row(cgroup.class_id);
	if (!class || class->mode == ODM_MODE_OFF || !(class->refuse & ODM_REFUSE_PACKET))
		return TC_ACT_UNSPEC; /* open to this class */
	d = odm_soften(d, class->mode);
	odm_count(cgroup.class_id, d, ODM_H_FRAMES);
	return d.verdict == ODM_REFUSE ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}
