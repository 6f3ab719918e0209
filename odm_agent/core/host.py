"""What the kernel holds, as frozen values: links, addresses, routes and rules, ours and others'."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property, lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Final

from odm_agent.core.model import AddressType, Family, IPAddress, IPNetwork, TypedPrefix

#: What IPv6 makes of a route without a metric; the model writes 0 for it.
IPV6_DEFAULT_METRIC: Final = 1024
#: Of so many networks it is remembered whether they are scoped: each prefix has copies of the same.
_MOST_KNOWN: Final = 4096


@dataclass(frozen=True, slots=True)
class Link:
    """An interface of the agent's network namespace.

    `up`: it can carry packets. Else `fault` says why not: somebody has set it down (not `enabled`),
    it has no carrier, it waits, for authentication say, or it is a port of a bridge or bond. Routes
    can lead by an enabled one. `ipv6_fault` says why it carries no IPv6, whatever else is right.
    `group` is a number that interfaces can have in common (`ip link`), 0 if nobody has set one.
    `peered`: packets need no next hop there (a tunnel, PPP), since there is one peer, or whoever
    carries them knows the way. `losses`: how often it has lost its carrier; the kernel tells nobody
    of a loss that is shorter than a second, but counts it.
    """

    name: str
    index: int
    up: bool
    enabled: bool = True
    fault: str = ""
    ipv6_fault: str = ""
    group: int = 0
    peered: bool = False
    losses: int = 0

    def lacks(self, family: Family) -> str:
        """Why neither addresses nor routes of a family can stand there; empty: they can."""
        return self.ipv6_fault if family is Family.IPV6 else ""


@dataclass(frozen=True, slots=True)
class Address:
    """An address that we configure. `prefix_length` is 32 or 128 on `lo` and for typed IPv4.

    `deprecated` (preferred lifetime 0, RFC 4862 5.5.4) keeps an on-link IPv6 address out of
    default source selection. `dad` asks for duplicate address detection.
    """

    address: IPAddress
    prefix_length: int
    interface: str
    deprecated: bool = False
    dad: bool = False


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """Any address found in the namespace, ours or not. `ready` is false while tentative (DAD).

    `failed` marks an address that duplicate address detection found in use elsewhere.
    `broadcasts` are the addresses by which all hosts of its subnet are reached. `from_network`: a
    router or a DHCP server gave it to this host, nobody wrote it down here. `secondary`: of IPv6 a
    temporary one (RFC 8981), of IPv4 one that is not the first of its subnet. `born` and `renewed`:
    since when it is there, and since when its lifetime counts, as in `renumbering.Announced`; an
    address is the same one with other dates.
    """

    address: IPAddress
    prefix_length: int
    interface: str
    ours: bool
    ready: bool = True
    failed: bool = False
    deprecated: bool = False
    broadcasts: tuple[IPv4Address, ...] = ()
    from_network: bool = False
    secondary: bool = False
    born: int = field(default=0, compare=False)
    renewed: int = field(default=0, compare=False)

    @property
    def usable(self) -> bool:
        """Whether sockets may be given it. One of ours with another length is yet to be made anew:
        on the way it is not there.
        """
        whole = not self.ours or self.prefix_length == self.address.max_prefixlen
        return self.ready and not self.failed and whole


class RouteKind(Enum):
    """The route types that we know (names as in `ip route`)."""

    UNICAST = "unicast"
    LOCAL = "local"
    UNREACHABLE = "unreachable"
    PROHIBIT = "prohibit"
    BLACKHOLE = "blackhole"
    THROW = "throw"

    @property
    def sends(self) -> bool:
        """Whether packets go anywhere by such a route; the others refuse them, or pass them on."""
        return self in (RouteKind.UNICAST, RouteKind.LOCAL)


#: Attributes of a route that are carried without being understood: their numbers (RTA_*) and bytes.
Attributes = tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class Hop:
    """One of several next hops of a route; `weight` as the kernel counts it, from 0 on."""

    interface: str
    gateway: IPAddress | None = None
    weight: int = 0
    attributes: Attributes = ()


@dataclass(frozen=True, slots=True)
class Route:
    """A route of ours, or of the main table.

    `destination` None: a default route. `interface` None: nothing is sent by it, or it has several
    `hops`. `only_from` restricts it to some sources (IPv6). `attributes` is what else it carries:
    metrics (MTU and such), encapsulation, realms.
    """

    table: int
    family: Family
    destination: IPNetwork | None
    kind: RouteKind = RouteKind.UNICAST
    interface: str | None = None
    gateway: IPAddress | None = None
    source: IPAddress | None = None
    metric: int = 0
    tos: int = 0
    hops: tuple[Hop, ...] = ()
    only_from: IPNetwork | None = None
    attributes: Attributes = ()

    @property
    def cost(self) -> int:
        """The metric as the kernel compares it."""
        return self.metric or (IPV6_DEFAULT_METRIC if self.family is Family.IPV6 else 0)

    @property
    def interfaces(self) -> frozenset[str]:
        """Where packets leave by it."""
        if self.interface is not None and not self.hops:
            return frozenset((self.interface,))
        found = {hop.interface for hop in self.hops} | {self.interface}
        return frozenset(each for each in found if each is not None)

    def takes_place_of(self, other: "Route") -> bool:
        """Whether the kernel has it instead of the other one, once it is added (`kernel.routes`):
        those straight to an interface stand beside others, but IPv6 has one of each interface.
        """
        same = (self.family, self.table, self.destination, self.metric, self.tos) == (
            *(other.family, other.table, other.destination, other.metric, other.tos),
        )
        if self.kind is RouteKind.UNICAST and self.gateway is None and not self.hops:
            beside = self.family is not Family.IPV6 or self.interfaces != other.interfaces
            return same and not beside
        return same


@lru_cache(_MOST_KNOWN)
def is_scoped(network: IPNetwork | None) -> bool:
    """Whether what a route leads to belongs to its link, so that each link keeps its own."""
    return network is not None and (network.is_link_local or network.is_multicast)


class RuleAction(Enum):
    """What our rules do with a packet (names as in `ip rule`)."""

    LOOKUP = "lookup"
    PROHIBIT = "prohibit"
    GOTO = "goto"
    NOTHING = "nop"


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy routing rule of ours: by mark, by source network, or main without its default.

    `local_only`: for packets that this host made, not for those that it forwards. Rules that look
    nothing up have table 0; `goto` is the priority at which the walk goes on.
    """

    family: Family
    priority: int
    table: int
    source: IPNetwork | None = None
    mark: int = 0
    mask: int = 0
    suppress_prefix_length: int | None = None
    local_only: bool = False
    action: RuleAction = RuleAction.LOOKUP
    goto: int = 0


@dataclass(frozen=True, slots=True)
class ForeignRule:
    """A policy routing rule that is not ours, with what may keep it from our packets.

    `mark` and `mask` 0: it asks for no mark. `goto`: the priority at which the walk goes on.
    `suppress_prefix_length` and `suppress_group`: of the routes that it finds, those that are no
    longer, or lead by an interface of that group, are passed over.
    `inverted`: it is for all that does *not* fit. `limits` is what else it asks for, as `ip rule`
    spells it (users, protocols, ports).
    """

    family: Family
    priority: int
    action: str = "lookup"
    table: int = 0
    source: IPNetwork | None = None
    destination: IPNetwork | None = None
    mark: int = 0
    mask: int = 0
    incoming: str | None = None
    outgoing: str | None = None
    suppress_prefix_length: int | None = None
    suppress_group: int | None = None
    goto: int = 0
    inverted: bool = False
    virtual: bool = False
    limits: str = ""

    @property
    def selector(self) -> str:
        """The rule as `ip rule add` takes it, but for its priority."""
        words = ["not"] if self.inverted else []
        words += ["from", str(self.source or "all")]
        if self.destination is not None:
            words += ["to", str(self.destination)]
        if self.mask:
            full = self.mask == 0xFFFFFFFF
            words += ["fwmark", f"{self.mark:#x}" if full else f"{self.mark:#x}/{self.mask:#x}"]
        for word, name in (("iif", self.incoming), ("oif", self.outgoing)):
            if name is not None:
                words += [word, name]
        words += self.limits.split()
        if self.action == "goto":
            words += ["goto", str(self.goto)]
        elif self.action == "lookup":
            words += ["lookup", str(self.table)]
            if self.suppress_prefix_length is not None:
                words += ["suppress_prefixlength", str(self.suppress_prefix_length)]
            if self.suppress_group is not None:
                words += ["suppress_ifgroup", str(self.suppress_group)]
        else:
            words.append(self.action)
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class AddressLabel:
    """An entry of the kernel's table of labels (`ip addrlabel`, RFC 6724 2.1), ours excepted.

    `interface` None: it holds on all of them.
    """

    network: IPv6Network
    label: int
    interface: str | None = None


@dataclass(frozen=True)
class HostState:
    """What the network namespace looks like now, as `kernel` read it.

    `main_routes` are the main table's routes (those that matter to typed packets are mirrored into
    each prefix's table); `routes` and `rules` are only ours. `foreign_rules` are others' that stand
    before the last of ours, in the order in which they are asked; `foreign_routes` are the routes
    of the tables that they look up, main excepted.
    `labels` are the addresses that have our label (see `prefixes.untyped`), `label_policy` what
    others have labelled: of the entries that fit an address the first one holds.
    `hints` are the types of networks that routers announce, by interface. `dead`: by IP version and
    interface, why nothing goes further than its link, though it is up.
    """

    links: dict[str, Link] = field(default_factory=dict)
    addresses: tuple[LocalAddress, ...] = ()
    routes: frozenset[Route] = frozenset()
    rules: frozenset[Rule] = frozenset()
    main_routes: tuple[Route, ...] = ()
    foreign_rules: tuple[ForeignRule, ...] = ()
    foreign_routes: tuple[Route, ...] = ()
    labels: frozenset[IPv6Address] = frozenset()
    label_policy: tuple[AddressLabel, ...] = ()
    hints: Mapping[str, Mapping[IPv6Network, AddressType]] = field(default_factory=dict)
    dead: Mapping[tuple[Family, str], str] = field(default_factory=dict)

    def hint(self, local: LocalAddress) -> AddressType | None:
        """The type that a router has said of an address, by the narrowest of its networks."""
        found = [
            (network.prefixlen, type_)
            for network, type_ in self.hints.get(local.interface, {}).items()
            if local.address in network
        ]
        return max(found)[1] if found else None

    def at(self, address: IPAddress, interface: str) -> Sequence[LocalAddress]:
        """What is known of an address on an interface (IPv4 may have it there twice)."""
        return self._places.get((address, interface), ())

    @cached_property
    def ready(self) -> frozenset[IPAddress]:
        """The addresses from which the kernel sends, on whichever interface."""
        return frozenset(each.address for each in self.addresses if each.usable)

    @cached_property
    def ways(self) -> dict[tuple[Family, str], Route]:
        """The default route that counts on each interface: main's, else one of others' tables.

        Of several next hops each is a way of its own interface. As routes of table 0, without
        source.
        """
        return {key: ways[0] for key, ways in self.all_ways.items()}

    @cached_property
    def all_ways(self) -> dict[tuple[Family, str], list[Route]]:
        """All default routes on each interface, as `ways` has the best of them."""
        found: dict[tuple[Family, str], list[tuple[tuple[bool, int, str], Route]]] = {}
        tables = ((False, self.main_routes), (True, self.foreign_routes))
        for elsewhere, route in ((where, each) for where, routes in tables for each in routes):
            special = route.destination is not None or route.tos or route.only_from is not None
            if special or route.kind is not RouteKind.UNICAST:
                continue
            for hop in route.hops or (Hop(route.interface or "", route.gateway),):
                way = Route(
                    table=0,
                    family=route.family,
                    destination=None,
                    interface=hop.interface,
                    gateway=hop.gateway,
                    metric=route.metric,
                    attributes=(*route.attributes, *hop.attributes),
                )
                place = (elsewhere, route.cost, str(hop.gateway))
                found.setdefault((route.family, hop.interface), []).append((place, way))
        return {
            key: [way for _, way in sorted(ways, key=lambda each: each[0])]
            for key, ways in found.items()
        }

    def way_of(self, prefix: TypedPrefix) -> Route | None:
        """The default route that a prefix follows (`learned_gateway`); None: there is none.

        One by the router of the network before leads nowhere now, however long main has it yet.
        """
        ways = self.all_ways.get((prefix.family, prefix.interface), ())
        former = prefix.former_gateway
        return next((w for w in ways if former is None or w.gateway != former), None)

    @cached_property
    def _places(self) -> dict[tuple[IPAddress, str], list[LocalAddress]]:
        found: dict[tuple[IPAddress, str], list[LocalAddress]] = {}
        for local in self.addresses:
            found.setdefault((local.address, local.interface), []).append(local)
        return found
