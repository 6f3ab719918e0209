"""Hears what routers of uplinks say of the types of prefixes, and adds it to what a look finds."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial

from odm_agent.agent.paced_reader import PacedReader
from odm_agent.config.schema import Config
from odm_agent.core.errors import KernelError
from odm_agent.core.host import HostState
from odm_agent.kernel import timer
from odm_agent.kernel.ra_socket import RaSocket
from odm_agent.prefixes.managed import fits
from odm_agent.sources.ra.codec import advertised
from odm_agent.sources.ra.hints import Hints

log = logging.getLogger(__name__)


@dataclass
class _Listening:
    """One interface, of which the kernel's number is `index`."""

    socket: RaSocket
    index: int
    code: int
    hints: Hints = field(default_factory=Hints)


class Advertisements:
    """One socket for each interface of an uplink that has `advertised_types`.

    Sockets are opened and closed with each look, on its thread, and read on the event loop.
    """

    def __init__(self, config: Callable[[], Config], changed: Callable[[], None]) -> None:
        """`config` is the one in force; `changed` is called when another type is said."""
        self._config, self._changed = config, changed
        self._reader = PacedReader()
        self._listening: dict[str, _Listening] = {}
        self._deaf: dict[str, str] = {}

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """This is the loop; nothing is heard before."""
        self._reader.attach(loop)

    def hinted(self, host: HostState) -> HostState:
        """The host with what holds now."""
        if not self._reader.is_attached or not (self._listening or any(self._codes())):
            return host
        self._follow(host)
        now_s = timer.now().boot_s
        types = {name: each.hints.at(now_s).types for name, each in self._listening.items()}
        return replace(host, hints={name: found for name, found in types.items() if found})

    def close(self) -> None:
        """Hear nothing any more. On the loop."""
        for each in list(self._listening.values()):
            self._reader.drop(each.socket)
        self._listening.clear()

    def _codes(self) -> Iterable[tuple[str, int]]:
        for uplink in self._config().uplinks.values():
            if uplink.advertised_types is not None:
                yield uplink.interface, uplink.advertised_types

    def _follow(self, host: HostState) -> None:
        wanted: dict[str, tuple[int, int]] = {}
        for pattern, code in self._codes():
            for name, link in host.links.items():
                if fits(pattern, name) and link.up:
                    wanted.setdefault(name, (link.index, code))
        for name, each in list(self._listening.items()):
            if wanted.get(name) != (each.index, each.code):
                del self._listening[name]
                self._reader.leave(each.socket)
        self._deaf = {name: why for name, why in self._deaf.items() if name in wanted}
        for name, (index, code) in wanted.items():
            if name not in self._listening:
                self._open(name, index, code)

    def _open(self, name: str, index: int, code: int) -> None:
        try:
            each = _Listening(RaSocket(name), index, code)
        except KernelError as error:  # tried again with the next look, and told once
            if self._deaf.get(name) != str(error):
                log.warning("types that routers say are not heard", extra={"error": str(error)})
            self._deaf[name] = str(error)
            return
        self._deaf.pop(name, None)
        self._listening[name] = each
        self._reader.listen(each.socket, partial(self._read, each))
        each.socket.solicit()

    def _read(self, each: _Listening) -> None:
        before, now_s = each.hints.types, timer.now().boot_s
        for heard in each.socket.receive():
            found = advertised(heard.data, heard.sender, heard.hop_limit, each.code)
            each.hints = each.hints.heard(found, now_s)
        if each.hints.types != before:
            self._changed()
