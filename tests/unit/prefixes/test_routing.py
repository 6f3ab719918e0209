"""Which rules a prefix has: for our own packets, and for what others send from it."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network

import pytest

from odm_agent.core.host import Rule, RuleAction
from odm_agent.core.model import AddressType, Family, IPNetwork, Placement, TypedPrefix
from odm_agent.prefixes.numbers import Numbers
from odm_agent.prefixes.routing import rules_of
from odm_agent.prefixes.table import PrefixTable

NUMBERS = Numbers(table_base=1000, rule_priority=500, mark_mask=0xFF00, protocol=186)


def prefix(*spans: IPNetwork, network: IPNetwork | None = None) -> TypedPrefix:
    net = network or spans[0]
    return TypedPrefix(
        1, "p1", AddressType.FIXED, net, "eth0", None, Placement.DELEGATED, spans, order=1
    )


V6 = prefix(IPv6Network("2001:db8:1::/64"))
V4 = prefix(IPv4Network("192.0.2.8/29"))


def rules(typed: TypedPrefix) -> list[Rule]:
    (row,) = PrefixTable(b"secret").with_prefix(typed)
    return rules_of(row, NUMBERS)


@pytest.mark.parametrize("typed", [V6, V4], ids=["IPv6", "IPv4"])
def test_others_are_refused_after_our_own_packets_were_led_to_their_table(
    typed: TypedPrefix,
) -> None:
    mark, table, refusal = rules(typed)
    family, source = typed.family, typed.network
    assert mark == Rule(family, 500, 1001, mark=0x100, mask=0xFF00)
    assert table == Rule(family, 502, 1001, source=source, local_only=True)
    assert refusal == Rule(family, 503, 0, source=source, action=RuleAction.PROHIBIT)


@pytest.mark.parametrize("typed", [V6, V4], ids=["IPv6", "IPv4"])
def test_a_prefix_that_is_handed_on_has_rules_for_everybody(typed: TypedPrefix) -> None:
    given = rules(replace(typed, forwarded=True))
    assert given == [
        replace(rule, local_only=False) for rule in rules(typed) if rule.action is RuleAction.LOOKUP
    ]


def test_of_an_on_link_range_each_part_is_refused_and_its_neighbours_are_not() -> None:
    spans = (IPv4Network("198.51.100.40/30"), IPv4Network("198.51.100.44/32"))
    typed = replace(
        prefix(*spans, network=IPv4Network("198.51.100.0/26")),
        placement=Placement.ON_LINK,
        range=(IPv4Address("198.51.100.40"), IPv4Address("198.51.100.44")),
    )
    assert {r.source for r in rules(typed) if r.action is RuleAction.PROHIBIT} == {*spans}


def test_where_others_have_addresses_too_only_ours_are_refused_to_others() -> None:
    typed = replace(V6, untyped_allowed=True, pool=2)
    (row,) = PrefixTable(b"secret").with_prefix(typed)
    refused = {r.source for r in rules_of(row, NUMBERS) if r.action is RuleAction.PROHIBIT}
    assert refused == {ip_network(address) for address in row.addresses}
    assert len(refused) == 2 and Family.IPV6 is typed.family
