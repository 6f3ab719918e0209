"""What the agent needs of the maps."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from odm_agent.core.actions import DatapathAction
from odm_agent.core.demands import Wish
from odm_agent.core.model import AddressType, Family, IPAddress
from odm_agent.core.projection import PrefixRow, Projection


@dataclass(frozen=True, slots=True)
class VerdictKey:
    """What a verdict is counted by; words as in metrics (accept, assign, audit, refuse)."""

    class_id: int
    type: AddressType
    verdict: str
    reason: str
    hook: str


@dataclass(frozen=True, slots=True)
class LiveKey:
    """What tracked sockets are counted by.

    Those at typed addresses that are not configured (FREEBIND) are counted together, by family,
    with the wildcard as address.
    """

    address: IPAddress
    class_id: int
    type: AddressType


@dataclass(frozen=True, slots=True)
class Sent:
    """What left the host: IP bytes (headers included, after segmentation) and packets.

    A packet that the interface cuts into segments is one.
    """

    bytes: int = 0
    packets: int = 0


@dataclass(frozen=True, slots=True)
class KernelEvent:
    """What a program told: `kind` is warn, spent, refused or need; words as in metrics.

    Of warn and spent only `lease` counts, of refused all but that and `family`, of need class, type
    and family, `on_net` and `fresh`.
    """

    boot_s: float
    kind: str
    lease: int
    class_id: int
    type: AddressType
    reason: str
    hook: str
    family: Family = Family.IPV4
    on_net: bool = False
    fresh: bool = False

    @property
    def wish(self) -> Wish:
        """What a need is for."""
        return Wish((self.type, self.family), self.on_net, self.fresh)


def unconfigured(family: Family) -> IPAddress:
    """What stands for all addresses of a family that are not configured."""
    return IPv6Address(0) if family is Family.IPV6 else IPv4Address(0)


class Datapath(Protocol):
    """The maps. The real one is `maps.writer.MapWriter`, the fake `fake.FakeDatapath`."""

    def read(self) -> Projection:
        """The rows that are in the maps now (kernel parts of the projection stay empty)."""

    def prefixes(self) -> Mapping[int, PrefixRow]:
        """What hooks hand out now, by prefix id."""

    def seats(self) -> Mapping[tuple[int, int], int]:
        """By prefix and class the prefix id that is the class's own."""

    def choices(self) -> Mapping[tuple[AddressType, Family], tuple[int, ...]]:
        """The ids of the prefixes that serve each type, the first one first."""

    def apply(self, action: DatapathAction) -> None:
        """Write or drop one row; dropping what is not there counts as done."""

    def meters(self) -> dict[int, Sent]:
        """What was sent by each address lease, by its id."""

    def verdicts(self) -> dict[VerdictKey, int]:
        """All verdicts counted since the maps were made."""
