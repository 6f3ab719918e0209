"""The words of RFC 8653 as values: no I/O, no clock, no sockets.

Everything here is frozen. The typed prefix table (`prefixes`) holds `TypedPrefix`es; `reconcile`
turns them into a `Projection` (`projection`), given what the kernel holds (`host`), compares it
with the projection that is observed, and returns ordered actions (`actions`); the adapters
(`kernel`, `datapath`) carry them out.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, Literal

from odm_agent.core.lifetimes import WITHOUT_END, AddressLease, Terms

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

#: A delegated pool larger than this is made local by a route: each configured address costs every
#: untyped IPv6 connect of the namespace a little, since the kernel looks at all of them.
CONFIGURED_AT_MOST: Final = 16
#: A pool up to this has a lease for each address, if these end; of a larger one all end together.
LEASED_AT_MOST: Final = 256
#: The longest IPv6 prefix of which each socket can have an address of its own: hooks make up the
#: last 64 bits.
OWN_AT_MOST: Final = 64
#: The id of the class of sockets that belong to no class.
UNCLASSIFIED: Final = 0


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


#: All addresses of a family.
ANY: Final[dict[Family, IPNetwork]] = {
    Family.IPV4: IPv4Network("0.0.0.0/0"),
    Family.IPV6: IPv6Network("::/0"),
}


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
    """Where a prefix's addresses live: routed to this host (on `lo`), or resolved on a link.

    Managed ones are others' (NetworkManager, say): what an uplink has is taken as it is.
    """

    DELEGATED = "delegated"
    ON_LINK = "on-link"
    MANAGED = "managed"

    value: Literal["delegated", "on-link", "managed"]


def is_any_ip(placement: Placement, pool: int, per_socket: bool) -> bool:
    """Whether a prefix of which so many addresses are wanted is local as a whole."""
    return placement is Placement.DELEGATED and (pool > CONFIGURED_AT_MOST or per_socket)


def is_one_lease(pool: int, per_socket: bool) -> bool:
    """Whether the addresses of a prefix end together, since there are too many to tell apart."""
    return per_socket or pool > LEASED_AT_MOST


@dataclass(frozen=True, slots=True)
class Seat:
    """What a class has in a prefix of which each class has addresses of its own.

    `number` is a prefix id, of which its mark and routing table are made; 0: not given yet. `terms`
    say how long its addresses serve.
    """

    class_name: str
    class_id: int = 0
    number: int = 0
    terms: Terms = WITHOUT_END


@dataclass(frozen=True, slots=True)
class TypedPrefix:
    """One row of the typed prefix table.

    `spans` is what is typed as a whole: the prefix itself, or the networks that make up an
    on-link IPv4 range. `pool` counts addresses. `order` is the position in the configuration.
    Of an uplink whose addresses others manage `network` says the family alone; `interface` and
    `spans` are what was found last (`prefixes.managed`).
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
    #: RFC 7217's Net_Iface: empty, but for prefixes of a time when it was the interface's name.
    net_iface: str = ""
    #: Whether its addresses are given to no socket anew, and stay for those that have them.
    lingering: bool = False
    #: How long its addresses serve.
    terms: Terms = WITHOUT_END
    #: Whether it ends itself, as what a network gives does, and all its addresses with it.
    ends: bool = False
    #: Its addresses, if they end: those that sockets are given, the spare and the lingering ones.
    addresses: tuple[AddressLease, ...] = ()
    #: Numbers of former addresses that no other one may be given yet.
    resting: frozenset[int] = frozenset()
    #: Whether each IPv6 socket is to have an address of its own.
    per_socket: bool = False
    #: Whether IPv6 sockets that ask for a new address have one of their own, since one has asked.
    opened: bool = False
    #: Until when its address counts as new, as it was made for who asked for one (boot-time
    #: seconds).
    new_until_s: float = 0.0
    #: Whether the network to which the host is attached now has not said yet that it serves it.
    unconfirmed: bool = False
    #: Whether packets from it may leave by its interface: not from the loss of its link on, until
    #: the network that is found there, or at another interface, says that it serves it.
    attached: bool = True
    #: Whether sockets are given it as long as nothing else of the type serves
    #: (`core.standing_in`).
    stands_in: bool = False
    #: How often another one of those that are as good, and wander too, stands first; None: it does
    #: not wander.
    wander_s: int | None = None
    #: Which of these periods it is, counted from the boot on.
    period: int = 0
    #: Whether its packets take main's best default route by `interface`, as that changes. `gateway`
    #: serves where there is none, and an interface that has one peer needs neither.
    learned_gateway: bool = False
    #: The router of the network to which the host was attached before: main may have a default
    #: route by it for a while yet, on the same interface.
    former_gateway: IPAddress | None = None
    #: Of a managed one: the name of its interface, or a glob for it.
    pattern: str = ""
    #: Of a managed one: whether those addresses alone are its own that routers call its type.
    hinted: bool = False
    #: Of a managed one: whether its addresses are only for classes that may use the type.
    exclusive: bool = False
    #: The prefix whose mark it has, too, as an IPv6 socket that sends by IPv4 has one mark; 0: its
    #: own.
    marked_as: int = 0
    #: Whether each class has addresses of its own: `seats`, of all classes that may use the type.
    by_class: bool = False
    seats: tuple[Seat, ...] = ()

    @property
    def is_numbered(self) -> bool:
        """Whether it and all its seats have their numbers."""
        return bool(self.id) and all(seat.number for seat in self.seats)

    def seat_of(self, class_name: str) -> Seat | None:
        """The seat of a class; None: it has none (any more)."""
        return next((seat for seat in self.seats if seat.class_name == class_name), None)

    def terms_of(self, class_name: str) -> Terms:
        """How long addresses serve that are a class's own; "": that are no class's."""
        seat = self.seat_of(class_name) if class_name else None
        return self.terms if seat is None else seat.terms

    @property
    def is_over(self) -> bool:
        """Whether it has ended, with all its addresses; sockets that had one may live yet."""
        return self.ends and self.lingering and not self.addresses

    @property
    def is_unserved(self) -> bool:
        """Whether the network to which the host is attached now has said that it serves it not."""
        return not (self.attached or self.unconfirmed)

    @property
    def on_net(self) -> bool:
        """Whether that network has said that it serves it."""
        return self.attached and not self.unconfirmed

    @property
    def waits(self) -> bool:
        """Whether sockets are given it, while no network is known that leads there: nothing leaves
        from it before one is, and nobody is told so.
        """
        return self.stands_in and not self.attached

    @property
    def mark_id(self) -> int:
        """The id of which its mark is made."""
        return self.marked_as or self.id

    @property
    def any_ip(self) -> bool:
        """Whether the prefix is local as a whole, by a route."""
        return not self.by_class and is_any_ip(
            self.placement, self.pool, self.per_socket or self.opened
        )

    @property
    def one_lease(self) -> bool:
        """Whether all its addresses end together, with no successor."""
        return not self.by_class and is_one_lease(self.pool, self.per_socket)

    @property
    def family(self) -> Family:
        """The prefix's IP version."""
        return Family.of(self.network)

    @property
    def managed(self) -> bool:
        """Whether its addresses are put on the interface by others, and stay theirs."""
        return self.placement is Placement.MANAGED

    @property
    def shared(self) -> bool:
        """Whether its addresses are everybody's, and typed to those that may use the type."""
        return self.managed and not self.exclusive


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
class Limit:
    """How long, and for how many IP bytes, an address of a type serves a class; 0: no limit."""

    type: AddressType
    longest_s: int = 0
    bytes: int = 0


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
    limits: frozenset[Limit] = frozenset()
    #: Whether its sockets whose address is over by a handover are ended.
    ends_on_handover: bool = False
    #: Whether its MPTCP connections get a subflow from the address that follows theirs.
    follows_by_mptcp: bool = False
