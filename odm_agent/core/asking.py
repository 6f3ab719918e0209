"""The part of the machine that knows who waits, and what the sources were asked for."""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Final

from odm_agent.core.clock import NEVER, Moment
from odm_agent.core.demands import Demand
from odm_agent.core.effects import Answer, Effect, Release, Request
from odm_agent.core.events import Failed, Failure, Offered
from odm_agent.core.grants import Want
from odm_agent.core.model import IPAddress

#: How long the start, and a reload, wait for duplicate address detection.
USABLE_S: Final = 8.0
#: What is told to who has waited for long enough.
LATE: Final = "no usable address came in time"
#: How many may wait at once; who asks is somebody else's process.
MOST_DEMANDS: Final = 1024
#: So long a request goes on for a socket that does not wait: when it tries again, it is to find an
#: address.
NEEDED_S: Final = 30.0
#: What is told of a request that was in vain, since what was held already served again.
BACK: Final = "its uplink comes and goes, and the network was asked a moment ago"
#: So long nobody is asked again for what could not be had: at first, and after many failures.
_PAUSE_S: Final = (1.0, 60.0)


@dataclass(frozen=True, slots=True)
class Setback:
    """A request has failed: who wants the same before `until_s` (boot-time seconds) is told the
    cause, and nobody is asked. `pause_s` is how long that is (seconds).
    """

    cause: str
    #: None: nobody has failed, but what was requested came back of itself.
    kind: Failure | None
    until_s: float
    pause_s: float

    @property
    def is_final(self) -> bool:
        """Whether somebody was asked in vain; else what is held already may be waited for."""
        return self.kind not in (None, Failure.UNSUPPORTED)


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
    #: When something is wanted of which nobody was to be asked again before (boot-time seconds).
    again_s: float = NEVER

    def with_demand(
        self, demand: Demand, held: Set[Want], stalled: Set[Want], now: Moment
    ) -> tuple["Asking", list[Effect]]:
        """Somebody waits; the next `Offered` may be the answer.

        He is told at once of what could not be had a moment ago and is not there yet (`held`). For
        what is held by an uplink that is down (`stalled`) he waits, unless the network refused it.
        """
        if demand.ticket not in self.demands and len(self.demands) >= MOST_DEMANDS:
            return self, [Answer(demand.ticket, None, "too many wait already; ask again later")]
        setback = None if demand.want is None else self._setback(demand.want, now)
        if (
            setback is not None
            and demand.want not in held
            and (setback.is_final or demand.want not in stalled)
        ):
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
        """Answer who waits for what is offered now; request what is neither that nor `held`.

        What was requested while an uplink was down, and is held again, nobody need give any more.
        An uplink that comes and goes makes such requests ever more seldom.
        """
        asking, answers = self.answered(offered.offers, usable=offered.usable)
        needs = {want: until for want, until in self.needs.items() if want not in offered.offers}
        asking = replace(asking, needs=needs)
        for want in sorted(back := self.requested & held):
            asking = asking._set_back(want, BACK, None, now)
            answers.append(Release(want))
        asking = replace(asking, requested=(self.requested & asking._wanted) - back)
        asking, requests = asking._requesting(held, now)
        return asking, [*answers, *requests]

    def answered(
        self, offers: Mapping[Want, IPAddress], *, usable: bool = False
    ) -> tuple["Asking", list[Effect]]:
        """Answer who waits for one of these, and if all is `usable`, who waits for that."""
        answers: list[Effect] = []
        demands: dict[int, Demand] = {}
        for ticket, each in self.demands.items():
            if usable if each.want is None else each.want in offers:
                answers.append(Answer(ticket, None if each.want is None else offers[each.want]))
            else:
                demands[ticket] = each
        return replace(self, demands=demands), answers

    def granted(self, want: Want, *, anew: bool = True) -> "Asking":
        """The request was answered: if that grant goes again, there will be another one.

        Not `anew`: it is one that is held already, which says nothing of what others can give.
        """
        setbacks = dict(self.setbacks)
        if anew or want in self.requested:
            setbacks.pop(want, None)
        return replace(self, requested=self.requested - {want}, setbacks=setbacks)

    def in_vain(self, want: Want, now: Moment) -> "Asking":
        """The request was answered by what is held already, and serves nobody."""
        asking = replace(self, requested=self.requested - {want})
        return asking._set_back(want, BACK, None, now)

    def failed(
        self, failed: Failed, stalled: Set[Want], now: Moment
    ) -> tuple["Asking", list[Effect]]:
        """No source can give it: who waits for it is told so, and not kept waiting.

        Nor is anybody asked again for a while: the longer, the more often it has failed in a row.
        Where nobody could be asked, what is held by an uplink that is down may still be waited for.
        """
        want, kept = failed.want, failed.want in stalled and failed.kind is Failure.UNSUPPORTED
        waiting = [] if kept else [t for t, each in self.demands.items() if each.want == want]
        asking = replace(
            self,
            demands={t: each for t, each in self.demands.items() if t not in waiting},
            requested=self.requested - {want},
            needs={each: until for each, until in self.needs.items() if each != want},
        )._set_back(want, failed.cause, failed.kind, now)
        return asking, [Answer(t, None, failed.cause, failed.kind) for t in waiting]

    def at(self, held: Set[Want], now: Moment) -> tuple["Asking", list[Effect]]:
        """Who has waited as long as he wanted to is told that it didn't come; what others still
        want, and was not to be requested again before, is requested now.
        """
        late = {t: each for t, each in self.demands.items() if each.until_s <= now.boot_s}
        needs = {want: until for want, until in self.needs.items() if until > now.boot_s}
        asking, effects = self, list[Effect]()
        if late or len(needs) < len(self.needs):
            demands = {t: each for t, each in self.demands.items() if t not in late}
            asking, released = replace(self, demands=demands, needs=needs)._released()
            effects = [*(Answer(ticket, None, LATE) for ticket in late), *released]
        if self.again_s <= now.boot_s:
            asking, requests = asking._requesting(held, now)
            effects += requests
        return asking, effects

    def deadline(self) -> float:
        """When the first has waited long enough, or may be asked for again (boot-time seconds)."""
        waiting = (each.until_s for each in self.demands.values())
        return min((*waiting, *self.needs.values(), self.again_s))

    @property
    def _wanted(self) -> frozenset[Want]:
        waited = (each.want for each in self.demands.values())
        return frozenset((*(want for want in waited if want is not None), *self.needs))

    def _requesting(self, held: Set[Want], now: Moment) -> tuple["Asking", list[Effect]]:
        """Request what is wanted and neither requested nor `held`, unless that has failed just now:
        then later.
        """
        lacking = self._wanted - self.requested - held
        pauses = {want: setback for want in lacking if (setback := self._setback(want, now))}
        new = lacking - pauses.keys()
        again_s = min((each.until_s for each in pauses.values()), default=NEVER)
        asking = replace(self, requested=self.requested | new, again_s=again_s)
        return asking, [Request(want) for want in sorted(new)]

    def _set_back(self, want: Want, cause: str, kind: Failure | None, now: Moment) -> "Asking":
        """Nobody is asked for it again for a while, and for longer if that has just been so."""
        (pause_s, most_s), before = _PAUSE_S, self.setbacks.get(want)
        if before is not None and now.boot_s < before.until_s + most_s:
            pause_s = min(2 * before.pause_s, most_s)
        setback = Setback(cause, kind, now.boot_s + pause_s, pause_s)
        again_s = min(self.again_s, setback.until_s) if want in self._wanted else self.again_s
        return replace(self, setbacks={**self.setbacks, want: setback}, again_s=again_s)

    def _released(self) -> tuple["Asking", list[Effect]]:
        """Without requests for what nobody wants any more."""
        idle = self.requested - self._wanted
        released: list[Effect] = [Release(want) for want in sorted(idle)]
        return replace(self, requested=self.requested - idle), released

    def _setback(self, want: Want, now: Moment) -> Setback | None:
        """Why it could not be had, if it was tried just now."""
        setback = self.setbacks.get(want)
        return setback if setback is not None and now.boot_s < setback.until_s else None
