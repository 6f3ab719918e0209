"""What there is to do: the actions that a plan is made of, each carried out by one adapter."""

from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final

from odm_agent.core.host import Address, Route, Rule
from odm_agent.core.tables import Drop, Put


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
#: These take nothing away, but that a route of ours takes the place of one.
ADDITIONS: Final = (AddAddress, AddRoute, AddRule, AddLabel)
DatapathAction = Put | Drop | Guard | Unguard
Action = KernelAction | DatapathAction
