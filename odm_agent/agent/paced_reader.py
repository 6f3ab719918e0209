"""Reads sockets to which anybody on a link may send: so much in so much time, whoever sends it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

#: After something has come a socket is not read for so long (seconds). With 16 messages that are
#: taken at once that makes 320 in a second, far more than is sent; of a flood the kernel drops the
#: rest.
_PAUSE_S: Final = 0.05


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
        self._loop.call_soon_threadsafe(self._listen, readable, read)

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

    def _listen(self, readable: Readable, read: Callable[[], None]) -> None:
        if readable.fileno() < 0:  # it was closed meanwhile
            return
        assert self._loop is not None
        if self._may_read():
            self._loop.add_reader(readable.fileno(), self._read, readable, read)
        else:
            self._loop.call_later(_PAUSE_S, self._listen, readable, read)

    def _read(self, readable: Readable, read: Callable[[], None]) -> None:
        assert self._loop is not None
        self._loop.remove_reader(readable.fileno())
        read()
        self._loop.call_later(_PAUSE_S, self._listen, readable, read)
