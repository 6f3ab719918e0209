"""MPTCP sockets leave nothing behind, however they end, with nobody there to put counts right."""

import errno
import mmap
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Final

import pytest

from odm_agent.core.model import TYPES
from tests.lab.agent import LabClass
from tests.lab.cases import each_kind
from tests.lab.client import Kind, ask, disconnect, exchange, outcome
from tests.lab.counts import settles_at, total
from tests.lab.host import CORRESPONDENT, FIXED, NONPERSISTENT, type_of
from tests.lab.place import Ready
from tests.lab.process import in_step
from tests.lab.world import STANDARD, World

_CAP: Final = 4
_SETTINGS: Final = replace(
    STANDARD,
    classes={"capped": LabClass(allow=TYPES, default=FIXED, caps={FIXED: {"sockets": _CAP}})},
)
_RESET: Final = struct.pack("ii", 1, 0)
_REFUSING: Final = 26502
_BOTH: Final = (Kind.MPTCP6, Kind.MPTCP4)
Life = Callable[[socket.socket, Kind], None]


@pytest.fixture(scope="module")
def unattended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world whose agent is dead: only the pinned programs count."""
    with World(tmp_path_factory.mktemp("mptcp"), _SETTINGS) as made:
        made.agent.sigkill()
        yield made


def _connect(sock: socket.socket, kind: Kind) -> None:
    sock.connect(kind.destination)


def _refused(sock: socket.socket, kind: Kind) -> None:
    with suppress(OSError):
        sock.connect((CORRESPONDENT[kind.family], _REFUSING))


def _bind(sock: socket.socket, kind: Kind) -> None:
    ask(sock, FIXED)
    sock.bind((kind.wildcard, 0))


def _listen(sock: socket.socket, kind: Kind) -> None:
    _bind(sock, kind)
    sock.listen(1)


def _refused_then_listen(sock: socket.socket, kind: Kind) -> None:
    _refused(sock, kind)
    with suppress(OSError):
        sock.listen(1)


def _connect_twice(sock: socket.socket, kind: Kind) -> None:
    _connect(sock, kind)
    disconnect(sock)
    _connect(sock, kind)


def _connect_then_bind(sock: socket.socket, kind: Kind) -> None:
    _connect(sock, kind)
    disconnect(sock)
    _bind(sock, kind)


def _reset(sock: socket.socket, kind: Kind) -> None:
    _connect(sock, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def _at_once(sock: socket.socket, kind: Kind) -> None:
    sock.setblocking(False)
    with suppress(BlockingIOError):
        _connect(sock, kind)


def _no_route(sock: socket.socket, kind: Kind) -> None:
    """The hook gives an address and takes a place; then the connect fails before it begins."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
    with suppress(OSError):
        _connect(sock, kind)


_LIVES: Final = (
    _connect,
    _refused,
    _bind,
    _listen,
    _refused_then_listen,
    _connect_twice,
    _connect_then_bind,
    _reset,
    _at_once,
    _no_route,
)


@pytest.mark.parametrize("life", _LIVES, ids=lambda life: life.__name__.strip("_"))
@each_kind(*_BOTH)
def test_nothing_is_left_when_it_is_closed(unattended: World, kind: Kind, life: Life) -> None:
    def application() -> None:
        for _ in range(3 * _CAP):
            with kind.open() as sock, suppress(OSError):
                life(sock, kind)

    unattended.place("capped").do(application)
    settles_at(unattended.agent, 0, timeout_s=10)


@each_kind(*_BOTH)
def test_one_socket_is_one_place_whatever_it_does(unattended: World, kind: Kind) -> None:
    """The MPTCP socket keeps the place for its subflow, which takes it over: never two."""

    def application(ready: Ready) -> None:
        with kind.open() as sock:
            _bind(sock, kind)
            ready(None)
            _connect(sock, kind)
            ready(None)
            disconnect(sock)
            _connect(sock, kind)
            ready(None)
            sock.recv(4096)
            while True:
                sock.recv(4096)

    with unattended.place("capped").conversation(application) as talk:
        for _ in range(3):
            talk.hear()
            assert total(unattended.agent) == 1
    settles_at(unattended.agent, 0, timeout_s=10)


@each_kind(*_BOTH)
def test_A2_the_cap_holds_when_all_come_at_once(unattended: World, kind: Kind) -> None:
    """Two processes in step, each with as many sockets as there are places."""

    def application() -> list[int]:
        connected = memoryview(mmap.mmap(-1, 16)).cast("Q")
        found = []
        with in_step() as wait:
            first = os.getpid() == me
            for _ in range(20):
                sockets = [kind.open() for _ in range(_CAP)]
                wait()
                told = [outcome(lambda sock=sock: _connect(sock, kind)) for sock in sockets]  # type: ignore[misc]
                connected[int(first)] = told.count("ok")
                wait()
                found.append(connected[0] + connected[1])
                for sock in sockets:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    sock.close()
                wait()
        return found

    me = 0

    def with_pid() -> list[int]:
        nonlocal me
        me = os.getpid()
        return application()

    found = unattended.place("capped").do(with_pid, timeout_s=60)
    assert found == [_CAP] * 20
    settles_at(unattended.agent, 0, timeout_s=10)


@each_kind(*_BOTH)
def test_A2_binding_and_listening_over_the_cap_is_EDQUOT(unattended: World, kind: Kind) -> None:
    def application() -> list[str]:
        sockets = [kind.open() for _ in range(_CAP + 2)]
        return [outcome(lambda sock=sock: _listen(sock, kind)) for sock in sockets]  # type: ignore[misc]

    told = unattended.place("capped").do(application)
    assert told == ["ok"] * _CAP + [errno.errorcode[errno.EDQUOT]] * 2


@each_kind(Kind.TCP6, Kind.TCP4)
def test_A2_an_address_bound_without_a_port_does_not_pass_the_cap(
    unattended: World, kind: Kind
) -> None:
    """IP_BIND_ADDRESS_NO_PORT: no hook runs between bind and listen."""

    def application() -> list[str]:
        def listen(sock: socket.socket) -> None:
            sock.setsockopt(socket.IPPROTO_IP, 24, 1)
            _listen(sock, kind)

        sockets = [kind.open() for _ in range(_CAP + 2)]
        return [outcome(lambda sock=sock: listen(sock)) for sock in sockets]  # type: ignore[misc]

    told = unattended.place("capped").do(application)
    assert told == ["ok"] * _CAP + [errno.errorcode[errno.EDQUOT]] * 2
    settles_at(unattended.agent, 0, timeout_s=10)


@each_kind(*_BOTH)
def test_T5_the_type_that_it_asks_for_next_is_heard(unattended: World, kind: Kind) -> None:
    """What its subflow had from it at the first connect is not the last word."""

    def application() -> list[str]:
        with kind.open() as sock:
            ask(sock, FIXED)
            first = exchange(sock, kind).seen
            disconnect(sock)
            ask(sock, NONPERSISTENT)
            return [first, exchange(sock, kind).seen]

    seen = unattended.place("capped").do(application)
    assert [type_of(each) for each in seen] == [FIXED, NONPERSISTENT]
