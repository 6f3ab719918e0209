"""One who waits for an address: what he says, and what he is told.

A caller says in `REQUEST` by which ticket, and for how long; he is answered once, by `ANSWER` and a
cause for people, and that is all. Or he says by `WATCH`, in a request of the same size, that he
watches: he hears `CHANGED` at once, and again whenever what sockets are given has changed, until he
or the agent hangs up.
"""

import asyncio
import logging
import socket
import struct
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

log = logging.getLogger(__name__)

#: `MAGIC`, milliseconds, ticket; in host order, as it never leaves the host.
REQUEST: Final = struct.Struct("=4sIQ")
MAGIC: Final = b"ODMw"
#: In the place of `MAGIC`, of who watches; the rest counts for nothing.
WATCH: Final = b"ODMn"
#: `Said`, how many bytes of UTF-8 follow.
ANSWER: Final = struct.Struct("=II")
#: Of a cause so much is told.
_CAUSE_BYTES: Final = 240
#: Nobody waits for longer; who still wants to asks again.
LONGEST_S: Final = 60.0


class Said(IntEnum):
    """What a caller is told (bpf/uapi/odm.h has the same)."""

    READY = 0
    #: The network can't be asked for that type.
    UNSUPPORTED = 1
    #: It could not give it.
    FAILED = 2
    #: It didn't come in time.
    LATE = 3
    #: No socket has such a ticket (any more): ask for the type again.
    UNKNOWN = 4
    #: Too many wait already.
    BUSY = 5
    #: What sockets are given has changed: ask the kernel (to who watches).
    CHANGED = 6


@dataclass(frozen=True, slots=True)
class Word:
    """An answer."""

    said: Said
    cause: str = ""

    def encoded(self) -> bytes:
        """As it goes over the socket."""
        text = self.cause.encode(errors="replace")[:_CAUSE_BYTES]
        return ANSWER.pack(self.said, len(text)) + text


TOO_MANY: Final = Word(Said.BUSY, "too many wait already")


@dataclass(frozen=True, slots=True)
class Answers:
    """Who answers. `known` is what there is to say of a ticket now, None: it is to be waited for;
    `awaited` waits, for so many seconds at most.
    """

    known: Callable[[int], Word | None]
    awaited: Callable[[int, float], Coroutine[Any, Any, Word]]


class Caller:
    """A connection, from its acceptance on; `ended` is called when it is closed.

    Not by streams, with a task or two for each: most have said what they want when they are
    accepted, and what they want is there, so they are answered and gone within `read`.
    """

    def __init__(
        self,
        sock: socket.socket,
        answers: Answers,
        says_s: float,
        watches: Callable[[], bool],
        ended: Callable[[], None],
    ) -> None:
        """Within `says_s` seconds he has to say what he wants. `watches` is called if that is to
        watch: whether he may.
        """
        self._sock, self._answers, self._ended = sock, answers, ended
        self._watches = watches
        self._loop = asyncio.get_running_loop()
        self._said = b""
        self._is_watched = False
        self._silent = self._loop.call_later(says_s, self.end)
        #: What waits for his answer; None: he has not said for what.
        self.task: asyncio.Task[None] | None = None

    def read(self) -> None:
        """Take what he says. Who hangs up, or says more than he has to, is waited for no more."""
        try:
            said = self._sock.recv(REQUEST.size + 1 - len(self._said))
        except BlockingIOError:
            self._watch()
            return
        except OSError:
            said = b""
        self._said += said
        if not said or len(self._said) > REQUEST.size:
            self.end()
        elif len(self._said) == REQUEST.size:
            self._hear()
        else:
            self._watch()

    def end(self) -> None:
        """Hang up."""
        self._silent.cancel()
        if self.task is not None:
            self.task.cancel()
        if self._is_watched:
            self._loop.remove_reader(self._sock)
        self._sock.close()
        self._ended()

    def _watch(self) -> None:
        if not self._is_watched:
            self._is_watched = True
            self._loop.add_reader(self._sock, self.read)

    def _hear(self) -> None:
        self._silent.cancel()
        magic, milliseconds, ticket = REQUEST.unpack(self._said)
        if magic == WATCH:
            if self._watches():
                self._watch()
            else:
                self._tell(TOO_MANY)
            return
        if magic != MAGIC:
            self.end()
            return
        try:
            word = self._answers.known(ticket)
        except Exception:
            log.exception("somebody who waits is given up")
            self.end()
            return
        if word is not None:
            self._tell(word)
            return
        self.task = self._loop.create_task(self._wait(ticket, min(milliseconds / 1000, LONGEST_S)))
        self._watch()

    async def _wait(self, ticket: int, within_s: float) -> None:
        try:
            word = await self._answers.awaited(ticket, within_s)
        except Exception:
            log.exception("somebody who waits is given up")
            self.task = None
            self.end()
        else:
            self.task = None
            self._tell(word)

    def _tell(self, word: Word) -> None:
        """It finds room in the socket whoever reads it, so nobody is waited for to read it."""
        tell(self._sock, word)
        self.end()


def tell(sock: socket.socket, word: Word) -> None:
    """Answer, if he is still there."""
    with suppress(OSError):
        sock.send(word.encoded())
