"""What tells that a connected UDP socket was given its source: its mark, and a note when that goes.

With it the socket goes on when its process has left the class, and without it is refused. The
witness is what the correspondent sees, and the errno.
"""

import ctypes as ct
import socket
from collections.abc import Callable
from typing import Final

import pytest

from odm_agent.core.model import AddressType, Family
from odm_agent.datapath import abi, libbpf
from tests.lab.cases import each_kind
from tests.lab.client import PORT, Kind, ask, disconnect, exchange, outcome, source_cmsg
from tests.lab.host import CORRESPONDENT_2, FIXED
from tests.lab.world import PLAIN, World

_DATAGRAMS: Final = (Kind.UDP6, Kind.UDP4, Kind.UDP_MAPPED)
_LOOPBACK: Final = {Family.IPV6: "::1", Family.IPV4: "127.0.0.1"}
_OWN: Final = AddressType.UNSPECIFIED


def _other(kind: Kind) -> tuple[str, int]:
    return kind.spell(CORRESPONDENT_2[kind.family]), PORT


def _mark(sock: socket.socket) -> int:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) & 0xFFFFFFFF


def _set_mark(sock: socket.socket, mark: int) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)


def _flags(world: World, sock: socket.socket) -> int | None:
    """The flags that are noted with a socket of the calling process; None: it has no storage."""
    pinned = libbpf.Map(
        libbpf.get_pinned(world.agent.pins / "odm_sockets"), ct.c_int, abi.Socket, "odm_sockets"
    )
    try:
        row = pinned.get(ct.c_int(sock.fileno()))
    finally:
        pinned.close()
    return None if row is None else int(row.flags)


@each_kind(Kind.UDP6, Kind.UDP4)
def test_nothing_is_kept_with_a_socket_that_was_given_its_source_by_a_mark(
    world: World, kind: Kind
) -> None:
    def application() -> tuple[str, int | None, int | None]:
        with kind.open() as sock:
            seen, before = exchange(sock, kind).seen, _flags(world, sock)
            sock.connect((kind.spell(_LOOPBACK[kind.family]), 9))
            return seen, before, _flags(world, sock)

    typed = world.address(FIXED, kind.family)
    assert world.place("fixed").do(application) == (typed, None, abi.SOCKET_GIVEN)


def _to_itself(world: World, sock: socket.socket, kind: Kind) -> None:
    """Connected to the host, for which the mark is taken off."""
    sock.connect((kind.spell(world.address(_OWN, kind.family)), 9))


def _again(world: World, sock: socket.socket, kind: Kind) -> None:
    sock.connect(_other(kind))


def _sends_elsewhere(world: World, sock: socket.socket, kind: Kind) -> None:
    sock.sendto(b"x", _other(kind))  # its answer is for nobody: the socket is connected


def _names_an_untyped_source(world: World, sock: socket.socket, kind: Kind) -> None:
    outcome(lambda: sock.sendmsg([b"x"], source_cmsg(world.address(_OWN, kind.family)), 0))


def _binds_in_vain(world: World, sock: socket.socket, kind: Kind) -> None:
    assert outcome(lambda: sock.bind((kind.wildcard, 27303))) == "EINVAL"


def _asks_for_a_type(world: World, sock: socket.socket, kind: Kind) -> None:
    ask(sock, FIXED)


def _sets_a_mark_of_its_own(world: World, sock: socket.socket, kind: Kind) -> None:
    _set_mark(sock, 7)


def _sets_the_same_mark(world: World, sock: socket.socket, kind: Kind) -> None:
    _set_mark(sock, _mark(sock))


def _takes_the_mark_off(world: World, sock: socket.socket, kind: Kind) -> None:
    _set_mark(sock, 0)


@each_kind(*_DATAGRAMS)
@pytest.mark.parametrize(
    "between",
    [
        _to_itself,
        _again,
        _sends_elsewhere,
        _names_an_untyped_source,
        _binds_in_vain,
        _asks_for_a_type,
        _sets_a_mark_of_its_own,
        _sets_the_same_mark,
        _takes_the_mark_off,
    ],
    ids=lambda each: each.__name__[1:],
)
def test_whatever_a_socket_does_meanwhile_it_goes_on_with_what_it_was_given(
    world: World, kind: Kind, between: Callable[[World, socket.socket, Kind], None]
) -> None:
    elsewhere = world.place(PLAIN).cgroup.procs

    def application() -> list[str]:
        with kind.open() as sock:
            seen = [exchange(sock, kind).seen]
            between(world, sock, kind)
            elsewhere.write_text("0")
            for to in (_other(kind), kind.destination):
                sock.connect(to)
                sock.send(b"x")
                seen.append(sock.recv(100).decode().split()[0])
            return seen

    assert world.place("fixed").do(application) == [world.address(FIXED, kind.family)] * 3


@each_kind(Kind.UDP6, Kind.UDP4)
def test_a_mark_that_the_user_has_set_is_no_evidence(world: World, kind: Kind) -> None:
    """A socket that is connected to the host itself has a typed source that nobody gave it."""
    own, elsewhere = world.address(FIXED, kind.family), world.place(PLAIN).cgroup.procs

    def application() -> tuple[str, str]:
        with kind.open() as other:
            exchange(other, kind)
            mark = _mark(other)
        elsewhere.write_text("0")
        with kind.open() as sock:
            sock.connect((own, 9))
            _set_mark(sock, mark)
            first = outcome(lambda: sock.connect(kind.destination))
            _set_mark(sock, mark)
            return first, outcome(lambda: sock.sendto(b"x", kind.destination))

    assert world.place("fixed").do(application) == ("EACCES", "EACCES")


@each_kind(Kind.UDP6, Kind.UDP4)
def test_a_datagram_socket_that_was_dissolved_and_bound_is_as_stock(
    world: World, kind: Kind
) -> None:
    """Its first datagram would have the mark, since the kernel reads that before the hook runs."""
    own, elsewhere = world.address(_OWN, kind.family), world.place(PLAIN).cgroup.procs

    def application() -> tuple[str, int]:
        with kind.open() as sock:
            exchange(sock, kind)
            disconnect(sock)
            elsewhere.write_text("0")
            sock.bind((own, 0))
            sock.sendto(b"x", kind.destination)
            return sock.recv(100).decode().split()[0], _mark(sock)

    assert world.place("fixed").do(application) == (own, 0)
