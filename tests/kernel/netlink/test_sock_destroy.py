"""The end of an address's sockets: those that have it, of both protocols, and no others."""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

import pytest

from odm_agent.core.model import IPAddress
from odm_agent.kernel.sock_destroy import end_sockets
from tests.lab.netns import NetNs, address
from tests.lab.process import wait_until

ENDED6, OTHER6 = ip_address("2001:db8:7::1"), ip_address("2001:db8:7::2")
ENDED4, OTHER4 = ip_address("192.0.2.71"), ip_address("192.0.2.72")
FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}


@pytest.fixture
def lone() -> Iterator[NetNs]:
    """A namespace whose addresses all stand on lo."""
    with NetNs("lone") as lone:
        address(lone, "lo", *(f"{a}/{a.max_prefixlen}" for a in (ENDED6, OTHER6, ENDED4, OTHER4)))
        wait_until(lambda: _has_routes(lone), "the kernel has made their routes")
        yield lone


def _has_routes(lone: NetNs) -> bool:
    local = lone.ip("-6", "route", "show", "table", "local")
    return all(f"local {each} " in local for each in (ENDED6, OTHER6))


@dataclass(frozen=True, slots=True)
class Pair:
    """A connection from one address of the host to another, and its end there if it is TCP's."""

    client: socket.socket
    server: socket.socket | None = None

    def works(self) -> bool:
        """Whether the client is still connected."""
        try:
            self.client.getpeername()
            self.client.send(b"x")
        except OSError as error:
            assert error.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.EPIPE)
            return False
        return True


def _pair(stack: ExitStack, kind: int, source: IPAddress, to: IPAddress, mapped: bool) -> Pair:
    family = socket.AF_INET6 if mapped else FAMILY[source.version]
    before = "::ffff:" if mapped else ""
    listener = stack.enter_context(socket.socket(family, kind))
    listener.bind((f"{before}{to}", 0))
    client = stack.enter_context(socket.socket(family, kind))
    client.bind((f"{before}{source}", 0))
    if kind == socket.SOCK_DGRAM:
        client.connect(listener.getsockname())
        return Pair(client)
    listener.listen()
    client.connect(listener.getsockname())
    server, _ = listener.accept()
    return Pair(client, stack.enter_context(server))


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
@pytest.mark.parametrize(
    ("ended", "other", "mapped"),
    [(ENDED6, OTHER6, False), (ENDED4, OTHER4, False), (ENDED4, OTHER4, True)],
    ids=["ipv6", "ipv4", "mapped"],
)
def test_the_sockets_that_have_the_address_end_and_no_others(
    lone: NetNs, kind: int, ended: IPAddress, other: IPAddress, mapped: bool
) -> None:
    with ExitStack() as stack:
        had = [lone.call(_pair, stack, kind, ended, other, mapped) for _ in range(3)]
        others = [lone.call(_pair, stack, kind, other, other, mapped) for _ in range(3)]
        assert all(pair.works() for pair in [*had, *others])
        assert lone.call(end_sockets, ended) == 3
        assert not any(pair.works() for pair in had)
        assert all(pair.works() for pair in others)
        assert lone.call(end_sockets, ended) == 0, "they have it no more"


def test_the_user_of_a_connection_is_told_that_it_was_ended(lone: NetNs) -> None:
    with ExitStack() as stack:
        pair = lone.call(_pair, stack, socket.SOCK_STREAM, ENDED6, OTHER6, False)
        lone.call(end_sockets, ENDED6)
        pair.client.settimeout(5)
        with pytest.raises(ConnectionAbortedError):
            pair.client.recv(1)
        assert pair.server is not None
        pair.server.settimeout(5)
        with pytest.raises(ConnectionResetError):
            pair.server.recv(1)


def test_a_listener_of_the_address_ends_with_what_it_has_not_accepted(lone: NetNs) -> None:
    def listening() -> tuple[socket.socket, socket.socket]:
        listener = socket.create_server((str(ENDED6), 0), family=socket.AF_INET6)
        client = socket.create_connection(listener.getsockname()[:2])
        return listener, client

    listener, client = lone.call(listening)
    with listener, client:
        assert lone.call(end_sockets, ENDED6) >= 1
        listener.settimeout(5)
        client.settimeout(5)
        with pytest.raises(OSError) as caught:
            listener.accept()
        assert caught.value.errno == errno.EINVAL, "it listens no more"
        with pytest.raises((ConnectionResetError, ConnectionAbortedError)):
            client.recv(1)


def test_where_nobody_has_the_address_nothing_happens(lone: NetNs) -> None:
    assert lone.call(end_sockets, ENDED4) == lone.call(end_sockets, ENDED6) == 0
