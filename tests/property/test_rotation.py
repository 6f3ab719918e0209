"""Addresses that end, over years of a virtual clock: the machine, its table, what hooks are told.

The hooks are played by the rows themselves: what they would hand out is what the projected rows say
is open at that moment, by the rules of bpf/odm_lease.h.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odm_agent.agent.meters import turned
from odm_agent.core import machine, trace
from odm_agent.core.effects import EndSockets, Look, Project, Record
from odm_agent.core.events import Event, Granted, Metered, Offered, Rotated
from odm_agent.core.grants import Grant, GrantKey
from odm_agent.core.leases import Lease
from odm_agent.core.lifetimes import OVER, Cause, Phase, Terms
from odm_agent.core.model import AddressType, IPAddress, IPNetwork, Placement, TypedPrefix
from odm_agent.prefixes.table import PrefixTable
from odm_agent.prefixes.typings import leases as lease_rows
from tests.virtual.stepped import Stepped

#: Seconds: a host that does other things, too, is slow, and that is no fault.
pytestmark = pytest.mark.timeout(600)

_NET6: Final = IPv6Network("2001:db8:1::/64")
_NET4: Final = IPv4Network("192.0.2.0/28")
_YEAR_S: Final = 365 * 86400.0


def _prefix(network: IPNetwork, terms: Terms, pool: int = 1) -> TypedPrefix:
    type_ = AddressType.NONPERSISTENT
    return TypedPrefix(
        *(7, "web", type_, network, "w0", None, Placement.DELEGATED, (network,), pool),
        terms=terms,
    )


@dataclass
class Host(Stepped):
    """A host whose kernel is as quick as `delay_s`, with sockets that hold addresses."""

    most_steps = 50
    prefix: TypedPrefix
    delay_s: float = 0.01
    table: PrefixTable = field(default_factory=lambda: PrefixTable(b"secret"))
    recorded: dict[int, Lease] = field(default_factory=dict)
    sent: dict[int, int] = field(default_factory=dict)
    held: set[IPAddress] = field(default_factory=set)
    first_given_s: dict[IPAddress, float] = field(default_factory=dict)
    retired: list[int] = field(default_factory=list)
    causes: list[Cause] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """An agent begins, with what the one before has recorded."""
        self.state = machine.begun(self.recorded.values(), self.now)
        self.put(Granted(Grant(GrantKey("static", "web"), self.prefix)))
        self.settle()

    def put(self, event: Event) -> None:
        """The machine takes its step; what it wants is done at once."""
        self.state, effects = machine.step(self.state, event, self.now)
        for effect in effects:
            match effect:
                case Project(prefixes, causes):
                    before, self.table = self.table, self.table.with_only(prefixes)
                    turns = turned(before, self.table, causes)
                    self.causes += [turn.cause for turn in turns]
                case Record(prefix_id, lease):
                    assert lease is not None
                    # As it is written down and read again.
                    self.recorded[prefix_id] = trace.value_of(trace.spelled(lease))
                case EndSockets(_, number):
                    [row] = self.table
                    self.held.discard(row.known.kept[number])
                    self.retired.append(number)
                case Look():
                    self._looked(effect)

    def _looked(self, look: Look) -> None:
        self.pass_time(self.delay_s)
        rows = [row for row in self.table if row.leases]
        ids = {lease.id: address for row in rows for address, lease in row.leases.items()}
        unused = frozenset(i for i in look.ended_leases if ids.get(i) not in self.held)
        self.put(
            Offered(
                ready=frozenset({self.prefix.id}),
                usable=True,
                finished=True,
                ready_leases=frozenset(ids),
                unused_leases=unused,
            )
        )

    def run(self, for_s: float, each: Callable[[], None]) -> None:
        """Let time pass from deadline to deadline, at most a tenth of `for_s` at once."""
        end_s = self.boot_s + for_s
        while self.boot_s < end_s:
            due = self.state.holding.deadline()  # looks once a minute are taken along
            self.pass_time(max(0.01, min(due, end_s, self.boot_s + for_s / 10) - self.boot_s))
            self.settle()
            each()

    def open(self) -> list[IPAddress]:
        """What hooks hand out now: current ones, else spares."""
        rows = lease_rows(self.table)
        given: list[IPAddress] = []
        for phases in ((Phase.CURRENT,), (Phase.SPARE, Phase.PROBING)):
            for row in self.table:
                for address, lease in row.leases.items():
                    terms = rows[lease.id]
                    over = terms.preferred_ns and self.boot_s * 1e9 >= terms.preferred_ns
                    spent = terms.budget and self.sent.get(lease.id, 0) >= terms.budget
                    if lease.phase in phases and not over and not spent:
                        given.append(address)
            if given:
                break
        return given

    def connect(self, stays: bool) -> IPAddress:
        """A socket gets an address, and holds it, or ends at once."""
        opened = self.open()
        assert opened, f"no address at {self.boot_s}: {self.table.rows}"
        address = opened[0]
        first_s = self.first_given_s.setdefault(address, self.boot_s)
        if self.prefix.terms.preferred_s is not None:
            assert self.boot_s - first_s < self.prefix.terms.preferred_s + 1e-3
        if stays:
            self.held.add(address)
        return address

    def send(self, address: IPAddress, count: int) -> None:
        """Bytes leave; the hooks tell the agent of what they reach."""
        [row] = self.table
        lease = row.leases[address]
        before = self.sent.get(lease.id, 0)
        self.sent[lease.id] = now = before + count
        terms = self.prefix.terms
        warned = terms.warn is not None and before < terms.warn <= now
        spent = terms.budget is not None and before < terms.budget <= now
        if warned or spent:
            ids = frozenset({lease.id})
            self.put(Metered(ids if warned else frozenset(), ids if spent else frozenset()))
            self.settle()

    def check(self) -> None:
        """No leak, and no number or id of two."""
        [row] = self.table
        leases = row.prefix.addresses
        lingering = [each for each in leases if each.phase is Phase.LINGERING]
        assert len(lingering) <= self.prefix.terms.linger
        assert len(leases) <= 2 * self.prefix.pool + self.prefix.terms.linger
        assert len({each.id for each in leases}) == len(leases)
        assert len({each.number for each in leases}) == len(leases)
        assert all(0 < each.id < OVER for each in leases)
        assert len(set(row.addresses)) == len(row.addresses)
        assert len(row.known.kept) <= len(leases) + len(row.prefix.resting)


_TERMS: Final = st.builds(
    Terms,
    preferred_s=st.none() | st.integers(5, 90 * 86400),
    rotate_s=st.none() | st.integers(5, 90 * 86400),
    linger=st.integers(1, 8),
).filter(lambda terms: terms.end)


@given(
    terms=_TERMS,
    pool=st.sampled_from([1, 2, 3, 17]),
    stays=st.lists(st.booleans(), min_size=1, max_size=9),
)
@settings(max_examples=30)
def test_there_is_always_an_address_none_past_its_time_and_nothing_leaks(
    terms: Terms, pool: int, stays: list[bool]
) -> None:
    host = Host(_prefix(_NET6, terms, pool))
    period_s = min(x for x in (terms.preferred_s, terms.rotate_s) if x is not None)
    steps = 0

    def step() -> None:
        nonlocal steps
        host.connect(stays[steps % len(stays)])
        if steps % 5 == 0 and host.held:
            host.held.pop()
        host.check()
        steps += 1

    host.run(min(_YEAR_S * 3, 15 * period_s), step)
    assert len(host.first_given_s) >= 8


@given(steps=st.lists(st.integers(1, 80_000), min_size=5, max_size=60))
@settings(max_examples=25)
def test_a_budget_is_followed_by_another_address(steps: list[int]) -> None:
    """Whatever is sent at a time, up to a tenth of what is left after the warning."""
    terms = Terms(budget=1_000_000, warn=800_000)
    host = Host(_prefix(_NET6, terms))
    for count in steps:
        address = host.connect(stays=False)
        host.send(address, count)
        host.check()
    for lease_id, sent in host.sent.items():
        assert sent < terms.budget + 80_000 if terms.budget else True, lease_id


@given(
    at=st.lists(st.floats(0.1, 4000), min_size=1, max_size=8),
    wall=st.lists(st.floats(-1e8, 1e8), min_size=1, max_size=8),
)
@settings(max_examples=25)
def test_any_crash_is_gone_on_from_and_the_wall_clock_changes_nothing(
    at: list[float], wall: list[float]
) -> None:
    """The same addresses with the same dates, wherever it ended, whatever the clock was set to."""
    terms = Terms(preferred_s=3600, rotate_s=1800, valid_s=7200)
    host, other = Host(_prefix(_NET6, terms)), Host(_prefix(_NET6, terms))
    for n, seconds in enumerate(at):
        for each in (host, other):
            each.run(seconds, lambda: None)
        host.wall_s += wall[n % len(wall)]
        before = [row.prefix.addresses for row in host.table]
        host.begin()
        assert [row.prefix.addresses for row in host.table] == before
        assert [row.addresses for row in host.table] == [row.addresses for row in other.table]


def test_suspend_is_time_that_passes() -> None:
    """The boot clock jumps: what is over is over at once, also without a tick at the moment."""
    terms = Terms(preferred_s=3600, valid_s=7200)
    host = Host(_prefix(_NET6, terms))
    first = host.connect(stays=True)
    host.pass_time(7300)
    assert first not in host.open()
    host.settle()
    second = host.connect(stays=False)
    assert second != first
    assert first not in host.held, "its sockets were ended"


def test_a_used_ipv4_address_rests() -> None:
    """Nothing is given again before its rest is over; with none to give, rotation waits."""
    terms = Terms(rotate_s=600, linger=1, reuse_s=86400.0)
    host = Host(_prefix(_NET4, terms))
    gone_s: dict[IPAddress, float] = {}
    previous: set[IPAddress] = set()

    def step() -> None:
        address = host.connect(stays=False)
        [row] = host.table
        now = set(row.addresses)
        for each in now - previous:
            assert host.boot_s - gone_s.get(each, -1e9) >= terms.reuse_s, each
        gone_s.update(dict.fromkeys(previous - now, host.boot_s))
        previous.clear()
        previous.update(now)
        assert address in now

    host.run(5 * 86400.0, step)
    assert len(host.first_given_s) == 14  # all of the range
    host.check()


@pytest.mark.parametrize("pool", [1, 3])
def test_a_rotation_by_hand_takes_all_that_were_meant(pool: int) -> None:
    host = Host(_prefix(_NET6, Terms(rotate_s=86400), pool))
    before = set(host.open())
    host.held |= before
    [row] = host.table
    ids = frozenset(each.id for each in row.leases.values())
    host.put(Rotated(ids))
    host.settle()
    assert len(host.open()) == pool
    assert not before & set(host.open())
    [row] = host.table
    assert {each.phase for each in row.prefix.addresses} == {Phase.CURRENT, Phase.LINGERING}


def test_terms_that_become_shorter_or_end_hold_from_birth() -> None:
    host = Host(_prefix(_NET6, Terms(preferred_s=86400)))
    first = host.connect(stays=False)
    host.run(7200, lambda: None)
    host.prefix = replace(host.prefix, terms=Terms(preferred_s=3600))
    host.put(Granted(Grant(GrantKey("static", "web"), host.prefix)))
    host.settle()
    assert host.open() != [first]
    host.prefix = replace(host.prefix, terms=Terms())
    host.put(Granted(Grant(GrantKey("static", "web"), host.prefix)))
    host.settle()
    last = host.open()
    host.run(_YEAR_S, lambda: None)
    assert host.open() == last


def test_it_is_known_why_another_address_took_ones_place() -> None:
    """The last cause of what was sent, asked for or configured; else it is time."""
    host = Host(_prefix(_NET6, Terms(rotate_s=86400, budget=1000, warn=800)))
    host.run(2 * 86400, lambda: None)
    assert host.causes == [Cause.TIME, Cause.TIME]
    host.send(host.connect(stays=False), 900)
    host.pass_time(1.0)
    host.send(host.connect(stays=False), 900)
    [row] = host.table
    [current] = [each for each in row.leases.values() if each.phase is Phase.CURRENT]
    host.put(Rotated(frozenset({current.id})))
    host.settle()
    host.begin()
    host.prefix = replace(_prefix(IPv6Network("2001:db8:2::/64"), host.prefix.terms))
    host.put(Granted(Grant(GrantKey("static", "web"), host.prefix)))
    host.settle()
    assert host.causes[2:] == [Cause.BUDGET, Cause.ASKED, Cause.CONFIGURATION]
    host.run(86400, lambda: None)
    assert host.causes[5:] == [Cause.TIME]
    assert set(host.causes) == set(Cause)


@pytest.mark.parametrize("terms", [Terms(preferred_s=60.0), Terms(preferred_s=60.0, valid_s=60.0)])
def test_an_end_that_an_agent_was_away_for_is_one_by_time(terms: Terms) -> None:
    host = Host(_prefix(_NET6, replace(terms, linger=1)))
    host.pass_time(86400.0)
    host.begin()
    assert host.causes == [Cause.TIME]
