"""When a handover began and was over, of passes that were interrupted."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from odm_agent.agent.handover_book import HandoverBook
from odm_agent.agent.handovers import Handovers
from odm_agent.core.clock import Moment
from odm_agent.core.grants import Grant, GrantKey, Want
from odm_agent.core.leases import Lease
from odm_agent.core.model import TypedPrefix
from odm_agent.core.outages import Seen
from odm_agent.prefixes.table import PrefixTable
from tests.unit.agent.test_passes import PREFIX, WANT, FakeState

Told = tuple[float, dict[Want, float]]


def _at(boot_s: float) -> Moment:
    return Moment(boot_s, 1_700_000_000.0 + boot_s)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Told]:
    """When passes began, and since when sockets were given what, as the book is told."""
    seen: list[Told] = []

    def look(_: object, __: Seen, began: Moment, served_s: dict[Want, float], *rest: object) -> Any:
        seen.append((began.boot_s, dict(served_s)))
        return []

    monkeypatch.setattr(HandoverBook, "look", look)
    return seen


def _handovers(state: Any) -> Handovers:
    return Handovers(state)


def _table(state: FakeState, prefixes: Iterable[TypedPrefix]) -> None:
    state.engine.table = PrefixTable(b"secret").with_only(prefixes)


def test_a_pass_that_goes_on_began_with_the_one_that_was_interrupted(told: list[Told]) -> None:
    made = _handovers(FakeState())
    made.begin(_at(1.0))
    made.begin(_at(2.0))
    made.look(frozenset(), _at(3.0))
    made.begin(_at(4.0))
    made.look(frozenset(), _at(5.0))
    assert [began_s for began_s, _ in told] == [1.0, 4.0]


def test_a_type_serves_since_it_was_given_by_the_way_that_it_is_now(told: list[Told]) -> None:
    state = FakeState()
    made, address = _handovers(state), state.engine.table.addresses_of(PREFIX.id)[0]
    made.begin(_at(1.0))
    made.serving({WANT: address}, _at(1.5))
    made.begin(_at(2.0))
    made.serving({WANT: address}, _at(2.5))
    made.look(frozenset(), _at(3.0))
    made.begin(_at(4.0))
    made.serving({WANT: address}, _at(4.5))
    _table(state, [replace(PREFIX, interface="w1")])
    made.begin(_at(5.0))
    made.serving({WANT: address}, _at(5.5))
    made.look(frozenset(), _at(6.0))
    assert [served_s for _, served_s in told] == [{WANT: 1.5}, {WANT: 5.5}]


def test_what_is_given_no_more_and_then_again_serves_since_then(told: list[Told]) -> None:
    state = FakeState()
    made, address = _handovers(state), state.engine.table.addresses_of(PREFIX.id)[0]
    made.begin(_at(1.0))
    made.serving({WANT: address}, _at(1.5))
    made.serving({}, _at(1.7))
    made.serving({WANT: address}, _at(2.0))
    made.look(frozenset(), _at(3.0))
    assert told == [(1.0, {WANT: 2.0})]


def test_what_a_handover_has_left_is_lost_also_where_it_stands_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its loss and its successor may come in one look, as passes between are interrupted."""
    state, seen = FakeState(), list[Seen]()

    def look(_: object, found: Seen, *rest: object) -> list[object]:
        seen.append(found)
        return []

    monkeypatch.setattr(HandoverBook, "look", look)
    made = _handovers(state)
    grant = Grant(GrantKey("isp", "1"), PREFIX)
    for handover in (False, True):
        _table(state, [replace(PREFIX, stands_in=True)])
        state.engine.host = state.engine.kernel.read()
        made.lease(PREFIX.id, Lease(grant, handover=handover))
        made.look(frozenset(), _at(1.0))
    assert [each.lost.keys() for each in seen] == [set(), {PREFIX.id}]
