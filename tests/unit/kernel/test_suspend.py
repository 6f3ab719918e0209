"""A suspend is told from a clock that was set. Here none can be tried: clocks stand in for it."""

import ctypes
import select
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from odm_agent.kernel.suspend import SuspendWatch, slept_s
from tests.lab.process import forked
from tests.lab.root import needs_root

#: linux/sched.h.
_NEW_TIME: Final = 0x80


def _wake() -> None:
    """Set the clock of the day to what it says, as after a suspend the kernel sets it anew."""
    with suppress(PermissionError):
        time.clock_settime(time.CLOCK_REALTIME, time.clock_gettime(time.CLOCK_REALTIME))
        return
    pytest.skip("the clock can't be set here")


def _is_readable(watch: SuspendWatch, within_s: float = 0.0) -> bool:
    poll = select.poll()
    poll.register(watch.fileno(), select.POLLIN)
    return bool(poll.poll(within_s * 1000))


def test_how_long_it_was_is_told_once() -> None:
    slept = 7.0
    watch = SuspendWatch(lambda: slept)
    assert watch.take() == 0.0
    slept = 3607.5
    assert watch.take() == 3600.5
    assert watch.take() == 0.0
    watch.close()


@needs_root
def test_whoever_sets_the_clock_wakes_it_each_time_and_is_no_suspend() -> None:
    watch = SuspendWatch()
    for _ in range(3):
        _wake()
        assert _is_readable(watch, 10.0)
        assert watch.take() == 0.0
        assert not _is_readable(watch)
    watch.close()


@needs_root
def test_the_kernels_own_clocks_tell_it() -> None:
    """In a time namespace the boot-time clock is ahead, as it is after a suspend of an hour."""

    def child() -> tuple[float, float, float]:
        libc = ctypes.CDLL(None, use_errno=True)
        watch = SuspendWatch()
        before = watch.take()
        if libc.unshare(_NEW_TIME):
            raise OSError(ctypes.get_errno(), "unshare")
        Path("/proc/self/timens_offsets").write_text("boottime 3600 0\n")
        with Path("/proc/self/ns/time_for_children").open() as namespace:
            if libc.setns(namespace.fileno(), _NEW_TIME):
                raise OSError(ctypes.get_errno(), "setns")
        return before, watch.take(), watch.take()

    before, slept, after = forked(child)
    assert (before, after) == (0.0, 0.0)
    assert slept == pytest.approx(3600, abs=0.1)


def test_the_clocks_agree_with_each_other() -> None:
    assert slept_s() == pytest.approx(slept_s(), abs=0.01)
