"""The kernel's own timer: readable when it is time, and not before."""

import select
import time

from odm_agent.kernel.timer import Timer, now


def _is_readable(timer: Timer, within_s: float) -> bool:
    poll = select.poll()
    poll.register(timer.fileno(), select.POLLIN)
    return bool(poll.poll(within_s * 1000))


def test_it_is_readable_from_the_deadline_on_until_it_is_drained() -> None:
    timer = Timer()
    timer.set(now().boot_s + 0.05)
    assert _is_readable(timer, 10.0)
    assert now().boot_s > 0.05
    timer.drain()
    timer.drain()
    assert not _is_readable(timer, 0.0)
    timer.close()


def test_a_deadline_in_the_past_is_due_now_and_never_is_never() -> None:
    timer = Timer()
    timer.set(0.0)
    assert _is_readable(timer, 10.0)
    timer.set(None)
    assert not _is_readable(timer, 0.0)
    timer.set(float("inf"))
    assert not _is_readable(timer, 0.0)
    timer.set(now().boot_s + 3600)
    assert not _is_readable(timer, 0.0)
    timer.close()


def test_now_is_on_the_clock_of_deadlines() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= now().boot_s <= time.clock_gettime(time.CLOCK_BOOTTIME)
