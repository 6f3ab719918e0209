"""Which levers keep typed addresses out of default selection, by the host's address plan."""

from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network

import pytest

from odm_agent.core.host import HostState, Link, LocalAddress, Route
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
ON_LO = replace(OWN, address=IPv6Address("2001:db8:e::1"), interface="lo")


def _default(interface: str) -> Route:
    return Route(254, Family.IPV6, None, interface=interface)


def found(*held: LocalAddress, ways: tuple[str, ...] = ("eth0",)) -> Shield:
    return shield(
        TABLE, HostState(links=LINKS, addresses=held, main_routes=tuple(map(_default, ways)))
    )


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


def test_on_link_addresses_are_exposed_where_the_host_has_nothing_better() -> None:
    on_link = replace(HOME, placement=Placement.ON_LINK)
    table = PrefixTable(b"s").with_only([on_link])

    def exposed(*held: LocalAddress) -> frozenset[str]:
        host = HostState(links=LINKS, addresses=held, main_routes=(_default("eth0"),))
        return shield(table, host).exposed

    assert exposed() == {"eth0"}
    assert exposed(replace(ON_LO, deprecated=True)) == {"eth0"}
    assert exposed(DEPRECATED) == exposed(ON_LO) == frozenset()
