"""Which prefix serves a type where there are several: the socket's device, preference, order."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network

import pytest

from odm_agent.core.model import Family, Placement
from tests.lab.client import Kind, ask, call, exchange, outcome
from tests.lab.host import FIXED, LINKS, NONPERSISTENT, PREFIXES, LabPrefix
from tests.lab.world import STANDARD, World

#: A second fixed prefix, by the other gateway (part of what that one forwards and filters for).
SPARE = LabPrefix("spare6", FIXED, ip_network("2001:db8:b3:0:8000::/65"), Placement.DELEGATED, "B")
HALF = LabPrefix("brief6", NONPERSISTENT, ip_network("2001:db8:b3::/65"), Placement.DELEGATED, "B")
BOTH = (*(HALF if p.name == "brief6" else p for p in PREFIXES), SPARE)
HOME = PREFIXES[0]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two fixed IPv6 prefixes: `fixed6` by gateway A, configured first, and `spare6` by B."""
    with World(tmp_path_factory.mktemp("two"), replace(STANDARD, prefixes=BOTH)) as world:
        yield world


def _from_device(kind: Kind, device: str) -> str:
    with kind.open() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        ask(sock, FIXED)
        return exchange(sock, kind).seen


@pytest.mark.parametrize("kind", [Kind.TCP6, Kind.UDP6, Kind.SENDTO6])
@pytest.mark.parametrize(("device", "prefix"), [("w0", HOME), ("w1", SPARE)])
def test_socket_of_a_device_gets_an_address_of_that_uplink(
    two: World, kind: Kind, device: str, prefix: LabPrefix
) -> None:
    host = two.site.host
    via = str(LINKS["B", Family.IPV6][1])
    host.ip("-6", "route", "replace", "default", "via", via, "dev", "w1", "metric", "2048")
    assert two.place("every").do(lambda: _from_device(kind, device)) in prefix


def test_device_without_the_type_has_no_address_for_it(two: World) -> None:
    def attempt() -> str:
        with Kind.TCP4.open() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"w1")
            ask(sock, FIXED)
            return outcome(lambda: sock.connect(Kind.TCP4.destination))

    assert two.place("every").do(attempt) == "EADDRNOTAVAIL"


def test_order_decides_until_a_preference_does(two: World) -> None:
    assert two.place("fixed").do(lambda: call(Kind.TCP6)).seen in HOME
    settings = replace(two.agent.settings, extra={"spare6": {"preference": 10}})
    two.agent.configure(settings)
    assert two.agent.reload().returncode == 0
    assert two.place("fixed").do(lambda: call(Kind.TCP6)).seen in SPARE
    two.agent.configure(replace(settings, extra={}))
    assert two.agent.reload().returncode == 0
    assert two.place("fixed").do(lambda: call(Kind.TCP6)).seen in HOME
