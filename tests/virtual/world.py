"""The virtual host: its clock, its kernel and maps, its network, and the agent on it."""

import heapq
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from odm_agent.agent.address_book import AddressBook
from odm_agent.agent.driver import Driver
from odm_agent.agent.engine import Engine
from odm_agent.agent.lease_book import LeaseBook
from odm_agent.agent.numbering import Numbering
from odm_agent.agent.offers import offered, offers
from odm_agent.core import machine, trace
from odm_agent.core.actions import KernelAction, RemoveAddress
from odm_agent.core.clock import Moment
from odm_agent.core.demands import Demand
from odm_agent.core.effects import (
    Answer,
    Effect,
    EndSockets,
    GiveBack,
    Look,
    Record,
    Release,
    Request,
)
from odm_agent.core.errors import KernelError
from odm_agent.core.events import (
    Asked,
    Cancelled,
    Changed,
    Dirty,
    Failed,
    Granted,
    Interrupted,
    Needed,
    Offered,
    Probed,
    Serving,
    Withdrawn,
)
from odm_agent.core.grants import Grant, GrantKey, Want
from odm_agent.core.host import Address
from odm_agent.core.lifetimes import Cause, Lifetime
from odm_agent.core.model import ClassPolicy, IPAddress, TypedPrefix
from odm_agent.datapath.fake import FakeDatapath
from odm_agent.journal import Journal, JournalError
from odm_agent.kernel.fake import FakeKernel
from odm_agent.prefixes.memory import Memory
from odm_agent.prefixes.numbers import Numbers
from odm_agent.prefixes.table import PrefixTable
from odm_agent.sources.base import Configured, Noted, Received, Send, Source
from odm_agent.sources.static import StaticSource
from tests.virtual.source import NAME, Reply, ScriptedSource, grant

NUMBERS = Numbers(table_base=865300, rule_priority=8653, mark_mask=0xFF000000, protocol=86)
DAD_S = 1.5
PROBE_S = 1.0
WALL_S = 1_700_000_000.0


class Killed(BaseException):
    """The agent is gone, in the middle of what it did."""


class FullDisk(Journal):
    """The real journal on a disk that may be full."""

    full = False

    @contextmanager
    def transaction(self) -> Iterator[None]:
        if self.full:
            raise JournalError("no space left on device")
        with super().transaction():
            yield


class WatchedDriver(Driver):
    """The agent's driver; `watch` is called with each effect before it is carried out."""

    watch: Callable[[Effect], None]

    def carry_out(self, effect: Effect) -> None:
        self.watch(effect)
        super().carry_out(effect)


class _Log(logging.Handler):
    """What the driver logs of each event; it warns of other things, too."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.DEBUG:
            self.lines.append(record.getMessage())


@dataclass
class Caller:
    """Somebody waits; `want` None: for all that is configured."""

    want: Want | None
    until_s: float


class World:
    """Everything of one host. The agent may be killed and started anew; the rest stays."""

    def __init__(self, folder: Path) -> None:
        self.boot_s, self._booted_s = 100.0, WALL_S
        self.kernel, self.datapath = FakeKernel(), FakeDatapath()
        self.kernel.set_link("w0")
        self.configured: tuple[TypedPrefix, ...] = ()
        self.path = folder / "state.db"
        self.journal = FullDisk(self.path)
        self.callers: dict[int, Caller] = {}
        self.answers: dict[int, Answer] = {}
        self.sockets: list[IPAddress] = []
        #: What the server does with the requests to come; nothing left: it fails them.
        self.replies: list[Reply] = []
        #: The grants that the server has not taken back.
        self.grants: dict[int, Grant] = {}
        self._taken_back: list[Grant] = []
        #: What the sources were told, and what they said to that.
        self.told: list[Request | Release | GiveBack | Granted | Failed] = []
        self.in_use_elsewhere: set[IPAddress] = set()
        self.refuse_kernel = self.fail_own = False
        #: So many looks are yet to be interrupted where they may be, though nobody wants that.
        self.interrupting = 0
        #: After so many effects or kernel actions more the agent is killed; None: it lives.
        self.fuse: int | None = None
        self.kills = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._awaited: set[tuple[IPAddress, str]] = set()
        self._tickets = count(1)
        self._networks = count(1)
        self.start()

    # --- the agent ---

    def start(self) -> None:
        """A new agent, which knows what the journal has; who waited asks it again."""
        self.fuse = None
        self.kernel.fault = self._before_action
        self.effects: list[Effect] = []
        #: How many effects there were at each glance.
        self.glances: list[int] = []
        self.log = _Log()
        memory = Memory(self.journal.addresses())
        self.numbering = Numbering(
            self.journal, {"prefix": NUMBERS.last_prefix_id - 100, "class": 0}
        )
        table = PrefixTable(b"secret", memory=memory)
        classes = {0: ClassPolicy(0, "unclassified")}
        self.engine = Engine(self.kernel, self.datapath, NUMBERS, table, classes)
        self.addresses, self.leases = AddressBook(self.journal, memory), LeaseBook(self.journal)
        logger = logging.getLogger("odm_agent.agent.driver")
        for old in [each for each in logger.handlers if isinstance(each, _Log)]:
            logger.removeHandler(old)
        logger.addHandler(self.log)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        self._awaited.clear()
        self.probing: set[Address] = set()
        held = self.leases.read(self.now())
        self.driver = WatchedDriver(self, self.sources(), held)
        self.driver.watch = self._before_effect
        self.driver.feed("static", Configured(self.configured))
        for ticket, caller in self.callers.items():
            self.driver.put(Asked(Demand(ticket, caller.want, caller.until_s)))
        self.run()

    def sources(self) -> list[Source]:
        """Of an agent that starts."""
        return [StaticSource(), ScriptedSource()]

    def replay(self) -> None:
        """What the agent logged leads to the same effects, and to the same state."""
        words = [line.split(" ", 1) for line in self.log.lines]
        now, leases = trace.value_of(words[0][1])
        state, effects = machine.begun(leases, now), list[Effect]()
        for moment, event in trace.events_of(text for _, text in words[1:]):
            state, done = machine.step(state, event, moment)
            effects += done
        assert effects == self.effects
        assert state == self.driver._state

    def reload(self, prefixes: tuple[TypedPrefix, ...]) -> None:
        """The configuration names these prefixes now."""
        self.configured = prefixes
        self.driver.feed("static", Configured(prefixes))
        self.run()

    def run(self) -> None:
        """Let the agent do what there is to do; if it is killed, another one starts."""
        try:
            self.driver.run()
        except Killed:
            self.kills += 1
            self.start()
        self._await_detection()

    def reboot(self) -> None:
        """The host starts anew: boot time does, and sockets, addresses and maps are gone."""
        self._booted_s = self.now().wall_s + 30.0
        gone, self.boot_s = self.boot_s, 5.0
        self.kernel, self.datapath = FakeKernel(), FakeDatapath()
        self.kernel.set_link("w0")
        self.sockets, self.callers = [], {}
        self._events = [(self.boot_s + s - gone, n, job) for s, n, job in self._events]
        self.start()

    # --- time ---

    def advance(self, seconds: float) -> None:
        """Let time pass: all that becomes due happens at its moment, in order."""
        until_s = self.boot_s + seconds
        for _ in range(5000):
            due = [self.driver.deadline(), self._events[0][0] if self._events else None]
            next_s = min((each for each in due if each is not None), default=until_s)
            if next_s > until_s:
                break
            self.boot_s = max(self.boot_s, next_s)
            while self._events and self._events[0][0] <= self.boot_s:
                heapq.heappop(self._events)[2]()
            self.run()
            self.check()
        else:
            raise AssertionError("the agent never rests")
        self.boot_s = until_s

    def later(self, seconds: float, job: Callable[[], None]) -> None:
        """Something will happen on this host or in its network."""
        heapq.heappush(self._events, (self.boot_s + seconds, next(self._order), job))

    def check(self) -> None:
        """What holds whenever the agent has done what there was to do."""
        for caller in self.callers.values():
            assert caller.until_s > self.boot_s, f"{caller} still waits at {self.boot_s}"

    # --- applications ---

    def ask(self, want: Want | None, patience_s: float) -> int:
        """Somebody waits from now on; the ticket."""
        ticket = next(self._tickets)
        self.callers[ticket] = Caller(want, self.boot_s + patience_s)
        self.driver.put(Asked(Demand(ticket, want, self.boot_s + patience_s)))
        self.run()
        return ticket

    def cancel(self, ticket: int) -> None:
        """Who waited has gone."""
        del self.callers[ticket]
        self.driver.put(Cancelled(ticket))
        self.run()

    def connect(self, want: Want) -> IPAddress | None:
        """A socket takes the first address that hooks hand out."""
        maps = self.datapath.read()
        for prefix_id in maps.choices.get(want, ()):
            address = maps.prefixes[prefix_id].pool[0]
            self.sockets.append(address)
            return address
        self.driver.put(Needed(want))
        self.run()
        return None

    # --- the hands of the driver ---

    def now(self) -> Moment:
        return Moment(self.boot_s, self._booted_s + self.boot_s)

    def glance(self) -> None:
        """The world tells sources of links itself; when it was asked is noted."""
        self.glances.append(len(self.effects))

    def look(
        self, look: Look, serving: Callable[[Serving], None], is_wanted: Callable[[], bool]
    ) -> Offered | Interrupted:
        if self.fail_own:
            return Offered(own_fault=True)
        self.addresses.write(self.engine.table)
        self.leases.write()
        self.engine.converge(
            lambda: serving(Serving(offers(self.engine))),
            lambda: not look.whole and (is_wanted() or self._interrupts()),
        )
        if self.engine.interrupted:
            return look.interrupted
        self.addresses.write(self.engine.table)
        trouble = self.addresses.trouble or self.leases.trouble
        finished = self.engine.is_at_rest and trouble is None
        return offered(
            self.engine,
            finished=finished,
            ended=look.ended,
            ended_leases=look.ended_leases,
            watched=look.watched,
            in_use=lambda: set(self.sockets),
        )

    def _interrupts(self) -> bool:
        self.interrupting = max(0, self.interrupting - 1)
        return self.interrupting > 0

    def project(self, prefixes: tuple[TypedPrefix, ...], causes: Mapping[int, Cause]) -> None:
        self.engine.table = self.engine.table.with_only(prefixes)

    def record(self, record: Record) -> None:
        self.leases.note(record, self.now())

    def number(self, grant: Grant) -> Grant:
        prefix = self.numbering.take(grant).prefix
        seats = tuple(replace(each, number=100 + each.number) for each in prefix.seats)
        return replace(grant, prefix=replace(prefix, id=100 + prefix.id, seats=seats))

    def probe(self, address: Address) -> None:
        assert address not in self.probing, "one check of an address at a time"
        self.probing.add(address)
        agent = self.driver
        self.later(PROBE_S, lambda: self._probed(agent, address))

    def _probed(self, agent: Driver, address: Address) -> None:
        """The check that an agent began has ended; one that was killed hears nothing of it."""
        if agent is self.driver:
            self.probing.discard(address)
            up = self.kernel.links["w0"].up
            in_use = address.address in self.in_use_elsewhere
            agent.put(Probed(address, in_use if up else None))

    def conclude(self, address: Address, in_use: bool) -> None:
        self.engine.probe_ended(address, in_use=in_use)

    def answer(self, answer: Answer) -> None:
        caller = self.callers.pop(answer.ticket)
        self.answers[answer.ticket] = answer
        if answer.cause is None and caller.want is not None:
            held = {a.address for a in self.kernel.addresses.values() if a.ready and not a.failed}
            assert answer.address in held, f"{answer} names what the kernel lacks"
            maps = self.datapath.read()
            chosen = maps.choices[caller.want]
            assert any(answer.address in maps.prefixes[each].pool for each in chosen)
        assert self.boot_s <= caller.until_s + 1e-6

    def end_sockets(self, ended: EndSockets) -> None:
        """The sockets of an address are gone."""
        row = self.engine.table.by_id(ended.prefix_id)
        address = row.known.kept.get(ended.number) if row else None
        self.sockets = [each for each in self.sockets if each != address]

    def send(self, source: str, message: Send) -> None:
        """The server of the scripted source hears a request."""
        assert source == NAME
        said = trace.value_of(message.data.decode())
        if isinstance(said, GrantKey):
            self.grants = {n: given for n, given in self.grants.items() if given.key != said}
            return
        reply = self.replies.pop(0) if self.replies else Reply(fails=True)
        if not reply.lost:
            self.later(reply.delay_s, lambda: self._serve(said, reply))

    def asked(self, said: Request | Release | GiveBack) -> None:
        """What is given back is used by nobody."""
        self.told.append(said)
        if isinstance(said, GiveBack):
            networks = [g.prefix.network for g in self.grants.values() if g.key == said.key]
            assert not any(a in network for network in networks for a in self.sockets)

    def heard(self, said: Granted | Failed) -> None:
        """What came of a request."""
        self.told.append(said)

    def note(self, source: str, noted: Noted) -> None:
        """Nobody reads it."""

    # --- the world outside ---

    def change_link(self, up: bool) -> None:
        """The uplink is set up or down."""
        self.kernel.set_link("w0", up)
        self.driver.put(Changed(Dirty.KERNEL))
        self.run()

    def withdraw(self, number: int) -> None:
        """The server takes a grant back."""
        if (taken := self.grants.pop(number, None)) is not None:
            self._taken_back.append(taken)
            self._say(Withdrawn(taken.key))
            self.run()

    def announce(self) -> None:
        """The server says all of it again: an agent that was killed may not have heard it."""
        for taken in self._taken_back:
            self._say(Withdrawn(taken.key))
        for given in self.grants.values():
            self._say(Granted(given))
        self.run()

    def renew(self, number: int, lasting_s: float) -> None:
        """The server gives it for so long from now on."""
        lifetime = Lifetime(self.boot_s + lasting_s, self.boot_s + 2 * lasting_s)
        self.grants[number] = replace(self.grants[number], lifetime=lifetime)
        self._say(Granted(self.grants[number]))
        self.run()

    def renumber(self, number: int) -> None:
        """The server gives another prefix first, and soon takes the old one back."""
        self._serve(self.grants[number].want, Reply())
        self.later(5.0, lambda: self.withdraw(number))
        self.run()

    def is_over(self, grant: Grant) -> bool:
        """Whether the time that the server gave it for has passed."""
        return grant.lifetime is not None and grant.lifetime.valid_until_s <= self.boot_s

    def is_granted(self, address: IPAddress) -> bool:
        """Whether the server gave it, and not the configuration."""
        return str(address).startswith(("10.", "2001:db8:"))

    def _serve(self, want: Want, reply: Reply) -> None:
        if reply.fails:
            self._say(Failed(want, "the server has none"))
            return
        number = next(self._networks)
        lifetime = Lifetime(self.boot_s + reply.preferred_s, self.boot_s + reply.valid_s)
        given = grant(number, want, lifetime, reply.on_link)
        self.grants[number] = replace(given, release_s=reply.release_s)
        self._say(Granted(self.grants[number]))
        if reply.withdrawn_s is not None:
            self.later(reply.withdrawn_s, lambda: self.withdraw(number))

    def _say(self, said: Granted | Withdrawn | Failed) -> None:
        self.driver.feed(NAME, Received(trace.spelled(said).encode(), "server"))

    def _await_detection(self) -> None:
        """Duplicate address detection of what the agent has configured ends after a while."""
        for key, local in self.kernel.addresses.items():
            if not local.ready and not local.failed and key not in self._awaited:
                self._awaited.add(key)
                self.later(DAD_S, lambda key=key: self._detected(*key))  # type: ignore[misc]

    def _detected(self, address: IPAddress, interface: str) -> None:
        self._awaited.discard((address, interface))
        if (address, interface) in self.kernel.addresses:
            self.kernel.finish_dad(address, interface, address not in self.in_use_elsewhere)
            self.driver.put(Changed(Dirty.KERNEL))

    def _before_effect(self, effect: Effect) -> None:
        self._burn()
        self.effects.append(effect)

    def _before_action(self, action: KernelAction) -> None:
        self._burn()
        if self.refuse_kernel:
            raise KernelError("refused")
        if isinstance(action, RemoveAddress):
            gone = action.address.address
            if self.is_granted(gone):
                assert gone not in self.sockets, f"{gone} is taken from under a socket"

    def _burn(self) -> None:
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                raise Killed
