"""Who waits, what is needed, and what is remembered of failures."""

from itertools import pairwise

import pytest

from odm_agent.core.asking import MOST_DEMANDS, NEEDED_S, Asking
from odm_agent.core.clock import NEVER, Moment
from odm_agent.core.demands import Demand
from odm_agent.core.effects import Answer, Release, Request
from odm_agent.core.events import Failed, Failure, Offered
from odm_agent.core.grants import Want
from odm_agent.core.model import TYPES, AddressType, Family

WANT: Want = (AddressType.SESSION_LASTING, Family.IPV6)
NOTHING: frozenset[Want] = frozenset()


def at(seconds: float) -> Moment:
    return Moment(seconds, 1e9 + seconds)


def test_a_need_is_requested_once_and_released_after_a_while() -> None:
    asking, effects = Asking().needed(WANT, NOTHING, at(0))
    assert effects == [Request(WANT)]
    asking, effects = asking.needed(WANT, NOTHING, at(10))
    assert effects == []
    assert asking.deadline() == 10 + NEEDED_S
    assert asking.at(NOTHING, at(9 + NEEDED_S)) == (asking, [])
    asking, effects = asking.at(NOTHING, at(10 + NEEDED_S))
    assert effects == [Release(WANT)]
    assert asking == Asking()


def test_a_need_of_what_is_held_is_none() -> None:
    assert Asking().needed(WANT, {WANT}, at(0)) == (Asking(), [])


def test_who_waits_keeps_the_request_of_a_need_and_the_need_that_of_who_waited() -> None:
    asking, _ = Asking().needed(WANT, NOTHING, at(0))
    asking, effects = asking.with_demand(Demand(1, WANT, 100.0), NOTHING, NOTHING, at(1))
    assert effects == []
    asking, effects = asking.at(NOTHING, at(NEEDED_S))
    assert effects == []
    asking, _ = asking.needed(WANT, NOTHING, at(NEEDED_S))
    asking, effects = asking.without([1])
    assert effects == []
    _, effects = asking.at(NOTHING, at(2 * NEEDED_S))
    assert effects == [Release(WANT)]


def test_a_failure_is_told_to_who_waits_and_to_who_comes_soon() -> None:
    asking, _ = Asking().needed(WANT, NOTHING, at(0))
    asking, _ = asking.with_demand(Demand(1, WANT, 100.0), NOTHING, NOTHING, at(0))
    asking, effects = asking.failed(Failed(WANT, "none", Failure.TIMED_OUT), NOTHING, at(1))
    assert effects == [Answer(1, None, "none", Failure.TIMED_OUT)]
    assert not asking.requested and asking.deadline() == NEVER
    assert asking.needed(WANT, NOTHING, at(1.9)) == (asking, [])
    asking, effects = asking.with_demand(Demand(2, WANT, 100.0), NOTHING, NOTHING, at(1.9))
    assert effects == [Answer(2, None, "none", Failure.TIMED_OUT)]
    assert asking.needed(WANT, NOTHING, at(2))[1] == [Request(WANT)]
    # What is there soon is waited for, whatever could not be had before.
    asking, effects = asking.with_demand(Demand(3, WANT, 100.0), {WANT}, NOTHING, at(1.9))
    assert effects == [] and 3 in asking.demands


def test_the_pause_is_doubled_with_each_failure_in_a_row_up_to_a_minute() -> None:
    asking, now, pauses = Asking(), 0.0, list[float]()
    for _ in range(9):
        asking, effects = asking.needed(WANT, NOTHING, at(now))
        assert effects == [Request(WANT)]
        asking, _ = asking.failed(Failed(WANT, "none"), NOTHING, at(now))
        pauses.append(asking.setbacks[WANT].pause_s)
        now = asking.setbacks[WANT].until_s
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    asking, _ = asking.failed(Failed(WANT, "none"), NOTHING, at(now + 60))
    assert asking.setbacks[WANT].pause_s == 1
    assert not asking.granted(WANT).setbacks


@pytest.mark.parametrize("held", [NOTHING, {WANT}])
def test_an_offer_ends_the_need_and_what_is_withdrawn_before_is_requested_anew(
    held: frozenset[Want],
) -> None:
    asking, _ = Asking().needed(WANT, NOTHING, at(0))
    asking = asking.granted(WANT)
    asking, effects = asking.offered(Offered(), held, at(1))
    assert effects == ([] if held else [Request(WANT)])
    asking, effects = asking.offered(Offered(offers={WANT: None}), {WANT}, at(2))  # type: ignore[dict-item]
    assert effects == ([] if held else [Release(WANT)]) and not asking.needs


def test_nothing_grows_without_bound() -> None:
    asking = Asking()
    for second in range(1000):
        for type_ in TYPES:
            for family in Family:
                asking, _ = asking.needed((type_, family), NOTHING, at(second))
                if second % 3 == 0:
                    failed = Failed((type_, family), f"cause {second}")
                    asking, _ = asking.failed(failed, NOTHING, at(second))
    assert len(asking.needs) + len(asking.setbacks) + len(asking.requested) <= 24
    for ticket in range(2 * MOST_DEMANDS):
        asking, _ = asking.with_demand(Demand(ticket, None, 5000.0), NOTHING, NOTHING, at(1000))
    assert len(asking.demands) == MOST_DEMANDS


def test_who_waits_for_what_is_stalled_hears_of_refusals_alone() -> None:
    """Where nobody could be asked, the uplink may still come back within his time."""
    for kind, told in ((Failure.UNSUPPORTED, 0), (Failure.TIMED_OUT, 1), (Failure.REFUSED, 1)):
        asking, _ = Asking().needed(WANT, NOTHING, at(0))
        asking, _ = asking.with_demand(Demand(1, WANT, 100.0), NOTHING, {WANT}, at(0))
        asking, effects = asking.failed(Failed(WANT, "none", kind), {WANT}, at(1))
        assert len(effects) == told and (1 in asking.demands) == (not told)
        asking, effects = asking.with_demand(Demand(2, WANT, 100.0), NOTHING, {WANT}, at(1.5))
        assert len(effects) == told and (2 in asking.demands) == (not told)
        assert asking.needed(WANT, NOTHING, at(1.5))[1] == []


def test_what_is_waited_for_is_requested_again_when_the_pause_is_over() -> None:
    asking, _ = Asking().with_demand(Demand(1, WANT, 100.0), NOTHING, {WANT}, at(0))
    asking, _ = asking.offered(Offered(), NOTHING, at(0))
    asking, _ = asking.failed(Failed(WANT, "none", Failure.UNSUPPORTED), {WANT}, at(1))
    assert asking.deadline() == 2
    assert asking.at(NOTHING, at(1.9)) == (asking, [])
    again, effects = asking.at(NOTHING, at(2))
    assert effects == [Request(WANT)] and again.deadline() == 100
    back, effects = asking.at({WANT}, at(2))
    assert effects == [] and back.deadline() == 100


def test_a_request_for_what_comes_back_is_released_and_made_ever_more_seldom() -> None:
    """An uplink that comes and goes, each two seconds, and a network that has not answered yet."""
    asking, requests = Asking(), list[float]()
    for now in range(0, 600, 2):
        asking, effects = asking.needed(WANT, NOTHING, at(now))
        requests += [now] * len(effects)
        asking, effects = asking.offered(Offered(offers={WANT: None}), {WANT}, at(now + 1))  # type: ignore[dict-item]
        assert effects == [Release(WANT)] * (requests[-1] == now)
        asking = asking.granted(WANT, anew=False)  # it is renewed, which says nothing of the other
    apart = [after - before for before, after in pairwise(requests)]
    assert apart == sorted(apart) and apart[-1] >= 60 and len(requests) < 20
    assert not asking.granted(WANT).setbacks
