"""S3, D5: what setsc() tells is what the socket is given, however a prefix shares its addresses."""

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import pytest

from odm_agent import client, waiting
from odm_agent.core.model import AddressType
from tests.lab.agent import LabClass, Settings
from tests.lab.client import Kind, ask, disconnect, exchange
from tests.lab.host import FIXED, GRACEFUL, NONPERSISTENT, SESSION, type_of
from tests.lab.world import STANDARD, World

_POOL: Final = 4
_SETTINGS: Final[Settings] = replace(
    STANDARD,
    classes={"asking": LabClass(allow=(FIXED, SESSION, NONPERSISTENT, GRACEFUL))},
    # Session-lasting addresses are of large pools, nonpersistent ones are the sockets' own.
    extra={
        "session6": {"pool": 1000},
        "session4": {"pool": 6},
        "brief6": {"sharing": "socket"},
        "brief4": {"sharing": "socket", "pool": _POOL},
        "graceful6": {"pool": 2},
        "graceful4": {"pool": 2},
    },
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Everything is configured: nobody has to wait, and the agent is not asked."""
    os.environ["ODM_WAIT_SOCKET"] = "/nonexistent"
    with World(tmp_path_factory.mktemp("sharing"), _SETTINGS) as made:
        yield made
    del os.environ["ODM_WAIT_SOCKET"]


def _told_and_seen(kind: Kind, type_: AddressType, bound: bool) -> tuple[str, str]:
    with kind.open() as sock:
        told = client.setsc(sock, type_, timeout_s=0.0)
        if bound:
            sock.bind((str(told), 0))
        return str(told), exchange(sock, kind).seen


@pytest.mark.parametrize("bound", [False, True], ids=["unbound", "bound"])
@pytest.mark.parametrize("type_", [SESSION, NONPERSISTENT, GRACEFUL], ids=lambda each: each.word)
@pytest.mark.parametrize(
    "kind", [Kind.TCP6, Kind.TCP4, Kind.UDP4, Kind.SENDTO6, Kind.SENDTO4], ids=lambda k: k.name
)
def test_S3_D5_the_address_that_is_told_is_the_one_that_is_used(
    world: World, kind: Kind, type_: AddressType, bound: bool
) -> None:
    def application() -> list[tuple[str, str]]:
        return [_told_and_seen(kind, type_, bound) for _ in range(8)]

    pairs = world.place("asking").do(application)
    assert all(told == seen for told, seen in pairs)
    assert {type_of(seen) for _, seen in pairs} == {type_}


def test_S3_D5_connected_udp_sockets_are_told_theirs_when_they_bind(world: World) -> None:
    """IPv6: the mark of a prefix gives its first address; bound to another one, that is used."""
    told, seen = world.place("asking").do(lambda: _told_and_seen(Kind.UDP6, SESSION, True))
    assert told == seen
    told, seen = world.place("asking").do(lambda: _told_and_seen(Kind.UDP6, NONPERSISTENT, False))
    assert told == seen


def test_S3_D5_no_two_sockets_are_told_one_address_where_each_has_its_own(world: World) -> None:
    def application() -> tuple[set[str], set[str]]:
        six = {_told_and_seen(Kind.TCP6, NONPERSISTENT, False)[0] for _ in range(50)}
        four = {_told_and_seen(Kind.TCP4, NONPERSISTENT, False)[0] for _ in range(_POOL)}
        return six, four

    six, four = world.place("asking").do(application)
    assert len(six) == 50 and len(four) == _POOL


def test_S3_a_socket_is_told_the_same_again_and_keeps_it_over_connections(world: World) -> None:
    def application() -> set[str]:
        with Kind.TCP6.open() as sock:
            ask(sock, SESSION)
            told = set[str]()
            for _ in range(5):
                found = waiting.prospect(sock, client.SOCKOPT)
                assert found is not None
                told |= {str(found.address), exchange(sock, Kind.TCP6).seen}
                disconnect(sock)
            return told

    assert len(world.place("asking").do(application)) == 1


@pytest.mark.parametrize("bound", [False, True], ids=["unbound", "bound"])
def test_S3_an_mptcp_socket_is_told_its_own_address_before_it_connects(
    world: World, bound: bool
) -> None:
    """Before it has a subflow, whose cookie counts where nobody was told anything."""

    def application() -> tuple[set[str], list[tuple[str, str]], bool]:
        pairs = [_told_and_seen(Kind.MPTCP6, NONPERSISTENT, bound) for _ in range(8)]
        with Kind.MPTCP6.open() as sock:
            ask(sock, NONPERSISTENT)
            seen = exchange(sock, Kind.MPTCP6).seen
            found = waiting.prospect(sock, client.SOCKOPT)
            untold = found is not None and str(found.address) == seen
            return {told for told, _ in pairs} | {seen}, pairs, untold

    addresses, pairs, untold = world.place("asking").do(application)
    assert all(told == seen for told, seen in pairs)
    assert len(addresses) == 9 and untold


def test_S3_an_address_whose_lifetime_is_over_is_not_told_again(world: World) -> None:
    """The next one is, and used; with the socket's own lifetime (L5)."""

    def application() -> tuple[str, str, str]:
        with Kind.SENDTO6.open() as sock:
            lifetime = client.Lifetime(bytes=1)
            first = client.setsc(sock, NONPERSISTENT, timeout_s=0.0, lifetime=lifetime)
            exchange(sock, Kind.SENDTO6)
            found = waiting.prospect(sock, client.SOCKOPT)
            assert found is not None
            return str(first), str(found.address), exchange(sock, Kind.SENDTO6).seen

    first, told, seen = world.place("asking").do(application)
    assert first != told and told == seen
