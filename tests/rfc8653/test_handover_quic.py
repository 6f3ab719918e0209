"""T3, T4: a QUIC connection migrates to the successor that its socket's notice names.

The client is the example, the witness aioquic's server at the correspondent.
"""

import hashlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import IPv6Address
from pathlib import Path
from typing import IO, Final

import pytest

from odm_agent import client
from odm_agent.core.model import AddressType
from tests.lab.host import GRACEFUL, NONPERSISTENT
from tests.lab.place import Ready
from tests.lab.root import needs_root
from tests.netlab.plan import CORE, WireType
from tests.netlab.quic import PORT, QuicServer
from tests.netlab.travelling import Order, Traveller

pytestmark = needs_root

EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "handover" / "quic_client.py"
_ENDS_S: Final = 60.0


@pytest.fixture(scope="module")
def traveller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traveller]:
    with Traveller(tmp_path_factory.mktemp("traveller")) as made:
        yield made


@pytest.fixture(scope="module")
def server(traveller: Traveller) -> Iterator[QuicServer]:
    with QuicServer(traveller.lab) as made:
        yield made


@pytest.mark.parametrize(
    ("type", "order"),
    [
        (GRACEFUL, Order.MAKE_FIRST),
        (GRACEFUL, Order.BREAK_FIRST),
        (NONPERSISTENT, Order.MAKE_FIRST),
    ],
    ids=lambda each: each.word if isinstance(each, AddressType) else each.value,
)
def test_T3_T4_a_quic_connection_goes_on_from_the_successor(
    traveller: Traveller, server: QuicServer, type: AddressType, order: Order
) -> None:
    parts = [os.urandom(20_000) for _ in range(3)]
    pool = traveller.by.plan.pools[WireType[type.name]]
    place = traveller.roamer.places[type.word]
    command = [sys.executable, str(EXAMPLE), str(CORE[1]), str(PORT), str(server.certificate)]
    process = subprocess.Popen(
        place.cgroup.command(command, place.netns),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "ODM_WAIT_SOCKET": str(traveller.roamer.agent.wait_socket)},
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        before = _said(process.stdout)
        assert IPv6Address(before) in pool
        _write(process.stdin, parts[0])
        with traveller.moving(order) as move:
            _write(process.stdin, parts[1])
            traveller.await_attached(move.came)
            after = _said(process.stdout)
            assert IPv6Address(after) in move.came.plan.pools[WireType[type.name]]
            _write(process.stdin, parts[2])
            process.stdin.close()
            assert process.wait(_ENDS_S) == 0
            assert _said(process.stdout) == ""
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            pipe.close()
    *_, seen = server.connections()
    assert seen["sources"] == [before, after]
    assert seen["validated"] >= 1
    assert seen["sha256"] == hashlib.sha256(b"".join(parts)).hexdigest()


def test_T4_a_bound_datagram_socket_without_a_peer_is_told_its_successor(
    traveller: Traveller,
) -> None:
    """Of a server, for example, which never connects."""

    def application(ready: Ready) -> None:
        os.environ["ODM_WAIT_SOCKET"] = str(traveller.roamer.agent.wait_socket)
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            unbound = client.notice(sock)
            assert unbound is not None
            sock.bind((str(unbound.successor), 0))
            for notice in client.notices(sock):
                ready(notice)

    with traveller.roamer.places[GRACEFUL.word].conversation(application) as talk:
        told = talk.hear()
        before = told.address
        assert told.state is client.AddressState.PREFERRED
        assert before in traveller.by.plan.pools[WireType.GRACEFUL_REPLACEMENT]
        with traveller.moving(Order.MAKE_FIRST) as move:
            traveller.await_attached(move.came)
            until_s = time.monotonic() + _ENDS_S
            while told.successor is None and time.monotonic() < until_s:
                told = talk.hear(_ENDS_S)
            assert (told.state, told.address) == (client.AddressState.DEPRECATED, before)
            assert told.successor in move.came.plan.pools[WireType.GRACEFUL_REPLACEMENT]


def _said(output: IO[bytes]) -> str:
    """The next line of the client; empty: it has ended."""
    return output.readline().decode().strip()


def _write(given: IO[bytes], data: bytes) -> None:
    given.write(data)
    given.flush()
