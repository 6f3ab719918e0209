"""The waiting socket on an event loop of its own, in a thread of its own.

Strangers talk there, and what they send may hold descriptors, whatever is read: the kernel lets go
of these where the message is dropped, and that may take as long as the stranger likes (a TCP socket
that lingers). Newer kernels let a socket refuse them; elsewhere this keeps only those waiting who
wait anyway.
"""

import asyncio
import threading
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from odm_agent.control.wait_caller import Answers
from odm_agent.control.wait_server import WaitServer

#: So long the end of the thread is waited for: it may hang on what a stranger has sent.
_ENDS_S: Final = 2.0


class WaitThread:
    """A WaitServer on a loop of its own, on which the answers are asked for, too.

    An async context manager; raises ControlError if there can be no socket.
    """

    def __init__(self, path: str, answers: Answers) -> None:
        self._path, self._answers = path, answers
        self._begun: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="waiting", daemon=True)

    def tell_change(self) -> None:
        """What sockets are given has changed: whoever watches is told. Called on any thread.

        While nobody does, no thread is woken: it would take its turn from the one that calls. Who
        begins to watch meanwhile hears a word at once, and asks the kernel then.
        """
        if not self._server.is_watched:
            return
        with suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(self._server.tell_change)

    async def __aenter__(self) -> Self:
        self._thread.start()
        await asyncio.wrap_future(self._begun)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        await asyncio.to_thread(self._thread.join, _ENDS_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if not self._begun.done():
                self._begun.set_exception(error)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with WaitServer(self._path, self._answers) as self._server:
            self._begun.set_result(None)
            await self._stop.wait()
