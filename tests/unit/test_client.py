"""The Python API, against a stock kernel and against a socket that plays the agent."""

import errno
import socket
from collections.abc import Iterator

import pytest

from odm_agent import client
from odm_agent.core.model import TYPES, AddressType

KINDS = [
    (socket.AF_INET, socket.SOCK_STREAM, 0),
    (socket.AF_INET, socket.SOCK_DGRAM, 0),
    (socket.AF_INET6, socket.SOCK_STREAM, 0),
    (socket.AF_INET6, socket.SOCK_DGRAM, 0),
    (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP),
    (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_MPTCP),
]


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind[0].name}-{kind[1].name}-{kind[2]}")
def stock(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """A real socket of each kind, that no agent knows."""
    with socket.socket(*request.param) as sock:
        yield sock


class Enforced(socket.socket):
    """A socket whose kernel knows the option, as the sockopt programs promise it."""

    allow: frozenset[AddressType] = frozenset(TYPES)
    value = 0x500

    def setsockopt(self, level: int, name: int, value: int) -> None:  # type: ignore[override]
        assert (level, name) == (socket.IPPROTO_IPV6, 72)
        wanted = value >> 16 & 7
        if wanted not in self.allow:
            raise PermissionError(errno.EACCES, "the class may not")
        self.value = self.value & 0xFFF | value if value else 0

    def getsockopt(self, level: int, name: int) -> int:  # type: ignore[override]
        assert (level, name) == (socket.IPPROTO_IPV6, 72)
        return self.value


@pytest.fixture
def enforced() -> Iterator[Enforced]:
    """A socket under an agent."""
    with Enforced(socket.AF_INET6, socket.SOCK_STREAM) as sock:
        yield sock


def test_S8_a_stock_kernel_is_told_by_a_clear_error(stock: socket.socket) -> None:
    with pytest.raises(client.NotSupported) as raised:
        client.set_type(stock, AddressType.FIXED)
    assert raised.value.errno == errno.ENOTSUP
    assert client.get_type(stock) == AddressType.UNSPECIFIED
    assert not client.supported(stock)


def test_S8_a_type_that_nobody_hears_leaves_the_preferences_as_they_were() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, client.SOCKOPT, 0x0002)  # prefer the public address
        before = sock.getsockopt(socket.IPPROTO_IPV6, client.SOCKOPT)
        assert before & 0x0002
        with pytest.raises(client.NotSupported):
            client.set_type(sock, AddressType.FIXED)
        assert sock.getsockopt(socket.IPPROTO_IPV6, client.SOCKOPT) == before


def test_without_a_socket_support_is_asked_for_in_general() -> None:
    assert not client.supported()


def test_S8_connect_falls_back_to_a_plain_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        with client.connect(address, AddressType.FIXED, timeout_s=5) as sock:
            accepted, peer = server.accept()
            accepted.close()
            assert sock.getsockname() == peer


def test_S8_connect_without_fallback_says_not_supported() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(client.NotSupported),
    ):
        client.connect(server.getsockname(), AddressType.FIXED, fallback=False)


def test_connect_tries_every_address_and_raises_the_last_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: refused
        with pytest.raises(ConnectionRefusedError):
            client.connect(unused.getsockname(), AddressType.FIXED, timeout_s=5)


@pytest.mark.parametrize("type", TYPES)
def test_a_type_that_is_heard_reads_back(enforced: Enforced, type: AddressType) -> None:
    client.set_type(enforced, type)
    assert client.get_type(enforced) == type
    assert enforced.value & client.RFC5014_MASK == 0x500


def test_unspecified_takes_type_and_preferences_back(enforced: Enforced) -> None:
    client.set_type(enforced, AddressType.FIXED)
    enforced.allow = frozenset({AddressType.UNSPECIFIED})
    client.set_type(enforced, AddressType.UNSPECIFIED)
    assert enforced.value == 0
    assert client.get_type(enforced) == AddressType.UNSPECIFIED


def test_S8_taking_back_what_was_never_asked_is_no_error(stock: socket.socket) -> None:
    client.set_type(stock, AddressType.UNSPECIFIED)


def test_a_refusal_is_a_permission_error_not_a_lack_of_support(enforced: Enforced) -> None:
    enforced.allow = frozenset()
    with pytest.raises(PermissionError):
        client.set_type(enforced, AddressType.FIXED)


def test_real_errors_pass_through() -> None:
    sock = socket.socket()
    sock.close()
    with pytest.raises(OSError) as raised:
        client.set_type(sock, AddressType.FIXED)
    assert raised.value.errno == errno.EBADF
