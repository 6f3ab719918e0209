"""Which addresses of managed uplinks are over, by type, and what only may come back."""

from dataclasses import replace
from ipaddress import ip_address
from typing import Any, Final

import pytest

from odm_agent.core.host import HostState, Link, LocalAddress
from odm_agent.core.model import ANY, AddressType, Family, Placement, TypedPrefix
from odm_agent.prefixes.left import Served, Serving, left
from odm_agent.prefixes.managed import followed
from odm_agent.prefixes.table import PrefixTable

BRIEF: Final = TypedPrefix(
    *(1, "wifi/ipv6", AddressType.NONPERSISTENT, ANY[Family.IPV6], "wl*", None),
    *(Placement.MANAGED, ()),
    learned_gateway=True,
    pattern="wl*",
)
GRACEFUL: Final = replace(BRIEF, type=AddressType.GRACEFUL_REPLACEMENT)
LINKS: Final = {name: Link(name, n, up=True) for n, name in enumerate(("wl0", "wl1"), 2)}
OLD, NEW = ip_address("2001:db8:1::5"), ip_address("2001:db8:2::5")


def local(address: Any, interface: str = "wl0", **more: Any) -> LocalAddress:
    return LocalAddress(address, 64, interface, ours=False, **more)


def looked(
    before: Serving, *addresses: LocalAddress, prefix: TypedPrefix = BRIEF, **links: Any
) -> tuple[Serving, list[str]]:
    host = HostState(links={**LINKS, **links}, addresses=addresses)
    table = followed(PrefixTable(b"secret").with_only([prefix]), host)
    serving, over = left(before, table, host)
    return serving, [str(each) for each in over]


def test_what_serves_is_known_and_over_when_its_manager_has_removed_it() -> None:
    serving, over = looked({}, local(OLD))
    assert (serving, over) == ({OLD: Served(1, "wl0")}, [])
    serving, over = looked(serving, local(NEW))
    assert (serving, over) == ({NEW: Served(1, "wl0")}, [str(OLD)])
    assert looked(serving, local(NEW)) == (serving, [])


@pytest.mark.parametrize("type_", [AddressType.FIXED, AddressType.SESSION_LASTING])
def test_types_that_stay_are_never_over(type_: AddressType) -> None:
    prefix = replace(BRIEF, type=type_)
    serving, _ = looked({}, local(OLD), prefix=prefix)
    assert looked(serving, local(NEW), prefix=prefix)[1] == []


def test_another_interface_that_serves_ends_what_the_one_before_has() -> None:
    serving, _ = looked({}, local(OLD))
    down = replace(LINKS["wl1"], up=False)
    serving, _ = looked({}, local(OLD), local(NEW, "wl1"), wl1=down)
    assert serving == {OLD: Served(1, "wl0")}
    gone: dict[str, Any] = {"wl0": replace(LINKS["wl0"], index=9)}  # the older one serves
    assert looked(serving, local(OLD), local(NEW, "wl1"), **gone)[1] == [str(OLD)]


def test_a_carrier_that_is_lost_ends_nothing_before_its_manager_does() -> None:
    down: dict[str, Any] = {"wl0": replace(LINKS["wl0"], up=False)}
    both = local(OLD), local(NEW, "wl1")
    serving, _ = looked({}, *both)
    serving, over = looked(serving, *both, **down)
    assert over == [] and serving == {OLD: Served(1, "wl0"), NEW: Served(1, "wl1")}
    assert looked(serving, *both)[1] == [str(NEW)], "it is back, and the other one was chosen anew"
    assert looked(serving, both[1], **down)[1] == [str(OLD)]


def test_a_graceful_one_goes_on_beside_its_successor_until_it_is_removed() -> None:
    serving, _ = looked({}, local(OLD), prefix=GRACEFUL)
    both = local(OLD, deprecated=True), local(NEW)
    serving, over = looked(serving, *both, prefix=GRACEFUL)
    assert over == []
    assert looked(serving, both[1], prefix=GRACEFUL)[1] == [str(OLD)]
    elsewhere: dict[str, Any] = {"wl0": replace(LINKS["wl0"], index=9)}
    both = local(OLD), local(NEW, "wl1")
    serving, over = looked(serving, *both, prefix=GRACEFUL, **elsewhere)
    assert over == []
    assert looked(serving, both[1], prefix=GRACEFUL, **elsewhere)[1] == [str(OLD)]


def test_an_uplink_that_is_configured_no_more_ends_nothing() -> None:
    serving, _ = looked({}, local(OLD))
    assert left(serving, PrefixTable(b"secret"), HostState(links=LINKS)) == ({}, [])


def test_an_address_that_another_uplink_has_now_goes_on() -> None:
    serving, _ = looked({}, local(OLD))
    second = replace(BRIEF, id=3, name="more/ipv6", pattern="wl1", order=1)
    host = HostState(links=LINKS, addresses=(local(OLD, "wl1"),))
    table = followed(PrefixTable(b"s").with_only([replace(BRIEF, pattern="wl0"), second]), host)
    assert left(serving, table, host) == ({OLD: Served(3, "wl1")}, [])
