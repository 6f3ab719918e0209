"""Asks hosts behind uplinks whether they are there, where the configuration names some, and adds
what that says of uplinks to what a look finds.
"""

import asyncio
import errno
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from odm_agent.config.echoes import echoes_of
from odm_agent.config.schema import Config
from odm_agent.core.echo import DEAD_AFTER, Echo
from odm_agent.core.errors import KernelError
from odm_agent.core.host import HostState, Link
from odm_agent.core.model import Family, IPAddress
from odm_agent.kernel.echo_socket import EchoSocket
from odm_agent.prefixes.managed import fits_any
from odm_agent.prefixes.table import PrefixTable

log = logging.getLogger(__name__)

#: Which host is asked by which interface.
_Key = tuple[str, IPAddress]

#: An answer that takes longer is none (seconds).
_PATIENCE_S: Final = 2.0
#: So much may come in place of an answer to one question.
_MOST_WRONG: Final = 16
#: What a question that can't be sent says of its uplink; all else says something of us.
_LEADS_NOWHERE: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN})


@dataclass(frozen=True, slots=True)
class _Way:
    """How a host is asked; with another of these all begins anew."""

    index: int
    source: IPAddress
    interval_s: int


@dataclass(slots=True)
class _Asking:
    way: _Way
    socket: EchoSocket
    echo: Echo = field(default_factory=Echo)
    number: int = 0
    task: "asyncio.Task[None] | None" = None


class Echoes:
    """A socket for each interface of an uplink and host that it names.

    Sockets are opened with each look, on its thread; the event loop asks and hears.
    """

    def __init__(
        self,
        config: Callable[[], Config],
        table: Callable[[], PrefixTable],
        changed: Callable[[], None],
    ) -> None:
        """`config` and `table` are those in force; `changed` is called when an uplink has died, or
        lives again.
        """
        self._config, self._table, self._changed = config, table, changed
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asking: dict[_Key, _Asking] = {}
        self._mute: dict[_Key, str] = {}

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """This is the loop; nothing is asked before."""
        self._loop = loop

    def judged(self, host: HostState) -> HostState:
        """The host with the uplinks that are dead now."""
        if self._loop is not None:
            self._follow(self._loop, dict(self._wanted(host)))
        dead: dict[tuple[Family, str], str] = {}
        for (interface, target), each in self._asking.items():
            if each.echo.dead:
                why = f"carries nothing: {target} has left {DEAD_AFTER} echo requests unanswered"
                dead[Family.of(target), interface] = why
        return replace(host, dead=dead) if dead != host.dead else host

    def close(self) -> None:
        """Ask nothing any more. On the loop."""
        for each in self._asking.values():
            self._end(each)
        self._asking.clear()

    def _wanted(self, host: HostState) -> Iterator[tuple[_Key, _Way]]:
        for each in echoes_of(self._config()):
            family = Family.of(each.target)
            for name, link in host.links.items():
                if not fits_any(each.patterns, name):
                    continue
                source = self._source(link, each.target, host)
                leads = each.target.is_link_local or link.peered or (family, name) in host.ways
                if link.up and not link.lacks(family) and leads and source is not None:
                    yield (name, each.target), _Way(link.index, source, each.interval_s)

    def _source(self, link: Link, target: IPAddress, host: HostState) -> IPAddress | None:
        """The first address of the interface that is everybody's, and fits the host's."""
        table = self._table()
        return next(
            (
                local.address
                for local in host.addresses
                if local.interface == link.name
                and local.address.version == target.version
                and local.address.is_link_local is target.is_link_local
                and local.ready
                and not (local.ours or local.failed or local.deprecated)
                and table.typed_for(local) is None
            ),
            None,
        )

    def _follow(self, loop: asyncio.AbstractEventLoop, wanted: dict[_Key, _Way]) -> None:
        for key, each in list(self._asking.items()):
            if wanted.get(key) != each.way:
                del self._asking[key]
                loop.call_soon_threadsafe(self._end, each)
        self._mute = {key: why for key, why in self._mute.items() if key in wanted}
        for key, way in wanted.items():
            if key not in self._asking:
                self._open(loop, key, way)

    def _open(self, loop: asyncio.AbstractEventLoop, key: _Key, way: _Way) -> None:
        interface, target = key
        try:
            each = _Asking(way, EchoSocket(interface, way.source, target))
        except KernelError as error:  # tried again with the next look, and told once
            self._tell(key, str(error))
            return
        self._mute.pop(key, None)
        self._asking[key] = each
        loop.call_soon_threadsafe(self._begin, key, each)

    def _tell(self, key: _Key, why: str) -> None:
        if self._mute.get(key) != why:
            log.warning("whether an uplink is dead is not known", extra={"error": why})
        self._mute[key] = why

    def _begin(self, key: _Key, each: _Asking) -> None:
        assert self._loop is not None
        if each.socket.socket.fileno() >= 0:  # else it was ended meanwhile
            each.task = self._loop.create_task(self._ask_on(key, each))

    @staticmethod
    def _end(each: _Asking) -> None:
        if each.task is not None:
            each.task.cancel()
        each.socket.close()

    async def _ask_on(self, key: _Key, each: _Asking) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            answered = await self._ask(key, each)
            if answered is not None:
                before, each.echo = each.echo, each.echo.after(answered=answered)
                if each.echo.dead is not before.dead:
                    self._note(key, each.echo)
            await asyncio.sleep(max(began_s + each.way.interval_s - loop.time(), 0.0))

    def _note(self, key: _Key, echo: Echo) -> None:
        interface, target = key
        extra = {"interface": interface, "host": str(target)}
        log.warning("an uplink is %s", "dead" if echo.dead else "alive again", extra=extra)
        self._changed()

    async def _ask(self, key: _Key, each: _Asking) -> bool | None:
        """Whether one question was answered in time; None: it could not be asked."""
        each.number += 1
        try:
            each.socket.ask(each.number)
        except OSError as error:
            if error.errno in _LEADS_NOWHERE:
                return False
            self._tell(key, f"asking {key[1]} by {key[0]}: {error.strerror}")
            return None
        self._mute.pop(key, None)
        try:
            async with asyncio.timeout(min(_PATIENCE_S, each.way.interval_s)):
                return await self._is_answered(each)
        except TimeoutError:
            return False
        except OSError as error:  # what a router says of the question
            return False if error.errno in _LEADS_NOWHERE else None

    @staticmethod
    async def _is_answered(each: _Asking) -> bool:
        loop = asyncio.get_running_loop()
        for _ in range(_MOST_WRONG):
            if each.socket.is_answer(await loop.sock_recv(each.socket.socket, 256), each.number):
                return True
        return False
