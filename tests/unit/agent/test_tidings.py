"""What is told of addresses whose time or bytes end, and of refusals."""

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv6Network
from typing import Any

from odm_agent.agent.event_log import EventLog
from odm_agent.agent.tidings import tell_end, tell_refusals, tell_turns
from odm_agent.core.clock import Moment
from odm_agent.core.lifetimes import AddressLease, Cause, Phase, Terms
from odm_agent.core.model import AddressType, Placement, TypedPrefix
from odm_agent.datapath.base import KernelEvent
from odm_agent.prefixes.table import PrefixTable

NET = IPv6Network("2001:db8:1::/64")
CURRENT = AddressLease(0, 1, 0.0, Phase.CURRENT)
SPARE = AddressLease(1, 2, 0.0, Phase.SPARE)
FORMER = replace(CURRENT, phase=Phase.LINGERING, warned=True, spent=True)
NEXT = replace(SPARE, phase=Phase.CURRENT)


def table(*leases: AddressLease, pool: int = 1) -> PrefixTable:
    """A prefix with these leases."""
    prefix = TypedPrefix(
        *(3, "web", AddressType.NONPERSISTENT, NET, "w0", None, Placement.DELEGATED, (NET,)),
        pool=pool,
        terms=Terms(budget=1000, warn=800),
        addresses=leases,
    )
    return PrefixTable(b"secret").with_only([prefix])


def told(before: PrefixTable, after: PrefixTable) -> list[tuple[str, Any, Any]]:
    """Event, address and new address of all that is told of a change."""
    log = EventLog()
    tell_turns(log, before, after, {CURRENT.id: Cause.BUDGET}, 1.8e9)
    events = log.after(0)
    assert {(each.prefix, each.type) for each in events} <= {("web", "nonpersistent")}
    return [(each.event, each.address, each.new) for each in events]


def addresses(table: PrefixTable) -> Sequence[str]:
    """What the table made of numbers."""
    return [str(table.rows[0].known.kept[n]) for n in sorted(table.rows[0].known.kept)]


def test_a_mark_is_told_when_it_is_reached_and_once() -> None:
    fresh, warned = table(CURRENT), table(replace(CURRENT, warned=True))
    [address] = addresses(fresh)
    assert told(fresh, warned) == [("warned", address, None)]
    assert told(warned, warned) == []
    spent = table(replace(CURRENT, warned=True, spent=True))
    assert told(warned, spent) == [("spent", address, None)]
    assert told(spent, spent) == []


def test_a_budget_that_is_spent_at_once_is_told_with_what_follows() -> None:
    before, after = table(CURRENT, SPARE), table(NEXT, FORMER)
    old, new = addresses(before)
    assert told(before, after) == [("spent", old, None), ("rotated", old, new)]


def test_a_rotation_is_told_with_its_cause() -> None:
    """What has none turned with its prefix: the same numbers in another network."""
    for causes, cause in ({CURRENT.id: Cause.ASKED}, "asked"), ({}, "configuration"):
        log = EventLog()
        tell_turns(log, table(CURRENT, SPARE), table(NEXT, FORMER), causes, 1.8e9)
        assert log.after(0)[-1].detail == cause


def test_what_is_new_or_has_the_row_of_another_has_reached_nothing() -> None:
    assert told(PrefixTable(b"secret"), table(FORMER)) == []
    assert told(table(CURRENT), table(replace(FORMER, number=9))) == []


def test_the_mark_of_an_any_ip_prefix_is_that_of_its_network() -> None:
    before, after = table(CURRENT, pool=1000), table(replace(CURRENT, warned=True), pool=1000)
    assert told(before, after) == [("warned", str(NET), None)]


def test_an_end_is_told_with_what_became_of_connections() -> None:
    log = EventLog()
    tell_end(log, table(CURRENT).rows[0], "2001:db8:1::7", "sockets: 2", 1.8e9)
    (event,) = log.after(0)
    assert (event.event, event.prefix, event.address) == ("ended", "web", "2001:db8:1::7")
    assert event.detail == "sockets: 2"


def test_refusals_are_told_by_class_and_when_they_happened() -> None:
    log = EventLog()
    events = [
        KernelEvent(99.0, "refused", 0, class_id, AddressType.FIXED, "class", "connect6")
        for class_id in (1, 0, 9)
    ]
    warn = KernelEvent(99.0, "warn", 5, 0, AddressType.FIXED, "ok", "egress6")
    tell_refusals(log, [warn, *events], {1: "ssh"}, Moment(100.0, 1.8e9))
    found = log.after(0)
    assert [each.class_ for each in found] == ["ssh", "unclassified", "9"]
    assert {each.time for each in found} == {"2027-01-15T07:59:59.000Z"}
    assert {each.detail for each in found} == {"class, at connect6"}
    assert {each.type for each in found} == {"fixed"}


def test_a_prefix_that_sockets_are_given_no_more_is_told_once_with_what_follows() -> None:
    """Its successor may be there by then, or come later."""

    def prefix(id: int, subnet: str, lingering: bool) -> TypedPrefix:
        net = IPv6Network(subnet)
        return TypedPrefix(
            *(id, "web", AddressType.NONPERSISTENT, net, "w0", None, Placement.DELEGATED, (net,)),
            lingering=lingering,
        )

    def held(*prefixes: TypedPrefix) -> PrefixTable:
        return PrefixTable(b"secret").with_only(prefixes)

    first, next_ = "2001:db8:1::/64", "2001:db8:2::/64"
    serving = held(prefix(3, first, False))
    alone = held(prefix(3, first, True))
    both = held(prefix(3, first, True), prefix(4, next_, False))
    assert told(serving, alone) == [("deprecated", first, None)]
    assert told(alone, both) == [("succeeded", first, next_)]
    assert told(serving, both) == [("deprecated", first, next_)]
    assert told(both, both) == told(alone, alone) == []
