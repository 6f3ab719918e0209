"""Maps in memory."""

from collections.abc import Callable, Mapping
from typing import Any

from odm_agent.core import tables
from odm_agent.core.actions import DatapathAction, Guard, Unguard
from odm_agent.core.model import AddressType, Family
from odm_agent.core.projection import PrefixRow, Projection
from odm_agent.core.tables import Drop, Put
from odm_agent.datapath.base import Sent, VerdictKey


class FakeDatapath:
    """The fake of `Datapath`. `fault` refuses actions, `counts` is what `verdicts` answers."""

    def __init__(self) -> None:
        """Empty maps."""
        self._rows: dict[str, dict[Any, Any]] = {table.name: {} for table in tables.ALL}
        self._guards: frozenset[int] = frozenset()
        #: Called with each action; what it raises is raised instead of carrying it out.
        self.fault: Callable[[DatapathAction], None] = lambda action: None
        self.sent: dict[int, Sent] = {}
        self.counts: dict[VerdictKey, int] = {}

    def read(self) -> Projection:
        """A copy of the rows."""
        copies: dict[str, Any] = {name: dict(rows) for name, rows in self._rows.items()}
        return Projection(**copies, guards=self._guards)

    def prefixes(self) -> Mapping[int, PrefixRow]:
        """What would be handed out, by prefix id."""
        return self._rows[tables.PREFIXES.name]

    def seats(self) -> Mapping[tuple[int, int], int]:
        """The prefix ids that are classes' own."""
        return self._rows[tables.SEATS.name]

    def choices(self) -> Mapping[tuple[AddressType, Family], tuple[int, ...]]:
        """The ids of the prefixes that serve each type."""
        return self._rows[tables.CHOICES.name]

    def apply(self, action: DatapathAction) -> None:
        """Write or drop one row."""
        self.fault(action)
        match action:
            case Put(table, key, row):
                self._rows[table.name][key] = row
            case Drop(table, key):
                self._rows[table.name].pop(key, None)
            case Guard(interface):
                self._guards |= {interface}
            case Unguard(interface):
                self._guards -= {interface}

    def meters(self) -> dict[int, Sent]:
        """What the test says was sent."""
        return dict(self.sent)

    def verdicts(self) -> dict[VerdictKey, int]:
        """The counts that the test has set."""
        return dict(self.counts)
