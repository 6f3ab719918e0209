/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which application class a caller or a packet belongs to: that of its nearest classified ancestor. */
#ifndef ODM_CLASS_H
#define ODM_CLASS_H

/* Bits of a cgroup's id in a word of odm_strangers. */
#define ODM_STRANGER_SHIFT 40

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

/* A cgroup and an epoch in one word, so that both are read at once; 0: they don't fit, and nothing is noted. */
static __always_inline u64 odm_stranger(u64 id, u32 epoch)
{
	if (id >> ODM_STRANGER_SHIFT || epoch >> (64 - ODM_STRANGER_SHIFT))
		return 0;
	return (u64)epoch << ODM_STRANGER_SHIFT | id;
}

static __always_inline bool odm_is_stranger(u64 id, u32 epoch)
{
	u32 slot = id & (ODM_MAX_STRANGERS - 1);
	u64 word = odm_stranger(id, epoch), *noted = odm_strangers.lookup(&slot);

	return noted && word && *noted == word;
}

static __always_inline void odm_note_stranger(u64 id, u32 epoch)
{
	u32 slot = id & (ODM_MAX_STRANGERS - 1);
	u64 *noted = odm_strangers.lookup(&slot);

	if (noted)
		*noted = odm_stranger(id, epoch);
}

/* The class of a cgroup that is no stranger, as far as is known; one that turns out to be is noted. */
static __always_inline struct odm_cgroup odm_resolve(struct __sk_buff *skb, u64 id, u32 epoch)
{
	struct odm_cgroup *known = odm_resolved.lookup(&id), found;

	if (known && known->epoch == epoch)
		found = *known;
	else
		found = odm_walk(skb, id, epoch);
	if (!found.class_id && !found.kept)
		odm_note_stranger(id, epoch);
	return found;
}

ODM_FUNCTION(11, u64, odm_resolve_task, u32);
u64 odm_resolve_task_body(const u32 *epoch)
{
	union {
		struct odm_cgroup cgroup;
		u64 word;
	} row = {};

	if (epoch)
		row.cgroup = odm_resolve(NULL, bpf_get_current_cgroup_id(), *epoch);
	return row.word;
}

/*
 * Class of the calling task. Most cgroups are of no class, and whose sockets they are should not notice us: one
 * load is all that a hook costs them.
 */
static __always_inline struct odm_cgroup odm_class_of_caller(const struct odm_settings *settings)
{
	struct odm_cgroup stranger = { .default_type = ODM_DEFAULT_OF_CLASS };
	u32 epoch = settings->epoch;
	union {
		u64 word;
		struct odm_cgroup cgroup;
	} row;

	if (odm_is_stranger(bpf_get_current_cgroup_id(), epoch))
		return stranger;
	row.word = odm_resolve_task(&epoch);
	return row.cgroup;
}

/* Class of a packet's socket, as its creator's cgroup has it; "current" is an accident there. */
static __always_inline struct odm_cgroup odm_class_of_packet(struct __sk_buff *skb,
							     const struct odm_settings *settings)
{
	struct odm_cgroup stranger = { .default_type = ODM_DEFAULT_OF_CLASS };
	u64 id = bpf_skb_cgroup_id(skb);

	return odm_is_stranger(id, settings->epoch) ? stranger
						    : odm_resolve(skb, id, settings->epoch);
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
