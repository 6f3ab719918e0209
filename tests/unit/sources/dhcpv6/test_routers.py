"""Which router is that of the network before: main has a default route by it for a while."""

from ipaddress import IPv6Address

from odm_agent.core.host import HostState, Route
from odm_agent.core.model import Family, TypedPrefix
from odm_agent.sources.dhcpv6.routers import Routers
from tests.virtual.delegated import SESSION, Link
from tests.virtual.dhcpv6_server import Server

A, B, C = (IPv6Address(f"fe80::{each}") for each in ("a", "b", "c"))


def moved(*routers: IPv6Address) -> Routers:
    """A host that was attached to one network after the other."""
    made = Routers()
    for each in routers:
        made.unknown()
        made.answers(each)
    return made


def test_the_former_one_is_that_of_the_network_before() -> None:
    assert moved(A).former is None
    assert moved(A, B).former == A
    assert moved(A, B, C).former == B
    assert moved(A, B, A).former == B


def test_a_flap_changes_nothing_and_two_routers_of_a_link_are_beside_each_other() -> None:
    assert moved(A, B, B).former == A
    made = moved(A)
    made.answers(B)
    assert made.former is None
    made = moved(A, B)
    made.answers(A)  # it is here, too
    assert made.former is None


def test_packets_do_not_leave_by_it_however_long_main_has_a_route_by_it() -> None:
    link = Link(servers=[Server(10)])
    link.ask(SESSION)
    link.advance(1.0)
    link.servers[0].number = 11
    link.link(False)
    link.link(True)
    link.advance(1.0)
    prefix = link.granted.grant.prefix
    assert (prefix.gateway, prefix.former_gateway) == (B, A)
    assert way(prefix, A) is None, "the prefix has its own"
    assert way(prefix, A, B) == B
    assert way(prefix, A, C) == C


def way(prefix: TypedPrefix, *gateways: IPv6Address) -> object:
    """By which of the routers of main's default routes its packets leave."""
    routes = tuple(
        Route(254, Family.IPV6, None, interface="w0", gateway=each, metric=1024 + n)
        for n, each in enumerate(gateways)
    )
    found = HostState(main_routes=routes).way_of(prefix)
    return found and found.gateway
