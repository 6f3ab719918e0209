"""Reads sockets to which anybody on a link may send: so much in so much time, whoever sends it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

#: A socket to which something comes all the time is read once in so long (seconds). With 16
#: messages that are taken at once that makes 320 in a second, far more than is sent; of a flood the
#: kernel drops the rest.
_PAUSE_S: Final = 0.05
#: So often it may be read sooner, after a while without anything: servers answer one message after
#: the other, and connections wait for each answer of a handover.
_SOONER: Final = 16


class Readable(Protocol):
    """What `select` can wait for."""

    def fileno(self) -> int:
        """The descriptor; negative once it is closed."""

    def close(self) -> None:
        """Close it."""


class PacedReader:
    """Sockets, and what reads them. All runs on the event loop; who calls need not."""

    def __init__(self, may_read: Callable[[], bool] = lambda: True) -> None:
        """While `may_read` says no, nothing is read, and it is asked again."""
        self._may_read = may_read
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def is_attached(self) -> bool:
        """Whether there is a loop."""
        return self._loop is not None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """This is the loop."""
        self._loop = loop

    def listen(self, readable: Readable, read: Callable[[], None]) -> None:
        """Call `read` when something has come, again and again. From any thread."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._listen, readable, read, 0.0)

    def leave(self, readable: Readable) -> None:
        """Read it no more, and close it. From any thread."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self.drop, readable)

    def drop(self, readable: Readable) -> None:
        """The same at once, on the loop."""
        assert self._loop is not None
        with suppress(ValueError):
            self._loop.remove_reader(readable.fileno())
        readable.close()

    def _listen(self, readable: Readable, read: Callable[[], None], due_s: float) -> None:
        """`due_s`: when the next reading is due, at one in `_PAUSE_S` (the loop's time)."""
        if readable.fileno() < 0:  # it was closed meanwhile
            return
        assert self._loop is not None
        if self._may_read():
            self._loop.add_reader(readable.fileno(), self._read, readable, read, due_s)
        else:
            self._loop.call_later(_PAUSE_S, self._listen, readable, read, due_s)

    def _read(self, readable: Readable, read: Callable[[], None], due_s: float) -> None:
        assert self._loop is not None
        self._loop.remove_reader(readable.fileno())
        read()
        now_s = self._loop.time()
        next_s = max(due_s, now_s) + _PAUSE_S
        early_s = next_s - _SOONER * _PAUSE_S
        self._loop.call_at(max(now_s, early_s), self._listen, readable, read, next_s)
