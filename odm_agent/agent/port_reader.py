"""Reads on the event loop what servers send: so much in so much time, whoever sends it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from odm_agent.kernel.dhcp_port import DhcpPort

#: After something has come a port is not read for so long. With what is taken at once that makes
#: 320 datagrams a second, far more than a client is sent; of a flood the kernel drops the rest.
_PAUSE_S: Final = 0.05
#: So many datagrams wait for their sources at most.
_MOST_WAITING: Final = 64


class PortReader:
    """Ports, and the sources that are given what comes to them."""

    def __init__(
        self, heard: Callable[[str, bytes, str], None], waiting: Callable[[], int]
    ) -> None:
        """`heard` takes a source's name, a datagram and its sender; `waiting` says how much was
        heard that nobody has looked at yet.
        """
        self._heard, self._waiting = heard, waiting
        self._loop: asyncio.AbstractEventLoop | None = None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """This is the loop."""
        self._loop = loop

    def listen(self, name: str, port: DhcpPort) -> None:
        """Give the source of that name what comes to a port. From any thread."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._listen, name, port)

    def leave(self, port: DhcpPort) -> None:
        """Read it no more, and close it. From any thread."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._leave, port)

    def _listen(self, name: str, port: DhcpPort) -> None:
        if port.fileno() < 0:  # it was closed meanwhile
            return
        assert self._loop is not None
        if self._waiting() < _MOST_WAITING:
            self._loop.add_reader(port.fileno(), self._read, name, port)
        else:
            self._loop.call_later(_PAUSE_S, self._listen, name, port)

    def _read(self, name: str, port: DhcpPort) -> None:
        assert self._loop is not None
        self._loop.remove_reader(port.fileno())
        for each in port.receive():
            self._heard(name, each.data, each.sender)
        self._loop.call_later(_PAUSE_S, self._listen, name, port)

    def _leave(self, port: DhcpPort) -> None:
        assert self._loop is not None
        with suppress(ValueError):
            self._loop.remove_reader(port.fileno())
        port.close()
