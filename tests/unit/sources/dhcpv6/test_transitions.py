"""The table: it is whole, and leads nowhere that it should not."""

import pytest

from odm_agent.sources.dhcpv6.transitions import (
    ASKING,
    EXCHANGES,
    HOLDING,
    TRANSITIONS,
    Came,
    Do,
    Next,
    State,
)

CELLS = [(s, c, n) for s, row in TRANSITIONS.items() for c, n in row.items()]


def test_every_state_has_a_row_and_every_event_a_cell() -> None:
    assert set(TRANSITIONS) == set(State)
    assert {came for _, came, _ in CELLS} == set(Came)


@pytest.mark.parametrize(("state", "came", "after"), CELLS, ids=lambda x: getattr(x, "name", ""))
def test_a_prefix_is_granted_where_it_is_got_and_withdrawn_where_it_is_lost(
    state: State, came: Came, after: Next
) -> None:
    assert (Do.WITHDRAW in after.do) == (state in HOLDING and after.state not in HOLDING)
    assert (Do.GRANT in after.do) == (came is Came.GIVEN and after.state in HOLDING)
    if state in HOLDING and came in (Came.REFUSED, Came.NO_BINDING, Came.GIVEN_UP):
        assert after.state in HOLDING, "no error takes away what is held"


@pytest.mark.parametrize("state", [each for each in State if each is not State.ENDED])
def test_every_state_is_left_when_the_link_goes(state: State) -> None:
    left = State.DETACHED if state in HOLDING else State.ENDED
    if state is not State.DETACHED:
        assert TRANSITIONS[state][Came.LINK_DOWN].state is left


def test_whatever_is_asked_for_may_be_unwanted() -> None:
    assert all(Came.UNWANTED in TRANSITIONS[state] for state in ASKING | HOLDING)


def test_what_is_tried_a_limited_number_of_times_may_be_given_up() -> None:
    for state, exchange in EXCHANGES.items():
        limited = bool(exchange.mrc or exchange.mrd_s)
        assert limited == (Came.GIVEN_UP in TRANSITIONS[state])
