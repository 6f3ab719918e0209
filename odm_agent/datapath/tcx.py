"""The program of packet sockets at interfaces by links (tcx), which Linux has from 6.6 on.

A link is pinned at `DIR/frames/IFINDEX`.
"""

import errno
import os
from contextlib import suppress
from pathlib import Path
from socket import if_nameindex
from typing import Final

from odm_agent.datapath import libbpf
from odm_agent.errors import DatapathError

_EGRESS: Final = 47


def folder(pin_dir: Path) -> Path:
    """Where the links are pinned."""
    return pin_dir / "frames"


def replace(pin_dir: Path, prog_fd: int) -> None:
    """Put the program in the place of an older one at every interface."""
    for path in _pinned(pin_dir):
        fd = libbpf.get_pinned(path)
        try:
            libbpf.link_update(fd, prog_fd)
        except DatapathError:  # its interface is gone
            path.unlink()
        finally:
            os.close(fd)


def guarded(pin_dir: Path) -> frozenset[int]:
    """The interfaces (by index) that have a living link; also those that have gone."""
    pinned = _pinned(pin_dir)
    here = {index for index, _ in if_nameindex()} if pinned else ()
    return frozenset(
        int(path.name) for path in pinned if int(path.name) not in here or _living(path)
    )


def attach(pin_dir: Path, prog_fd: int, ifindex: int) -> None:
    """Attach at an interface; DatapathError of EINVAL on a kernel without such links."""
    path = folder(pin_dir) / str(ifindex)
    link_fd = libbpf.link_create(prog_fd, ifindex, _EGRESS)
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.unlink(missing_ok=True)
        libbpf.pin(link_fd, path)
    finally:
        os.close(link_fd)


def detach(pin_dir: Path, ifindex: int) -> None:
    """Detach from an interface, or forget one that is gone."""
    path = folder(pin_dir) / str(ifindex)
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
    for path in _pinned(pin_dir):
        detach(pin_dir, int(path.name))
    if folder(pin_dir).is_dir():
        folder(pin_dir).rmdir()


def _pinned(pin_dir: Path) -> list[Path]:
    links = folder(pin_dir)
    return sorted(links.iterdir()) if links.is_dir() else []


def _living(path: Path) -> bool:
    try:
        fd = libbpf.get_pinned(path)
    except DatapathError as error:
        if libbpf.error_code(error) != errno.ENOENT:  # else just removed
            raise
        return False
    try:
        return libbpf.link_ifindex(fd) == int(path.name)
    finally:
        os.close(fd)
