"""The part of the machine that knows who waits, and what the sources were asked for."""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Final

from odm_agent.core.clock import NEVER, Moment
from odm_agent.core.demands import Demand
from odm_agent.core.effects import Answer, Effect, Release, Request
from odm_agent.core.events import Offered
from odm_agent.core.grants import Want

#: How long the start, and a reload, wait for duplicate address detection.
USABLE_S: Final = 8.0
#: How many may wait at once; who asks is somebody else's process.
MOST_DEMANDS: Final = 1024


@dataclass(frozen=True, slots=True)
class Asking:
    """Who waits, by ticket, and what was requested for them."""

    demands: Mapping[int, Demand] = field(default_factory=dict)
    requested: frozenset[Want] = frozenset()

    def with_demand(self, demand: Demand) -> tuple["Asking", list[Effect]]:
        """Somebody waits; the next `Offered` may be the answer, and nothing else is."""
        if demand.ticket not in self.demands and len(self.demands) >= MOST_DEMANDS:
            return self, [Answer(demand.ticket, None, "too many wait already; ask again later")]
        return replace(self, demands={**self.demands, demand.ticket: demand}), []

    def without(self, tickets: Iterable[int]) -> tuple["Asking", list[Effect]]:
        """These wait no more; what nobody else waits for is released."""
        gone = set(tickets)
        demands = {t: each for t, each in self.demands.items() if t not in gone}
        idle = self.requested - {each.want for each in demands.values()}
        released: list[Effect] = [Release(want) for want in sorted(idle)]
        return Asking(demands, self.requested - idle), released

    def offered(self, offered: Offered, held: Set[Want]) -> tuple["Asking", list[Effect]]:
        """Answer who waits for what is offered now; request what is neither that nor `held`."""
        answers = [
            Answer(each.ticket, None if each.want is None else offered.offers[each.want])
            for each in self.demands.values()
            if (offered.usable if each.want is None else each.want in offered.offers)
        ]
        answered = {each.ticket for each in answers}
        demands = {t: each for t, each in self.demands.items() if t not in answered}
        wants = {each.want for each in demands.values() if each.want is not None}
        new = wants - self.requested - held
        requests = [Request(want) for want in sorted(new)]
        return Asking(demands, (self.requested & wants) | new), [*answers, *requests]

    def granted(self, want: Want) -> "Asking":
        """The request was answered: if that grant goes again, there will be another one."""
        return replace(self, requested=self.requested - {want})

    def failed(self, want: Want, cause: str) -> tuple["Asking", list[Effect]]:
        """No source can give it: who waits for it is told so, and not kept waiting."""
        waiting = [t for t, each in self.demands.items() if each.want == want]
        asking, _ = self.granted(want).without(waiting)
        return asking, [Answer(ticket, None, cause) for ticket in waiting]

    def at(self, now: Moment) -> tuple["Asking", list[Effect]]:
        """Who has waited as long as he wanted to is told that it didn't come."""
        late = [t for t, each in self.demands.items() if each.until_s <= now.boot_s]
        asking, released = self.without(late)
        return asking, [*(Answer(ticket, None, _LATE) for ticket in late), *released]

    def deadline(self) -> float:
        """When the first has waited long enough (boot-time seconds)."""
        return min((each.until_s for each in self.demands.values()), default=NEVER)


_LATE: Final = "no usable address came in time"
