"""Which rules a prefix has, for our own packets and others', and which default route."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

import pytest

from odm_agent.core.host import Hop, HostState, Link, Route, RouteKind, Rule, RuleAction
from odm_agent.core.model import AddressType, Family, IPAddress, IPNetwork, Placement, TypedPrefix
from odm_agent.prefixes.mirror import Mirror
from odm_agent.prefixes.numbers import Numbers
from odm_agent.prefixes.routing import routes_of, rules_of
from odm_agent.prefixes.selection import absence
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


LEARNING = replace(V6, learned_gateway=True)
LINK = Link("eth0", 2, up=True)
FE80, OTHER = ip_address("fe80::1"), ip_address("fe80::2")


def default(
    typed: TypedPrefix, *main: Route, link: Link = LINK, others: tuple[Route, ...] = ()
) -> Route | None:
    """The default route in the prefix's table, on a host with these routes."""
    table = PrefixTable(b"secret").with_prefix(typed)
    host = HostState(links={link.name: link}, main_routes=main, foreign_routes=others)
    (row,) = table
    made = routes_of(row, {row.prefix.id: row.addresses[0]}, Mirror.of(table, host), NUMBERS)
    found = [r for r in made if r.destination is None and r.kind is RouteKind.UNICAST]
    assert len(found) <= 1
    assert (absence(row, host) is None) == bool(found)
    return found[0] if found else None


def way(gateway: IPAddress | None, interface: str = "eth0", **more: Any) -> Route:
    return Route(254, Family.IPV6, None, interface=interface, gateway=gateway, **more)


def test_a_learned_gateway_is_that_of_the_best_default_route_by_the_interface() -> None:
    worse, better = way(OTHER, metric=2000), way(FE80, metric=100)
    elsewhere = way(OTHER, "eth1", metric=1)
    (row,) = PrefixTable(b"secret").with_prefix(LEARNING)
    found = default(LEARNING, worse, better, elsewhere)
    assert found == Route(
        1001, Family.IPV6, None, interface="eth0", gateway=FE80, source=row.addresses[0]
    )


def test_a_learned_way_keeps_what_the_route_carries_and_each_hop_is_one_of_its_interface() -> None:
    mtu = ((8, b"mtu"),)
    hops = (Hop("eth1", OTHER), Hop("eth0", FE80, attributes=((22, b"encap"),)))
    several = Route(254, Family.IPV6, None, hops=hops, attributes=mtu, metric=7)
    found = default(LEARNING, several)
    assert found and found.gateway == FE80 and not found.hops and found.metric == 0
    assert found.attributes == (*mtu, (22, b"encap"))


def test_without_a_learned_gateway_the_written_one_serves_and_a_tunnel_needs_none() -> None:
    written = replace(LEARNING, gateway=OTHER)
    assert default(LEARNING) is None
    found = default(written)
    assert found and found.gateway == OTHER
    assert (found := default(written, way(FE80))) and found.gateway == FE80
    tunnel = default(LEARNING, link=replace(LINK, peered=True))
    assert tunnel and tunnel.gateway is None and tunnel.interface == "eth0"


def test_a_default_route_that_is_kept_in_another_table_is_learned_from_there() -> None:
    kept = replace(way(OTHER), table=100)
    assert (found := default(LEARNING, others=(kept,))) and found.gateway == OTHER
    assert (found := default(LEARNING, way(FE80), others=(kept,))) and found.gateway == FE80
