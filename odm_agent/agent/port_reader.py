"""Reads on the event loop what servers send, no faster than it is dealt with."""

import asyncio
from collections.abc import Callable
from typing import Final

from odm_agent.agent.paced_reader import PacedReader
from odm_agent.kernel.dhcp_port import DhcpPort

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
        self._heard = heard
        self._reader = PacedReader(lambda: waiting() < _MOST_WAITING)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """This is the loop."""
        self._reader.attach(loop)

    def listen(self, name: str, port: DhcpPort) -> None:
        """Give the source of that name what comes to a port. From any thread."""

        def read() -> None:
            for each in port.receive():
                self._heard(name, each.data, each.sender)

        self._reader.listen(port, read)

    def leave(self, port: DhcpPort) -> None:
        """Read it no more, and close it. From any thread."""
        self._reader.leave(port)
