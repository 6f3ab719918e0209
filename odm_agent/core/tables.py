"""The tables whose rows the agent writes into maps, and what can be done to a row."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, cast

from odm_agent.core.model import AddressType, ClassPolicy, Family, IPAddress, IPNetwork
from odm_agent.core.projection import CgroupRow, LeaseRow, PrefixRow, Projection, SourceRow, SpanRow

Key = TypeVar("Key")
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True, repr=False)
class Table(Generic[Key, Row]):
    """One of the tables: the field `name` of a projection, and a map of the datapath.

    `writing` says for people what is done when a row is written, with `{}` for its key; "" for
    tables that have room for every row that can be. `map` is the map's name, where that is another
    one, since its rows once meant something else.
    """

    name: str
    writing: str = ""
    map: str = ""

    @property
    def map_name(self) -> str:
        """What its map is called."""
        return f"odm_{self.map or self.name}"

    def of(self, projection: Projection) -> Mapping[Key, Row]:
        """The table's rows in a projection."""
        return cast(Mapping[Key, Row], getattr(projection, self.name))

    def put(self, key: Key, row: Row) -> "Put":
        """Write a row, in the place of an older one."""
        return Put(self, key, row)

    def drop(self, key: Key) -> "Drop":
        """Remove a row; one that is not there counts as removed."""
        return Drop(self, key)

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Put:
    """Write a row (made by `Table.put`, which checks the types)."""

    table: Table[Any, Any]
    key: Any
    row: Any


@dataclass(frozen=True, slots=True)
class Drop:
    """Remove a row (made by `Table.drop`)."""

    table: Table[Any, Any]
    key: Any


#: Until when, and for how many bytes, addresses serve, by the ids of their leases.
LEASES: Final[Table[int, LeaseRow]] = Table("leases")
#: Typed networks: their sources are denied to whom the type is not allowed.
SPANS: Final[Table[IPNetwork, SpanRow]] = Table("spans", "typing {}")
#: The typings of single local addresses.
SOURCES: Final[Table[IPAddress, SourceRow]] = Table(
    "sources", "recording the address {}", "origins"
)
#: From which prefixes hooks hand out addresses, once a choice names them.
PREFIXES: Final[Table[int, PrefixRow]] = Table("prefixes", map="offers")
#: By prefix and class the class's own prefix id, where each has addresses of its own.
SEATS: Final[Table[tuple[int, int], int]] = Table("seats")
#: Which prefixes serve a type and family, the best first; none: there is no row.
CHOICES: Final[Table[tuple[AddressType, Family], tuple[int, ...]]] = Table("choices")
#: The classes' policies, without names; 0 is the row of unclassified sockets.
CLASSES: Final[Table[int, ClassPolicy]] = Table("classes")
#: The classes of cgroups, by the kernel's id, and of all below them.
CGROUPS: Final[Table[int, CgroupRow]] = Table("cgroups", "classifying cgroup number {}")
#: The interfaces, by index, by which only sources of their own prefixes may leave.
UPLINKS: Final[Table[int, None]] = Table("uplinks")

ALL: Final[tuple[Table[Any, Any], ...]] = (
    *(LEASES, SPANS, SOURCES, PREFIXES, SEATS, CHOICES, CLASSES, CGROUPS, UPLINKS),
)
