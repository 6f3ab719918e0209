"""A1, S6, N4: an exclusive uplink's addresses are for its classes alone, and the host lives on."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from odm_agent.core.model import Family
from tests.kernel.agent.conftest import eventually
from tests.lab.client import Kind, call, exchange, outcome
from tests.lab.host import LINKS, NONPERSISTENT
from tests.lab.netns import address
from tests.lab.uplinked import KINDS, WIFI, host, seen, states, uplinked, way
from tests.lab.world import PLAIN, World

_EXCLUSIVE: Final = {"wifi": {**WIFI, "exclusive": True}}
_DHCP_CLIENT, _DHCP_SERVER = 68, 67


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """w1 is exclusive, and main's best way."""
    with uplinked(tmp_path_factory.mktemp("exclusive"), _EXCLUSIVE) as made:
        for family in Family:
            gateway = str(LINKS["A", family][1])
            made.site.host.ip("route", "del", "default", "via", gateway, "dev", "w0")
            made.site.host.ip(
                "route", "add", "default", "via", gateway, "dev", "w0", "metric", "9000"
            )
        eventually(lambda: made.agent.read("status")["alarms"] == [], "it is in order")
        eventually(lambda: _is_led_past(made), "others are led past it")
        yield made


def _is_led_past(world: World) -> bool:
    return all("32765:" in world.site.host.ip(f"-{family}", "rule") for family in Family)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_n4_its_classes_get_its_addresses_and_all_others_go_by_the_other_uplink(
    world: World, kind: Kind
) -> None:
    with world.captures() as captures:
        captures.await_quiet()
        assert seen(world, "brief", kind) == host("B", kind.family)
        assert seen(world, "may", kind, NONPERSISTENT) == host("B", kind.family)
        assert seen(world, "open", kind) == host("B", kind.family)
        for place in (PLAIN, "may", "other"):
            assert seen(world, place, kind) == host("A", kind.family), place
        assert not captures.strays()


@pytest.mark.parametrize("kind", [Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.UDP4, Kind.SENDTO4])
def test_a1_nobody_else_sends_from_them(world: World, kind: Kind) -> None:
    bound = (host("B", kind.family), 0)
    for place in (PLAIN, "other"):
        refused = world.place(place).do(lambda: outcome(lambda: call(kind, bind=bound)))
        assert refused == "EACCES", place
    assert seen(world, "may", kind, bind=bound) == bound[0]


def test_s6_a_dhcp_client_renews_its_lease_from_an_exclusive_address(world: World) -> None:
    """Bound to the address, or to the wildcard; nobody else gets by that."""
    here, server = host("B", Family.IPV4), str(LINKS["B", Family.IPV4][1])

    def renew(source: str, port: int = _DHCP_CLIENT, to: int = _DHCP_SERVER) -> str:
        def send() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind((source, port))
                sock.sendto(b"renew", (server, to))

        return world.place(PLAIN).do(lambda: outcome(send))

    with world.captures() as captures:
        captures.await_quiet()
        assert renew(here) == "ok"
        assert renew("0.0.0.0") == "ok"
        packets = captures.at("B").packets()
        sent = [p for p in packets if p.port == _DHCP_SERVER]
        assert [str(p.source) for p in sent] == [here, here]
    assert renew(here, port=6868) == "EACCES"
    assert renew(here, to=53) != "ok"
    assert renew("0.0.0.0", port=6868) != "ok"


def test_s6_neighbours_find_the_host_at_an_exclusive_address(world: World) -> None:
    """Neighbour discovery, ARP and echo replies are the kernel's own."""
    for family in Family:
        world.site.b.ip("neigh", "flush", "dev", "to-host")
        world.site.b.run(["ping", f"-{family}", "-c", "1", "-W", "5", host("B", family)])


def test_a1_the_only_uplink_leaves_others_without_and_that_is_an_alarm(tmp_path: Path) -> None:
    """IPv4 has no other; what is not exclusive any more is everybody's again."""
    with uplinked(tmp_path, _EXCLUSIVE) as world:
        link = world.site.host
        link.ip("-4", "address", "flush", "dev", "w0")
        alarm = "IPv4 has no untyped address left: sockets of no class can't use it"
        eventually(lambda: world.agent.read("status")["alarms"] == [alarm], "it is an alarm")
        assert "exclusive" in world.agent.call("check", str(world.agent.config)).stdout
        refused = world.place(PLAIN).do(lambda: outcome(lambda: call(Kind.SENDTO4)))
        assert refused == "EPERM"
        assert seen(world, PLAIN, Kind.TCP6) == host("A", Family.IPV6)
        assert seen(world, "brief", Kind.TCP4) == host("B", Family.IPV4)
        network, near, far = LINKS["A", Family.IPV4]
        address(link, "w0", f"{far}/{network.prefixlen}")
        link.ip("route", "add", "default", "via", str(near), "dev", "w0")
        eventually(lambda: world.agent.read("status")["alarms"] == [], "the alarm is over")
        assert seen(world, PLAIN, Kind.TCP4) == host("A", Family.IPV4)
        world.agent.configure(
            type(world.agent.settings)(
                classes=world.agent.settings.classes, uplinks={"wifi": dict(WIFI)}
            )
        )
        assert world.agent.reload().returncode == 0
        bound = (host("B", Family.IPV4), 0)
        told = world.place(PLAIN).do(lambda: outcome(lambda: _bind(bound)))
        assert told == "ok" and "32765:" not in link.ip("rule")
        assert set(states(world).values()) == {"ready"}
        way(world, Family.IPV4)


def _bind(to: tuple[str, int]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(to)


def test_a1_a_connection_of_a_class_goes_on_as_its_uplink_becomes_exclusive(
    world: World,
) -> None:
    def twice() -> tuple[str, str]:
        with Kind.TCP4.open() as first, Kind.UDP6.open() as second:
            return exchange(first, Kind.TCP4).seen, exchange(second, Kind.UDP6).seen

    assert world.place("brief").do(twice) == (host("B", Family.IPV4), host("B", Family.IPV6))
