/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A socket's birth: only what no later hook can find out is noted, and only for rare sockets. */

/*
 * cgroup/sock_create: on kernels before 6.18 egress has no way to tell the network namespace, so
 * sockets of a foreign one are flagged (no storage: home); and users' raw sockets are flagged, to
 * be told from the kernel's own.
 */
int odm_sock_create(struct bpf_sock *ctx)
{
	struct odm_settings *settings = odm_settings_get();
	struct odm_socket *sock;
	__u16 flags = 0;

	if (!settings)
		return 1;
	if (bpf_get_netns_cookie(ctx) != settings->home_netns)
		flags |= ODM_SOCKET_FOREIGN;
	if (ctx->type == SOCK_RAW)
		flags |= ODM_SOCKET_RAW;
	if (!flags)
		return 1;
	sock = odm_sockets.sk_storage_get(ctx, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (sock) {
		sock->version = 1;
		sock->flags = flags;
	}
	return 1;
}
