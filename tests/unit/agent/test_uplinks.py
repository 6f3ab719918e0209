"""When untyped connects need to be spared the look at typed addresses."""

from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network

import pytest

from odm_agent.agent.uplinks import wanted
from odm_agent.host import HostState, LocalAddress
from odm_agent.model import AddressType, Placement, TypedPrefix
from odm_agent.prefixes.table import PrefixTable

NET = IPv6Network("2001:db8:1::/64")
HOME = TypedPrefix(1, "home", AddressType.FIXED, NET, "eth0", None, Placement.DELEGATED, (NET,))
OWN = LocalAddress(IPv6Address("2001:db8:9::1"), 64, "eth0", ours=False)


def table(*pools: int) -> PrefixTable:
    return PrefixTable(b"s").with_only(
        replace(HOME, id=n, network=net, spans=(net,), pool=pool)
        for n, pool in enumerate(pools, 1)
        for net in (IPv6Network(f"2001:db8:{n}::/64"),)
    )


def test_few_addresses_leave_the_setting_alone() -> None:
    assert wanted(table(16), HostState(addresses=(OWN,))) == set()


@pytest.mark.parametrize("pools", [(16, 1), (9, 9), (1000, 1)])
def test_many_addresses_want_it_on_their_uplink(pools: tuple[int, ...]) -> None:
    assert wanted(table(*pools), HostState(addresses=(OWN,))) == {"eth0"}


@pytest.mark.parametrize(
    "held",
    [
        (),
        (replace(OWN, interface="eth1"),),
        (replace(OWN, ours=True),),
        (replace(OWN, deprecated=True),),
        (replace(OWN, address=IPv6Address("fe80::1")),),
    ],
)
def test_uplink_without_an_untyped_address_keeps_its_choice(held: tuple[LocalAddress]) -> None:
    assert wanted(table(16, 16), HostState(addresses=held)) == set()
