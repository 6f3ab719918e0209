/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The census: every socket that has storage, one row each, UDP too (which sock_diag leaves out). The
 * agent reads it to show sockets, and to hold the counts against.
 */

struct seq_file;
struct sock;
struct bpf_map;

/* As include/linux/bpf.h and net/core/bpf_sk_storage.c of the kernel have them. */
struct bpf_iter_meta {
	struct seq_file *seq;
	u64 session_id;
	u64 seq_num;
};

struct bpf_iter__bpf_sk_storage_map {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	struct sock *sk;
	void *value;
};

int bpf_iter__bpf_sk_storage_map(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct odm_socket *sock = ctx->value;
	struct odm_census row = {};
	struct sock *sk = ctx->sk;

	if (!sk || !sock)
		return 0;
	row.cookie = odm_cookie(sk);
	row.type = sock->type;
	row.flags = sock->flags;
	row.class_id = sock->class_id;
	if (sock->owner == row.cookie || sock->owner == (u64)sk) {
		row.holds = sock->holds;
		row.held_type = sock->held_type;
		row.held_class = sock->held_class;
		row.held = sock->held;
	}
	bpf_seq_write(ctx->meta->seq, &row, sizeof(row));
	return 0;
}
