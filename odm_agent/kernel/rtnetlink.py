"""pyroute2's rtnetlink socket, for callers that may be inside a running event loop.

pyroute2 0.9 is asyncio inside. Its synchronous interface runs a loop of its own for each request,
which Python refuses in a thread that runs one already, as the agent's does. So its asynchronous
interface is used, in a thread kept for it; that thread also stays in the network namespace in which
it was started.
"""

import asyncio
import errno
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import Final, Self, TypeVar

from pyroute2 import AsyncIPRoute
from pyroute2.netlink import NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, nlmsg
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted

T = TypeVar("T")

#: The kernel answers at once; an answer that never comes must not hold up the caller forever.
_TIMEOUT_S: Final = 30.0
_DUMP_ATTEMPTS: Final = 20


class Rtnetlink:
    """A socket in the network namespace of the thread that makes this; raises OSError."""

    def __init__(self) -> None:
        self._route: AsyncIPRoute | None = None
        self._runner = asyncio.Runner()
        self._closing = ExitStack()
        self._thread = self._closing.enter_context(ThreadPoolExecutor(1, "rtnetlink"))
        self._closing.callback(lambda: self._thread.submit(self._shut).result())
        try:
            self._thread.submit(self._runner.run, self._open()).result()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket and end the thread; may be called twice."""
        self._closing.close()

    def run(self, job: Callable[[AsyncIPRoute], Awaitable[T]]) -> T:
        """Have `job` done with the socket in the thread, and wait for it.

        Raises what it raises: NetlinkError if the kernel refuses; OSError if the exchange fails
        (TimeoutError without an answer), and then the next job gets a new socket.
        """
        return self._thread.submit(self._runner.run, self._within(job)).result()

    async def _within(self, job: Callable[[AsyncIPRoute], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                return await job(self._route or await self._open())
        except OSError:
            # pyroute2 gives a socket up for good after an error of the socket itself.
            self._drop()
            raise

    async def _open(self) -> AsyncIPRoute:
        self._route = AsyncIPRoute(ext_ack=True, strict_check=True)
        await self._route.setup_endpoint()
        return self._route

    def _drop(self) -> None:
        if self._route is not None:
            self._route.close()
            self._route = None

    def _shut(self) -> None:
        self._drop()
        self._runner.close()


async def dump(route: AsyncIPRoute, kind: int, request: nlmsg) -> list[nlmsg]:
    """All objects that the kernel has for `request`, which it filters (strict checking).

    Taken again while its tables move beneath the dump. Raises NetlinkError;
    NetlinkDumpInterrupted if none of many attempts was consistent.
    """
    for _ in range(_DUMP_ATTEMPTS):
        interrupted = False

        def look(part: nlmsg) -> bool:
            # pyroute2 has the exception, but never raises it; and the end of a dump, which may be
            # all that is flagged, is shown to this callback alone.
            nonlocal interrupted
            interrupted |= bool(part["header"]["flags"] & NLM_F_DUMP_INTR)
            return False

        answer = await route.nlm_request(request, kind, NLM_F_REQUEST | NLM_F_DUMP, callback=look)
        parts = [part async for part in answer]
        if not interrupted:
            return parts
    raise NetlinkDumpInterrupted(
        errno.EINTR,
        f"the kernel's tables changed during each of {_DUMP_ATTEMPTS} attempts to read them",
    )
