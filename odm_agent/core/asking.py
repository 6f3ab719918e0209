"""The part of the machine that knows who waits, and what the sources were asked for."""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Final

from odm_agent.core.clock import NEVER, Moment
from odm_agent.core.demands import Demand
from odm_agent.core.effects import Answer, Effect, Release, Request
from odm_agent.core.events import Failed, Failure, Offered
from odm_agent.core.grants import Want

#: How long the start, and a reload, wait for duplicate address detection.
USABLE_S: Final = 8.0
#: What is told to who has waited for long enough.
LATE: Final = "no usable address came in time"
#: How many may wait at once; who asks is somebody else's process.
MOST_DEMANDS: Final = 1024
#: So long a request goes on for a socket that does not wait: when it tries again, it is to find an
#: address.
NEEDED_S: Final = 30.0
#: So long nobody is asked again for what could not be had: at first, and after many failures.
_PAUSE_S: Final = (1.0, 60.0)


@dataclass(frozen=True, slots=True)
class Setback:
    """A request has failed: who wants the same before `until_s` (boot-time seconds) is told the
    cause, and nobody is asked. `pause_s` is how long that is (seconds).
    """

    cause: str
    kind: Failure
    until_s: float
    pause_s: float


@dataclass(frozen=True, slots=True)
class Asking:
    """Who waits, by ticket, and what was requested for them.

    `needs` are wants of sockets that do not wait, and until when a request goes on for them;
    `setbacks` what could not be had. There are no more of these than types and IP versions.
    """

    demands: Mapping[int, Demand] = field(default_factory=dict)
    requested: frozenset[Want] = frozenset()
    needs: Mapping[Want, float] = field(default_factory=dict)
    setbacks: Mapping[Want, Setback] = field(default_factory=dict)

    def with_demand(
        self, demand: Demand, held: Set[Want], now: Moment
    ) -> tuple["Asking", list[Effect]]:
        """Somebody waits; the next `Offered` may be the answer.

        He is told at once of what could not be had a moment ago and is not there yet (`held`).
        """
        if demand.ticket not in self.demands and len(self.demands) >= MOST_DEMANDS:
            return self, [Answer(demand.ticket, None, "too many wait already; ask again later")]
        setback = None if demand.want is None else self._setback(demand.want, now)
        if setback is not None and demand.want not in held:
            return self, [Answer(demand.ticket, None, setback.cause, setback.kind)]
        return replace(self, demands={**self.demands, demand.ticket: demand}), []

    def needed(self, want: Want, held: Set[Want], now: Moment) -> tuple["Asking", list[Effect]]:
        """A socket found nothing of it: request it, unless it is there soon, or could not be had a
        moment ago.
        """
        if want in held or self._setback(want, now) is not None:
            return self, []
        needs = {**self.needs, want: now.boot_s + NEEDED_S}
        if want in self.requested:
            return replace(self, needs=needs), []
        return replace(self, needs=needs, requested=self.requested | {want}), [Request(want)]

    def without(self, tickets: Iterable[int]) -> tuple["Asking", list[Effect]]:
        """These wait no more; what nobody else wants is released."""
        gone = set(tickets)
        demands = {t: each for t, each in self.demands.items() if t not in gone}
        return replace(self, demands=demands)._released()

    def offered(
        self, offered: Offered, held: Set[Want], now: Moment
    ) -> tuple["Asking", list[Effect]]:
        """Answer who waits for what is offered now; request what is neither that nor `held`."""
        answers: list[Effect] = []
        demands: dict[int, Demand] = {}
        for ticket, each in self.demands.items():
            if offered.usable if each.want is None else each.want in offered.offers:
                address = None if each.want is None else offered.offers[each.want]
                answers.append(Answer(ticket, address))
            else:
                demands[ticket] = each
        needs = {want: until for want, until in self.needs.items() if want not in offered.offers}
        wants = {each.want for each in demands.values() if each.want is not None} | needs.keys()
        new = {want for want in wants - self.requested - held if self._setback(want, now) is None}
        requests = [Request(want) for want in sorted(new)]
        asking = replace(
            self, demands=demands, needs=needs, requested=(self.requested & wants) | new
        )
        return asking, [*answers, *requests]

    def granted(self, want: Want) -> "Asking":
        """The request was answered: if that grant goes again, there will be another one."""
        setbacks = {each: setback for each, setback in self.setbacks.items() if each != want}
        return replace(self, requested=self.requested - {want}, setbacks=setbacks)

    def failed(self, failed: Failed, now: Moment) -> tuple["Asking", list[Effect]]:
        """No source can give it: who waits for it is told so, and not kept waiting.

        Nor is anybody asked again for a while: the longer, the more often it has failed in a row.
        """
        want, (least_s, most_s) = failed.want, _PAUSE_S
        pause_s, before = least_s, self.setbacks.get(want)
        if before is not None and now.boot_s < before.until_s + most_s:
            pause_s = min(2 * before.pause_s, most_s)
        setback = Setback(failed.cause, failed.kind, now.boot_s + pause_s, pause_s)
        waiting = [t for t, each in self.demands.items() if each.want == want]
        asking = replace(
            self,
            demands={t: each for t, each in self.demands.items() if each.want != want},
            requested=self.requested - {want},
            needs={each: until for each, until in self.needs.items() if each != want},
            setbacks={**self.setbacks, want: setback},
        )
        return asking, [Answer(t, None, failed.cause, failed.kind) for t in waiting]

    def at(self, now: Moment) -> tuple["Asking", list[Effect]]:
        """Who has waited as long as he wanted to is told that it didn't come."""
        late = {t: each for t, each in self.demands.items() if each.until_s <= now.boot_s}
        needs = {want: until for want, until in self.needs.items() if until > now.boot_s}
        if not late and len(needs) == len(self.needs):
            return self, []
        demands = {t: each for t, each in self.demands.items() if t not in late}
        asking, released = replace(self, demands=demands, needs=needs)._released()
        return asking, [*(Answer(ticket, None, LATE) for ticket in late), *released]

    def deadline(self) -> float:
        """When the first has waited long enough (boot-time seconds)."""
        waiting = (each.until_s for each in self.demands.values())
        return min((*waiting, *self.needs.values()), default=NEVER)

    def _released(self) -> tuple["Asking", list[Effect]]:
        """Without requests for what nobody wants any more."""
        wants = {each.want for each in self.demands.values()} | self.needs.keys()
        idle = self.requested - wants
        released: list[Effect] = [Release(want) for want in sorted(idle)]
        return replace(self, requested=self.requested - idle), released

    def _setback(self, want: Want, now: Moment) -> Setback | None:
        """Why it could not be had, if it was tried just now."""
        setback = self.setbacks.get(want)
        return setback if setback is not None and now.boot_s < setback.until_s else None
