"""Every program of ours and where the kernel runs it, and every map: what bpf/odm_maps.h says.

The one list: who compiles, attaches, pins, finds again, or looks what others have attached beside
ours, reads it here. A test compares the maps with what the compiler makes of that file. A map whose
rows change their meaning gets another *name*: so a version never finds, under a name that it knows,
rows that it misreads, and an upgrade shares with the programs in force whatever both know.
"""

import ctypes as ct
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from odm_agent.datapath import abi, census, libbpf
from odm_agent.datapath.guards import packet_sockets


class Program(NamedTuple):
    """`type` is a bpf_prog_type, `attach_type` a bpf_attach_type, `hook` the word for people."""

    hook: str
    type: int
    attach_type: int


#: Those attached to the cgroup by a link each, which is pinned as `DIR/links/NAME`. In the order of
#: attaching: what refuses and counts first, what hands out addresses last.
CGROUP: Final = {
    "odm_sock_release": Program("sock_release", 9, 34),
    "odm_sock_ops": Program("sock_ops", 13, 3),
    "odm_post_bind4": Program("post_bind4", 9, 12),
    "odm_post_bind6": Program("post_bind6", 9, 13),
    "odm_sock_create": Program("sock_create", 9, 2),
    "odm_egress": Program("egress", 8, 1),
    "odm_ingress": Program("ingress", 8, 0),
    "odm_getsockopt": Program("getsockopt", 25, 21),
    "odm_setsockopt": Program("setsockopt", 25, 22),
    "odm_bind4": Program("bind4", 18, 8),
    "odm_bind6": Program("bind6", 18, 9),
    "odm_sendmsg4": Program("sendmsg4", 18, 14),
    "odm_sendmsg6": Program("sendmsg6", 18, 15),
    "odm_connect4": Program("connect4", 18, 10),
    "odm_connect6": Program("connect6", 18, 11),
}

#: Those attached elsewhere, each in its own way: to interfaces, and to an iterator.
ELSEWHERE: Final = {
    packet_sockets.PROGRAM: Program("tc egress", 3, 0),
    census.PROGRAM: Program("socket storage", 26, 28),
}
#: Their pins beside the maps.
ELSEWHERE_PINS: Final = (packet_sockets.PROGRAM, census.PIN)

#: Those at tracepoints, by the tracepoints' names; not on kernels that can't have them. A link
#: each, which is pinned beside the maps by the program's name. In the order of attaching.
TRACEPOINTS: Final = {
    "odm_release": Program("cgroup_release", 17, 0),
    "odm_rmdir": Program("cgroup_rmdir", 17, 0),
    "odm_mkdir": Program("cgroup_mkdir", 17, 0),
}

#: What the loader says, with the reason, when the programs don't serve them.
NO_MPTCP: Final = "Multipath TCP sockets are given no type"

#: But for `creation.PROGRAM`, which may stand at one of two places, or at none.
ALL: Final = CGROUP | ELSEWHERE | TRACEPOINTS

#: The kernel keeps 15 characters of a name, and the compiler takes what says the kind of program
#: off it.
BY_KERNEL_NAME: Final = {name.removeprefix("bpf_iter__")[:15]: name for name in ALL}

#: bpf_map_type and map flags of the kernel's UAPI.
_HASH, _ARRAY, _PERCPU_HASH, _PERCPU_ARRAY, _LRU_HASH, _LPM_TRIE, _RINGBUF = 1, 2, 5, 6, 9, 11, 27
_NO_PREALLOC, _CLONE = 0x1, 0x200

STORAGE: Final = "odm_sockets"
CGROUPS: Final = "odm_cgroups"
IDENTITY: Final = "odm_identities"


@dataclass(frozen=True, slots=True)
class Shape:
    """One map: `key` and `value` are ctypes types, `maker` is who writes its rows."""

    type: int
    key: Any
    value: Any
    max_entries: int
    flags: int
    maker: str

    def differences(self, info: libbpf.MapInfo) -> list[str]:
        """What of a map in the kernel is not as it should be, in words."""
        wanted = {
            "type": self.type,
            "key_size": ct.sizeof(self.key),
            "value_size": ct.sizeof(self.value),
            "max_entries": self.max_entries,
            "flags": self.flags,
        }
        return [
            f"{field} {getattr(info, field)} instead of {value}"
            for field, value in wanted.items()
            if getattr(info, field) != value
        ]


_U32, _U64 = ct.c_uint32, ct.c_uint64
_NOTHING = ct.c_char * 0
MAPS: Final[dict[str, Shape]] = {
    IDENTITY: Shape(_ARRAY, _U32, abi.Identity, 1, 0, "loader"),
    "odm_settings": Shape(_ARRAY, _U32, abi.Settings, 1, 0, "loader"),
    "odm_classes": Shape(_ARRAY, _U32, abi.Class, abi.MAX_CLASSES, 0, "agent"),
    CGROUPS: Shape(_HASH, _U64, abi.Cgroup, abi.MAX_CGROUPS, _NO_PREALLOC, "agent"),
    "odm_resolved": Shape(_LRU_HASH, _U64, abi.Cgroup, abi.MAX_CGROUPS, 0, "hooks"),
    "odm_strangers": Shape(_ARRAY, _U32, _U64, abi.MAX_STRANGERS, 0, "hooks"),
    "odm_globs": Shape(_ARRAY, _U32, abi.Globs, 2, 0, "agent"),
    "odm_steps": Shape(_HASH, abi.StepKey, abi.Step, abi.MAX_STEPS, _NO_PREALLOC, "agent"),
    "odm_folders": Shape(_HASH, abi.FolderKey, abi.Folder, abi.MAX_FOLDERS, _NO_PREALLOC, "agent"),
    "odm_members": Shape(_ARRAY, _U32, _U32, abi.MAX_CLASSES + 1, 0, "hooks"),
    "odm_births": Shape(_PERCPU_ARRAY, _U32, abi.Birth, 1, 0, "hooks"),
    "odm_origins": Shape(_HASH, abi.Addr, abi.Source, abi.MAX_SOURCES, _NO_PREALLOC, "agent"),
    "odm_spans": Shape(_LPM_TRIE, abi.SpanKey, abi.Source, abi.MAX_SPANS, _NO_PREALLOC, "agent"),
    "odm_untyped_blocks": Shape(_ARRAY, _U32, _U64, abi.BLOCK_WORDS, 0, "agent"),
    "odm_offers": Shape(_ARRAY, _U32, abi.Prefix, abi.MAX_PREFIXES, 0, "agent"),
    "odm_seats": Shape(_HASH, _U32, _U32, abi.MAX_PREFIXES, _NO_PREALLOC, "agent"),
    "odm_uplinks": Shape(_HASH, _U32, _U32, abi.MAX_UPLINKS, _NO_PREALLOC, "agent"),
    "odm_slots": Shape(_ARRAY, _U32, abi.Slot, abi.MAX_POOL, 0, "agent"),
    "odm_leases": Shape(_ARRAY, _U32, abi.Lease, abi.MAX_LEASES, 0, "agent"),
    "odm_meters": Shape(_ARRAY, _U32, abi.Meter, abi.MAX_LEASES, 0, "hooks"),
    "odm_traffic": Shape(_PERCPU_ARRAY, _U32, abi.Traffic, abi.USAGES, 0, "hooks"),
    "odm_turns": Shape(_ARRAY, _U32, abi.Turn, abi.MAX_PREFIXES, 0, "hooks"),
    "odm_choices": Shape(_ARRAY, _U32, abi.Choice, abi.CHOICES, 0, "agent"),
    "odm_verdicts": Shape(
        _PERCPU_HASH, abi.VerdictCount, _U64, abi.MAX_VERDICTS, _NO_PREALLOC, "hooks"
    ),
    "odm_dialogues": Shape(
        _HASH, abi.DialogueKey, abi.Dialogue, abi.MAX_DIALOGUES + 1024, _NO_PREALLOC, "hooks"
    ),
    "odm_dialogue_slots": Shape(_ARRAY, _U32, abi.DialogueSlot, abi.MAX_DIALOGUES, 0, "hooks"),
    "odm_dialogue_turns": Shape(_ARRAY, _U32, abi.DialogueTurn, abi.MAX_CLASSES, 0, "hooks"),
    "odm_needs": Shape(_ARRAY, _U32, _U64, abi.MAX_NEEDS, 0, "hooks"),
    "odm_need_turns": Shape(_ARRAY, _U32, abi.NeedTurn, abi.MAX_CLASSES, 0, "hooks"),
    "odm_caps": Shape(_ARRAY, _U32, abi.Cap, abi.USAGES, 0, "agent"),
    "odm_limits": Shape(_ARRAY, _U32, abi.Limit, abi.USAGES, 0, "agent"),
    "odm_usage": Shape(_ARRAY, _U32, abi.Usage, abi.USAGES, 0, "hooks"),
    "odm_live": Shape(_HASH, abi.LiveKey, _U64, abi.MAX_LIVE, _NO_PREALLOC, "hooks"),
    "odm_missed": Shape(_PERCPU_ARRAY, _U32, _U64, abi.MISSED, 0, "hooks"),
    "odm_events": Shape(_RINGBUF, _NOTHING, _NOTHING, abi.MAX_EVENTS, 0, "hooks"),
    STORAGE: Shape(
        libbpf.MAP_SK_STORAGE, ct.c_int32, abi.Socket, 0, _NO_PREALLOC | _CLONE, "hooks"
    ),
    "odm_lifetimes": Shape(
        libbpf.MAP_SK_STORAGE, ct.c_int32, abi.SocketLifetime, 0, _NO_PREALLOC, "hooks"
    ),
    "odm_lifetimes_asked": Shape(_ARRAY, _U32, _U64, 1, 0, "hooks"),
}

#: What is counted of the sockets that the storage knows: it begins anew with a new one.
OF_STORAGE: Final = ("odm_usage", "odm_live")

#: Maps whose rows point into one another: both are shared with the programs in force, or neither.
TOGETHER: Final = (
    ("odm_offers", "odm_slots"),
    ("odm_leases", "odm_meters"),
    ("odm_classes", "odm_caps", "odm_limits"),
    ("odm_settings", "odm_resolved"),
    ("odm_origins", "odm_spans", "odm_untyped_blocks"),
    ("odm_lifetimes", "odm_lifetimes_asked"),
    ("odm_globs", "odm_steps", "odm_folders"),
    ("odm_dialogues", "odm_dialogue_slots", "odm_dialogue_turns"),
    ("odm_needs", "odm_need_turns"),
)
#: Maps that say something only beside another one: shared with the programs in force if that is.
BESIDE: Final = {"odm_strangers": "odm_settings"}
