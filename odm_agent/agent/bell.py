"""Wakes coroutines that wait for what other threads bring about."""

import asyncio
from collections.abc import Awaitable, Callable
from threading import Lock
from typing import TypeVar

T = TypeVar("T")


class Bell:
    """Rung from any thread, which never waits for those who listen."""

    def __init__(self) -> None:
        """Nobody listens."""
        self._lock = Lock()
        self._listening: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    def ring(self) -> None:
        """Something has happened: whoever listens looks again. Many rings are one look."""
        with self._lock:
            woken, self._listening = self._listening, {}
        for rung, loop in woken.items():
            loop.call_soon_threadsafe(rung.set)

    async def until(self, look: Callable[[], Awaitable[T | None]], within_s: float) -> T | None:
        """What `look` finds, now or after a ring; None: nothing in this time."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(within_s) as limit:
                while True:
                    rung = asyncio.Event()
                    with self._lock:  # before it looks: what happens meanwhile is not missed
                        self._listening[rung] = loop
                    try:
                        if (found := await look()) is not None:
                            return found
                        await rung.wait()
                    finally:
                        with self._lock:
                            self._listening.pop(rung, None)
        except TimeoutError:
            if not limit.expired():
                raise
            return None
