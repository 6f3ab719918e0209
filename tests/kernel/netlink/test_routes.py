"""Routes: exactly the wanted ones, in their tables; the main table read for mirroring."""

import socket
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import pytest

from odm_agent.core.actions import AddAddress, AddRoute, KernelAction, RemoveAddress, RemoveRoute
from odm_agent.core.errors import KernelError
from odm_agent.core.host import Address, Hop, Route, RouteKind
from odm_agent.core.model import Family, IPAddress
from tests.lab.kernel import LabKernel
from tests.lab.netns import NetNs
from tests.lab.process import wait_until

Show = Callable[..., Any]

TABLE = 865301
SOURCE6, SOURCE4 = IPv6Address("2001:db8:f::1"), IPv4Address("198.51.100.1")
DEFAULT6 = Route(
    TABLE, Family.IPV6, None, interface="w0", gateway=ip_address("fe80::1"), source=SOURCE6
)
DEFAULT4 = Route(
    TABLE, Family.IPV4, None, interface="w0", gateway=ip_address("192.0.2.1"), source=SOURCE4
)
LINK6 = Route(
    TABLE, Family.IPV6, IPv6Network("2001:db8:1::/64"), interface="w0", source=SOURCE6, metric=256
)
LINK4 = Route(TABLE, Family.IPV4, IPv4Network("192.0.2.0/24"), interface="w0", source=SOURCE4)
LAST6 = Route(TABLE, Family.IPV6, None, kind=RouteKind.UNREACHABLE, metric=4294967295)
LAST4 = replace(LAST6, family=Family.IPV4)
ANY_IP6 = Route(
    255, Family.IPV6, IPv6Network("2001:db8:e::/64"), kind=RouteKind.LOCAL, interface="lo"
)
ANY_IP4 = Route(
    255, Family.IPV4, IPv4Network("203.0.113.0/28"), kind=RouteKind.LOCAL, interface="lo"
)
ALL = [DEFAULT6, DEFAULT4, LINK6, LINK4, LAST6, LAST4, ANY_IP6, ANY_IP4]
NAMES = ["default6", "default4", "link6", "link4", "last6", "last4", "any-ip6", "any-ip4"]


@pytest.fixture(autouse=True)
def sources(kernel: LabKernel) -> None:
    kernel.apply(AddAddress(Address(SOURCE6, 128, "lo")), AddAddress(Address(SOURCE4, 32, "lo")))


def shown_routes(shown: Show, route: Route) -> list[dict[str, Any]]:
    version = f"-{route.family.value}"
    found = shown(
        *("-details", version, "route", "show", "table", str(route.table)),
        *("proto", "86"),
    )
    return list(found)


@pytest.mark.parametrize("route", ALL, ids=NAMES)
def test_a_route_reads_back_as_it_was_wanted(kernel: LabKernel, shown: Show, route: Route) -> None:
    kernel.apply(AddRoute(route))
    assert kernel.read().routes == {route}
    (entry,) = shown_routes(shown, route)
    assert entry["type"] == route.kind.value
    assert entry.get("gateway") == (str(route.gateway) if route.gateway else None)
    assert entry.get("prefsrc") == (str(route.source) if route.source else None)
    assert entry["dst"] == (str(route.destination) if route.destination else "default")


@pytest.mark.parametrize("route", ALL, ids=NAMES)
def test_adding_and_removing_twice_is_the_same_as_once(
    kernel: LabKernel, shown: Show, route: Route
) -> None:
    for _ in range(2):
        kernel.apply(AddRoute(route))
        assert kernel.read().routes == {route}
        assert len(shown_routes(shown, route)) == 1
    for _ in range(2):
        kernel.apply(RemoveRoute(route))
        assert kernel.read().routes == frozenset()


@pytest.mark.parametrize("route", [DEFAULT6, DEFAULT4, LINK6, LINK4], ids=NAMES[:4])
@pytest.mark.parametrize("new_first", [True, False], ids=["new first", "old first"])
def test_a_changed_source_in_either_order_leaves_the_new_route(
    kernel: LabKernel, route: Route, new_first: bool
) -> None:
    other = ip_address("2001:db8:f::2" if route.family is Family.IPV6 else "198.51.100.2")
    kernel.apply(AddAddress(Address(other, other.max_prefixlen, "lo")))
    kernel.apply(AddRoute(route))
    changed = replace(route, source=other)
    actions: list[KernelAction] = [AddRoute(changed), RemoveRoute(route)]
    kernel.apply(*(actions if new_first else actions[::-1]))
    assert kernel.read().routes == {changed}


@pytest.mark.parametrize("destination", ["fe80::/64", "10.1.0.0/16"])
def test_routes_to_one_network_on_several_links_stand_side_by_side(
    kernel: LabKernel, destination: str
) -> None:
    network = ip_network(destination)
    both = {
        Route(TABLE, Family.of(network), network, interface=name, metric=256)
        for name in ("w0", "w1")
    }
    for route in [*both, *both]:
        kernel.apply(AddRoute(route))
    assert kernel.read().routes == both
    gone = next(iter(both))
    kernel.apply(RemoveRoute(gone))
    assert kernel.read().routes == both - {gone}


def test_a_gateway_outside_all_networks_of_the_host(kernel: LabKernel) -> None:
    """A delegated prefix's uplink need not be numbered."""
    far6 = replace(DEFAULT6, gateway=ip_address("2001:db8:9::1"), interface="w1")
    far4 = replace(DEFAULT4, gateway=ip_address("203.0.113.77"), interface="w1")
    crossed = replace(DEFAULT4, gateway=ip_address("fe80::1"), metric=7)
    for route in (far6, far4, crossed):
        kernel.apply(AddRoute(route))
    assert kernel.read().routes == {far6, far4, crossed}


def test_refusals_say_what_and_why(kernel: LabKernel, host: NetNs) -> None:
    with pytest.raises(KernelError, match=r"unicast route to default via fe80::1 dev w9 .*ENODEV"):
        kernel.apply(AddRoute(replace(DEFAULT6, interface="w9")))
    kernel.apply(RemoveRoute(replace(DEFAULT6, interface="w9")))
    with pytest.raises(KernelError, match="EINVAL"):
        kernel.apply(AddRoute(replace(DEFAULT6, source=IPv6Address("2001:db8::dead"))))
    host.ip("link", "set", "w1", "down")
    with pytest.raises(KernelError, match=r"ENETDOWN: .*ip link set"):
        kernel.apply(AddRoute(replace(DEFAULT4, interface="w1")))


def test_the_ipv6_route_loses_its_source_with_the_address(kernel: LabKernel) -> None:
    kernel.apply(AddRoute(DEFAULT6))
    kernel.apply(RemoveAddress(Address(SOURCE6, 128, "lo")))
    assert kernel.read().routes == {replace(DEFAULT6, source=None)}


def test_the_main_table_is_read_whole_but_for_ours(kernel: LabKernel, host: NetNs) -> None:
    host.batch(
        "route add default via 192.0.2.1\n"
        "route add default via 2001:db8:1::1\n"
        "route add 10.2.0.0/16 via 192.0.2.1 metric 50 mtu 1400\n"
        "route add 10.3.0.0/16 nexthop via 192.0.2.1 dev w0 weight 3 nexthop dev w1\n"
        "route add 2001:db8:30::/48 nexthop via 2001:db8:1::1 nexthop via 2001:db8:1::2\n"
        "nexthop add id 7 via 192.0.2.1 dev w0\n"
        "route add 10.4.0.0/16 nhid 7\n"
        "route add 10.5.0.0/16 via inet6 fe80::1 dev w0\n"
        "route add 10.6.0.0/16 dev w0 tos 0x10\n"
        "route add unreachable 10.7.0.0/16\n"
        "route add 10.8.0.0/16 dev w1 proto 86\n"
        "route add throw 2001:db8:31::/48\n"
        "route add 2001:db8:32::/48 from 2001:db8:33::/48 dev w0\n"
        "route add 10.9.0.0/16 encap ip id 100 dst 192.0.2.9 dev w1\n"
    )
    routes = kernel.read().main_routes
    found = {str(route.destination): route for route in routes}
    assert found["192.0.2.0/24"].source == IPv4Address("192.0.2.10")
    assert found["10.2.0.0/16"].gateway == IPv4Address("192.0.2.1")
    assert found["10.2.0.0/16"].metric == 50
    assert found["10.2.0.0/16"].attributes, "the MTU"
    router = ip_address("192.0.2.1")
    assert found["10.3.0.0/16"].hops == (Hop("w0", router, weight=2), Hop("w1"))
    assert [str(hop.gateway) for hop in found["2001:db8:30::/48"].hops] == [
        *("2001:db8:1::1", "2001:db8:1::2")
    ]
    assert (found["10.4.0.0/16"].interface, found["10.4.0.0/16"].gateway) == ("w0", router)
    assert found["10.5.0.0/16"].gateway == IPv6Address("fe80::1")
    assert found["10.6.0.0/16"].tos == 0x10
    assert found["10.7.0.0/16"].kind is RouteKind.UNREACHABLE
    assert found["2001:db8:31::/48"].kind is RouteKind.THROW
    assert found["2001:db8:32::/48"].only_from == ip_network("2001:db8:33::/48")
    assert len(found["10.9.0.0/16"].attributes) == 2, "encapsulation and its kind"
    assert "10.8.0.0/16" not in found
    assert {r.family for r in routes if r.destination is None} == set(Family)
    local = {(str(r.destination), r.interface) for r in routes}
    assert {("2001:db8:1::/64", "w0"), ("fe80::/64", "w0"), ("fe80::/64", "w1")} <= local
    assert all(route.table == 254 for route in routes)


def test_every_main_route_can_be_mirrored(kernel: LabKernel, host: NetNs) -> None:
    host.batch(
        "route add 10.2.0.0/16 via 192.0.2.1 metric 50 mtu 1400 congctl reno\n"
        "route add 10.3.0.0/16 nexthop via 192.0.2.1 dev w0 weight 3 nexthop dev w1\n"
        "route add 10.4.0.0/16 encap ip id 100 dst 192.0.2.9 dev w1\n"
        "route add 10.5.0.0/16 nexthop encap ip id 1 dst 192.0.2.9 dev w1 nexthop dev w0\n"
        "route add 10.6.0.0/16 dev w0 tos 0x10\n"
        "route add 10.7.0.0/16 via inet6 fe80::1 dev w0\n"
        "route add 10.8.0.0/16 nexthop via inet6 fe80::1 dev w0 nexthop dev w1\n"
        "route add 2001:db8:30::/48 nexthop via 2001:db8:1::1 nexthop via 2001:db8:1::2 weight 9\n"
        "route add 2001:db8:31::/48 via 2001:db8:1::1 mtu lock 1300 pref high\n"
    )
    sources: dict[Family, IPAddress] = {Family.IPV4: SOURCE4, Family.IPV6: SOURCE6}
    copies = {
        replace(
            route,
            table=TABLE,
            source=None
            if route.destination and route.destination.is_link_local
            else sources[route.family],
        )
        for route in kernel.read().main_routes
    }
    assert len(copies) >= 13
    kernel.apply(*[AddRoute(route) for route in copies])
    assert kernel.read().routes == copies


def test_a_table_that_somebody_flushed_needs_no_removal(kernel: LabKernel, host: NetNs) -> None:
    kernel.apply(AddRoute(DEFAULT4))
    host.ip("route", "flush", "table", str(TABLE))
    kernel.apply(RemoveRoute(DEFAULT4))
    assert kernel.read().routes == frozenset()


#: By IP version: who nobody answers as, and where the packets go that wait for him.
SILENT = {4: "192.0.2.77", 6: "fe80::77"}
FAR = {4: "203.0.113.9", 6: "2001:db8:99::9"}
AF = {4: socket.AF_INET, 6: socket.AF_INET6}


def _led_to_nobody(kernel: LabKernel, host: NetNs, version: int) -> Route:
    """A default route by a gateway that does not answer, for its own source."""
    default = {4: DEFAULT4, 6: DEFAULT6}[version]
    route = replace(default, gateway=ip_address(SILENT[version]))
    kernel.apply(AddRoute(route))
    lookup = ("table", str(TABLE), "priority", "100")
    host.ip(f"-{version}", "rule", "add", "from", str(route.source), *lookup)
    return route


def _lose(gateway: NetNs, shown: Show) -> None:
    """The link loses its carrier."""
    gateway.ip("link", "set", "g0", "down")
    # The kernel deals with it a little later, and forgets all neighbours as it does.
    wait_until(lambda: shown("link", "show", "w0")[0]["operstate"] != "UP", "it is known")


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("lost", [True, False], ids=["lost", "there"])
def test_what_waits_for_a_gateway_is_given_up_with_a_route_by_a_link_that_is_lost(
    kernel: LabKernel, host: NetNs, gateway: NetNs, shown: Show, version: int, lost: bool
) -> None:
    """By a link that is there it goes on: the gateway may be found yet."""
    route = _led_to_nobody(kernel, host, version)
    if lost:
        _lose(gateway, shown)

    def send() -> None:
        with socket.socket(AF[version], socket.SOCK_DGRAM) as sock:
            sock.bind((str(route.source), 0))
            sock.sendto(b"waits", (FAR[version], 9))

    host.call(send)

    def waits() -> bool:
        entries = shown("neighbour", "show", "dev", "w0")
        return any(e["dst"] == SILENT[version] and "INCOMPLETE" in e["state"] for e in entries)

    assert waits()
    kernel.apply(RemoveRoute(route))
    assert waits() is not lost


@pytest.mark.parametrize("version", [4, 6])
def test_who_connects_is_not_told_that_his_packet_is_given_up(
    kernel: LabKernel, host: NetNs, gateway: NetNs, shown: Show, version: int
) -> None:
    """By an error his socket would fail, though his next try may go by another link."""
    route = _led_to_nobody(kernel, host, version)
    _lose(gateway, shown)

    def connecting() -> socket.socket:
        sock = socket.socket(AF[version])
        sock.setblocking(False)
        sock.bind((str(route.source), 0))
        sock.connect_ex((FAR[version], 9))
        return sock

    with host.call(connecting) as sock:
        kernel.apply(RemoveRoute(route))
        time.sleep(0.2)
        assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
