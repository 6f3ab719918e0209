"""Servers: on an address of a type, or on the wildcard in a class with a default type.

What the correspondent sees when it calls is the witness.
"""

import socket
from typing import Any, Final

import pytest

from odm_agent.core.model import AddressType, Family
from tests.lab.cases import each_family, each_kind, each_type
from tests.lab.client import TYPE_MASK, TYPE_SHIFT, Kind, ask, asked, exchange, outcome
from tests.lab.host import FIXED, GRACEFUL, LINKS, NONPERSISTENT, SESSION, Captures, type_of
from tests.lab.place import Ready
from tests.lab.world import BY_DEFAULT, PLAIN, World
from tests.rfc8653.bypass.tricks_bind import freebind

_PORT: Final = 27001
_STREAMS: Final = (Kind.TCP6, Kind.TCP4)
_SERVERS: Final = (Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.UDP4)
_UNTYPED: Final = AddressType.UNSPECIFIED


def _open(kind: Kind) -> socket.socket:
    sock = kind.open()
    if kind.stream:  # the connections of the last test are in TIME_WAIT
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return sock


def serve(sock: socket.socket, kind: Kind, ready: Ready) -> None:
    """Answer each caller with its own address, for ever."""
    sock.settimeout(None)
    if kind.stream:
        sock.listen(16)
    ready(sock.getsockname()[0])
    while True:
        if kind.stream:
            stream, caller = sock.accept()
            with stream:
                stream.sendall(caller[0].encode())
        else:
            _, caller = sock.recvfrom(4096)
            sock.sendto(caller[0].encode(), caller)


def wildcard_server(kind: Kind, address: str | None = None) -> Any:
    """A server that binds the wildcard (or `address`) and asks for nothing."""

    def server(ready: Ready) -> None:
        with _open(kind) as sock:
            sock.bind((address or kind.wildcard, _PORT))
            serve(sock, kind, ready)

    return server


def _dial(world: World, kind: Kind, address: str, timeout_s: float = 2) -> dict[str, Any]:
    return world.peer.dial("tcp" if kind.stream else "udp", address, _PORT, timeout_s=timeout_s)


@each_type()
@each_kind(*_SERVERS)
def test_T5_server_that_asks_for_a_type_gets_an_address_of_it_from_a_wildcard_bind(
    world: World, kind: Kind, type: AddressType
) -> None:
    def server(ready: Ready) -> None:
        with _open(kind) as sock:
            ask(sock, type)
            sock.bind((kind.wildcard, _PORT))
            serve(sock, kind, ready)

    with world.place("every").background(server) as bound:
        assert type_of(bound) is type
        answered = _dial(world, kind, bound)
        assert answered.get("from") == bound, answered


@each_type()
@each_kind(*_SERVERS)
def test_D8_server_on_an_explicit_typed_address_that_is_allowed(
    world: World, kind: Kind, type: AddressType
) -> None:
    address = world.address(type, kind.family)
    with world.place("every").background(wildcard_server(kind, address)):
        answered = _dial(world, kind, address)
        assert answered.get("from") == address, answered


@each_kind(*_SERVERS)
def test_D8_A1_server_on_an_explicit_typed_address_that_is_not_allowed(
    world: World, kind: Kind
) -> None:
    address = world.address(FIXED, kind.family)

    def server() -> None:
        with kind.open() as sock:
            sock.bind((address, _PORT))

    for place in (PLAIN, "nothing", "brief"):
        assert world.place(place).do(lambda: outcome(server)) == "EACCES"


@pytest.mark.parametrize("cookies", ["1", "2"], ids=["queue", "syn-cookies"])
@each_kind(*_STREAMS)
def test_D8_A1_wildcard_listener_never_completes_a_handshake_on_an_address_not_allowed(
    world: World, captures: Captures, kind: Kind, cookies: str
) -> None:
    """Also where the answer is a SYN cookie, which belongs to no socket that egress could ask."""
    fixed = world.address(FIXED, kind.family)
    ordinary = world.address(_UNTYPED, kind.family)
    world.site.host.sysctl("net/ipv4/tcp_syncookies", cookies)
    try:
        for place in (PLAIN, "nothing", "brief"):
            with world.place(place).background(wildcard_server(kind)):
                assert _dial(world, kind, fixed, 0.3) == {"error": "timeout"}, place
                assert _dial(world, kind, ordinary).get("from") == ordinary, place
    finally:
        world.site.host.sysctl("net/ipv4/tcp_syncookies", "1")
    assert fixed not in {str(source) for source in captures.both()}


@each_kind(*_STREAMS)
def test_D8_wildcard_listener_of_a_class_that_may_answers_on_the_typed_address(
    world: World, kind: Kind
) -> None:
    for place, type in (("every", FIXED), ("choosy", FIXED), ("fixed", FIXED)):
        address = world.address(type, kind.family)
        with world.place(place).background(wildcard_server(kind)):
            assert _dial(world, kind, address).get("from") == address, place


@each_kind(Kind.UDP6, Kind.UDP4)
def test_D8_A1_wildcard_udp_server_never_answers_from_an_address_not_allowed(
    world: World, captures: Captures, kind: Kind
) -> None:
    fixed = world.address(FIXED, kind.family)
    for place in (PLAIN, "nothing", "brief"):
        with world.place(place).background(wildcard_server(kind)):
            answered = _dial(world, kind, fixed, 0.3)
            assert answered.get("from") != fixed, (place, answered)
    assert fixed not in {str(source) for source in captures.both()}


@each_type()
@each_kind(Kind.TCP6, Kind.UDP6)
def test_D9_default_type_costs_a_dual_stack_server_no_client(
    world: World, kind: Kind, type: AddressType
) -> None:
    """IPv6, IPv4 and loopback clients of one `::` socket; each is answered from where it asked."""
    place = world.place(BY_DEFAULT[type])

    def local(address: str) -> str:
        as_kind = Kind.TCP6 if kind.stream else Kind.UDP6
        if "." in address:
            as_kind = Kind.TCP4 if kind.stream else Kind.UDP4
        with as_kind.open() as sock:
            return exchange(sock, as_kind, (address, _PORT)).seen

    with place.background(wildcard_server(kind)) as bound:
        assert bound == "::", "the class's default leaves the wildcard alone"
        for family in Family:
            for wanted in (type, _UNTYPED):
                address = world.address(wanted, family)
                answered = _dial(world, kind, address)
                assert answered.get("from") == address, (wanted, answered)
        assert place.do(lambda: local("::1")) == "::1"
        assert place.do(lambda: local("127.0.0.1")).removeprefix("::ffff:") == "127.0.0.1"


@each_type()
@each_kind(Kind.TCP4, Kind.UDP4)
def test_D9_default_type_costs_an_ipv4_server_no_client(
    world: World, kind: Kind, type: AddressType
) -> None:
    place = world.place(BY_DEFAULT[type])

    def local() -> str:
        with kind.open() as sock:
            return exchange(sock, kind, ("127.0.0.1", _PORT)).seen

    with place.background(wildcard_server(kind)) as bound:
        assert bound == "0.0.0.0"
        for wanted in (type, _UNTYPED):
            address = world.address(wanted, kind.family)
            assert _dial(world, kind, address).get("from") == address
        assert place.do(local) == "127.0.0.1"


@each_kind(Kind.UDP6, Kind.UDP4)
def test_D9_wildcard_udp_socket_is_server_and_client_at_once(world: World, kind: Kind) -> None:
    """As dnsmasq is: it answers from the address asked, and asks others from its type."""
    ordinary = world.address(_UNTYPED, kind.family)

    def server(ready: Ready) -> None:
        with _open(kind) as sock:
            sock.bind((kind.wildcard, _PORT))
            ready(None)
            while True:
                data, caller = sock.recvfrom(4096)
                if data == b"ping":
                    sock.sendto(b"question", kind.destination)
                    sock.sendto(b"answer", caller)

    with world.place("session").background(server):
        answered = _dial(world, kind, ordinary)
        assert answered == {"answer": "answer", "from": ordinary}
    questions = [caller for caller in world.peer.seen() if caller.data == "question"]
    assert [type_of(caller.source) for caller in questions] == [SESSION]


@each_kind(*_SERVERS)
def test_S6_loopback_destinations_see_loopback_sources(world: World, kind: Kind) -> None:
    address = "::1" if kind.family is Family.IPV6 else "127.0.0.1"

    def client(type: AddressType) -> str:
        with kind.open() as sock:
            if type:
                ask(sock, type)
            return exchange(sock, kind, (address, _PORT)).seen

    with world.place(PLAIN).background(wildcard_server(kind, address)):
        for place, type in (
            (PLAIN, _UNTYPED),
            ("fixed", _UNTYPED),
            ("brief", _UNTYPED),
            ("every", FIXED),
            ("every", NONPERSISTENT),
        ):
            assert world.place(place).do(lambda type=type: client(type)) == address  # type: ignore[misc]


@each_kind(*_SERVERS)
def test_S6_the_host_s_own_addresses_count_as_loopback(world: World, kind: Kind) -> None:
    """Who calls a typed address of the same host is given that address by the kernel, as ever."""
    fixed = world.address(FIXED, kind.family)
    ordinary = world.address(_UNTYPED, kind.family)

    def client(address: str) -> str:
        with kind.open() as sock:
            return exchange(sock, kind, (address, _PORT)).seen

    with world.place("every").background(wildcard_server(kind, fixed)):
        assert world.place(PLAIN).do(lambda: client(fixed)) == fixed
        assert world.place("session").do(lambda: client(fixed)) == fixed
    with world.place(PLAIN).background(wildcard_server(kind, ordinary)):
        assert world.place("session").do(lambda: client(ordinary)) == ordinary


@each_kind(*_SERVERS)
def test_S6_every_address_of_the_host_reaches_its_typed_ones(world: World, kind: Kind) -> None:
    """From the addresses of each interface, whatever the caller's class; FREEBIND is no offence."""
    fixed = world.address(FIXED, kind.family)

    def client(source: str) -> str:
        with kind.open() as sock:
            freebind(sock)
            sock.bind((source, 0))
            return exchange(sock, kind, (fixed, _PORT)).seen

    with world.place("every").background(wildcard_server(kind, fixed)):
        for place in (PLAIN, "nothing", "brief"):
            for letter in "AB":
                source = str(LINKS[letter, kind.family][2])
                assert world.place(place).do(lambda s=source: client(s)) == source  # type: ignore[misc]


@each_kind(Kind.TCP6, Kind.UDP6)
def test_S6_link_local_address_of_the_host_reaches_its_typed_ones(world: World, kind: Kind) -> None:
    """To an address on the same link; local routes lead over `lo` there too."""
    graceful = world.address(GRACEFUL, Family.IPV6)
    shown = world.site.host.ip("-6", "-o", "address", "show", "dev", "w1", "scope", "link")
    source = shown.split()[3].partition("/")[0]

    def client() -> str:
        with kind.open() as sock:
            sock.bind((source, 0, 0, socket.if_nametoindex("w1")))
            return exchange(sock, kind, (graceful, _PORT)).seen

    with world.place("every").background(wildcard_server(kind, graceful)):
        for place in (PLAIN, "nothing", "brief"):
            assert world.place(place).do(client).partition("%")[0] == source


def test_A1_link_local_address_of_a_neighbour_does_not(world: World, captures: Captures) -> None:
    """Else an error that quotes it would leave from the typed address, to the neighbour."""
    graceful = world.address(GRACEFUL, Family.IPV6)

    def client() -> None:
        with Kind.UDP6.open() as sock:
            freebind(sock)
            sock.bind(("fe80::bad", 0, 0, socket.if_nametoindex("w1")))
            sock.sendto(b"x", (graceful, 9))

    for place in (PLAIN, "nothing", "brief"):
        assert world.place(place).do(lambda: outcome(client)) == "EPERM"
    assert not any(str(each.source) == graceful for each in captures.at("B").packets())


@each_family
def test_S6_link_local_destinations_are_left_alone(world: World, family: Family) -> None:
    """A neighbour on the link: no typed source for fe80::/10 or 169.254/16."""
    if family is Family.IPV6:
        kind = Kind.UDP6
        shown = world.site.a.ip("-6", "-o", "address", "show", "dev", "to-host", "scope", "link")
        scope = world.site.host.call(socket.if_nametoindex, "w0")
        to: tuple[Any, ...] = (shown.split()[3].partition("/")[0], 9, 0, scope)
    else:
        kind = Kind.UDP4
        to = ("169.254.77.1", 9)
    route = ("route", "add", "169.254.0.0/16", "dev", "w0")
    world.site.host.ip(*route)
    try:

        def application() -> str:
            with kind.open() as sock:
                sock.connect(to)
                return str(sock.getsockname()[0])

        name = world.place("fixed").do(application)
    finally:
        world.site.host.ip("route", "del", *route[2:])
    expected = "fe80::" if family is Family.IPV6 else str(LINKS["A", family][2])
    assert name.startswith(expected)


@each_type()
@each_kind(Kind.TCP6, Kind.TCP4, Kind.MPTCP6)
def test_S1_accepted_sockets_carry_type_and_class(
    world: World, kind: Kind, type: AddressType
) -> None:
    """What its listener asked for is read back from each of them, and shown by the agent."""

    def server(ready: Ready) -> None:
        with _open(kind) as sock:
            ask(sock, type)
            sock.settimeout(None)
            sock.bind((kind.wildcard, _PORT))
            sock.listen(4)
            ready(sock.getsockname()[0])
            stream, _ = sock.accept()
            ready((asked(stream) & TYPE_MASK) >> TYPE_SHIFT)
            stream.recv(1)

    with world.place("every").conversation(server) as talk:
        address = talk.hear()
        assert type_of(address) is type
        with world.site.c.call(socket.socket, kind.af) as caller:
            caller.connect((address, _PORT))
            assert talk.hear() == type
            shown = [
                view
                for view in world.agent.read("sockets")
                if (view["class"], view["state"], view["protocol"]) == ("every", "ESTAB", "tcp")
            ]
            assert [view["type"] for view in shown] == [type.word]
