"""Keeps Python's collector of cyclic garbage from stopping the agent.

A collection stops every thread for as long as it takes to look at each object of its generation:
for the oldest, with thousands of routes, a second. So only the youngest is collected whenever
Python likes, while it is small, and the others when nobody has to wait long for it.
"""

import ctypes
import gc
import time
from typing import Final

#: So many new objects are looked through in less than a millisecond.
_YOUNG: Final = 2_000
_NEVER: Final = 1 << 30
#: What is old by now has been kept for long, so there is little in it to be found.
_ALL_S: Final = 3600.0


class Garbage:
    """Collected where `tidy` is called: after each piece of work that makes many objects."""

    def __init__(self) -> None:
        """What is there now is there to stay, and not looked at any more."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(_YOUNG, _NEVER, _NEVER)
        # Starting takes more than running: malloc keeps what was freed until it is told not to.
        ctypes.CDLL(None).malloc_trim(0)
        self._due_s = time.monotonic() + _ALL_S

    def tidy(self) -> None:
        """Collect what is young; once an hour, all."""
        if time.monotonic() < self._due_s:
            gc.collect(1)
            return
        gc.collect()
        self._due_s = time.monotonic() + _ALL_S
