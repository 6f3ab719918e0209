"""The networks that are asked for prefixes: a source for each delegation, and a port for its link.

All runs on the thread that changes things, but for what comes in, which the event loop reads.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import SystemRandom
from typing import Final, Protocol

from odm_agent.core.errors import KernelError
from odm_agent.core.host import HostState, Link
from odm_agent.kernel.dhcp_port import DhcpPort
from odm_agent.prefixes.managed import fits, fits_any
from odm_agent.sources.base import Input, Linked, Send
from odm_agent.sources.dhcpv6.settings import Settings
from odm_agent.sources.dhcpv6.source import DelegationSource
from odm_agent.sources.dhcpv6.standing import Standing

log = logging.getLogger(__name__)


class Listener(Protocol):
    """Who reads ports, on another thread; all return at once."""

    def listen(self, name: str, port: DhcpPort) -> None:
        """Give the source of that name what comes to a port."""

    def leave(self, port: DhcpPort) -> None:
        """Read it no more, and close it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """How a delegation stands: whether it can be asked now, and if not, why; and its types."""

    name: str
    interface: str
    linked: bool
    trouble: str
    standings: tuple[Standing, ...]


class Delegations:
    """The sources by their names, and what they talk through.

    A delegation that the configuration does not name any more stays until all of it is given back.
    """

    def __init__(self) -> None:
        """None is configured yet."""
        self._sources: dict[str, DelegationSource] = {}
        self._settings: dict[str, Settings] = {}
        self._retiring: frozenset[str] = frozenset()
        self._ports: dict[str, DhcpPort] = {}
        self._linked: dict[str, bool] = {}
        #: How often the link of each had been lost by the last look.
        self._losses: dict[str, int] = {}
        self._lost: Counter[str] = Counter()
        #: What kept a source from talking (source -> why), and is tried again.
        self.troubles: dict[str, str] = {}

    @property
    def sources(self) -> Sequence[DelegationSource]:
        """All of them."""
        return tuple(self._sources.values())

    def configure(
        self, settings: Mapping[str, Settings], duid: bytes | None
    ) -> list[DelegationSource]:
        """These are the delegations from now on; the sources that are new. `duid` is needed if
        there are any.
        """
        new: list[DelegationSource] = []
        named: set[str] = set()
        for each in settings.values():
            name = _name(each)
            named.add(name)
            if name in self._sources:
                if each != self._settings[name]:
                    self._sources[name].configure(each)
            else:
                assert duid is not None
                self._sources[name] = DelegationSource(each, duid, SystemRandom())
                new.append(self._sources[name])
            self._settings[name] = each
        for name in self._sources.keys() - named:
            nothing = replace(self._settings[name], types=frozenset(), at_start=frozenset())
            self._settings[name] = nothing
            self._sources[name].configure(nothing)
        self._retiring = frozenset(self._sources.keys() - named)
        return new

    def attach(
        self,
        feed: Callable[[str, Input], None],
        forget: Callable[[str], None],
        listener: Listener,
    ) -> None:
        """`feed` gives a source something; `forget` is told when one is needed no more."""
        self._feed, self._forget, self._listener = feed, forget, listener

    def look(self, host: HostState) -> None:
        """Open and close ports as interfaces come and go, and tell the sources. Raises KernelError:
        a port can't be opened; the others are.
        """
        for name in self._retiring:
            if name in self._sources and self._sources[name].is_idle:
                self._retire(name)
        for name, source in self._sources.items():
            self._attach(name, source.interfaces, host)
            if (port := self._ports.get(name)) is None:
                self._tell(name, False)
                continue
            losses = host.links[port.interface].losses
            if self._losses.get(name, losses) != losses:
                self._tell(name, False)  # it was lost meanwhile
            self._losses[name] = losses
            self._tell(name, _carries(host, port.interface))
        if self.troubles:
            raise KernelError("; ".join(self.troubles.values()))

    def woken(self) -> None:
        """The host was suspended, and may be at another network now, though no link was lost
        meanwhile: to a source that is as if it had been.
        """
        for name, port in self._ports.items():
            if self._linked.get(name):
                self._feed(name, Linked(port.interface, False))
                self._feed(name, Linked(port.interface, True))

    def send(self, name: str, message: Send) -> None:
        """Send it, if that can be done now: whoever sends does so again until he is answered."""
        port = self._ports.get(name)
        try:
            if port is None:
                raise KernelError(f"sending for {name}: {_NO_PORT}. It is tried again.")
            port.send(message.data, message.to)
        except KernelError as error:
            self._lost[_NOT_SENT] += 1
            log.info("a message was not sent", extra={"source": name, "error": str(error)})

    def standings(self) -> list[Asked]:
        """How it is with each delegation that is configured. From any thread."""
        return [
            Asked(
                name.partition(":")[2],
                self._where(name, source),
                self._linked.get(name, False),
                self.troubles.get(name, ""),
                tuple(source.standings()),
            )
            for name, source in list(self._sources.items())
            if name not in self._retiring
        ]

    def _where(self, name: str, source: DelegationSource) -> str:
        port = self._ports.get(name)
        return port.interface if port is not None else " or ".join(source.interfaces)

    def dropped(self) -> Counter[str]:
        """What was not sent, and what was thrown away unread, by why. From any thread."""
        found = self._lost.copy()
        for port in list(self._ports.values()):
            found.update(dict(port.dropped))  # a copy: it is written elsewhere
        return found

    def close(self) -> None:
        """Close all ports. What is held stays so, at the network and here."""
        for port in self._ports.values():
            port.close()
        self._ports = {}

    def _retire(self, name: str) -> None:
        if name in self._ports:
            self._close(name)
        del self._sources[name], self._settings[name]
        self._linked.pop(name, None)
        self.troubles.pop(name, None)
        self._forget(name)

    def _attach(self, name: str, patterns: Sequence[str], host: HostState) -> None:
        """Have a source's port at the best interface. The one that it has stays while that carries
        packets: a better one that comes back is no reason to move.
        """
        port = self._ports.get(name)
        if port is not None:
            link = host.links.get(port.interface)
            named = fits_any(patterns, port.interface)
            if link is None or link.index != port.index or not named:
                self._close(name)
                port = None
        self.troubles.pop(name, None)
        if port is not None and _carries(host, port.interface):
            return
        for link in _by_rank(patterns, host):
            if port is not None and not _carries(host, link.name):
                return  # none is better
            try:
                new = DhcpPort(link.name, link.index)
            except KernelError as error:
                self.troubles[name] = str(error)
                continue
            if port is not None:
                self._close(name)
            self._ports[name] = new
            self._listener.listen(name, new)
            self.troubles.pop(name, None)
            return

    def _close(self, name: str) -> None:
        port = self._ports.pop(name)
        self._losses.pop(name, None)
        self._lost += port.dropped
        if self._linked.get(name):
            self._linked[name] = False
            self._feed(name, Linked(port.interface, False))
        self._listener.leave(port)

    def _tell(self, name: str, up: bool) -> None:
        if self._linked.get(name) is not up:
            self._linked[name] = up
            port = self._ports.get(name)
            interface = port.interface if port else self._sources[name].interfaces[0]
            self._feed(name, Linked(interface, up))


def _name(settings: Settings) -> str:
    return f"delegation:{settings.name}"


def _by_rank(patterns: Sequence[str], host: HostState) -> list[Link]:
    """The interfaces by which a delegation may be attached: those first that carry packets, then in
    the order of the configuration.
    """
    ranks: dict[str, int] = {}
    for rank, pattern in enumerate(patterns):
        for name in host.links:
            if fits(pattern, name):
                ranks.setdefault(name, rank)
    links = [host.links[name] for name in ranks]
    return sorted(links, key=lambda e: (not _carries(host, e.name), ranks[e.name], e.index))


def _carries(host: HostState, interface: str) -> bool:
    """Whether an interface can carry packets, from a link-local address that is ready."""
    link = host.links.get(interface)
    return bool(link and link.up and not link.ipv6_fault) and any(
        local.interface == interface
        and local.address.version == 6
        and local.address.is_link_local
        and local.ready
        and not local.failed
        for local in host.addresses
    )


_NO_PORT: Final = "no port is open"
_NOT_SENT: Final = "not-sent"
