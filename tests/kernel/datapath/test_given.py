"""What connect() has put on a socket does not outlive its reason: its class or destination."""

import socket
from contextlib import suppress
from typing import Final

import pytest

from odm_agent.core.model import AddressType, Family
from tests.lab.cases import each_kind
from tests.lab.client import Kind, disconnect, exchange
from tests.lab.host import CORRESPONDENT, FIXED
from tests.lab.peer import plain
from tests.lab.world import PLAIN, World

_IP_BIND_ADDRESS_NO_PORT: Final = 24
_REFUSING: Final = 26503
_ALL: Final = (
    Kind.TCP6,
    Kind.TCP4,
    Kind.TCP_MAPPED,
    Kind.UDP6,
    Kind.UDP4,
    Kind.UDP_MAPPED,
    Kind.MPTCP6,
    Kind.MPTCP4,
)
_LOOPBACK: Final = {Family.IPV6: "::1", Family.IPV4: "127.0.0.1"}


def _mark(sock: socket.socket) -> int:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) & 0xFFFFFFFF


@each_kind(*_ALL)
def test_a_socket_whose_process_has_left_the_class_is_as_stock(world: World, kind: Kind) -> None:
    elsewhere = world.place(PLAIN).cgroup.procs

    def application() -> tuple[str, str, int]:
        with kind.open() as sock:
            first = exchange(sock, kind).seen
            disconnect(sock)
            elsewhere.write_text("0")
            return first, exchange(sock, kind).seen, _mark(sock)

    assert world.place("fixed").do(application) == (
        world.address(FIXED, kind.family),
        world.address(AddressType.UNSPECIFIED, kind.family),
        0,
    )


@each_kind(*_ALL)
@pytest.mark.parametrize("end", ["dissolved", "refused"])
def test_loopback_sees_loopback_after_a_typed_connection(
    world: World, kind: Kind, end: str
) -> None:
    """A local service that trusts 127.0.0.1 must know its client, whatever that has done before."""
    to = kind.spell(_LOOPBACK[kind.family])

    def application() -> str:
        with (
            socket.socket(kind.af, *kind.value[1:3]) as server,
            kind.open() as sock,
        ):
            server.bind((to, 0))
            if kind.stream:
                sock.settimeout(None)
            if end == "refused":
                with suppress(OSError):
                    sock.connect((kind.spell(CORRESPONDENT[kind.family]), _REFUSING))
                    sock.send(b"x")
                    sock.recv(1)
            else:
                exchange(sock, kind)
            if end == "dissolved" or not kind.stream:
                disconnect(sock)
            if not kind.stream:
                sock.connect(server.getsockname())
                sock.send(b"x")
                return plain(server.recvfrom(1)[1][0])
            server.listen(1)
            sock.connect(server.getsockname())
            return plain(server.accept()[1][0])

    assert world.place("fixed").do(application) == _LOOPBACK[kind.family]


@pytest.mark.parametrize("first", [Kind.TCP6, Kind.UDP6, Kind.MPTCP6], ids=lambda kind: kind.name)
def test_one_dual_stack_socket_goes_on_to_the_other_family(world: World, first: Kind) -> None:
    def to(family: Family) -> tuple[str, int]:
        address = CORRESPONDENT[family]
        return (f"::ffff:{address}" if family is Family.IPV4 else address), first.port

    def application() -> list[str]:
        seen = []
        with first.open() as sock:
            for family in (Family.IPV6, Family.IPV4):  # and no further, as without us
                seen.append(exchange(sock, first, to(family)).seen)
                disconnect(sock)
        return seen

    six, four = (world.address(FIXED, family) for family in (Family.IPV6, Family.IPV4))
    assert world.place("fixed").do(application) == [six, four]


@each_kind(Kind.TCP6, Kind.TCP4)
@pytest.mark.parametrize("no_port", [False, True], ids=["port", "no-port"])
def test_what_the_application_has_bound_itself_stays(
    world: World, kind: Kind, no_port: bool
) -> None:
    """To the kernel it looks like an address that we have given."""
    address = world.address(FIXED, kind.family)
    own = world.address(AddressType.UNSPECIFIED, kind.family)

    def application() -> list[str]:
        with socket.socket(kind.af) as server, kind.open() as sock:
            server.bind((own, 0))
            server.listen(2)
            sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, int(no_port))
            sock.bind((address, 0))
            seen = []
            for _ in range(2):
                sock.connect(server.getsockname())
                seen.append(server.accept()[1][0])
                disconnect(sock)
            return seen

    assert world.place("fixed").do(application) == [address, address]


@each_kind(Kind.TCP6, Kind.MPTCP6)
def test_a_listener_that_was_connected_before_answers_by_the_hosts_own_routes(
    world: World, kind: Kind
) -> None:
    """What it accepts would inherit the mark, and answer by the typed gateway."""

    def application() -> tuple[int, int]:
        with kind.open() as sock, socket.socket(kind.af) as client:
            exchange(sock, kind)
            disconnect(sock)
            sock.listen(1)
            own = world.address(AddressType.UNSPECIFIED, kind.family)
            client.connect((own, sock.getsockname()[1]))
            with sock.accept()[0] as accepted:
                return _mark(sock), _mark(accepted)

    assert world.place("fixed").do(application) == (0, 0)
