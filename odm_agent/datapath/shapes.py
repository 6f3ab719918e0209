"""The maps that this version works with: what bpf/odm_maps.h says, for user space.

A test compares it with what the compiler makes of that file. A map whose rows change their meaning
gets another *name*: so a version never finds, under a name that it knows, rows that it misreads,
and an upgrade shares with the programs in force whatever both know.
"""

import ctypes as ct
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from odm_agent.datapath import abi, libbpf
from odm_agent.errors import DatapathError

#: bpf_map_type and map flags of the kernel's UAPI.
_HASH, _ARRAY, _PERCPU_HASH, _PERCPU_ARRAY, _LRU_HASH, _LPM_TRIE = 1, 2, 5, 6, 9, 11
_NO_PREALLOC, _CLONE = 0x1, 0x200

STORAGE: Final = "odm_sockets"
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
MAPS: Final[dict[str, Shape]] = {
    IDENTITY: Shape(_ARRAY, _U32, abi.Identity, 1, 0, "loader"),
    "odm_settings": Shape(_ARRAY, _U32, abi.Settings, 1, 0, "loader"),
    "odm_classes": Shape(_ARRAY, _U32, abi.Class, abi.MAX_CLASSES, 0, "agent"),
    "odm_cgroups": Shape(_HASH, _U64, abi.Cgroup, abi.MAX_CGROUPS, _NO_PREALLOC, "agent"),
    "odm_resolved": Shape(_LRU_HASH, _U64, abi.Cgroup, abi.MAX_CGROUPS, 0, "hooks"),
    "odm_globs": Shape(_ARRAY, _U32, abi.Globs, 2, 0, "agent"),
    "odm_steps": Shape(_HASH, abi.StepKey, abi.Step, abi.MAX_STEPS, _NO_PREALLOC, "agent"),
    "odm_folders": Shape(_HASH, abi.FolderKey, abi.Folder, abi.MAX_FOLDERS, _NO_PREALLOC, "agent"),
    "odm_members": Shape(_ARRAY, _U32, _U32, abi.MAX_CLASSES + 1, 0, "hooks"),
    "odm_births": Shape(_PERCPU_ARRAY, _U32, abi.Birth, 1, 0, "hooks"),
    "odm_sources": Shape(_HASH, abi.Addr, abi.Source, abi.MAX_SOURCES, _NO_PREALLOC, "agent"),
    "odm_spans": Shape(_LPM_TRIE, abi.SpanKey, abi.Source, abi.MAX_SPANS, _NO_PREALLOC, "agent"),
    "odm_prefixes": Shape(_ARRAY, _U32, abi.Prefix, abi.MAX_PREFIXES, 0, "agent"),
    "odm_uplinks": Shape(_HASH, _U32, _U32, abi.MAX_UPLINKS, _NO_PREALLOC, "agent"),
    "odm_pools": Shape(_ARRAY, _U32, abi.Addr, abi.MAX_POOL, 0, "agent"),
    "odm_choices": Shape(_ARRAY, _U32, abi.Choice, abi.CHOICES, 0, "agent"),
    "odm_verdicts": Shape(
        _PERCPU_HASH, abi.VerdictCount, _U64, abi.MAX_VERDICTS, _NO_PREALLOC, "hooks"
    ),
    "odm_asked": Shape(_LRU_HASH, abi.AskedKey, abi.Addr, abi.MAX_ASKED, 0, "hooks"),
    "odm_caps": Shape(_ARRAY, _U32, abi.Cap, abi.USAGES, 0, "agent"),
    "odm_usage": Shape(_ARRAY, _U32, abi.Usage, abi.USAGES, 0, "hooks"),
    "odm_live": Shape(_HASH, abi.LiveKey, _U64, abi.MAX_LIVE, _NO_PREALLOC, "hooks"),
    "odm_missed": Shape(_PERCPU_ARRAY, _U32, _U64, abi.MISSED, 0, "hooks"),
    STORAGE: Shape(
        libbpf.MAP_SK_STORAGE, ct.c_int32, abi.Socket, 0, _NO_PREALLOC | _CLONE, "hooks"
    ),
}

#: What is counted of the sockets that the storage knows: it begins anew with a new one.
OF_STORAGE: Final = ("odm_usage", "odm_live")

#: Maps whose rows point into one another: both are shared with the programs in force, or neither.
TOGETHER: Final = (
    ("odm_prefixes", "odm_pools"),
    ("odm_settings", "odm_resolved"),
    ("odm_globs", "odm_steps", "odm_folders"),
)


def shareable(pin_dir: Path, *, without: frozenset[str] = frozenset()) -> frozenset[str]:
    """The maps pinned there that this version's programs can work on, too.

    DatapathError names those that can't be what their name says.
    """
    found = {name for name in MAPS if (pin_dir / name).exists()} - without
    wrong = []
    for name in sorted(found):
        fd = libbpf.get_pinned(pin_dir / name)
        try:
            differences = MAPS[name].differences(libbpf.map_info(fd))
        finally:
            os.close(fd)
        if differences:
            wrong.append(f"{name} has {', '.join(differences)}")
    if wrong:
        raise DatapathError(
            f"the maps pinned in {pin_dir} are not those of this version: {'; '.join(wrong)}."
            " Go back to the version that made them, or run `odm-agent detach` (which ends"
            " enforcement), then start again"
        )
    for group in TOGETHER:
        if not found.issuperset(group):
            found.difference_update(group)
    return frozenset(found)
