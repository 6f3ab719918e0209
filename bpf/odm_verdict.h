/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How a decision is counted and told to the application. */
#ifndef ODM_VERDICT_H
#define ODM_VERDICT_H

/* What a decision function answers; the hook concludes with it. */
struct odm_decision {
	__u8 verdict; /* enum odm_verdict */
	__u8 reason;  /* enum odm_reason */
	__u8 type;    /* enum odm_type that was asked for */
	__u8 silent;  /* nothing to count: the usual life of a socket without a type */
};

#define ODM_DECIDE(v, r, t)                                                                        \
	((struct odm_decision){ .verdict = (v), .reason = (r), .type = (t), .silent = 0 })
#define ODM_LEAVE_ALONE                                                                            \
	((struct odm_decision){ .verdict = ODM_ACCEPT, .reason = 0, .type = 0, .silent = 1 })

/* The errno of a reason; constants only, since newer kernels want a provable range. */
static __always_inline int odm_fail(__u8 reason)
{
	if (reason == ODM_R_BAD_FIELD || reason == ODM_R_BAD_FLAGS)
		bpf_set_retval(-EINVAL);
	else if (reason == ODM_R_NO_STORAGE)
		bpf_set_retval(-ENOMEM);
	else if (reason == ODM_R_CLASS || reason == ODM_R_CREATOR || reason == ODM_R_STRICT ||
		 reason == ODM_R_CLOSED || reason == ODM_R_OTHER_CLASS)
		bpf_set_retval(-EACCES);
	else if (reason == ODM_R_CAP_SOCKETS || reason == ODM_R_CAP_REQUESTS ||
		 reason == ODM_R_LIFETIME)
		bpf_set_retval(-EDQUOT);
	else
		bpf_set_retval(-EADDRNOTAVAIL);
	return 0;
}

/* Count a verdict by its row of odm_verdicts, and tell of a refusal. */
ODM_FUNCTION(3, int, odm_count_key, struct odm_verdict_key);
int odm_count_key_body(const struct odm_verdict_key *key)
{
	u64 zero = 0, *count;
	struct odm_verdict_key row;

	if (!key)
		return 0;
	row = *key;
	count = odm_verdicts.lookup(&row);
	if (!count) {
		odm_verdicts.insert(&row, &zero);
		count = odm_verdicts.lookup(&row);
	}
	if (count) /* atomic: softirq may interrupt the same key on this CPU */
		__sync_fetch_and_add(count, 1);
	else
		odm_lost(ODM_LOST_VERDICT);
	if (row.verdict == ODM_REFUSE)
		odm_tell_refused(&row);
	return 0;
}

static __always_inline void odm_count(__u16 class_id, struct odm_decision d, __u8 hook)
{
	struct odm_verdict_key key = {
		.class_id = class_id,
		.type = d.type,
		.verdict = d.verdict,
		.reason = d.reason,
		.hook = hook,
	};

	odm_count_key(&key);
}

/* Refusals for what a class may do. All others say that a call cannot be done as it was meant. */
#define ODM_POLICY_REASONS                                                                         \
	(1u << ODM_R_CLASS | 1u << ODM_R_CREATOR | 1u << ODM_R_STRICT | 1u << ODM_R_CLOSED |       \
	 1u << ODM_R_CAP_SOCKETS | 1u << ODM_R_CAP_REQUESTS | 1u << ODM_R_LIFETIME |               \
	 1u << ODM_R_OTHER_CLASS)

/*
 * Audit lifts the policy and counts what the policy would have refused. It does not lift the rest:
 * a socket that was told that its type is taken would leave from another one.
 */
static __always_inline struct odm_decision odm_soften(struct odm_decision d, __u8 mode)
{
	if (d.verdict == ODM_REFUSE && mode == ODM_MODE_AUDIT &&
	    ODM_POLICY_REASONS & (1u << (d.reason & 31)))
		d.verdict = ODM_AUDIT;
	return d;
}

/* Count, and answer as bind, connect and sendmsg do: 1 goes on, 0 fails with the reason's errno. */
static __always_inline int odm_conclude(__u16 class_id, struct odm_decision d, __u8 mode, __u8 hook)
{
	if (d.silent)
		return 1;
	d = odm_soften(d, mode);
	odm_count(class_id, d, hook);
	return d.verdict == ODM_REFUSE ? odm_fail(d.reason) : 1;
}

#endif
