"""Periods on the boot-time clock: each moment lies in one, and a little earlier than it might."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from odm_agent.core.clock import NEVER
from odm_agent.core.jitter import JITTER
from odm_agent.core.model import AddressType, Family
from odm_agent.core.wandering import Wanderers, begins_s, next_s, period_at

WEB = Wanderers(AddressType.NONPERSISTENT, Family.IPV6, 0, 3600)
wanderers = st.builds(
    Wanderers,
    *(st.sampled_from(AddressType), st.sampled_from(Family)),
    *(st.integers(-9, 9), st.integers(5, 100 * 365 * 86400)),
)


@given(wanderers, st.floats(0, 1e10))
def test_each_moment_lies_in_the_period_that_has_begun_last(who: Wanderers, boot_s: float) -> None:
    period = period_at(who, boot_s)
    assert begins_s(who, period) <= boot_s < begins_s(who, period + 1)


@given(wanderers, st.integers(1, 10**6))
def test_a_period_has_begun_when_the_timer_fires(who: Wanderers, period: int) -> None:
    """The same float: else the agent would wake up, find nothing, and wake up again."""
    assert period_at(who, begins_s(who, period)) == period


def test_a_period_is_never_a_tenth_longer_or_shorter_and_not_always_the_same() -> None:
    begun = [begins_s(WEB, period) for period in range(1, 1000)]
    lengths = [after - before for before, after in pairwise(begun)]
    least, most = (1 - JITTER) * WEB.every_s, (1 + JITTER) * WEB.every_s
    assert all(least <= each <= most for each in lengths)
    assert min(lengths) < 3400 and max(lengths) > 3800
    assert abs(sum(lengths) / len(lengths) - 3600) < 1


def test_not_all_that_wander_do_so_at_once() -> None:
    other = Wanderers(WEB.type, Family.IPV4, 0, 3600)
    assert begins_s(WEB, 5) != begins_s(other, 5)
    assert next_s({WEB: 4, other: 4}) == min(begins_s(WEB, 5), begins_s(other, 5))
    assert next_s({}) == NEVER
