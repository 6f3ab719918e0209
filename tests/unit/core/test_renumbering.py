"""RFC 8978: which of a link's prefixes its router has forgotten, by dates of addresses."""

from ipaddress import IPv6Network
from typing import Final

import pytest

from odm_agent.core.renumbering import Announced, forgotten

OLD, NEW = IPv6Network("2001:db8:1::/64"), IPv6Network("2001:db8:2::/64")
OWN = IPv6Network("fd00:db8::/64")
_DAY: Final = 24 * 3600 * 100


def old(renewed: int) -> Announced:
    return Announced(OLD, 1_000, renewed)


def test_what_was_not_renewed_since_another_came_is_forgotten() -> None:
    assert forgotten([old(5_000), Announced(NEW, 5_500, 5_500)]) == {OLD}
    assert not forgotten([old(5_000)])


def test_what_one_advertisement_announces_is_noted_one_after_the_other() -> None:
    """The new one a moment later; and the next advertisement has both."""
    assert not forgotten([old(5_000), Announced(NEW, 5_001, 5_001)])
    assert not forgotten([old(5_600), Announced(NEW, 5_001, 5_601)])


def test_one_that_came_right_after_the_last_renewal_is_told_by_the_next_advertisement() -> None:
    assert not forgotten([old(5_000), Announced(NEW, 5_010, 5_010)])
    assert forgotten([old(5_000), Announced(NEW, 5_010, 5_310)]) == {OLD}


def test_one_that_is_renewed_again_is_there_again() -> None:
    assert not forgotten([old(5_700), Announced(NEW, 5_500, 5_500)])


def test_two_that_are_renewed_in_turn_are_both_there() -> None:
    """As two routers do, once each has spoken again."""
    for at in range(6_000, 9_000, 300):
        assert not forgotten([old(at), Announced(NEW, 5_500, at + 150)])
        assert not forgotten([old(at + 300), Announced(NEW, 5_500, at + 150)])


@pytest.mark.parametrize(("one", "other"), [(OLD, OWN), (OWN, NEW)])
def test_a_prefix_of_somebodys_own_and_a_global_one_stand_beside_each_other(
    one: IPv6Network, other: IPv6Network
) -> None:
    assert not forgotten([Announced(one, 0, 100), Announced(other, 5_500, 5_500)])


def test_one_that_is_deprecated_takes_no_others_place() -> None:
    assert not forgotten([old(5_000), Announced(NEW, 5_500, 5_500, deprecated=True)])


def test_of_several_addresses_the_first_and_the_last_date_count() -> None:
    """A temporary address comes later (RFC 8981), and is renewed with the others."""
    assert forgotten([old(5_000), Announced(OLD, 4_000, 4_000), Announced(NEW, 5_500, 5_500)])
    later = Announced(NEW, 5_500, 6_000), Announced(NEW, 9_000, 9_000)
    assert not forgotten([old(8_000), *later])


def test_the_counter_goes_round() -> None:
    end = (1 << 32) - 50
    assert forgotten([Announced(OLD, end - _DAY, end), Announced(NEW, 100, 100)]) == {OLD}
    assert not forgotten([Announced(OLD, end - _DAY, 200), Announced(NEW, end, end)])
