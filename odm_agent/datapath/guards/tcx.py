"""The program of packet sockets at interfaces by links (tcx), which Linux has from 6.6 on.

A link is pinned at `DIR/frames/IFINDEX`.
"""

from contextlib import suppress
from pathlib import Path
from socket import if_nameindex
from typing import Final

from odm_agent.core.errors import DatapathError
from odm_agent.datapath import libbpf

_EGRESS: Final = 47


def folder(pin_dir: Path) -> Path:
    """Where the links are pinned."""
    return pin_dir / "frames"


def replace(pin_dir: Path, prog_fd: int) -> None:
    """Put the program in the place of an older one at every interface."""
    for path in _pinned(pin_dir):
        with libbpf.opened(libbpf.get_pinned(path)) as fd:
            try:
                libbpf.link_update(fd, prog_fd)
            except DatapathError:  # its interface is gone
                path.unlink()


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
    with libbpf.opened(libbpf.link_create(prog_fd, ifindex, _EGRESS)) as link_fd:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.unlink(missing_ok=True)
        libbpf.pin(link_fd, path)


def detach(pin_dir: Path, ifindex: int) -> None:
    """Detach from an interface, or forget one that is gone."""
    path = folder(pin_dir) / str(ifindex)
    found = libbpf.find_pinned(path)
    if found is None:
        return
    with libbpf.opened(found) as fd, suppress(DatapathError):
        libbpf.link_detach(fd)
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
    found = libbpf.find_pinned(path)
    if found is None:  # just removed
        return False
    with libbpf.opened(found) as fd:
        return libbpf.link_ifindex(fd) == int(path.name)
