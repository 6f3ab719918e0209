"""Callers that hang up while they are waited for: what was only for them ends with them."""

import asyncio
import os
import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


class HangUps:
    """Watches sockets for nothing but the end of the connection; nothing is read from them."""

    def __init__(self) -> None:
        """Called on the event loop."""
        self._epoll = select.epoll()
        self._tasks: dict[int, asyncio.Task[Any]] = {}
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._cancel)

    def close(self) -> None:
        """Watch no more."""
        asyncio.get_running_loop().remove_reader(self._epoll.fileno())
        self._epoll.close()

    @contextmanager
    def cancelling(self, descriptor: int) -> Iterator[None]:
        """Within, the current task is cancelled when the far end of a socket is closed.

        Not when it is shut for writing: who has asked all that he wanted still hears the answer.
        """
        task = asyncio.current_task()
        assert task is not None
        # The stream may close its own one at any time, and a closed one is told nothing of.
        own = os.dup(descriptor)
        try:
            self._tasks[own] = task
            self._epoll.register(own, 0)  # EPOLLHUP comes unasked
            yield
        finally:
            del self._tasks[own]
            with suppress(FileNotFoundError):  # told already
                self._epoll.unregister(own)
            os.close(own)

    def _cancel(self) -> None:
        for descriptor, _ in self._epoll.poll(0):
            self._epoll.unregister(descriptor)  # or it would be told again and again
            self._tasks[descriptor].cancel()
