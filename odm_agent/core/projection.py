"""What is in kernel and maps, or should be: the rows of the eBPF maps, and the whole.

Frozen values, too; the byte layout of the rows is bpf/odm_abi.h.
"""

from dataclasses import dataclass, field
from ipaddress import IPv6Address

from odm_agent.core.host import Address, Route, Rule
from odm_agent.core.model import AddressType, ClassPolicy, Family, IPAddress, IPNetwork


@dataclass(frozen=True, slots=True)
class SourceRow:
    """The typing of one local address. `prefix_id` 0 and UNSPECIFIED: untyped, anybody's.

    `lease` is the id of its lease, 0 if it never ends. `shared`: it is typed to classes that may
    use the type, and to all others as if it were not. `managed`: whoever manages it may renew its
    lease from there. `of_class`: it is one class's own, as the row of `prefix_id` says.
    """

    prefix_id: int = 0
    type: AddressType = AddressType.UNSPECIFIED
    broadcast: bool = False
    lease: int = 0
    shared: bool = False
    managed: bool = False
    of_class: bool = False


@dataclass(frozen=True, slots=True)
class SpanRow:
    """The typing of all unconfigured addresses inside a typed network; they share a lease."""

    prefix_id: int
    type: AddressType
    any_ip: bool = False
    lease: int = 0


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """Until when an address serves (boot time, nanoseconds) and for how many bytes; 0: no end.

    `preferred_ns` and `budget` end that sockets are given it, `valid_ns` and a `hard` budget that
    packets leave from it. At `warn` bytes the hooks tell the agent.
    """

    preferred_ns: int = 0
    valid_ns: int = 0
    budget: int = 0
    warn: int = 0
    hard: bool = False


@dataclass(frozen=True, slots=True)
class PrefixRow:
    """From what a hook gives a source: `pool[0]` is also the source that the mark selects.

    `pool` lists every address that may be handed out; the first `configured` of them exist on
    an interface, the others only by an any-IP local route (bindable with FREEBIND for IPv6). The
    last `spares` of it are given, in this order, only while the leases of all others are over; the
    first `configured_spares` of these exist on an interface, too.
    `leases` are the ids of their leases, in the order of `pool`; () if none of them ends. `fresh`
    is the key (16 bytes) of the hash that makes an address of its own for each IPv6 socket; b"":
    they share those of the pool. `shared`: the addresses are everybody's, and no rule leads packets
    from them to the prefix's table: only the mark does. `on_net`: the network that the host is
    attached to now serves it. `on_request`: only sockets that ask for a new address have one of
    their own. `new_until_s`: until then (boot-time seconds) its address counts as new. `waits`:
    nothing leaves from it by any uplink just now, and nobody is told so.

    `by_class`: each class has a seat in it, a row with addresses of its own, and the prefix has no
    pool; `class_id` is that of a seat's class.
    """

    type: AddressType
    family: Family
    ifindex: int
    mark: int
    pool: tuple[IPAddress, ...]
    configured: int
    spares: int = 0
    configured_spares: int = 0
    leases: tuple[int, ...] = ()
    fresh: bytes = b""
    shared: bool = False
    on_net: bool = False
    on_request: bool = False
    new_until_s: int = 0
    by_class: bool = False
    class_id: int = 0
    waits: bool = False


@dataclass(frozen=True, slots=True)
class CgroupRow:
    """The class of a cgroup; `default` overrides the class's own default type.

    `kept`, of no class only: the types that its class allowed before it ended. Sockets that it had
    go on with them.
    """

    class_id: int
    default: AddressType | None = None
    kept: frozenset[AddressType] = frozenset()


@dataclass(frozen=True, slots=True)
class Projection:
    """The whole of what the table means (desired), or of what was found (observed).

    Sets and mappings are compared by value. `seats` maps (prefix id, class id) to the prefix id
    that is the class's own. `choices` maps (type, family) to prefix ids, the best
    first. `classes` maps class ids; 0 is the row of unclassified sockets. `guards` are the indices
    of interfaces at which packet sockets are held to `refuse`, the keys of `uplinks` of those by
    which only sources of their own prefixes may leave. `labels` are the addresses whose label keeps
    them out of everybody else's default selection.
    """

    addresses: frozenset[Address] = frozenset()
    routes: frozenset[Route] = frozenset()
    rules: frozenset[Rule] = frozenset()
    leases: dict[int, LeaseRow] = field(default_factory=dict)
    spans: dict[IPNetwork, SpanRow] = field(default_factory=dict)
    sources: dict[IPAddress, SourceRow] = field(default_factory=dict)
    prefixes: dict[int, PrefixRow] = field(default_factory=dict)
    seats: dict[tuple[int, int], int] = field(default_factory=dict)
    choices: dict[tuple[AddressType, Family], tuple[int, ...]] = field(default_factory=dict)
    classes: dict[int, ClassPolicy] = field(default_factory=dict)
    cgroups: dict[int, CgroupRow] = field(default_factory=dict)
    uplinks: dict[int, None] = field(default_factory=dict)
    guards: frozenset[int] = frozenset()
    labels: frozenset[IPv6Address] = frozenset()
