"""The network namespace that we are in, and ways into others."""

import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from odm_agent.core.errors import KernelError
from odm_agent.text import kernel_lines, mount_point

_SO_NETNS_COOKIE: Final = 71
_CLONE_NEWNET: Final = 0x40000000
_libc: Final = ctypes.CDLL(None, use_errno=True)


def netns_cookie() -> int:
    """The kernel's number of the calling thread's network namespace (never used twice)."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            packed = sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
    except OSError as error:
        raise KernelError(
            f"reading the network namespace's cookie: {error.strerror}. Use a kernel from 5.14 on."
        ) from error
    (cookie,) = struct.unpack("=Q", packed)
    return int(cookie)


def enter(where: Path | int) -> None:
    """Move the calling *thread* into the network namespace at a path, or of a process; for good."""
    path = Path(f"/proc/{where}/ns/net") if isinstance(where, int) else where
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError(
            f"opening the network namespace {path}: {error.strerror}. "
            "List the named ones with: ip netns list."
        ) from error
    try:
        _set(descriptor, str(path))
    finally:
        os.close(descriptor)


@contextmanager
def visit(where: Path | int) -> Iterator[None]:
    """Have the calling *thread* in another network namespace for a while.

    Sockets that are opened meanwhile, and threads that are started, stay there.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(where)
        try:
            yield
        finally:
            _set(home, "home")
    finally:
        os.close(home)


@contextmanager
def inside(cookie: int) -> Iterator[bool]:
    """`visit` the one with this cookie; yields whether it was found (`find`)."""
    if cookie == netns_cookie():
        yield True
    elif (where := find(cookie)) is None:
        yield False
    else:
        with visit(where):
            yield True


def find(cookie: int) -> Path | None:
    """A path to the network namespace with this cookie; None if none can be seen from here.

    What leads to one is a process in it, or a mount (as `ip netns` makes them).
    """
    seen: set[int] = set()
    here = Path("/proc/thread-self/ns/net")
    for path in (here, *Path("/proc").glob("[0-9]*/ns/net"), *_mounts()):
        # A process may end meanwhile.
        with suppress(OSError, KernelError):
            number = path.stat().st_ino
            if number not in seen:
                seen.add(number)
                with visit(path):
                    if netns_cookie() == cookie:
                        return path
    return None


def _mounts() -> Iterator[Path]:
    """Where network namespaces are mounted."""
    for line in kernel_lines(Path("/proc/self/mountinfo")):
        fields = line.split(" ")
        if len(fields) > 4 and fields[3].startswith("net:["):
            yield Path(mount_point(fields[4]))


def _set(descriptor: int, name: str) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        raise KernelError(
            f"entering the network namespace {name}: {os.strerror(ctypes.get_errno())}. "
            "It takes root (CAP_SYS_ADMIN), and a file that is a network namespace."
        )
