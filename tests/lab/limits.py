"""What ends of the fixed prefix's addresses, written into the maps while no agent runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any, Final

from odm_agent.core import tables
from odm_agent.core.model import Family
from odm_agent.core.projection import LeaseRow, PrefixRow
from odm_agent.core.tables import Table
from odm_agent.datapath.base import VerdictKey
from odm_agent.datapath.maps.writer import MapWriter
from tests.lab.host import FIXED, prefix_of
from tests.lab.netns import address
from tests.lab.world import World

#: The tables that tests change beside LEASES, in the order in which rows are put back.
_CHANGED: Final[tuple[Table[Any, Any], ...]] = (
    *(tables.PREFIXES, tables.CHOICES, tables.SPANS, tables.SOURCES),
)


@dataclass
class Limits:
    """The maps of a world without an agent."""

    world: World
    writer: MapWriter

    def prefix(self, family: Family) -> tuple[int, PrefixRow]:
        """The number and row of the fixed prefix of a family."""
        [number] = self.writer.choices()[FIXED, family]
        return number, self.writer.prefixes()[number]

    def limit(self, family: Family, *leases: LeaseRow, spares: int = 0) -> list[str]:
        """Give the fixed prefix as many addresses as there are leases; what they are."""
        number, row = self.prefix(family)
        interface = prefix_of(FIXED, family).interface
        pool = tuple(row.pool[0] + index for index in range(len(leases)))
        bits = pool[0].max_prefixlen
        address(self.world.site.host, interface, *(f"{each}/{bits}" for each in pool[1:]))
        source = self.writer.read().sources[pool[0]]
        for index, (each, lease) in enumerate(zip(pool, leases, strict=True)):
            self.writer.apply(tables.LEASES.drop(1 + index))
            self.writer.apply(tables.LEASES.put(1 + index, lease))
            self.writer.apply(tables.SOURCES.put(each, replace(source, lease=1 + index)))
        self.writer.apply(
            tables.PREFIXES.put(
                number,
                replace(
                    row,
                    pool=pool,
                    configured=len(pool) - spares,
                    spares=spares,
                    configured_spares=spares,
                    leases=tuple(range(1, 1 + len(pool))),
                ),
            )
        )
        return [str(each) for each in pool]

    def set(self, lease: int, row: LeaseRow) -> None:
        """Change a lease; its meter goes on."""
        self.writer.apply(tables.LEASES.put(lease, row))

    def ended(self, hook: str) -> int:
        """How often a hook of the class `every` has refused what has ended."""
        return sum(
            count
            for key, count in self.writer.verdicts().items()
            if _is_ended(key) and key.hook == hook
        )


def _is_ended(key: VerdictKey) -> bool:
    return (key.verdict, key.reason, key.type) == ("refuse", "ended", FIXED)


@contextmanager
def limits(world: World) -> Iterator[Limits]:
    """The maps of a world; they, and the host's addresses, are in the end as they were."""
    with MapWriter(world.agent.pins) as writer:
        before = writer.read()
        try:
            yield Limits(world, writer)
        finally:
            for table in _CHANGED:
                for key in set(table.of(writer.read())) - set(table.of(before)):
                    writer.apply(table.drop(key))
                    if table is tables.SOURCES:
                        _forget(world, str(key))
                for key, row in table.of(before).items():
                    writer.apply(table.put(key, row))
            for lease in set(writer.read().leases) - set(before.leases):
                writer.apply(tables.LEASES.drop(lease))


def _forget(world: World, gone: str) -> None:
    bits = ip_address(gone).max_prefixlen
    interface = prefix_of(FIXED, Family.of(ip_address(gone))).interface
    world.site.host.ip("address", "del", f"{gone}/{bits}", "dev", interface)
