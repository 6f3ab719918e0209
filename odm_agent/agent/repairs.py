"""What had gone although nobody of us took it away: told in lines that are few and short."""

from collections.abc import Iterable
from typing import Final

from odm_agent.core import tables
from odm_agent.core.projection import Projection

#: At most one line in this time, however often somebody takes things away, seconds.
_QUIET_S: Final = 10.0
#: So many things are named, the others counted.
_NAMED: Final = 5


def vanished(before: Projection, desired: Projection, observed: Projection) -> list[str]:
    """What was there, is to be there, and is not there (as it should be); in words.

    `before` is what was found when nothing was left to do.
    """
    addresses = (before.addresses & desired.addresses) - observed.addresses
    routes = (before.routes & desired.routes) - observed.routes
    rules = (before.rules & desired.rules) - observed.rules
    return [
        *(f"address {a.address} on {a.interface}" for a in addresses),
        *(f"route to {r.destination or 'default'} in table {r.table}" for r in routes),
        *(f"rule {r.priority} from {r.source or 'all'}" for r in rules),
        *(f"row of {what}" for what in _rows(before, desired, observed)),
        *(
            f"guard of interface {index}"
            for index in before.guards & desired.guards - observed.guards
        ),
    ]


def _rows(before: Projection, desired: Projection, observed: Projection) -> Iterable[str]:
    for table in tables.ALL:
        was, want, have = (table.of(each) for each in (before, desired, observed))
        for key in was.keys() & want.keys() - have.keys():
            yield f"{table.map_name} for {key}"


class Repairs:
    """Gathers what had gone, until a line about it is due."""

    def __init__(self) -> None:
        self._named: list[str] = []
        self._count = 0
        self._told_s = float("-inf")

    def note(self, what: Iterable[str]) -> None:
        """These are being put back."""
        for each in what:
            self._count += 1
            if len(self._named) < _NAMED:
                self._named.append(each)

    def due(self, now_s: float) -> str | None:
        """The line that is due now, if any."""
        if not self._count or now_s - self._told_s < _QUIET_S:
            return None
        more = self._count - len(self._named)
        line = ", ".join(self._named) + (f" and {more} more" if more else "")
        self._named, self._count, self._told_s = [], 0, now_s
        return line
