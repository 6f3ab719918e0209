"""Gives up the privileges of this process, but for those that it goes on needing.

The kernel keeps capabilities by thread, and a new thread has those of the one that started it. So
this is for a process that has only its first thread yet.
"""

import ctypes
import os
from collections.abc import Collection
from enum import IntEnum
from pathlib import Path
from typing import Final

from odm_agent.core.errors import KernelError

_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
#: linux/capability.h: two words of 32 bits each.
_VERSION_3: Final = 0x20080522
_libc: Final = ctypes.CDLL(None, use_errno=True)


class Capability(IntEnum):
    """Those that we name; numbers as in linux/capability.h."""

    DAC_READ_SEARCH = 2
    NET_BIND_SERVICE = 10
    NET_ADMIN = 12
    NET_RAW = 13
    SYS_PTRACE = 19
    BPF = 39


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def keep_only(kept: Collection[Capability]) -> list[str]:
    """Give up all capabilities but `kept` (of which those that we lack stay lacking), for good.

    Nothing that is executed later can have more: no set-user-ID bit, no file capability, no uid 0.
    The answer says what could not be done (nothing, usually: in a container without CAP_SETPCAP the
    bounding set stays). Raises KernelError if there are other threads, or if the kernel refuses.
    """
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        raise KernelError(f"dropping capabilities: {threads} threads run, others would keep theirs")
    left = []
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise _failed("setting no_new_privs")
    if _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0):
        left.append(f"clearing the ambient set: {_why()}")
    for number in range(_last() + 1):
        if number in kept or not _libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0):
            continue
        if _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0):
            left.append(f"dropping the bounding set: {_why()}")
            break
    _shrink(sum(1 << number for number in kept))
    return left


def _shrink(mask: int) -> None:
    header = _Header(_VERSION_3, 0)
    sets = (_Sets * 2)()
    if _libc.capget(ctypes.byref(header), sets):
        raise _failed("reading capabilities")
    for word, each in enumerate(sets):
        each.permitted &= mask >> 32 * word & 0xFFFFFFFF
        each.effective = each.permitted
        each.inheritable = 0
    if _libc.capset(ctypes.byref(header), sets):
        raise _failed("dropping capabilities")


def _last() -> int:
    """The highest capability that this kernel knows."""
    try:
        return int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    except OSError as error:
        raise KernelError(f"reading the kernel's last capability: {error.strerror}") from error


def _failed(doing: str) -> KernelError:
    return KernelError(f"{doing}: {_why()}")


def _why() -> str:
    return os.strerror(ctypes.get_errno())
