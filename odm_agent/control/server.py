"""The agent's side of the control socket."""

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from odm_agent.control.answers import Answer, Request
from odm_agent.control.callers import Callers
from odm_agent.control.hang_ups import HangUps
from odm_agent.control.listener import Listener
from odm_agent.core.errors import ConfigError, OdmError
from odm_agent.text import printable_values

log = logging.getLogger(__name__)

Handler = Callable[[dict[str, Any]], Awaitable[Any]]

#: The longest request line, in bytes: requests carry a few words only.
LINE_LIMIT_BYTES: Final = 64 * 1024
UCRED: Final = struct.Struct("iII")
#: Who may control the agent.
_ROOT: Final = 0


class ControlServer:
    """Serves `handlers` (verb to coroutine) to root, as an async context manager.

    A handler takes the request's arguments and returns anything that msgspec encodes. An OdmError
    goes to the caller in its own words; anything else is a bug of ours, logged and answered
    generically. The verbs of `waiting` do nothing but wait: they end when their caller hangs up;
    all else is done to its end. Raises ControlError when the socket cannot be made.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        handlers: Mapping[str, Handler],
        *,
        waiting: Collection[str] = (),
        idle_timeout_s: float = 30.0,
        max_clients: int = 32,
    ) -> None:
        self._listener = Listener(Path(path), "control socket", "agent.socket")
        self._handlers = dict(handlers)
        self._waiting = frozenset(waiting)
        self._idle_timeout_s = idle_timeout_s
        self._max_clients = max_clients
        self._callers = Callers()

    async def __aenter__(self) -> Self:
        sock = self._listener.open(self._max_clients)
        self._hang_ups = HangUps()
        await self._callers.open(sock, self._accept, limit=LINE_LIMIT_BYTES)
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
            self._hang_ups.close()
            self._listener.remove()

    # --- clients -----------------------------------------------------------------------------

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        refusal = self._refusal(writer)
        if refusal:
            writer.write(_encode(Answer(ok=False, error=refusal, kind="refused")))
            writer.close()
            return
        self._callers.serve(self._serve(reader, writer))

    def _refusal(self, writer: asyncio.StreamWriter) -> str:
        """Why this caller is not served; empty if it is."""
        sock = writer.get_extra_info("socket")
        pid, uid, _ = UCRED.unpack(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
        )
        if uid != _ROOT:
            log.warning("control request refused", extra={"pid": pid, "uid": uid})
            return "only root may control the agent; use sudo"
        if len(self._callers) >= self._max_clients:
            return f"the agent already serves {self._max_clients} callers; try again later"
        return ""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one caller's requests until it leaves, is idle, or does not speak our language."""
        try:
            while True:
                async with asyncio.timeout(self._idle_timeout_s):
                    line = await reader.readline()
                if not line.endswith(b"\n"):
                    break
                answer = await self._answer(line, writer)
                writer.write(answer)
                async with asyncio.timeout(self._idle_timeout_s):
                    await writer.drain()
        except ValueError:
            # StreamReader.readline: the line is longer than the limit. What follows has no start.
            error = f"the request is longer than {LINE_LIMIT_BYTES} bytes"
            writer.write(_encode(Answer(ok=False, error=error, kind="request")))
        except TimeoutError:
            log.debug("control caller was idle", extra={"timeout_s": self._idle_timeout_s})
            writer.transport.abort()
        except ConnectionError:
            log.debug("control caller went away")
        except Exception:
            # It must not end the group, and with it the agent.
            log.exception("control caller given up")
        finally:
            writer.close()

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> bytes:
        """The encoded answer to one request line; never raises (but for cancellation)."""
        try:
            arguments = msgspec.json.decode(line, type=dict[str, Any])
            verb = msgspec.convert(arguments, type=Request).verb
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            text = f'the request is no JSON object with a "verb": {error}'
            return _encode(Answer(ok=False, error=text, kind="request"))
        del arguments["verb"]
        handler = self._handlers.get(verb)
        if handler is None:
            known = ", ".join(sorted(self._handlers))
            text = f"the agent knows no verb {verb!r}; it knows: {known}"
            return _encode(Answer(ok=False, error=text, kind="request"))
        try:
            with self._while_heard(verb, writer):
                result = await handler(arguments)
            return _encode(Answer(ok=True, result=result))
        except ConfigError as error:
            return _encode(Answer(ok=False, error=str(error), kind="config"))
        except OdmError as error:
            return _encode(Answer(ok=False, error=str(error), kind="refused"))
        except Exception:
            log.exception("control request failed", extra={"verb": verb})
            text = f"the agent failed while it answered {verb!r}; its log says where"
            return _encode(Answer(ok=False, error=text, kind="internal"))

    @contextmanager
    def _while_heard(self, verb: str, writer: asyncio.StreamWriter) -> Iterator[None]:
        """Within, who hangs up ends what does nothing but wait."""
        descriptor = writer.get_extra_info("socket").fileno()
        if verb not in self._waiting or descriptor < 0:
            yield
            return
        with self._hang_ups.cancelling(descriptor):
            yield


def _encode(answer: Answer) -> bytes:
    """A line of JSON; what others have named may hold what JSON, or a terminal, can't bear."""
    return msgspec.json.encode(printable_values(msgspec.to_builtins(answer))) + b"\n"
