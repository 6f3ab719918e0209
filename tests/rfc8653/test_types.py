"""T5, S1: four types in both families, selected socket by socket."""

import socket
from itertools import count
from typing import Final

import pytest

from odm_agent.core.model import TYPES, AddressType
from tests.lab.cases import each_kind, each_type
from tests.lab.client import Exchange, Kind, ask, call, disconnect, exchange
from tests.lab.host import type_of
from tests.lab.world import BY_DEFAULT, PLAIN, World

_UNMAPPED: Final = [kind for kind in Kind if not kind.mapped]
_CONNECTING: Final = [kind for kind in Kind if kind.connects]
_IP_BIND_ADDRESS_NO_PORT: Final = 24
#: Each port once (TIME_WAIT keeps the last one busy), below those that the kernel hands out.
_PORTS: Final = count(20001)


@each_type()
@each_kind()
def test_T5_socket_gets_the_type_that_it_asks_for(
    world: World, kind: Kind, type: AddressType
) -> None:
    got = world.place("every").do(lambda: call(kind, type))
    _assert_witnessed(world, got, kind, type)


@each_type()
@each_kind()
def test_T5_D9_socket_gets_the_default_type_of_its_class(
    world: World, kind: Kind, type: AddressType
) -> None:
    got = world.place(BY_DEFAULT[type]).do(lambda: call(kind))
    _assert_witnessed(world, got, kind, type)


@pytest.mark.parametrize("fixed", [False, True], ids=["any-port", "port"])
@each_type()
@each_kind()
def test_T5_D9_default_type_serves_clients_that_bind_a_port_first(
    world: World, kind: Kind, type: AddressType, fixed: bool
) -> None:
    port = next(_PORTS) if fixed else 0
    got = world.place(BY_DEFAULT[type]).do(lambda: call(kind, bind=(kind.wildcard, port)))
    _assert_witnessed(world, got, kind, type)


@each_type()
@each_kind(*_UNMAPPED)
def test_T5_wildcard_bind_of_a_socket_with_a_type_becomes_an_address_of_it(
    world: World, kind: Kind, type: AddressType
) -> None:
    port = next(_PORTS)

    def client() -> tuple[str, Exchange]:
        with kind.open() as sock:
            ask(sock, type)
            sock.bind((kind.wildcard, port))
            name = sock.getsockname()
            assert name[1] == port
            return name[0], exchange(sock, kind)

    bound, got = world.place("every").do(client)
    assert type_of(bound) is type
    assert got.seen == bound


@each_type()
@each_kind(*_CONNECTING)
def test_T5_type_asked_for_after_a_wildcard_bind_still_counts(
    world: World, kind: Kind, type: AddressType
) -> None:
    port = next(_PORTS)

    def client() -> Exchange:
        with kind.open() as sock:
            sock.bind((kind.wildcard, port))
            ask(sock, type)
            return exchange(sock, kind)

    _assert_witnessed(world, world.place("every").do(client), kind, type)


@each_kind(Kind.TCP6, Kind.TCP4)
def test_T5_bind_without_a_port_of_its_own_leaves_the_choice_to_connect(
    world: World, kind: Kind
) -> None:
    def client() -> Exchange:
        with kind.open() as sock:
            sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((kind.wildcard, 0))
            return exchange(sock, kind)

    _assert_witnessed(world, world.place("fixed").do(client), kind, AddressType.FIXED)


@each_kind()
def test_S1_four_sockets_of_one_process_use_four_types_at_once(world: World, kind: Kind) -> None:
    def application() -> list[str]:
        sockets = [kind.open() for _ in range(5)]
        try:
            for sock, type in zip(sockets, TYPES, strict=False):
                ask(sock, type)
            # All of them are open, and connected, before the first is closed.
            return [exchange(sock, kind).seen for sock in sockets]
        finally:
            for sock in sockets:
                sock.close()

    seen = world.place("every").do(application)
    assert [type_of(each) for each in seen] == [*TYPES, AddressType.UNSPECIFIED]
    assert [caller.source for caller in world.peer.seen()] == seen


@each_kind(*_CONNECTING)
def test_S1_unclassified_sockets_use_ordinary_addresses(world: World, kind: Kind) -> None:
    got = world.place(PLAIN).do(lambda: call(kind))
    _assert_witnessed(world, got, kind, AddressType.UNSPECIFIED)


@pytest.mark.parametrize("default", [False, True], ids=["asked", "default"])
@each_kind(Kind.UDP6, Kind.UDP4, Kind.TCP6)
def test_T5_reconnecting_after_AF_UNSPEC_keeps_the_type(
    world: World, kind: Kind, default: bool
) -> None:
    def client() -> list[str]:
        with kind.open() as sock:
            if not default:
                ask(sock, AddressType.SESSION_LASTING)
            first = exchange(sock, kind).seen
            disconnect(sock)
            return [first, exchange(sock, kind).seen]

    for seen in world.place("session" if default else "every").do(client):
        assert type_of(seen) is AddressType.SESSION_LASTING


def test_T5_one_udp_socket_probes_both_families_as_resolvers_do(world: World) -> None:
    def client() -> list[str]:
        with Kind.UDP6.open() as sock:
            seen = [exchange(sock, Kind.UDP6).seen]
            disconnect(sock)
            return [*seen, exchange(sock, Kind.UDP_MAPPED).seen]

    six, four = world.place("session").do(client)
    assert ":" in six and "." in four
    assert {type_of(six), type_of(four)} == {AddressType.SESSION_LASTING}


def _assert_witnessed(world: World, got: Exchange, kind: Kind, type: AddressType) -> None:
    """The type is right as the *correspondent* recorded it, and the socket knows its address."""
    callers = world.peer.seen()
    assert [caller.source for caller in callers] == [got.seen]
    assert type_of(got.seen) is type
    if kind.connects:
        assert got.local == got.seen
