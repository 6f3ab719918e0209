"""Who watches: callers who are told that what sockets are given has changed, and nothing else.

What became of a socket's address they then ask the kernel. So a word says nothing but that there is
something to ask, and one that waits to be read stands for all that follow: no watcher holds more
than one, however slow he is, and what he asks after reading it is the newest.
"""

import asyncio
import fcntl
import socket
import termios
from collections import Counter
from contextlib import suppress
from typing import Final

#: Watchers at a time, and those of one user; the others ask the kernel again and again.
MOST_WATCHERS: Final = 1024
MOST_OF_USER: Final = 256
#: The pause between two words: what changes meanwhile is one change.
_PAUSE_S: Final = 0.02


class Watchers:
    """Connections to which `word` is written; all of it on one event loop."""

    def __init__(self, word: bytes) -> None:
        """Nobody watches yet."""
        self._word = word
        self._watching: dict[socket.socket, int] = {}
        self._of_user = Counter[int]()
        self._pause: asyncio.TimerHandle | None = None
        self._again = False

    def __len__(self) -> int:
        return len(self._watching)

    def add(self, sock: socket.socket, uid: int) -> bool:
        """Have a caller watch, who hears at once that he may ask; False: too many do."""
        if len(self._watching) >= MOST_WATCHERS or self._of_user[uid] >= MOST_OF_USER:
            return False
        self._watching[sock] = uid
        self._of_user[uid] += 1
        self._tell(sock)
        return True

    def remove(self, sock: socket.socket) -> bool:
        """He watches no more; whether he has."""
        if (uid := self._watching.pop(sock, None)) is None:
            return False
        self._of_user[uid] -= 1
        if not self._of_user[uid]:
            del self._of_user[uid]
        return True

    def tell(self) -> None:
        """What sockets are given has changed: at once, or after a pause since the last time."""
        if self._pause is not None:
            self._again = True
            return
        for sock in self._watching:
            self._tell(sock)
        self._pause = asyncio.get_running_loop().call_later(_PAUSE_S, self._go_on)

    def close(self) -> None:
        """Nobody is told anything any more."""
        if self._pause is not None:
            self._pause.cancel()

    def _go_on(self) -> None:
        self._pause = None
        if self._again:
            self._again = False
            self.tell()

    def _tell(self, sock: socket.socket) -> None:
        """Whoever is gone is found by who reads from him."""
        with suppress(OSError):
            if not _is_unread(sock):
                sock.send(self._word)


def _is_unread(sock: socket.socket) -> bool:
    """Whether the far end has yet to read something (SIOCOUTQ)."""
    return any(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
