"""Where applications wait for an address: a unix socket for everybody, who can do nothing else.

What is said there is `wait_caller`'s. A ticket was made by a program in the kernel, for a socket
that asked for a type and may have it: whoever shows none makes the agent do nothing.
"""

import asyncio
import logging
import resource
import socket
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from odm_agent.control.listener import Listener
from odm_agent.control.server import UCRED
from odm_agent.control.wait_caller import TOO_MANY, Answers, Caller, Said, Word, tell
from odm_agent.control.watchers import MOST_WATCHERS, Watchers

log = logging.getLogger(__name__)

#: Callers at a time, and those of one user; the others try again, or look at the kernel themselves.
MOST_CALLERS: Final = 4096
MOST_OF_USER: Final = 1024
#: So many are accepted before other work gets its turn.
_AT_ONCE: Final = 64
#: So long nobody is accepted when the system lacks something for it (seconds).
_PAUSE_S: Final = 1.0
#: Of asm/socket.h, which the socket module has not: whether descriptors may be sent there.
_SO_PASSRIGHTS: Final = 83
#: Within this time a caller has said what he wants.
_SAYS_S: Final = 5.0


class WaitServer:
    """Serves everybody, as an async context manager; ControlError if there can be no socket."""

    def __init__(self, path: str, answers: Answers, *, says_s: float = _SAYS_S) -> None:
        self._listener = Listener(Path(path), "waiting socket", "agent.wait_socket", 0o666, 0o755)
        self._answers, self._says_s = answers, says_s
        self._of_user = Counter[int]()
        self._callers: set[Caller] = set()
        self._watchers = Watchers(Word(Said.CHANGED).encoded())
        self._pause: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        self._sock = self._listener.open(MOST_CALLERS)
        with suppress(OSError):  # before 6.16 they can't be refused
            self._sock.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)
        _allow_files()
        self._loop = asyncio.get_running_loop()
        self._listen()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._loop.remove_reader(self._sock)
            if self._pause is not None:
                self._pause.cancel()
            self._watchers.close()
            self._sock.close()
            tasks = [each.task for each in self._callers if each.task is not None]
            for caller in [*self._callers]:
                caller.end()
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            self._listener.remove()

    @property
    def is_watched(self) -> bool:
        """Whether there is anybody for `tell_change` to tell. From any thread."""
        return len(self._watchers) > 0

    def tell_change(self) -> None:
        """What sockets are given has changed: whoever watches is told."""
        self._watchers.tell()

    def _listen(self) -> None:
        self._loop.add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                sock, _address = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:  # no descriptor is left, say
                log.warning("nobody more can wait for now", extra={"error": str(error)})
                self._loop.remove_reader(self._sock)
                self._pause = self._loop.call_later(_PAUSE_S, self._listen)
                return
            self._begin(sock)

    def _begin(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
        _, uid, _ = UCRED.unpack(credentials)
        waiting = len(self._callers) - len(self._watchers)
        if waiting >= MOST_CALLERS or self._of_user[uid] >= MOST_OF_USER:
            tell(sock, TOO_MANY)
            sock.close()
            return
        self._of_user[uid] += 1
        caller = Caller(
            *(sock, self._answers, self._says_s),
            lambda: self._watches(sock, uid),
            lambda: self._end(caller, sock, uid),
        )
        self._callers.add(caller)
        caller.read()

    def _watches(self, sock: socket.socket, uid: int) -> bool:
        """Who watches does not count among those who wait."""
        if not self._watchers.add(sock, uid):
            return False
        self._uncount(uid)
        return True

    def _end(self, caller: Caller, sock: socket.socket, uid: int) -> None:
        self._callers.discard(caller)
        if not self._watchers.remove(sock):
            self._uncount(uid)

    def _uncount(self, uid: int) -> None:
        self._of_user[uid] -= 1
        if not self._of_user[uid]:
            del self._of_user[uid]


def _allow_files() -> None:
    """Each caller is a descriptor, and the agent needs some for itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CALLERS + MOST_WATCHERS + 1024
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(most, soft), hard))
