"""The program at interfaces (tc egress) that drops what packet sockets of closed classes send.

It is pinned as a program, `DIR/odm_frames`, and at each interface as a link, `DIR/frames/IFINDEX`;
both outlive the agent. Kernels before 6.6 have no such links.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from odm_agent.datapath import libbpf
from odm_agent.errors import DatapathError

PROGRAM: Final = "odm_frames"
_TCX_EGRESS: Final = 47


def links_folder(pin_dir: Path) -> Path:
    """Where the links are pinned."""
    return pin_dir / "frames"


def install(pin_dir: Path, prog_fd: int) -> None:
    """Pin the program, and put it in the place of an older one at every interface."""
    path = pin_dir / PROGRAM
    for link in _pinned(pin_dir):
        fd = libbpf.get_pinned(link)
        try:
            libbpf.link_update(fd, prog_fd)
        except DatapathError:  # its interface is gone
            link.unlink()
        finally:
            os.close(fd)
    path.unlink(missing_ok=True)
    libbpf.pin(prog_fd, path)


def guarded(pin_dir: Path) -> frozenset[int]:
    """The interfaces (by index) of this namespace that are guarded."""
    return frozenset(int(link.name) for link in _pinned(pin_dir) if _living(link))


def guard(pin_dir: Path, ifindex: int) -> None:
    """Attach at an interface; raises DatapathError, on a kernel without tcx links too."""
    path = links_folder(pin_dir) / str(ifindex)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.unlink(missing_ok=True)
    prog_fd = libbpf.get_pinned(pin_dir / PROGRAM)
    try:
        link_fd = libbpf.link_create(prog_fd, ifindex, _TCX_EGRESS)
    except DatapathError as error:
        raise DatapathError(
            f"guarding interface {ifindex} against packet sockets: {error}; needs a kernel from 6.6"
            ' on, else take "packet" out of `refuse` and CAP_NET_RAW away from the class'
        ) from error
    finally:
        os.close(prog_fd)
    try:
        libbpf.pin(link_fd, path)
    finally:
        os.close(link_fd)


def unguard(pin_dir: Path, ifindex: int) -> None:
    """Detach from an interface, or forget one that is gone."""
    path = links_folder(pin_dir) / str(ifindex)
    if not path.exists():
        return
    fd = libbpf.get_pinned(path)
    try:
        with suppress(DatapathError):
            libbpf.link_detach(fd)
    finally:
        os.close(fd)
    path.unlink()


def remove(pin_dir: Path) -> None:
    """Detach from all interfaces, and remove the pins."""
    for link in _pinned(pin_dir):
        unguard(pin_dir, int(link.name))
    if links_folder(pin_dir).is_dir():
        links_folder(pin_dir).rmdir()


def _pinned(pin_dir: Path) -> list[Path]:
    folder = links_folder(pin_dir)
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _living(link: Path) -> bool:
    fd = libbpf.get_pinned(link)
    try:
        return libbpf.link_ifindex(fd) == int(link.name)
    finally:
        os.close(fd)
