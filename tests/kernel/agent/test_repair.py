"""What vanishes under the agent is put right, or its row is withdrawn; never left dangling."""

from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from odm_agent.core.model import Family, Placement
from tests.kernel.agent.conftest import eventually
from tests.lab.client import Kind, call, outcome
from tests.lab.host import FIXED, GRACEFUL, LINKS, NONPERSISTENT, PREFIXES, LabPrefix
from tests.lab.netns import address, veth
from tests.lab.world import STANDARD, World


@pytest.mark.parametrize("family", Family)
def test_flushed_addresses_come_back(own: World, family: Family) -> None:
    kind = Kind.TCP6 if family is Family.IPV6 else Kind.TCP4
    typed = own.address(FIXED, family)
    own.site.host.ip(f"-{family.value}", "address", "flush", "dev", "lo", "scope", "global")
    eventually(lambda: typed in own.site.host.ip("address", "show", "dev", "lo"), "the address")
    eventually(lambda: own.agent.addresses(f"fixed{family.value}") == [typed], "its row")
    assert own.place("fixed").do(lambda: call(kind)).seen == typed


def test_flush_while_the_agent_is_dead_gives_no_untyped_source(own: World) -> None:
    typed = own.address(FIXED, Family.IPV6)
    own.agent.sigkill()
    own.site.host.ip("-6", "address", "flush", "dev", "lo", "scope", "global")
    with own.captures() as captures:
        for kind in (Kind.TCP6, Kind.UDP6, Kind.SENDTO6):
            own.place("fixed").do(lambda kind=kind: outcome(lambda: call(kind)))  # type: ignore[misc]
        untyped = LINKS["A", Family.IPV6][2]
        assert untyped not in captures.both()
    own.agent.start()
    assert own.place("fixed").do(lambda: call(Kind.TCP6)).seen == typed


def test_deleted_rules_and_routes_come_back(own: World) -> None:
    host = own.site.host
    before = sorted(host.ip("-6", "rule", "list").splitlines())
    table = next(p["table"] for p in own.agent.read("prefixes") if p["name"] == "brief6")
    routes = sorted(host.ip("-6", "route", "show", "table", str(table)).splitlines())
    for rule in ("from 2001:db8:b3::/64",):
        host.ip("-6", "rule", "delete", *rule.split())
    host.ip("-6", "route", "flush", "table", str(table))
    eventually(lambda: sorted(host.ip("-6", "rule", "list").splitlines()) == before, "the rules")
    eventually(
        lambda: sorted(host.ip("-6", "route", "show", "table", str(table)).splitlines()) == routes,
        "the routes",
    )
    typed = own.address(NONPERSISTENT, Family.IPV6)
    assert own.place("brief").do(lambda: call(Kind.TCP6)).seen == typed


def test_interface_that_vanishes_withdraws_its_rows_and_gives_them_back(own: World) -> None:
    own.site.host.ip("link", "delete", "w1")
    eventually(
        lambda: (
            {p["name"]: p["state"] for p in own.agent.read("prefixes")}["brief6"] == "withdrawn"
        ),
        "the prefix withdrawn",
    )
    for kind in (Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.SENDTO6, Kind.SENDTO4):
        got = own.place("every").do(lambda kind=kind: outcome(lambda: call(kind, NONPERSISTENT)))  # type: ignore[misc]
        assert got == "EADDRNOTAVAIL", kind
    veth(own.site.host, "w1", own.site.b, "to-host")
    for family in Family:
        network, near, far = LINKS["B", family]
        address(own.site.b, "to-host", f"{near}/{network.prefixlen}")
        address(own.site.host, "w1", f"{far}/{network.prefixlen}")
        via = str(LINKS["B", family][2])
        delegated = next(p for p in PREFIXES if (p.type, p.family) == (NONPERSISTENT, family))
        own.site.b.ip("route", "replace", str(delegated.network), "via", via)
    eventually(lambda: bool(own.agent.addresses("brief6")), "the address back")
    typed = own.address(NONPERSISTENT, Family.IPV6)
    assert own.place("brief").do(lambda: call(Kind.TCP6)).seen == typed


def test_link_without_carrier_makes_way_for_another_prefix_of_the_type(tmp_path: Path) -> None:
    spare = LabPrefix("spare6", FIXED, ip_network("2001:db8:b3:5::/64"), Placement.DELEGATED, "B")
    with World(tmp_path, replace(STANDARD, prefixes=(*PREFIXES, spare))) as world:
        world.site.b.ip("route", "add", str(spare.network), "via", str(LINKS["B", Family.IPV6][2]))

        def source() -> str:
            """What the kernel would use; nothing needs to be answered."""
            return world.place("fixed").do(lambda: call(Kind.TCP6, bind=("::", 0)).local)

        assert source() in PREFIXES[0]
        world.site.a.ip("link", "set", "to-host", "down")
        row = {p["name"]: p for p in world.agent.read("prefixes")}
        eventually(
            lambda: (
                "down" in {p["name"]: p["reason"] for p in world.agent.read("prefixes")}["fixed6"]
            ),
            "the link seen as down",
        )
        chosen = world.place("fixed").do(_named)
        assert chosen in spare, row


def _named() -> str:
    """The source of a UDP socket that was connected; no packet is sent."""
    with Kind.UDP6.open() as sock:
        sock.connect(Kind.UDP6.destination)
        return str(sock.getsockname()[0])


def test_address_that_another_host_uses_is_not_taken(tmp_path: Path) -> None:
    """RFC 5227: the first address of the range is the gateway's by mistake."""
    with World(tmp_path, start=False) as world:
        address(world.site.b, "to-host", "198.51.100.40/26")
        world.agent.start()
        assert world.agent.addresses("graceful4") == ["198.51.100.41"]
        states = {a["address"]: a["state"] for a in world.agent.read("addresses")}
        assert states["198.51.100.40"] == "failed"
        seen = world.place("graceful").do(lambda: call(Kind.TCP4)).seen
        assert seen == "198.51.100.41"


def test_duplicate_ipv6_address_is_replaced_by_another(own: World) -> None:
    """RFC 7217, section 6: the next one is made with the counter raised."""
    first = own.address(GRACEFUL, Family.IPV6)
    own.agent.stop()
    own.site.host.ip("address", "delete", f"{first}/128", "dev", "w1")
    address(own.site.b, "to-host", f"{first}/64")
    for setting in ("accept_dad", "dad_transmits"):
        own.site.host.sysctl(f"net/ipv6/conf/w1/{setting}", "1")
    own.agent.start()
    second = own.address(GRACEFUL, Family.IPV6)
    assert second != first
    assert own.place("graceful").do(lambda: call(Kind.TCP6)).seen == second
