"""Holds the programs' counts of sockets against the sockets that there are.

They are exact by themselves. What could make them wrong is named in docs/architecture.md (another
program that takes our events away, no memory for a socket's storage): a count that is wrong is put
right, and told.
"""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from odm_agent.core.model import AddressType, IPAddress
from odm_agent.datapath.base import LiveKey
from odm_agent.datapath.census import CensusRow

log = logging.getLogger(__name__)

Row = tuple[int, AddressType]
#: What is counted otherwise than found: (counted, found).
Differences = dict[Row | LiveKey, tuple[int, int]]
#: One socket at a time, opened and closed as fast as can be, is seen amiss in every eighth look.
_MORE_LOOKS: Final = 8
#: How many calls in a row must find the same.
_CALLS: Final = 5


class Counted(Protocol):
    """What is needed of the datapath."""

    def usage(self) -> dict[Row, int]: ...
    def live(self) -> dict[LiveKey, int]: ...
    def census(self) -> list[CensusRow]: ...
    def correct_usage(self, class_id: int, type_: AddressType, live: int) -> None: ...
    def correct_live(self, key: LiveKey, live: int) -> None: ...


@dataclass
class Counts:
    """Looks now and then; `corrected` is how many counts were wrong since the start."""

    datapath: Counted
    corrected: int = 0
    #: With how many calls in a row have seen them so.
    _suspects: dict[Row | LiveKey, tuple[tuple[int, int], int]] = field(default_factory=dict)
    #: Rows of addresses that the call before did not find configured, either.
    _gone: set[LiveKey] = field(default_factory=set)

    def correct(self, configured: Iterable[IPAddress]) -> None:
        """Put right what is wrong: what differs from the sockets that there are, by the same two
        numbers in all looks of this call and of several before.

        A socket that comes or goes while we look makes a difference, too, but not in all looks of a
        call; a task that is held up between the two notes that it makes of a socket, not for long.
        Rows that count nobody are forgotten if their addresses are not in `configured`, and were
        not in the call before: no hook is at work any more that found such an address configured.
        """
        seen = self._look()
        self._forget(set(configured))
        for _ in range(_MORE_LOOKS):
            if not seen:
                break
            again = self._look()
            seen = {what: numbers for what, numbers in seen.items() if again.get(what) == numbers}
        suspects, self._suspects = self._suspects, {}
        for what, numbers in seen.items():
            before, calls = suspects.get(what, (numbers, 0))
            calls = calls + 1 if before == numbers else 1
            if calls < _CALLS:
                self._suspects[what] = numbers, calls
            else:
                self._correct(what, *numbers)

    def _look(self) -> Differences:
        """What is counted otherwise than found, and just the same before and after."""
        before = self._counted()
        found: Counter[Row | LiveKey] = Counter()
        for row in self.datapath.census():
            if row.held is not None:
                found.update([(row.held_class, row.held_type)])
            if row.row is not None:
                found.update([row.row])
        after = self._counted()
        return {
            what: (before.get(what, 0), found[what])
            for what in before.keys() | found.keys()
            if before.get(what, 0) == after.get(what, 0) != found[what]
        }

    def _counted(self) -> dict[Row | LiveKey, int]:
        counted: dict[Row | LiveKey, int] = {}
        counted.update(self.datapath.usage().items())
        counted.update(self.datapath.live().items())
        return counted

    def _forget(self, configured: set[IPAddress]) -> None:
        counted = self.datapath.live()
        gone = {
            key
            for key in counted
            if key.address not in configured and not key.address.is_unspecified
        }
        unused = {key for key in gone & self._gone if not counted[key]}
        self._gone = gone
        if unused:
            for key in unused - {row.row for row in self.datapath.census()}:
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
