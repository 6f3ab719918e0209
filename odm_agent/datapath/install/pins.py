"""The pin folder: what is in it, whose it is, and how it is taken away.

Everything that enforces lives here, not in a process: maps as `DIR/odm_*`, links as
`DIR/links/odm_*`. Removing a link's pin ends its attachment. `DIR/next` holds programs and maps
that are about to take their place (`swap`).
"""

import ctypes as ct
import fcntl
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from odm_agent.core.errors import DatapathError
from odm_agent.datapath import libbpf
from odm_agent.datapath.catalogue import CGROUP, ELSEWHERE_PINS, MAPS, TRACEPOINTS
from odm_agent.datapath.guards import creation, packet_sockets
from odm_agent.datapath.install import deployment
from odm_agent.datapath.trust import require_trust

log = logging.getLogger(__name__)

_BPFFS_MAGIC: Final = 0xCAFE4A11
_LOCK_TIMEOUT_S: Final = 60.0


def links_folder(pin_dir: Path) -> Path:
    """Where the links are pinned."""
    return pin_dir / "links"


def next_folder(pin_dir: Path) -> Path:
    """Where the next programs and their maps wait until they are put in place."""
    return pin_dir / "next"


@libbpf.os_errors("looking which programs are pinned")
def attached(pin_dir: Path) -> dict[str, libbpf.LinkInfo]:
    """program name -> its pinned link, for those that are there. Raises DatapathError."""
    found = {}
    for name in CGROUP:
        fd = libbpf.find_pinned(links_folder(pin_dir) / name)
        if fd is not None:
            with libbpf.opened(fd):
                found[name] = libbpf.link_info(fd)
    return found


def is_enforcing(pin_dir: Path, cgroup_id: int) -> bool:
    """All programs are attached to that cgroup."""
    return not detached(pin_dir, cgroup_id)


def detached(pin_dir: Path, cgroup_id: int) -> list[str]:
    """The programs that no pin there attaches to that cgroup."""
    links = attached(pin_dir)
    return [n for n in CGROUP if n not in links or links[n].cgroup_id != cgroup_id]


@libbpf.os_errors("looking which programs are attached")
def still_attached(cgroup: Path, programs: Mapping[str, int]) -> list[str]:
    """Which of these programs (name -> id) are attached to the cgroup, whatever their pins.

    A bpf file system that is mounted over them hides pins, and ends nothing. Raises DatapathError.
    """
    try:
        fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    with libbpf.opened(fd):
        return [
            name
            for name, number in programs.items()
            if number in libbpf.attached_to(fd, CGROUP[name].attach_type)
        ]


def unknown(pin_dir: Path) -> list[Path]:
    """Pins of ours that this version has no name for: another version's links and maps."""
    links = links_folder(pin_dir).glob("odm_*")
    known = {*MAPS, *ELSEWHERE_PINS, *TRACEPOINTS, creation.PROGRAM}
    return [p for p in links if p.name not in CGROUP] + [
        p for p in pin_dir.glob("odm_*") if p.name not in known
    ]


@contextmanager
def locked(pin_dir: Path) -> Iterator[int]:
    """Be the only one who changes what is pinned there; yields the lock's descriptor.

    A child that inherits the descriptor holds the lock, too, until it ends.
    """
    fd = os.open(pin_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        give_up = time.monotonic() + _LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise DatapathError(
                        f"somebody else has been changing the pins in {pin_dir} for"
                        f" {_LOCK_TIMEOUT_S:.0f} s; try again, or end that process"
                    ) from None
                time.sleep(0.02)
        yield fd
    finally:
        os.close(fd)


def claim(pin_dir: Path) -> int | None:
    """Be the one agent that works on these pins, as long as the descriptor that it returns is open.

    None where nothing is pinned. DatapathError if another agent does.
    """
    try:
        fd = os.open(links_folder(pin_dir), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        number = os.fstat(fd).st_ino
        os.close(fd)
        raise DatapathError(
            f"an agent{_holder(number)} works on the pins in {pin_dir}, though not at the control"
            " socket that is named here; stop it first, or give its own configuration"
        ) from None
    return fd


def require_unclaimed(pin_dir: Path) -> None:
    """Refuse pins that an agent works on now (DatapathError)."""
    if (fd := claim(pin_dir)) is not None:
        os.close(fd)


def _holder(inode: int) -> str:
    """The process that holds the lock of a file, in words; empty if it can't be told."""
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(inode):
            return f" (pid {fields[4]})"
    return ""


def make_folder(pin_dir: Path) -> None:
    """Make the pin folder, mounting bpffs at /sys/fs/bpf if the folder belongs there."""
    root = Path("/sys/fs/bpf")
    if pin_dir.is_relative_to(root) and not _is_bpffs(root):
        _mount_bpffs(root)
    try:
        links_folder(pin_dir).mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise DatapathError(
            f"making the pin folder {pin_dir}: {error.strerror}; `agent.pin_dir` must be on a bpf"
            " file system, and below it only folders may be made"
        ) from error
    pin_dir.chmod(0o700)
    require_trust(pin_dir)  # it may have been somebody else's all along
    if not _is_bpffs(pin_dir):
        raise DatapathError(f"{pin_dir} is not on a bpf file system; change `agent.pin_dir`")


def remove(pin_dir: Path) -> bool:
    """Detach and unpin all of ours in `pin_dir`; true if there was anything."""
    if not pin_dir.is_dir():
        return False
    with locked(pin_dir):
        clear(pin_dir)
    return True


def clear(pin_dir: Path) -> None:
    """`remove` for who holds the lock."""
    shutil.rmtree(next_folder(pin_dir), ignore_errors=True)
    links = {path.name: path for path in links_folder(pin_dir).glob("odm_*")}
    order = [*(name for name in links if name not in CGROUP), *reversed(CGROUP)]
    for name in order:
        if name in links:
            remove_link(links[name])
    packet_sockets.remove(pin_dir)
    # What stands elsewhere can't be detached: it ends with its last reference, perhaps not at once.
    with suppress(DatapathError):  # these are of another version
        deployment.disown(pin_dir)
    for path in sorted(pin_dir.glob("odm_*")):
        path.unlink()
    for directory in (links_folder(pin_dir), pin_dir):
        if directory.is_dir():
            try:
                directory.rmdir()
            except OSError:
                log.warning(
                    "left a pin folder that holds things of others", extra={"path": pin_dir}
                )


def remove_link(path: Path) -> None:
    """Detach and unpin one link."""
    with libbpf.opened(libbpf.get_pinned(path)) as fd:
        libbpf.link_detach(fd)
    path.unlink()


def _mount_bpffs(where: Path) -> None:
    libc = ct.CDLL(None, use_errno=True)
    if libc.mount(b"bpf", os.fsencode(where), b"bpf", ct.c_ulong(0), None):
        raise DatapathError(
            f"mounting a bpf file system at {where}: {os.strerror(ct.get_errno())}; mount one"
            " there, or set `agent.pin_dir` to a folder on one"
        )


def _is_bpffs(path: Path) -> bool:
    class _StatFs(ct.Structure):
        _fields_ = (("type", ct.c_long), ("rest", ct.c_long * 31))

    libc = ct.CDLL(None, use_errno=True)
    result = _StatFs()
    failed: int = libc.statfs(os.fsencode(path), ct.byref(result))
    return not failed and int(result.type) == _BPFFS_MAGIC
