"""What the sources were asked for, and what came of it: for log, events and metrics."""

import logging
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from odm_agent.agent.event_log import EventLog
from odm_agent.control.answers import Happened
from odm_agent.core.clock import Moment
from odm_agent.core.events import Failed
from odm_agent.core.grants import Grant, Want
from odm_agent.core.model import AddressType, Family

log = logging.getLogger(__name__)

#: The upper bounds of the buckets in which it is counted how long requests took (seconds).
BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
#: What can come of a request; `released`: nobody wanted it any more.
GRANTED: Final = "granted"
RELEASED: Final = "released"


@dataclass
class Latency:
    """How long requests took; the last bucket has no bound."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    sum_s: float = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.sum_s += seconds


class Requests:
    """The book of requests. Written on the worker's thread; whoever reads takes copies."""

    def __init__(self, events: EventLog) -> None:
        """Nothing was asked for."""
        self._events = events
        self._begun: dict[Want, float] = {}
        self._causes: dict[Want, str] = {}
        self.outcomes = Counter[tuple[AddressType, Family, str]]()
        self.latency: dict[AddressType, Latency] = {}

    def begun(self, want: Want, now: Moment) -> None:
        """The sources are asked. Said once until something comes of it, not with each attempt."""
        self._begun[want] = now.boot_s
        if want not in self._causes:
            log.info("a prefix is requested", extra=_words(want))
            self._note("requested", want, now)

    def granted(self, grant: Grant, now: Moment) -> None:
        """A source gave what was asked for, if it was asked for."""
        if grant.want not in self._begun:
            return
        self._causes.pop(grant.want, None)
        self._end(grant.want, GRANTED, now)
        prefix = grant.prefix
        log.info("a request was granted", extra={**_words(grant.want), "prefix": prefix.name})
        self._note("granted", grant.want, now, prefix=prefix.name, address=str(prefix.network))

    def failed(self, failed: Failed, now: Moment) -> None:
        """No source could give it. Each cause is told once."""
        self._end(failed.want, failed.kind.value, now)
        if self._causes.get(failed.want) == failed.cause:
            return
        self._causes[failed.want] = failed.cause
        log.warning("a request failed", extra={**_words(failed.want), "cause": failed.cause})
        self._note("failed", failed.want, now, cause=failed.cause)

    def released(self, want: Want, now: Moment) -> None:
        """Nobody wants it any more."""
        self._end(want, RELEASED, now)

    def returned(self, source: str, name: str, now: Moment) -> None:
        """What a source gave is the network's again."""
        log.info("a prefix goes back", extra={"source": source, "grant": name})

    def _end(self, want: Want, outcome: str, now: Moment) -> None:
        type_, family = want
        if (since_s := self._begun.pop(want, None)) is None:
            return
        self.outcomes[type_, family, outcome] += 1
        if outcome != RELEASED:
            self.latency.setdefault(type_, Latency()).add(now.boot_s - since_s)

    def _note(
        self, event: Happened, want: Want, now: Moment, cause: str = "", **facts: str
    ) -> None:
        detail = f"IPv{want[1]}: {cause}" if cause else f"IPv{want[1]}"
        self._events.note(event, now.wall_s, type=want[0].word, detail=detail, **facts)


def _words(want: Want) -> dict[str, str]:
    return {"type": want[0].word, "family": f"IPv{want[1]}"}
