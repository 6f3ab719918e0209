"""Which prefixes the machine is told to serve nobody now."""

from dataclasses import replace
from ipaddress import IPv6Network

import pytest

from odm_agent.agent.engine import Engine
from odm_agent.agent.offers import offered
from odm_agent.core.host import HostState, Link
from odm_agent.core.model import ANY, AddressType, Family, Placement, TypedPrefix
from odm_agent.datapath.fake import FakeDatapath
from odm_agent.kernel.fake import FakeKernel
from odm_agent.prefixes.numbers import Numbers
from odm_agent.prefixes.table import PrefixTable, Row

NET = IPv6Network("2001:db8:1::/64")
PREFIX = TypedPrefix(
    *(7, "home", AddressType.FIXED, NET, "w0", None, Placement.DELEGATED, (NET,)),
)
UPLINK = replace(
    PREFIX,
    network=ANY[Family.IPV6],
    placement=Placement.MANAGED,
    spans=(),
    pattern="w0",
    learned_gateway=True,
)
UP = Link("w0", 2, True, peered=True)
NUMBERS = Numbers(table_base=865300, rule_priority=8653, mark_mask=0xFF000000, protocol=86)


def stalled(table: PrefixTable, *links: Link) -> frozenset[int]:
    """What is told of a host with these links."""
    host = HostState(links={each.name: each for each in links})
    engine = Engine(FakeKernel(), FakeDatapath(), NUMBERS, table, host=host)
    return offered(engine, finished=True).stalled


@pytest.mark.parametrize(
    "link",
    [
        replace(UP, up=False, enabled=False, fault="is down"),
        replace(UP, up=False, fault="has no carrier"),
        replace(UP, ipv6_fault="has IPv6 switched off"),
        replace(UP, name="w1"),
    ],
    ids=lambda each: each.fault or each.ipv6_fault or each.name,
)
def test_a_prefix_by_whose_uplink_nothing_can_leave_is_stalled(link: Link) -> None:
    table = PrefixTable(b"secret").with_only([PREFIX])
    assert stalled(table, Link("lo", 1, True), link) == {7}
    assert stalled(table, Link("lo", 1, True), UP) == frozenset()  # its address comes soon


def test_an_uplink_of_others_without_an_address_is_stalled() -> None:
    table = PrefixTable(b"secret", (Row(UPLINK, ()),))
    assert stalled(table, UP) == {7}
    assert stalled(PrefixTable(b"secret", (Row(UPLINK, (NET[5],)),)), UP) == frozenset()


def test_a_prefix_all_of_whose_addresses_are_others_is_stalled() -> None:
    table = PrefixTable(b"secret").with_only([PREFIX])
    while addresses := table.addresses_of(7):
        assert stalled(table, Link("lo", 1, True), UP) == frozenset()
        table = table.with_conflict(addresses[0])
    assert stalled(table, Link("lo", 1, True), UP) == {7}
