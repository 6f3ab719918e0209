"""Notices that the host was suspended: its link may be another one when it goes on.

Whatever sets the clock of the day wakes us (timerfd_create(2), TFD_TIMER_CANCEL_ON_SET), and so
does the end of a suspend; that it was one, the two clocks say of which only one goes on meanwhile.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from odm_agent.kernel.timer import ABSOLUTE, made, set_to

#: linux/timerfd.h.
_CANCEL_ON_SET: Final = 1 << 1
#: When it would go off if the clock was never set (seconds since 1970): in centuries.
_NEVER_S: Final = 1 << 33
#: A shorter sleep than this is none (seconds).
_LEAST_S: Final = 0.1
#: The clocks are read one after the other, which must not take long (seconds), in so many attempts.
_TOGETHER_S: Final = 0.001
_ATTEMPTS: Final = 20


def slept_s() -> float:
    """For how long the host has been suspended since it was booted (seconds)."""
    found = 0.0
    for _ in range(_ATTEMPTS):
        before = time.clock_gettime(time.CLOCK_MONOTONIC)
        boot = time.clock_gettime(time.CLOCK_BOOTTIME)
        after = time.clock_gettime(time.CLOCK_MONOTONIC)
        found = boot - after
        if after - before < _TOGETHER_S:
            break
    return found


class SuspendWatch:
    """Readable when the host may have been suspended. Close it when done."""

    def __init__(self, slept: Callable[[], float] = slept_s) -> None:
        """Raises KernelError."""
        self._slept = slept
        self._known_s = slept()
        self._fd = made(time.CLOCK_REALTIME)
        try:
            set_to(self._fd, _NEVER_S, ABSOLUTE | _CANCEL_ON_SET)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """What to wait for."""
        return self._fd

    def take(self) -> float:
        """For how long it was suspended since this was asked last (seconds); 0: it was not, and
        somebody has set the clock. Not readable any more.
        """
        with suppress(OSError):  # ECANCELED says that the clock was set; it stays armed
            os.read(self._fd, 8)
        before, self._known_s = self._known_s, self._slept()
        slept = self._known_s - before
        return slept if slept >= _LEAST_S else 0.0

    def close(self) -> None:
        """Close it; once."""
        os.close(self._fd)
