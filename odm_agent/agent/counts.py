"""Holds the programs' counts of sockets against the sockets that there are.

They are exact by themselves. What could make them wrong is named in docs/architecture.md (another
program that takes our events away, no memory for a socket's storage): a count that is wrong is put
right, and told.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from odm_agent.datapath.base import LiveKey
from odm_agent.datapath.census import CensusRow
from odm_agent.model import AddressType, IPAddress

log = logging.getLogger(__name__)

Row = tuple[int, AddressType]
K = TypeVar("K", Row, LiveKey)


class Counted(Protocol):
    """What is needed of the datapath."""

    def usage(self) -> dict[Row, int]: ...
    def live(self) -> dict[LiveKey, int]: ...
    def census(self) -> list[CensusRow]: ...
    def correct_usage(self, class_id: int, type_: AddressType, live: int) -> None: ...
    def correct_live(self, key: LiveKey, live: int) -> None: ...


@dataclass
class Counts:
    """Looks again and again; `corrected` is how many counts were wrong since the start."""

    datapath: Counted
    corrected: int = 0
    _suspects: dict[Row | LiveKey, tuple[int, int]] = field(default_factory=dict)

    def settle(self, typed: Iterable[IPAddress]) -> None:
        """One look. A count that differs from what is there, by the same two numbers at two looks
        in a row, is wrong: a socket that came or went in between would have changed one of them.

        Rows of addresses that are not in use and not in `typed` any more are forgotten.
        """
        before, live = self.datapath.usage(), self.datapath.live()
        found = [row for row in self.datapath.census() if row.held is not None]
        rows = Counter((row.held_class, row.held_type) for row in found)
        keys = Counter(_key(row) for row in found)
        seen: dict[Row | LiveKey, tuple[int, int]] = {}
        seen.update(_differences(before, rows).items())
        seen.update(_differences(live, keys).items())
        for what, numbers in seen.items():
            if self._suspects.get(what) == numbers:
                self._correct(what, *numbers)
        self._suspects = seen
        known = set(typed)
        for key, count in live.items():
            if not count and key not in keys and key.address not in known:
                self.datapath.correct_live(key, 0)

    def _correct(self, what: Row | LiveKey, counted: int, found: int) -> None:
        log.warning(
            "a count of sockets was wrong",
            extra={"of": str(what), "counted": counted, "found": found},
        )
        self.corrected += 1
        if isinstance(what, LiveKey):
            self.datapath.correct_live(what, found)
        else:
            self.datapath.correct_usage(*what, found)


def _key(row: CensusRow) -> LiveKey:
    assert row.held is not None
    return LiveKey(row.held, row.held_class, row.held_type)


def _differences(counted: Mapping[K, int], found: Mapping[K, int]) -> dict[K, tuple[int, int]]:
    """What is counted otherwise than found: (counted, found)."""
    return {
        key: (counted.get(key, 0), found.get(key, 0))
        for key in counted.keys() | found.keys()
        if counted.get(key, 0) != found.get(key, 0)
    }
