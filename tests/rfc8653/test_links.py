"""Groups of multicast and broadcasts: sent by a class with a default as by a program of no class.

Which is tried beside it; told by captures at both gateways.
"""

import socket
import struct
from collections.abc import Callable
from typing import Final

import pytest

from odm_agent.core.model import Family
from odm_agent.datapath.maps.reader import MapReader
from tests.lab.cases import each_family
from tests.lab.client import ask, outcome
from tests.lab.host import FIXED, LINKS, Captures
from tests.lab.world import PLAIN, World

#: Classes whose type is on the one or the other gateway: "session" fails closed, "brief" open.
OF: Final = {"A": "session", "B": "brief"}
INTERFACE: Final = {"A": "w0", "B": "w1"}
PORT: Final = 1900

each_letter = pytest.mark.parametrize("letter", ["A", "B"])


GROUP: Final = {Family.IPV4: "239.255.255.250", Family.IPV6: "ff05::c"}
WIDE: Final = {Family.IPV4: "233.252.0.1", Family.IPV6: "ff0e::114"}
_AF: Final = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}

Way = Callable[[socket.socket, Family, str, str], None]


def _by_sendto(sock: socket.socket, family: Family, to: str, interface: str) -> None:
    sock.sendto(b"x", (to, PORT))


def _by_connect(sock: socket.socket, family: Family, to: str, interface: str) -> None:
    sock.connect((to, PORT))
    sock.send(b"x")


def _with_a_port(sock: socket.socket, family: Family, to: str, interface: str) -> None:
    sock.bind(("::" if family is Family.IPV6 else "0.0.0.0", 0))
    _by_connect(sock, family, to, interface)


def _bound_to_the_group(sock: socket.socket, family: Family, to: str, interface: str) -> None:
    """As a program does that has joined it."""
    _join(sock, family, to, interface)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((to, PORT))
    sock.sendto(b"x", (to, PORT))


def _by_option(sock: socket.socket, family: Family, to: str, interface: str) -> None:
    """IP_MULTICAST_IF, IPV6_MULTICAST_IF."""
    index = socket.if_nametoindex(interface)
    if family is Family.IPV6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    else:
        request = struct.pack("=4s4si", bytes(4), bytes(4), index)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, request)
    sock.sendto(b"x", (to, PORT))
    sock.connect((to, PORT))
    sock.send(b"x")


def _by_message(sock: socket.socket, family: Family, to: str, interface: str) -> None:
    """IP_PKTINFO, IPV6_PKTINFO, with an interface and no address."""
    index = socket.if_nametoindex(interface)
    if family is Family.IPV6:
        info = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, struct.pack("=16sI", bytes(16), index))
    else:
        info = (socket.IPPROTO_IP, 8, struct.pack("=I8s", index, bytes(8)))
    sock.sendmsg([b"x"], [info], 0, (to, PORT))


def _by_scope(sock: socket.socket, family: Family, to: str, interface: str) -> None:
    """The zone of the address (RFC 4007); IPv4 has none."""
    if family is Family.IPV6:
        sock.sendto(b"x", (to, PORT, 0, socket.if_nametoindex(interface)))


def _join(sock: socket.socket, family: Family, group: str, interface: str) -> None:
    index = socket.if_nametoindex(interface)
    packed = socket.inet_pton(_AF[family], group)
    if family is Family.IPV6:
        request = packed + struct.pack("=I", index)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
    else:
        request = packed + struct.pack("=4si", bytes(4), index)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)


WAYS: Final[dict[str, Way]] = {
    "sendto": _by_sendto,
    "connect": _by_connect,
    "connect with a port": _with_a_port,
    "bound to the group": _bound_to_the_group,
    "the interface by option": _by_option,
    "the interface by control message": _by_message,
    "the interface by zone": _by_scope,
}


def _sent(
    world: World, captures: Captures, place: str, family: Family, to: str, do: Callable[..., object]
) -> list[tuple[str, str]]:
    """Gateway and source of what arrived at either for `to`, sent by `do` in a place."""

    def application() -> None:
        with socket.socket(_AF[family], socket.SOCK_DGRAM) as sock:
            do(sock)

    world.place(place).do(application)
    return [
        (letter, str(packet.source))
        for letter in "AB"
        for packet in captures.at(letter).packets()
        if str(packet.destination) == to and packet.port == PORT
    ]


@each_letter
@each_family
@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("groups", [GROUP, WIDE], ids=["site", "global"])
def test_N4_groups_are_reached_as_by_a_program_of_no_class(
    world: World,
    captures: Captures,
    family: Family,
    letter: str,
    way: str,
    groups: dict[Family, str],
) -> None:
    """By the same interface and from the same source, whichever the class's own uplink is."""
    to = groups[family]
    for interface in INTERFACE.values():
        plain, typed = (
            _sent(
                *(world, captures, place, family, to),
                lambda sock: WAYS[way](sock, family, to, interface),  # noqa: B023
            )
            for place in (PLAIN, OF[letter])
        )
        assert typed == plain
        assert plain or (way == "the interface by zone" and family is Family.IPV4)


@each_letter
def test_N4_broadcasts_are_sent_as_by_a_program_of_no_class(
    world: World, captures: Captures, letter: str
) -> None:
    family = Family.IPV4
    networks = (LINKS["A", family][0], LINKS["B", family][0])
    for to in ("255.255.255.255", *(str(network[-1]) for network in networks)):
        for way in (_by_sendto, _by_connect, _with_a_port, _by_message):

            def send(sock: socket.socket) -> None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                way(sock, family, to, INTERFACE[letter])  # noqa: B023

            plain, typed = (
                _sent(world, captures, place, family, to, send) for place in (PLAIN, OF[letter])
            )
            assert typed == plain


#: An address on w0, and a broadcast address that the kernel makes of it, whatever else is set.
SUBNETS: Final = {
    "none is set": ("198.18.7.1/24", "198.18.7.255"),
    "another one is set": ("198.18.8.1/24 broadcast 198.18.8.254", "198.18.8.255"),
    "the other one": ("198.18.8.1/24 broadcast 198.18.8.254", "198.18.8.254"),
    "all hosts are set, as some DHCP servers have it": (
        "198.18.9.1/24 broadcast 255.255.255.255",
        "198.18.9.255",
    ),
    "it is the peer's subnet": ("198.18.10.1 peer 198.18.11.2/24", "198.18.11.255"),
}


@pytest.mark.parametrize("name", SUBNETS)
def test_N4_broadcasts_of_a_subnet_are_sent_so_whatever_is_set(
    world: World, captures: Captures, name: str
) -> None:
    added, to = SUBNETS[name]
    world.site.host.ip("address", "add", *added.split(), "dev", "w0")
    try:
        world.agent.reload()

        def send(sock: socket.socket) -> None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.sendto(b"x", (to, PORT))

        plain, typed = (
            _sent(world, captures, place, Family.IPV4, to, send) for place in (PLAIN, OF["A"])
        )
        assert plain, "the control"
        assert typed == plain
    finally:
        world.site.host.ip("address", "delete", added.split()[0], "dev", "w0")


@pytest.mark.parametrize("place", ["every", "strict"])
def test_N4_datagram_to_a_group_that_would_be_lost_on_lo_is_refused(
    world: World, captures: Captures, place: str
) -> None:
    """IPv4 takes a source on `lo` for the wish to send there, whether a request gave it, a strict
    class's default or bind(). With an interface, or on the link, it leaves.
    """
    to = GROUP[Family.IPV4]
    source = world.address(FIXED, Family.IPV4)

    def application() -> list[str]:
        told = []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            if place == "every":
                ask(sock, FIXED)
            told.append(outcome(lambda: sock.sendto(b"x", (to, PORT))))
            told.append(outcome(lambda: sock.sendto(b"x", ("224.0.0.251", PORT))))
            index = socket.if_nametoindex("w0")
            request = struct.pack("=4s4si", bytes(4), bytes(4), index)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, request)
            told.append(outcome(lambda: sock.sendto(b"x", (to, PORT))))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((source, 0))
            told.append(outcome(lambda: sock.sendto(b"x", (to, PORT))))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
            told.append(outcome(lambda: sock.sendto(b"x", (to, PORT))))
        return told

    before = _refused_for(world, "uplink")
    assert world.place(place).do(application) == ["EPERM", "ok", "ok", "EPERM", "ok"]
    assert _refused_for(world, "uplink") - before == 2
    seen = [str(p.source) for p in captures.at("A").packets() if str(p.destination) == to]
    assert seen == [source]


def _refused_for(world: World, reason: str) -> int:
    with MapReader(world.agent.pins) as datapath:
        return sum(
            count
            for key, count in datapath.verdicts().items()
            if (key.hook, key.verdict, key.reason) == ("egress", "refuse", reason)
        )
