"""What the agent needs of the maps."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from odm_agent.actions import DatapathAction
from odm_agent.model import AddressType, IPAddress
from odm_agent.projection import PrefixRow, Projection


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
    """What tracked sockets are counted by."""

    address: IPAddress
    class_id: int
    type: AddressType


class Datapath(Protocol):
    """The maps. The real one is `maps.PinnedDatapath`, the fake `memory.MemoryDatapath`."""

    def read(self) -> Projection:
        """The rows that are in the maps now (kernel parts of the projection stay empty)."""

    def prefixes(self) -> Mapping[int, PrefixRow]:
        """What hooks hand out now, by prefix id."""

    def apply(self, action: DatapathAction) -> None:
        """Write or drop one row; dropping what is not there counts as done."""

    def verdicts(self) -> dict[VerdictKey, int]:
        """All verdicts counted since the maps were made."""
