"""Which address every number of a pool has, so that it never gets another.

An address is made once (`pools`) and then kept for its number, for as long as it lies in the
prefix: whatever becomes of the prefix's name, interface, place in the configuration, or size of its
pool, and however a later version would make it. Only a conflict with another host takes it away.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from odm_agent.core.model import IPAddress


@dataclass(frozen=True, slots=True)
class Given:
    """The number in the pool that an address was made for. `conflict`: another host uses it."""

    number: int
    conflict: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one prefix's addresses: those in use by their number, and the conflicts."""

    kept: Mapping[int, IPAddress] = field(default_factory=dict)
    conflicts: Mapping[IPAddress, int] = field(default_factory=dict)

    def failures(self, number: int) -> int:
        """How many addresses of a number were in use elsewhere (RFC 7217's DAD_Counter)."""
        return sum(1 for each in self.conflicts.values() if each == number)

    def with_conflict(self, address: IPAddress, number: int) -> "Known":
        """The same, now that another host uses the address of a number."""
        kept = {n: a for n, a in self.kept.items() if n != number}
        return Known(kept, {**self.conflicts, address: number})

    def given(self) -> dict[IPAddress, Given]:
        """As it is remembered."""
        kept = {address: Given(number) for number, address in self.kept.items()}
        return kept | {a: Given(number, conflict=True) for a, number in self.conflicts.items()}


@dataclass(frozen=True)
class Memory:
    """All addresses that were ever made, of prefixes that are not configured any more, too."""

    given: Mapping[IPAddress, Given] = field(default_factory=dict)

    def between(self, first: IPAddress, last: IPAddress) -> Known:
        """What is known of the addresses from `first` to `last`.

        Where two have the same number, since their prefixes became one, the lower keeps it.
        """
        ordered = self._ordered.get(first.version, [])
        low = bisect_left(ordered, int(first), key=int)
        high = bisect_right(ordered, int(last), key=int)
        kept: dict[int, IPAddress] = {}
        conflicts: dict[IPAddress, int] = {}
        for address in ordered[low:high]:
            given = self.given[address]
            if given.conflict:
                conflicts[address] = given.number
            else:
                kept.setdefault(given.number, address)
        return Known(kept, conflicts)

    def including(self, given: Mapping[IPAddress, Given]) -> "Memory":
        """The same, with what became known."""
        return Memory({**self.given, **given})

    def without(self, addresses: Collection[IPAddress]) -> "Memory":
        """The same, as if these addresses had never been made."""
        if not addresses:
            return self
        return Memory({a: given for a, given in self.given.items() if a not in addresses})

    @cached_property
    def _ordered(self) -> dict[int, list[IPAddress]]:
        return {
            version: sorted((a for a in self.given if a.version == version), key=int)
            for version in (4, 6)
        }
