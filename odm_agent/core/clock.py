"""Time as a value: whoever decides by it is told when it is."""

from dataclasses import dataclass
from typing import Final

#: A moment that never comes.
NEVER: Final = float("inf")


def left_s(until_s: float, at_s: float) -> float | None:
    """How many seconds are left then until a moment on the same clock; None: it never comes."""
    return None if until_s == NEVER else max(0.0, until_s - at_s)


@dataclass(frozen=True, slots=True)
class Moment:
    """One moment on two clocks, in seconds.

    `boot_s` counts from the boot on, through suspend, and nobody can set it (CLOCK_BOOTTIME): all
    deadlines are on it. `wall_s` is Unix time, which still means something after a boot.
    """

    boot_s: float
    wall_s: float

    def wall_at(self, boot_s: float) -> float:
        """What the wall clock shows at `boot_s`, as far as can be said now."""
        return self.wall_s + (boot_s - self.boot_s)

    def boot_at(self, wall_s: float) -> float:
        """When the wall clock shows `wall_s`, as far as can be said now."""
        return self.boot_s + (wall_s - self.wall_s)
