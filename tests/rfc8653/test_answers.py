"""Who answers, answers from the address that was asked: UDP servers on the wildcard.

The correspondent and the neighbours on the link ask; what they hear, and the wire, are witnesses.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any, Final

import pytest

from odm_agent.core.model import AddressType, Family
from tests.lab.capture import Packet
from tests.lab.cases import each_family, each_kind
from tests.lab.client import Kind, call, talker
from tests.lab.host import FIXED, GRACEFUL, LINKS, SESSION, Captures, prefix_of
from tests.lab.netns import NetNs
from tests.lab.place import Ready
from tests.lab.process import wait_until
from tests.lab.world import PLAIN, STANDARD, World

_PORT: Final = 27041
_UNTYPED: Final = AddressType.UNSPECIFIED
_PATIENCE_S: Final = 2.0
#: An IPv6 socket serves both families.
_DUAL: Final = (Kind.SENDTO6, Kind.SENDTO4, Kind.SENDTO_MAPPED)
Answer = Callable[[socket.socket, Any], None]


def _by_sendto(sock: socket.socket, caller: Any) -> None:
    sock.sendto(b"answer", caller)


def _by_connect(sock: socket.socket, caller: Any) -> None:
    """The socket that was asked is connected to the peer, for good."""
    sock.connect(caller)
    sock.send(b"answer")


def _by_second_socket(sock: socket.socket, caller: Any) -> None:
    """As DTLS and QUIC servers do: one socket a peer, on the same port."""
    with socket.socket(sock.family, sock.type, sock.proto) as second:
        second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        second.bind(sock.getsockname())
        second.connect(caller)
        second.send(b"answer")


_WAYS: Final = (_by_sendto, _by_connect, _by_second_socket)
each_way = pytest.mark.parametrize("answer", _WAYS, ids=lambda way: way.__name__.strip("_"))


def _server(kind: Kind, answer: Answer, protocol: int = 0) -> Callable[[Ready], None]:
    """Answers the first caller, then stays."""

    def server(ready: Ready) -> None:
        with socket.socket(kind.af, socket.SOCK_DGRAM, protocol) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.bind((kind.wildcard, _PORT))
            ready(None)
            _, caller = sock.recvfrom(64)
            answer(sock, caller)
            sock.recvfrom(64)

    return server


def _dial(world: World, address: str) -> dict[str, Any]:
    return world.peer.dial("udp", address, _PORT, timeout_s=_PATIENCE_S)


@each_way
@each_kind(*_DUAL)
@pytest.mark.parametrize(
    ("place", "wanted"),
    [("session", SESSION), ("choosy", FIXED), ("choosy", _UNTYPED), ("every", FIXED)],
    ids=["default", "another", "untyped", "without-default"],
)
def test_D9_udp_server_answers_from_the_address_asked(
    world: World, kind: Kind, answer: Answer, place: str, wanted: AddressType
) -> None:
    """Its class's default type, another type that it may use, an untyped one; or no default."""
    address = world.address(wanted, kind.family)
    with world.place(place).background(_server(kind, answer)):
        assert _dial(world, address) == {"answer": "answer", "from": address}


@each_way
@each_kind(*_DUAL)
def test_A1_udp_server_never_answers_from_what_its_class_may_not_use(
    world: World, captures: Captures, kind: Kind, answer: Answer
) -> None:
    fixed = world.address(FIXED, kind.family)
    for place in (PLAIN, "nothing", "session"):
        with world.place(place).background(_server(kind, answer)):
            assert _dial(world, fixed).get("from") != fixed, place
    assert fixed not in {str(each) for each in captures.both()}


@each_family
def test_D9_udplite_server_answers_from_the_address_asked(world: World, family: Family) -> None:
    kind = Kind.SENDTO6 if family is Family.IPV6 else Kind.SENDTO4
    server = _server(kind, _by_sendto, socket.IPPROTO_UDPLITE)
    address = world.address(FIXED, family)

    def client() -> str:
        with socket.socket(kind.af, socket.SOCK_DGRAM, socket.IPPROTO_UDPLITE) as sock:
            sock.settimeout(_PATIENCE_S)
            sock.connect((address, _PORT))
            sock.send(b"question")
            return sock.recv(64).decode()

    with world.place("choosy").background(server):
        assert world.site.c.fork(client) == "answer"


# --- neighbours, and the host itself --------------------------------------------------------------


def _ask_from(netns: NetNs, to: str, source: str = "") -> tuple[str, int]:
    """What an unconnected socket in `netns` hears: the answer's source."""

    def client() -> tuple[str, int]:
        with socket.socket(
            socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM
        ) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.settimeout(_PATIENCE_S)
            if source:
                sock.bind((source, 0))
            sock.sendto(b"question", (to, _PORT))
            address, port = sock.recvfrom(64)[1][:2]
            return str(address), int(port)

    return netns.fork(client)


@pytest.mark.parametrize("place", ["fixed", "choosy", "every"])
@pytest.mark.parametrize("letter", "AB")
def test_D9_question_by_broadcast_is_answered_from_the_host_s_address_on_that_link(
    world: World, letter: str, place: str
) -> None:
    """A broadcast address is no source; it stands for the host's address in that network."""
    network, gateway, host = LINKS[letter, Family.IPV4]
    netns = {"A": world.site.a, "B": world.site.b}[letter]
    with world.place(place).background(_server(Kind.SENDTO4, _by_sendto)):
        heard = _ask_from(netns, str(network.broadcast_address), str(gateway))
    assert heard == (str(host), _PORT)


@each_family
def test_D9_clients_on_the_host_are_answered_from_the_address_asked(
    world: World, family: Family
) -> None:
    """Also where they ask from another address than they ask."""
    kind = Kind.SENDTO6 if family is Family.IPV6 else Kind.SENDTO4
    mine = str(LINKS["B", family][2])
    for wanted in (SESSION, _UNTYPED):
        address = world.address(wanted, family)
        with world.place("session").background(_server(kind, _by_sendto)):
            assert _ask_from(world.site.host, address, mine) == (address, _PORT)


# --- answers that we get -------------------------------------------------------------------------


@each_kind(*_DUAL)
def test_L3_what_a_peer_has_answered_is_no_question_to_the_next_socket_with_the_port(
    own: World, kind: Kind
) -> None:
    """After a rotation it sends from the current address, though the former one is there yet."""
    name = prefix_of(GRACEFUL, kind.family).name
    place, bind = own.place("graceful"), (kind.wildcard, _PORT)
    before = place.do(lambda: call(kind, bind=bind).seen)
    assert before == own.agent.addresses(name)[0]
    holder = Kind.TCP6 if kind.family is Family.IPV6 else Kind.TCP4
    with place.background(talker(holder)):
        done = own.agent.call("rotate", name, "--socket", str(own.agent.socket))
        assert done.returncode == 0, done.stderr
        now = own.agent.addresses(name)[0]
        assert now != before
        assert before in own.site.host.ip("address")
        for _ in range(3):
            assert place.do(lambda: call(kind, bind=bind).seen) == now
        with place.background(_server(kind, _by_sendto)):
            assert _dial(own, before) == {"answer": "answer", "from": before}, "but this is one"


# --- addresses that the host has no more ----------------------------------------------------------


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world of our own, whose prefixes change."""
    with World(tmp_path_factory.mktemp("answers")) as made:
        yield made


@contextmanager
def _asked_then_told(world: World, kind: Kind, address: str) -> Iterator[Callable[[], None]]:
    """A server of class fixed that was asked at `address`, and answers when it is told to."""
    ours, theirs = socket.socketpair()

    def server(ready: Ready) -> None:
        with socket.socket(kind.af, socket.SOCK_DGRAM) as sock:
            sock.bind((kind.wildcard, _PORT))
            ready(None)
            _, caller = sock.recvfrom(64)
            theirs.send(b"asked")
            theirs.recv(1)
            sock.sendto(b"answer", caller)
            theirs.send(b"answered")

    def answer() -> None:
        ours.send(b"!")
        assert ours.recv(64) == b"answered"

    ours.settimeout(10)
    with ours, theirs, world.place("fixed").background(server):
        world.peer.dial("udp", address, _PORT, timeout_s=0.1)
        assert ours.recv(64) == b"asked"
        yield answer


@each_family
def test_D9_no_answer_from_an_address_that_the_host_has_no_more(own: World, family: Family) -> None:
    """It was replaced between question and answer: the answer leaves from its successor."""
    kind = Kind.SENDTO6 if family is Family.IPV6 else Kind.SENDTO4
    lab = prefix_of(FIXED, family)
    other = ip_network("2001:db8:a5::/64" if family is Family.IPV6 else "192.0.2.80/29")
    moved = replace(lab, network=other)
    before = own.address(FIXED, family)
    with own.captures() as captures, _asked_then_told(own, kind, before) as answer:
        prefixes = [moved if each is lab else each for each in STANDARD.prefixes]
        own.agent.configure(replace(own.agent.settings, prefixes=prefixes))
        assert own.agent.reload().returncode == 0
        wait_until(
            lambda: (
                any(ip_address(each) in other for each in own.agent.addresses(lab.name))
                and before not in own.site.host.ip("-o", "address", "show")
            ),
            "the address is replaced",
        )
        answer()
        seen: list[Packet] = []

        def answered() -> bool:
            seen.extend(each for each in captures.at("A").packets() if each.source_port == _PORT)
            return bool(seen)

        wait_until(answered, "the answer is on the wire")
    assert [each.source in other for each in seen] == [True]
