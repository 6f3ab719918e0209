"""Where applications wait for an address: a unix socket for everybody, who can do nothing else.

A caller says in `REQUEST` by which ticket, and for how long; he is answered once, by `ANSWER` and a
cause for people, and that is all. The ticket was made by a program in the kernel, for a socket that
asked for a type and may have it: whoever shows none makes the agent do nothing.
"""

import asyncio
import logging
import resource
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from odm_agent.control.callers import Callers
from odm_agent.control.listener import Listener
from odm_agent.control.server import UCRED

log = logging.getLogger(__name__)

#: `MAGIC`, milliseconds, ticket; in host order, as it never leaves the host.
REQUEST: Final = struct.Struct("=4sIQ")
MAGIC: Final = b"ODMw"
#: `Said`, how many bytes of UTF-8 follow.
ANSWER: Final = struct.Struct("=II")
#: Of a cause so much is told.
_CAUSE_BYTES: Final = 240

#: Callers at a time, and those of one user; the others try again, or look at the kernel themselves.
MOST_CALLERS: Final = 4096
MOST_OF_USER: Final = 1024
#: Of asm/socket.h, which the socket module has not: whether descriptors may be sent there.
_SO_PASSRIGHTS: Final = 83
#: Within this time a caller has said what he wants.
_SAYS_S: Final = 5.0
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


@dataclass(frozen=True, slots=True)
class Word:
    """An answer."""

    said: Said
    cause: str = ""

    def encoded(self) -> bytes:
        """As it goes over the socket."""
        text = self.cause.encode(errors="replace")[:_CAUSE_BYTES]
        return ANSWER.pack(self.said, len(text)) + text


#: Waits for the address of a ticket, for so many seconds at most.
Await = Callable[[int, float], Awaitable[Word]]


class WaitServer:
    """Serves everybody, as an async context manager; ControlError if there can be no socket."""

    def __init__(self, path: str, await_: Await, *, says_s: float = _SAYS_S) -> None:
        self._listener = Listener(Path(path), "waiting socket", "agent.wait_socket", 0o666, 0o755)
        self._await = await_
        self._says_s = says_s
        self._of_user = Counter[int]()
        self._callers = Callers()

    async def __aenter__(self) -> Self:
        sock = self._listener.open(MOST_CALLERS)
        with suppress(OSError):  # before 6.16 they can't be refused
            sock.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)
        _allow_files()
        await self._callers.open(sock, self._accept, limit=REQUEST.size, backlog=MOST_CALLERS)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._callers.close(kind, error, trace)
        finally:
            self._listener.remove()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
        _, uid, _ = UCRED.unpack(credentials)
        if len(self._callers) >= MOST_CALLERS or self._of_user[uid] >= MOST_OF_USER:
            writer.write(Word(Said.BUSY, "too many wait already").encoded())
            writer.close()
            return
        task = self._callers.serve(self._serve(reader, writer))
        self._of_user[uid] += 1

        def end(ended: asyncio.Task[None]) -> None:
            self._of_user[uid] -= 1
            if not self._of_user[uid]:
                del self._of_user[uid]

        task.add_done_callback(end)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hear one request and answer it; who hangs up, or says more, is waited for no more.

        The answer finds room in the socket whoever reads it, so nobody is waited for to read it.
        """
        try:
            async with asyncio.timeout(self._says_s):
                request = await reader.readexactly(REQUEST.size)
            magic, milliseconds, ticket = REQUEST.unpack(request)
            if magic != MAGIC:
                return
            within_s = min(milliseconds / 1000, LONGEST_S)
            async with asyncio.TaskGroup() as group:
                answer = group.create_task(self._answer(ticket, within_s))
                leaving = group.create_task(_leave(reader))
                await asyncio.wait({answer, leaving}, return_when=asyncio.FIRST_COMPLETED)
                answer.cancel()
                leaving.cancel()
            if not answer.cancelled() and (word := answer.result()) is not None:
                writer.write(word.encoded())
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            log.debug("who could wait went away, or said nothing")
        finally:
            writer.close()

    async def _answer(self, ticket: int, within_s: float) -> Word | None:
        """What becomes of a ticket; None: a fault of ours."""
        try:
            return await self._await(ticket, within_s)
        except Exception:
            log.exception("somebody who waits is given up")
            return None


async def _leave(reader: asyncio.StreamReader) -> None:
    """Until the caller hangs up, or says more than he has to."""
    with suppress(ConnectionError):
        await reader.read(1)


def _allow_files() -> None:
    """Each caller is a descriptor, and the agent needs some for itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CALLERS + 1024
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(most, soft), hard))
