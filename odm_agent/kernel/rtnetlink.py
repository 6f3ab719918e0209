"""pyroute2's rtnetlink socket, for callers that may be inside a running event loop.

pyroute2 0.9 is asyncio inside. Its synchronous interface runs a loop of its own for each request,
which Python refuses in a thread that runs one already, as the agent's does. So its asynchronous
interface is used, in a thread kept for it; that thread also stays in the network namespace in which
it was started.
"""

import asyncio
import errno
import gc
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from pyroute2.iproute import AsyncIPRoute
from pyroute2.netlink import (
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    nlmsg,
)
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted, NetlinkError
from pyroute2.netlink.nlsocket import NetlinkRequest

T = TypeVar("T")
Part = TypeVar("Part")
Message = TypeVar("Message", bound=nlmsg)

_Look = Callable[[Any], bool]
_DUMP: Final = NLM_F_REQUEST | NLM_F_DUMP
#: struct nlmsghdr: length, type, flags, sequence number, port.
_HEADER: Final = struct.Struct("=IHHII")
#: The kernel answers at once; an answer that never comes must not hold up the caller forever.
_TIMEOUT_S: Final = 30.0
_DUMP_ATTEMPTS: Final = 20
#: Acknowledgements queue in the receive buffer while the kernel works through one send.
_BATCH: Final = 128


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
        (TimeoutError without an answer: `in_time`), and then the next job gets a new socket.
        """
        return self._thread.submit(self._runner.run, self._within(job)).result()

    async def _within(self, job: Callable[[AsyncIPRoute], Awaitable[T]]) -> T:
        try:
            return await job(self._route or await self._open())
        except OSError:
            # pyroute2 gives a socket up for good after an error of the socket itself.
            self._drop()
            raise
        except NetlinkError:
            raise
        except Exception as error:  # of an answer that pyroute2 doesn't understand, say
            self._drop()
            raise OSError(errno.EPROTO, repr(error)) from error

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


def in_time() -> asyncio.Timeout:
    """What a question and its answer, or a batch of them, are to be done in."""
    return asyncio.timeout(_TIMEOUT_S)


async def dump(route: AsyncIPRoute, kind: int, request: nlmsg) -> list[nlmsg]:
    """All objects that the kernel has for `request`, which it filters (strict checking).

    Taken again while its tables move beneath the dump. Raises NetlinkError;
    NetlinkDumpInterrupted if none of many attempts was consistent.
    """

    async def ask(look: _Look) -> AsyncIterator[nlmsg]:
        answer: AsyncIterator[nlmsg] = await route.nlm_request(request, kind, _DUMP, callback=look)
        return answer

    return await _consistent(ask)


async def dump_packed(route: AsyncIPRoute, kind: int, request: nlmsg) -> list[bytes]:
    """The same as bytes, from behind the netlink header on.

    For what there may be thousands of: pyroute2 takes ten times as long to unpack an object as we.
    """

    async def ask(look: _Look) -> AsyncIterator[dict[str, Any]]:
        parser = partial(_left_packed, route.marshal)
        asked = NetlinkRequest(
            route, request, callback=look, parser=parser, msg_type=kind, msg_flags=_DUMP
        )
        await asked.send()
        answer: AsyncIterator[dict[str, Any]] = asked.response()
        return answer

    return [part["packed"] for part in await _consistent(ask)]


async def _consistent(ask: Callable[[_Look], Awaitable[AsyncIterator[Part]]]) -> list[Part]:
    for _ in range(_DUMP_ATTEMPTS):
        interrupted = False

        def look(part: Any) -> bool:
            # pyroute2 has the exception, but never raises it; and the end of a dump, which may be
            # all that is flagged, is shown to this callback alone.
            nonlocal interrupted
            interrupted |= bool(part["header"]["flags"] & NLM_F_DUMP_INTR)
            return False

        async with in_time():
            parts = [part async for part in await ask(look)]
        if not interrupted:
            return parts
    raise NetlinkDumpInterrupted(
        errno.EINTR,
        f"the kernel's tables changed during each of {_DUMP_ATTEMPTS} attempts to read them",
    )


def _left_packed(marshal: Any, data: bytes, offset: int, length: int) -> Any:
    """In place of pyroute2's parser: takes apart only what says how the dump went."""
    _, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
    code = data[offset + _HEADER.size : offset + _HEADER.size + 4]
    if kind == NLMSG_DONE or (kind == NLMSG_ERROR and any(code)):
        return marshal.parse_one_message(kind, flags, sequence, data, offset, length)
    header = {"type": kind, "flags": flags, "error": None}
    return {"header": header, "packed": data[offset + _HEADER.size : offset + length]}


def change(message: Message, kind: int, flags: int = 0) -> Message:
    """`message` as a request that the kernel acknowledges; `kind` is RTM_NEW... or RTM_DEL..."""
    message["header"] = {"type": kind, "flags": NLM_F_REQUEST | NLM_F_ACK | flags}
    return message


async def carry_out(
    route: AsyncIPRoute,
    steps: Iterable[Sequence[nlmsg] | NetlinkError],
    tolerated: Collection[int] = (),
) -> list[NetlinkError | None]:
    """Have the kernel do what the messages of each step ask for, in order; what each step came to.

    That is the first refusal, or None; errors in `tolerated` are none. A step that is a refusal
    already is passed over. Many are sent together, so a step goes on after a refusal; of steps that
    are made one by one, no more messages exist at a time.
    """
    outcomes: list[NetlinkError | None] = []
    batch: list[tuple[int, nlmsg]] = []

    async def send() -> None:
        for position, refusal in await _sent(route, batch):
            if refusal.code not in tolerated and outcomes[position] is None:
                outcomes[position] = refusal
        batch.clear()
        # Messages hold each other in circles: the fewer there are, the shorter all threads wait.
        gc.collect(1)

    for position, step in enumerate(steps):
        outcomes.append(step if isinstance(step, NetlinkError) else None)
        if not isinstance(step, NetlinkError):
            batch += ((position, message) for message in step)
        if len(batch) >= _BATCH:
            await send()
    if batch:
        await send()
    return outcomes


async def _sent(
    route: AsyncIPRoute, batch: Sequence[tuple[int, nlmsg]]
) -> list[tuple[int, NetlinkError]]:
    """Send messages together, each with its place; the places that were refused.

    Not by nlm_request_batch(): that tells nothing of refusals, or stops at the first.
    """
    parser = partial(_left_packed, route.marshal)
    requests = [(place, NetlinkRequest(route, message, parser=parser)) for place, message in batch]
    refused = []
    async with in_time():
        for _, request in requests:
            await request.prepare()
        route.send(b"".join(request.msg.data for _, request in requests))
        for place, request in requests:
            try:
                async for _ in request.response():
                    pass
            except NetlinkError as refusal:
                refused.append((place, refusal))
    return refused
