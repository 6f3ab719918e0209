"""What of ours is pinned on bpf file systems, as any process sees them.

A bpf file system belongs to a mount namespace: from within another one the pins of an agent can't
be seen, though they hold. So the mount namespaces of all processes are looked into.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from odm_agent.core.errors import DatapathError
from odm_agent.datapath import libbpf
from odm_agent.text import kernel_lines, mount_point

#: A program's name, the index of an interface, or with it a handle.
_OURS: Final = re.compile(r"odm_|\d+(-\d+(-made)?)?$")


@dataclass(frozen=True, slots=True, order=True)
class Folder:
    """A pin folder, as a process sees it; `pid` 0: as we do."""

    path: Path
    pid: int = 0

    def __str__(self) -> str:
        return (
            f"{self.path} in the mount namespace of process {self.pid}"
            if self.pid
            else (f"{self.path}")
        )

    @property
    def detach(self) -> str:
        """The command that takes it away."""
        command = f"odm-agent detach --pin-dir {self.path}"
        return f"nsenter --mount=/proc/{self.pid}/ns/mnt {command}" if self.pid else command


@dataclass(frozen=True, slots=True)
class Pin:
    """Something pinned: `path` leads there from here, `folder` is the pin folder around it."""

    path: Path
    folder: Folder


def links() -> dict[int, Folder]:
    """link id -> where it is pinned, of all links with a name as ours have."""
    found: dict[int, Folder] = {}
    for pin in pins_below("links", "frames"):
        try:
            with libbpf.opened(libbpf.get_pinned(pin.path)) as fd:
                found.setdefault(libbpf.link_info(fd).id, pin.folder)
        except DatapathError:  # gone meanwhile, with its process perhaps
            continue
    return found


def pins_below(*folders: str) -> Iterator[Pin]:
    """What is pinned in folders of these names with a name as ours have; where we see it, first."""
    for pid, root, mount in _mounts():
        for folder, _, files in os.walk(f"{root}{mount}"):
            if os.path.basename(folder) in folders:
                around = Folder(Path(folder.removeprefix(root)).parent, pid)
                yield from (Pin(Path(folder, name), around) for name in files if _OURS.match(name))


def holders(map_id: int) -> list[int]:
    """The processes, but for this one, that have a map open: an agent that runs is among them."""
    line = f"map_id:\t{map_id}\n"
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            files = list((process / "fdinfo").iterdir())
        except OSError:  # it has ended
            continue
        if int(process.name) != os.getpid() and any(line in _text(file) for file in files):
            found.append(int(process.name))
    return sorted(found)


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _mounts() -> Iterator[tuple[int, str, str]]:
    """Of each bpf file system: a process that sees it (0: we), how to get to its root, and where.

    A path that was mounted over shows what is on top.
    """
    devices: set[int] = set()
    yield from ((0, "", mount) for mount in _new_ones(devices, "", "/proc/self/mountinfo"))
    seen = {_namespace("self")}
    for name in os.listdir("/proc"):
        if not name.isdecimal() or (namespace := _namespace(name)) in seen or namespace is None:
            continue
        seen.add(namespace)
        try:
            root = f"/proc/{name}/root"
            mounts = list(_new_ones(devices, root, f"/proc/{name}/mountinfo"))
        except OSError:  # it has ended
            continue
        yield from ((int(name), root, mount) for mount in mounts)


def _new_ones(devices: set[int], root: str, mountinfo: str) -> Iterator[str]:
    """The mounts whose file system is not among `devices` yet; they are added."""
    for mount in _bpf_mounts(mountinfo):
        try:
            device = os.stat(f"{root}{mount}").st_dev
        except OSError:
            continue
        if device not in devices:
            devices.add(device)
            yield mount


def _namespace(process: str) -> str | None:
    try:
        return os.readlink(f"/proc/{process}/ns/mnt")
    except OSError:
        return None


def _bpf_mounts(mountinfo: str) -> list[str]:
    mounts = []
    for line in kernel_lines(Path(mountinfo)):
        fields, _, filesystem = line.partition(" - ")
        if filesystem.startswith("bpf "):
            mounts.append(mount_point(fields.split(" ")[4]))
    return mounts
