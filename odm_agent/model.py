"""The words of RFC 8653 and of the kernel as values: no I/O, no clock, no sockets.

Everything here is frozen. The typed prefix table (`prefixes`) holds `TypedPrefix`es; `reconcile`
turns them into a `Projection`, compares it with the projection that is observed, and returns
ordered actions (`actions`); the adapters (`kernel`, `datapath`) carry them out.
"""

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, Literal

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network


class AddressType(IntEnum):
    """The address types of RFC 8653, section 3.2; numbers as in the option's on-demand field."""

    UNSPECIFIED = 0
    FIXED = 1
    SESSION_LASTING = 2
    NONPERSISTENT = 3
    GRACEFUL_REPLACEMENT = 4

    @property
    def word(self) -> str:
        """The RFC's word as configuration, CLI and metrics spell it, e.g. `session-lasting`."""
        return self.name.lower().replace("_", "-")

    @classmethod
    def from_word(cls, word: str) -> "AddressType":
        """The type called `word`; ValueError if there is none."""
        for member in cls:
            if member.word == word:
                return member
        raise ValueError(f"no address type is called {word!r}")


#: The types that an application can ask for.
TYPES: Final = tuple(t for t in AddressType if t)
#: Types whose addresses are costly (RFC 8653, section 5): classes that may use them fail closed.
COSTLY: Final = frozenset({AddressType.FIXED, AddressType.SESSION_LASTING})


class Family(IntEnum):
    """IP version; the value is the version number, not an AF_ constant."""

    IPV4 = 4
    IPV6 = 6

    @classmethod
    def of(cls, thing: IPAddress | IPNetwork) -> "Family":
        """The family of an address or network."""
        return cls(thing.version)


class Mode(IntEnum):
    """What a class's refusals do: refuse, only count, or nothing at all (as if unclassified)."""

    OFF = 0
    AUDIT = 1
    ENFORCE = 2

    @property
    def word(self) -> Literal["off", "audit", "enforce"]:
        """The word used in configuration, CLI and metrics."""
        return _MODE_WORDS[self]


_MODE_WORDS: Final[dict[Mode, Literal["off", "audit", "enforce"]]] = {
    Mode.OFF: "off",
    Mode.AUDIT: "audit",
    Mode.ENFORCE: "enforce",
}


class Placement(Enum):
    """Where a prefix's addresses live: routed to this host (on `lo`), or resolved on a link."""

    DELEGATED = "delegated"
    ON_LINK = "on-link"


@dataclass(frozen=True, slots=True)
class TypedPrefix:
    """One row of the typed prefix table.

    `spans` is what is typed as a whole: the prefix itself, or the networks that make up an
    on-link IPv4 range. `pool` counts addresses. `order` is the position in the configuration.
    """

    id: int
    name: str
    type: AddressType
    network: IPNetwork
    interface: str
    gateway: IPAddress | None
    placement: Placement
    spans: tuple[IPNetwork, ...]
    pool: int = 1
    range: tuple[IPv4Address, IPv4Address] | None = None
    preference: int = 0
    untyped_allowed: bool = False
    #: Whether packets from the prefix that others made are forwarded.
    forwarded: bool = False
    order: int = 0

    @property
    def family(self) -> Family:
        """The prefix's IP version."""
        return Family.of(self.network)


class SocketKind(Enum):
    """Kinds of socket that a class can be refused; the words are those of the configuration."""

    RAW = "raw"
    PING = "ping"
    MPTCP = "mptcp"
    UDPLITE = "udplite"
    PACKET = "packet"
    XDP = "xdp"


@dataclass(frozen=True, slots=True)
class Cap:
    """How much of a type a class may have; 0: as much as it likes.

    `sockets` counts live sockets, `requests_per_minute` is a mean: that many may come at once.
    """

    type: AddressType
    sockets: int = 0
    requests_per_minute: int = 0


@dataclass(frozen=True, slots=True)
class ClassPolicy:
    """What an application class may do (decided by the configuration), with its kernel id."""

    id: int
    name: str
    allow: frozenset[AddressType] = frozenset()
    default: AddressType = AddressType.UNSPECIFIED
    mode: Mode = Mode.ENFORCE
    strict: bool = False
    fail_closed: bool = False
    cgroups: tuple[str, ...] = ()
    delegated: bool = False
    refuse: frozenset[SocketKind] = frozenset()
    caps: frozenset[Cap] = frozenset()


# --- what the kernel holds ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Link:
    """An interface of the agent's network namespace; `up`: administratively up, with carrier."""

    name: str
    index: int
    up: bool


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


class RouteKind(Enum):
    """The route types that we install (names as in `ip route`)."""

    UNICAST = "unicast"
    LOCAL = "local"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Route:
    """A route of ours. `destination` None: the default route; `interface` None: unreachable."""

    table: int
    family: Family
    destination: IPNetwork | None
    kind: RouteKind = RouteKind.UNICAST
    interface: str | None = None
    gateway: IPAddress | None = None
    source: IPAddress | None = None
    metric: int = 0


class RuleAction(Enum):
    """What our rules do with a packet (names as in `ip rule`)."""

    LOOKUP = "lookup"
    PROHIBIT = "prohibit"


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy routing rule of ours: by mark, by source network, or main without its default.

    `local_only`: for packets that this host made, not for those that it forwards. Rules that look
    nothing up have table 0.
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


# --- what the eBPF maps hold (rows; the byte layout is bpf/odm_abi.h) -------------------------


@dataclass(frozen=True, slots=True)
class SourceRow:
    """The verdict on one local address. `prefix_id` 0 and UNSPECIFIED: untyped, anybody's."""

    prefix_id: int = 0
    type: AddressType = AddressType.UNSPECIFIED
    broadcast: bool = False


@dataclass(frozen=True, slots=True)
class SpanRow:
    """The verdict on all unconfigured addresses inside a typed network."""

    prefix_id: int
    type: AddressType
    any_ip: bool = False


@dataclass(frozen=True, slots=True)
class PrefixRow:
    """From what a hook gives a source: `pool[0]` is also the source that the mark selects.

    `pool` lists every address that may be handed out; the first `configured` of them exist on
    an interface, the others only by an any-IP local route (bindable with FREEBIND for IPv6).
    """

    type: AddressType
    family: Family
    ifindex: int
    mark: int
    pool: tuple[IPAddress, ...]
    configured: int


@dataclass(frozen=True, slots=True)
class CgroupRow:
    """The class of a cgroup; `default` overrides the class's own default type."""

    class_id: int
    default: AddressType | None = None


@dataclass(frozen=True, slots=True)
class Projection:
    """The whole of what the table means (desired), or of what was found (observed).

    Sets and mappings are compared by value. `choices` maps (type, family) to prefix ids, the best
    first. `classes` maps class ids; 0 is the row of unclassified sockets. `guards` are the indices
    of interfaces at which packet sockets are held to `refuse`.
    """

    addresses: frozenset[Address] = frozenset()
    routes: frozenset[Route] = frozenset()
    rules: frozenset[Rule] = frozenset()
    spans: dict[IPNetwork, SpanRow] = field(default_factory=dict)
    sources: dict[IPAddress, SourceRow] = field(default_factory=dict)
    prefixes: dict[int, PrefixRow] = field(default_factory=dict)
    choices: dict[tuple[AddressType, Family], tuple[int, ...]] = field(default_factory=dict)
    classes: dict[int, ClassPolicy] = field(default_factory=dict)
    cgroups: dict[int, CgroupRow] = field(default_factory=dict)
    guards: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """Any address found in the namespace, ours or not. `ready` is false while tentative (DAD).

    `failed` marks an address that duplicate address detection found in use elsewhere.
    """

    address: IPAddress
    prefix_length: int
    interface: str
    ours: bool
    ready: bool = True
    failed: bool = False
    deprecated: bool = False
    broadcast: IPv4Address | None = None


@dataclass(frozen=True, slots=True)
class HostState:
    """What the network namespace looks like now, as `kernel` read it.

    `main_routes` are the unicast routes of the main table without its default routes
    (mirrored with a typed source into each prefix's table); `routes` and `rules` are only ours.
    """

    links: dict[str, Link] = field(default_factory=dict)
    addresses: tuple[LocalAddress, ...] = ()
    routes: frozenset[Route] = frozenset()
    rules: frozenset[Rule] = frozenset()
    main_routes: tuple[Route, ...] = ()
