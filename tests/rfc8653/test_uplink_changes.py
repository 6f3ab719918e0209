"""N2, N3: whatever others do to the interface of an uplink is followed, within a second."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from odm_agent.core.model import Family
from tests.kernel.agent.conftest import eventually
from tests.lab.client import Kind, call, exchange, outcome
from tests.lab.host import FIXED, LINKS, NONPERSISTENT
from tests.lab.netns import NetNs, address
from tests.lab.place import Ready
from tests.lab.uplinked import WIFI, host, seen, states, uplinked, way
from tests.lab.world import PLAIN, World

#: A change is followed within this time, and some for a machine that is busy.
_SOON_S: Final = 1.0 + 4.0
_NEW: Final = {Family.IPV4: "198.51.100.33", Family.IPV6: "2001:db8:b::33"}
_KINDS: Final = (Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.SENDTO4)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[World]:
    """w1 is an uplink of type nonpersistent."""
    with uplinked(tmp_path, {"wifi": WIFI}) as made:
        yield made


def _soon(true: Callable[[], bool], what: str) -> None:
    eventually(true, what, _SOON_S)


def _given(world: World, family: Family) -> list[str]:
    return world.agent.addresses(f"wifi/ipv{family}")


def _change(world: World, verb: str, which: str, family: Family) -> None:
    length = LINKS["B", family][0].prefixlen
    world.site.host.ip("address", verb, f"{which}/{length}", "dev", "w1")


def _try(world: World, place: str, kind: Kind) -> str:
    return world.place(place).do(lambda: outcome(lambda: call(kind)))


@pytest.mark.parametrize("family", Family, ids=lambda family: family.name)
def test_n3_an_address_that_is_added_replaced_and_removed_is_followed(
    own: World, family: Family
) -> None:
    kind = Kind.SENDTO6 if family is Family.IPV6 else Kind.TCP4
    old = host("B", family)
    _change(own, "add", _NEW[family], family)
    _soon(lambda: set(_given(own, family)) == {old, _NEW[family]}, "both addresses are typed")
    assert seen(own, "brief", kind) == old, "one that serves goes on"
    own.site.host.sysctl("net/ipv4/conf/w1/promote_secondaries", "1")
    _change(own, "del", old, family)
    _soon(lambda: _given(own, family) == [_NEW[family]], "the other one is left")
    way(own, family)  # IPv4 may have lost it with its address
    _soon(lambda: _try(own, "brief", kind) == "ok", "it serves again")
    with own.captures() as captures:
        captures.await_quiet()
        assert seen(own, "brief", kind) == _NEW[family]
        assert not captures.strays()
    _change(own, "del", _NEW[family], family)
    _soon(lambda: states(own)[f"wifi/ipv{family}"] == "withdrawn", "nothing is left")
    assert _try(own, "brief", kind) == "EADDRNOTAVAIL"
    assert seen(own, "open", kind) == seen(own, PLAIN, kind) == host("A", family)


@pytest.mark.parametrize("family", Family, ids=lambda family: family.name)
def test_n4_a_gateway_that_changes_is_followed(own: World, family: Family) -> None:
    """And one in another table serves where main has none, as some managers keep it."""
    kind = Kind.UDP6 if family is Family.IPV6 else Kind.SENDTO4
    old, new = str(LINKS["B", family][1]), str(LINKS["B", family][1] + 1)
    length = LINKS["B", family][0].prefixlen

    def gateway() -> str | None:
        rows = {each["name"]: each for each in own.agent.read("prefixes")}
        found: str | None = rows[f"wifi/ipv{family}"]["gateway"]
        return found

    assert gateway() == old
    address(own.site.b, "to-host", f"{new}/{length}")
    way(own, family, 4000, via=new)
    _soon(lambda: gateway() == new, "the better route's gateway")
    own.site.b.ip("address", "del", f"{old}/{length}", "dev", "to-host")
    if family is Family.IPV4:  # its other addresses are secondary ones, and went along
        address(own.site.b, "to-host", f"{new}/{length}")
    own.site.host.ip(f"-{family}", "neigh", "flush", "dev", "w1")
    _soon(lambda: _is_answered(own, kind), "the new gateway forwards")
    own.site.host.ip(f"-{family}", "route", "flush", "default", "dev", "w1")
    _soon(lambda: states(own)[f"wifi/ipv{family}"] == "withdrawn", "no gateway is left")
    assert _try(own, "brief", kind) == "EADDRNOTAVAIL"


def _is_answered(world: World, kind: Kind) -> bool:
    return _try(world, "brief", kind) == "ok"


def test_n3_an_interface_is_found_by_a_glob_and_under_its_new_name(tmp_path: Path) -> None:
    """Of several, the one with the best default route; of none, none."""
    with uplinked(tmp_path, {"wifi": {"interface": "w[1-9]*"}}) as world:
        assert seen(world, "brief", Kind.TCP6) == host("B", Family.IPV6)
        link = world.site.host
        link.ip("link", "set", "w1", "down")
        link.ip("link", "set", "w1", "name", "w77")
        link.ip("link", "set", "w77", "up")
        for family in Family:
            network, near, far = LINKS["B", family]
            address(link, "w77", f"{far}/{network.prefixlen}")
            link.ip("route", "add", "default", "via", str(near), "dev", "w77", "metric", "5000")
        _soon(lambda: set(states(world).values()) == {"ready"}, "it serves by its new name")
        assert {each["interface"] for each in world.agent.read("prefixes")} == {"w77"}
        for kind in _KINDS:
            assert seen(world, "brief", kind) == host("B", kind.family)
        link.ip("link", "set", "w77", "down")
        link.ip("link", "set", "w77", "name", "elsewhere")
        _soon(lambda: set(states(world).values()) == {"withdrawn"}, "no interface fits")
        reasons = {each["reason"] for each in world.agent.read("prefixes")}
        assert reasons == {"there is no interface w[1-9]*"}
        (alarm,) = world.agent.read("status")["alarms"]
        assert "w[1-9]*" in alarm and "wifi/ipv4, wifi/ipv6" in alarm


def _bare(world: World) -> None:
    link = world.site.host
    link.ip("address", "flush", "dev", "w1", "scope", "global")
    for family in Family:
        link.ip(f"-{family}", "route", "flush", "default", "dev", "w1")


def _of_a_cloud(world: World) -> None:
    """The host's address is a network of its own, and a route leads to the gateway."""
    _bare(world)
    for family in Family:
        _, near, far = LINKS["B", family]
        address(world.site.host, "w1", f"{far}/{far.max_prefixlen}")
        world.site.host.ip("route", "add", str(near), "dev", "w1")
        way(world, family)


def _by_a_gateway_said_to_be_there(world: World) -> None:
    """The same without that route (`onlink`)."""
    _bare(world)
    for family in Family:
        _, near, far = LINKS["B", family]
        address(world.site.host, "w1", f"{far}/{far.max_prefixlen}")
        world.site.host.ip(
            *("route", "add", "default", "via", str(near), "dev", "w1"),
            *("metric", "5000", "onlink"),
        )


def _without_prefix_routes(world: World) -> None:
    """As NetworkManager and dhcpcd make addresses, and the routes themselves."""
    _bare(world)
    for family in Family:
        network, _, far = LINKS["B", family]
        world.site.host.ip(
            *("address", "add", f"{far}/{network.prefixlen}", "dev", "w1", "noprefixroute"),
            *(("nodad",) if family is Family.IPV6 else ()),
        )
        world.site.host.ip("route", "add", str(network), "dev", "w1", "metric", "700")
        way(world, family)


def _away_and_back(world: World) -> None:
    """The interface is in another network namespace for a while, as a container has it."""
    link = world.site.host
    with NetNs("elsewhere") as elsewhere:
        link.ip("link", "set", "w1", "netns", elsewhere.name)
        _soon(lambda: set(states(world).values()) == {"withdrawn"}, "it is gone")
        for kind in _KINDS:
            assert _try(world, "brief", kind) == "EADDRNOTAVAIL"
        elsewhere.ip("link", "set", "w1", "netns", link.name)
    link.ip("link", "set", "w1", "up")
    for family in Family:
        network, _, far = LINKS["B", family]
        address(link, "w1", f"{far}/{network.prefixlen}")
        way(world, family)


@pytest.mark.parametrize(
    "change",
    [_of_a_cloud, _by_a_gateway_said_to_be_there, _without_prefix_routes, _away_and_back],
    ids=lambda change: change.__name__.strip("_"),
)
@pytest.mark.parametrize("exclusive", [False, True], ids=["shared", "exclusive"])
def test_n2_n4_however_an_address_and_its_gateway_are_there_they_serve(
    tmp_path: Path, exclusive: bool, change: Callable[[World], None]
) -> None:
    with uplinked(tmp_path, {"wifi": {**WIFI, "exclusive": exclusive}}) as world:
        change(world)
        for kind in _KINDS:
            _soon(lambda kind=kind: _is_answered(world, kind), f"{kind.name} is answered")  # type: ignore[misc]
        with world.captures() as captures:
            captures.await_quiet()
            for kind in _KINDS:
                assert seen(world, "brief", kind) == host("B", kind.family)
                assert seen(world, PLAIN, kind) == host("A", kind.family)
            assert not captures.strays()


@pytest.mark.parametrize("exclusive", [False, True], ids=["shared", "exclusive"])
def test_a1_n4_two_networks_that_give_the_host_the_same_address(
    tmp_path: Path, exclusive: bool
) -> None:
    """As two home routers do: it has one type, and nothing leaves from it by the other one."""
    private, router = "192.168.1.70", "192.168.1.1"
    uplinks = {
        "lan": {"interface": "w0", "type": FIXED.word},
        "wifi": {**WIFI, "exclusive": exclusive},
    }
    with uplinked(tmp_path, uplinks) as world:
        link = world.site.host
        for site, interface, metric in ((world.site.a, "w0", "100"), (world.site.b, "w1", "5000")):
            address(site, "to-host", f"{router}/24")
            link.ip("-4", "address", "flush", "dev", interface)
            address(link, interface, f"{private}/24")
            link.ip(
                *("-4", "route", "add", "default", "via", router, "dev", interface),
                *("metric", metric),
            )
        owner, other = ("wifi", "lan") if exclusive else ("lan", "wifi")
        _soon(lambda: world.agent.addresses(f"{owner}/ipv4") == [private], "one of them has it")
        _soon(lambda: states(world)[f"{other}/ipv4"] == "withdrawn", "the other has not")
        assert world.agent.addresses(f"{other}/ipv4") == []
        reasons = {each["name"]: each["reason"] for each in world.agent.read("prefixes")}
        assert "has no IPv4 address that no other uplink has" in reasons[f"{other}/ipv4"]
        place, letter = ("brief", "B") if exclusive else ("sealed", "A")
        with world.captures() as captures:
            captures.await_quiet()
            without = "sealed" if exclusive else "brief"
            for kind in (Kind.TCP4, Kind.SENDTO4):
                assert _try(world, place, kind) == "timeout"  # the site knows nothing of it
                assert _try(world, without, kind) == "EADDRNOTAVAIL"
                if exclusive:
                    assert _try(world, PLAIN, kind) in ("EPERM", "timeout")
            by = {
                each: [p for p in captures.at(each).packets() if str(p.source) == private]
                for each in "AB"
            }
        assert by.pop(letter) and by == {"B" if letter == "A" else "A": []}


@pytest.mark.parametrize("absent", ["down", "carrier"])
def test_d8_an_uplink_that_carries_nothing_is_as_good_as_none(own: World, absent: str) -> None:
    if absent == "down":
        own.site.host.ip("link", "set", "w1", "down")
    else:
        own.site.b.ip("link", "set", "to-host", "down")
    _soon(lambda: set(states(own).values()) == {"withdrawn"}, "it is withdrawn")
    for kind in _KINDS:
        assert _try(own, "brief", kind) == "EADDRNOTAVAIL"
        assert seen(own, "open", kind) == host("A", kind.family)
        assert seen(own, PLAIN, kind) == host("A", kind.family)


def test_d8_one_ip_version_alone_is_no_alarm(own: World) -> None:
    """Many a network has IPv4 only; sockets of the class that want IPv6 are told at once."""
    own.site.host.sysctl("net/ipv6/conf/w1/disable_ipv6", "1")
    _soon(lambda: states(own)["wifi/ipv6"] == "withdrawn", "IPv6 is gone")
    assert own.agent.read("status")["alarms"] == []
    assert _try(own, "brief", Kind.TCP6) == "EADDRNOTAVAIL"
    assert seen(own, "brief", Kind.SENDTO_MAPPED) == host("B", Family.IPV4)


def test_n3_temporary_addresses_serve_brief_types_and_are_followed_as_they_turn(
    own: World, tmp_path: Path
) -> None:
    """A router advertises (radvd), the host makes stable and temporary addresses (RFC 8981)."""
    link = own.site.host
    for name, value in {
        "accept_ra": "2",
        "autoconf": "1",
        "use_tempaddr": "2",
        "temp_prefered_lft": "12",
        "temp_valid_lft": "60",
        "max_desync_factor": "0",
        "regen_max_retry": "1",
    }.items():
        link.sysctl(f"net/ipv6/conf/w1/{name}", value)
    link.ip("-6", "address", "flush", "dev", "w1", "scope", "global")
    link.ip("-6", "route", "flush", "default", "dev", "w1")
    _soon(lambda: states(own)["wifi/ipv6"] == "withdrawn", "what was put there by hand is gone")
    with _radvd(own, tmp_path):
        eventually(lambda: len(_given(own, Family.IPV6)) >= 2, "stable and temporary", 30)
        eventually(lambda: states(own)["wifi/ipv6"] == "ready", "it serves", 10)
        first = seen(own, "brief", Kind.TCP6)
        assert first in _temporary(own)
        assert first == seen(own, "may", Kind.SENDTO6, NONPERSISTENT)
        eventually(lambda: seen(own, "brief", Kind.TCP6) != first, "the next one serves", 30)
        assert seen(own, "brief", Kind.SENDTO6) in _temporary(own)


def _temporary(world: World) -> set[str]:
    lines = world.site.host.ip("-o", "-6", "address", "show", "dev", "w1", "temporary").splitlines()
    return {line.split()[3].partition("/")[0] for line in lines}


@contextmanager
def _radvd(world: World, folder: Path) -> Iterator[None]:
    config = folder / "radvd.conf"
    config.write_text(
        "interface to-host { AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4;\n"
        "prefix 2001:db8:b::/64 { AdvOnLink on; AdvAutonomous on; AdvPreferredLifetime 100;"
        " AdvValidLifetime 200; }; };\n"
    )
    command = ["radvd", "-n", "-C", str(config), "-p", str(folder / "radvd.pid"), "-m", "stderr"]
    process = subprocess.Popen(world.site.b.command(command), stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


def test_n3_a_killed_agent_leaves_all_in_force_and_the_next_one_finds_what_changed(
    own: World,
) -> None:
    """Meanwhile the class goes on; what is added is untyped until then, and what goes is gone."""

    own.agent.sigkill()
    for kind in _KINDS:
        assert seen(own, "brief", kind) == host("B", kind.family)
        assert seen(own, PLAIN, kind) == host("A", kind.family)
    _change(own, "add", _NEW[Family.IPV6], Family.IPV6)
    _change(own, "del", host("B", Family.IPV6), Family.IPV6)
    with own.captures() as captures:
        captures.await_quiet()
        assert _try(own, "brief", Kind.TCP6) != "ok", "its table has no source any more"
        assert not captures.strays()
    assert seen(own, PLAIN, Kind.TCP6) == host("A", Family.IPV6)
    own.agent.start()
    assert seen(own, "brief", Kind.TCP6) == _NEW[Family.IPV6]


def test_n3_a_connection_outlives_a_new_address_and_a_new_gateway(own: World) -> None:
    def talk(ready: Ready) -> None:
        with Kind.TCP4.open() as sock:
            ready(exchange(sock, Kind.TCP4).seen)
            for _ in range(40):
                sock.send(b"x")
                ready(sock.recv(4096) and None)

    found: list[Any] = []
    with own.place("brief").conversation(talk) as conversation:
        found.append(conversation.hear())
        _change(own, "add", _NEW[Family.IPV4], Family.IPV4)
        way(own, Family.IPV4, 4000)
        _soon(lambda: len(_given(own, Family.IPV4)) == 2, "the new address is typed")
        conversation.hear()
    assert found == [host("B", Family.IPV4)]
