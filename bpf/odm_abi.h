/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * All that the programs share with user space: the one source of truth of both sides.
 * odm_agent/datapath/abi.py mirrors it; a test compiles this file and compares every value.
 * Only fixed-width fields, explicit padding, and a size assert per struct.
 */
#ifndef ODM_ABI_H
#define ODM_ABI_H

#include <linux/types.h>

/* Raised whenever a struct, enum or map below changes its meaning; checked before pins are used. */
#define ODM_ABI_TAG 11

/*
 * Raised when struct odm_socket changes otherwise than by growing into its room: live sockets would
 * forget what they asked for.
 */
#define ODM_STORAGE_TAG 2

#define ODM_MAX_CLASSES 256
#define ODM_MAX_PREFIXES 1024
#define ODM_MAX_POOL 65536    /* addresses of all prefixes together */
#define ODM_MAX_LEASED 256    /* addresses of a pool that end one by one */
#define ODM_MAX_CHOICES 8     /* prefixes that serve one type of one family */
#define ODM_MAX_SOURCES 16384 /* local addresses of the namespace */
#define ODM_MAX_SPANS 4096
#define ODM_BLOCK_SHIFT4 4 /* bits of an IPv4 address that lie within its block */
#define ODM_BLOCK_BITS 12  /* of a block's number */
#define ODM_BLOCK_WORDS 64 /* in which each number has a bit */
#define ODM_BLOCK_FACTOR 0x9e3779b1
#define ODM_MAX_LEASES 16384
#define ODM_MAX_EVENTS 262144                      /* bytes of events that are not read yet */
#define ODM_MAX_LIFETIME_BYTES 1000000000000000000 /* that a socket may ask for */
#define ODM_MAX_CGROUPS 16384
#define ODM_MAX_STRANGERS 1024   /* a power of 2 */
#define ODM_MAX_DEPTH 32         /* levels of cgroups that a class is inherited over */
#define ODM_MAX_DIALOGUES 131072 /* of UDP ports with peers; each class has its share */
#define ODM_MAX_UPLINKS 1024
#define ODM_MAX_NEEDS 32768 /* tickets to wait by; each class has its share */
#define ODM_MAX_VERDICTS 8192
#define ODM_MAX_LIVE 65536 /* configured typed addresses, times the classes that use them */
#define ODM_MAX_STEPS 16384
#define ODM_MAX_FOLDERS 16384
#define ODM_MAX_FOREIGN_FOLDERS 4096 /* of these, made by others than root */
#define ODM_MAX_DELEGATED 1024       /* cgroups of a class that others than root have made */
#define ODM_NAME_SIZE 256            /* of one component of a path, with its 0 */
#define ODM_GLOB_WORDS 16
#define ODM_GLOB_BITS 1024 /* characters of all globs together */
#define ODM_BYTES 256
#define ODM_MISSED 16 /* room for more kinds of loss */

/* The on-demand field of IPV6_ADDR_PREFERENCES (docs/api.md). */
#define ODM_FIELD_SHIFT 16
#define ODM_FIELD_MASK 0x00070000u
#define ODM_ON_NET 0x00080000u
#define ODM_FRESH 0x00100000u
#define ODM_BITS_MASK (ODM_ON_NET | ODM_FRESH)
#define ODM_FIELD_ZERO 0xffe00000u /* bits that no set with a type may carry */
#define ODM_FLAGS_MASK 0x0000ffffu /* what belongs to RFC 5014 */

/* RFC 8653, section 3.2. */
enum odm_type {
	ODM_UNSPECIFIED = 0,
	ODM_FIXED = 1,
	ODM_SESSION_LASTING = 2,
	ODM_NONPERSISTENT = 3,
	ODM_GRACEFUL_REPLACEMENT = 4,
	ODM_TYPES = 5,
};

enum odm_family {
	ODM_IPV4 = 0,
	ODM_IPV6 = 1,
	ODM_FAMILIES = 2,
};

enum odm_mode {
	ODM_MODE_OFF = 0,
	ODM_MODE_AUDIT = 1,
	ODM_MODE_ENFORCE = 2,
};

enum odm_verdict {
	ODM_ACCEPT = 0, /* what the socket had, or nothing at all, is right */
	ODM_ASSIGN = 1, /* the socket gets a typed source from us */
	ODM_REFUSE = 2,
	ODM_AUDIT = 3, /* would have been refused, if the class were in mode enforce */
	ODM_VERDICTS = 4,
};

/* Why; each belongs to one errno (odm_errno_of). */
enum odm_reason {
	ODM_R_NONE = 0,
	ODM_R_BOUND = 1,            /* ASSIGN: by bpf_bind */
	ODM_R_MARKED = 2,           /* ASSIGN: by a mark and its routing table */
	ODM_R_REWRITTEN = 3,        /* ASSIGN: wildcard bind or datagram source rewritten */
	ODM_R_ANSWERED = 4,         /* ASSIGN: the address that the peer had asked */
	ODM_R_ALLOWED = 5,          /* ACCEPT: an explicit source that the class may use */
	ODM_R_CLASS = 6,            /* REFUSE: the class may not use the type */
	ODM_R_CREATOR = 7,          /* REFUSE: the creator's class may not use the type */
	ODM_R_OTHER_TYPE = 8,       /* REFUSE: bound to an address of another type */
	ODM_R_NO_ADDRESS = 9,       /* REFUSE: no address of the type */
	ODM_R_NOT_LOCAL = 10,       /* REFUSE: the address of the type has just gone */
	ODM_R_STRICT = 11,          /* REFUSE: an untyped source, and the class is strict */
	ODM_R_FOREIGN_MARK = 12,    /* REFUSE: somebody else's mark stands in the way of ours */
	ODM_R_BAD_FIELD = 13,       /* REFUSE: no such type, or bits that must be zero */
	ODM_R_BAD_FLAGS = 14,       /* REFUSE: contradictory RFC 5014 flags */
	ODM_R_NO_STORAGE = 15,      /* REFUSE: no memory for the socket's type */
	ODM_R_ACCEPTED_OPTION = 16, /* ACCEPT: the type was taken */
	ODM_R_FAIL_OPEN = 17,       /* ACCEPT: no address, and the class fails open */
	ODM_R_CLOSED = 18,          /* REFUSE: the class may not use this kind of socket */
	ODM_R_CAP_SOCKETS = 19,     /* REFUSE: the class's sockets of the type are at their cap */
	ODM_R_CAP_REQUESTS = 20,    /* REFUSE: the class asks for the type too often */
	ODM_R_UPLINK = 21,          /* REFUSE: on its way out by another uplink than its own */
	ODM_R_UNDECIDED = 22,   /* REFUSE: only the agent can tell the cgroup's class, and hasn't */
	ODM_R_ENDED = 23,       /* REFUSE: the address's time, or its hard budget, is over */
	ODM_R_LIFETIME = 24,    /* REFUSE: the class's addresses do not live as long as was asked */
	ODM_R_OTHER_CLASS = 25, /* REFUSE: an address that is another class's own */
	ODM_REASONS = 26,
};

enum odm_hook {
	ODM_H_SETSOCKOPT = 0,
	ODM_H_BIND = 1,
	ODM_H_CONNECT = 2,
	ODM_H_SENDMSG = 3,
	ODM_H_EGRESS = 4,
	ODM_H_INGRESS = 5,
	ODM_H_SOCK_CREATE = 6,
	ODM_H_FRAMES = 7, /* tc egress of an interface: what packet sockets send */
	ODM_HOOKS = 8,
};

/* What could not be noted, since memory or a map was full (odm_missed). */
enum odm_loss {
	ODM_LOST_VERDICT = 0, /* it stood, but was not counted */
	ODM_LOST_SOCKET = 1,  /* no storage: a socket of a class with caps is not counted */
	ODM_LOST_ADDRESS = 2, /* a socket is counted by class and type, not by its address */
	ODM_LOST_CGROUP = 3,  /* a new cgroup waits for the agent to be classified */
	ODM_LOST_EVENT = 4,   /* odm_events was full: the agent finds out later, by looking */
	ODM_LOSSES = 5,
};

/* An address in network order; IPv4 as ::ffff:a.b.c.d. */
struct odm_addr {
	__u32 w[4];
};
_Static_assert(sizeof(struct odm_addr) == 16, "odm_addr");

/* odm_identities[0]: what is pinned here; user space checks it before anything else. */
struct odm_identity {
	__u32 abi_tag;
	__u32 storage_tag;    /* 0: 1 */
	__u8 source_hash[32]; /* SHA-256 of the amalgamated C; zeros while programs are replaced */
};
_Static_assert(sizeof(struct odm_identity) == 40, "odm_identity");

/* odm_settings[0]. */
struct odm_settings {
	__u64 home_netns; /* netns cookie; sockets of other namespaces pass */
	__u32 epoch;      /* raised whenever a cgroup is classified or not any more */
	__u32 mark_mask;
	__u32 shared_prefixes; /* number of prefixes with shared addresses; 0 spares sock_create a lookup */
	__u32 strict_classes; /* number of strict classes; 0 spares egress a lookup */
	__u32 protocol;       /* route, rule and address protocol of the agent; for detach */
	__u32 any_ip_spans; /* number of spans that are local as a whole; 0 spares a trie lookup */
	__u32 watched_classes; /* number of classes that sock_create must know; 0 spares a lookup */
	__u32 zero;            /* 0, which the verifier can't know (odm_blur.h) */
	__u64 patterns; /* generation of the patterns in force (odm_globs, odm_steps); 0: none */
	__u32 dialogue_share; /* places of each class in odm_dialogue_slots; a power of 2 */
	__u32 nonlocal_bind;  /* 1: IPv6 sockets can be bound to addresses that no interface has */
};
_Static_assert(sizeof(struct odm_settings) == 56, "odm_settings");

#define ODM_CLASS_STRICT 0x01
#define ODM_CLASS_FAIL_CLOSED 0x02
#define ODM_CLASS_CAPPED 0x04 /* has caps: its sockets are tracked from their birth */

/* What a class may not use at all, since no later hook could see or stop it (odm_class.refuse). */
#define ODM_REFUSE_RAW 0x01
#define ODM_REFUSE_PING 0x02
#define ODM_REFUSE_MPTCP 0x04
#define ODM_REFUSE_UDPLITE 0x08
#define ODM_REFUSE_PACKET 0x10
#define ODM_REFUSE_XDP 0x20

/* odm_classes[class id]; 0 is the row of unclassified sockets. */
struct odm_class {
	__u8 mode;
	__u8 allow; /* bit N: may use type N */
	__u8 default_type;
	__u8 flags;
	__u8 refuse; /* ODM_REFUSE_* */
	__u8 pad[3];
	__u64 room[3];
};
_Static_assert(sizeof(struct odm_class) == 32, "odm_class");

/* odm_caps[class id * ODM_TYPES + type]: how much of a type a class may have (all 0: no cap). */
struct odm_cap {
	__u32 sockets;             /* live ones at most */
	__u32 requests_per_minute; /* for people; hooks go by what follows */
	__u64 interval_ns;         /* mean time between two requests */
	__u64 burst_ns;            /* how far requests may run ahead of that */
	__u64 room;
};
_Static_assert(sizeof(struct odm_cap) == 32, "odm_cap");

/* odm_limits[class id * ODM_TYPES + type]: how long an address may live in a class (0: no limit). */
struct odm_limit {
	__u64 longest_ns;
	__u64 bytes; /* sent from it, at most */
};
_Static_assert(sizeof(struct odm_limit) == 16, "odm_limit");

/* odm_usage[class id * ODM_TYPES + type]: how much of it the class has now. */
struct odm_usage {
	struct bpf_spin_lock lock;
	__u32 live;    /* tracked sockets that hold an address of the type */
	__u64 next_ns; /* boot time at which the next request would be in time */
	__u64 told_ns; /* boot time of the last refusal that was told (ODM_E_REFUSED) */
};
_Static_assert(sizeof(struct odm_usage) == 24, "odm_usage");

/*
 * odm_live: tracked sockets by the address that they hold. Anybody may hold an address of a typed prefix
 * that is not configured (FREEBIND), so all of these together have one row, whose address is the
 * wildcard of the family: what a class can add is bounded by what the agent has configured.
 */
struct odm_live_key {
	struct odm_addr addr;
	__u16 class_id;
	__u8 type;
	__u8 pad;
};
_Static_assert(sizeof(struct odm_live_key) == 20, "odm_live_key");

#define ODM_DEFAULT_OF_CLASS 0xff

/* odm_cgroups[cgroup id]: classified cgroups. odm_resolved: what was found for any cgroup. */
struct odm_cgroup {
	__u16 class_id;
	__u8 default_type; /* ODM_DEFAULT_OF_CLASS: the class's own */
	__u8 kept;         /* bit N: of no class now, but its class had allowed type N */
	__u32 epoch;       /* only in odm_resolved: when it was found */
};
_Static_assert(sizeof(struct odm_cgroup) == 8, "odm_cgroup");

/* The class of cgroups that wait for the agent, as a row of odm_classes; no name gets this id. */
#define ODM_UNDECIDED_CLASS 255

/* A set of characters of globs: bit N stands behind the Nth of all. */
struct odm_bits {
	__u64 words[ODM_GLOB_WORDS];
};
_Static_assert(sizeof(struct odm_bits) == 128, "odm_bits");

/* What a byte of a path is to a `*` or a `?` (odm_globs.stays). */
enum odm_byte {
	ODM_BYTE_CHARACTER = 0,
	ODM_BYTE_CONTINUED = 1, /* the second and later ones of a character (UTF-8) */
	ODM_BYTE_SLASH = 2,
	ODM_BYTE_KINDS = 3,
};

/*
 * odm_globs[0, 1]: all globs as one automaton that reads the bytes of a path. A bit that is set says
 * that the path fits a glob up to there; each byte moves bits on by one, or lets them stay at a `*`.
 */
struct odm_globs {
	__u64 generation;
	struct odm_bits delegated; /* of globs that hold in cgroups of others than root, too */
	struct odm_bits ends;      /* behind the last character of a glob */
	struct odm_bits stays[ODM_BYTE_KINDS];
	struct odm_bits moves[ODM_BYTES]; /* by the byte: the bits that it may lead to */
	__u16 class_ids[ODM_GLOB_BITS];   /* by the bit, for those in `ends` */
};
_Static_assert(sizeof(struct odm_globs) == 35464, "odm_globs");

/* odm_steps: the exact paths as a tree, one row for each component. */
struct odm_step_key {
	__u64 generation;
	__u32 node; /* where the cgroup above stands */
	__u32 pad;
	char name[ODM_NAME_SIZE]; /* filled up with zeros */
};
_Static_assert(sizeof(struct odm_step_key) == 272, "odm_step_key");

#define ODM_STEP_ENDS 0x01 /* it is the last component of a path: `class_id` counts */

struct odm_step {
	__u32 node;
	__u16 class_id;
	__u8 flags;
	__u8 pad;
};
_Static_assert(sizeof(struct odm_step) == 8, "odm_step");

/* odm_folders: cgroups below which a pattern may name one. */
struct odm_folder_key {
	__u64 cgroup;
	__u64 generation;
};
_Static_assert(sizeof(struct odm_folder_key) == 16, "odm_folder_key");

#define ODM_FOLDER_TRUSTED 0x01 /* nobody but root makes cgroups here, nor in any above */
#define ODM_FOLDER_GLOBS 0x02   /* `globs` is not empty */

struct odm_folder {
	__u32 node; /* of the exact paths; 0: none leads through here */
	__u8 flags;
	__u8 pad[3];
	struct odm_bits globs; /* how far its path, with a slash, fits them */
};
_Static_assert(sizeof(struct odm_folder) == 136, "odm_folder");

/* odm_births: a new cgroup while it is looked at. */
struct odm_birth {
	struct odm_step_key step;
	struct odm_folder folder; /* the one above, then the new one */
};
_Static_assert(sizeof(struct odm_birth) == 408, "odm_birth");

#define ODM_SOURCE_BROADCAST 0x01
#define ODM_SOURCE_ANY_IP 0x02 /* a span whose every address is local */
#define ODM_SOURCE_MANAGED                                                                         \
	0x08 /* others manage it: their DHCP client sends from there, whatever its class */
#define ODM_SOURCE_SHARED 0x04   /* the host's own, and of a type to classes that may use that */
#define ODM_SOURCE_OF_CLASS 0x10 /* one class's own: odm_offers[prefix_id] says which one's */

/* odm_origins[address], odm_spans[network]: who may send from there. */
struct odm_source {
	__u16 prefix_id; /* 0: untyped */
	__u8 type;
	__u8 flags;
	__u32 lease; /* 0: none, it never ends */
};
_Static_assert(sizeof(struct odm_source) == 8, "odm_source");

struct odm_span_key {
	__u32 prefix_length; /* of the mapped form: 96 + n for IPv4 */
	struct odm_addr addr;
};
_Static_assert(sizeof(struct odm_span_key) == 20, "odm_span_key");

#define ODM_LEASE_HARD 0x01  /* a packet after the budget does not leave */
#define ODM_LEASE_TAKEN 0x02 /* there is a lease, though it may never end */

/*
 * odm_leases[lease id]: until when an address serves (boot time, suspend included), and for how many bytes; a 0
 * is no end. That it is over is worked out at each use and noted nowhere: nobody has to be alive for that.
 */
struct odm_lease {
	__u64 preferred_ns; /* until then, sockets are given it */
	__u64 valid_ns;     /* until then, packets leave from it */
	__u64 budget;       /* with so many bytes sent, sockets are given it no more */
	__u64 warn;         /* with so many, the agent is told */
	__u32 flags;
	__u32 pad;
	__u64 room;
};
_Static_assert(sizeof(struct odm_lease) == 48, "odm_lease");

/* odm_meters[lease id]: what was sent by it (odm_packet_weight). */
struct odm_meter {
	struct bpf_spin_lock lock; /* for hard budgets */
	__u32 told;                /* bit N: an event of kind N was sent */
	__u64 bytes;
	__u64 packets;
	__u64 room;
};
_Static_assert(sizeof(struct odm_meter) == 32, "odm_meter");

/* odm_traffic[class id * ODM_TYPES + type]: what was sent, by each CPU. */
struct odm_traffic {
	__u64 bytes;
	__u64 packets;
};
_Static_assert(sizeof(struct odm_traffic) == 16, "odm_traffic");

enum odm_event_kind {
	ODM_E_WARN = 0,    /* a lease has reached its `warn` */
	ODM_E_SPENT = 1,   /* a lease has reached its budget */
	ODM_E_REFUSED = 2, /* something was refused; not each time */
	ODM_E_NEED = 3,    /* a socket wants a type that no prefix serves; not each time */
	ODM_EVENTS = 4,
};

/* How long after a refusal the next one of the same class and type is not told (REFUSED). */
#define ODM_REFUSED_NS 100000000
/* The same after a need of the same class, type and family (NEED). */
#define ODM_NEED_NS 1000000000

/* What a socket that found nothing asks for beside a type (odm_event.wish, and in a ticket). */
#define ODM_WISH_ON_NET 0x01 /* an address of the network that the host is attached to now */
#define ODM_WISH_FRESH 0x02  /* another address than there are */

/* What stands in odm_events. */
struct odm_event {
	__u64 boot_ns;
	__u32 lease; /* of WARN and SPENT */
	__u16 class_id;
	__u8 kind; /* enum odm_event_kind */
	__u8 type;
	__u8 reason; /* of REFUSED, as is `hook` */
	__u8 hook;
	__u8 family; /* of NEED: enum odm_family */
	__u8 wish;   /* of NEED: ODM_WISH_* */
	__u32 pad2;
};
_Static_assert(sizeof(struct odm_event) == 24, "odm_event");

/*
 * odm_needs[(class id - 1) * share + turn % share]: tickets, each one word. By it a socket that asked for a type which
 * no prefix served is known to the agent: nobody else can make one. The random part keeps others from guessing it.
 */
#define ODM_NEED_CLASS_SHIFT 56
#define ODM_NEED_TYPE_SHIFT 53
#define ODM_NEED_FAMILY_SHIFT 52
#define ODM_NEED_WISH_SHIFT 50
#define ODM_NEED_TURN_SHIFT 32
#define ODM_NEED_TURN_MASK 0x3ffff
#define ODM_NEEDS_OF_CLASS 4 /* a class's share of them is that of odm_dialogue_slots by this */

/* odm_need_turns[class id]. `told_ns`, by type * ODM_FAMILIES + family: boot time of the last event. */
struct odm_need_turn {
	struct bpf_spin_lock lock;
	__u32 next; /* how many tickets the class has had */
	__u64 told_ns[16];
};
_Static_assert(sizeof(struct odm_need_turn) == 136, "odm_need_turn");

/* odm_slots[slot]: an address of a pool. */
struct odm_slot {
	struct odm_addr addr;
	__u32 lease;
};
_Static_assert(sizeof(struct odm_slot) == 20, "odm_slot");

/*
 * A pool is odm_slots[first .. first + size - 1]; size 0: nothing to hand out. The first
 * `configured` addresses exist on an interface, the rest, but for some spares, need FREEBIND (IPv6).
 */
#define ODM_POOL_FIRST(pool) ((__u32)(pool))
#define ODM_POOL_SIZE(pool) ((__u32)((pool) >> 32) & 0xffffu)
#define ODM_POOL_CONFIGURED(pool) ((__u32)((pool) >> 48))

#define ODM_PREFIX_SHARED                                                                          \
	0x01 /* its addresses are everybody's: by the mark alone they leave by its uplink */
#define ODM_PREFIX_ON_REQUEST                                                                      \
	0x02 /* sockets have addresses of their own (`fresh`) only if they ask for new ones */
#define ODM_PREFIX_ON_NET 0x04 /* the network that the host is attached to now serves it */
#define ODM_PREFIX_BY_CLASS                                                                        \
	0x08                  /* no pool: each class has a seat (odm_seats), a row like this one */
#define ODM_PREFIX_WAITS 0x10 /* nothing leaves from it by an uplink, and nobody is told so */

/* odm_offers[prefix id]: what a hook may hand out. */
struct odm_prefix {
	__u8 type;
	__u8 family;
	__u16 spares; /* how many of the pool, its last ones, wait until the others' leases are over */
	__u32 ifindex;           /* the uplink; kept while there is nothing to hand out */
	__u32 mark;              /* 0: none */
	__u16 configured_spares; /* how many of the spares, the first ones, exist on an interface */
	__u16 class_id;          /* of a seat: whose it is; kept as `ifindex` is */
	__u64 pool;              /* ODM_POOL_*: one word, so that a change of pool is seen whole */
	__u64 fresh[2];          /* the key of odm_fresh.h; 0: sockets share addresses */
	__u32 flags;             /* ODM_PREFIX_* */
	__u32 new_until_s; /* boot time; until then its address counts as new to who asks for one */
};
_Static_assert(sizeof(struct odm_prefix) == 48, "odm_prefix");

/*
 * odm_seats[prefix id | class id << ODM_SEAT_CLASS_SHIFT]: where each class has addresses of its own, the number of its
 * row of odm_offers, and so of its mark.
 */
#define ODM_SEAT_CLASS_SHIFT 16

/* odm_turns[prefix id]: IPv4 sockets that are to have addresses of their own take those of the pool in turn. */
struct odm_turn {
	struct bpf_spin_lock lock;
	__u32 next;
};
_Static_assert(sizeof(struct odm_turn) == 8, "odm_turn");

/* odm_choices[type * ODM_FAMILIES + family]: the prefixes that serve it, the best first. */
struct odm_choice {
	__u32 count;
	__u32 prefix_ids[ODM_MAX_CHOICES];
	__u32 pad;
};
_Static_assert(sizeof(struct odm_choice) == 40, "odm_choice");

#define ODM_SOCKET_FOREIGN 0x01  /* of another network namespace */
#define ODM_SOCKET_RAW 0x02      /* a user's raw socket, not the kernel's own */
#define ODM_SOCKET_FREEBIND 0x04 /* may be bound to any-IP addresses */
#define ODM_SOCKET_TRACKED 0x08  /* what it holds is counted */
#define ODM_SOCKET_NONLOCAL 0x10 /* its user may bind it to addresses that the host lacks */
#define ODM_SOCKET_SUBFLOW 0x20  /* of an MPTCP socket: never released by a user */
#define ODM_SOCKET_BOUND 0x40    /* to a typed address by its user, not by us */
#define ODM_SOCKET_GIVEN 0x80    /* UDP: a connect() was given a source, and no mark says so */
#define ODM_SOCKET_ENDING 0x100  /* its address ends at some time, or has (odm_lifetimes) */
#define ODM_SOCKET_DRAWN 0x200   /* `seed` is a turn that was taken for it (odm_turns) */
#define ODM_SOCKET_ON_NET 0x400  /* it asked for an address of the present network */
#define ODM_SOCKET_FRESH 0x800   /* it asked for a new address (odm_lifetimes has which one not) */
#define ODM_SOCKET_REMARKED 0x1000 /* UDP: its user has set a mark, so that its mark says nothing */

/* Why a socket holds its address (odm_socket.holds). */
#define ODM_HELD_BY_USER 0x01   /* until the last descriptor is closed */
#define ODM_HELD_BY_KERNEL 0x02 /* a listener or a connection, until it is in state CLOSE */
#define ODM_HELD_BOUND 0x04     /* by bind(): outlives its connection */

/* How it is counted by address (odm_socket.holds, too); neither: in the row of that address. */
#define ODM_HELD_UNCONFIGURED 0x08 /* in the row of all addresses that are not configured */
#define ODM_HELD_ROWLESS 0x10      /* not at all: odm_live was full */

/* Socket storage; append-only: `room` shrinks, nothing moves. */
struct odm_socket {
	__u8 version;
	__u8 type; /* that the socket asked for */
	__u16 flags;
	__u16 class_id; /* of who asked for the type (else: who made the socket), then */
	__u16 pad;
	__u64 cgroup;              /* of who asked for the type (else: who made the socket) */
	struct bpf_spin_lock lock; /* for what follows */
	__u8 holds;                /* ODM_HELD_*; 0: nothing that counts */
	__u8 held_type;
	__u16 held_class;
	struct odm_addr held;
	__u64 owner; /* whose these are (odm_owner): a listener's child starts with a copy */
	__u64 ticket; /* a row of odm_needs: when it asked, nothing served its type; 0: something did */
	__u32 seed; /* where in pools it looks first; 0: anywhere, each time */
	__u32 turn; /* how many addresses of its own it has had, beside those of its lifetime */
};
_Static_assert(sizeof(struct odm_socket) == 64, "odm_socket");

/*
 * The option's value in full: `value` is that of IPV6_ADDR_PREFERENCES. A set that ends just before `seconds_left`
 * asks for a lifetime, too; one of any other length is `value` alone, whatever follows, as to a stock kernel. All of
 * it is read by who has room for just that.
 */
struct odm_request {
	__u32 value;
	__u32 seconds;      /* so long an address serves the socket; 0: no end */
	__u64 bytes;        /* so many are sent from it; 0: no end */
	__u32 seconds_left; /* of the address that the socket has, rounded up */
	__u32 pad;
	__u64 bytes_left;
};
_Static_assert(sizeof(struct odm_request) == 32, "odm_request");

#define ODM_REQUEST_SIZE 16 /* up to `seconds_left` */

enum odm_outlook_state {
	ODM_OUTLOOK_NONE = 0,    /* no address serves the socket */
	ODM_OUTLOOK_HELD = 1,    /* `addr` is the one that it has */
	ODM_OUTLOOK_OFFERED = 2, /* it has none, and would be given `addr` now */
	ODM_OUTLOOK_UNTOLD = 3,  /* it would be given one of its own, that can't be told yet */
	ODM_OUTLOOKS = 4,
};

/* What is read by who has room for just this: with which address the socket can count. */
struct odm_outlook {
	struct odm_request request;
	struct odm_addr addr;
	__u64 ticket; /* by which the agent lets wait for an address; 0: none was missing */
	__u32 state;  /* enum odm_outlook_state */
	__u32 pad;
};
_Static_assert(sizeof(struct odm_outlook) == 64, "odm_outlook");

enum odm_notice_state {
	ODM_NOTICE_NONE = 0,    /* none of ours: neither its address nor what it wants has a type */
	ODM_NOTICE_UNBOUND = 1, /* it has no address yet */
	ODM_NOTICE_PREFERRED = 2,  /* sockets are given its address */
	ODM_NOTICE_DEPRECATED = 3, /* packets leave from it, but sockets are not given it */
	ODM_NOTICE_OVER = 4,       /* no packet leaves from it any more */
	ODM_NOTICES = 5,
};

/* What is read by who has room for just this: what becomes of the address that the socket has. */
struct odm_notice {
	__u32 value; /* as in odm_request */
	__u8 state;  /* enum odm_notice_state */
	__u8 type;   /* of the address, or else that the socket wants */
	__u16 pad;
	__u64 preferred_ns;   /* boot time; 0: no end is known */
	__u64 valid_ns;       /* boot time; 0: no end is known */
	struct odm_addr addr; /* that it has; the wildcard: none */
	struct odm_addr
		successor; /* if it is not PREFERRED, what it would be given now; the wildcard: none, or untold */
	__u64 room[3];
};
_Static_assert(sizeof(struct odm_notice) == 80, "odm_notice");

/*
 * odm_lifetimes: for how long, and for how many bytes, a socket that asked for this is given the same address. Only
 * such a socket has one, and one that asked for a new address: to that the lifetime of the one it has is over. When
 * it is, the next connect or datagram is given another address.
 */
struct odm_socket_lifetime {
	__u64 length_ns; /* 0: no end */
	__u64 budget;    /* bytes; 0: no end */
	__u64 ends_ns;   /* boot time; of `addr`, as is `bytes` */
	__u64 bytes;
	struct odm_addr addr; /* that it was given; the wildcard: none yet */
	__u32 turn;           /* how many of its own it has had before */
	__u32 over;           /* 1: the socket asked for another one than `addr` */
	__u64 room;
};
_Static_assert(sizeof(struct odm_socket_lifetime) == 64, "odm_socket_lifetime");

/* What the census (an iterator over socket storage) tells of a socket. */
struct odm_census {
	__u64 cookie;
	__u8 type;
	__u8 holds; /* as in odm_socket, and what follows */
	__u8 held_type;
	__u8 pad;
	__u16 held_class;
	__u16 flags;
	struct odm_addr held;
	__u16 class_id; /* as in odm_socket */
	__u16 room[3];
};
_Static_assert(sizeof(struct odm_census) == 40, "odm_census");

/* odm_verdicts: how often. */
struct odm_verdict_key {
	__u16 class_id;
	__u8 type;
	__u8 verdict;
	__u8 reason;
	__u8 hook;
	__u16 pad;
};
_Static_assert(sizeof(struct odm_verdict_key) == 8, "odm_verdict_key");

/* odm_dialogues: a UDP port and a peer of it. */
struct odm_dialogue_key {
	struct odm_addr peer;
	__u16 peer_port; /* network order */
	__u16 port;      /* the host's, in host order */
	__u16 class_id;  /* of the port's socket */
	__u16 protocol;  /* UDP or UDP-Lite */
};
_Static_assert(sizeof(struct odm_dialogue_key) == 24, "odm_dialogue_key");

/*
 * If the peer has begun: the address that it asked. If we have: the address that it was sent to from, and the
 * one before, to which answers may be on their way yet.
 */
struct odm_dialogue {
	struct odm_addr addr;
	struct odm_addr former;
	__u32 ours; /* 1: we have begun */
	__u32 slot; /* the place in odm_dialogue_slots that keeps this row alive */
};
_Static_assert(sizeof(struct odm_dialogue) == 40, "odm_dialogue");

/* odm_dialogue_slots[(class id - 1) * share + turn % share]: the rows of odm_dialogues, in their order. */
struct odm_dialogue_slot {
	struct bpf_spin_lock lock;
	struct odm_dialogue_key key;
};
_Static_assert(sizeof(struct odm_dialogue_slot) == 28, "odm_dialogue_slot");

/* odm_dialogue_turns[class id]. */
struct odm_dialogue_turn {
	struct bpf_spin_lock lock;
	__u32 next; /* how many of the class's dialogues were noted */
};
_Static_assert(sizeof(struct odm_dialogue_turn) == 8, "odm_dialogue_turn");

#endif
