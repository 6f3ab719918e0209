"""What there is to do: the actions that a plan is made of, each carried out by one adapter."""

from dataclasses import dataclass
from ipaddress import IPv6Address

from odm_agent.core.host import Address, Route, Rule
from odm_agent.core.model import AddressType, ClassPolicy, Family, IPAddress, IPNetwork
from odm_agent.core.projection import CgroupRow, PrefixRow, SourceRow, SpanRow


@dataclass(frozen=True, slots=True)
class AddAddress:
    """Configure an address; done when the kernel has it (it may still be tentative)."""

    address: Address


@dataclass(frozen=True, slots=True)
class RemoveAddress:
    """Take an address of ours away."""

    address: Address


@dataclass(frozen=True, slots=True)
class AddRoute:
    """Install or replace a route."""

    route: Route


@dataclass(frozen=True, slots=True)
class RemoveRoute:
    """Remove a route of ours."""

    route: Route


@dataclass(frozen=True, slots=True)
class AddRule:
    """Install a policy routing rule."""

    rule: Rule


@dataclass(frozen=True, slots=True)
class RemoveRule:
    """Remove a policy routing rule of ours."""

    rule: Rule


@dataclass(frozen=True, slots=True)
class AddLabel:
    """Have a typed address match no destination in default selection (RFC 6724, rule 6)."""

    address: IPv6Address


@dataclass(frozen=True, slots=True)
class RemoveLabel:
    """Take our label from an address."""

    address: IPv6Address


@dataclass(frozen=True, slots=True)
class PutSpan:
    """Type a whole network: from now on its sources are denied to whom the type is not allowed."""

    network: IPNetwork
    row: SpanRow


@dataclass(frozen=True, slots=True)
class DropSpan:
    """Untype a network."""

    network: IPNetwork


@dataclass(frozen=True, slots=True)
class PutSource:
    """Record the verdict on one local address."""

    address: IPAddress
    row: SourceRow


@dataclass(frozen=True, slots=True)
class DropSource:
    """Forget the verdict on one address."""

    address: IPAddress


@dataclass(frozen=True, slots=True)
class PutPrefix:
    """Let hooks hand out a prefix's addresses (once a choice names it)."""

    prefix_id: int
    row: PrefixRow


@dataclass(frozen=True, slots=True)
class DropPrefix:
    """Hand out nothing more of a prefix."""

    prefix_id: int


@dataclass(frozen=True, slots=True)
class PutChoice:
    """Set which prefixes serve a type and family, the best first; empty means none."""

    type: AddressType
    family: Family
    prefix_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PutClass:
    """Write a class's policy row (id 0: unclassified sockets)."""

    policy: ClassPolicy


@dataclass(frozen=True, slots=True)
class DropClass:
    """Turn a class off: its sockets count as unclassified."""

    class_id: int


@dataclass(frozen=True, slots=True)
class PutCgroup:
    """Classify a cgroup (by its id, as the kernel names it) and all below it."""

    cgroup_id: int
    row: CgroupRow


@dataclass(frozen=True, slots=True)
class DropCgroup:
    """Unclassify a cgroup."""

    cgroup_id: int


@dataclass(frozen=True, slots=True)
class PutUplink:
    """Let no typed source leave by an interface (by its index) but those of its own prefixes."""

    interface: int


@dataclass(frozen=True, slots=True)
class DropUplink:
    """Let any source leave by an interface that is no uplink any more, or gone."""

    interface: int


@dataclass(frozen=True, slots=True)
class Guard:
    """Hold packet sockets to their class at an interface (by its index)."""

    interface: int


@dataclass(frozen=True, slots=True)
class Unguard:
    """Leave an interface, or forget one that is gone."""

    interface: int


KernelAction = (
    AddAddress
    | RemoveAddress
    | AddRoute
    | RemoveRoute
    | AddRule
    | RemoveRule
    | AddLabel
    | RemoveLabel
)
DatapathAction = (
    PutSpan
    | DropSpan
    | PutSource
    | DropSource
    | PutPrefix
    | DropPrefix
    | PutChoice
    | PutClass
    | DropClass
    | PutCgroup
    | DropCgroup
    | PutUplink
    | DropUplink
    | Guard
    | Unguard
)
Action = KernelAction | DatapathAction
