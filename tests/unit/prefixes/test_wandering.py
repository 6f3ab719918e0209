"""Who stands first in a period: another one each time, each as often, and nobody can tell who."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odm_agent.core.model import AddressType, Family
from odm_agent.core.wandering import Wanderers
from odm_agent.prefixes.wandering import order, wander_key

WEB = Wanderers(AddressType.NONPERSISTENT, Family.IPV6, 0, 3600)
KEY = wander_key(b"secret", "boot")
MANY = 2000


def firsts(members: list[int], key: bytes = KEY, count: int = MANY) -> list[int]:
    """Who stands first in the first so many periods."""
    return [order(members, WEB, period, key)[0] for period in range(count)]


def guessed(seen: list[int], hints: list[tuple[int, ...]]) -> float:
    """How often somebody is right who guesses what followed a hint most often until now."""
    followed: dict[tuple[int, ...], Counter[int]] = {}
    right = 0
    for hint, came in zip(hints, seen, strict=True):
        known = followed.setdefault(hint, Counter())
        right += bool(known) and known.most_common(1)[0][0] == came
        known[came] += 1
    return right / len(seen)


@given(st.sets(st.integers(1, 255), min_size=1, max_size=12), st.integers(0, 10**9), st.binary())
def test_an_order_is_of_all_members_and_begins_with_another_one(
    members: set[int], period: int, secret: bytes
) -> None:
    key = wander_key(secret, "boot")
    now, then = (order(list(members), WEB, each, key) for each in (period, period + 1))
    assert set(now) == members and len(now) == len(members)
    assert now == order(sorted(members, reverse=True), WEB, period, key), "however they are listed"
    if len(members) > 1:
        assert now[0] != then[0]
        assert then[-1] == now[0], "it is the last to come back"


@pytest.mark.parametrize("count", [2, 3, 4, 8])
def test_each_stands_first_as_often_as_the_others(count: int) -> None:
    members = list(range(1, count + 1))
    times = Counter(firsts(members))
    assert all(abs(times[each] / MANY - 1 / count) < 0.03 for each in members)


@pytest.mark.parametrize("count", [3, 4, 8])
def test_who_is_next_can_hardly_be_told_from_those_before(count: int) -> None:
    seen = firsts(list(range(1, count + 1)))
    chance = 1 / (count - 1)  # it is another one, that much is known
    assert guessed(seen[2:], [(each,) for each in seen[1:-1]]) < chance + 0.04
    assert guessed(seen[2:], list(pairwise(seen[:-1]))) < chance + 0.04
    in_sixteen = [(n % 16, *seen[n - 2 : n]) for n in range(2, MANY)]
    assert guessed(seen[2:], in_sixteen) < chance + 0.04, "nor from how orders are made"


def test_another_secret_or_boot_has_another_order() -> None:
    members = [1, 2, 3, 4]
    one = firsts(members, count=200)
    for key in (wander_key(b"secret", "another boot"), wander_key(b"another secret", "boot")):
        same = sum(a == b for a, b in zip(one, firsts(members, key, 200), strict=True))
        assert 20 < same < 90, "as by chance"


def test_those_of_another_type_or_family_do_not_go_in_step() -> None:
    other = Wanderers(WEB.type, Family.IPV4, 0, 3600)
    mine = [order([1, 2, 3], WEB, period, KEY) for period in range(50)]
    assert mine != [order([1, 2, 3], other, period, KEY) for period in range(50)]


@given(st.integers(0, 10**6), st.sets(st.integers(1, 9), max_size=8))
def test_the_loss_of_those_behind_moves_nothing(period: int, lost: set[int]) -> None:
    """The order is one of all, of which those that are not usable are left out."""
    whole = order(list(range(1, 10)), WEB, period, KEY)
    usable = [each for each in whole if each not in lost - {whole[0]}]
    assert usable[0] == whole[0]
