"""The tables of the core in their maps: how a row lies there, and a copy of all rows beside."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from odm_agent.core import tables
from odm_agent.core.errors import DatapathError
from odm_agent.core.model import ClassPolicy
from odm_agent.core.projection import LeaseRow, PrefixRow
from odm_agent.core.tables import Table
from odm_agent.datapath import abi, libbpf
from odm_agent.datapath.base import Sent
from odm_agent.datapath.maps import classes, rows
from odm_agent.datapath.maps.slots import Slots

Key = TypeVar("Key")
Row = TypeVar("Row")
Maps = Mapping[str, libbpf.Map]


@dataclass(frozen=True, slots=True)
class Packing(Generic[Key, Row]):
    """A table each row of which is one row of its map; integers may stand for themselves."""

    table: Table[Key, Row]
    map: str
    pack_key: Callable[[Key], Any]
    unpack_key: Callable[[Any], Key]
    pack: Callable[[Row], Any]
    unpack: Callable[[Any], Row]


PACKINGS: Final[list[Packing[Any, Any]]] = [
    Packing(
        *(tables.SPANS, "odm_spans", abi.pack_span, abi.unpack_span),
        *(rows.pack_span, rows.unpack_span),
    ),
    Packing(
        *(tables.SOURCES, "odm_origins", abi.pack_addr, abi.unpack_addr),
        *(rows.pack_source, rows.unpack_source),
    ),
    Packing(tables.SEATS, "odm_seats", rows.pack_seat_key, rows.unpack_seat_key, int, int),
    Packing(
        *(tables.CHOICES, "odm_choices", abi.pack_choice_key, abi.unpack_choice_key),
        *(rows.pack_choice, rows.unpack_choice),
    ),
    Packing(tables.CGROUPS, "odm_cgroups", int, int, rows.pack_cgroup, rows.unpack_cgroup),
    Packing(tables.UPLINKS, "odm_uplinks", int, int, lambda _: 1, lambda _: None),
]


class Written(ABC, Generic[Key, Row]):
    """A table as it is in the maps; `rows` is a copy of it, `names` are its maps."""

    def __init__(self, maps: Maps, *names: str) -> None:
        self._maps = maps
        self._map = maps[names[0]]
        self.names = frozenset(names)
        self.rows: dict[Key, Row] = {}
        self.read()

    def read(self) -> None:
        """Make the copy anew."""
        self.rows = dict(self._found())

    def put(self, key: Key, row: Row) -> None:
        """Write a row; hooks see it whole or not at all. DatapathError if there is no room."""
        self._write(key, row)
        self.rows[key] = row

    def drop(self, key: Key) -> None:
        """Remove a row; one that is not there counts as removed."""
        self._erase(key)
        self.rows.pop(key, None)

    @abstractmethod
    def _found(self) -> Iterator[tuple[Key, Row]]: ...

    @abstractmethod
    def _write(self, key: Key, row: Row) -> None: ...

    @abstractmethod
    def _erase(self, key: Key) -> None: ...


class Plain(Written[Key, Row]):
    """One of PACKINGS. What is all 0 in an array is no row."""

    def __init__(self, maps: Maps, packing: Packing[Key, Row]) -> None:
        self._packing = packing
        super().__init__(maps, packing.map)

    def _found(self) -> Iterator[tuple[Key, Row]]:
        for key, row in self._map.items():
            if not self._map.is_array or any(bytes(row)):
                yield self._packing.unpack_key(key), self._packing.unpack(row)

    def _write(self, key: Key, row: Row) -> None:
        self._map.put(self._packing.pack_key(key), self._packing.pack(row))

    def _erase(self, key: Key) -> None:
        self._map.delete(self._packing.pack_key(key))


class Prefixes(Written[int, PrefixRow]):
    """Prefixes with their pools, which lie in odm_slots."""

    def __init__(self, maps: Maps) -> None:
        self._slots = Slots()
        super().__init__(maps, "odm_offers", "odm_slots")

    def _found(self) -> Iterator[tuple[int, PrefixRow]]:
        for key, row in self._map.items():
            first, size, _ = abi.unpack_pool(row.pool)
            if size or row.flags & abi.PREFIX_BY_CLASS:
                if size:
                    self._slots.mark_used(key, first, size)
                found = (self._maps["odm_slots"].get(first + offset) for offset in range(size))
                yield key, rows.unpack_prefix(row, [slot for slot in found if slot is not None])

    def _write(self, key: int, row: PrefixRow) -> None:
        """The pool first, in slots that nobody reads, then the one word that points to it."""
        if not 0 < key < abi.MAX_PREFIXES:
            raise DatapathError(f"the maps have no room for a prefix with the number {key}")
        first = self._slots.take(len(row.pool)) if row.pool else 0
        for offset, slot in enumerate(rows.pack_slots(row)):
            self._maps["odm_slots"].put(first + offset, slot)
        self._map.put(key, rows.pack_prefix(row, first))
        if row.pool:
            self._slots.assign(key, first, len(row.pool))
        else:
            self._slots.release(key)

    def _erase(self, key: int) -> None:
        """Nothing to hand out; where connections from its addresses leave, and whose these are,
        stays.
        """
        known = self._map.get(key)
        assert isinstance(known, abi.Prefix)  # an array has all its rows
        self._map.put(key, abi.Prefix(ifindex=known.ifindex, class_id=known.class_id))
        self._slots.release(key)


class Leases(Written[int, LeaseRow]):
    """What ends of addresses, with the meters of what was sent."""

    def __init__(self, maps: Maps) -> None:
        #: What leases have sent before their rows are written, once.
        self.resumed: dict[int, Sent] = {}
        super().__init__(maps, "odm_leases", "odm_meters")

    def _found(self) -> Iterator[tuple[int, LeaseRow]]:
        for key, row in self._map.items():
            if any(bytes(row)):
                yield key, rows.unpack_lease(row)

    def _write(self, key: int, row: LeaseRow) -> None:
        """The meter of a lease that begins, which hooks don't look at until there is the lease."""
        if not 0 < key < abi.MAX_LEASES:
            raise DatapathError(f"the maps have no room for a lease with the number {key}")
        if key not in self.rows:
            meter = rows.pack_meter(self.resumed.pop(key, Sent()))
            self._maps["odm_meters"].put(key, meter, locked=True)
        self._map.put(key, rows.pack_lease(row))

    def _erase(self, key: int) -> None:
        self._map.delete(key)


class Classes(Written[int, ClassPolicy]):
    """Classes with their caps and limits, which have rows by class and type."""

    def __init__(self, maps: Maps) -> None:
        super().__init__(maps, "odm_classes", "odm_caps", "odm_limits")

    def _found(self) -> Iterator[tuple[int, ClassPolicy]]:
        for key, row in self._map.items():
            if any(bytes(row)):
                yield key, classes.unpack(key, row, self._maps)

    def _write(self, key: int, row: ClassPolicy | None) -> None:
        """Caps and limits before the class, which says that it has caps."""
        if not 0 <= key < abi.MAX_CLASSES:
            raise DatapathError(f"the maps have no room for a class with the number {key}")
        for type_, cap in classes.caps(row).items():
            self._maps["odm_caps"].put(abi.usage_index(key, type_), cap)
        for type_, limit in classes.limits(row).items():
            self._maps["odm_limits"].put(abi.usage_index(key, type_), limit)
        self._map.put(key, classes.pack(row))

    def _erase(self, key: int) -> None:
        self._write(key, None)


def opened(maps: Maps) -> dict[Table[Any, Any], Written[Any, Any]]:
    """Every table, as it is in these maps."""
    plain: dict[Table[Any, Any], Written[Any, Any]] = {
        packing.table: Plain(maps, packing) for packing in PACKINGS
    }
    return plain | {
        tables.LEASES: Leases(maps),
        tables.PREFIXES: Prefixes(maps),
        tables.CLASSES: Classes(maps),
    }
