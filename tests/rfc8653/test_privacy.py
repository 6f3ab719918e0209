"""L6, D5: neither type nor history can be read off an address; each socket may have its own."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv6Address, ip_address
from itertools import pairwise
from typing import Final

import pytest

from odm_agent.core.model import Family
from odm_agent.prefixes.rfc7217 import is_reserved
from tests.lab.agent import LabClass, Settings
from tests.lab.client import PORT, Kind, ask, call, exchange
from tests.lab.host import CORRESPONDENT, GRACEFUL, NONPERSISTENT, SESSION, prefix_of, type_of
from tests.lab.world import STANDARD, World

_MANY: Final = 10_000
_AT_ONCE: Final = 500
_SETTINGS: Final[Settings] = replace(
    STANDARD,
    classes={
        "asking": LabClass(allow=(NONPERSISTENT,)),
        "brief": LabClass(allow=(NONPERSISTENT,), default=NONPERSISTENT),
    },
    extra={"brief6": {"sharing": "socket"}},
)


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world with a prefix of which each socket gets an address of its own."""
    with World(tmp_path_factory.mktemp("private"), _SETTINGS) as made:
        yield made


def _connections(count: int) -> list[str]:
    """So many connections of sockets that asked, and the name of each."""
    names = []
    for _ in range(count):
        with Kind.TCP6.open() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            ask(sock, NONPERSISTENT)
            sock.connect((CORRESPONDENT[Family.IPV6], PORT))
            names.append(sock.getsockname()[0])
    return names


def test_L6_D5_ten_thousand_sockets_have_ten_thousand_addresses(private: World) -> None:
    """As the peer sees them; and the host's list of addresses stays as it was."""
    listed = private.site.host.ip("-6", "address")
    private.peer.seen()
    names: list[str] = []
    seen: list[str] = []
    for _ in range(_MANY // _AT_ONCE):
        names += private.place("asking").do(lambda: _connections(_AT_ONCE), timeout_s=60)
        seen += [each.source for each in private.peer.seen()]
    assert len(set(seen)) == _MANY
    assert {ip_address(each) for each in seen} == {ip_address(each) for each in names}
    assert {type_of(each) for each in seen} == {NONPERSISTENT}
    assert private.site.host.ip("-6", "address") == listed
    identifiers = {int(ip_address(each)) % 2**64 for each in seen}
    assert not [each for each in identifiers if is_reserved(each, 64)]
    # Nothing of the order in which they were made: half of the steps go up, as by chance.
    ordered = [int(ip_address(each)) for each in names]
    rises = sum(one < two for one, two in pairwise(ordered))
    assert abs(rises - _MANY / 2) < 5 * _MANY**0.5


@pytest.mark.parametrize("kind", [Kind.TCP6, Kind.SENDTO6], ids=lambda k: k.name)
def test_L6_D5_a_socket_keeps_the_address_that_is_its_own(private: World, kind: Kind) -> None:
    """Over all that it sends; and binds it, if it binds a wildcard."""

    def client() -> list[str]:
        with kind.open() as sock:
            ask(sock, NONPERSISTENT)
            if kind.stream:
                sock.bind(("::", 0))
                name = sock.getsockname()[0]
                return [name, exchange(sock, kind).seen]
            return [exchange(sock, kind).seen for _ in range(5)]

    first = private.place("asking").do(client)
    assert len(set(first)) == 1
    assert first != private.place("asking").do(client)


def test_D5_sockets_that_do_not_ask_share_one(private: World) -> None:
    """The kernel binds them to configured addresses only."""
    place = private.place("brief")
    assert len({place.do(lambda: call(Kind.TCP6).seen) for _ in range(5)}) == 1


def test_L6_no_two_types_or_successors_have_an_identifier_in_common(private: World) -> None:
    """Types can't be told by it, nor can it be told which address came after which."""
    named = {each["prefix"]: each["address"] for each in private.agent.read("addresses")}
    identifiers = [
        int(IPv6Address(named[prefix_of(type_, Family.IPV6).name])) % 2**64
        for type_ in (NONPERSISTENT, GRACEFUL, SESSION)
    ]
    done = private.agent.call(
        "rotate", "graceful6", "--json", "--socket", str(private.agent.socket)
    )
    assert done.returncode == 0, done.stderr
    [new] = private.agent.addresses("graceful6")[:1]
    identifiers.append(int(IPv6Address(new)) % 2**64)
    assert len(set(identifiers)) == len(identifiers)
    for one in identifiers:
        for other in identifiers:
            # Unlike in about half of their bits.
            assert one == other or 8 < (one ^ other).bit_count() < 56
