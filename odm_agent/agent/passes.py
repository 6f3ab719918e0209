"""The driver's hands on a real host: one pass after the other, and what comes of each is told."""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from odm_agent.agent import endings
from odm_agent.agent.bulletin import Bulletin
from odm_agent.agent.departures import Departures
from odm_agent.agent.garbage import Garbage
from odm_agent.agent.handovers import Handovers
from odm_agent.agent.meters import found
from odm_agent.agent.mptcp import MptcpEndpoints
from odm_agent.agent.offers import offered, offers
from odm_agent.agent.state import State
from odm_agent.agent.tidings import tell_turns
from odm_agent.core.clock import Moment
from odm_agent.core.effects import Answer, EndSockets, GiveBack, Look, Record, Release, Request
from odm_agent.core.errors import OdmError
from odm_agent.core.events import Event, Failed, Granted, Interrupted, Offered, Serving
from odm_agent.core.grants import Grant
from odm_agent.core.host import Address
from odm_agent.core.lifetimes import Cause
from odm_agent.core.model import IPAddress, IPNetwork, TypedPrefix
from odm_agent.kernel import timer
from odm_agent.kernel.sock_destroy import end_connecting
from odm_agent.kernel.sock_diag import sockets
from odm_agent.sources.base import Noted, Send

log = logging.getLogger(__name__)

#: What goes wrong there.
_ASKING: Final = "asking networks for prefixes"
#: So long a pass stops when somebody is answered within it (seconds): other threads tell him, and
#: would have to fight for their turn while this one computes.
_GIVES_WAY_S: Final = 0.0003


class Passes:
    """What the driver wants done is done to the state.

    Whatever goes wrong is an alarm, and ends nothing but the start: it is tried again.
    """

    def __init__(
        self,
        state: State,
        probe: Callable[[Address], None],
        answer: Callable[[Answer], None],
        put: Callable[[Event], None],
    ) -> None:
        """`probe` begins a conflict check, `answer` tells who waits, `put` is for what a pass has
        found out; all return at once.
        """
        self._state = state
        self._probe, self._answer, self._put = probe, answer, put
        self._bulletin = Bulletin(state)
        self._handovers = Handovers(state)
        self._departures = Departures(state, self._handovers)
        self._endpoints = MptcpEndpoints(state)
        self._garbage = Garbage()
        self._begun = False
        #: Networks from which connections were begun in vain: nothing leads there any more.
        self._in_vain: list[IPNetwork] = []
        #: How many were told something.
        self._answers = 0

    def now(self) -> Moment:
        """This moment."""
        return timer.now()

    def glance(self) -> None:
        """Tell delegations at once where links are others: a network is asked before the pass that
        follows from that, which takes longer than an answer.
        """
        delegations, engine = self._state.delegations, self._state.engine
        if not (self._begun and delegations.sources):
            return

        def glance() -> None:
            if (host := engine.glance()) is not None:
                delegations.look(host)

        self._fails_by_own_fault(_ASKING, glance)

    def look(
        self,
        look: Look,
        serving: Callable[[Serving], None],
        is_wanted: Callable[[], bool] = lambda: False,
    ) -> Offered | Interrupted:
        """One pass. The first must work: what can't be done even once is said by not starting.

        A later one is interrupted where networks have answered meanwhile, or links have come
        or gone: what it would do is not the last word, and who moves waits for that.
        """
        state, gave_way = self._state, False
        self._handovers.begin(self.now())

        def tell() -> None:
            answers = self._answers
            given = offers(state.engine)
            self._handovers.serving(given, self.now())
            serving(Serving(given))
            if self._answers > answers:
                time.sleep(_GIVES_WAY_S)

        def gives_way() -> bool:
            nonlocal gave_way
            if not self._begun:
                return False
            self._ask_networks()
            gave_way = not (look.resync or look.whole) and is_wanted()
            return gave_way

        own_fault = self._do(
            "putting things right", lambda: state.converge(look.dirty, tell, gives_way)
        )
        if gave_way:
            return look.interrupted
        jobs: dict[str, Callable[[], object]] = {
            "ending what is left": lambda: self._departures.look(self.now().wall_s),
            "ending what connects in vain": self._end_connecting,
            "telling": lambda: self._bulletin.tell(self.now().boot_s),
        }
        if look.resync:
            jobs["counting sockets"] = state.correct_counts
            jobs["surveying numbers"] = state.free_numbers
            jobs["recording what was sent"] = state.record_usage
        if look.resync or not self._begun:  # nobody heard what was told without an agent
            jobs["reading meters"] = self._read_meters
        if not self._begun:
            self._fails_by_own_fault("finding MPTCP endpoints", self._endpoints.find)
        own_fault |= any([self._do(what, job) for what, job in jobs.items()])
        self._begun = True
        # A port that somebody else has must not keep the agent from starting.
        own_fault |= self._ask_networks()
        own_fault |= self._fails_by_own_fault(
            "adding MPTCP endpoints", lambda: self._endpoints.look(again=look.resync)
        )
        self._garbage.tidy()
        found = offered(
            state.engine,
            finished=not state.unfinished,
            own_fault=own_fault,
            behind=state.is_behind,
            settled=state.is_settled,
            ended=look.ended,
            ended_leases=look.ended_leases,
            watched=look.watched,
            in_use=self._in_use,
        )
        self._fails_by_own_fault(
            "counting handovers", lambda: self._handovers.look(found.ready, self.now())
        )
        return found

    def _ask_networks(self) -> bool:
        """Tell sources of the links that there are; whether that failed by a fault of our own."""
        state = self._state
        return self._fails_by_own_fault(_ASKING, lambda: state.delegations.look(state.engine.host))

    def project(self, prefixes: tuple[TypedPrefix, ...], causes: Mapping[int, Cause]) -> None:
        """Make them the table; the pass that follows carries it out."""
        before = self._state.engine.table
        self._state.engine.table = table = before.with_only(prefixes)
        self._in_vain += (
            row.prefix.network
            for row in before
            if row.prefix.waits
            and ((now := table.by_id(row.prefix.id)) is None or not _leads_on(now.prefix))
        )
        for turn in tell_turns(self._state.events, before, table, causes, self.now().wall_s):
            prefix = turn.prefix
            self._state.rotations[prefix.name, prefix.type, turn.cause] += 1
            log.info(
                "another address is given",
                extra={
                    "prefix": prefix.name,
                    "old": str(turn.old),
                    "new": str(turn.new),
                    "cause": turn.cause.value,
                },
            )

    def record(self, record: Record) -> None:
        """Write it down; each pass tries again what could not be written."""
        self._state.leases.note(record, self.now())
        self._handovers.lease(record.prefix_id, record.lease)
        if record.lease is None:
            self._state.numbering.give_back(record.prefix_id)

    def number(self, grant: Grant) -> Grant:
        """The grant with the numbers of its prefix."""
        return self._state.numbering.take(grant)

    def probe(self, address: Address) -> None:
        """Begin a conflict check."""
        self._probe(address)

    def conclude(self, address: Address, in_use: bool) -> None:
        """Use an address, or the next one."""
        self._state.engine.probe_ended(address, in_use=in_use)

    def answer(self, answer: Answer) -> None:
        """Tell who waits."""
        self._answers += 1
        self._answer(answer)

    def end_sockets(self, ended: EndSockets) -> None:
        """End the connections of an address. Where that can't be done, nothing leaves from it.

        By a handover those alone whose class wants it so.
        """
        row = self._state.engine.table.by_id(ended.prefix_id)
        address = row.known.kept.get(ended.number) if row else None
        if row is None or address is None:
            return
        wanted = endings.on_handover(self._state) if ended.handover else endings.each_one
        wall_s, what = self.now().wall_s, "the time of an address"
        many = endings.end(self._state, row, address, wanted, wall_s, what=what)
        if ended.handover:
            self._handovers.ended(row, address, wanted, many)

    def _end_connecting(self) -> None:
        """Tell who has begun to connect while a prefix waited, and would go on for minutes."""
        networks, self._in_vain = self._in_vain, []
        for network in networks:
            many = end_connecting(network)
            log.info("connecting was in vain", extra={"network": str(network), "sockets": many})

    def _read_meters(self) -> None:
        state = self._state
        if marks := found(state.engine.table, state.engine.datapath.meters()):
            self._put(marks)

    def send(self, source: str, message: Send) -> None:
        """Send it through the source's port."""
        self._state.delegations.send(source, message)

    def note(self, source: str, noted: Noted) -> None:
        """Count it, and tell people."""
        self._state.network_notes.note(source, noted, self._state.events, self.now().wall_s)

    def asked(self, said: Request | Release | GiveBack) -> None:
        """Note what the sources are told."""
        match said:
            case Request(want):
                self._state.requests.begun(want, self.now())
            case Release(want):
                self._state.requests.released(want, self.now())
            case GiveBack(key):
                self._state.requests.returned(key.source, key.instance, self.now())

    def heard(self, said: Granted | Failed) -> None:
        """Note what came of it."""
        match said:
            case Granted(grant):
                self._state.requests.granted(grant, self.now())
            case Failed():
                self._state.requests.failed(said, self.now())

    def _do(self, what: str, job: Callable[[], object]) -> bool:
        """Do a job of a pass, as `_fails_by_own_fault`; in the first pass it must work."""
        if self._begun:
            return self._fails_by_own_fault(what, job)
        job()
        return False

    def _fails_by_own_fault(self, what: str, job: Callable[[], object]) -> bool:
        """Do it. What goes wrong is an alarm until it works again, and logged once."""
        troubles = self._state.troubles
        try:
            job()
        except Exception as error:
            known = isinstance(error, OdmError)
            why = str(error) if known else fault(error)
            if troubles.get(what) != why:
                log.error("%s failed: %s", what, why, exc_info=None if known else error)
            troubles[what] = why
            return not known
        if troubles.pop(what, None) is not None:
            log.info("%s works again", what)
        return False

    def _in_use(self) -> set[IPAddress] | None:
        """The addresses that sockets have; None if they can't be listed now."""
        try:
            listed = {info.local for info in sockets() if not info.remnant}
            return listed | {
                key.address for key, live in self._state.datapath.live().items() if live
            }
        except OdmError as error:
            log.warning("prefixes that are over are kept", extra={"error": str(error)})
            return None


def _leads_on(prefix: TypedPrefix) -> bool:
    """Whether what connects from a prefix that has waited may succeed."""
    return prefix.attached or prefix.waits


def fault(error: Exception) -> str:
    """What is said of an error that is no one of ours."""
    return f"fault of the agent itself: {error!r}; please report what its log says"
