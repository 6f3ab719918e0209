/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Cgroups as they come and go. A new one is classified inside mkdir(2), before any process can be in
 * it: a service manager makes a service's cgroup anew at each start, and the first thing that the
 * service does may be to connect. The row of one that goes is kept as long as a socket of it is left.
 */

#ifdef ODM_WITH_CGROUPS

/* The loader reads the offsets from the kernel's own description of its types (BTF). */
static __always_inline u64 odm_peek(u64 object, u32 offset)
{
	u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)(object + offset));
	return value;
}

/* The kernfs node of a cgroup of the v2 hierarchy; 0 for one of another (ids are per hierarchy). */
static __always_inline u64 odm_node_of(u64 cgroup)
{
	if ((u32)odm_peek(odm_peek(cgroup, ODM_CGROUP_ROOT), ODM_ROOT_HIERARCHY))
		return 0;
	return odm_peek(cgroup, ODM_CGROUP_NODE);
}

static __always_inline u32 *odm_members_of(u32 class_id)
{
	return odm_members.lookup(&class_id);
}

static __always_inline void odm_one_less(u32 *members)
{
	if (members && *members)
		__sync_fetch_and_add(members, -1);
}

/* Note the class. Who may make cgroups of a class himself can't take the room of all others. */
static __always_inline void odm_classify(u64 id, u16 class_id, bool bounded)
{
	struct odm_cgroup row = { .class_id = class_id, .default_type = ODM_DEFAULT_OF_CLASS };
	u32 *members = odm_members_of(class_id);

	if (!members || (bounded && *members >= ODM_MAX_DELEGATED) || odm_cgroups.update(&id, &row))
		odm_lost(ODM_LOST_CGROUP);
	else
		__sync_fetch_and_add(members, 1);
}

/* Cgroups may come below this one that a pattern names: note how far its path leads. */
static __always_inline void odm_follow(struct odm_birth *birth, u64 id)
{
	struct odm_folder_key key = { .cgroup = id, .generation = birth->step.generation };
	u32 *foreign = NULL;

	if (!(birth->folder.flags & ODM_FOLDER_TRUSTED)) {
		foreign = odm_members_of(ODM_MAX_CLASSES);
		if (!foreign || *foreign >= ODM_MAX_FOREIGN_FOLDERS) {
			odm_lost(ODM_LOST_CGROUP);
			return;
		}
	}
	if (odm_folders.update(&key, &birth->folder))
		odm_lost(ODM_LOST_CGROUP);
	else if (foreign)
		__sync_fetch_and_add(foreign, 1);
}

/*
 * An exact path counts before globs. A glob counts only where nobody but root could have chosen the
 * name, unless its class says `delegated`.
 */
static __always_inline void odm_born(struct odm_birth *birth, u64 id)
{
	struct odm_globs *globs = odm_globs_of(birth->step.generation);
	struct odm_folder *folder = &birth->folder;
	struct odm_step *step = NULL;
	bool ended = false;
	int bit;

	if (bpf_get_current_uid_gid() & 0xffffffff)
		folder->flags &= ~ODM_FOLDER_TRUSTED;
	if (folder->node) {
		birth->step.node = folder->node;
		step = odm_steps.lookup(&birth->step);
	}
	folder->node = step ? step->node : 0;
	if (step && step->flags & ODM_STEP_ENDS) {
		odm_classify(id, step->class_id, !(folder->flags & ODM_FOLDER_TRUSTED));
		ended = true;
	}
	if (globs && folder->flags & ODM_FOLDER_GLOBS) {
		if (!(folder->flags & ODM_FOLDER_TRUSTED))
			odm_keep_bits(&folder->globs, &globs->delegated);
		odm_read_name(&folder->globs, globs, birth->step.name);
		bit = odm_ended(&folder->globs, globs);
		if (!ended && bit >= 0 && bit < ODM_GLOB_BITS)
			odm_classify(id, globs->class_ids[bit],
				     !(folder->flags & ODM_FOLDER_TRUSTED));
		odm_read_byte(&folder->globs, globs, '/');
	}
	if (!odm_has_bits(&folder->globs))
		folder->flags &= ~ODM_FOLDER_GLOBS;
	if (folder->node || folder->flags & ODM_FOLDER_GLOBS)
		odm_follow(birth, id);
}

/* cgroup_mkdir: most cgroups are below one that no pattern leads through, which one lookup tells. */
int odm_mkdir(struct bpf_raw_tracepoint_args *ctx)
{
	struct odm_settings *settings = odm_settings_get();
	u64 node = odm_node_of(ctx->args[0]);
	struct odm_folder_key key = {};
	struct odm_folder *above;
	struct odm_birth *birth;
	u32 zero = 0;

	if (!node || !settings || !settings->patterns)
		return 0;
	key.cgroup = odm_peek(odm_peek(node, ODM_NODE_PARENT), ODM_NODE_ID);
	key.generation = settings->patterns;
	above = odm_folders.lookup(&key);
	birth = odm_births.lookup(&zero);
	if (!above || !birth)
		return 0;
	birth->folder = *above;
	__builtin_memset(&birth->step, 0, sizeof(birth->step));
	birth->step.generation = key.generation;
	if (bpf_probe_read_kernel_str(birth->step.name, sizeof(birth->step.name),
				      (void *)odm_peek(node, ODM_NODE_NAME)) > 0)
		odm_born(birth, odm_peek(node, ODM_NODE_ID));
	return 0;
}

/* cgroup_rmdir: nothing comes below it any more. */
int odm_rmdir(struct bpf_raw_tracepoint_args *ctx)
{
	struct odm_settings *settings = odm_settings_get();
	u64 node = odm_node_of(ctx->args[0]);
	struct odm_folder_key key = {};
	struct odm_folder *folder;

	if (!node || !settings)
		return 0;
	key.cgroup = odm_peek(node, ODM_NODE_ID);
	key.generation = settings->patterns;
	folder = odm_folders.lookup(&key);
	if (!folder)
		return 0;
	if (!(folder->flags & ODM_FOLDER_TRUSTED))
		odm_one_less(odm_members_of(ODM_MAX_CLASSES));
	odm_folders.delete(&key);
	return 0;
}

/* cgroup_release: no process, no socket is left of it; its id is never given to another one. */
int odm_release(struct bpf_raw_tracepoint_args *ctx)
{
	u64 node = odm_node_of(ctx->args[0]), id;
	struct odm_cgroup *row;

	if (!node)
		return 0;
	id = odm_peek(node, ODM_NODE_ID);
	row = odm_cgroups.lookup(&id);
	if (row) {
		odm_one_less(odm_members_of(row->class_id));
		odm_cgroups.delete(&id);
	}
	odm_resolved.delete(&id);
	return 0;
}

#endif
