"""The cgroup v2 hierarchy: where it is, ids and paths, and which cgroups a pattern names."""

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from odm_agent.core.errors import KernelError
from odm_agent.policy.globs import is_glob, parts_of
from odm_agent.text import kernel_lines, mount_point, printable

_libc: Final = ctypes.CDLL(None, use_errno=True)
#: What the kernel says of a cgroup that was removed meanwhile.
GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENODEV})
#: File handle type of kernfs, by which cgroups are found by id (include/linux/exportfs.h).
_FILEID_KERNFS: Final = 0xFE
#: struct file_handle: length and type of the handle, then here the id.
_FILE_HANDLE: Final = struct.Struct("=IiQ")


@dataclass(frozen=True, slots=True)
class Refused:
    """A cgroup that a glob matches but that is not classified, and why (a sentence's end)."""

    path: str
    pattern: str
    reason: str


@dataclass(frozen=True, slots=True)
class Matches:
    """What patterns name now: ids by path below the root, and what was refused."""

    cgroups: dict[str, int] = field(default_factory=dict)
    refused: tuple[Refused, ...] = ()


def find_root() -> Path:
    """Where the cgroup v2 hierarchy is mounted; of several mounts the one that shows most.

    Raises KernelError if there is none.
    """
    best: tuple[int, Path] | None = None
    for shown, mounted in _mounts():
        # "/" is all of it; deeper ones show a part; "/.." is out of our cgroup namespace.
        if "/.." in shown or not (mounted / "cgroup.procs").exists():
            continue
        if best is None or len(shown) < best[0]:
            best = (len(shown), mounted)
    if best is None:
        raise KernelError(
            "finding the cgroup v2 hierarchy: it is not mounted. "
            "Mount it (mount -t cgroup2 none /sys/fs/cgroup/unified) or boot with systemd."
        )
    return best[1]


def cgroup_id(path: Path) -> int:
    """The kernel's number of a cgroup, as bpf_get_current_cgroup_id() and sock_diag tell it.

    It is the inode number on 64-bit kernels. Raises KernelError.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise KernelError(
            f"looking up the cgroup {path}: {error.strerror}. It may have been removed just now; "
            "systemd-cgls shows what there is."
        ) from error
    if not stat.S_ISDIR(found.st_mode):
        raise KernelError(f"looking up the cgroup {path}: it is not a cgroup (a directory).")
    return found.st_ino


def path_of(root: Path, cgroup: int) -> Path | None:
    """The cgroup with this id below `root`, or None if it is gone or elsewhere, or `root` is gone.

    Takes CAP_DAC_READ_SEARCH; raises KernelError without.
    """
    path = _found(root, cgroup)
    return path if path is not None and path.is_relative_to(root) else None


def is_removed(root: Path, cgroup: int) -> bool:
    """Whether the cgroup with this id is nowhere in the hierarchy of `root` (or `root` is gone).

    Takes CAP_DAC_READ_SEARCH; raises KernelError without.
    """
    return _found(root, cgroup) is None


def _found(root: Path, cgroup: int) -> Path | None:
    """Where a cgroup is, as far as it can be seen; None: it was removed."""
    handle = ctypes.create_string_buffer(_FILE_HANDLE.pack(8, _FILEID_KERNFS, cgroup))
    try:
        mount = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            descriptor = _libc.open_by_handle_at(mount, handle, os.O_PATH | os.O_CLOEXEC)
            code = ctypes.get_errno()
        finally:
            os.close(mount)
        if descriptor < 0:
            if code == errno.ESTALE:  # removed
                return None
            raise OSError(code, os.strerror(code))
        try:
            return Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in GONE:
            return None
        raise KernelError(
            f"finding the cgroup with id {cgroup}: {error.strerror}. It takes root."
        ) from error


def current_cgroup(pid: int) -> Path:
    """The v2 cgroup of a process, as a path below the mount. Raises KernelError."""
    try:
        lines = kernel_lines(Path(f"/proc/{pid}/cgroup"))
    except OSError as error:
        raise KernelError(
            f"reading the cgroup of process {pid}: {error.strerror}. It may have ended."
        ) from error
    name = next((line[3:] for line in lines if line.startswith("0::")), None)
    if name is None or name.startswith("/..") or name.endswith(" (deleted)"):
        raise KernelError(
            f"reading the cgroup of process {pid}: it is not in a cgroup v2 that can be seen "
            f"from here ({name or 'none'}). Look from outside the container."
        )
    root = find_root()
    shown = next(shown for shown, mounted in _mounts() if mounted == root)
    if not Path(name).is_relative_to(shown):
        raise KernelError(
            f"reading the cgroup of process {pid}: {name} is outside of what is mounted at {root}. "
            "Mount the whole hierarchy."
        )
    return root / Path(name).relative_to(shown)


def expand(root: Path, patterns: Iterable[str], *, delegated: bool = False) -> Matches:
    """The cgroups below `root` that `patterns` name: exact paths, or globs part by part.

    A glob matches only below cgroups that nobody but root can make children in (at every level
    from `root` on), for elsewhere anybody could name a cgroup so that it matches; `delegated`
    lifts that. Cgroups that come or go meanwhile may be in the result or not. Raises KernelError.
    """
    cgroups: dict[str, int] = {}
    refused: dict[tuple[str, str], Refused] = {}
    known: dict[Path, str | None] = {}
    for pattern in patterns:
        trusted = delegated or not is_glob(pattern)
        for path in matching(root, parts_of(pattern)):
            name = str(path.relative_to(root))
            reason = None if trusted else distrust(root, path, known)
            if reason is not None:
                refused[name, pattern] = Refused(name, pattern, reason)
                continue
            try:
                cgroups[name] = cgroup_id(path)
            except KernelError:
                continue  # gone again
    return Matches(cgroups, tuple(refused.values()))


def matching(root: Path, pattern: tuple[str, ...]) -> Iterator[Path]:
    """The directories that match, descending only where a part of the pattern does.

    Raises KernelError.
    """
    if not pattern:
        yield root
        return
    first, rest = pattern[0], pattern[1:]
    if not is_glob(first):
        if first not in (".", "..") and os.path.isdir(root / first):
            yield from matching(root / first, rest)
        return
    try:
        with os.scandir(root) as entries:
            names = sorted(
                entry.name
                for entry in entries
                if entry.is_dir(follow_symlinks=False) and fnmatchcase(entry.name, first)
            )
    except OSError as error:
        if error.errno in GONE:
            return
        raise KernelError(
            f"listing the cgroups in {printable(str(root))}: {error.strerror}. It is tried again."
        ) from error
    for name in names:
        yield from matching(root / name, rest)


def distrust(root: Path, path: Path, known: dict[Path, str | None]) -> str | None:
    """Why others than root could have made `path`, or None; `known` are the answers so far."""
    above = path.parent
    while True:
        if above not in known:
            known[above] = writable(above)
        if known[above] is not None:
            return known[above]
        if above == root or root not in above.parents:
            return None
        above = above.parent


def writable(folder: Path) -> str | None:
    """Who but root may make cgroups or put processes here; None: nobody."""
    for path in (folder, folder / "cgroup.procs"):
        try:
            found = path.stat()
        except OSError as error:
            if error.errno in GONE:
                return f"{folder} was removed"
            return f"{path} can't be looked at ({error.strerror})"
        if found.st_uid != 0:
            return f"{path} belongs to uid {found.st_uid}, not to root"
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return f"{path} may be written to by others than root"
    return None


def _mounts() -> list[tuple[str, Path]]:
    """Of each cgroup v2 mount the part that it shows, and where."""
    found = []
    try:
        lines = kernel_lines(Path("/proc/self/mountinfo"))
    except OSError as error:
        raise KernelError(
            f"looking where the cgroup hierarchy is mounted: {error.strerror}. Mount /proc."
        ) from error
    for line in lines:
        fields, _, rest = line.partition(" - ")
        if rest.startswith("cgroup2 "):
            shown, mounted = fields.split(" ")[3:5]
            found.append((mount_point(shown), Path(mount_point(mounted))))
    return found
