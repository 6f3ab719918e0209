"""What a network gives ends when the network says, and all that is made of it ends with it."""

from dataclasses import replace
from ipaddress import IPv6Network

import pytest

from odm_agent.core.clock import NEVER, Moment
from odm_agent.core.effects import EndSockets
from odm_agent.core.events import Offered
from odm_agent.core.grants import Grant, GrantKey
from odm_agent.core.holding import Holding
from odm_agent.core.lifetimes import OVER, WITHOUT_END, Lifetime, Phase, Terms
from odm_agent.core.model import AddressType, Placement, TypedPrefix
from odm_agent.prefixes import typings
from odm_agent.prefixes.table import PrefixTable

NET = IPv6Network("2001:db8:1::/64")
KEY = GrantKey("delegation:isp", "1")
PREFIX = TypedPrefix(
    *(7, "isp/nonpersistent", AddressType.NONPERSISTENT, NET, "w0", None),
    *(Placement.DELEGATED, (NET,)),
)
EMPTY = Holding()


def at(boot_s: float) -> Moment:
    return Moment(boot_s, 1e9 + boot_s)


def granted(
    preferred_s: float, valid_s: float, terms: Terms = WITHOUT_END, holding: Holding = EMPTY
) -> Holding:
    prefix = replace(PREFIX, terms=terms)
    grant = Grant(KEY, prefix, Lifetime(preferred_s, valid_s))
    return holding.with_grant(grant, at(100.0))[0]


def rows(holding: Holding) -> list[tuple[int, int]]:
    """The kernel's rows, of which each ends an address: preferred and valid, in seconds."""
    table = PrefixTable(b"k" * 32).with_only(holding.prefixes())
    found = {n: row for n, row in typings.leases(table).items() if n != OVER}
    return [(row.preferred_ns // 10**9, row.valid_ns // 10**9) for row in found.values()]


def test_the_kernel_knows_when_a_prefix_ends_that_has_no_terms_of_its_own() -> None:
    assert rows(granted(160.0, 220.0)) == [(160, 220)]


@pytest.mark.parametrize(
    ("terms", "row"),
    [
        (Terms(preferred_s=20.0, valid_s=40.0), (120, 140)),
        (Terms(preferred_s=20.0, valid_s=4000.0), (120, 220)),
        (Terms(rotate_s=30.0), (160, 220)),
    ],
)
def test_an_address_ends_by_its_terms_or_with_its_prefix(
    terms: Terms, row: tuple[int, int]
) -> None:
    assert rows(granted(160.0, 220.0, terms)) == [row]


def test_a_renewal_makes_the_rows_of_its_addresses_longer_and_keeps_these() -> None:
    first = granted(160.0, 220.0)
    renewed = granted(500.0, 900.0, holding=first)
    assert rows(renewed) == [(500, 900)]
    (before,), (after,) = (each.leases[7].addresses for each in (first, renewed))
    assert (before.id, before.number) == (after.id, after.number)


def test_a_prefix_without_end_may_be_given_one() -> None:
    endless = granted(NEVER, NEVER)
    assert rows(endless) == [(0, 0)]
    assert rows(granted(160.0, 220.0, holding=endless)) == [(160, 220)]


def test_nothing_else_of_the_prefix_may_be_sent_from() -> None:
    table = PrefixTable(b"k" * 32).with_only(granted(160.0, 220.0).prefixes())
    assert typings.spans(table)[NET].lease == OVER


def test_no_successor_is_made_that_would_end_at_the_same_time() -> None:
    holding = granted(160.0, 220.0)
    assert holding.deadline() == 0.0  # the table is to be told
    holding, _ = holding.at(at(100.0))
    assert holding.deadline() == 160.0
    holding, _ = holding.at(at(159.5))
    assert len(holding.leases[7].addresses) == 1


def test_within_a_prefix_addresses_rotate_until_that_ends() -> None:
    holding, _ = granted(160.0, 220.0, Terms(rotate_s=20.0)).at(at(119.0))
    spare = Offered(ready_leases=frozenset(e.id for e in holding.leases[7].addresses))
    holding, _ = holding.offered(spare, at(119.0))
    holding, _ = holding.at(at(121.0))
    phases = [each.phase for each in holding.leases[7].addresses]
    assert phases == [Phase.CURRENT, Phase.LINGERING]
    holding, _ = holding.at(at(161.0))
    assert holding.leases[7].phase is Phase.LINGERING
    assert len(holding.leases[7].addresses) == 2


def test_with_the_prefix_its_sockets_end() -> None:
    holding, _ = granted(160.0, 220.0).at(at(160.0))
    assert holding.leases[7].phase is Phase.LINGERING
    assert holding.deadline() == 220.0
    holding, effects = holding.at(at(220.0))
    assert EndSockets(7, 0) in effects
    assert not holding.leases[7].addresses
    assert holding.over(at(220.0)) == {7}


def test_what_is_taken_back_is_given_to_no_socket_and_ends_no_later_than_was_promised() -> None:
    holding, _ = granted(160.0, 220.0).without_grant(KEY, at(110.0))
    assert rows(holding) == [(110, 220)]


def test_what_may_be_somebody_elses_now_ends_at_once() -> None:
    holding, _ = granted(160.0, 220.0).at(at(100.0))
    holding, _ = holding.without_grant(KEY, at(110.0), at_once=True)
    assert rows(holding) == [(110, 110)]
    holding, effects = holding.at(at(110.0))
    assert EndSockets(7, 0) in effects
    assert holding.over(at(110.0)) == {7}


def test_what_is_over_already_ends_at_once_when_it_is_said() -> None:
    holding, _ = granted(160.0, 220.0).without_grant(KEY, at(110.0))
    holding, _ = holding.without_grant(KEY, at(120.0), at_once=True)
    assert rows(holding) == [(110, 120)]
