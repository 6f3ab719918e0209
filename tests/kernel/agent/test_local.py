"""Local traffic with typed addresses, where the host has an address that no agent has seen."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from odm_agent.core.model import Family
from tests.lab.cases import each_family, each_kind
from tests.lab.client import Kind, exchange, outcome
from tests.lab.host import FIXED
from tests.lab.netns import address
from tests.lab.world import PLAIN, World
from tests.rfc8653.test_servers import wildcard_server

_PORT: Final = 27001
_ADDED: Final = {Family.IPV6: "2001:db8:ad::1", Family.IPV4: "203.0.113.99"}


@dataclass(frozen=True)
class Behind:
    """A world whose agent was killed before somebody added addresses; its Fixed ones."""

    world: World
    fixed: dict[Family, str]

    def call(self, kind: Kind, place: str, source: str, destination: str) -> str:
        """What the server at `destination` takes its caller for."""

        def client() -> str:
            with kind.open() as sock:
                sock.bind((source, 0))
                return exchange(sock, kind, (destination, _PORT)).seen

        return self.world.place(place).do(client)


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    """One for all tests of this file."""
    with World(tmp_path_factory.mktemp("behind")) as world:
        fixed = {family: world.address(FIXED, family) for family in Family}
        world.agent.sigkill()
        for family, added in _ADDED.items():
            address(world.site.host, "w1", f"{added}/{32 if family is Family.IPV4 else 128}")
        yield Behind(world, fixed)


@each_kind(Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.UDP4)
def test_S6_address_that_no_agent_has_seen_is_the_host_s_own(behind: Behind, kind: Kind) -> None:
    """For programs of no class: it is called from a typed address, and calls one by IPv4.

    By IPv6 a 32-bit program could have bound its socket to anybody's address unseen.
    """
    fixed, added = behind.fixed[kind.family], _ADDED[kind.family]
    with behind.world.place("every").background(wildcard_server(kind, fixed)):
        assert behind.call(kind, "every", added, fixed) == added
        if kind.family is Family.IPV4:
            assert behind.call(kind, PLAIN, added, fixed) == added
    if kind is not Kind.UDP6:
        with behind.world.place(PLAIN).background(wildcard_server(kind, added)):
            assert behind.call(kind, "every", fixed, added) == fixed


@each_kind(Kind.TCP6, Kind.UDP6)
def test_limits_of_an_ipv6_address_that_no_agent_has_seen(behind: Behind, kind: Kind) -> None:
    """What the README says of it: calls to a typed address, and answers by UDP, are refused."""
    fixed, added = behind.fixed[kind.family], _ADDED[kind.family]
    refused = "timeout" if kind.stream else "EPERM"
    with behind.world.place("every").background(wildcard_server(kind, fixed)):
        assert outcome(lambda: behind.call(kind, PLAIN, added, fixed)) == refused
    with behind.world.place(PLAIN).background(wildcard_server(kind, added)):
        assert behind.call(kind, PLAIN, added, added) == added, "untyped to untyped is as ever"
        answered = outcome(lambda: behind.call(kind, "every", fixed, added))
        assert answered == ("ok" if kind.stream else "timeout")

    def elsewhere() -> None:
        with Kind.UDP6.open() as sock:
            sock.bind((added, 0))
            sock.sendto(b"x", Kind.UDP6.destination)

    assert behind.world.place(PLAIN).do(lambda: outcome(elsewhere)) == "ok"


@each_kind(Kind.TCP6, Kind.UDP6)
def test_limits_end_with_the_next_start_of_the_agent(tmp_path: Path, kind: Kind) -> None:
    with World(tmp_path) as world:
        here = Behind(world, {Family.IPV6: world.address(FIXED, Family.IPV6)})
        fixed, added = here.fixed[Family.IPV6], _ADDED[Family.IPV6]
        world.agent.sigkill()
        address(world.site.host, "w1", f"{added}/128")
        world.agent.start()
        with world.place("every").background(wildcard_server(kind, fixed)):
            assert here.call(kind, PLAIN, added, fixed) == added


@each_family
def test_A1_class_that_may_not_use_the_type_has_no_benefit_of_the_doubt(
    behind: Behind, family: Family
) -> None:
    """For all that the maps know, the answer to it would leave the host from the typed address."""
    kind = Kind.UDP6 if family is Family.IPV6 else Kind.UDP4

    def client() -> None:
        with kind.open() as sock:
            sock.bind((_ADDED[family], 0))
            sock.connect((behind.fixed[family], _PORT))
            sock.send(b"x")

    assert behind.world.place("nothing").do(lambda: outcome(client)) == "EPERM"
