"""A timer on the boot-time clock, which goes on while the host is suspended (timerfd_create(2)).

By ctypes: Python has it from 3.13 on.
"""

import ctypes
import os
import time
from contextlib import suppress
from typing import Final

from odm_agent.core.clock import Moment
from odm_agent.core.errors import KernelError

#: linux/timerfd.h: the time is one on the clock, not a time from now on.
ABSOLUTE: Final = 1
#: The kernel's time_t is signed; nothing is due after this.
_MOST_S: Final = 1 << 40


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _ItimerSpec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


_libc: Final = ctypes.CDLL(None, use_errno=True)


def now() -> Moment:
    """This moment."""
    return Moment(time.clock_gettime(time.CLOCK_BOOTTIME), time.time())


def made(clock: int) -> int:
    """A new timer of a clock (time.CLOCK_*), as a descriptor. Raises KernelError."""
    descriptor = int(_libc.timerfd_create(clock, os.O_CLOEXEC | os.O_NONBLOCK))
    if descriptor < 0:
        raise _failed("making")
    return descriptor


def set_to(descriptor: int, at_s: float, flags: int) -> None:
    """Set a timer (timerfd_settime(2)); 0: it never goes off. Raises KernelError."""
    seconds, ns = divmod(int(at_s * 1e9), 10**9)
    spec = _ItimerSpec(value=_Timespec(seconds, ns))
    if _libc.timerfd_settime(descriptor, flags, ctypes.byref(spec), None) < 0:
        raise _failed("setting")


class Timer:
    """Readable from the deadline on that was set last, until it is set anew. Close it when done."""

    def __init__(self) -> None:
        """Not set yet. Raises KernelError."""
        self._fd = made(time.CLOCK_BOOTTIME)

    def fileno(self) -> int:
        """What to wait for."""
        return self._fd

    def set(self, deadline_s: float | None) -> None:
        """Be readable from `deadline_s` (boot-time seconds) on; None: never. Raises KernelError."""
        is_due = deadline_s is not None and deadline_s < _MOST_S
        set_to(self._fd, max(deadline_s or 0.0, 1e-9) if is_due else 0.0, ABSOLUTE)

    def drain(self) -> None:
        """Not readable any more, until it is set anew."""
        with suppress(BlockingIOError):
            os.read(self._fd, 8)

    def close(self) -> None:
        """Close it; once."""
        os.close(self._fd)


def _failed(doing: str) -> KernelError:
    return KernelError(
        f"{doing} a timer: {os.strerror(ctypes.get_errno())}; raise the limit of open files"
    )
