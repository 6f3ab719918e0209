"""Conflict detection with a real neighbour on a veth link."""

import asyncio
import resource
import socket
import threading
import time
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from odm_agent.core.errors import KernelError
from odm_agent.kernel.conflict import conflicts, in_use
from tests.lab.netns import NetNs, veth

TAKEN, FREE = IPv4Address("192.0.2.77"), IPv4Address("192.0.2.78")
HARDWARE = bytes.fromhex("020000000001")


@pytest.fixture
def link() -> Iterator[tuple[NetNs, NetNs]]:
    with NetNs("host") as host, NetNs("other") as other:
        veth(host, "w0", other, "o0")
        other.ip("address", "add", f"{TAKEN}/24", "dev", "o0")
        yield host, other


def probe(netns: NetNs, address: IPv4Address, interface: str = "w0") -> bool:
    return netns.call(lambda: asyncio.run(in_use(interface, address, timeout_s=0.5)))


def test_an_address_of_a_neighbour_is_in_use_and_found_quickly(link: tuple[NetNs, NetNs]) -> None:
    started = time.monotonic()
    assert probe(link[0], TAKEN) is True
    assert time.monotonic() - started < 0.3


def arp_listener() -> socket.socket:
    """Hears the ARP packets that arrive on o0."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
    sock.bind(("o0", 0x0806))
    return sock


def test_a_free_address_is_free_after_three_probes(link: tuple[NetNs, NetNs]) -> None:
    host, other = link
    with other.call(arp_listener) as listener:
        assert probe(host, FREE) is False
        heard = [listener.recv(128) for _ in range(3)]
        with pytest.raises(BlockingIOError):
            listener.recv(128)
    # A request (1) for the address, from nobody: it changes no neighbour's cache.
    assert {(each[7], each[14:18], each[24:28]) for each in heard} == {(1, bytes(4), FREE.packed)}


def test_of_two_that_probe_at_once_at_most_one_gets_it(link: tuple[NetNs, NetNs]) -> None:
    host, other = link

    async def both() -> list[bool]:
        return list(
            await asyncio.gather(
                asyncio.to_thread(probe, host, FREE), asyncio.to_thread(probe, other, FREE, "o0")
            )
        )

    assert any(asyncio.run(both()))


def test_interfaces_without_arp_have_no_conflicts(link: tuple[NetNs, NetNs]) -> None:
    host, _ = link
    assert probe(host, IPv4Address("127.0.0.1"), "lo") is False
    host.ip("link", "set", "w0", "arp", "off")
    assert probe(host, TAKEN) is False


def test_interfaces_that_are_down_or_gone_are_errors(link: tuple[NetNs, NetNs]) -> None:
    host, _ = link
    host.ip("link", "set", "w0", "down")
    with pytest.raises(KernelError, match="conflicts on w0: Network is down"):
        probe(host, TAKEN)
    with pytest.raises(KernelError, match="conflicts on w9: No such device"):
        probe(host, TAKEN, "w9")


@pytest.mark.parametrize("command", [("set", "w0", "down"), ("delete", "w0")])
def test_an_interface_that_goes_meanwhile_is_an_error(
    link: tuple[NetNs, NetNs], command: tuple[str, ...]
) -> None:
    host, _ = link
    soon = threading.Timer(0.15, host.ip, ("link", *command))
    soon.start()
    with pytest.raises(KernelError, match="conflicts on w0: "):
        probe(host, FREE)
    soon.join()


def test_no_descriptor_left_is_an_error() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def main() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            await in_use("lo", FREE)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    with pytest.raises(KernelError, match="conflicts on lo: Too many open files"):
        asyncio.run(main())


def packet(operation: int, sender: bytes, sender_ip: str, target_ip: str) -> bytes:
    return (
        bytes.fromhex("000108000604")
        + operation.to_bytes(2, "big")
        + sender
        + IPv4Address(sender_ip).packed
        + bytes(6)
        + IPv4Address(target_ip).packed
    )


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (packet(2, b"other0", str(FREE), "192.0.2.1"), True),  # an answer
        (packet(1, b"other0", str(FREE), "192.0.2.1"), True),  # a user of the address asks
        (packet(1, b"other0", "0.0.0.0", str(FREE)), True),  # another's probe
        (packet(1, HARDWARE, "0.0.0.0", str(FREE)), False),  # our own, come back
        (packet(1, b"other0", "192.0.2.1", str(FREE)), False),  # somebody looks for it
        (packet(2, b"other0", "192.0.2.1", str(FREE)), False),
        (b"\0" * 10, False),
    ],
)
def test_what_counts_as_a_conflict(data: bytes, expected: bool) -> None:
    assert conflicts(data, FREE, HARDWARE) is expected
