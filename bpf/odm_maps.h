/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The maps, which the loader pins by their names. "agent" writes, "hooks" read, unless said.
 * BCC gives each map the methods lookup(), update(), delete(), sk_storage_get().
 */
#ifndef ODM_MAPS_H
#define ODM_MAPS_H

#define ODM_MAP(kind, key, leaf, name, entries, flags)                                             \
	BPF_F_TABLE(kind, key, leaf, name, entries, flags)

/* 0 -> what is pinned here. Loader writes; user space reads. */
ODM_MAP("array", u32, struct odm_identity, odm_identities, 1, 0);

/* 0 -> home namespace, epoch, mark. */
ODM_MAP("array", u32, struct odm_settings, odm_settings, 1, 0);

/* class id -> policy. */
ODM_MAP("array", u32, struct odm_class, odm_classes, ODM_MAX_CLASSES, 0);

/*
 * cgroup id -> class, for classified cgroups, until the kernel lets go of them. Agent and hooks write.
 * Full: the agent says so, hooks count it as lost; both classify no more.
 */
ODM_MAP("hash", u64, struct odm_cgroup, odm_cgroups, ODM_MAX_CGROUPS, BPF_F_NO_PREALLOC);

/* cgroup id -> class of its nearest classified ancestor. Hooks write; LRU: full forgets. */
ODM_MAP("lru_hash", u64, struct odm_cgroup, odm_resolved, ODM_MAX_CGROUPS, 0);

/*
 * slot -> a cgroup of no class, as of an epoch (odm_stranger); the cheaper half of odm_resolved. Hooks write; what
 * comes last stays.
 */
ODM_MAP("array", u32, u64, odm_strangers, ODM_MAX_STRANGERS, 0);

/* slot -> the globs; the slot whose generation is in force counts. */
ODM_MAP("array", u32, struct odm_globs, odm_globs, 2, 0);

/* component of an exact path -> the next ones, its class. Full: the agent says so. */
ODM_MAP("hash", struct odm_step_key, struct odm_step, odm_steps, ODM_MAX_STEPS, BPF_F_NO_PREALLOC);

/* cgroup -> how far its path fits patterns. Agent and hooks write. Full: lost, left to the agent. */
ODM_MAP("hash", struct odm_folder_key, struct odm_folder, odm_folders, ODM_MAX_FOLDERS,
	BPF_F_NO_PREALLOC);

/*
 * class id -> its rows in odm_cgroups; the last one: rows of odm_folders that others than root caused.
 * Hooks write and read; the agent corrects.
 */
ODM_MAP("array", u32, u32, odm_members, ODM_MAX_CLASSES + 1, 0);

/* Where a new cgroup is worked on, since the stack is too small for it. Hooks only. */
ODM_MAP("percpu_array", u32, struct odm_birth, odm_births, 1, 0);

/* local address -> its type. Full: the agent configures no further address. */
ODM_MAP("hash", struct odm_addr, struct odm_source, odm_origins, ODM_MAX_SOURCES,
	BPF_F_NO_PREALLOC);

/* typed network -> its type; asked only for addresses that odm_origins lacks. */
ODM_MAP("lpm_trie", struct odm_span_key, struct odm_source, odm_spans, ODM_MAX_SPANS,
	BPF_F_NO_PREALLOC);

/* word of a block's number -> bit by bit: no typed address has this number, but shared ones. 0: nothing is known. */
ODM_MAP("array", u32, u64, odm_untyped_blocks, ODM_BLOCK_WORDS, 0);

/* prefix id -> what to hand out. */
ODM_MAP("array", u32, struct odm_prefix, odm_offers, ODM_MAX_PREFIXES, 0);

/*
 * prefix and class -> the class's own prefix id in it. Never full: each is a prefix id of its own.
 */
ODM_MAP("hash", u32, u32, odm_seats, ODM_MAX_PREFIXES, BPF_F_NO_PREALLOC);

/* interface that is an uplink -> 1. Full: the agent says so; packets may stray by those left out. */
ODM_MAP("hash", u32, u32, odm_uplinks, ODM_MAX_UPLINKS, BPF_F_NO_PREALLOC);

/* slot -> an address of some prefix's pool. */
ODM_MAP("array", u32, struct odm_slot, odm_slots, ODM_MAX_POOL, 0);

/* lease id -> until when, and for how many bytes, an address serves. */
ODM_MAP("array", u32, struct odm_lease, odm_leases, ODM_MAX_LEASES, 0);

/* lease id -> what was sent. Hooks write; the agent sets it when the lease begins. */
ODM_MAP("array", u32, struct odm_meter, odm_meters, ODM_MAX_LEASES, 0);

/* class and type -> what was sent. Hooks write; agent reads. */
ODM_MAP("percpu_array", u32, struct odm_traffic, odm_traffic, ODM_MAX_CLASSES *ODM_TYPES, 0);

/* prefix id -> whose turn it is in its pool. Hooks only. */
ODM_MAP("array", u32, struct odm_turn, odm_turns, ODM_MAX_PREFIXES, 0);

/* type and family -> prefixes, the best first. */
ODM_MAP("array", u32, struct odm_choice, odm_choices, ODM_TYPES *ODM_FAMILIES, 0);

/* class, type, verdict, reason, hook -> count. Hooks write; agent reads. Full: not counted. */
ODM_MAP("percpu_hash", struct odm_verdict_key, u64, odm_verdicts, ODM_MAX_VERDICTS,
	BPF_F_NO_PREALLOC);

/*
 * UDP port and peer -> who has begun, and at or from which local address. Hooks only. Each row has a slot, so it is
 * never full; the room beyond the slots is for rows that are written before they have theirs.
 */
ODM_MAP("hash", struct odm_dialogue_key, struct odm_dialogue, odm_dialogues,
	ODM_MAX_DIALOGUES + 1024, BPF_F_NO_PREALLOC);

/* class and turn -> a row of odm_dialogues. Hooks only. Full: the class's oldest one is forgotten. */
ODM_MAP("array", u32, struct odm_dialogue_slot, odm_dialogue_slots, ODM_MAX_DIALOGUES, 0);

/* class id -> which slot is next. Hooks only. */
ODM_MAP("array", u32, struct odm_dialogue_turn, odm_dialogue_turns, ODM_MAX_CLASSES, 0);

/* class and turn -> a ticket. Hooks write; agent reads. Full: the class's oldest ticket is forgotten. */
ODM_MAP("array", u32, u64, odm_needs, ODM_MAX_NEEDS, 0);

/* class id -> which of its tickets is next, and what it has told. Hooks only. */
ODM_MAP("array", u32, struct odm_need_turn, odm_need_turns, ODM_MAX_CLASSES, 0);

/* class and type -> what it may have at most. */
ODM_MAP("array", u32, struct odm_cap, odm_caps, ODM_MAX_CLASSES *ODM_TYPES, 0);

/* class and type -> how long its addresses may live. */
ODM_MAP("array", u32, struct odm_limit, odm_limits, ODM_MAX_CLASSES *ODM_TYPES, 0);

/* class and type -> what it has. Hooks write, each row under its lock; agent reads. */
ODM_MAP("array", u32, struct odm_usage, odm_usage, ODM_MAX_CLASSES *ODM_TYPES, 0);

/*
 * address, class, type -> tracked sockets that hold it. Hooks write; agent reads, and removes rows of
 * addresses that are gone. Full: counted by class and type only, which the socket's notes say, so that
 * nothing is taken back later.
 */
ODM_MAP("hash", struct odm_live_key, u64, odm_live, ODM_MAX_LIVE, BPF_F_NO_PREALLOC);

/*
 * Events for the agent, in their order. Hooks write; agent reads. Full: lost, and counted as that. A ring buffer
 * has no keys. BCC's macro for one has no method for bpf_ringbuf_query(), but there is one for a helper of the same
 * arguments that we have no other use for: the name of that helper stands for this one.
 */
#define bpf_get_local_storage bpf_ringbuf_query
struct odm_events_table {
	int key;
	u32 leaf;
	void *(*ringbuf_reserve)(u64 size);
	void (*ringbuf_submit)(void *event, u64 flags);
	u64 (*get_local_storage)(u64 asked);
	u32 max_entries;
};
__attribute__((section(
	"maps/ringbuf"))) struct odm_events_table odm_events = { .max_entries = ODM_MAX_EVENTS };

/* enum odm_loss -> how often. Hooks write; agent reads. */
ODM_MAP("percpu_array", u32, u64, odm_missed, ODM_MISSED, 0);

/*
 * Socket -> the type it asked for, and the address it holds if that is counted. Hooks write; `odm-agent
 * sockets` reads. Made only for sockets that need it; an accepted socket starts with a copy of its
 * listener's (CLONE).
 */
ODM_MAP("sk_storage", int, struct odm_socket, odm_sockets, 0, BPF_F_NO_PREALLOC | BPF_F_CLONE);

/* Socket -> the lifetime that it asked for, and what became of it. Hooks only. Made only for those. */
ODM_MAP("sk_storage", int, struct odm_socket_lifetime, odm_lifetimes, 0, BPF_F_NO_PREALLOC);

/* 0 -> how many lifetimes were ever asked for. Hooks only. While it is 0 nobody looks for one. */
ODM_MAP("array", u32, u64, odm_lifetimes_asked, 1, 0);

#endif
