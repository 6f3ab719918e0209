"""Marks: ours are put on and taken off again, somebody else's are never touched."""

import ctypes
import socket

import pytest

from odm_agent.core.model import AddressType, Family
from tests.lab.cases import each_kind
from tests.lab.client import Kind, ask, exchange
from tests.lab.host import FIXED, GRACEFUL, NONPERSISTENT, SESSION, type_of
from tests.lab.peer import plain
from tests.lab.world import World

_MASK = 0xFF000000
_NONE = AddressType.UNSPECIFIED
_BOUND_FIRST = [Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.UDP4]


def _mark(sock: socket.socket) -> int:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) & 0xFFFFFFFF


def test_mark_is_taken_off_for_loopback_and_put_on_again(world: World) -> None:
    """One socket for destinations of all kinds in turn, as resolvers use it."""

    def attempt() -> list[tuple[str, bool]]:
        seen = []
        with Kind.UDP6.open() as sock:
            ask(sock, SESSION)
            for to in (Kind.UDP6.destination, ("::1", 9), Kind.UDP6.destination, ("::1", 9)):
                sock.connect(to)
                seen.append((sock.getsockname()[0], bool(_mark(sock) & _MASK)))
                _disconnect(sock)
        return seen

    typed = world.address(SESSION, Family.IPV6)
    assert world.place("every").do(attempt) == [(typed, True), ("::1", False)] * 2


def test_one_ipv6_socket_reaches_both_families_in_turn(world: World) -> None:
    """Nothing is locked to the first family (bpf_bind would do that)."""

    def attempt() -> list[str]:
        seen = []
        with Kind.UDP_MAPPED.open() as sock:
            ask(sock, SESSION)
            for kind in (Kind.UDP6, Kind.UDP_MAPPED, Kind.UDP6):
                sock.connect(kind.destination)
                seen.append(plain(sock.getsockname()[0]))
                _disconnect(sock)
        return seen

    v6, v4 = (world.address(SESSION, family) for family in (Family.IPV6, Family.IPV4))
    assert world.place("every").do(attempt) == [v6, v4, v6]


@pytest.mark.parametrize("kind", [Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.UDP4])
def test_foreign_mark_stays_and_the_source_is_bound_instead(world: World, kind: Kind) -> None:
    def attempt() -> tuple[str, int]:
        with kind.open() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 7)
            ask(sock, FIXED)
            return exchange(sock, kind).seen, _mark(sock)

    assert world.place("every").do(attempt) == (world.address(FIXED, kind.family), 7)


@pytest.mark.parametrize("kind", _BOUND_FIRST)
def test_foreign_mark_on_a_socket_with_a_port_is_refused(world: World, kind: Kind) -> None:
    """Neither way is open: no untyped source in its place."""

    def attempt() -> tuple[int, int]:
        with kind.open() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 7)
            sock.bind((kind.wildcard, 0))
            ask(sock, FIXED)
            return sock.connect_ex(kind.destination), _mark(sock)

    assert world.place("every").do(attempt) == (99, 7)


@pytest.mark.parametrize("kind", [Kind.UDP6, Kind.UDP4])
def test_type_that_is_cleared_leaves_no_mark(world: World, kind: Kind) -> None:
    def attempt() -> tuple[str, int]:
        with kind.open() as sock:
            sock.bind((kind.wildcard, 0))
            ask(sock, FIXED)
            sock.connect(kind.destination)
            _disconnect(sock)
            ask(sock, AddressType.UNSPECIFIED)
            sock.connect(kind.destination)
            return sock.getsockname()[0], _mark(sock)

    untyped = world.address(AddressType.UNSPECIFIED, kind.family)
    assert world.place("every").do(attempt) == (untyped, 0)


@each_kind(Kind.UDP6, Kind.UDP4, Kind.UDP_MAPPED)
@pytest.mark.parametrize("port", [False, True], ids=["no-port", "port"])
def test_the_first_datagram_after_a_connection_is_of_the_type_that_was_asked_for_last(
    world: World, kind: Kind, port: bool
) -> None:
    """The kernel reads the mark of a datagram before any hook runs that could take it off."""

    def attempt() -> list[AddressType]:
        seen = []
        with kind.open() as sock:
            if port:
                sock.bind((kind.wildcard, 0))
            for first, then in ((FIXED, NONPERSISTENT), (GRACEFUL, SESSION), (FIXED, _NONE)):
                ask(sock, first)
                seen.append(type_of(exchange(sock, kind).seen))
                _disconnect(sock)
                ask(sock, then)
                sock.sendto(b"hello", kind.destination)
                seen.append(type_of(sock.recv(100).decode().split()[0]))
        return seen

    expected = [FIXED, NONPERSISTENT, GRACEFUL, SESSION, FIXED, _NONE]
    assert world.place("every").do(attempt) == expected


def _disconnect(sock: socket.socket) -> None:
    """connect(AF_UNSPEC), which Python's socket module has no way to say."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.connect(sock.fileno(), bytes(28), 28) == 0
