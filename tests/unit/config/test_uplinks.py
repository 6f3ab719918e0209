"""Which uplinks can be told apart, what of them becomes a row, and what the host says of them."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from odm_agent.config.load import parse, review
from odm_agent.core.errors import ConfigError
from odm_agent.core.host import HostState, Link, LocalAddress
from odm_agent.core.model import AddressType, Family, Placement
from odm_agent.sources.static import typed_prefixes

PATH = Path("odm-agent.toml")


def uplinks(**interfaces: str) -> str:
    return "".join(
        f"[uplinks.{name}]\ninterface = {interface!r}\n" for name, interface in interfaces.items()
    )


def problems(text: str) -> list[str]:
    try:
        parse(text, PATH)
    except ConfigError as error:
        return str(error).splitlines()
    return []


@pytest.mark.parametrize("name", ["wl*", "enp[0-9]*", "wwan0", "w?0", "tun-*"])
def test_names_and_globs_are_taken(name: str) -> None:
    assert not problems(uplinks(wifi=name))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "cannot be an interface"),
        ("a/b", "cannot be an interface"),
        ("longer-than-fifteen", "cannot be an interface"),
        ("lo", "nothing leaves by lo"),
        ("*", "fits every interface"),
        ("w *", "fits no interface's name"),
        ("wl*/x", "fits no interface's name"),
        ("w" * 65 + "*", "fits no interface's name"),
    ],
)
def test_what_is_no_name_says_so_on_its_line(name: str, why: str) -> None:
    (found,) = problems(uplinks(wifi=name))
    assert found.startswith("odm-agent.toml:2: ") and why in found


@pytest.mark.parametrize("other", ["wl*", "wlan0", "wla?0"])
def test_an_interface_has_one_uplink(other: str) -> None:
    (found,) = problems(uplinks(wifi="wlan0" if other != "wlan0" else "wl*", more=other))
    assert "'wifi'" in found and "once" in found


def test_an_uplink_is_no_interface_of_an_on_link_prefix() -> None:
    lan = (
        '[prefixes.lan]\ntype = "fixed"\nprefix = "2001:db8:1::/64"\ninterface = "wlan0"\n'
        'placement = "on-link"\n'
    )
    (found,) = problems(lan + uplinks(wifi="wl*"))
    assert "'lan'" in found and "two types" in found


def test_a_class_gives_no_lifetime_to_what_others_manage() -> None:
    lifetime = (
        '[classes.web]\nallow = ["nonpersistent"]\n'
        '[classes.web.lifetimes.nonpersistent]\npreferred = "1h"\n'
    )
    (found,) = problems(uplinks(wifi="wl*") + lifetime)
    assert "wifi" in found and "whoever manages them" in found


def test_marks_must_do_for_both_ip_versions() -> None:
    names = {f"u{n}": f"eth{n}" for n in range(8)}
    (found,) = problems("[agent]\nmark_mask = 0xF0\n" + uplinks(**names))
    assert "there are 16" in found


def test_an_uplink_is_a_row_of_each_ip_version_with_one_mark() -> None:
    config = parse(uplinks(wifi="wl*") + 'type = "fixed"\npreference = 3\nexclusive = true\n', PATH)
    ids = {"wifi/ipv4": 4, "wifi/ipv6": 9}
    four, six = typed_prefixes(config, ids.__getitem__)
    assert (four.name, four.id, four.family) == ("wifi/ipv4", 4, Family.IPV4)
    assert (six.name, six.id, six.family) == ("wifi/ipv6", 9, Family.IPV6)
    assert four.mark_id == six.mark_id == 4
    for each in (four, six):
        assert each.placement is Placement.MANAGED and each.type is AddressType.FIXED
        assert each.exclusive and not each.shared and each.learned_gateway
        assert (each.pattern, each.preference, each.spans) == ("wl*", 3, ())


def host(*addresses: tuple[str, str]) -> HostState:
    return HostState(
        links={"eth0": Link("eth0", 2, up=True), "wlan0": Link("wlan0", 3, up=True)},
        addresses=tuple(
            LocalAddress(ip_address(a), 64, interface, ours=False, from_network=True)
            for a, interface in addresses
        ),
    )


def warned(text: str, state: HostState) -> list[str]:
    found = review(parse(text, PATH), state, text)
    assert not found.errors
    return [each.message for each in found.warnings]


def test_what_is_not_there_now_is_a_warning() -> None:
    (found,) = warned(uplinks(lte="ww*"), host())
    assert "no interface is called 'ww*'" in found
    assert warned(uplinks(wifi="wl*"), host()) == []


def test_the_only_uplink_is_not_to_be_exclusive() -> None:
    text = uplinks(wifi="wl*") + "exclusive = true\n"
    both = host(("2001:db8::1", "eth0"), ("2001:db8:1::1", "wlan0"), ("192.0.2.1", "wlan0"))
    (found,) = warned(text, both)
    assert "all IPv4 addresses" in found and "name servers" in found
    assert warned(uplinks(wifi="wl*"), both) == []


def test_a_class_of_a_type_that_an_uplink_has_is_served() -> None:
    text = uplinks(wifi="wl*") + '[classes.web]\nallow = ["nonpersistent"]\n'
    assert warned(text, host(("192.0.2.1", "eth0"))) == []


@pytest.mark.parametrize("code", [0, 3, 38, 252, 255])
def test_the_option_of_types_has_a_code_that_is_nobodys(code: int) -> None:
    (found,) = problems(f"{uplinks(wifi='wl0')}advertised_types = {code}\n")
    assert "253 or 254" in found


def test_an_uplink_whose_routers_name_types_has_a_row_for_each() -> None:
    config = parse(f"{uplinks(wifi='wl0')}advertised_types = 253\n", PATH)
    ids = iter(range(1, 100))
    rows = {each.name: each for each in typed_prefixes(config, lambda name: next(ids))}
    assert set(rows) == {
        *("wifi/ipv4", "wifi/ipv6", "wifi/fixed", "wifi/session-lasting"),
        "wifi/graceful-replacement",
    }
    assert rows["wifi/fixed"].type is AddressType.FIXED and rows["wifi/fixed"].hinted
    assert not rows["wifi/ipv6"].hinted
    assert len({each.mark_id for each in rows.values()}) == 4, "both IP versions have one mark"


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ('echo = ["example.org"]', "is no address"),
        ('echo = ["ff02::1"]', "is no other host's address"),
        ('echo = ["255.255.255.255"]', "is no other host's address"),
        ('echo = ["fe80::1%wlan0"]', "is no other host's address"),
        ('echo = ["2001:db8::1", "2001:db8::2"]', "a second IPv6 host"),
        ('echo = ["2001:db8::1"]\nexclusive = true', "for sockets of classes alone"),
        ('echo_interval = "2h"', "is out of range"),
        ('echo_interval = "5"', "it has no unit"),
    ],
)
def test_hosts_that_cant_be_asked_are_problems(keys: str, told: str) -> None:
    (found,) = problems(uplinks(wifi="wl*") + keys + "\n")
    assert told in found


def test_a_host_of_each_ip_version_can_be_asked_and_a_link_local_one() -> None:
    assert not problems(uplinks(wifi="wl*") + 'echo = ["192.0.2.1", "fe80::1"]\n')


def test_a_delegation_asks_by_ipv6() -> None:
    isp = '[delegations.isp]\ninterface = "eth0"\necho = ["{}"]\n'
    assert not problems(isp.format("2001:db8::1"))
    (found,) = problems(isp.format("192.0.2.1"))
    assert "IPv6 prefixes alone" in found
