"""Asks a link whether an IPv4 address is in use there, before we take it (RFC 5227).

A shortened probe: the RFC's timers (1 s random wait, three probes 1 to 2 s apart, 2 s for answers)
are meant for hosts that start all at once; the addresses here are reserved for us by configuration,
and only mistakes are to be found.
"""

import asyncio
import errno
import fcntl
import os
import socket
import struct
from contextlib import suppress
from ipaddress import IPv4Address
from typing import Final

from odm_agent.core.errors import KernelError

_ETH_P_ARP: Final = 0x0806
_ARPHRD_ETHER: Final = 1
_SIOCGIFFLAGS: Final = 0x8913
_IFF_UP: Final = 0x1
_IFF_NOARP: Final = 0x80
_PACKET_OUTGOING: Final = 4
_BROADCAST: Final = b"\xff" * 6
#: Hardware type, protocol type, lengths, operation, then sender and target pairs (RFC 826).
_ARP: Final = struct.Struct("!HHBBH6s4s6s4s")
_REQUEST: Final = 1


async def in_use(
    interface: str, address: IPv4Address, *, timeout_s: float = 1.0, probes: int = 3
) -> bool:
    """Whether another station on the link has or is just claiming `address`; done in `timeout_s`.

    Sends `probes` ARP probes evenly spread, the last with time left for its answer. Interfaces
    without ARP can't have conflicts: False. Raises KernelError (the interface is gone or down).
    Open in the calling thread's network namespace.
    """
    if probes < 1 or timeout_s <= 0:
        raise ValueError("a probe takes at least one packet and some time")
    try:
        with _opened(interface) as sock:
            return await _in_use(sock, interface, address, timeout_s, probes)
    except OSError as error:
        raise _failed(interface, error) from error


async def _in_use(
    sock: socket.socket, interface: str, address: IPv4Address, timeout_s: float, probes: int
) -> bool:
    if not _resolves(sock, interface):
        return False
    hardware = sock.getsockname()[4]
    packet = _ARP.pack(
        *(_ARPHRD_ETHER, 0x0800, 6, 4, _REQUEST),
        *(hardware, bytes(4), bytes(6), address.packed),
    )
    try:
        async with asyncio.timeout(timeout_s):
            async with asyncio.TaskGroup() as group:
                sender = group.create_task(
                    _send(sock, interface, packet, probes, timeout_s / probes)
                )
                await _conflict(sock, address, hardware)
                sender.cancel()
                return True
    except TimeoutError:
        return False
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures


def conflicts(packet: bytes, address: IPv4Address, hardware: bytes) -> bool:
    """Whether an ARP packet on the link says that somebody else has or claims `address`.

    RFC 5227, 2.1.1: any packet whose sender address it is, and others' probes for it.
    """
    if len(packet) < _ARP.size:
        return False
    *_, operation, sender, sender_ip, _, target_ip = _ARP.unpack_from(packet)
    if sender == hardware:
        return False  # our own, sent back by a switch or bridge
    if sender_ip == address.packed:
        return True
    return bool(operation == _REQUEST and sender_ip == bytes(4) and target_ip == address.packed)


async def _send(
    sock: socket.socket, interface: str, packet: bytes, probes: int, pause_s: float
) -> None:
    for _ in range(probes):
        with suppress(BlockingIOError):  # a full queue is as good as a lost packet
            sock.sendto(packet, (interface, _ETH_P_ARP, 0, 0, _BROADCAST))
        await asyncio.sleep(pause_s)


async def _conflict(sock: socket.socket, address: IPv4Address, hardware: bytes) -> None:
    """Return as soon as a conflicting packet arrives."""
    loop = asyncio.get_running_loop()
    while True:
        packet, sender = await loop.sock_recvfrom(sock, 128)
        if sender[2] != _PACKET_OUTGOING and conflicts(packet, address, hardware):
            return


def _opened(interface: str) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
    try:
        sock.bind((interface, _ETH_P_ARP))
    except OSError:
        sock.close()
        raise
    return sock


def _resolves(sock: socket.socket, interface: str) -> bool:
    """Whether the interface is an Ethernet that uses ARP; raises KernelError if it is down."""
    if sock.getsockname()[3] != _ARPHRD_ETHER:
        return False
    answer = fcntl.ioctl(sock, _SIOCGIFFLAGS, struct.pack("16sH14x", interface.encode(), 0))
    (flags,) = struct.unpack_from("H", answer, 16)
    if not flags & _IFF_UP:
        raise OSError(errno.ENETDOWN, os.strerror(errno.ENETDOWN))
    return not flags & _IFF_NOARP


def _failed(interface: str, error: OSError) -> KernelError:
    return KernelError(
        f"probing for address conflicts on {interface}: {error.strerror}. "
        "The address is not used until a probe succeeds; bring the interface up."
    )
