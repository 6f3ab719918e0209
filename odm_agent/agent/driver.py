"""Moves the machine: events in, one step after the other, and what it wants done is done.

Synchronous, and not for several threads but for `put`, `feed` and `deadline`. What has happened is
worked off first and time passes last, so what was put together is looked at together.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

from odm_agent.core import machine, trace
from odm_agent.core.clock import Moment
from odm_agent.core.effects import (
    Answer,
    Conclude,
    Effect,
    EndSockets,
    GiveBack,
    Look,
    Probe,
    Project,
    Record,
    Refuse,
    Release,
    Request,
)
from odm_agent.core.errors import OdmError
from odm_agent.core.events import (
    Changed,
    Dirty,
    Event,
    Failed,
    Failure,
    Granted,
    Interrupted,
    Offered,
    Serving,
    Tick,
    Unconfirmed,
    Unserved,
    Withdrawn,
)
from odm_agent.core.grants import Grant, Want
from odm_agent.core.host import Address
from odm_agent.core.leases import Lease
from odm_agent.core.lifetimes import Cause
from odm_agent.core.model import TypedPrefix
from odm_agent.sources.base import Input, Noted, Output, Resumed, Send, Source

log = logging.getLogger(__name__)

#: The order in which failures say more and more.
_SAYS_MORE: Final = tuple(Failure).index


class Hands(Protocol):
    """What carries out the effects. Whatever fails there is its own to tell and to try again."""

    def now(self) -> Moment:
        """This moment."""

    def glance(self) -> None:
        """See whether links are others, and feed sources what that means to them."""

    def look(
        self, look: Look, serving: Callable[[Serving], None], is_wanted: Callable[[], bool]
    ) -> Offered | Interrupted:
        """One pass over what is dirty. Only the first may raise OdmError.

        `serving` is called when sockets are given something more, though the pass goes on.
        `is_wanted` says whether there is something for a source; then a pass may be broken off,
        unless the look is to be a `whole` one.
        """

    def project(self, prefixes: tuple[TypedPrefix, ...], causes: Mapping[int, Cause]) -> None:
        """The table consists of these from now on; `causes` as in `Project`."""

    def record(self, record: Record) -> None:
        """Write it down, now or as soon as that is possible."""

    def number(self, grant: Grant) -> Grant:
        """The same grant, its prefix with the number that is its own. Raises OdmError."""

    def probe(self, address: Address) -> None:
        """Begin a conflict check; `Probed` is put when it has ended."""

    def conclude(self, address: Address, in_use: bool) -> None:
        """Note what a conflict check has found."""

    def answer(self, answer: Answer) -> None:
        """Tell who waits, if he still does."""

    def end_sockets(self, ended: EndSockets) -> None:
        """End the connections of an address."""

    def send(self, source: str, message: Send) -> None:
        """Hand a message to a source's transport."""

    def asked(self, said: Request | Release | GiveBack) -> None:
        """The sources are told this; note it."""

    def heard(self, said: Granted | Failed) -> None:
        """This came of it; note it."""

    def note(self, source: str, noted: Noted) -> None:
        """Tell people what became of a source and its network."""


class Driver:
    """The machine with its state, its sources and its hands."""

    def __init__(self, hands: Hands, sources: Iterable[Source], leases: Iterable[Lease]) -> None:
        """Nothing is done until `run`. `leases` are those of an agent before this one."""
        held = tuple(leases)
        self._hands = hands
        self._sources = {source.name: source for source in sources}
        now = hands.now()
        if log.isEnabledFor(logging.DEBUG):
            log.debug("begun %s", trace.spelled((now, held)))
        self._state = machine.begun(held, now)
        self._inbox: deque[Event | tuple[str, Input]] = deque()
        #: Whether the last look was.
        self._interrupted = False
        #: The sources that have not answered a request yet.
        self._asked: dict[Want, set[str]] = {}
        #: Of those that have, the failure that says most.
        self._failures: dict[Want, Failed] = {}
        for name in self._sources:
            of_source = tuple(lease for lease in held if lease.grant.key.source == name)
            self.feed(name, Resumed(of_source))
        for lease in held:
            if lease.grant.key.source not in self._sources:  # nobody would ever renew it
                self.put(Withdrawn(lease.grant.key))

    def put(self, event: Event) -> None:
        """Something happened; the next `run` takes it. From any thread."""
        self._inbox.append(event)

    def feed(self, source: str, given: Input) -> None:
        """Something happened that is for one source. From any thread."""
        self._inbox.append((source, given))

    def add(self, source: Source) -> None:
        """There is one more source, which holds nothing yet."""
        self._sources[source.name] = source

    def forget(self, name: str) -> None:
        """A source is there no more; who waits for it alone does so in vain."""
        if self._sources.pop(name, None) is not None:
            for want in [want for want, failures in self._asked.items() if name in failures]:
                self._hear(name, Failed(want, f"{name} is asked no more", Failure.UNSUPPORTED))

    @property
    def waiting(self) -> int:
        """How much has happened that no `run` has taken yet."""
        return len(self._inbox)

    def deadline(self) -> float | None:
        """When to `run` again, if nothing happens before (boot-time seconds); None: never."""
        if self._inbox:
            return 0.0
        due = [machine.deadline(self._state), *(s.deadline() for s in self._sources.values())]
        return min((each for each in due if each is not None), default=None)

    def run(self) -> None:
        """Take what has happened, then do what is due. Raises what the first look raises."""
        self._run_once()
        while self._interrupted:  # what for is there already
            self._run_once()

    def _run_once(self) -> None:
        self._interrupted = False
        self._work_off()
        boot_s = self._hands.now().boot_s
        for name, source in [*self._sources.items()]:
            if (due_s := source.deadline()) is not None and due_s <= boot_s:
                self._ask(name, Tick())
        self._work_off()
        self._step(Tick())

    def carry_out(self, effect: Effect) -> None:
        """Do one thing that the machine wants done."""
        match effect:
            case Look():
                found = self._hands.look(effect, self._step, self._is_wanted)
                self._interrupted = isinstance(found, Interrupted)
                self._step(found)
            case Project(prefixes, causes):
                self._hands.project(prefixes, causes)
            case Record():
                self._hands.record(effect)
            case Answer():
                self._hands.answer(effect)
            case EndSockets():
                self._hands.end_sockets(effect)
            case Probe(address):
                self._hands.probe(address)
            case Conclude(address, in_use):
                self._hands.conclude(address, in_use)
            case Request(want):
                self._hands.asked(effect)
                self._asked[want] = set(self._sources)
                self._failures.pop(want, None)
                for name in self._sources:
                    self.feed(name, effect)
            case Release(want):
                self._hands.asked(effect)
                self._asked.pop(want, None)
                for name in self._sources:
                    self.feed(name, effect)
            case GiveBack(key):
                self._hands.asked(effect)
                if key.source in self._sources:
                    self.feed(key.source, effect)
            case Refuse(key, cause):
                log.warning("a grant is refused", extra={"grant": str(key), "cause": cause})

    def _is_wanted(self) -> bool:
        """Whether there is something for a source that no `run` has taken yet."""
        return any(isinstance(each, tuple) for each in self._inbox.copy())

    def _work_off(self) -> None:
        """What is there now: what that leads to waits for the next time, as it may be endless."""
        for _ in range(len(self._inbox)):
            match self._inbox.popleft():
                case (str(name), given):
                    if name in self._sources:
                        self._ask(name, given)
                case event:
                    self._step(event)

    def _step(self, event: Event) -> None:
        if isinstance(event, Changed) and event.what & Dirty.KERNEL:
            self._hands.glance()
        now = self._hands.now()
        if log.isEnabledFor(logging.DEBUG):
            log.debug("event %s", trace.line(event, now))
        self._state, effects = machine.step(self._state, event, now)
        for effect in effects:
            self.carry_out(effect)

    def _ask(self, name: str, given: Input) -> None:
        """Let a source take its step; what it says is taken at once, so that it stays together."""
        try:
            said = list(self._sources[name].step(given, self._hands.now()))
        except Exception:  # a fault of one source is no fault of the others
            log.exception("source %s failed", name)
            said = (
                [Failed(given.want, f"source {name} failed")] if isinstance(given, Request) else []
            )
        for each in said:
            self._hear(name, each)

    def _hear(self, name: str, said: Output) -> None:
        match said:
            case Send():
                self._hands.send(name, said)
            case Noted():
                self._hands.note(name, said)
            case Failed(want):
                if (waiting := self._asked.get(want)) is None:
                    return
                waiting.discard(name)
                known = self._failures.get(want)
                if known is None or _SAYS_MORE(said.kind) >= _SAYS_MORE(known.kind):
                    self._failures[want] = said
                if not waiting:
                    del self._asked[want]
                    failed = self._failures.pop(want)
                    self._hands.heard(failed)
                    self._step(failed)
            case Granted(grant) if not grant.prefix.is_numbered:
                try:
                    self._hear(name, Granted(self._hands.number(grant)))
                except OdmError as error:
                    log.warning("a grant has no number", extra={"error": str(error)})
                    self._hear(name, Failed(grant.want, str(error)))
            case Granted(grant):
                self._hands.heard(said)
                self._asked.pop(grant.want, None)
                self._step(said)
            case Withdrawn() | Unconfirmed() | Unserved():
                self._step(said)
