"""What an uplink of others has, as the host is now."""

from dataclasses import replace
from ipaddress import IPv6Network, ip_address, ip_network
from typing import Any

from odm_agent.core.host import HostState, Link, LocalAddress, Route
from odm_agent.core.model import ANY, AddressType, Family, Placement, TypedPrefix
from odm_agent.prefixes.managed import followed
from odm_agent.prefixes.selection import absence
from odm_agent.prefixes.table import PrefixTable, Row

SIX = TypedPrefix(
    *(1, "wifi/ipv6", AddressType.NONPERSISTENT, ANY[Family.IPV6], "wl*", None),
    *(Placement.MANAGED, ()),
    learned_gateway=True,
    pattern="wl*",
)
FOUR = replace(SIX, id=2, name="wifi/ipv4", network=ANY[Family.IPV4])
LINKS = {name: Link(name, n, up=True) for n, name in enumerate(("lo", "wl0", "wl1", "eth0"), 1)}


def local(address: str, interface: str = "wl0", **more: Any) -> LocalAddress:
    return LocalAddress(ip_address(address), 64, interface, ours=False, **more)


def default(interface: str, metric: int, family: Family = Family.IPV6) -> Route:
    gateway = ip_address("fe80::1" if family is Family.IPV6 else "192.0.2.1")
    return Route(254, family, None, interface=interface, gateway=gateway, metric=metric)


def found(*addresses: LocalAddress, prefix: TypedPrefix = SIX, **more: Any) -> Row:
    table = PrefixTable(b"secret").with_only([prefix])
    (row,) = followed(table, HostState(links=LINKS, addresses=addresses, **more))
    return row


def addresses(row: Row) -> list[str]:
    return [str(each) for each in row.addresses]


def test_all_that_is_global_is_typed_and_the_best_comes_first() -> None:
    row = found(
        *(local("fd00::1"), local("2001:db8::3", deprecated=True), local("fe80::5")),
        *(local("2001:db8::2"), local("2001:db8::9", secondary=True), local("::1", "lo")),
        *(local("2001:db8::7", "eth0"), local("2001:db8::8", failed=True), local("192.0.2.7")),
    )
    assert addresses(row) == ["2001:db8::9", "2001:db8::2", "fd00::1", "2001:db8::3"]
    assert row.prefix.interface == "wl0" and not row.prefix.spans


def test_types_that_last_prefer_a_stable_address() -> None:
    fixed = replace(SIX, type=AddressType.FIXED)
    row = found(local("2001:db8::1", secondary=True), local("2001:db8::9"), prefix=fixed)
    assert addresses(row) == ["2001:db8::9", "2001:db8::1"]


def test_of_ipv4_the_first_address_of_a_subnet_comes_first_private_or_not() -> None:
    row = found(local("10.0.0.2", secondary=True), local("192.168.1.5"), prefix=FOUR)
    assert addresses(row) == ["192.168.1.5", "10.0.0.2"]


def test_of_several_interfaces_the_one_with_the_best_default_route_serves() -> None:
    both = (local("2001:db8::1"), local("2001:db8:1::1", "wl1"))
    routes = (default("wl0", 600), default("wl1", 100))
    assert found(*both).prefix.interface == "wl0"
    assert found(*both, main_routes=routes).prefix.interface == "wl1"
    assert found(*both, main_routes=routes[:1]).prefix.interface == "wl0"
    assert found(both[1]).prefix.interface == "wl1"


def test_one_that_carries_nothing_comes_last() -> None:
    down = {**LINKS, "wl0": replace(LINKS["wl0"], up=False)}
    table = PrefixTable(b"secret").with_only([SIX])
    host = HostState(links=down, addresses=(local("2001:db8::1"),))
    (row,) = followed(table, host)
    assert row.prefix.interface == "wl1" and not row.addresses


def test_an_exclusive_one_types_its_addresses_as_networks() -> None:
    row = found(local("2001:db8::1"), prefix=replace(SIX, exclusive=True))
    assert row.prefix.spans == (ip_network("2001:db8::1/128"),)
    assert not found(prefix=replace(SIX, exclusive=True)).prefix.spans


def test_what_has_not_changed_is_the_same_table() -> None:
    host = HostState(links=LINKS, addresses=(local("2001:db8::1"), local("192.0.2.2")))
    once = followed(PrefixTable(b"secret").with_only([SIX, FOUR]), host)
    assert followed(once, host) is once
    again = once.with_only([SIX, FOUR])
    assert again.rows == once.rows, "a configuration that is read again forgets nothing"
    assert addresses(followed(once, HostState()).rows[0]) == []


def test_one_interface_serves_one_uplink() -> None:
    second = replace(SIX, id=3, name="more/ipv6", pattern="w*", order=1)
    table = PrefixTable(b"secret").with_only([SIX, second])
    one, other = followed(table, HostState(links=LINKS))
    assert {one.prefix.interface, other.prefix.interface} == {"wl0", "wl1"}


def test_what_lies_in_a_typed_prefix_has_that_ones_type() -> None:
    net = ip_network("2001:db8:7::/64")
    whole = TypedPrefix(
        *(7, "p7", AddressType.FIXED, net, "eth0", None, Placement.DELEGATED, (net,))
    )
    table = PrefixTable(b"secret").with_only([SIX, whole])
    host = HostState(links=LINKS, addresses=(local("2001:db8:7::7"), local("2001:db8::1")))
    row = followed(table, host).by_id(1)
    assert row and addresses(row) == ["2001:db8::1"]


FIXED_BY_HINT = replace(SIX, id=3, name="wifi/fixed", type=AddressType.FIXED, hinted=True)
HINTS = {"wl0": {IPv6Network("2001:db8:f::/64"): AddressType.FIXED}}


def test_an_address_has_the_type_that_routers_say_of_its_network() -> None:
    table = PrefixTable(b"secret").with_only([SIX, FIXED_BY_HINT])
    held = (local("2001:db8:1::5"), local("2001:db8:f::5"))
    rows = followed(table, HostState(links=LINKS, addresses=held, hints=HINTS))
    assert [addresses(row) for row in rows] == [["2001:db8:1::5"], ["2001:db8:f::5"]]
    rows = followed(rows, HostState(links=LINKS, addresses=held))
    assert [addresses(row) for row in rows] == [["2001:db8:1::5", "2001:db8:f::5"], []]


def test_a_hint_about_another_interface_or_of_the_uplinks_own_type_changes_nothing() -> None:
    held = local("2001:db8:f::5")
    for hints in (
        {"wl1": HINTS["wl0"]},
        {"wl0": {IPv6Network("2001:db8:f::/64"): AddressType.NONPERSISTENT}},
    ):
        assert addresses(found(held, hints=hints)) == ["2001:db8:f::5"]


def test_of_networks_within_each_other_the_narrowest_says_the_type() -> None:
    held = local("2001:db8:f::5")
    hints = {
        "wl0": {
            IPv6Network("2001:db8::/32"): AddressType.SESSION_LASTING,
            IPv6Network("2001:db8:f::/64"): AddressType.FIXED,
        }
    }
    assert not addresses(found(held, hints=hints))
    assert addresses(found(held, prefix=FIXED_BY_HINT, hints=hints)) == ["2001:db8:f::5"]


def test_an_address_of_two_uplinks_is_of_one_type_alone() -> None:
    """That of an exclusive one, else that of the one which carries packets, else the first's."""
    four = replace(FOUR, pattern="wl0")
    lan = replace(FOUR, id=3, name="lan", type=AddressType.FIXED, pattern="eth0", order=1)
    both = (local("192.168.1.7"), local("192.168.1.7", "eth0"), local("192.168.1.8", "eth0"))
    down = {**LINKS, "wl0": replace(LINKS["wl0"], up=False)}
    for wifi, links, has in (
        (four, LINKS, (["192.168.1.7"], ["192.168.1.8"])),
        (four, down, ([], ["192.168.1.7", "192.168.1.8"])),
        (replace(four, exclusive=True), down, (["192.168.1.7"], ["192.168.1.8"])),
    ):
        host = HostState(links=links, addresses=both)
        table = followed(PrefixTable(b"secret").with_only([wifi, lan]), host)
        assert tuple(addresses(row) for row in table) == has
        assert followed(table, host) is table
    table = PrefixTable(b"secret").with_only([FOUR, replace(lan, exclusive=True)])
    wifi_row, lan_row = followed(table, HostState(links=LINKS, addresses=both))
    assert not wifi_row.addresses and len(lan_row.prefix.spans) == 2
    why = absence(wifi_row, HostState(links=LINKS, addresses=both))
    assert why == "wl0 has no IPv4 address that no other uplink has"


def _announced(address: str, born: int, renewed: int, **more: Any) -> LocalAddress:
    return local(address, from_network=True, born=born, renewed=renewed, **more)


#: The router has announced another prefix since it last announced the first.
_RENUMBERED = (
    _announced("2001:db8:1::5", 1_000, 5_000),
    _announced("2001:db8:1::9", 4_000, 5_000, secondary=True),
    _announced("2001:db8:2::5", 5_500, 5_500),
)


def test_what_its_router_has_forgotten_serves_no_more() -> None:
    row = found(*_RENUMBERED, main_routes=(default("wl0", 600),))
    assert {str(each) for each in row.forgotten} == {"2001:db8:1::5", "2001:db8:1::9"}
    assert [str(each) for each in row.addresses if row.serves(each)] == ["2001:db8:2::5"]


def test_nothing_is_said_of_a_link_with_several_routers() -> None:
    other = replace(default("wl0", 700), gateway=ip_address("fe80::2"))
    assert not found(*_RENUMBERED, main_routes=(default("wl0", 600), other)).forgotten
    assert not found(*_RENUMBERED).forgotten, "nor of one without"


def test_what_was_written_down_here_or_leased_is_not_forgotten() -> None:
    routes = (default("wl0", 600),)
    written = replace(_RENUMBERED[0], from_network=False)
    leased = replace(_RENUMBERED[1], prefix_length=128)
    assert not found(written, leased, _RENUMBERED[2], main_routes=routes).forgotten


def test_where_all_is_forgotten_the_row_is_absent_and_says_why() -> None:
    hinted = {"wl0": {IPv6Network("2001:db8:1::/64"): AddressType.FIXED}}
    table = PrefixTable(b"secret").with_only([SIX, FIXED_BY_HINT])
    host = HostState(
        links=LINKS, addresses=_RENUMBERED, hints=hinted, main_routes=(default("wl0", 600),)
    )
    plain, fixed = followed(table, host)
    assert absence(plain, host) is None
    assert absence(fixed, host) == "the router of wl0 announces the prefix of its addresses no more"
