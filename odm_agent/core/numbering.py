"""Which numbers stand for which names, and when a number may stand for another name.

The programs see classes and prefixes as numbers. One that its name gives up is *retired*: rows,
sockets, rules and routes may still carry it. It is free again once every survey for
`QUARANTINE_S` found none that does.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from odm_agent.core.errors import ConfigError

Kind = Literal["class", "prefix"]

#: How long nothing may be seen to carry a number before it is given to another name, in seconds of
#: boot time. TIME_WAIT lasts one minute; a hook or packet on its way much less.
QUARANTINE_S: Final = 300.0


class NoNumberError(ConfigError):
    """All numbers of a kind are taken, or the name's own is too high for the mark."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """The numbers 1 to `last` of one kind, by the name that each is `given` to.

    Names in `used` are in use now, all others are retired. `idle` says of retired names since when
    (boot time in seconds) every survey found that nothing carries their numbers.
    """

    kind: Kind
    last: int
    given: Mapping[str, int] = field(default_factory=dict)
    used: frozenset[str] = frozenset()
    idle: Mapping[str, float] = field(default_factory=dict)

    def of(self, given: Mapping[str, int], used: frozenset[str]) -> "Ledger":
        """With these names given numbers, of which those in `used` are in use."""
        idle = {
            name: since for name, since in self.idle.items() if name in given and name not in used
        }
        return replace(self, given=given, used=used, idle=idle)

    def using(self, name: str) -> "Ledger":
        """With that name in use: it keeps its number, or else gets the lowest that is free.

        Raises NoNumberError.
        """
        number = self.given.get(name) or self._lowest_free(name)
        if number > self.last:
            raise NoNumberError(
                f"{self.kind} {name!r} has the number {number}, and there is room for {self.last}:"
                " widen agent.mark_mask, or give it another name"
            )
        return self.of({**self.given, name: number}, self.used | {name})

    def surveyed(self, carried: Collection[int], now: float) -> "Ledger":
        """After a survey at `now` that found these numbers carried."""
        idle = {
            name: self.idle.get(name, now)
            for name, number in self.given.items()
            if name not in self.used and number not in carried
        }
        return replace(self, idle=idle)

    def due(self, now: float) -> dict[str, int]:
        """The retired names whose numbers may be given to others now, with the numbers."""
        return {
            name: self.given[name]
            for name, since in self.idle.items()
            if now - since >= QUARANTINE_S
        }

    def without(self, names: Collection[str]) -> "Ledger":
        """With the numbers of these retired names free."""
        given = {name: number for name, number in self.given.items() if name not in names}
        return self.of(given, self.used)

    def _lowest_free(self, name: str) -> int:
        taken = set(self.given.values())
        for number in range(1, self.last + 1):
            if number not in taken:
                return number
        retired = len(self.given.keys() - self.used)
        raise NoNumberError(
            f"no number is left for {self.kind} {name!r}: there are {self.last}, of which {retired}"
            " belong to names that are not in use any more. Such a number is free after"
            f" {QUARANTINE_S / 60:.0f} minutes in which no cgroup, socket, rule or route carries"
            " it; try again then, or keep the old names"
        )
