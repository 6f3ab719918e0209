"""What handovers came to: counted, told as events, and written down, so that an agent that starts
anew in the middle of one goes on with it.

Times are boot time. A handover that began while no agent ran counts from when one is there again.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from odm_agent.agent.event_log import EventLog
from odm_agent.agent.journal_work import JournalWork
from odm_agent.core import trace
from odm_agent.core.clock import Moment
from odm_agent.core.grants import Want
from odm_agent.core.model import AddressType
from odm_agent.core.outages import Begun, Fate, Outages, Outcome, Over, Seen, Tally
from odm_agent.journal import Journal
from odm_agent.kernel.sock_diag import SocketInfo

log = logging.getLogger(__name__)

#: How many sockets there are of each of these kinds.
Counted = Callable[[list[Callable[[SocketInfo], bool]]], list[int]]


@dataclass(frozen=True, slots=True)
class Gone:
    """An address that is over by a handover: which of its sockets nobody has ended."""

    type: AddressType
    is_left: Callable[[SocketInfo], bool]


class HandoverBook(JournalWork):
    """The journal's handovers. Written on the worker's thread; `tally` is replaced as a whole."""

    def __init__(self, journal: Journal) -> None:
        """What an agent before this one wrote down in this boot. Raises JournalError."""
        super().__init__("handovers")
        self._journal = journal
        self._outages, self.tally = self._read()
        self._written = (self._outages, self.tally)
        self._gone: list[Gone] = []

    def ended(self, gone: Gone, many: int) -> None:
        """An address is over by a handover, and so many of its sockets were ended."""
        self.tally = self.tally.with_sockets(gone.type, Fate.ENDED, many)
        self._gone.append(gone)

    def look(
        self,
        seen: Seen,
        began: Moment,
        served_s: dict[Want, float],
        now: Moment,
        events: EventLog,
    ) -> list[Over]:
        """Note what a look has found, as in `Outages.seen`; the handovers that are over."""
        self._outages, told = self._outages.seen(seen, began.boot_s, served_s, now.boot_s)
        over: list[Over] = []
        for each in told:
            if isinstance(each, Over):
                over.append(each)
                self.tally = self.tally.with_over(each)
                _tell_over(each, events, now)
            else:
                _tell_begun(each, events, now)
        return over

    def count(
        self, over: list[Over], has_moved: Callable[[Over, SocketInfo], bool], counted: Counted
    ) -> None:
        """Count what became of the sockets: those of kept prefixes, and those whose addresses went.

        Raises OdmError where sockets can't be listed; then they are not counted.
        """
        gone, self._gone = self._gone, []
        kept = [each for each in over if each.outcome is Outcome.KEPT]
        if not gone and not kept:
            return
        kinds = [(each.type, Fate.LOST, each.is_left) for each in gone]
        kinds += [(each.want[0], Fate.MOVED, partial(has_moved, each)) for each in kept]
        for (type_, fate, _), many in zip(kinds, counted([k for *_, k in kinds]), strict=True):
            self.tally = self.tally.with_sockets(type_, fate, many)

    def write(self) -> None:
        """Write down what is not written yet; costs nothing if there is nothing."""
        now = (self._outages, self.tally)
        if now != self._written and self.attempt(
            lambda: self._journal.keep_handovers(trace.spelled(now))
        ):
            self._written = now

    def _read(self) -> tuple[Outages, Tally]:
        if (told := self._journal.handovers()) is not None:
            try:
                match trace.value_of(told):
                    case (Outages() as outages, Tally(is_sound=True) as tally):
                        return outages, tally
                raise ValueError("they are none")
            except ValueError as error:  # another version wrote it, or it was damaged
                log.warning("handovers are counted anew", extra={"error": str(error)})
        return Outages(), Tally()


def _tell_begun(begun: Begun, events: EventLog, now: Moment) -> None:
    left, type_ = begun.outage.left, begun.want[0].word
    said = {"prefix": left.name, "type": type_}
    facts = {"network": str(left.network), "interface": left.interface, "cause": begun.outage.why}
    log.info("a handover begins", extra={**said, **facts})
    wall_s = now.wall_at(begun.outage.since_s)
    detail = f"from {left.interface}: {begun.outage.why}"
    events.note("handover", wall_s, **said, address=str(left.network), detail=detail)


def _tell_over(over: Over, events: EventLog, now: Moment) -> None:
    left, came = over.outage.left, over.successor
    said = {"prefix": (came or left).name, "type": over.want[0].word}
    took = f"{over.outcome.value} after {over.took_s:.3f} s"
    new = str(came.network) if came is not None else None
    log.info(
        "a handover is over",
        extra={
            **said,
            "outcome": over.outcome.value,
            "took_s": round(over.took_s, 3),
            "network": str(left.network),
            **({"new": new, "interface": came.interface} if came is not None else {}),
        },
    )
    events.note(
        "handover-over",
        now.wall_at(over.outage.since_s + over.took_s),
        **said,
        address=str(left.network),
        new=new,
        detail=took if came is None else f"{took}, by {came.interface}",
    )
