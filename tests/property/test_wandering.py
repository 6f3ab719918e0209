"""Prefixes that wander, over years of a virtual clock: the machine, its table, what hooks choose.

Uplinks fail and come back, the agent is killed, the wall clock is set, the host sleeps.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Network
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odm_agent.core import machine
from odm_agent.core.effects import Effect, Look, Project
from odm_agent.core.events import Event, Granted, Offered
from odm_agent.core.grants import Grant, GrantKey
from odm_agent.core.host import HostState, Link
from odm_agent.core.model import AddressType, Family, Placement, TypedPrefix
from odm_agent.core.projection import PrefixRow
from odm_agent.prefixes.selection import choices
from odm_agent.prefixes.table import PrefixTable
from tests.virtual.stepped import Stepped

_TYPE: Final = AddressType.NONPERSISTENT
_WEB: Final = (_TYPE, Family.IPV6)
_YEAR_S: Final = 365 * 86400.0


def _prefix(id_: int, wander_s: int | None, preference: int = 0) -> TypedPrefix:
    network = IPv6Network(f"2001:db8:{id_}::/64")
    return TypedPrefix(
        *(id_, f"p{id_}", _TYPE, network, f"w{id_}", None, Placement.DELEGATED, (network,)),
        preference=preference,
        order=id_,
        wander_s=wander_s,
    )


@dataclass
class Host(Stepped):
    """A host each of whose prefixes has an uplink of its own."""

    most_steps = 9
    prefixes: list[TypedPrefix]
    down: set[int] = field(default_factory=set)
    effects: list[Effect] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """An agent begins, and knows nothing of one before."""
        self.table = PrefixTable(b"secret", boot="boot")
        self.state = machine.begun((), self.now)
        for each in self.prefixes:
            self.put(Granted(Grant(GrantKey("static", each.name), each)))
        self.settle()

    def put(self, event: Event) -> None:
        """The machine takes its step; what it wants is done at once."""
        self.state, effects = machine.step(self.state, event, self.now)
        self.effects += effects
        for effect in effects:
            match effect:
                case Project(prefixes):
                    self.table = self.table.with_only(prefixes)
                case Look():
                    self.put(Offered(usable=True, finished=True))

    def run(self, for_s: float, each: Callable[[float], None]) -> None:
        """Let time pass from change to change; `each` is told how long nothing has changed."""
        end_s = self.boot_s + for_s
        while self.boot_s < end_s:
            until_s = min(
                self.state.holding.deadline(), end_s
            )  # looks once a minute change nothing
            each(until_s - self.boot_s)
            self.pass_time(until_s - self.boot_s)
            self.settle()

    def chosen(self) -> list[int]:
        """The ids of the prefixes that serve, the best first."""
        links = {
            each.interface: Link(each.interface, each.id, up, fault="" if up else "is down")
            for each in self.prefixes
            for up in [each.id not in self.down]
        }
        usable = {
            each.id: PrefixRow(each.type, each.family, each.id, each.id, (), 0)
            for each in self.prefixes
        }
        return list(choices(self.table, usable, HostState(links=links)).get(_WEB, ()))


_EVERY: Final = st.integers(5, 90 * 86400)


@given(
    every_s=_EVERY,
    count=st.integers(2, 12),
    turmoil=st.lists(st.sets(st.integers(1, 12), max_size=12), min_size=1, max_size=9),
)
@settings(max_examples=40)
def test_there_is_always_one_while_one_is_usable_and_only_usable_ones_serve(
    every_s: int, count: int, turmoil: list[set[int]]
) -> None:
    host = Host([_prefix(n, every_s) for n in range(1, count + 1)])
    steps = 0

    def step(lasting_s: float) -> None:
        nonlocal steps
        whole = host.chosen()
        assert sorted(whole) == list(range(1, count + 1))
        host.down = turmoil[steps % len(turmoil)]
        assert host.chosen() == [each for each in whole if each not in host.down]
        host.down = set()
        assert lasting_s < 1.1 * every_s + 1
        steps += 1

    host.run(20 * every_s, step)
    assert steps > 18


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("every_s", [3600, 30 * 86400])
def test_each_stands_first_its_share_of_the_time_and_never_twice_in_a_row(
    every_s: int, count: int
) -> None:
    host = Host([_prefix(n, every_s) for n in range(1, count + 1)])
    stood_s = Counter[int]()
    was: list[int] = []

    def step(lasting_s: float) -> None:
        first = host.chosen()[0]
        assert was[-1:] != [first]
        was.append(first)
        stood_s[first] += lasting_s  # type: ignore[assignment]

    for_s = 600 * every_s
    host.run(for_s, step)
    assert len(was) >= 600
    for each in range(1, count + 1):
        assert abs(stood_s[each] / for_s - 1 / count) < 0.05


@given(
    every_s=_EVERY,
    parts=st.lists(st.floats(0.01, 9), min_size=1, max_size=9),
    wall=st.lists(st.floats(-1e8, 1e8), min_size=1, max_size=9),
)
@settings(max_examples=40)
def test_any_crash_is_gone_on_from_and_the_wall_clock_changes_nothing(
    every_s: int, parts: list[float], wall: list[float]
) -> None:
    """The next agent knows nothing of the one before, and has the same order at the same times."""
    prefixes = [_prefix(n, every_s) for n in (1, 2, 3, 4)]
    host, other = Host(prefixes), Host(prefixes)
    for n, part in enumerate(parts):
        for each in (host, other):
            each.run(part * every_s, lambda lasting_s: None)
        before = host.chosen()
        host.wall_s += wall[n % len(wall)]
        host.begin()
        assert host.chosen() == before == other.chosen()
        assert host.state.holding.deadline() == other.state.holding.deadline()


@given(every_s=_EVERY, asleep=st.floats(0.5, 200))
@settings(max_examples=20)
def test_what_was_slept_through_is_not_made_up_for(every_s: int, asleep: float) -> None:
    """The order after a suspend is that of then, by one change."""
    prefixes = [_prefix(n, every_s) for n in (1, 2, 3)]
    host, other = Host(prefixes), Host(prefixes)
    other.run(asleep * every_s, lambda lasting_s: None)
    host.effects.clear()
    host.pass_time(other.boot_s - host.boot_s)
    host.settle()
    assert host.chosen() == other.chosen()
    assert sum(isinstance(each, Project) for each in host.effects) <= 1


def test_nothing_else_moves() -> None:
    """No address, no lease, nothing written down; what does not wander stands where it stood."""
    best, behind, last = _prefix(7, None, 5), _prefix(8, None), _prefix(9, None, -1)
    host = Host([best, behind, last, *(_prefix(n, 3600) for n in (1, 2, 3))])
    addresses = [row.addresses for row in host.table]
    host.effects.clear()

    def step(lasting_s: float) -> None:
        first, *wandering, after, least = host.chosen()
        assert (first, after, least) == (best.id, behind.id, last.id)
        assert sorted(wandering) == [1, 2, 3]
        assert [row.addresses for row in host.table] == addresses

    host.run(_YEAR_S / 10, step)
    assert {type(each) for each in host.effects} == {Project, Look}


def test_where_nothing_wanders_nothing_wakes_up() -> None:
    host = Host([_prefix(1, None), _prefix(2, None)])
    assert host.state.holding.deadline() == float("inf")
    assert host.chosen() == [1, 2]
