"""The program at interfaces (tc egress) that drops what packet sockets of closed classes send.

It is pinned as a program, `DIR/odm_frames`, and attached by a link where the kernel has such links
(`tcx`), else by a filter (`clsact`). Both outlive the agent.
"""

import errno
from pathlib import Path
from typing import Final

from odm_agent.core.errors import DatapathError
from odm_agent.datapath import libbpf
from odm_agent.datapath.guards import clsact, tcx

PROGRAM: Final = "odm_frames"


def install(pin_dir: Path, prog_fd: int) -> None:
    """Pin the program, and put it in the place of an older one at every interface."""
    path = pin_dir / PROGRAM
    tcx.replace(pin_dir, prog_fd)
    clsact.replace(pin_dir, prog_fd)
    path.unlink(missing_ok=True)
    libbpf.pin(prog_fd, path)


def is_pinned(pin_dir: Path) -> bool:
    """Whether the pin of the program can be seen (a bpf file system may be mounted over it)."""
    return (pin_dir / PROGRAM).exists()


@libbpf.os_errors("looking which interfaces are guarded against packet sockets")
def guarded(pin_dir: Path) -> frozenset[int]:
    """The interfaces (by index) of this namespace that are guarded now, or were until they went."""
    return tcx.guarded(pin_dir) | clsact.guarded(pin_dir)


def guard(pin_dir: Path, ifindex: int) -> None:
    """Attach at an interface; raises DatapathError."""
    try:
        with (
            libbpf.os_errors("keeping what is attached"),
            libbpf.opened(libbpf.get_pinned(pin_dir / PROGRAM)) as prog_fd,
        ):
            _attach(pin_dir, prog_fd, ifindex)
    except DatapathError as error:
        raise DatapathError(
            f"guarding interface {ifindex} against packet sockets: {error}; it is tried again."
            ' Else take "packet" out of `refuse` and CAP_NET_RAW away from the class'
        ) from error


def _attach(pin_dir: Path, prog_fd: int, ifindex: int) -> None:
    try:
        tcx.attach(pin_dir, prog_fd, ifindex)
    except DatapathError as error:
        if libbpf.error_code(error) != errno.EINVAL:
            raise
        clsact.attach(pin_dir, prog_fd, ifindex)  # the kernel is older than 6.6


@libbpf.os_errors("taking a guard against packet sockets away")
def unguard(pin_dir: Path, ifindex: int) -> None:
    """Detach from an interface, or forget one that is gone; raises DatapathError."""
    tcx.detach(pin_dir, ifindex)
    clsact.detach(pin_dir, ifindex)


def remove(pin_dir: Path) -> None:
    """Detach from all interfaces, and remove the pins."""
    tcx.remove(pin_dir)
    clsact.remove(pin_dir)
