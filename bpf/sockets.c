/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A socket's birth: kinds of socket that its class has closed are refused, and what no later hook can
 * find out is noted, only for rare sockets.
 */

/* The kind, as a class may close it; 0: TCP and UDP, which every later hook sees. */
static __always_inline u8 odm_kind_of(const struct bpf_sock *sk)
{
	if (sk->type == SOCK_RAW)
		return ODM_REFUSE_RAW;
	if (sk->protocol == IPPROTO_MPTCP)
		return ODM_REFUSE_MPTCP;
	if (sk->protocol == IPPROTO_UDPLITE)
		return ODM_REFUSE_UDPLITE;
	if (sk->type == SOCK_DGRAM &&
	    (sk->protocol == IPPROTO_ICMP || sk->protocol == IPPROTO_ICMPV6))
		return ODM_REFUSE_PING;
	return 0;
}

/*
 * On kernels before 6.18 egress has no way to tell the network namespace, so sockets of a foreign one
 * are flagged (no storage: home); and users' raw sockets are flagged, to be told from the kernel's.
 */
static __always_inline void odm_note_birth(struct bpf_sock *sk, u16 class_id, u16 flags)
{
	if (flags && !odm_new_socket(sk, class_id, flags))
		odm_lost(ODM_LOST_SOCKET);
}

/* cgroup/sock_create: where no class closes or counts anything, as nearly always, it asks no class. */
int odm_sock_create(struct bpf_sock *ctx)
{
	struct odm_decision d = ODM_DECIDE(ODM_REFUSE, ODM_R_CLOSED, 0);
	struct odm_settings *settings = odm_settings_get();
	struct odm_class *class = NULL;
	struct odm_cgroup cgroup = {};
	__u16 flags = 0;

	if (!settings)
		return 1; /* never: an array has its row */
	if (ctx->type == SOCK_RAW)
		flags |= ODM_SOCKET_RAW;
	if (bpf_get_netns_cookie(ctx) != settings->home_netns) {
		odm_note_birth(ctx, 0, flags | ODM_SOCKET_FOREIGN);
		return 1; /* of another namespace: flagged, so that egress lets it go */
	}
	if (settings->watched_classes) {
		cgroup = odm_class_of_caller(settings);
		class = odm_class_row(cgroup.class_id);
	}
	if (class && class->mode != ODM_MODE_OFF) {
		if (class->refuse & odm_kind_of(ctx) &&
		    !odm_conclude(cgroup.class_id, d, class->mode, ODM_H_SOCK_CREATE))
			return 0;
		if (class->flags & ODM_CLASS_CAPPED)
			flags |= ODM_SOCKET_TRACKED;
	}
	odm_note_birth(ctx, cgroup.class_id, flags);
	return 1;
}
