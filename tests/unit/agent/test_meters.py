"""What the programs tell of leases, and what is found of it by looking."""

from collections.abc import Iterable
from ipaddress import IPv6Network

import pytest

from odm_agent.agent.meters import found, metered
from odm_agent.core.events import Metered
from odm_agent.core.lifetimes import AddressLease, Phase, Terms
from odm_agent.core.model import AddressType, Placement, TypedPrefix
from odm_agent.datapath.base import KernelEvent, Sent
from odm_agent.prefixes.table import PrefixTable

NET = IPv6Network("2001:db8:1::/64")


def told(kind: str, lease: int) -> KernelEvent:
    """An event of a program."""
    return KernelEvent(1.0, kind, lease, 0, AddressType.FIXED, "ended", "egress6")


def table(terms: Terms, *leases: AddressLease) -> PrefixTable:
    """A prefix with these leases."""
    prefix = TypedPrefix(
        *(3, "web", AddressType.NONPERSISTENT, NET, "w0", None, Placement.DELEGATED, (NET,)),
        terms=terms,
        addresses=leases,
    )
    return PrefixTable(b"secret").with_only([prefix])


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([], None),
        ([told("refused", 0)], None),
        ([told("warn", 7), told("warn", 8)], Metered(warned=frozenset({7, 8}))),
        ([told("warn", 7), told("spent", 7)], Metered(frozenset({7}), frozenset({7}))),
    ],
)
def test_of_what_the_programs_tell_the_marks_of_leases_count(
    events: Iterable[KernelEvent], said: Metered | None
) -> None:
    assert metered(events) == said


@pytest.mark.parametrize(
    ("sent", "warned", "spent", "said"),
    [
        (799, False, False, None),
        (800, False, False, Metered(warned=frozenset({5}))),
        (800, True, False, None),
        (1000, False, False, Metered(frozenset({5}), frozenset({5}))),
        (1000, True, False, Metered(spent=frozenset({5}))),
        (5000, True, True, None),
    ],
)
def test_a_mark_that_was_not_told_is_found_once(
    sent: int, warned: bool, spent: bool, said: Metered | None
) -> None:
    lease = AddressLease(0, 5, 0.0, Phase.CURRENT, warned=warned, spent=spent)
    assert found(table(Terms(budget=1000, warn=800), lease), {5: Sent(sent, 1)}) == said


def test_without_a_budget_or_a_meter_there_is_no_mark() -> None:
    lease = AddressLease(0, 5, 0.0, Phase.CURRENT)
    assert found(table(Terms(preferred_s=60.0), lease), {5: Sent(10**12, 1)}) is None
    assert found(table(Terms(budget=1000), lease), {6: Sent(10**12, 1)}) is None
