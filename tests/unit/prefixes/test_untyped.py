"""Which levers keep typed addresses out of default selection, by the host's address plan."""

from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network

import pytest

from odm_agent.core.host import AddressLabel, HostState, Link, LocalAddress, Route
from odm_agent.core.model import AddressType, Family, Placement, TypedPrefix
from odm_agent.prefixes.table import PrefixTable
from odm_agent.prefixes.untyped import Shield, shield

NET = IPv6Network("2001:db8:1::/64")
HOME = TypedPrefix(1, "home", AddressType.FIXED, NET, "eth0", None, Placement.DELEGATED, (NET,))
TABLE = PrefixTable(b"s").with_only([HOME])
TYPED = frozenset(IPv6Address(a) for a in TABLE.addresses_of(1))
LINKS = {name: Link(name, n, True) for n, name in enumerate(("lo", "eth0", "eth1"), 1)}
OWN = LocalAddress(IPv6Address("2001:db8:9::1"), 64, "eth0", ours=False)
DEPRECATED = replace(OWN, deprecated=True)
#: `ip addrlabel` of a host on which nobody has set any.
POLICY = tuple(
    AddressLabel(IPv6Network(network), label)
    for network, label in (
        *(("::1/128", 0), ("::/96", 3), ("::ffff:0:0/96", 4), ("2001::/32", 6)),
        *(("2001:10::/28", 7), ("3ffe::/16", 12), ("2002::/16", 2), ("fec0::/10", 11)),
        *(("fc00::/7", 5), ("::/0", 1)),
    )
)
ON_LO = replace(OWN, address=IPv6Address("2001:db8:e::1"), interface="lo")


def _default(interface: str) -> Route:
    return Route(254, Family.IPV6, None, interface=interface)


def _route(destination: str, interface: str = "eth0") -> Route:
    return Route(254, Family.IPV6, IPv6Network(destination), interface=interface)


def found(
    *held: LocalAddress,
    ways: tuple[str, ...] = ("eth0",),
    routes: tuple[Route, ...] = (),
    labels: tuple[AddressLabel, ...] = (),
) -> Shield:
    policy = sorted((*labels, *POLICY), key=lambda each: -each.network.prefixlen)
    host = HostState(
        links=LINKS,
        addresses=held,
        main_routes=(*map(_default, ways), *routes),
        label_policy=tuple(policy),
    )
    return shield(TABLE, host)


def test_nothing_is_touched_without_typed_ipv6_addresses() -> None:
    host = HostState(links=LINKS, addresses=(OWN,), main_routes=(_default("eth0"),))
    assert shield(PrefixTable(b"s"), host) == Shield()


def test_an_interface_with_the_best_address_offers_its_own_only() -> None:
    assert found(OWN).confined == {"eth0"}
    assert found(DEPRECATED).confined == {"eth0"}
    assert found(OWN, replace(OWN, interface="eth1")).confined == {"eth0", "eth1"}


def test_a_host_without_any_address_offers_the_interfaces_link_local_ones() -> None:
    assert found() == Shield(confined=frozenset({"eth0", "eth1"}))


@pytest.mark.parametrize(
    "other",
    [
        replace(OWN, ours=True),
        replace(OWN, ready=False),
        replace(OWN, address=IPv6Address("fe80::1")),
    ],
)
def test_what_is_ours_tentative_or_link_local_is_no_better(other: LocalAddress) -> None:
    assert found(other).confined == {"eth0", "eth1"}


def test_where_a_better_one_is_elsewhere_it_stays_in_reach_and_ours_match_nothing() -> None:
    assert found(ON_LO) == Shield(labelled=TYPED)
    assert found(DEPRECATED, ON_LO) == Shield(labelled=TYPED)
    assert found(replace(OWN, interface="eth1")) == Shield(frozenset({"eth1"}), TYPED)


@pytest.mark.parametrize(
    "other", [replace(ON_LO, deprecated=True), replace(ON_LO, address=IPv6Address("fd00::1"))]
)
def test_ours_are_deprecated_where_labels_would_not_help(other: LocalAddress) -> None:
    assert found(other).deprecated
    assert not found(other, ways=()).deprecated, "nothing leaves by an interface that lacks one"
    assert not found(DEPRECATED, other).deprecated or not other.deprecated


def _label(network: str, label: int = 99, interface: str | None = None) -> AddressLabel:
    return AddressLabel(IPv6Network(network), label, interface)


@pytest.mark.parametrize(
    ("label", "deprecated"),
    [
        (_label("2001:db8:e::1/128"), True),
        (_label("2001:db8::/32"), True),  # all other destinations have another one
        (_label("2001:db8:e::1/128", 1), False),
        (_label("2001:db8:e::1/128", interface="lo"), True),
        (_label("2001:db8:e::1/128", interface="eth1"), False),
        (_label("2600::/16"), True),
        (_label("2600::/16", 1), False),
        (_label("2600::/16", interface="eth0"), True),
        (_label("2600::/16", interface="eth1"), False),
        (_label("2001:db8:e:ff::/64"), False),  # the host's own is the longest match
        (_label("2001:db8:1:ff::/64"), True),
    ],
)
def test_labels_of_an_administrator_leave_it_to_the_longest_match(
    label: AddressLabel, deprecated: bool
) -> None:
    """His own address on `lo` is 2001:db8:e::1, ours are in 2001:db8:1::/64."""
    assert found(ON_LO, labels=(label,)).deprecated is deprecated


def test_labels_do_no_harm_where_an_address_matches_or_the_interface_has_one() -> None:
    label = _label("2001:db8:e::1/128")
    other = replace(ON_LO, address=IPv6Address("2001:db8:e::2"))
    assert not found(ON_LO, other, labels=(label,)).deprecated
    assert not found(ON_LO, OWN, labels=(label,)).deprecated


@pytest.mark.parametrize(
    ("route", "deprecated"),
    [
        (_route("fd00::/8", "eth0"), True),
        (_route("2002::/16", "eth0"), True),
        (_route("2000::/3", "eth0"), False),
    ],
)
def test_networks_that_the_kernel_labels_count_where_a_route_leads_there(
    route: Route, deprecated: bool
) -> None:
    assert found(ON_LO, ways=("eth0",), routes=(route,)).deprecated is deprecated
    assert not found(ON_LO, OWN, routes=(route,)).deprecated
    unique_local = replace(ON_LO, address=IPv6Address("fd00::1"))
    both = found(ON_LO, unique_local, ways=("eth0",), routes=(_route("fd00::/8", "eth0"),))
    assert not both.deprecated


def test_on_link_addresses_are_exposed_where_the_host_has_nothing_better() -> None:
    on_link = replace(HOME, placement=Placement.ON_LINK)
    table = PrefixTable(b"s").with_only([on_link])

    def exposed(*held: LocalAddress) -> frozenset[str]:
        host = HostState(links=LINKS, addresses=held, main_routes=(_default("eth0"),))
        return shield(table, host).exposed

    assert exposed() == {"eth0"}
    assert exposed(replace(ON_LO, deprecated=True)) == {"eth0"}
    assert exposed(DEPRECATED) == exposed(ON_LO) == frozenset()
