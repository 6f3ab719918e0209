"""The client's port hears the servers of its link, and nobody else, however many speak."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from odm_agent.core.errors import KernelError
from odm_agent.kernel.dhcp_port import CLIENT, MOST_AT_ONCE, SERVER, Datagram, DhcpPort
from tests.lab.netns import NetNs, address, veth
from tests.lab.process import wait_until
from tests.lab.root import needs_root

pytestmark = needs_root

SERVERS = "ff02::1:2"


class Link:
    """A host and a router, with an interface of the host's to each of two links."""

    def __init__(self, host: NetNs, router: NetNs) -> None:
        self.host, self.router = host, router
        veth(host, "w0", router, "r0")
        veth(host, "w1", router, "r1")
        address(host, "w0", "fe80::10/64", "2001:db8::10/64")
        address(router, "r0", "fe80::1/64", "2001:db8::1/64")
        address(host, "w1", "fe80::10/64")
        address(router, "r1", "fe80::1/64")

    def index(self, name: str = "w0") -> int:
        return self.host.call(socket.if_nametoindex, name)

    @contextmanager
    def port(self, name: str = "w0") -> Iterator[DhcpPort]:
        port = self.host.call(DhcpPort, name, self.index(name))
        try:
            yield port
        finally:
            port.close()

    def socket(self, port: int, name: str = "r0", address: str = "::") -> socket.socket:
        def opened() -> socket.socket:
            sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode())
            number = socket.if_nametoindex(name)
            group = socket.inet_pton(socket.AF_INET6, SERVERS) + number.to_bytes(4, "little")
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
            sock.bind((address, port, 0, number))
            sock.settimeout(10)
            return sock

        return self.router.call(opened)

    def answer(self, data: bytes, port: int = SERVER, source: str = "fe80::1") -> None:
        number = self.router.call(socket.if_nametoindex, "r0")
        to = "fe80::10" if source.startswith("fe80") else "2001:db8::10"
        with self.socket(port, address=source) as sock:
            sock.sendto(data, (to, CLIENT, 0, number))


@pytest.fixture
def link() -> Iterator[Link]:
    with NetNs("host") as host, NetNs("router") as router:
        yield Link(host, router)


def heard(port: DhcpPort) -> list[Datagram]:
    found: list[Datagram] = []

    def hear() -> bool:
        found.extend(port.receive())
        return bool(found)

    wait_until(hear, "something is heard", 10)
    return found


def test_it_asks_all_servers_of_its_link_from_a_link_local_address(link: Link) -> None:
    with (
        link.port() as port,
        link.socket(SERVER) as server,
        link.socket(SERVER, "r1") as elsewhere,
    ):
        port.send(b"question", SERVERS)
        data, sender = server.recvfrom(100)
        assert data == b"question"
        assert sender[0].startswith("fe80::10") and sender[1] == CLIENT
        elsewhere.settimeout(0.3)
        with pytest.raises(TimeoutError):
            elsewhere.recv(100)


def test_it_hears_a_server_of_its_link(link: Link) -> None:
    with link.port() as port:
        link.answer(b"answer")
        assert heard(port) == [Datagram(b"answer", "fe80::1%w0")]
        assert not port.dropped


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda link: link.answer(b"x", port=5000), "not-from-a-server"),
        (lambda link: link.answer(b"x", source="2001:db8::1"), "not-from-a-server"),
        (lambda link: link.answer(bytes(5000)), "too-large"),
    ],
)
def test_it_throws_away_what_no_server_of_the_link_says(
    link: Link, answer: Callable[[Link], None], why: str
) -> None:
    with link.port() as port:
        answer(link)
        link.answer(b"answer")
        assert [each.data for each in heard(port)] == [b"answer"]
        assert port.dropped == {why: 1}


def test_a_flood_is_taken_in_pieces_and_what_finds_no_room_is_counted(link: Link) -> None:
    with link.port() as port:
        number = link.router.call(socket.if_nametoindex, "r0")
        with link.socket(SERVER, address="fe80::1") as sock:
            for _ in range(2000):
                sock.sendto(bytes(1000), ("fe80::10", CLIENT, 0, number))
            wait_until(lambda: bool(port.receive()), "something is heard", 10)
            taken = MOST_AT_ONCE
            while more := len(port.receive()):
                assert more <= MOST_AT_ONCE
                taken += more
            assert taken < 1000
            sock.sendto(b"last", ("fe80::10", CLIENT, 0, number))
            heard(port)
        assert port.dropped["too-many"] + taken == 2000


def test_another_client_on_another_interface_is_not_disturbed(link: Link) -> None:
    with link.host.call(_client, "w1"), link.port():
        pass
    with link.host.call(_client, None), link.port():  # all interfaces, shared
        pass


def test_another_client_on_the_same_interface_is_told_by_name(link: Link) -> None:
    with link.port() as ours:
        name = Path("/proc/self/comm").read_text().strip()

        def opened_by_another_process() -> str:
            ours.close()  # what the fork has of it
            try:
                DhcpPort("w0", socket.if_nametoindex("w0")).close()
            except KernelError as error:
                return str(error)
            return ""

        message = link.host.fork(opened_by_another_process)
        assert f"UDP 546) on w0: {name} (pid {os.getpid()})" in message
        assert "only one client can ask there; stop it on this interface" in message
    assert not link.host.fork(opened_by_another_process)


def test_a_client_that_shares_its_port_with_nobody_is_told_of(link: Link) -> None:
    with (
        link.host.call(_client, None, False),
        pytest.raises(KernelError, match=r"in use. A client of all interfaces has it"),
        link.port(),
    ):
        pass


def _client(interface: str | None, share: bool = True) -> socket.socket:
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    if share:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if interface:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
    sock.bind(("::", CLIENT))
    return sock
