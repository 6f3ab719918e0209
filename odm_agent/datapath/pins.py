"""The pin folder: what is in it, whose it is, and how it is taken away.

Everything that enforces lives here, not in a process: maps as `DIR/odm_*`, links as
`DIR/links/odm_*`. Removing a link's pin ends its attachment.
"""

import ctypes as ct
import logging
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from odm_agent.datapath import abi, census, frames, libbpf
from odm_agent.errors import DatapathError
from odm_agent.folders import distrust

log = logging.getLogger(__name__)

#: program name -> (bpf_prog_type, bpf_attach_type) of the kernel's UAPI. In the order of attaching:
#: what refuses and counts first, what hands out addresses last.
PROGRAMS: Final = {
    "odm_sock_release": (9, 34),
    "odm_sock_ops": (13, 3),
    "odm_post_bind4": (9, 12),
    "odm_post_bind6": (9, 13),
    "odm_sock_create": (9, 2),
    "odm_egress": (8, 1),
    "odm_ingress": (8, 0),
    "odm_getsockopt": (25, 21),
    "odm_setsockopt": (25, 22),
    "odm_bind4": (18, 8),
    "odm_bind6": (18, 9),
    "odm_sendmsg4": (18, 14),
    "odm_sendmsg6": (18, 15),
    "odm_connect4": (18, 10),
    "odm_connect6": (18, 11),
}

#: Programs that are not attached to a cgroup, likewise.
OTHER_PROGRAMS: Final = {frames.PROGRAM: (3, 0), census.PROGRAM: (26, 28)}

_BPFFS_MAGIC: Final = 0xCAFE4A11


@dataclass(frozen=True, slots=True)
class Identity:
    """What odm_identities says of the pins."""

    abi_tag: int
    source_hash: bytes


def links_folder(pin_dir: Path) -> Path:
    """Where the links are pinned."""
    return pin_dir / "links"


def read_identity(pin_dir: Path) -> Identity | None:
    """Whose pins these are; None where there are none."""
    path = pin_dir / "odm_identities"
    if not path.exists():
        return None
    identities = libbpf.Map(libbpf.get_pinned(path), ct.c_uint32, abi.Identity, path.name)
    try:
        row = identities.get(0)
    finally:
        identities.close()
    assert row is not None  # an array has all its rows
    return Identity(row.abi_tag, bytes(row.source_hash))


def require_abi(pin_dir: Path) -> Identity | None:
    """The identity of pins that this version can work with; DatapathError for others.

    Anybody may make a folder in a bpf file system: what root did not make is not looked into.
    """
    if reason := distrust(pin_dir):
        raise DatapathError(
            f"{reason}: others could take away what is pinned in {pin_dir}; remove that folder, or"
            " choose another `agent.pin_dir`"
        )
    identity = read_identity(pin_dir)
    if identity is not None and identity.abi_tag not in (0, abi.ABI_TAG):
        raise DatapathError(
            f"the pins in {pin_dir} are of ABI {identity.abi_tag}, this version has"
            f" {abi.ABI_TAG}; run `odm-agent detach` (which ends enforcement), then start again"
        )
    return identity


def attached(pin_dir: Path) -> dict[str, libbpf.LinkInfo]:
    """program name -> its pinned link, for those that are there."""
    found = {}
    for name in PROGRAMS:
        path = links_folder(pin_dir) / name
        if not path.exists():
            continue
        fd = libbpf.get_pinned(path)
        try:
            found[name] = libbpf.link_info(fd)
        finally:
            os.close(fd)
    return found


def is_enforcing(pin_dir: Path, cgroup_id: int) -> bool:
    """All programs are attached to that cgroup."""
    links = attached(pin_dir)
    return len(links) == len(PROGRAMS) and all(i.cgroup_id == cgroup_id for i in links.values())


def make_folder(pin_dir: Path) -> None:
    """Make the pin folder, mounting bpffs at /sys/fs/bpf if the folder belongs there."""
    root = Path("/sys/fs/bpf")
    if pin_dir.is_relative_to(root) and not _is_bpffs(root):
        subprocess.run(["mount", "-t", "bpf", "bpf", str(root)], check=True)
    try:
        links_folder(pin_dir).mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise DatapathError(
            f"making the pin folder {pin_dir}: {error.strerror}; `agent.pin_dir` must be on a bpf"
            " file system, and below it only folders may be made"
        ) from error
    pin_dir.chmod(0o700)
    require_abi(pin_dir)  # it may have been somebody else's all along
    if not _is_bpffs(pin_dir):
        raise DatapathError(f"{pin_dir} is not on a bpf file system; change `agent.pin_dir`")


def remove(pin_dir: Path) -> bool:
    """Detach and unpin all of ours in `pin_dir`; true if there was anything."""
    if not pin_dir.is_dir():
        return False
    for name in reversed(PROGRAMS):
        path = links_folder(pin_dir) / name
        if not path.exists():
            continue
        fd = libbpf.get_pinned(path)
        try:
            libbpf.link_detach(fd)
        finally:
            os.close(fd)
        path.unlink()
    frames.remove(pin_dir)
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
    return True


def _is_bpffs(path: Path) -> bool:
    class _StatFs(ct.Structure):
        _fields_ = (("type", ct.c_long), ("rest", ct.c_long * 31))

    libc = ct.CDLL(None, use_errno=True)
    result = _StatFs()
    failed: int = libc.statfs(os.fsencode(path), ct.byref(result))
    return not failed and int(result.type) == _BPFFS_MAGIC
