"""A network namespace in memory that refuses, loses and forgets the way the kernel does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

from odm_agent.core.actions import (
    AddAddress,
    AddLabel,
    AddRoute,
    AddRule,
    KernelAction,
    RemoveAddress,
    RemoveLabel,
    RemoveRoute,
    RemoveRule,
)
from odm_agent.core.errors import KernelError
from odm_agent.core.host import HostState, Link, LocalAddress, Route, Rule
from odm_agent.core.model import IPAddress

_Key = tuple[IPAddress, str]


class FakeKernel:
    """The fake of `Kernel`. Events of the world outside are methods; `fault` refuses actions."""

    def __init__(self) -> None:
        """A namespace with `lo` alone."""
        self.links: dict[str, Link] = {"lo": Link("lo", 1, True)}
        self.addresses: dict[_Key, LocalAddress] = {}
        self.routes: set[Route] = set()
        self.rules: set[Rule] = set()
        self.main_routes: list[Route] = []
        self.labels: set[IPv6Address] = set()
        #: Called with each action; what it raises is raised instead of carrying it out.
        self.fault: Callable[[KernelAction], None] = lambda action: None
        self._next_index = 2

    # --- Kernel ---

    def read(self) -> HostState:
        """Everything as it is now."""
        return HostState(
            links=dict(self.links),
            addresses=tuple(self.addresses.values()),
            routes=frozenset(self.routes),
            rules=frozenset(self.rules),
            main_routes=tuple(self.main_routes),
            labels=frozenset(self.labels),
        )

    def read_links(self) -> dict[str, Link]:
        """The interfaces as they are now."""
        return dict(self.links)

    def read_addresses(self, among: Mapping[str, Link]) -> tuple[LocalAddress, ...]:
        """The addresses of these interfaces."""
        return tuple(each for each in self.addresses.values() if each.interface in among)

    def apply_all(self, actions: Sequence[KernelAction]) -> list[KernelError | None]:
        """Carry out actions, in their order; why each could not be (None: done)."""
        return [self._outcome(action) for action in actions]

    def _outcome(self, action: KernelAction) -> KernelError | None:
        try:
            self.apply(action)
        except KernelError as error:
            return error
        return None

    def apply(self, action: KernelAction) -> None:
        """Carry out one action; already done counts as done. Raises KernelError."""
        self.fault(action)
        match action:
            case AddAddress(address):
                self._require_link(address.interface)
                key = (address.address, address.interface)
                if key not in self.addresses or self.addresses[key].ours:
                    tentative = address.dad and isinstance(address.address, IPv6Address)
                    was_ready = key in self.addresses and self.addresses[key].ready
                    self.addresses[key] = LocalAddress(
                        address.address,
                        address.prefix_length,
                        address.interface,
                        ours=True,
                        ready=was_ready or not tentative,
                        deprecated=address.deprecated,
                    )
            case RemoveAddress(address):
                self.vanish(address.address, address.interface)
            case AddRoute(route):
                self._add_route(route)
            case RemoveRoute(route):
                self.routes.discard(route)
            case AddRule(rule):
                self.rules.add(rule)
            case RemoveRule(rule):
                self.rules.discard(rule)
            case AddLabel(labelled):
                self.labels.add(labelled)
            case RemoveLabel(labelled):
                self.labels.discard(labelled)

    # --- what happens outside ---

    def set_link(self, name: str, up: bool = True, carrier: bool = True) -> None:
        """Make a link, or set it up or down; going down flushes IPv6 addresses and routes.

        The loss of the carrier flushes nothing.
        """
        fault = "" if up and carrier else "is down"
        if name not in self.links:
            self.links[name] = Link(name, self._next_index, up and carrier, up, fault)
            self._next_index += 1
            return
        self.links[name] = replace(self.links[name], up=up and carrier, enabled=up, fault=fault)
        if not up:
            self._lose(name, lambda local: isinstance(local.address, IPv6Address))

    def remove_link(self, name: str) -> None:
        """Take a link away with all that was on it."""
        self._lose(name, lambda local: True)
        self.links.pop(name, None)

    def add_foreign(self, local: LocalAddress) -> None:
        """Somebody else configures an address."""
        self._require_link(local.interface)
        self.addresses.setdefault((local.address, local.interface), local)

    def vanish(self, address: IPAddress, interface: str) -> None:
        """An address goes; IPv4 routes that prefer it go too, IPv6 routes lose their source."""
        if self.addresses.pop((address, interface), None) is None:
            return
        if any(held == address for held, _ in self.addresses):
            return
        for route in [r for r in self.routes if r.source == address]:
            self.routes.remove(route)
            if not isinstance(address, IPv4Address):
                self.routes.add(replace(route, source=None))

    def finish_dad(self, address: IPAddress, interface: str, unique: bool = True) -> None:
        """Duplicate address detection ends (RFC 4862, 5.4)."""
        local = self.addresses[address, interface]
        if not local.ready and not local.failed:
            self.addresses[address, interface] = replace(local, ready=unique, failed=not unique)

    def _lose(self, link: str, which: Callable[[LocalAddress], bool]) -> None:
        for (address, interface), local in list(self.addresses.items()):
            if interface == link and which(local):
                self.vanish(address, interface)
        self.routes = {r for r in self.routes if link not in r.interfaces}
        self.main_routes = [r for r in self.main_routes if link not in r.interfaces]

    def _add_route(self, route: Route) -> None:
        for interface in route.interfaces:
            self._require_link(interface)
            if not self.links[interface].enabled:
                raise KernelError(f"adding {route}: {interface} is down; set it up")
        if route.source is not None and not any(
            held == route.source and local.ready for (held, _), local in self.addresses.items()
        ):
            raise KernelError(f"adding {route}: the source is no ready local address; add it first")
        self.routes = {r for r in self.routes if not route.takes_place_of(r)}
        self.routes.add(route)

    def _require_link(self, name: str) -> None:
        if name not in self.links:
            raise KernelError(f"there is no interface {name}; make it first")
