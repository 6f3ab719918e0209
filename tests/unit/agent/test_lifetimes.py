"""What is said of addresses that end, which of them somebody means, and which have turned."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from types import SimpleNamespace
from typing import Any

import pytest

from odm_agent.agent import lifetimes
from odm_agent.core.clock import Moment
from odm_agent.core.errors import ControlError
from odm_agent.core.lifetimes import AddressLease, Lifetime, Phase, Terms
from odm_agent.core.model import AddressType, Family, Placement, TypedPrefix
from odm_agent.datapath.base import Sent
from odm_agent.prefixes.table import PrefixTable

NOW_S = 1000.0
KIND = AddressType.NONPERSISTENT
NET, OTHER = IPv6Network("2001:db8:1::/64"), IPv4Network("192.0.2.0/24")
TERMS = Terms(preferred_s=900.0, valid_s=1800.0, rotate_s=600.0, budget=10_000, warn=8_000)
#: Half of its time is over.
CURRENT = AddressLease(0, 1, 700.0, Phase.CURRENT, Lifetime(1600.0, 2500.0), 1300.0)
LINGERING = AddressLease(1, 2, 0.0, Phase.LINGERING, Lifetime(900.0, 1400.0), 600.0)
SPARE = AddressLease(2, 3, 990.0, Phase.SPARE, Lifetime(1890.0, 2790.0), 1590.0)


def prefix(*leases: AddressLease, **changes: Any) -> TypedPrefix:
    """A prefix called web, whose addresses these are."""
    made = TypedPrefix(
        *(3, "web", AddressType.NONPERSISTENT, NET, "w0", None, Placement.DELEGATED, (NET,)),
        terms=TERMS,
        addresses=leases,
    )
    return replace(made, **changes)


FOR_EVER = TypedPrefix(
    4, "ssh", AddressType.FIXED, OTHER, "w0", None, Placement.DELEGATED, (OTHER,)
)


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A state that has these prefixes, at NOW_S; 4,000 bytes were sent by the current address."""
    monkeypatch.setattr(lifetimes, "now", lambda: Moment(NOW_S, 1.8e9))

    def made(*prefixes: TypedPrefix) -> Any:
        table = PrefixTable(b"secret").with_only(prefixes)
        return SimpleNamespace(
            engine=SimpleNamespace(
                table=table,
                datapath=SimpleNamespace(choices=lambda: {(KIND, Family.IPV6): (4, 3)}),
            ),
            carried_out=table,
            datapath=SimpleNamespace(meters=lambda: {1: Sent(4_000, 40)}),
        )

    return made


def address_of(state: Any, number: int) -> str:
    """What the table made of a number of the prefix web."""
    return str(state.engine.table.by_id(3).known.kept[number])


def test_what_ends_first_comes_first_and_what_never_ends_is_not_there(
    state: Callable[..., Any],
) -> None:
    made = state(prefix(CURRENT, LINGERING, SPARE), FOR_EVER)
    assert [(view.address, view.phase) for view in lifetimes.views(made)] == [
        (address_of(made, 0), "current"),
        (address_of(made, 1), "lingering"),
        (address_of(made, 2), "spare"),
    ]


def test_time_and_bytes_are_told_as_used_and_left(state: Callable[..., Any]) -> None:
    (view,) = lifetimes.views(state(prefix(CURRENT)))
    assert (view.prefix, view.type) == ("web", "nonpersistent")
    assert view.used_seconds == 300.0
    assert (view.preferred_seconds_left, view.valid_seconds_left) == (600.0, 1500.0)
    assert view.rotates_in_seconds == 300.0
    assert (view.used_bytes, view.used_packets) == (4_000, 40)
    assert (view.budget_bytes, view.warn_bytes, view.hard) == (10_000, 8_000, False)


def test_a_lingering_address_only_has_until_it_is_gone(state: Callable[..., Any]) -> None:
    (view,) = lifetimes.views(state(prefix(LINGERING)))
    assert view.preferred_seconds_left == 0.0
    assert view.rotates_in_seconds is None
    assert view.valid_seconds_left == 400.0
    assert view.used_bytes == 0, "what no meter has was not sent"


def test_what_has_no_end_of_a_kind_has_none_and_what_is_over_has_nothing_left(
    state: Callable[..., Any],
) -> None:
    endless = AddressLease(0, 1, 700.0, Phase.CURRENT)
    (view,) = lifetimes.views(state(prefix(endless, terms=Terms(budget=5))))
    assert view.preferred_seconds_left is None
    assert view.valid_seconds_left is None
    assert view.rotates_in_seconds is None
    (view,) = lifetimes.views(state(prefix(replace(CURRENT, lifetime=Lifetime(900.0, 950.0)))))
    assert (view.preferred_seconds_left, view.valid_seconds_left) == (0.0, 0.0)


def test_of_a_prefix_that_wanders_it_is_told_whether_it_stands_first_and_how_long(
    state: Callable[..., Any],
) -> None:
    """Period 10 of 100 s is over at 1,100 s, or up to a tenth earlier."""
    net = IPv6Network("2001:db8:2::/64")
    mine = prefix(CURRENT, wander_s=100, period=10)
    other = replace(mine, id=4, name="other", network=net, spans=(net,))
    found = {view.prefix: view for view in lifetimes.views(state(mine, other))}
    assert (found["web"].first, found["other"].first) == (False, True)
    for view in found.values():
        assert view.wanders_in_seconds is not None and 90 <= view.wanders_in_seconds <= 100
    (view,) = lifetimes.views(state(prefix(CURRENT)))
    assert (view.first, view.wanders_in_seconds) == (None, None)


def test_all_addresses_of_an_any_ip_prefix_are_one(state: Callable[..., Any]) -> None:
    (view,) = lifetimes.views(state(prefix(CURRENT, pool=1000)))
    assert view.address == str(NET)
    assert view.used_bytes == 4_000


@pytest.mark.parametrize("what", ["web", "nonpersistent", "an address"])
def test_type_prefix_and_address_mean_current_addresses(
    what: str, state: Callable[..., Any]
) -> None:
    made = state(prefix(CURRENT, LINGERING, SPARE), FOR_EVER)
    current = address_of(made, 0)
    wanted = lifetimes.named(made, current if what == "an address" else what)
    assert wanted == {1: ("web", current)}


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("ssh", "its addresses do not end"),
        ("fixed", "its addresses do not end"),
        ("nothing", "no type, prefix or current address is that"),
        ("lingering", "no type, prefix or current address is that"),
    ],
)
def test_what_cannot_rotate_is_refused_with_why(
    what: str, why: str, state: Callable[..., Any]
) -> None:
    made = state(prefix(CURRENT, LINGERING), FOR_EVER)
    with pytest.raises(ControlError, match=why):
        lifetimes.named(made, address_of(made, 1) if what == "lingering" else what)


def test_it_is_rotated_when_another_address_is_current(state: Callable[..., Any]) -> None:
    before = state(prefix(CURRENT, SPARE))
    old = address_of(before, 0)
    wanted = lifetimes.named(before, "web")
    assert not lifetimes.succeeded(before, wanted)
    after = state(
        prefix(replace(CURRENT, phase=Phase.LINGERING), replace(SPARE, phase=Phase.CURRENT))
    )
    (done,) = lifetimes.succeeded(after, wanted)
    assert (done.prefix, done.old, done.new) == ("web", old, address_of(after, 2))


def test_of_several_addresses_each_has_its_own_successor(state: Callable[..., Any]) -> None:
    other, third = replace(CURRENT, number=4, id=5), replace(SPARE, phase=Phase.CURRENT)
    fourth = replace(third, number=6, id=7)
    before = state(prefix(CURRENT, other, pool=2))
    one, both = {1: ("web", address_of(before, 0))}, lifetimes.named(before, "web")
    after = state(prefix(other, third, pool=2))
    assert [each.new for each in lifetimes.succeeded(after, one)] == [address_of(after, 2)]
    assert len(lifetimes.succeeded(after, both)) == 1
    after = state(prefix(third, fourth, pool=2))
    new = {each.new for each in lifetimes.succeeded(after, both)}
    assert new == {address_of(after, 2), address_of(after, 6)}


def test_it_is_rotated_though_nothing_is_left_of_the_old_address(
    state: Callable[..., Any],
) -> None:
    wanted = lifetimes.named(state(prefix(CURRENT)), "web")
    (done,) = lifetimes.succeeded(state(prefix(replace(SPARE, phase=Phase.CURRENT))), wanted)
    assert done.new
