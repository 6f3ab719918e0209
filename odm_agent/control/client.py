"""The command line's side of the control socket."""

import contextlib
import errno
import os
import socket
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import msgspec

from odm_agent.control.answers import Answer
from odm_agent.core.errors import ConfigError, ControlError

T = TypeVar("T")

#: How long an answer may take, in seconds: a reload waits for duplicate address detection.
ANSWER_TIMEOUT_S: Final = 60.0
#: connect() results that mean that no agent listens at the path.
NOBODY: Final = frozenset({errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR})


class AgentNotRunning(ControlError):
    """Nobody listens on the control socket."""


class ControlClient:
    """Blocking calls to the agent that listens on `path`; a context manager, one connection.

    Errors: AgentNotRunning, ConfigError (the agent refused its configuration), ControlError.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, timeout_s: float = ANSWER_TIMEOUT_S
    ) -> None:
        self._path = os.fspath(path)
        self._timeout_s = timeout_s
        self._sock: socket.socket | None = None
        self._buffer = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; a later call connects again."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        self._buffer.clear()

    def call(self, verb: str, **arguments: Any) -> Any:
        """The result of `verb`, as JSON values."""
        return self.ask(verb, Any, **arguments)

    def ask(self, verb: str, shape: type[T], **arguments: Any) -> T:
        """The result of `verb` as a `shape` (a type that msgspec can convert to)."""
        request = msgspec.json.encode({**arguments, "verb": verb}) + b"\n"
        line = self._exchange(verb, request)
        try:
            answer = msgspec.json.decode(line, type=Answer)
            if answer.ok:
                return msgspec.convert(answer.result, type=shape)
        except msgspec.DecodeError as error:
            raise ControlError(
                f"asking the agent at {self._path} for {verb!r}: its answer is not "
                f"understood ({error}); agent and command line must be of one version"
            ) from error
        if answer.kind == "config":
            raise ConfigError(answer.error)
        raise ControlError(answer.error or f"the agent refused {verb!r} without saying why")

    def _exchange(self, verb: str, request: bytes) -> bytes:
        doing = f"asking the agent at {self._path} for {verb!r}"
        try:
            sock = self._sock if self._sock is not None else self._connect()
            # A broken pipe: the agent has hung up, perhaps with a word why (which we read next).
            with contextlib.suppress(BrokenPipeError):
                sock.sendall(request)
            return self._read_line(sock)
        except TimeoutError as error:
            self.close()
            raise ControlError(
                f"{doing}: no answer within {self._timeout_s:.0f} s; its log may say why"
            ) from error
        except OSError as error:
            self.close()
            if error.errno in NOBODY:
                raise AgentNotRunning(
                    f"{doing}: nobody listens there; is the agent running? start it with "
                    "`odm-agent run`, or name its socket with --socket"
                ) from error
            if error.errno in (errno.EACCES, errno.EPERM):
                raise ControlError(f"{doing}: only root may; use sudo") from error
            raise ControlError(f"{doing}: {error.strerror or error}") from error

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(self._timeout_s)
        try:
            sock.connect(self._path)
        except BaseException:
            sock.close()
            raise
        self._sock = sock
        return sock

    def _read_line(self, sock: socket.socket) -> bytes:
        while (end := self._buffer.find(b"\n")) < 0:
            piece = sock.recv(256 * 1024)
            if not piece:
                raise ConnectionResetError(errno.ECONNRESET, "the agent hung up without an answer")
            self._buffer += piece
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line
