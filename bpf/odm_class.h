/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which application class a caller or a packet belongs to: that of its nearest classified ancestor. */
#ifndef ODM_CLASS_H
#define ODM_CLASS_H

static __always_inline struct odm_settings *odm_settings_get(void)
{
	u32 zero = 0;

	return odm_settings.lookup(&zero);
}

static __always_inline struct odm_class *odm_class_row(u32 class_id)
{
	return odm_classes.lookup(&class_id);
}

/* Where what is kept by class and type has its row. */
static __always_inline u32 odm_usage_index(u16 class_id, u8 type)
{
	return (u32)class_id * ODM_TYPES + type;
}

/* Of no class, but once of one that allowed the type: what its sockets have by then, they keep. */
static __always_inline bool odm_kept(struct odm_cgroup cgroup, __u8 type)
{
	return cgroup.kept & (1 << (type & 7));
}

/* The type that sockets of a class get without asking; a cgroup may have one of its own. */
static __always_inline __u8 odm_default_of(const struct odm_class *class, struct odm_cgroup cgroup)
{
	return cgroup.default_type == ODM_DEFAULT_OF_CLASS ? class->default_type
							   : cgroup.default_type;
}

/* The ancestor of the packet's socket, or of the calling task where there is no packet. */
static __always_inline u64 odm_ancestor(struct __sk_buff *skb, int level)
{
	return skb ? bpf_skb_ancestor_cgroup_id(skb, level)
		   : bpf_get_current_ancestor_cgroup_id(level);
}

/* The slow way, once per cgroup and epoch: from the root down, the deepest classified one wins. */
static __always_inline struct odm_cgroup odm_walk(struct __sk_buff *skb, u64 id, u32 epoch)
{
	struct odm_cgroup found = { .default_type = ODM_DEFAULT_OF_CLASS }, *row;
	u64 ancestor;
	int level;

	for (level = 0; level < ODM_MAX_DEPTH; level++) {
		ancestor = odm_ancestor(skb, level);
		if (!ancestor)
			break;
		row = odm_cgroups.lookup(&ancestor);
		if (row)
			found = *row;
	}
	row = odm_cgroups.lookup(&id); /* deeper than we walk: at least its own row counts */
	if (row)
		found = *row;
	found.epoch = epoch;
	odm_resolved.update(&id, &found);
	return found;
}

static __always_inline struct odm_cgroup odm_resolve(struct __sk_buff *skb, u64 id, u32 epoch)
{
	struct odm_cgroup *known = odm_resolved.lookup(&id);

	if (known && known->epoch == epoch)
		return *known;
	return odm_walk(skb, id, epoch);
}

/* Class of the calling task: for a socket of no class this one lookup is all that a hook costs. */
static __always_inline struct odm_cgroup odm_class_of_caller(const struct odm_settings *settings)
{
	return odm_resolve(NULL, bpf_get_current_cgroup_id(), settings->epoch);
}

/* Class of a packet's socket, as its creator's cgroup has it; "current" is an accident there. */
static __always_inline struct odm_cgroup odm_class_of_packet(struct __sk_buff *skb,
							     const struct odm_settings *settings)
{
	return odm_resolve(skb, bpf_skb_cgroup_id(skb), settings->epoch);
}

/*
 * Class of whoever asked for a socket's type. No helper walks up from a cgroup that is neither the
 * task's nor the packet's, so where nothing fresh is known its class at that time is taken.
 */
static __always_inline u16 odm_class_of_asker(const struct odm_socket *sock, u32 epoch)
{
	u64 id = sock->cgroup;
	struct odm_cgroup *known = odm_resolved.lookup(&id);

	return known && known->epoch == epoch ? known->class_id : sock->class_id;
}

#endif
