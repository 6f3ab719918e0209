"""Router advertisements are heard, with what tells whether a router of the link has sent them."""

import select
import time
from collections.abc import Iterator
from ipaddress import IPv6Address, IPv6Network

import pytest

from odm_agent.core.errors import KernelError
from odm_agent.core.model import AddressType
from odm_agent.kernel.ra_socket import Heard, RaSocket
from odm_agent.sources.ra.codec import Advertised, advertised
from tests.lab.icmp6 import send_on
from tests.lab.netns import NetNs, veth
from tests.unit.sources.ra.test_codec import CODE, message, option

LINK_TIME_S = 20.0


@pytest.fixture
def link() -> Iterator[tuple[NetNs, NetNs]]:
    with NetNs("host") as host, NetNs("router") as router:
        veth(host, "w0", router, "g0")
        yield host, router


def heard(sock: RaSocket, router: NetNs, data: bytes, hops: int = 255) -> Heard:
    """What is heard of a message; it is sent again until something is."""
    until_s = time.monotonic() + LINK_TIME_S
    while time.monotonic() < until_s:
        router.call(send_on, "g0", data, hops)
        if select.select([sock], [], [], 0.5)[0] and (found := sock.receive()):
            return found[0]
    raise AssertionError("nothing is heard")


def test_a_typed_prefix_is_heard(link: tuple[NetNs, NetNs]) -> None:
    host, router = link
    sock = host.call(RaSocket, "w0")
    try:
        found = heard(sock, router, message(option()))
        assert IPv6Address(found.sender.partition("%")[0]).is_link_local
        assert found.hop_limit == 255
        assert advertised(found.data, found.sender, found.hop_limit, CODE) == (
            Advertised(IPv6Network("2001:db8:7::/64"), AddressType.FIXED, 600.0),
        )
    finally:
        sock.close()


def test_what_was_forwarded_is_told_apart_and_other_messages_are_not_heard(
    link: tuple[NetNs, NetNs],
) -> None:
    host, router = link
    sock = host.call(RaSocket, "w0")
    try:
        assert heard(sock, router, message(option()), hops=64).hop_limit == 64
        while select.select([sock], [], [], 0.5)[0]:
            sock.receive()
        router.call(send_on, "g0", bytes([128, 0, 0, 0, 0, 1, 0, 1]))  # an echo request
        router.call(send_on, "g0", bytes([136, 0, 0, 0]) + bytes(20))  # a neighbour advertisement
        assert not select.select([sock], [], [], 0.5)[0]
    finally:
        sock.close()


def test_an_interface_that_is_not_there_is_named(link: tuple[NetNs, NetNs]) -> None:
    with pytest.raises(KernelError, match="advertisements on nowhere"):
        link[0].call(RaSocket, "nowhere")
