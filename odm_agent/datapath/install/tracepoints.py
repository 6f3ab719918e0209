"""The programs at the kernel's tracepoints of cgroups: they classify new ones inside mkdir(2).

Each is attached by a link that is pinned beside the maps. Such a link can neither take another
program nor be detached: one more is made before the old one's pin goes; without pin it is gone.

Where the kernel can't (it has no BTF, or its structs are called otherwise) they are left out: then
cgroups are classified when the agent sees them.
"""

import os
from functools import cache
from pathlib import Path
from typing import Final

from odm_agent.datapath import libbpf
from odm_agent.datapath.catalogue import TRACEPOINTS

#: What it means that they are not there.
LACKING: Final = "new cgroups wait for the agent to be classified"

#: What the C calls an offset -> the struct, and what its member is called, by kernel.
_OFFSETS: Final = {
    "ODM_CGROUP_NODE": ("cgroup", ("kn",)),
    "ODM_CGROUP_ROOT": ("cgroup", ("root",)),
    "ODM_ROOT_HIERARCHY": ("cgroup_root", ("hierarchy_id",)),
    "ODM_NODE_PARENT": ("kernfs_node", ("parent", "__parent")),
    "ODM_NODE_NAME": ("kernfs_node", ("name",)),
    "ODM_NODE_ID": ("kernfs_node", ("id",)),
}


@cache
def compiler_flags() -> tuple[str, ...]:
    """What the programs must be told of the running kernel; empty: it can't have them."""
    wanted: dict[str, tuple[str, ...]] = {}
    for struct, members in _OFFSETS.values():
        wanted[struct] = wanted.get(struct, ()) + members
    found = libbpf.struct_offsets(wanted)
    flags = ["-DODM_WITH_CGROUPS"]
    for name, (struct, members) in _OFFSETS.items():
        offsets = [found[struct, member] for member in members if (struct, member) in found]
        if not offsets:
            return ()
        flags.append(f"-D{name}={offsets[0]}")
    return tuple(flags)


def complete(pin_dir: Path) -> bool:
    """Whether they are in force, as far as this kernel can have them."""
    return in_force(pin_dir) or not compiler_flags()


def in_force(pin_dir: Path) -> bool:
    """Whether all of them are in force."""
    return all((pin_dir / name).exists() for name in TRACEPOINTS)


def install(pin_dir: Path, name: str, prog_fd: int) -> None:
    """Attach one, in the place of an older one: for a moment both are there."""
    link_fd = libbpf.tracepoint_create(prog_fd, TRACEPOINTS[name].hook)
    try:
        (pin_dir / name).unlink(missing_ok=True)
        libbpf.pin(link_fd, pin_dir / name)
    finally:
        os.close(link_fd)
