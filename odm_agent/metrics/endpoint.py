"""The HTTP endpoint that Prometheus scrapes, in a thread of its own.

Anybody on the host may connect to it, so what a caller can take is bounded: some connections, for
some seconds, and at most half of the time of a processor.
"""

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

from prometheus_client import CollectorRegistry, make_wsgi_app

from odm_agent.core.errors import OdmError
from odm_agent.metrics.collector import OdmCollector
from odm_agent.metrics.readings import Readings

log = logging.getLogger(__name__)

#: Connections at a time. One more closes the oldest that has not sent its request.
MOST_CONNECTIONS: Final = 16
#: How long a caller may take to send its request, and again to take the answer.
PATIENCE_S: Final = 5.0
_LONGEST_REQUEST_BYTES: Final = 8192
#: Until the next attempt to accept after one that failed (no descriptor is left, say).
_RETRY_S: Final = 0.5

_Application = Callable[[Mapping[str, str], Callable[..., object]], Iterable[bytes]]


class MetricsError(OdmError):
    """The endpoint could not be opened."""


class MetricsServer:
    """A running endpoint with its thread; a context manager, or `close()` it."""

    def __init__(self, listener: socket.socket, application: _Application) -> None:
        self._listener = listener
        self._application = application
        self._idle: dict[socket.socket, asyncio.Task[None]] = {}  # the oldest first
        self._room = asyncio.Semaphore(MOST_CONNECTIONS)
        self._turn = asyncio.Lock()
        self._rested_s = 0.0
        self._loop = asyncio.new_event_loop()
        self._serving = self._loop.create_task(self._serve())
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def port(self) -> int:
        """The port it listens on: the one asked for, or what the kernel chose for port 0."""
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        """Stop serving and wait until the port is free again."""
        self._loop.call_soon_threadsafe(self._serving.cancel)
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serving)
        except asyncio.CancelledError:
            self._loop.close()
        except Exception:
            log.exception("no metrics any more; start the agent again")

    async def _serve(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    connection, _ = await self._loop.sock_accept(self._listener)
                except OSError as error:
                    log.warning("no metrics for a moment", extra={"error": str(error)})
                    await asyncio.sleep(_RETRY_S)
                    continue
                if self._room.locked() and self._idle:
                    next(iter(self._idle.values())).cancel()
                await self._room.acquire()
                task = group.create_task(self._answer(connection))
                self._idle[connection] = task
                task.add_done_callback(partial(self._end, connection))

    def _end(self, connection: socket.socket, _: asyncio.Task[None]) -> None:
        """Also of one that was cancelled before it began."""
        self._idle.pop(connection, None)
        connection.close()
        self._room.release()

    async def _answer(self, connection: socket.socket) -> None:
        """Answer one request; whoever is slow, leaves or talks nonsense is hung up on."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                environment = await self._request(connection)
            self._idle.pop(connection, None)
            answer = await self._response(environment)
            async with asyncio.timeout(PATIENCE_S):
                await self._loop.sock_sendall(connection, answer)
        except Exception as error:  # whatever it is, the others are served
            log.debug("a scrape failed", extra={"error": repr(error)})

    async def _request(self, connection: socket.socket) -> dict[str, str]:
        """The request as WSGI has it; ValueError if it is none."""
        data = b""
        while b"\r\n\r\n" not in data:
            piece = await self._loop.sock_recv(connection, _LONGEST_REQUEST_BYTES)
            data += piece
            if not piece or len(data) > _LONGEST_REQUEST_BYTES:
                raise ValueError("the request is cut off, or too long")
        first, *headers = data.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        path, _, query = target.partition("?")
        named = (header.partition(":") for header in headers)
        return {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            **{f"HTTP_{n.upper().replace('-', '_')}": value.strip() for n, _, value in named},
        }

    async def _response(self, environment: Mapping[str, str]) -> bytes:
        """What the application says; one at a time, and after each as long a rest."""
        said: list[Any] = []
        async with self._turn:
            await asyncio.sleep(self._rested_s - self._loop.time())
            began = self._loop.time()
            body = b"".join(self._application(environment, lambda *words: said.extend(words)))
            self._rested_s = 2 * self._loop.time() - began
        status, headers = said
        lines = [f"HTTP/1.0 {status}", *(f"{name}: {value}" for name, value in headers)]
        lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def split_address(address: str) -> tuple[str, int]:
    """Host and port of "127.0.0.1:9653" or "[::1]:9653"; MetricsError if it is neither."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise MetricsError(
            f"opening the metrics endpoint: {address!r} is no address; write agent.metrics as "
            '"127.0.0.1:9653" or "[::1]:9653"'
        )
    return host, int(port)


def start(address: str, readings: Readings) -> MetricsServer:
    """Serve `readings` at `address` ("host:port") from a thread, in a registry of its own."""
    host, port = split_address(address)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(OdmCollector(readings))
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server(
            (host, port), family=family, dualstack_ipv6=family == socket.AF_INET6
        )
    except OSError as error:
        # create_server() adds to the words of an errno; those of a name have a negative one.
        code = error.errno or 0
        words = os.strerror(code) if code > 0 else error.strerror
        raise MetricsError(
            f"opening the metrics endpoint {address}: {words}; "
            'choose another agent.metrics, or "" for none'
        ) from error
    listener.setblocking(False)
    return MetricsServer(listener, make_wsgi_app(registry))
