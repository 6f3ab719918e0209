"""eBPF programs of others on the cgroups that ours are attached to."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from odm_agent.cli.doctor import bpf
from odm_agent.cli.doctor.findings import Finding, Host, missing, ok, warning
from odm_agent.datapath import catalogue

NAME: Final = "foreign programs"
#: Every program of ours is called so (kernel names hold 15 characters).
OUR_PREFIX: Final = "odm_"
#: More cgroups than this are not looked into, and that is said.
MAX_CGROUPS: Final = 5000


def foreign_programs(host: Host) -> Iterator[Finding]:
    """Programs at the attach point, above and below: which of them block ours, which stand beside.

    The kernel lets nothing be attached beside or below an exclusive program (bpf_prog_attach with
    flags 0), and no ALLOW_MULTI one beside an ALLOW_OVERRIDE one.
    """
    from odm_agent.kernel.cgroups import find_root

    root = find_root()
    attach = Path(host.agent.cgroup) if host.agent.cgroup else root
    found = 0
    for place, cgroup in _cgroups(root, attach):
        # A cgroup may go while we look.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for finding in _at(place, cgroup):
                found += 1
                yield finding
    if not found:
        yield ok(NAME, f"none at {attach}, above or below")


def _cgroups(root: Path, attach: Path) -> Iterator[tuple[str, Path]]:
    above = [path for path in attach.parents if path.is_relative_to(root)]
    yield from (("above", path) for path in above)
    yield "at", attach
    below = 0
    for folder, names, _ in os.walk(attach):
        for name in names:
            below += 1
            if below > MAX_CGROUPS:
                return
            yield "below", Path(folder, name)


def _at(place: str, cgroup: Path) -> Iterator[Finding]:
    fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for ours in catalogue.CGROUP.values():
            there = bpf.attached(fd, ours.attach_type)
            names = [name for name in there.names if not name.startswith(OUR_PREFIX)]
            if names:
                yield judge(place, cgroup, ours.hook, names, there.flags)
    finally:
        os.close(fd)


def judge(place: str, cgroup: Path, hook: str, names: list[str], flags: int) -> Finding:
    """What programs of others at a cgroup mean for ours at the attach point."""
    who = ", ".join(names)
    exclusive = not flags & (bpf.ALLOW_MULTI | bpf.ALLOW_OVERRIDE)
    kind = "exclusive" if exclusive else "override" if flags & bpf.ALLOW_OVERRIDE else "multi"
    detail = f"{who} ({kind}) at {hook} of {cgroup}"
    inspect = f"`bpftool cgroup show {cgroup}` shows it"
    if exclusive and place != "below":
        remedy = f"detach it, or have its owner attach it with BPF_F_ALLOW_MULTI; {inspect}"
        return missing(NAME, f"{detail}: the kernel attaches nothing beside it", remedy)
    if place == "at" and flags & bpf.ALLOW_OVERRIDE:
        remedy = f"have its owner attach it with BPF_F_ALLOW_MULTI; {inspect}"
        return missing(NAME, f"{detail}: the kernel attaches nothing beside it", remedy)
    remedy = f"make sure that it refuses no typed source; {inspect}"
    return warning(NAME, f"{detail}: runs beside ours, and what either refuses fails", remedy)
